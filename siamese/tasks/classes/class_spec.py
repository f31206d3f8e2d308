"""Classification, as studies see it; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from siamese.config import (
    CLASSIFICATION_IMMATERIAL,
    ClassificationSettings,
    check_classification,
    default_classifier_lr,
)
from siamese.errors import UserError
from siamese.tasks.task_spec import TRAINING_STEP, TaskSpec, Workload

# Training and test images, classes, channels and side of the sets of torchvision.
_SETS = {
    "cifar10": (50_000, 10_000, 10, 3, 32),
    "cifar100": (50_000, 10_000, 100, 3, 32),
    "mnist": (60_000, 10_000, 10, 1, 28),
    "fashion_mnist": (60_000, 10_000, 10, 1, 28),
    "kmnist": (60_000, 10_000, 10, 1, 28),
}


@cache
def _folder(root: str) -> tuple[int, int, int, int, int]:
    """The same of a folder of classes; no images where nothing lies yet."""
    from siamese.tasks.classes.datasets import scan_part

    try:
        train, test = scan_part(root, "train"), scan_part(root, "test")
    except UserError:
        return 0, 0, 1000, 3, 224
    return len(train), len(test), len(train.classes), 3, 224


def _workload(settings: ClassificationSettings) -> Workload:
    data, model = settings.data, settings.model
    counts = _folder(data.root) if data.name == "folder" else _SETS[data.name]
    train, test, classes, channels, side = counts
    images = None
    if train:
        validation = data.validation if data.validation >= 1 else data.validation * train
        drawn = min(train - validation, data.subset or train)
        tested = min(test, data.test_subset or test) if settings.trainer.test_curve else 0
        views = 2 if settings.augment.dual_cutout else 1
        epochs = settings.trainer.epochs
        judgements = -(-epochs // settings.trainer.validate_every)
        images = epochs * TRAINING_STEP * drawn * views + judgements * (validation + tested)
    size = data.size or side
    return Workload(model.name, model.options, model.drop_path, classes, channels, size, images)


def _is_tested(folder: Path, progress: Mapping[str, Any]) -> bool:
    from siamese.tasks.classes.testing import TEST, is_tested

    return is_tested(folder / TEST, progress)


def _immaterial(settings: ClassificationSettings) -> frozenset[str]:
    """A set of torchvision is the same wherever it lies; another folder holds other images."""
    material = {"data.root"} if settings.data.name == "folder" else set()
    return (CLASSIFICATION_IMMATERIAL | {"name"}) - material


def _written(settings: ClassificationSettings) -> dict[str, str | None]:
    downloads = settings.data.download and settings.data.name != "folder"
    return {"data.root": settings.data.root if downloads else None}


def _data_name(settings: ClassificationSettings) -> str:
    data = settings.data
    return Path(data.root).resolve().name if data.name == "folder" else data.name


CLASSES = TaskSpec(
    name="classification",
    settings=ClassificationSettings,
    check=check_classification,
    training="siamese.tasks.classes.class_runs:train_classifier",
    resuming="siamese.tasks.classes.class_runs:resume_classifier",
    checkpoint="classifier",
    is_tested=_is_tested,
    default_lr=lambda settings: default_classifier_lr(settings.optimizer.name),
    figures={
        "test_error": True,
        "test_loss": True,
        "validation_error": True,
        "validation_loss": True,
        "train_loss": True,
    },
    selecting=lambda settings: f"validation_{settings.trainer.select}",
    report="last",
    parts=lambda settings: (settings.data.validation > 0, True),
    axes=("epochs", "time"),
    immaterial=_immaterial,
    movable=CLASSIFICATION_IMMATERIAL,
    folders=frozenset({"data.root"}),
    data_folder="data.root",
    written=_written,
    network="model.name",
    subsets=("data.subset", "data.test_subset"),
    small={"data.subset": 2000, "data.test_subset": 1000, "trainer.epochs": 2},
    prefix=lambda settings: settings.data.name,
    data_name=_data_name,
    workload=_workload,
)
