"""Small image sets of our own in torchvision's layout, which need no download."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
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


def write_mnist(root: Path, train: int = 160, test: int = 60, seed: int = 0) -> Path:
    """Grey 28 px images in MNIST's format: each class has stripes of its own."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    draw = np.random.default_rng(seed)
    for name, number in (("train", train), ("t10k", test)):
        labels = np.arange(number) % 10
        images = draw.integers(0, 90, (number, 28, 28))
        rows, columns = np.mgrid[:28, :28]
        for image, label in zip(images, labels, strict=True):
            across = rows if label < 5 else columns
            image += 150 * (across // (label % 5 + 1) % 2)
        head = struct.pack(">IIII", 0x803, number, 28, 28)
        (folder / f"{name}-images-idx3-ubyte").write_bytes(head + images.astype("u1").tobytes())
        head = struct.pack(">II", 0x801, number)
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(head + labels.astype("u1").tobytes())
    return root


@pytest.fixture(scope="session")
def mnist_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mnist(tmp_path_factory.mktemp("mnist"))


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
