"""Compiling a network: only where a run is long enough, and without a trace in the run."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from siamese.config import (
    ClassificationSettings,
    TrainSettings,
    check_classification,
    check_settings,
)
from siamese.config.ranges import Compiling
from siamese.errors import UserError
from siamese.models.embedder import SiameseEmbedder
from siamese.tasks.faces.face_runs import train_faces
from siamese.training import compiling, probing
from siamese.training.compiling import compiled, compiles, earns, require_compilable
from siamese.training.probing import Arithmetic, PlannedRun
from tests.runs import short_run

LONG = 10**9
USUAL = Arithmetic(torch.float32, True)


@pytest.fixture
def network() -> SiameseEmbedder:
    torch.manual_seed(0)
    return SiameseEmbedder("test_resnet", 8, size=32, dropout=0.3).train()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.zeros(6, 3, 32, 32, dtype=torch.uint8)


class _Slow(nn.Module):
    """Stands in for a network of which a step takes so many seconds."""

    def __init__(self, network: nn.Module, seconds: float):
        super().__init__()
        self.network, self.seconds = network, seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that tells what a step is said to take: beside other work a real one tells little."""
    for module in (probing, compiling):
        monkeypatch.setattr(module, "step_seconds", lambda network, *rest: network.seconds)


def _run(network: nn.Module, images: torch.Tensor, place: Path, pictures: int = LONG) -> PlannedRun:
    return PlannedRun(network, lambda: images, pictures, "n", place, lambda line: None)


def _ask(network: nn.Module, images: torch.Tensor, place: Path, pictures: int = LONG) -> bool:
    return earns(_run(network, images, place, pictures), USUAL)


