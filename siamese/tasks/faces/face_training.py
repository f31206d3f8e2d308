"""Train the face embedder: from settings to checkpoints, anew or continued."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from siamese.config import (
    DEMO_IMAGES,
    DEMO_PEOPLE,
    DEMO_SEED,
    DEMO_SIZE,
    FACE_IMMATERIAL,
    LimitSettings,
    LossSettings,
    TrainSettings,
    check_settings,
    default_lr,
)
from siamese.config.reading import build_settings, flat_settings
from siamese.data.batches import default_workers
from siamese.data.cache import PictureCache, open_cache
from siamese.data.folder import FaceFolder, scan_folder
from siamese.data.split import Split, make_split
from siamese.data.split_lists import read_again, read_split
from siamese.data.transforms import Preprocess
from siamese.demo.demo_faces import write_demo_faces
from siamese.errors import UserError, first_few
from siamese.files.writing import going_on
from siamese.models.checkpoint import read_checkpoint
from siamese.models.device import choose_device, choose_precision
from siamese.models.embedder import EmbedderSpec, SiameseEmbedder, require_backbone
from siamese.models.loading import embedder_of, load_start_weights, spec_of
from siamese.tasks.faces.face_log import FaceLog, failure_reporter, write_run_files
from siamese.tasks.faces.face_task import FaceTask
from siamese.tasks.faces.metric_losses import MetricLoss, with_earlier_scale, with_scale
from siamese.training.loop import Loop, LoopOptions
from siamese.training.monitoring import write_settings
from siamese.training.optimizers import build_optimizer, parameter_groups
from siamese.training.runs import (
    at_work,
    find_checkpoint,
    free_name,
    refuse_changes,
    refuse_far_places,
    refuse_other_home,
    take_name,
)
from siamese.training.schedules import lr_line
from siamese.verification.enough import too_few_pairs, too_few_people

# What may differ when a run goes on; anything else would make it another run.
_MAY_CHANGE = FACE_IMMATERIAL | {
    "data",
    "split.validation_data",
    "split.test_data",
    "trainer.epochs",
}
_RESUME = "--resume"
_ANEW = "start a new run with --model.weights CHECKPOINT"


def train_faces(settings: TrainSettings) -> Path:
    """Train a new run; returns the path of its best checkpoint.

    Raises:
        UserError: unusable data or settings; the loss diverged.
        KeyboardInterrupt: stopped by Ctrl-C, SIGTERM or SIGHUP, after the state was saved.
    """
    run_name = settings.name or _free_name(settings)
    if taken := take_name(run_name, settings.runs, settings.checkpoints, _RESUME):
        print(taken)
    lr = _told_lr(settings)
    device = choose_device(settings.device)
    choose_precision(settings.trainer.precision, device)
    require_backbone(settings.model.backbone)
    split = _split(settings)
    _say_split(split)
    torch.manual_seed(settings.seed)
    model = _build_model(settings)
    loss = with_scale(settings.loss, len(split.train.names))
    _say_scale(loss, settings.loss, len(split.train.names))
    settings = replace(
        settings, name=run_name, optimizer=replace(settings.optimizer, lr=lr), loss=loss
    )
    mean, std = (tuple(float(v) for v in t) for t in (model.mean, model.std))
    spec = EmbedderSpec(
        settings.model.backbone,
        settings.model.embedding_dim,
        settings.images.size,
        settings.images.fit,
        (mean[0], mean[1], mean[2]),
        (std[0], std[1], std[2]),
    )
    _check_input_size(model, spec.size)
    cache = _open_cache(settings, split, spec)
    with at_work(Path(settings.runs) / run_name):
        return _run(settings, split, cache, model, spec, device, None)


def _told_lr(settings: TrainSettings) -> float:
    """The learning rate, told with its reason in a run's first line."""
    name, lr = settings.optimizer.name, settings.optimizer.lr
    why = "as set"
    if lr is None:
        random_weights = not settings.model.pretrained and settings.model.weights is None
        lr = default_lr(name, random_weights)
        kind = "random weights" if random_weights else "weights that were learnt before"
        why = f"the default of {name} from {kind}; --lr sets another"
    print(lr_line(lr, why, settings.optimizer, settings.schedule))
    return lr


