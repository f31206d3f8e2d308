"""Learning faces, as studies see it; imports no torch."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from siamese.config import (
    DEMO_IMAGES,
    DEMO_PEOPLE,
    FACE_IMMATERIAL,
    TrainSettings,
    check_settings,
    default_lr,
)
from siamese.errors import UserError
from siamese.tasks.faces.from_data import epochs_for
from siamese.tasks.task_spec import TRAINING_STEP, TaskSpec, Workload


def _default_lr(settings: TrainSettings) -> float:
    return default_lr(settings.optimizer.name, settings.model.is_random)


@cache
def _folder(data: str | None) -> tuple[int, int]:
    """People and pictures; none where nothing lies yet."""
    if data is None:
        return DEMO_PEOPLE, DEMO_PEOPLE * DEMO_IMAGES
    from siamese.data.folder import scan_folder

    try:
        folder = scan_folder(Path(data))
    except UserError:
        return 0, 0
    return len(folder.names), len(folder.paths)


@cache
def pictures_of_lists(lists: str) -> dict[str, int]:
    """Pictures of each part; none where no lists lie yet."""
    from siamese.data.split_lists import listed_numbers

    try:
        return listed_numbers(Path(lists))
    except UserError:
        return {}


def _workload(settings: TrainSettings) -> Workload:
    model, split = settings.model, settings.split
    people, pictures = _folder(settings.data)
    images = None
    if people:
        shares = [part if part < 1 else part / people for part in (split.validation, split.test)]
        if split.lists is not None:
            listed = pictures_of_lists(split.lists)
            pictures = sum(listed.values())
            shares = [listed.get(part, 0) / max(pictures, 1) for part in ("validation", "test")]
        trained = max(0.0, 1 - sum(shares))
        if split.train_people is not None:
            trained = min(trained, split.train_people / people)
        drawn = settings.batches.images_per_epoch or trained * pictures
        epochs = settings.trainer.epochs or epochs_for(drawn)
        judged = shares[0] + (shares[1] if settings.trainer.test_curve else 0)
        images = epochs * (TRAINING_STEP * drawn + judged * pictures)
    preset = model.backbone.removeprefix("zoo/")
    network = f"timm/{preset}" if preset == model.backbone else preset
    return Workload(
        network, {}, model.drop_path, model.embedding_dim, 3, settings.images.size, images
    )


def _immaterial(settings: TrainSettings) -> frozenset[str]:
    # Lists came later than the other settings: runs without them keep their names.
    lists = {"split.lists"} if settings.split.lists is None else set()
    return FACE_IMMATERIAL | {"name"} | lists


def _data_name(settings: TrainSettings) -> str:
    return "drawn faces" if settings.data is None else Path(settings.data).resolve().name


_FOLDERS = frozenset({"data", "split.validation_data", "split.test_data"})

FACES = TaskSpec(
    name="face",
    settings=TrainSettings,
    check=check_settings,
    training="siamese.tasks.faces.face_runs:train_compared",
    resuming="siamese.tasks.faces.face_runs:resume_training",
    checkpoint="embedder",
    is_tested=lambda folder, progress: True,
    default_lr=_default_lr,
    figures={
        "test_auc": False,
        "test_ap": False,
        "test_eer": True,
        "test_tar_at_far_1e-2": False,
        "auc": False,
        "ap": False,
        "eer": True,
        "tar_at_far_1e-2": False,
        "train_loss": True,
    },
    selecting=lambda settings: str(settings.trainer.select),
    report="selected",
    parts=lambda settings: (True, settings.split.may_test),
    axes=("epochs", "images", "time"),
    immaterial=_immaterial,
    movable=FACE_IMMATERIAL | _FOLDERS,
    folders=_FOLDERS | {"split.lists", "clean"},
    data_folder="data",
    written=lambda settings: {"cache": settings.cache},
    network="model.backbone",
    subsets=(),
    small={
        "batches.images_per_epoch": 1024,
        "trainer.epochs": 2,
        "trainer.recalibration_batches": 10,
    },
    prefix=lambda settings: "faces",
    data_name=_data_name,
    workload=_workload,
)