@pytest.mark.usefixtures("clock")
def test_a_gain_is_measured_once_and_remembered(
    network: SiameseEmbedder,
    images: torch.Tensor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow, place, asked = _Slow(network, 6.0), tmp_path / "compiling.json", 0

    def faster(given: nn.Module, wanted: object) -> nn.Module:
        nonlocal asked
        asked += 1
        return _Slow(network, 1.0)

    monkeypatch.setattr(compiling, "compiled", faster)
    assert _ask(slow, images, tmp_path)
    assert _ask(slow, images, tmp_path)
    assert asked == 1
    ((key, gain),) = json.loads(place.read_text()).items()
    assert torch.__version__ in key
    assert gain["ratio"] > 1.5
    place.write_text(json.dumps({key: {"seconds": 1e12, "ratio": 2.0}}))
    assert not _ask(slow, images, tmp_path)  # compiling would take longer than it saves
    place.write_text("{damaged")
    assert _ask(slow, images, tmp_path)
    assert asked == 2


@pytest.mark.usefixtures("clock")
def test_what_is_slower_compiled_stays_as_it_is(
    network: SiameseEmbedder, images: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "compiled", lambda given, wanted: _Slow(network, 4.0))
    assert not _ask(_Slow(network, 1.0), images, tmp_path)


def test_short_runs_are_not_kept_waiting(
    network: SiameseEmbedder, images: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(given: nn.Module, wanted: object) -> nn.Module:
        raise AssertionError

    monkeypatch.setattr(compiling, "compiled", never)
    for pictures in (1000, 60_000):  # of 32 pixels
        assert not _ask(network, images, tmp_path, pictures)
    assert list(tmp_path.iterdir()) == []


def test_measuring_leaves_no_trace(
    network: SiameseEmbedder, images: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "compiled", lambda given, wanted: given)
    before, random = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    _ask(network, images, tmp_path)
    assert torch.equal(torch.get_rng_state(), random)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.grad is None for parameter in network.parameters())


def test_without_a_compiler_a_run_goes_on_and_a_wish_is_refused(
    network: SiameseEmbedder, images: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(given: nn.Module, wanted: object) -> nn.Module:
        raise RuntimeError("InvalidCxxCompiler: no working C++ compiler\nlong text")

    monkeypatch.setattr(compiling, "compiled", fails)
    assert not _ask(network, images, tmp_path)
    with pytest.raises(UserError, match=r"trainer\.compile.*no working C\+\+ compiler\); set"):
        require_compilable(_run(network, images, tmp_path), USUAL)


def test_a_compiled_run_learns_what_a_plain_one_does(
    face_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The compiler's own rounding is not the question, and its minutes are not needed.
    compile_with = torch.compile
    modes: list[str | None] = []

    def quickly(module: nn.Module, mode: str | None = None) -> Any:
        modes.append(mode)
        return compile_with(module, backend="aot_eager")

    monkeypatch.setattr(torch, "compile", quickly)
    rows = []
    choices: list[Compiling] = [False, True, "reduce-overhead"]
    for wanted in choices:
        settings = short_run(face_folder, tmp_path)
        settings.name = f"run-{wanted}"
        settings.trainer = replace(settings.trainer, epochs=2, compile=wanted)
        train_faces(settings)
        rows.append((tmp_path / "runs" / f"run-{wanted}" / "metrics.csv").read_text().splitlines())
        assert (
            f"compile: {str(wanted).lower()}"
            in (tmp_path / "runs" / f"run-{wanted}" / "settings.yaml").read_text()
        )
    assert modes == [None] * 2 + ["reduce-overhead"] * 2  # tried, then used
    loss, auc = (rows[0][0].split(",").index(name) for name in ("train_loss", "auc"))
    for epoch in zip(*(some[1:] for some in rows), strict=True):
        for column in (loss, auc):
            plain, *others = (float(row.split(",")[column]) for row in epoch)
            assert others == pytest.approx([plain] * 2, abs=1e-3)


def test_several_processes_go_on_without_and_do_not_begin_with(
    network: SiameseEmbedder, images: torch.Tensor, tmp_path: Path
) -> None:
    run = _run(network, images, tmp_path)
    choices: list[Compiling] = [False, True, "auto", "reduce-overhead"]
    for wanted in choices:
        assert compiles(wanted, run, USUAL, processes=2, new=False) is False
    assert compiles("auto", run, USUAL, processes=2, new=True) is False
    with pytest.raises(UserError, match=r"`trainer\.compile` reduce-overhead: several processes"):
        compiles("reduce-overhead", run, USUAL, processes=2, new=True)


def test_a_graph_is_recorded_before_a_run_begins_with_it(
    network: SiameseEmbedder, images: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first step of a graph warms up, the second records, the third replays."""
    steps: list[bool] = []

    class Recording(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            steps.append(all(one.grad is None for one in network.parameters()))
            if len(steps) == 3:
                raise RuntimeError("no memory for the graph")
            result: torch.Tensor = network(images)
            return result

    monkeypatch.setattr(torch, "compile", lambda module, mode: Recording())
    with pytest.raises(UserError, match=r"reduce-overhead: .*no memory for the graph"):
        require_compilable(_run(network, images, tmp_path), USUAL, "reduce-overhead")
    assert steps == [True] * 3


def test_what_a_graph_gives_outlives_its_next_step(
    network: SiameseEmbedder, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = torch.zeros(2)
    monkeypatch.setattr(torch, "compile", lambda module, mode: lambda images: place.add_(1))
    replayed = compiled(network, "reduce-overhead")
    first, second = replayed(images), replayed(images)
    assert (first.tolist(), second.tolist()) == ([1, 1], [2, 2])


def test_a_graph_takes_no_accumulated_gradient() -> None:
    faces = TrainSettings(data="faces")
    faces.trainer.compile, faces.trainer.accumulate = "reduce-overhead", 2
    with pytest.raises(UserError, match=r"`trainer\.compile` reduce-overhead: .*accumulate"):
        check_settings(faces)
    classes = ClassificationSettings()
    classes.trainer.compile, classes.batches.ghost = "reduce-overhead", 32
    with pytest.raises(UserError, match=r"`trainer\.compile` reduce-overhead: .*ghost"):
        check_classification(classes)
