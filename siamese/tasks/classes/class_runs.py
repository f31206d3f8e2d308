"""Runs of the classification task: their settings, images, network and end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from siamese.errors import UserError
from siamese.models.building import DoesNotFit, require_fitting
from siamese.tasks.classes.class_log import ClassLog
from siamese.tasks.classes.class_task import SMALLER, ClassificationTask
from siamese.tasks.classes.classifier import ClassifierSpec, spec_of
from siamese.tasks.classes.parts import Parts, load_parts
from siamese.tasks.classes.testing import TEST, is_tested, test_once
from siamese.training.compiling import is_compiled
from siamese.training.launch import Prepared, RunContext, resume_run, start_run
from siamese.training.narrow_convolutions import mend_narrow_convolutions
from siamese.training.schedules import schedule_remarks
from siamese.verification.enough import too_few_images
from siamese.zoo import require_network

_RECALIBRATION = 50  # batches, where weights are averaged


def train_classifier(settings: ClassificationSettings) -> Path:
    """Train a new run; see :func:`siamese.training.launch.start_run`.

    The test images are judged once, at the end: ``runs/<name>/test.json``.
    """
    return start_run(ClassRuns(), settings)


def resume_classifier(
    target: str,
    checkpoints: str,
    parse: Callable[[dict[str, Any]], ClassificationSettings],
    limits: LimitSettings | None = None,
) -> Path:
    """Continue a run; see :func:`siamese.training.launch.resume_run`.

    A run that was stopped between its last epoch and its test is tested.
    """
    return resume_run(ClassRuns(), target, checkpoints, parse, limits)


class ClassRuns:
    """See :class:`siamese.training.launch.TaskRuns`."""

    kind = "classifier"
    settings_class = ClassificationSettings
    resume = "siamese-zoo resume"
    anew = "start a new run"
    may_change = CLASSIFICATION_IMMATERIAL | {"trainer.epochs"}

    def check(self, settings: ClassificationSettings) -> None:
        """Refuse settings that cannot work; UserError."""
        check_classification(settings)

    def check_network(self, settings: ClassificationSettings) -> None:
        """Refuse an unknown network or options that it does not take; UserError."""
        require_network(settings.model.name, settings.model.options)

    def base_name(self, settings: ClassificationSettings) -> str:
        """The set and the network."""
        return f"{settings.data.name}-{settings.model.name.replace('/', '-')}"

    def default_lr(self, settings: ClassificationSettings) -> tuple[float, str]:
        """By optimizer."""
        name = settings.optimizer.name
        return default_classifier_lr(name), name

    def check_content(self, path: Path, content: Mapping[str, Any]) -> None:
        """Refuse weights of another network; UserError."""
        spec = spec_of(content)
        try:
            require_fitting(spec.build, content["model"])
        except DoesNotFit:
            raise UserError(f"{path}: its weights do not fit {spec.network}") from None

    def is_finished(self, settings: ClassificationSettings, progress: Mapping[str, Any]) -> bool:
        """Whether the epoch that counts was tested."""
        return is_tested(Path(settings.runs) / str(settings.name) / TEST, progress)

    def load(self, settings: ClassificationSettings, context: RunContext) -> Parts:
        """The images; the first process downloads them, and reports what cannot be decoded."""
        first = context.distribution.first
        report = _report if first else None
        parts = context.distribution.first_then_all(
            lambda: load_parts(settings.data, settings.seed, report, first)
        )
        if context.content is not None:
            _require_same_images(settings, context, parts)
        return parts

    def prepare(
        self, settings: ClassificationSettings, context: RunContext, data: Parts
    ) -> Prepared:
        """Build the network, with the weights to start from, and its batches."""
        spec = _spec(settings, data) if context.content is None else spec_of(context.content)
        pretrained = settings.model.pretrained and context.content is None
        network = spec.build(pretrained=pretrained)
        mend_narrow_convolutions(network, context.device)
        task = ClassificationTask(
            settings, data, network, spec, context.device, context.distribution
        )
        task.refuse_sizes()
        if context.device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # one size: the fastest convolutions are sought
        settings = task.tune(Path(settings.runs), context.say, new=context.content is None)
        trainer, selects = settings.trainer, data.validation is not None
        recalibration = trainer.recalibration_batches
        if recalibration is None:
            averaged = (
                settings.optimizer.name in SCHEDULE_FREE or settings.optimizer.ema is not None
            )
            recalibration = _RECALIBRATION if averaged else 0
        few = _too_few(data)
        best = Path(settings.checkpoints) / str(settings.name) / "best.pt"
        chosen = best if selects else best.with_name("last.pt")
        tested = Path(settings.runs) / str(settings.name) / TEST
        return Prepared(
            settings=settings,
            task=task,
            modules={"network": task.model},
            headline=_headline(settings, data, spec, task),
            watched=f"validation_{trainer.select}" if selects else None,
            open_log=lambda folder, step, epoch: ClassLog(folder, settings, step, epoch),
            begin=lambda _: None,
            examples=task.training_examples,
            notes=[] if few is None else [few],
            next_step="siamese-zoo eval --checkpoint {}",
            accumulate=task.accumulate,
            recalibration_batches=recalibration,
            validate_every=trainer.validate_every,
            smaller=SMALLER,
            scales_loss=task.scales_loss,
            end=lambda epoch: [test_once(chosen, tested, task, epoch, settings.limits)],
        )


def _spec(settings: ClassificationSettings, parts: Parts) -> ClassifierSpec:
    size = settings.data.size or parts.size
    return ClassifierSpec(
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


def _require_same_images(
    settings: ClassificationSettings, context: RunContext, parts: Parts
) -> None:
    """Refuse to go on with other images than those that a run began with; UserError."""
    assert context.content is not None
    counts = {name: part["pictures"] for name, part in context.content["split"].items()}
    way_on = "give the same images with `data.root`"
    if counts != parts.counts():
        raise UserError(
            f"{context.source}: was trained on {counts} images, now there are {parts.counts()}; "
            f"{way_on}"
        )
    if parts.classes != spec_of(context.content).classes:
        raise UserError(
            f"{context.source}: was trained on other classes than those in {settings.data.root}; "
            f"{way_on}"
        )


def _headline(
    settings: ClassificationSettings, parts: Parts, spec: ClassifierSpec, task: ClassificationTask
) -> list[str]:
    counts = ", ".join(f"{name} {number}" for name, number in parts.counts().items())
    parameters = sum(p.numel() for p in task.model.parameters())
    processes = f" in each of {task.distribution.world} processes" * (task.distribution.world > 1)
    optimizer = settings.optimizer
    compiles = ", compiled" * is_compiled(settings.trainer.compile)
    lines = [
        f"{settings.data.name}: {counts} images of {len(parts.classes)} classes",
        f"{spec.network}, {parameters:,} parameters, {spec.size} px on {task.device} in "
        f"{task.precision_name}{compiles}; batches of {settings.batches.size} "
        f"({task.micro_batch} at a time{processes}); {optimizer.name} at lr {optimizer.lr:g}",
    ]
    if optimizer.name not in SCHEDULE_FREE:
        lines += schedule_remarks(settings.schedule, settings.trainer.epochs)
    if settings.augment.flip and settings.data.name in ("mnist", "kmnist"):
        lines.append("note: mirrored digits and letters are others; `augment.flip` 0 mirrors none")
    return lines


def _too_few(parts: Parts) -> str | None:
    """A line where the validation images cannot tell which epoch is best."""
    images = parts.counts().get("validation")
    few = None
    if images is not None:
        few = too_few_images(images, len(parts.classes), "validation images")
    return few and f"{few}; which epoch is best is hardly known either"


def _report(path: str, reason: str) -> None:
    print(f"left out: {reason}")
