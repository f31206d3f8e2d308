"""Runs of the face task: their settings, people, network and end."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from siamese.config import (
    CLASS_WEIGHT_LOSSES,
    DEMO_IMAGES,
    DEMO_PEOPLE,
    DEMO_SEED,
    DEMO_SIZE,
    FACE_IMMATERIAL,
    AugmentSettings,
    LimitSettings,
    LossSettings,
    TrainerSettings,
    TrainSettings,
    check_settings,
    default_betas,
    default_lr,
    parts_of_single_pictures,
)
from siamese.data.cache import PictureCache, open_cache
from siamese.data.cleaning import cleaned, kept_only
from siamese.data.folder import FaceFolder, scan_folder
from siamese.data.labelled_pictures import PictureReader
from siamese.data.loaders import default_workers
from siamese.data.split import Split, make_split
from siamese.data.split_lists import read_again, read_split
from siamese.data.transforms import Preprocess
from siamese.demo.demo_faces import write_demo_faces
from siamese.errors import UserError, first_few
from siamese.models.device import choose_device, choose_precision
from siamese.models.embedder import EmbedderSpec, SiameseEmbedder, require_backbone
from siamese.models.loading import embedder_of, load_start_weights, spec_of
from siamese.tasks.faces.face_fitting import with_fitting_people
from siamese.tasks.faces.face_log import FaceLog, failure_reporter, write_run_files
from siamese.tasks.faces.face_task import FaceTask
from siamese.tasks.faces.from_data import with_choices
from siamese.tasks.faces.metric_losses import (
    MetricLoss,
    sharing_classes,
    with_earlier_values,
    with_values,
)
from siamese.tasks.faces.own_parts import DatasetReader, FaceLoss, OwnLoss, OwnParts, dataset_folder
from siamese.training.compiling import is_compiled
from siamese.training.fitting import require_gpu
from siamese.training.launch import Prepared, RunContext, Say, resume_run, start_run
from siamese.training.narrow_convolutions import mend_narrow_convolutions
from siamese.training.probing import PlannedRun
from siamese.training.tuning import tuned
from siamese.verification.enough import too_few_pairs, too_few_people


def train_faces(settings: TrainSettings) -> Path:
    """Train a new run; see :func:`siamese.training.launch.start_run`."""
    return start_run(FaceRuns(), settings)


def train_compared(settings: TrainSettings) -> Path:
    """The same for a run that others are held against.

    On a CPU it is in float32 where no precision is set, whatever a measurement would choose there:
    two of them shall not differ in that.
    """
    trainer = settings.trainer
    if trainer.precision == "auto" and choose_device(settings.device).type == "cpu":
        settings = replace(settings, trainer=replace(trainer, precision="fp32"))
    return train_faces(settings)


def resume_training(
    target: str,
    checkpoints: str,
    parse: Callable[[dict[str, Any]], TrainSettings],
    limits: LimitSettings | None = None,
) -> Path:
    """Continue a run; see :func:`siamese.training.launch.resume_run`."""
    return resume_run(FaceRuns(), target, checkpoints, parse, limits)


_RECALIBRATED = 1024  # pictures that the batch norms are measured on
_SMALLER = "`batches.chunk`, `batches.people`, `batches.images` and `images.size`, in a new run"


class FaceRuns:
    """See :class:`siamese.training.launch.TaskRuns`; ``own``: parts that a program hands over."""

    kind = "embedder"
    settings_class = TrainSettings
    resume = "siamese-train --resume"
    anew = "start a new run with `model.weights` CHECKPOINT"
    may_change = FACE_IMMATERIAL | {
        "data",
        "split.validation_data",
        "split.test_data",
        "trainer.epochs",
        "model.grad_checkpointing",
    }

    def __init__(self, own: OwnParts | None = None):
        self.own = OwnParts() if own is None else own

    def check(self, settings: TrainSettings) -> None:
        """Refuse settings that cannot work; UserError."""
        self.own.check(settings)
        check_settings(settings)

    def check_network(self, settings: TrainSettings) -> None:
        """Refuse an unknown backbone, and a batch that only a GPU can tell; UserError."""
        if settings.batches.people == "auto":
            require_gpu(choose_device(settings.device))
        if self.own.backbone is None:
            require_backbone(settings.model.backbone)

    def base_name(self, settings: TrainSettings) -> str:
        """The data and the backbone."""
        data = "demo" if settings.data is None else Path(settings.data).resolve().name
        backbone = settings.model.backbone.split(".")[0].replace("/", "-")
        if self.own.dataset is not None:
            data = type(self.own.dataset).__name__
        if self.own.backbone is not None:
            backbone = type(self.own.backbone).__name__
        return f"{data}-{backbone}"

    def default_lr(self, settings: TrainSettings) -> tuple[float, str]:
        """By optimizer, and by where the weights come from."""
        name, is_random = settings.optimizer.name, settings.model.is_random
        kind = "random weights" if is_random else "weights that were learnt before"
        return default_lr(name, is_random), f"{name} from {kind}"

    def check_content(self, path: Path, content: Mapping[str, Any]) -> None:
        """Refuse other parts of a program's than the run began with; UserError.

        Whether the weights fit is seen when the embedder is built.
        """
        self.own.require_same(content["versions"], str(path))

    def is_finished(self, settings: TrainSettings, progress: Mapping[str, Any]) -> bool:
        """Nothing is left to do after the last epoch."""
        return True

    def load(self, settings: TrainSettings, context: RunContext) -> Split:
        """The people of each part; the first process draws the demo faces where they are wanted."""

        def split() -> Split:
            folders = self._folders(settings)
            if context.content is None:
                return _cleaned(_split(settings, folders), settings, context.say)
            return _saved_split(context.content["split"], settings, context, folders)

        found = context.distribution.first_then_all(split)
        _say_split(found, context.say)
        return found

    def _folders(self, settings: TrainSettings) -> Callable[[], dict[str, FaceFolder]]:
        """What lists the pictures of every folder that the settings name."""
        if self.own.dataset is not None:
            pictures = dataset_folder(self.own.dataset)
            return lambda: {"data": pictures}
        return lambda: _scan(settings)

    def _model(
        self, settings: TrainSettings, context: RunContext
    ) -> tuple[SiameseEmbedder, EmbedderSpec]:
        """The embedder with the weights to start from, and its description."""
        if context.content is None:
            model = _build_model(settings, context.say, self.own.backbone)
            spec = model.spec(settings.images.fit, settings.images.crop)
            _check_input_size(model, spec.size)
        else:
            assert context.source is not None
            content, spec = dict(context.content), spec_of(context.content)
            model = embedder_of(
                content,
                context.source,
                dropout=settings.model.dropout,
                drop_path=settings.model.drop_path,
                embedding_dropout=settings.model.embedding_dropout,
                backbone=self.own.backbone,
            ).train()
        mend_narrow_convolutions(model, context.device)
        both = settings.loss.triplet_weight > 0 and spec.neck != "none"
        model.both_sides = both and self.own.loss is None
        if settings.model.grad_checkpointing:
            model.checkpoint_gradients()
        return model, spec

    def _loss(
        self, settings: TrainSettings, people: int, embedding_dim: int, context: RunContext
    ) -> FaceLoss:
        if self.own.loss is not None:
            return OwnLoss(self.own.loss)
        loss, batches, epochs = settings.loss, settings.batches, settings.trainer.epochs_run
        if loss.miner != "none" and loss.miner_after >= epochs:
            raise UserError(
                f"`loss.miner_after` {loss.miner_after}: of {epochs} epochs the miner would see "
                "none; lower it"
            )
        distribution = sharing_classes(settings.optimizer.name, loss.name, context.distribution)
        if loss.memory:  # PML's holds at least the batch
            least = batches.people_drawn * batches.images_drawn
            loss = replace(loss, memory=max(loss.memory, least))
        return MetricLoss(loss, people, embedding_dim, distribution, settings.seed)

    def _reader(
        self, settings: TrainSettings, context: RunContext, data: Split, spec: EmbedderSpec
    ) -> PictureReader | None:
        """What reads decoded pictures; None: the task decodes them."""
        if self.own.dataset is None:
            return context.distribution.first_then_all(lambda: _open_cache(settings, data, spec))
        prepare = Preprocess(spec.size, settings.images.fit, spec.crop)
        return DatasetReader(self.own.dataset, prepare)

    def _chosen(
        self, settings: TrainSettings, context: RunContext, train: FaceFolder
    ) -> TrainSettings:
        """The settings with what follows from the data and the optimizer where it is left open."""
        say = context.say if self.own.sampler is None else lambda _: None
        if settings.optimizer.betas is None:
            betas = default_betas(settings.optimizer.name)
            settings = replace(settings, optimizer=replace(settings.optimizer, betas=betas))
        settings = with_choices(settings, list(train.counts().values()), say)
        in_batches = self._augments_in_batches(settings.augment, context)
        settings = replace(settings, augment=replace(settings.augment, in_batches=in_batches))
        if context.content is not None:
            return replace(settings, loss=with_earlier_values(settings.loss))
        people = len(train.names)
        loss = with_values(settings.loss, people)
        _say_scale(loss, settings.loss, people, context.say)
        return replace(settings, loss=loss)

    def _augments_in_batches(self, settings: AugmentSettings, context: RunContext) -> bool:
        """Whether whole batches are augmented, which a run decides when it begins."""
        wanted, own = settings.in_batches, self.own.augment is not None
        if wanted is True and own:
            raise UserError("`augment.in_batches` true: an own `augment` changes single pictures")
        if wanted != "auto":
            return wanted
        possible = not own and not parts_of_single_pictures(settings)
        # Earlier runs, which have not stored it, changed single pictures.
        return possible and context.device.type == "cuda" and context.content is None

    def prepare(self, settings: TrainSettings, context: RunContext, data: Split) -> Prepared:
        """Build embedder and loss, with the weights to start from, and the P x K batches."""
        people = len(data.train.names)
        settings = self._chosen(settings, context, data.train)
        model, spec = self._model(settings, context)
        device = context.device
        model = model.to(device)
        if settings.batches.people == "auto":
            settings = with_fitting_people(settings, context, model, data.train, self.own.loss)
        trainer, precision = _measured(settings, context, model, data.train)
        settings = replace(settings, trainer=trainer)
        reader = self._reader(settings, context, data, spec)
        loss = self._loss(settings, people, spec.embedding_dim, context).to(device)
        workers = settings.batches.workers
        folder = Path(settings.runs) / str(settings.name)
        faster = settings.optimizer.head_lr_factor
        task = FaceTask(
            settings,
            data,
            model,
            spec,
            loss,
            device,
            precision,
            default_workers(device.type) if workers is None else workers,
            failure_reporter(folder, context.say),
            reader,
            context.distribution,
            self.own,
        )
        return Prepared(
            settings=settings,
            task=task,
            modules={"backbone": model.backbone, "head": model.top(), "loss": loss},
            headline=[_headline(settings, task)],
            watched=trainer.select,
            open_log=lambda folder, step, epoch: FaceLog(folder, task, settings, step, epoch),
            begin=lambda folder: write_run_files(folder, data),
            examples=lambda: next(task.fixed_batches(1)).cpu().contiguous(),
            notes=_too_few(data),
            next_step="siamese-eval roc --checkpoint {}"
            + ("" if data.test is None else " --part test"),
            shared=loss.shared,
            lr_factors={"head": faster, "loss": faster * settings.loss.lr_factor},
            layer_decays={"backbone": settings.optimizer.layer_decay},
            accumulate=trainer.accumulate,
            recalibration_batches=recalibration_batches(trainer, task.draws.batch_size),
            smaller=_SMALLER,
            scales_loss=precision == torch.float16,
            unit="pictures",
            written="log, settings, metrics, data report",
        )


def _measured(
    settings: TrainSettings, context: RunContext, model: SiameseEmbedder, train: FaceFolder
) -> tuple[TrainerSettings, torch.dtype]:
    """The trainer's settings with what a few steps decided, and the precision; see
    :func:`siamese.training.tuning.tuned`.
    """
    trainer, batches, device = settings.trainer, settings.batches, context.device
    whole = batches.chunk is None

    def batch() -> torch.Tensor:
        side, people = settings.images.size, min(batches.people_drawn, len(train.names))
        shape = (people * batches.images_drawn, 3, side, side)
        return torch.zeros(shape, dtype=torch.uint8, device=device)

    run = PlannedRun(
        model,
        batch,
        trainer.epochs_run * (batches.images_per_epoch or len(train.paths)),
        model.backbone_name + " recomputing" * settings.model.grad_checkpointing,
        Path(settings.runs),
        context.say,
    )
    trainer, arithmetic = tuned(
        trainer if whole else replace(trainer, compile=False),
        run,
        choose_precision(trainer.precision, device),
        device,
        processes=context.distribution.world,
        new=whole and context.content is None,
        may_round=trainer.precision == "auto",
        smaller=_SMALLER,
    )
    return trainer, arithmetic.precision


def recalibration_batches(trainer: TrainerSettings, batch: int) -> int:
    """Batches that measure the batch norms anew, where none are set.

    From 1024 pictures the validation AUC differs between draws by a standard deviation of 0.0004,
    and from 3200 as much (scripts/bench_recalibration.py).
    """
    if trainer.recalibration_batches is not None:
        return trainer.recalibration_batches
    return min(max(math.ceil(_RECALIBRATED / batch), 8), 50)


def _headline(settings: TrainSettings, task: FaceTask) -> str:
    parameters = sum(p.numel() for p in task.model.parameters())
    world, optimizer = task.distribution.world, settings.optimizer
    shared = f" shared by {world} processes" * (world > 1)
    compiles = ", compiled" * is_compiled(settings.trainer.compile)
    return (
        f"{task.spec.backbone}, {parameters / 1e6:.1f} M parameters, {task.spec.size} px on "
        f"{task.device} in {str(task.precision).removeprefix('torch.')}; batches of "
        f"{task.draws.drawn}{shared}{compiles}; {optimizer.name} at lr {optimizer.lr:g}; "
        f"{task.workers} loader process(es)"
    )


def _split(settings: TrainSettings, scan: Callable[[], dict[str, FaceFolder]]) -> Split:
    if settings.split.lists is not None and settings.data is not None:
        split = read_split(Path(settings.split.lists), Path(settings.data))
        if settings.trainer.test_curve and split.test is None:
            raise UserError(
                f"`trainer.test_curve` true: there is no test.csv in {settings.split.lists}"
            )
        return split
    folders = scan()
    return make_split(
        folders["data"],
        validation=settings.split.validation,
        test=settings.split.test,
        seed=settings.split_seed,
        train_people=settings.split.train_people,
        validation_folder=folders.get("validation"),
        test_folder=folders.get("test"),
    )


def _cleaned(split: Split, settings: TrainSettings, say: Say) -> Split:
    """The split without the training pictures that an audit called wrong."""
    if settings.clean is None:
        return split
    split, lines = cleaned(split, Path(settings.clean))
    for line in lines:
        say(line)
    return split


def _scan(settings: TrainSettings) -> dict[str, FaceFolder]:
    """The folders that the settings name; the demo faces are drawn where there is no --data."""
    roots = {
        "data": Path(settings.data) if settings.data is not None else demo_folder(settings.runs),
        "validation": settings.split.validation_data,
        "test": settings.split.test_data,
    }
    return {name: scan_folder(Path(root)) for name, root in roots.items() if root is not None}


def _open_cache(settings: TrainSettings, split: Split, spec: EmbedderSpec) -> PictureCache | None:
    """The decoded pictures that the run will read; None where no cache is asked for."""
    if settings.cache is None:
        return None
    parts = split.parts()
    if not settings.trainer.test_curve:  # nobody reads them
        parts.pop("test", None)
    prepare = Preprocess(spec.size, settings.images.fit, spec.crop)
    return open_cache(
        Path(settings.cache),
        list(parts.values()),
        prepare,
        prepare.decode_size,
        workers=settings.batches.workers,
    )


def demo_folder(runs: str) -> Path:
    """Draw the demo faces below ``runs`` where they are not there yet; returns their folder."""
    out = Path(runs) / "demo-faces"
    return write_demo_faces(out, DEMO_PEOPLE, DEMO_IMAGES, DEMO_SIZE, DEMO_SEED)


def _say_split(split: Split, say: Say) -> None:
    for root, part in {part.root: part for part in split.parts().values()}.items():
        if part.left_out:
            say(f"{root}: {part.summary().partition('; ')[2]}; listed in data_report.txt")
    for name, part in split.parts().items():
        say(f"{name}: {len(part.names)} people, {len(part.paths)} pictures")
    singles = sum(count == 1 for count in split.train.counts().values())
    if singles:
        say(f"{singles} training people with a single picture are never drawn (no genuine pair)")


def _too_few(split: Split) -> list[str]:
    """Lines where validation people or pairs cannot tell which epoch is best."""
    pictures = split.validation.counts().values()
    pairs = sum(number * (number - 1) // 2 for number in pictures)
    impostor = math.comb(sum(pictures), 2) - pairs
    lines = (
        too_few_people(len(split.validation.names), "validation people"),
        too_few_pairs(pairs, impostor, "in validation"),
    )
    return [f"{line}; which epoch is best is hardly known either" for line in lines if line]


def _say_scale(chosen: LossSettings, given: LossSettings, people: int, say: Say) -> None:
    """Tell a scale, or a temperature, that the user left to the number of people."""
    for kind in ("scale", "temperature"):
        value = getattr(chosen, kind)
        if chosen.name in CLASS_WEIGHT_LOSSES and value != getattr(given, kind):
            say(
                f"{chosen.name}: {kind} {value:.4g}, which follows from the {people} training "
                f"people (AdaCos, arXiv 1905.00292); `loss.{kind}` sets another"
            )


def _build_model(settings: TrainSettings, say: Say, backbone: nn.Module | None) -> SiameseEmbedder:
    model_settings = settings.model
    from_timm = model_settings.pretrained and model_settings.weights is None and backbone is None
    if from_timm:
        say(f"loading the pretrained weights of {model_settings.backbone} ...")
    model = SiameseEmbedder(
        model_settings.backbone if backbone is None else backbone,
        model_settings.embedding_dim,
        mean=settings.images.mean,
        std=settings.images.std,
        pretrained=from_timm,
        dropout=model_settings.dropout,
        drop_path=model_settings.drop_path,
        size=settings.images.size,
        pooling=model_settings.pooling,
        neck=model_settings.neck,
        embedding_dropout=model_settings.embedding_dropout,
    )
    if model_settings.weights is not None:
        load_start_weights(model, Path(model_settings.weights), settings.limits)
    return model


def _check_input_size(model: SiameseEmbedder, size: int) -> None:
    """One small forward pass: some backbones (transformers) take one size only."""
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, size, size, dtype=torch.uint8))
    except Exception as error:  # whatever the backbone asserts
        raise UserError(
            f"`images.size` {size}: the backbone does not take it ({error}); use its own size"
        ) from None
    model.train(training)


def _saved_split(
    saved: Mapping[str, Any],
    settings: TrainSettings,
    context: RunContext,
    scan: Callable[[], dict[str, FaceFolder]],
) -> Split:
    """The people of the parts that a run began with; UserError where some are missing."""
    checkpoint = context.source
    listed = all("listed" in part for part in saved.values())
    clean = not listed and "listed" in saved["train"]
    if listed:  # the lists themselves may be gone by now
        lists = {name: part.get("listed", {}) for name, part in saved.items()}
        root = Path(settings.data or saved["train"]["folder"])
        folders = read_again(root, lists, str(checkpoint))
    else:
        folders = scan()
    parts: dict[str, FaceFolder] = {}
    for name, part in saved.items():
        folder = folders[name] if listed else folders.get(name, folders["data"])
        missing = sorted(set(part["identities"]) - set(folder.names))
        if missing:
            raise UserError(
                f"{folder.root}: {len(missing)} {name} people of {checkpoint} are missing "
                f"({first_few(missing)}); give the same data with `data`"
            )
        parts[name] = folder.only(part["identities"])
        if clean and name == "train":  # the audit's table may be gone by now
            paths = [path for some in part["listed"].values() for path in some]
            parts[name] = kept_only(parts[name], paths)
        if len(parts[name].paths) != part["pictures"]:
            context.say(
                f"note: {name} has {len(parts[name].paths)} pictures now, {part['pictures']} "
                "before; the run goes on, but not as it would have"
            )
    return Split(parts["train"], parts["validation"], parts.get("test"), listed, clean)
