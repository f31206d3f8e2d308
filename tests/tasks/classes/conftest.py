"""A classification run of seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from siamese.config import (
    ClassificationSettings,
    ClassifierSettings,
    ClassTrainerSettings,
    DatasetSettings,
    ImageBatchSettings,
    OptimizerSettings,
    PictureSettings,
    ScheduleSettings,
)


@pytest.fixture
def classification(mnist_root: Path, tmp_path: Path) -> ClassificationSettings:
    """A run of seconds: a narrow ResNet on the small MNIST."""
    return ClassificationSettings(
        name="run",
        device="cpu",
        runs=str(tmp_path / "runs"),
        checkpoints=str(tmp_path / "checkpoints"),
        data=DatasetSettings(name="mnist", root=str(mnist_root), download=False, validation=0.25),
        augment=PictureSettings(crop=2, flip=0.0),
        batches=ImageBatchSettings(size=32),
        model=ClassifierSettings(name="resnet8", options={"width": 8}),
        optimizer=OptimizerSettings(name="sgd", lr=0.1, nesterov=True, decay_norms=True),
        schedule=ScheduleSettings(name="constant", warmup=0.0),
        trainer=ClassTrainerSettings(epochs=3, log_every=1),
    )
