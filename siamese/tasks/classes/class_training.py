"""Train a classifier: from settings to checkpoints, anew or continued, alone or under torchrun."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from siamese.config import (
    CLASSIFICATION_IMMATERIAL,
    SCHEDULE_FREE,
    ClassificationSettings,
    LimitSettings,
    check_classification,
    default_classifier_lr,
)
from siamese.config.reading import build_settings, flat_settings
from siamese.errors import UserError
from siamese.files.writing import going_on
from siamese.models.building import DoesNotFit, require_fitting
from siamese.models.checkpoint import read_checkpoint
from siamese.models.device import choose_device, choose_precision
from siamese.tasks.classes.class_log import ClassLog
from siamese.tasks.classes.class_task import ClassificationTask
from siamese.tasks.classes.classifier import ClassifierSpec, spec_of
from siamese.tasks.classes.parts import Parts, load_parts
from siamese.tasks.classes.testing import TEST, is_tested, test_once
from siamese.training.distribution import Distribution, joined
from siamese.training.loop import Figures, Loop, LoopOptions
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
from siamese.training.schedules import lr_line, schedule_remarks
from siamese.verification.enough import too_few_images
from siamese.zoo import require_network

# What may differ when a run goes on; anything else would make it another run.
_MAY_CHANGE = CLASSIFICATION_IMMATERIAL | {"trainer.epochs"}
_RESUME = "siamese-zoo resume"
_RECALIBRATION = 50  # batches, where weights are averaged
Say = Callable[[str], None]


def train_classifier(settings: ClassificationSettings) -> Path:
    """Train a new run; returns the path of the checkpoint that counts.

    That is ``best.pt`` where validation images select, else ``last.pt``. The test images are
    judged with it once, at the end: ``runs/<name>/test.json``.

    Raises:
        UserError: unusable data or settings.
        Diverged: the loss became NaN or infinite.
        KeyboardInterrupt: stopped by Ctrl-C, SIGTERM or SIGHUP, after the state was saved.
    """
    # Before the images are loaded: a mistyped network is told at once.
    require_network(settings.model.name, settings.model.options)
    device = choose_device(settings.device)
    with joined(device.type) as distribution:
        device = _own_device(device, distribution)
        choose_precision(settings.trainer.precision, device)
        name = settings.name or _free_name(settings)
        name = distribution.agree(name)
        if distribution.first and (
            taken := take_name(name, settings.runs, settings.checkpoints, _RESUME)
        ):
            print(taken)
        lr = _told_lr(settings, print if distribution.first else _silent)
        parts = _load(settings, distribution)
        settings = replace(settings, name=name, optimizer=replace(settings.optimizer, lr=lr))
        size = settings.data.size or parts.size
        spec = ClassifierSpec(
            network=settings.model.name,
            options=settings.model.options,
            drop_path=settings.model.drop_path,
            classes=parts.classes,
            channels=parts.channels,
            size=size,
            test_size=settings.data.test_size or size,
            test_crop=settings.data.test_crop,
            mean=parts.mean,
            std=parts.std,
        )
        return _run(settings, parts, spec, device, distribution, None)


def resume_classifier(
    target: str,
    checkpoints: str,
    parse: Callable[[dict[str, Any]], ClassificationSettings],
    limits: LimitSettings | None = None,
) -> Path:
    """Continue a run exactly where its checkpoint stands; returns as :func:`train_classifier`.

    A run that was stopped between its last epoch and its test is tested.

    Args:
        target: a run's name, its folder with checkpoints, or a checkpoint file.
        checkpoints: folder of all runs' checkpoints.
        parse: parses the command line again over the saved settings.
        limits: how much the checkpoint may take; None: the defaults.

    Raises:
        UserError: no such checkpoint; a setting that must not change; other data.
        Diverged, KeyboardInterrupt: as for :func:`train_classifier`.
    """
    path = find_checkpoint(target, checkpoints, _RESUME)
    content = read_checkpoint(path, "classifier", limits=limits)
    spec = spec_of(content)
    try:
        require_fitting(spec.build, content["model"])
    except DoesNotFit:
        raise UserError(f"{path}: its weights do not fit {spec.network}") from None
    # What is damaged is told here; the command line's parser takes its defaults as they are.
    flat = flat_settings(ClassificationSettings, content["settings"], str(path))
    build_settings(ClassificationSettings, flat, str(path))
    refuse_far_places(path, content["settings"], parse)
    settings = parse(content["settings"])
    check_classification(settings)
    refuse_changes(content["settings"], settings.as_dict(), _MAY_CHANGE, "start a new run")
    refuse_other_home(path, settings.checkpoints, settings.name or "")
    lr = settings.optimizer.lr
    if lr is None:
        raise UserError(f"{path}: is damaged, its settings hold no learning rate; start a new run")
    done = content["progress"]["epoch"]
    tested = is_tested(Path(settings.runs) / str(settings.name) / TEST, content["progress"])
    if done > settings.trainer.epochs or (done == settings.trainer.epochs and tested):
        raise UserError(f"{path}: all {done} epochs are done; raise --epochs to go on")
    device = choose_device(settings.device)
    with joined(device.type) as distribution:
        device = _own_device(device, distribution)
        if distribution.first:
            print(lr_line(lr, "as the run began", settings.optimizer, settings.schedule))
        parts = _load(settings, distribution)
        counts = {name: part["pictures"] for name, part in content["split"].items()}
        if counts != parts.counts():
            raise UserError(
                f"{path}: was trained on {counts} images, now there are {parts.counts()}; give "
                "the same images with --data.root"
            )
        if parts.classes != spec.classes:
            raise UserError(
                f"{path}: was trained on other classes than those in {settings.data.root}; give "
                "the same images with --data.root"
            )
        return _run(settings, parts, spec, device, distribution, content)


def _run(
    settings: ClassificationSettings,
    parts: Parts,
    spec: ClassifierSpec,
    device: torch.device,
    distribution: Distribution,
    checkpoint: dict[str, Any] | None,
) -> Path:
    """Train, held against a second process of the same run."""
    held = at_work(Path(settings.runs) / str(settings.name))
    with held if distribution.first else nullcontext():
        return _run_held(settings, parts, spec, device, distribution, checkpoint)


def _run_held(
    settings: ClassificationSettings,
    parts: Parts,
    spec: ClassifierSpec,
    device: torch.device,
    distribution: Distribution,
    checkpoint: dict[str, Any] | None,
) -> Path:
    name, lr = settings.name, settings.optimizer.lr
    assert name is not None, "a run has a name by now"
    assert lr is not None, "resolved by now"
    say: Say = print if distribution.first else _silent
    runs, folder = Path(settings.runs) / name, Path(settings.checkpoints) / name
    torch.manual_seed(settings.seed + distribution.rank)  # dropout differs between processes
    network = spec.build(pretrained=settings.model.pretrained and checkpoint is None)
    task = ClassificationTask(settings, parts, network, spec, device, distribution)
    task.refuse_sizes()
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # one size: the fastest convolutions are sought
    groups = parameter_groups(
        {"network": task.model},
        settings.optimizer.weight_decay,
        lr,
        {},
        settings.optimizer.decay_norms,
    )
    trainer = settings.trainer
    steps = -(-task.batches_per_epoch() // task.accumulate)
    optimizer, schedule = build_optimizer(
        settings.optimizer, settings.schedule, groups, lr, steps, trainer.epochs
    )
    selects = parts.validation is not None
    recalibration = trainer.recalibration_batches
    if recalibration is None:
        recalibration = _RECALIBRATION if optimizer.averages else 0
    options = LoopOptions(
        epochs=trainer.epochs,
        accumulate=task.accumulate,
        clip=settings.optimizer.clip,
        select=f"validation_{trainer.select}" if selects else None,
        recalibration_batches=recalibration,
        log_every=trainer.log_every,
        folder=folder,
        validate_every=trainer.validate_every,
        resume=_RESUME,
        smaller="--batches.size and --data.size, in a new run",
    )
    scaler = torch.amp.GradScaler(device.type, enabled=task.scales_loss)
    loop = Loop(task, optimizer, schedule, scaler, options, distribution)
    if checkpoint is not None:
        loop.load(checkpoint, name, "start a new run")
        if not distribution.first:  # the saved random state is the first process's
            torch.manual_seed(abs(hash((settings.seed, distribution.rank, loop.progress.step))))
    log = None
    if distribution.first:
        write_settings(runs, settings.as_dict())
        folder.mkdir(parents=True, exist_ok=True)  # refused now, not after an epoch
        log = ClassLog(runs, settings, loop.progress.step, loop.progress.epoch)
    say(_headline(settings, parts, spec, task, lr))
    for remark in schedule_remarks(settings.schedule, trainer.epochs):
        if settings.optimizer.name not in SCHEDULE_FREE:
            say(remark)
    if settings.augment.flip and settings.data.name in ("mnist", "kmnist"):
        say("note: mirrored digits and letters are others; --augment.flip 0 mirrors none")
    few = _too_few(parts)
    if few is not None:
        say(f"note: {few}")
    say(f"watch: tensorboard --logdir {settings.runs}")
    chosen = folder / ("best.pt" if selects else "last.pt")
    with log or nullcontext():
        if few is not None and log is not None:
            log.note(few)
        if checkpoint is None and log is not None:
            log.training_grid(task.training_examples())
        if not loop.run(log or _Nobody()):
            say(f"saved; go on with: {_RESUME} {folder / 'last.pt'}")
            raise KeyboardInterrupt
        epoch = loop.progress.best_epoch if selects else loop.progress.epoch
        with going_on(lambda: f"the training itself is over, its checkpoint is {chosen}"):
            if log is not None:
                log.finish(epoch)
    say(
        f"done: {loop.progress.images} images in {loop.progress.seconds:.0f} s of training"
        + (
            f"; best epoch {epoch} with {trainer.select} {loop.progress.best:.4g} on the "
            f"validation images{f' (note: {few})' if few else ''}"
            if selects
            else "; no validation images: the last epoch counts"
        )
    )
    if distribution.first:
        with going_on(lambda: f"the training itself is over, {_RESUME} {name} tests it"):
            say(test_once(chosen, runs / TEST, task, epoch, settings.limits))
    say(
        f"checkpoint: {chosen}\nlog, settings, metrics: {runs}\n"
        f"next: siamese-zoo eval --checkpoint {chosen}"
    )
    return chosen


def _told_lr(settings: ClassificationSettings, say: Say) -> float:
    """The learning rate, told with its reason in a run's first line."""
    lr, why = settings.optimizer.lr, "as set"
    if lr is None:
        lr = default_classifier_lr(settings.optimizer.name)
        why = f"the default of {settings.optimizer.name}; --lr sets another"
    say(lr_line(lr, why, settings.optimizer, settings.schedule))
    return lr


