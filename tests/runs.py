"""What tests of runs share: a small one, two compared, one interrupted, a full disk."""

import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from siamese.cli import train as train_command
from siamese.config import TrainSettings
from siamese.models.checkpoint import KEYS, write_checkpoint
from siamese.models.embedder import EmbedderSpec, SiameseEmbedder
from siamese.training.monitoring import RunLog


def same(a: Any, b: Any, where: str = "") -> None:
    """Equal to the last bit, clocks and places aside."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a.keys() - {"seconds", "runs", "checkpoints"}:
            same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for at, (x, y) in enumerate(zip(a, b, strict=True)):
            same(x, y, f"{where}[{at}]")
    elif torch.is_tensor(a):
        assert torch.equal(a, b), where
    else:
        assert a == b or (a != a and b != b), where


def short_run(faces: Path, place: Path) -> TrainSettings:
    """One epoch of a small network on a CPU."""
    settings = TrainSettings(data=str(faces), name="run", device="cpu")
    settings.runs, settings.checkpoints = str(place / "runs"), str(place / "checkpoints")
    settings.images.size, settings.split.validation, settings.batches.workers = 32, 2, 0
    settings.model.backbone, settings.model.pretrained = "test_resnet", False
    settings.trainer = replace(settings.trainer, epochs=1)
    return settings


def interrupt_at(monkeypatch: pytest.MonkeyPatch, kind: str, number: int) -> None:
    """Ctrl-C when the observer is told of the given step or epoch."""
    original: Callable[..., None] = getattr(RunLog, kind)

    def watch(self: RunLog, first: Any, second: Any) -> None:
        original(self, first, second)
        if (first if kind == "step" else first["epoch"]) == number:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(RunLog, kind, watch)


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Inside, no file of this process and its children grows beyond some bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    bytecode = sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # Python keeps the half of a module that it could write
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
        sys.dont_write_bytecode = bytecode


def no_space_to_save(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that torch saves finds room on the disk."""

    def broken(content: object, file: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", broken)


def write_random_model(path: Path, seed: int = 0, size: int = 32, **extras: Any) -> Path:
    """A checkpoint of an untrained `test_resnet` with 8 dimensions for pictures of this side."""
    torch.manual_seed(seed)
    model = SiameseEmbedder("test_resnet", 8, size=size)
    model.train()(torch.randint(0, 256, (8, 3, size, size), dtype=torch.uint8))
    half = (0.5, 0.5, 0.5)
    content: dict[str, Any] = {key: {} for key in KEYS}
    content |= {
        "model": model.state_dict(),
        "embedder": EmbedderSpec("test_resnet", 8, size, "squash", half, half).as_dict(),
        "train_weights": [],
        "progress": {"epoch": 1},
        "split": {"train": {"folder": "faces", "pictures": 0, "identities": []}},
    }
    write_checkpoint(path, content | extras)
    return path


def train_small(place: Path, validation: int, *more: str) -> None:
    """Train the run `run` for an epoch on the folder `faces` of a place."""
    arguments = [
        *("--data", "faces", "--name", "run", "--epochs", "1", "--workers", "0"),
        *("--backbone", "test_resnet", "--model.pretrained", "false", "--size", "32"),
        *("--batches.people", "4", "--split.validation", str(validation), *more),
        *("--device", "cpu", "--lr", "1e-2", "--model.embedding_dim", "16"),
    ]
    before = Path.cwd()
    os.chdir(place)
    try:
        train_command._command(arguments)
    finally:
        os.chdir(before)
