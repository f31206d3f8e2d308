"""Precision and memory layout by measurement: the fastest one, remembered, and without a trace."""

import copy
import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from siamese.config import TrainerSettings, TrainSettings
from siamese.config.reading import build_settings, flatten
from siamese.errors import UserError
from siamese.models.embedder import SiameseEmbedder
from siamese.tasks.faces.face_runs import resume_training, train_faces
from siamese.tasks.task_spec import task_spec
from siamese.training import arithmetic, probing
from siamese.training.arithmetic import choices, fastest
from siamese.training.probing import Arithmetic, PlannedRun, untouched
from siamese.training.tuning import tuned
from tests.runs import short_run

LONG = 10**9
CPU = torch.device("cpu")
IMAGES = torch.zeros(6, 3, 32, 32, dtype=torch.uint8)
USUAL, BF16 = Arithmetic(torch.float32, True), Arithmetic(torch.bfloat16, True)
PLAIN = Arithmetic(torch.float32, False)


@pytest.fixture
def network() -> SiameseEmbedder:
    torch.manual_seed(0)
    return SiameseEmbedder("test_resnet", 8, size=32, dropout=0.3).train()


def _run(network: SiameseEmbedder, place: Path, pictures: int = LONG) -> PlannedRun:
    return PlannedRun(network, lambda: IMAGES, pictures, "n", place, lambda line: None)


def _takes(monkeypatch: pytest.MonkeyPatch, seconds: dict[Arithmetic, float]) -> list[Arithmetic]:
    """Let steps take so many seconds; returns those that were made."""
    made: list[Arithmetic] = []

    def step(network: object, images: object, one: Arithmetic) -> float:
        made.append(one)
        return seconds[one]

    for module in (probing, arithmetic):
        monkeypatch.setattr(module, "step_seconds", step)
    return made


def test_what_a_run_may_choose_from() -> None:
    assert choices(torch.float32, "auto", CPU, may_round=True) == [
        USUAL, PLAIN, BF16, Arithmetic(torch.bfloat16, False),
    ]  # fmt: skip
    assert choices(torch.float32, "auto", CPU, may_round=False) == [USUAL, PLAIN]
    assert choices(torch.float32, False, CPU, may_round=False) == [PLAIN]
    gpu = torch.device("cuda")
    assert choices(torch.float16, True, gpu, may_round=True) == [Arithmetic(torch.float16, True)]