def _too_few(parts: Parts) -> str | None:
    """A line where the validation images cannot tell which epoch is best."""
    images = parts.counts().get("validation")
    few = None
    if images is not None:
        few = too_few_images(images, len(parts.classes), "validation images")
    return few and f"{few}; which epoch is best is hardly known either"


def _headline(
    settings: ClassificationSettings,
    parts: Parts,
    spec: ClassifierSpec,
    task: ClassificationTask,
    lr: float,
) -> str:
    counts = ", ".join(f"{name} {number}" for name, number in parts.counts().items())
    parameters = sum(p.numel() for p in task.model.parameters())
    processes = f" in each of {task.distribution.world} processes" * (task.distribution.world > 1)
    return (
        f"{settings.data.name}: {counts} images of {len(parts.classes)} classes\n"
        f"{spec.network}, {parameters:,} parameters, {spec.size} px on {task.device} in "
        f"{task.precision_name}; batches of {settings.batches.size}"
        f" ({task.micro_batch} at a time{processes}); {settings.optimizer.name} at lr {lr:g}"
    )


def _load(settings: ClassificationSettings, distribution: Distribution) -> Parts:
    """The images; the first process downloads them, and reports what cannot be decoded."""
    report = _report if distribution.first else None
    return distribution.first_then_all(
        lambda: load_parts(settings.data, settings.seed, report, distribution.first)
    )


def _own_device(device: torch.device, distribution: Distribution) -> torch.device:
    """Under torchrun each process takes the GPU of its number."""
    several = distribution.world > 1 and device.type == "cuda"
    return torch.device("cuda", distribution.local_rank) if several else device


def _free_name(settings: ClassificationSettings) -> str:
    network = settings.model.name.replace("/", "-")
    return free_name(f"{settings.data.name}-{network}", settings.runs, settings.checkpoints)


def _report(path: str, reason: str) -> None:
    print(f"left out: {reason}")


def _silent(line: str) -> None:
    """What the processes beside the first say."""


class _Nobody:
    """Watches for the processes beside the first: they tell and write nothing."""

    def step(self, step: int, figures: Figures) -> None:
        pass

    def epoch(self, row: Figures, best: bool) -> None:
        pass

    def say(self, line: str) -> None:
        pass