def resume_training(
    target: str,
    checkpoints: str,
    parse: Callable[[dict[str, Any]], TrainSettings],
    limits: LimitSettings | None = None,
) -> Path:
    """Continue a run exactly where its checkpoint stands; returns its best checkpoint's path.

    Args:
        target: a run's name, its folder with checkpoints, or a checkpoint file.
        checkpoints: folder of all runs' checkpoints.
        parse: parses the command line again over the saved settings.
        limits: how much the checkpoint may take; None: the defaults.

    Raises:
        UserError: no such checkpoint; a setting that must not change; other data.
        KeyboardInterrupt: as for :func:`train_faces`.
    """
    path = find_checkpoint(target, checkpoints, _RESUME)
    content = read_checkpoint(path, limits=limits)
    # What is damaged is told here; the command line's parser takes its defaults as they are.
    flat = flat_settings(TrainSettings, content["settings"], str(path))
    build_settings(TrainSettings, flat, str(path))
    saved = {**content["settings"], "resume": None}
    refuse_far_places(path, saved, parse)
    settings = parse(saved)
    settings = replace(settings, resume=None)
    check_settings(settings)
    refuse_changes(content["settings"], settings.as_dict(), _MAY_CHANGE, _ANEW)
    settings = replace(settings, loss=with_earlier_scale(settings.loss))
    refuse_other_home(path, settings.checkpoints, settings.name or "")
    lr = settings.optimizer.lr
    if lr is None:
        raise UserError(f"{path}: is damaged, its settings hold no learning rate; {_ANEW}")
    print(lr_line(lr, "as the run began", settings.optimizer, settings.schedule))
    done = content["progress"]["epoch"]
    if done >= settings.trainer.epochs:
        raise UserError(f"{path}: all {done} epochs are done; raise --epochs to go on")
    split = _saved_split(content["split"], settings, path)
    _say_split(split)
    device = choose_device(settings.device)
    torch.manual_seed(settings.seed)
    spec = spec_of(content)
    dropout, drop_path = settings.model.dropout, settings.model.drop_path
    model = embedder_of(content, path, dropout=dropout, drop_path=drop_path).train()
    cache = _open_cache(settings, split, spec)
    with at_work(Path(settings.runs) / str(settings.name)):
        return _run(settings, split, cache, model, spec, device, content)


def _run(
    settings: TrainSettings,
    split: Split,
    cache: PictureCache | None,
    model: SiameseEmbedder,
    spec: EmbedderSpec,
    device: torch.device,
    checkpoint: dict[str, Any] | None,
) -> Path:
    name = settings.name
    assert name is not None, "a run has a name by now"
    runs, folder = Path(settings.runs) / name, Path(settings.checkpoints) / name
    workers = settings.batches.workers
    workers = default_workers(device.type) if workers is None else workers
    precision = choose_precision(settings.trainer.precision, device)
    loss = MetricLoss(settings.loss, len(split.train.names), spec.embedding_dim).to(device)
    layout = torch.channels_last if settings.trainer.channels_last else torch.contiguous_format
    model = model.to(device, memory_format=layout)  # type: ignore[call-overload]
    if checkpoint is None or not (runs / "settings.yaml").exists():
        write_run_files(runs, settings, split)
    else:
        write_settings(runs, settings.as_dict())
    task = FaceTask(
        settings,
        split,
        model,
        spec,
        loss,
        device,
        precision,
        workers,
        failure_reporter(runs, print),
        cache,
    )
    lr = settings.optimizer.lr
    assert lr is not None, "resolved by now"
    groups = parameter_groups(
        {"backbone": model.backbone, "head": model.head, "loss": loss},
        settings.optimizer.weight_decay,
        lr,
        {"loss": settings.loss.lr_factor},
        settings.optimizer.decay_norms,
    )
    accumulate = settings.trainer.accumulate
    steps = -(-task.batches_per_epoch() // accumulate)
    optimizer, schedule = build_optimizer(
        settings.optimizer, settings.schedule, groups, lr, steps, settings.trainer.epochs
    )
    options = LoopOptions(
        epochs=settings.trainer.epochs,
        accumulate=accumulate,
        clip=settings.optimizer.clip,
        select=settings.trainer.select,
        recalibration_batches=settings.trainer.recalibration_batches,
        log_every=settings.trainer.log_every,
        folder=folder,
        resume="siamese-train --resume",
        smaller="--batches.people, --batches.images and --images.size, in a new run",
    )
    scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)
    loop = Loop(task, optimizer, schedule, scaler, options)
    if checkpoint is not None:
        loop.load(checkpoint, name, "resume from best.pt, or " + _ANEW)
    # Only now: it drops what the log holds beyond the point where the run goes on.
    log = FaceLog(runs, task, settings, loop.progress.step, loop.progress.epoch)
    parameters = sum(p.numel() for p in model.parameters())
    print(
        f"{spec.backbone}, {parameters / 1e6:.1f} M parameters, {spec.size} px on {device} in "
        f"{str(precision).removeprefix('torch.')}; batches of {task.sampler.people} people x "
        f"{task.sampler.images} pictures; {settings.optimizer.name} at lr {lr:g}; "
        f"{workers} loader process(es)"
    )
    print(f"watch: tensorboard --logdir {settings.runs}")
    best = folder / "best.pt"
    few = _too_few(split)
    with log:
        for line in few:
            log.note(line)
        if checkpoint is None:
            log.training_grid(next(task.recalibration_inputs(1)).cpu().contiguous())
        if not loop.run(log):
            print(f"saved; go on with: siamese-train --resume {folder / 'last.pt'}")
            raise KeyboardInterrupt
        with going_on(lambda: f"the training itself is over, its checkpoint is {best}"):
            log.finish(loop.progress.best_epoch)
    progress_now = loop.progress
    print(
        f"done: {progress_now.images} pictures in {progress_now.seconds:.0f} s of training; best "
        f"epoch {progress_now.best_epoch} with {settings.trainer.select} {progress_now.best:.4f}"
        f"{''.join(f' (note: {line})' for line in few)}\n"
        f"checkpoint: {best}\nlog, settings, metrics, data report: {runs}\n"
        f"next: siamese-eval roc --checkpoint {best}"
        + ("" if split.test is None else " --part test")
    )
    return best