def test_the_fastest_is_taken_and_remembered(
    network: SiameseEmbedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = _takes(monkeypatch, {USUAL: 1.0, PLAIN: 2.0, BF16: 0.5})
    assert fastest(_run(network, tmp_path), USUAL, [PLAIN, BF16]) == BF16
    assert made.count(PLAIN) == 2  # a warm-up, and once: it is hopeless
    made.clear()
    assert fastest(_run(network, tmp_path), USUAL, [PLAIN, BF16]) == BF16
    assert set(made) == {USUAL}  # how long the run takes
    monkeypatch.setattr(arithmetic, "_FEWEST", 1)
    assert fastest(_run(network, tmp_path, 20), USUAL, [PLAIN, BF16]) == USUAL  # too short
    wider = SiameseEmbedder("test_resnet", 9, size=32)
    assert _run(wider, tmp_path).key(IMAGES, "x") != _run(network, tmp_path).key(IMAGES, "x")
    assert fastest(_run(network, tmp_path), USUAL, [PLAIN]) == USUAL  # another question
    (tmp_path / "arithmetic.json").write_text('{"damaged')
    assert fastest(_run(network, tmp_path), USUAL, [BF16]) == BF16


def test_what_does_not_work_here_is_left_out(
    network: SiameseEmbedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(network: object, images: object, one: Arithmetic) -> float:
        if one == broken:
            raise NotImplementedError("no kernel for this precision")
        return {USUAL: 1.0, PLAIN: 0.5}[one]

    for module in (probing, arithmetic):
        monkeypatch.setattr(module, "step_seconds", step)
    broken = BF16
    assert fastest(_run(network, tmp_path), USUAL, [BF16, PLAIN]) == PLAIN
    broken = USUAL  # that the run itself cannot work is told
    with pytest.raises(NotImplementedError):
        fastest(_run(network, tmp_path / "other"), USUAL, [BF16])


def test_buffers_that_a_module_replaces_are_put_back() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.seen = self.seen + 1
            return images

    module = Counting()
    with untouched([module], CPU):
        module(IMAGES)
    assert module.seen == 0


def test_a_lack_of_memory_names_what_needs_less(
    network: SiameseEmbedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(*given: object) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(probing, "step_seconds", step)
    run, options = _run(network, tmp_path), {"processes": 1, "new": True, "may_round": True}
    with pytest.raises(UserError, match=r"memory.*\(`smaller`\)"):
        tuned(TrainerSettings(), run, torch.float32, CPU, **options, smaller="`smaller`")  # type: ignore[arg-type]


def test_a_damaged_record_decides_nothing(
    network: SiameseEmbedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _takes(monkeypatch, {USUAL: 1.0, BF16: 0.5})
    run = _run(network, tmp_path)
    fastest(run, USUAL, [BF16])
    place = tmp_path / "arithmetic.json"
    ((key, kept),) = json.loads(place.read_text()).items()
    for wrong in ({**kept, "ratio": 0.0}, {**kept, "chosen": "int3"}, {"chosen": 1}, []):
        place.write_text(json.dumps({key: wrong}))
        assert fastest(run, USUAL, [BF16]) == BF16


@pytest.mark.parametrize("other", [0.95, 1.2])
def test_a_small_gain_is_no_reason(
    network: SiameseEmbedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: float
) -> None:
    _takes(monkeypatch, {USUAL: 1.0, BF16: other})
    assert fastest(_run(network, tmp_path), USUAL, [BF16]) == USUAL


@pytest.mark.parametrize(("pictures", "steps"), [(5000, 0), (20_000, 4)])
def test_short_runs_are_not_kept_waiting(
    network: SiameseEmbedder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pictures: int,
    steps: int,
) -> None:
    made = _takes(monkeypatch, {USUAL: 0.05, BF16: 0.01})
    assert fastest(_run(network, tmp_path, pictures), USUAL, [BF16]) == USUAL
    assert len(made) == steps
    assert list(tmp_path.iterdir()) == []


def test_measuring_leaves_no_trace(network: SiameseEmbedder, tmp_path: Path) -> None:
    network.to(memory_format=torch.channels_last)
    before, random = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    weights = [parameter.stride() for parameter in network.parameters()]
    fastest(_run(network, tmp_path), USUAL, [PLAIN, BF16])
    assert torch.equal(torch.get_rng_state(), random)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert [parameter.stride() for parameter in network.parameters()] == weights
    assert all(parameter.grad is None for parameter in network.parameters())


def test_slower_arithmetic_is_seen_on_a_clock(
    network: SiameseEmbedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = network.forward

    def slow(images: torch.Tensor) -> torch.Tensor:
        if images.is_contiguous(memory_format=torch.channels_last):
            time.sleep(0.2)
        return forward(images)

    monkeypatch.setattr(network, "forward", slow)
    monkeypatch.setattr(arithmetic, "_SHORTEST", 0.0)
    assert fastest(_run(network, tmp_path), USUAL, [PLAIN]) == PLAIN


def test_settings_say_what_was_chosen(
    network: SiameseEmbedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = Arithmetic(torch.bfloat16, False)
    _takes(monkeypatch, {USUAL: 1.0, PLAIN: 0.9, BF16: 0.8, quick: 0.5})
    run, given = _run(network, tmp_path), TrainerSettings(compile=False)
    common = {"processes": 1, "new": True, "may_round": True, "smaller": ""}
    trainer, chosen = tuned(given, run, torch.float32, CPU, **common)  # type: ignore[arg-type]
    assert chosen == quick
    assert (trainer.precision, trainer.channels_last) == ("bf16", False)
    for change in ({"processes": 2}, {"new": False}):
        options = {**common, **change}
        trainer, chosen = tuned(given, run, torch.float32, CPU, **options)  # type: ignore[arg-type]
        assert chosen == USUAL
        assert (trainer.precision, trainer.channels_last) == ("auto", True)


def test_a_run_in_another_arithmetic_goes_on_in_it(
    face_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    quick = Arithmetic(torch.bfloat16, False)
    monkeypatch.setattr("siamese.training.tuning.fastest", lambda run, usual, others: quick)
    settings = short_run(face_folder, tmp_path)
    train_faces(settings)
    capsys.readouterr()
    monkeypatch.undo()

    def longer(saved: dict[str, Any]) -> TrainSettings:
        left_open = {"trainer.precision": "auto", "trainer.channels_last": "auto"}
        flat = {**flatten(TrainSettings, saved), **left_open, "trainer.epochs": 2}
        return build_settings(TrainSettings, flat, "the test")

    resume_training("run", settings.checkpoints, longer)
    assert "on cpu in bfloat16" in capsys.readouterr().out
    written = yaml.safe_load((tmp_path / "runs" / "run" / "settings.yaml").read_text())
    assert (written["trainer"]["precision"], written["trainer"]["channels_last"]) == ("bf16", False)
    assert len((tmp_path / "runs" / "run" / "metrics.csv").read_text().splitlines()) == 3


def test_runs_that_are_compared_keep_float32_on_a_cpu(
    face_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Arithmetic] = []

    def last(run: PlannedRun, usual: Arithmetic, others: list[Arithmetic]) -> Arithmetic:
        asked.extend([usual, *others])
        return usual

    monkeypatch.setattr("siamese.training.tuning.fastest", last)
    settings = short_run(face_folder, tmp_path)
    task_spec("face").train(settings)
    assert asked == [USUAL, PLAIN]
    written = yaml.safe_load((tmp_path / "runs" / "run" / "settings.yaml").read_text())
    assert written["trainer"]["precision"] == "fp32"
