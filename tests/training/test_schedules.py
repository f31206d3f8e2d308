"""Learning rates step by step, against the schedulers of torch and timm on real optimizers."""

import math
from typing import Any

import pytest
import torch
from timm.scheduler import CosineLRScheduler
from torch.optim import lr_scheduler

from siamese.config import OptimizerSettings, ScheduleSettings
from siamese.errors import UserError
from siamese.training.schedules import (
    in_steps,
    lr_line,
    schedule_factor,
    schedule_remarks,
    warm_restarts,
    warmup_ramp,
)

LR, PER_EPOCH, EPOCHS = 0.4, 7, 20
TOTAL = PER_EPOCH * EPOCHS


def _sgd() -> torch.optim.SGD:
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)


def _ours(steps: int = TOTAL, **options: Any) -> list[float]:
    settings = ScheduleSettings(**{"warmup": 0.0, **options})
    factor = schedule_factor(settings, LR, PER_EPOCH, EPOCHS)
    optimizer = _sgd()
    schedule = lr_scheduler.LambdaLR(optimizer, factor)
    return _rates(optimizer, schedule, steps)


def _rates(optimizer: torch.optim.SGD, schedule: Any, steps: int = TOTAL) -> list[float]:
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


def _torch(kind: Any, *arguments: Any, **options: Any) -> list[float]:
    optimizer = _sgd()
    return _rates(optimizer, kind(optimizer, *arguments, **options))


def test_constant() -> None:
    assert _ours(name="constant", min_lr=0.1) == [LR] * TOTAL


@pytest.mark.parametrize("milestones", [(0.5, 0.75), (10, 15), (10, 0.75)])
def test_multistep_is_torch_s(milestones: tuple[float, ...]) -> None:
    ours = _ours(name="multistep", milestones=milestones, gamma=0.2)
    expected = _torch(lr_scheduler.MultiStepLR, [10 * PER_EPOCH, 15 * PER_EPOCH], gamma=0.2)
    assert ours == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", ["cosine", "auto"])
@pytest.mark.parametrize("low", [0.0, 0.01])
def test_cosine_is_torch_s_and_ends_with_the_run(name: str, low: float) -> None:
    ours = _ours(TOTAL + 5, name=name, min_lr=low)
    expected = _torch(lr_scheduler.CosineAnnealingLR, TOTAL, eta_min=low)
    assert ours[:TOTAL] == pytest.approx(expected, rel=1e-9)
    assert ours[TOTAL:] == pytest.approx([low] * 5, abs=1e-15)  # and stays there


@pytest.mark.parametrize(("cycle", "growth"), [(2, 2), (3, 1), (1, 3), (30, 2)])
def test_warm_restarts_are_torch_s(cycle: int, growth: int) -> None:
    ours = _ours(name="sgdr", cycle=cycle, cycle_factor=growth, min_lr=0.01)
    expected = _torch(
        lr_scheduler.CosineAnnealingWarmRestarts, cycle * PER_EPOCH, growth, eta_min=0.01
    )
    assert ours == pytest.approx(expected, rel=1e-9)


def test_waves_of_broken_length_restart_where_their_lengths_add_up() -> None:
    # Waves of 2.5, 3.75 and 5.625 steps begin at 0, 2.5, 6.25 and 11.875.
    for step, begin, length in ((2, 0, 2.5), (3, 2.5, 3.75), (7, 6.25, 5.625), (11, 6.25, 5.625)):
        expected = 0.5 * (1 + math.cos(math.pi * (step - begin) / length))
        assert warm_restarts(step, 2.5, 1.5) == pytest.approx(expected, rel=1e-12)
    assert warm_restarts(5, 2.5, 1.0) == 1.0


def test_linear_is_torch_s() -> None:
    ours = _ours(name="linear", min_lr=LR / 8)
    ends = {"start_factor": 1.0, "end_factor": 1 / 8, "total_iters": TOTAL}
    assert ours == pytest.approx(_torch(lr_scheduler.LinearLR, **ends), rel=1e-9)


@pytest.mark.parametrize("power", [1.0, 2.0, 0.5])
def test_polynomial_is_torch_s(power: float) -> None:
    ours = _ours(name="polynomial", power=power)
    expected = _torch(lr_scheduler.PolynomialLR, TOTAL, power=power)
    assert ours == pytest.approx(expected, rel=1e-9)
    raised = _ours(name="polynomial", power=power, min_lr=0.1)
    assert raised == pytest.approx([0.1 + rate * (LR - 0.1) / LR for rate in expected], rel=1e-9)


def test_warm_up_and_cosine_are_timm_s() -> None:
    ours = _ours(name="cosine", warmup=5, warmup_start=1e-6 / LR, min_lr=1e-6)
    warmup = 5 * PER_EPOCH
    optimizer = _sgd()
    timm = CosineLRScheduler(
        optimizer,
        TOTAL,
        lr_min=1e-6,
        warmup_t=warmup,
        warmup_lr_init=1e-6,
        warmup_prefix=False,
        t_in_epochs=False,
    )
    expected = []
    for step in range(TOTAL):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        timm.step_update(step + 1)
    assert ours[warmup:] == pytest.approx(expected[warmup:], rel=1e-9)
    # timm rises to the full rate and then falls onto the schedule; ours rises onto the schedule.
    plain = _ours(name="cosine", min_lr=1e-6)
    below = [rise * value / LR for rise, value in zip(expected, plain, strict=True)]
    assert ours[:warmup] == pytest.approx(below[:warmup], rel=1e-9)
    assert ours[0] == pytest.approx(1e-6)


