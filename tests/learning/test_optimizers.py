"""Paired modes: what trains, what is evaluated, and the exact way back."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn

from siamese.config import OptimizerSettings
from siamese.learning.optimizers import PairedOptimizer, build_optimizer, parameter_groups

SCHEDULE_FREE = ["radam_schedulefree", "adamw_schedulefree", "sgd_schedulefree"]
ALL = [*SCHEDULE_FREE, "adamw"]


def _net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def _build(name: str, net: nn.Module, **options: Any) -> tuple[PairedOptimizer, Any]:
    groups = parameter_groups({"net": net}, options.pop("weight_decay", 0.0), 0.01, {})
    return build_optimizer(OptimizerSettings(name=name, **options), groups, 0.01, 100)


def _steps(net: nn.Module, optimizer: PairedOptimizer, count: int, first: int = 0) -> None:
    for step in range(first, first + count):
        generator = torch.Generator().manual_seed(step)
        inputs = torch.randn(16, 6, generator=generator)
        net(inputs).square().mean().backward()
        optimizer.inner.step()
        optimizer.inner.zero_grad()


def _weights(net: nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in net.parameters()]


@pytest.mark.parametrize("name", ALL)
def test_evaluating_never_disturbs_training(name: str) -> None:
    quiet, watched = _net(), _net()
    first, second = _build(name, quiet)[0], _build(name, watched)[0]
    first.train()
    second.train()
    for block in range(4):
        _steps(quiet, first, 5, block * 5)
        _steps(watched, second, 5, block * 5)
        second.eval()
        second.eval()
        second.train()
        second.train()
    for a, b in zip(_weights(quiet), _weights(watched), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", SCHEDULE_FREE)
def test_eval_mode_holds_the_library_s_averaged_weights(name: str) -> None:
    ours, reference = _net(), _net()
    paired, plain = _build(name, ours)[0], _build(name, reference)[0].inner
    paired.train()
    plain.train()  # type: ignore[attr-defined]
    _steps(ours, paired, 20)
    _steps(reference, PairedOptimizer(plain), 20)
    paired.eval()
    plain.eval()  # type: ignore[attr-defined]
    for a, b in zip(_weights(ours), _weights(reference), strict=True):
        assert torch.equal(a, b)
    before = _weights(ours)
    paired.train()
    assert any(not torch.equal(a, b) for a, b in zip(before, _weights(ours), strict=True))


@pytest.mark.parametrize("name", ALL)
def test_saved_state_continues_bit_for_bit(name: str) -> None:
    through, stopped = _net(), _net()
    first, second = _build(name, through), _build(name, stopped)
    for net, (optimizer, schedule) in ((through, first), (stopped, second)):
        optimizer.train()
        for step in range(10):
            _steps(net, optimizer, 1, step)
            if schedule:
                schedule.step()
        optimizer.eval()
    saved = copy.deepcopy((stopped.state_dict(), second[0].state_dict(), second[0].train_weights()))
    schedule_state = copy.deepcopy(second[1].state_dict()) if second[1] else None
    resumed = _net()
    optimizer, schedule = _build(name, resumed)
    resumed.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1], saved[2])
    if schedule:
        schedule.load_state_dict(schedule_state)
    for net, (paired, rate) in ((through, first), (resumed, (optimizer, schedule))):
        paired.train()
        for step in range(10, 20):
            _steps(net, paired, 1, step)
            if rate:
                rate.step()
    for a, b in zip(_weights(through), _weights(resumed), strict=True):
        assert torch.equal(a, b)


def test_training_weights_are_never_saved_by_mistake() -> None:
    optimizer = _build("radam_schedulefree", _net())[0]
    optimizer.train()
    with pytest.raises(RuntimeError, match="eval"):
        optimizer.state_dict()
    with pytest.raises(RuntimeError, match="eval"):
        optimizer.train_weights()


def test_norms_and_biases_do_not_decay() -> None:
    net = _net()
    groups = parameter_groups({"net": net}, 0.1, 0.01, {})
    decays = {id(p): g["weight_decay"] for g in groups for p in g["params"]}
    for name, parameter in net.named_parameters():
        assert decays[id(parameter)] == (0.1 if name in ("0.weight", "3.weight") else 0.0)
    assert len(decays) == len(list(net.parameters()))


def test_adamw_warms_up_and_decays_to_zero() -> None:
    optimizer, schedule = _build("adamw", _net(), warmup=0.1)
    assert schedule is not None
    rates = []
    for _ in range(100):
        rates.append(optimizer.lr)
        optimizer.inner.step()
        schedule.step()
    assert rates[:10] == pytest.approx([0.01 * (k + 1) / 11 for k in range(10)])
    expected = [0.01 * 0.5 * (1 + math.cos(math.pi * k / 90)) for k in range(90)]
    assert rates[10:] == pytest.approx(expected)
    assert optimizer.lr == pytest.approx(0, abs=1e-12)


def test_a_thawed_group_starts_its_average_anew_and_once() -> None:
    net = _net()
    optimizer = _build("adamw_schedulefree", net, warmup=0.0)[0]
    optimizer.train()
    for _ in range(500):  # frozen: no gradient, yet the groups count their steps
        optimizer.inner.step()
    assert all(group["k"] == 500 for group in optimizer.inner.param_groups)
    optimizer.restart_average("net")
    assert all(group["k"] == group["weight_sum"] == 0 for group in optimizer.inner.param_groups)
    _steps(net, optimizer, 1, 500)
    optimizer.restart_average("net")  # as a run does that was stopped within the epoch
    assert all(group["k"] == 1 for group in optimizer.inner.param_groups)
    optimizer.eval()
    # One step after the restart the average is the newest point itself.
    for group in optimizer.inner.param_groups:
        for p in group["params"]:
            torch.testing.assert_close(p.detach(), optimizer.inner.state[p]["z"])