def _split(settings: TrainSettings) -> Split:
    if settings.split.lists is not None and settings.data is not None:
        split = read_split(Path(settings.split.lists), Path(settings.data))
        if settings.trainer.test_curve and split.test is None:
            raise UserError(
                f"--trainer.test_curve true: there is no test.csv in {settings.split.lists}"
            )
        return split
    folders = _scan(settings)
    return make_split(
        folders["data"],
        validation=settings.split.validation,
        test=settings.split.test,
        seed=settings.split_seed,
        validation_folder=folders.get("validation"),
        test_folder=folders.get("test"),
    )


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
    return open_cache(
        Path(settings.cache),
        list(parts.values()),
        Preprocess(spec.size, settings.images.fit),
        spec.size,
        workers=settings.batches.workers,
    )


def demo_folder(runs: str) -> Path:
    """Draw the demo faces below ``runs`` where they are not there yet; returns their folder."""
    out = Path(runs) / "demo-faces"
    return write_demo_faces(out, DEMO_PEOPLE, DEMO_IMAGES, DEMO_SIZE, DEMO_SEED)


def _say_split(split: Split) -> None:
    for root, part in {part.root: part for part in split.parts().values()}.items():
        if part.left_out:
            print(f"{root}: {part.summary().partition('; ')[2]}; listed in data_report.txt")
    for name, part in split.parts().items():
        print(f"{name}: {len(part.names)} people, {len(part.paths)} pictures")
    for line in _too_few(split):
        print(f"note: {line}")
    singles = sum(count == 1 for count in split.train.counts().values())
    if singles:
        print(f"{singles} training people with a single picture are never drawn (no genuine pair)")


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


def _say_scale(chosen: LossSettings, given: LossSettings, people: int) -> None:
    """Tell a scale that the user left to the number of people."""
    if chosen.scale is not None and given.scale is None:
        print(
            f"{chosen.name}: scale {chosen.scale:.4g}, which follows from the {people} training "
            "people (AdaCos, arXiv 1905.00292); --loss.scale sets another"
        )


def _build_model(settings: TrainSettings) -> SiameseEmbedder:
    model_settings = settings.model
    from_timm = model_settings.pretrained and model_settings.weights is None
    if from_timm:
        print(f"loading the pretrained weights of {model_settings.backbone} ...")
    model = SiameseEmbedder(
        model_settings.backbone,
        model_settings.embedding_dim,
        mean=settings.images.mean,
        std=settings.images.std,
        pretrained=from_timm,
        dropout=model_settings.dropout,
        drop_path=model_settings.drop_path,
        size=settings.images.size,
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
            f"--images.size {size}: the backbone does not take it ({error}); use its own size"
        ) from None
    model.train(training)


def _free_name(settings: TrainSettings) -> str:
    data = "demo" if settings.data is None else Path(settings.data).resolve().name
    backbone = settings.model.backbone.split(".")[0].replace("/", "-")
    return free_name(f"{data}-{backbone}", settings.runs, settings.checkpoints)


def _saved_split(saved: dict[str, Any], settings: TrainSettings, checkpoint: Path) -> Split:
    listed = "listed" in saved["train"]
    if listed:  # the lists themselves may be gone by now
        lists = {name: part.get("listed", {}) for name, part in saved.items()}
        root = Path(settings.data or saved["train"]["folder"])
        folders = read_again(root, lists, str(checkpoint))
    else:
        folders = _scan(settings)
    parts: dict[str, FaceFolder] = {}
    for name, part in saved.items():
        folder = folders[name] if listed else folders.get(name, folders["data"])
        missing = sorted(set(part["identities"]) - set(folder.names))
        if missing:
            raise UserError(
                f"{folder.root}: {len(missing)} {name} people of {checkpoint} are missing "
                f"({first_few(missing)}); give the same data with --data"
            )
        parts[name] = folder.only(part["identities"])
        if len(parts[name].paths) != part["pictures"]:
            print(
                f"note: {name} has {len(parts[name].paths)} pictures now, {part['pictures']} "
                "before; the run goes on, but not as it would have"
            )
    return Split(parts["train"], parts["validation"], parts.get("test"), listed)