@pytest.mark.parametrize("shape", ["linear", "exponential"])
@pytest.mark.parametrize(
    "name", ["constant", "cosine", "multistep", "sgdr", "linear", "polynomial"]
)
def test_warm_up_shifts_nothing(name: str, shape: str) -> None:
    plain = _ours(name=name, milestones=(3, 10))
    warmed = _ours(name=name, milestones=(3, 10), warmup=5, warmup_shape=shape)
    assert warmed[5 * PER_EPOCH :] == plain[5 * PER_EPOCH :]
    pairs = list(zip(warmed, plain, strict=True))[: 5 * PER_EPOCH]
    assert all(0 < low < high for low, high in pairs)
    shares = [low / high for low, high in pairs]
    assert shares == sorted(shares)
    # A milestone within the warm-up counts where it stands.
    if name == "multistep":
        assert plain[3 * PER_EPOCH] == pytest.approx(LR / 10)
        assert plain[3 * PER_EPOCH - 1] == pytest.approx(LR)


def test_a_linear_warm_up_is_torch_s() -> None:
    ours = _ours(name="constant", warmup=0.25, warmup_start=0.1)
    ends = {"start_factor": 0.1, "total_iters": TOTAL // 4}
    assert ours == pytest.approx(_torch(lr_scheduler.LinearLR, **ends), rel=1e-9)
    steps = TOTAL // 4
    without_start = _ours(name="constant", warmup=0.25)
    expected = [LR * min(1.0, (k + 1) / (steps + 1)) for k in range(TOTAL)]
    assert without_start == pytest.approx(expected, rel=1e-12)


def test_an_exponential_warm_up_multiplies_by_the_same_factor() -> None:
    optimizer = _sgd()
    optimizer.param_groups[0]["lr"] = LR * 0.01
    growth = lr_scheduler.ExponentialLR(optimizer, 100 ** (1 / 30))
    expected = _rates(optimizer, growth, 30)
    ours = [LR * warmup_ramp(step, 30, "exponential", 0.01) for step in range(31)]
    assert ours[:30] == pytest.approx(expected, rel=1e-9)
    assert ours[30] == LR
    assert warmup_ramp(0, 30, "exponential") == pytest.approx(0.001)


def test_lengths_are_shares_or_epochs() -> None:
    assert in_steps(0.5, 10, 8) == 40
    assert in_steps(1, 10, 8) == 10
    assert in_steps(2.5, 10, 8) == 25
    assert in_steps(0.0, 10, 8) == 0


def test_an_end_above_the_beginning_is_refused() -> None:
    with pytest.raises(UserError, match=r"schedule.min_lr` 0.5: must be at most .* 0.4"):
        _ours(name="cosine", min_lr=0.5)


def test_a_run_too_short_for_its_schedule_says_so() -> None:
    settings = ScheduleSettings(name="multistep", warmup=5, milestones=(0.5, 3, 80, 120))
    long = schedule_remarks(settings, 200)
    short = schedule_remarks(settings, 5)
    assert not long
    assert len(short) == 2
    assert "warm-up of 5 epochs" in short[0]
    assert "80, 120 lie" in short[1]
    assert not schedule_remarks(ScheduleSettings(warmup=0.5), 1)


# What a run says of its learning rate in its first line, beside what the rate then does.

_ALL_NAMES = ("constant", "cosine", "linear", "multistep", "polynomial", "sgdr")


@pytest.mark.parametrize("name", _ALL_NAMES)
@pytest.mark.parametrize("warmup", [0.0, 0.1])
def test_the_first_line_says_what_the_rate_does(name: Any, warmup: float) -> None:
    schedule = ScheduleSettings(name=name, warmup=warmup)
    told = lr_line(0.25, "as set", OptimizerSettings(name="adamw"), schedule)
    factor = schedule_factor(schedule, 0.25, steps_per_epoch=10, epochs=20)
    assert told.startswith("learning rate 0.25")
    assert told.endswith(": as set")
    assert ("warm-up" in told) == (factor(0) < 0.5)
    assert ("then" in told) == (min(map(factor, range(50, 200))) < 0.9)
    assert ("in steps" in told) == (name == "multistep")
    assert ("start anew" in told) == any(factor(s + 1) > 2 * factor(s) for s in range(50, 199))


def test_the_default_schedule_is_told_as_what_it_is() -> None:
    told = {
        name: lr_line(0.1, "", OptimizerSettings(name="sgd"), ScheduleSettings(name=name))
        for name in ("auto", "cosine")
    }
    assert told["auto"] == told["cosine"]


@pytest.mark.parametrize(
    ("optimizer", "warms_up"),
    [("radam_schedulefree", False), ("adamw_schedulefree", True), ("sgd_schedulefree", True)],
)
def test_of_schedule_free_optimizers_no_schedule_is_told(optimizer: Any, warms_up: bool) -> None:
    told = lr_line(0.1, "as set", OptimizerSettings(name=optimizer), ScheduleSettings(warmup=0.1))
    assert told == f"learning rate 0.1{' after a warm-up' * warms_up}: as set"
