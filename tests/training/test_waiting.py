"""A GPU is not waited for within a training step, but where the triplets of a batch are counted.

Nothing here needs one: what would make it wait is a value, or a number of rows, that Python asks
for, and asking is seen on a CPU as well.
"""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import pytorch_metric_learning
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import siamese
from siamese.config import (
    ClassificationSettings,
    ClassifierSettings,
    DatasetSettings,
    LossName,
    LossSettings,
    OptimizerName,
    OptimizerSettings,
    PictureSettings,
    TrainSettings,
)
from siamese.config.common import PrecisionName
from siamese.tasks.classes.class_runs import train_classifier
from siamese.tasks.faces.face_runs import train_faces
from siamese.tasks.faces.face_task import FaceTask
from siamese.tasks.faces.metric_losses import MetricLoss
from siamese.training import optimizers
from siamese.training.loop import Loop, StepLoss

OURS = str(Path(siamese.__file__).parent)
MINING = str(Path(pytorch_metric_learning.__file__).parent)
# Operations whose result has as many rows as their numbers say, or is a number of Python's.
OPERATIONS = {
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::masked_select",
    "aten::_unique2",
    "aten::unique_consecutive",
    "aten::unique_dim",
    "aten::equal",
    "aten::bincount",
    "aten::repeat_interleave",
}
# Calls that move a tensor to main memory.
CALLS = {torch.Tensor.cpu, torch.Tensor.numpy, torch.Tensor.tolist}


class _Operations(TorchDispatchMode):
    def __init__(self, note: Callable[[str], None]):
        super().__init__()
        self.note = note

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        masks = args[1] if name in ("aten::index", "aten::index_put", "aten::index_put_") else []
        masked = any(one is not None and one.dtype == torch.bool for one in masks)
        if name in OPERATIONS or masked:
            self.note(name)
        return func(*args, **(kwargs or {}))


class _Calls(TorchFunctionMode):
    def __init__(self, note: Callable[[str], None]):
        super().__init__()
        self.note = note

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in CALLS:
            self.note(func.__name__)
        return func(*args, **(kwargs or {}))


def _callers() -> Iterator[str]:
    """Who calls, the innermost first, as file:line function; of a backward pass the forward's."""
    node = torch._C._current_autograd_node()
    for line in reversed([] if node is None else node.metadata.get("traceback_", [])):
        if found := re.match(r'  File "(.*)", line (\d+), in (\w+)', line):
            yield "{}:{} {}".format(*found.groups())
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back


@contextmanager
def _watched(ours: list[str], mining: list[str]) -> Iterator[None]:
    """Inside, what Python asks tensors for is listed: by this package's code, or by the miner."""

    def note(what: str) -> None:
        places = list(_callers())
        if any(place.startswith(MINING) for place in places):
            mining.append(what)
        elif not any(place.endswith("_read_losses") for place in places):  # later, on a GPU
            ours.append(f"{what} {next((one for one in places if one.startswith(OURS)), '')}")

    with torch.autograd.detect_anomaly(check_nan=False), _Operations(note), _Calls(note):
        yield


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What the training steps ask for that are not logged, and how many these were."""
    found: dict[str, list[str]] = {"ours": [], "mining": [], "steps": []}
    step = Loop._batch_step

    def watched(loop: Loop, batch: Any, last_of_step: bool, total: int) -> int:
        logged = last_of_step and loop.progress.step % loop.options.log_every == 0
        if not logged:
            found["steps"].append("")
        with nullcontext() if logged else _watched(found["ours"], found["mining"]):
            return step(loop, batch, last_of_step, total)

    monkeypatch.setattr(Loop, "_batch_step", watched)
    # As on a GPU; others keep the number of a step in main memory, and ask for it there.
    monkeypatch.setattr(optimizers, "_takes_fused", lambda groups: True)
    return found


def _train_faces(
    folder: Path,
    place: Path,
    loss: LossName = "triplet",
    optimizer: OptimizerName = "radam_schedulefree",
    precision: PrecisionName = "fp32",
) -> None:
    settings = TrainSettings(data=str(folder), name="run", device="cpu")
    settings.runs, settings.checkpoints = str(place / "runs"), str(place / "checkpoints")
    settings.images.size, settings.split.validation, settings.batches.workers = 32, 2, 0
    settings.model.backbone, settings.model.pretrained = "test_efficientnet", False
    settings.model.dropout = settings.model.drop_path = 0.1
    settings.batches.people, settings.batches.images_per_epoch = 3, 48
    settings.loss.name, settings.optimizer.name, settings.optimizer.clip = loss, optimizer, 1.0
    settings.optimizer.ema = None if optimizer == "radam_schedulefree" else 0.9
    settings.trainer.epochs, settings.trainer.accumulate, settings.trainer.log_every = 1, 2, 100
    settings.trainer.precision = precision
    settings.augment.in_batches = True
    settings.augment.erasing = 0.5
    train_faces(settings)


@pytest.mark.parametrize(
    ("loss", "optimizer", "precision"),
    [
        ("triplet", "radam_schedulefree", "fp32"),
        ("triplet", "sgd", "bf16"),
        ("normalized_softmax", "adamw", "fp32"),
    ],
)
def test_faces(
    loss: LossName,
    optimizer: OptimizerName,
    precision: PrecisionName,
    face_folder: Path,
    tmp_path: Path,
    asked: dict[str, list[str]],
) -> None:
    _train_faces(face_folder, tmp_path, loss, optimizer, precision)
    assert len(asked["steps"]) >= 3
    assert asked["ours"] == []
    # How many triplets a batch has depends on its labels; class weights have no triplets.
    assert bool(asked["mining"]) == (loss == "triplet")


def test_a_step_that_asks_is_found(
    face_folder: Path,
    tmp_path: Path,
    asked: dict[str, list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step_loss = FaceTask.step_loss

    def asking(task: FaceTask, batch: Any, details: bool) -> StepLoss:
        result = step_loss(task, batch, details)
        result.value.item()
        return result

    monkeypatch.setattr(FaceTask, "step_loss", asking)
    _train_faces(face_folder, tmp_path)
    assert len(asked["ours"]) == len(asked["steps"])
    assert all("_local_scalar_dense" in one and "_batch_step" in one for one in asked["ours"])


@pytest.mark.parametrize("loss", ["arcface", "subcenter_arcface", "normalized_softmax"])
def test_class_weights_of_which_some_are_drawn(loss: LossName) -> None:
    ours: list[str] = []
    drawing = MetricLoss(LossSettings(name=loss, sample_rate=0.5), 100, 8)
    embeddings = torch.randn(12, 8, requires_grad=True)
    with _watched(ours, []):
        drawing(embeddings, torch.arange(12) * 7 % 100 // 2).backward()
    assert ours == []


@pytest.mark.parametrize(
    ("optimizer", "augment"), [("sgd", {}), ("adamw", {"dual_cutout": 0.1, "cutout": 8})]
)
def test_classes(
    optimizer: OptimizerName,
    augment: dict[str, Any],
    mnist_root: Path,
    tmp_path: Path,
    asked: dict[str, list[str]],
) -> None:
    settings = ClassificationSettings(name="run", device="cpu")
    settings.runs, settings.checkpoints = str(tmp_path / "runs"), str(tmp_path / "checkpoints")
    settings.data = DatasetSettings("mnist", str(mnist_root), download=False, validation=0.25)
    settings.augment = PictureSettings(crop=2, flip=0.0, **augment)
    settings.batches.size = 32
    settings.model = ClassifierSettings("resnet8", options={"width": 8})
    settings.optimizer = OptimizerSettings(optimizer, nesterov=optimizer == "sgd", ema=0.9, clip=1)
    settings.trainer.epochs, settings.trainer.log_every = 2, 100
    train_classifier(settings)
    assert len(asked["steps"]) >= 3
    assert asked["ours"] == asked["mining"] == []


PLANTED: dict[str, Callable[[torch.Tensor], Any]] = {
    "item": lambda value: value.sum().item(),
    "float": lambda value: float(value.sum()),
    "if": lambda value: 1 if value.sum() > 0 else 2,
    "cpu": lambda value: value.cpu(),
    "numpy": lambda value: value.detach().numpy(),
    "tolist": lambda value: value.tolist(),
    "nonzero": lambda value: value.nonzero(),
    "where": lambda value: torch.where(value > 0),
    "mask": lambda value: value[value > 0],
    "select": lambda value: value.masked_select(value > 0),
    "unique": lambda value: value.unique(),
    "any": lambda value: bool(torch.isfinite(value).all()),
    "repeat": lambda value: value.repeat_interleave(torch.tensor([2, 1, 3])),
}


def test_what_a_backward_pass_asks_for_is_found_with_its_place() -> None:
    ours: list[str] = []
    value = torch.ones(3, requires_grad=True)
    with _watched(ours, []):
        mean = (value * 2).masked_fill(value > 5, 0).mean()
        masked = value[value > 0].sum()
        before = len(ours)
        mean.backward()
        assert len(ours) == before
        masked.backward()
    assert len(ours) > before


@pytest.mark.parametrize("name", PLANTED)
def test_whoever_asks_is_found(name: str) -> None:
    ours: list[str] = []
    mining: list[str] = []
    with _watched(ours, mining):
        PLANTED[name](torch.ones(3))
    assert ours
    assert mining == []
