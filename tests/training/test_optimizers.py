"""Paired modes: what trains, what is evaluated, and the exact way back."""

import copy
import io
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import timm.optim
import torch
from torch import nn

from siamese.config import OptimizerSettings, ScheduleSettings, default_lr
from siamese.errors import UserError
from siamese.training import optimizers
from siamese.training.optimizers import (
    Group,
    Lookahead,
    PairedOptimizer,
    build_optimizer,
    parameter_groups,
)

SCHEDULE_FREE = ["radam_schedulefree", "adamw_schedulefree", "sgd_schedulefree"]
SCHEDULED = [
    "sgd",
    "adam",
    "amsgrad",
    "adamw",
    "radam",
    "adabound",
    "adaboundw",
    "lars",
    "lamb",
]
EXTRAS: dict[str, dict[str, Any]] = {
    "plain": {},
    "ema": {"ema": 0.9},
    "lookahead": {"lookahead": 3},
    "both": {"ema": 0.9, "lookahead": 3},
}
# Every optimizer, with whatever it can be wrapped in.
ALL = [(name, "plain") for name in SCHEDULE_FREE] + [
    (name, extra) for name in SCHEDULED for extra in EXTRAS
]
AVERAGING = [
    (name, extra) for name, extra in ALL if name in SCHEDULE_FREE or "ema" in EXTRAS[extra]
]
LR = 0.01
UNSCALED = torch.amp.GradScaler("cpu", enabled=False)


def _net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.Linear(8, 3))


def _build(
    name: str, net: nn.Module, warmup: float = 0.05, weight_decay: float = 0.0, **options: Any
) -> tuple[PairedOptimizer, Any]:
    """A run of 10 epochs of 10 steps."""
    groups = parameter_groups({"net": net}, weight_decay, LR, {})
    settings = OptimizerSettings(name=name, **options)  # type: ignore[arg-type]
    return build_optimizer(settings, ScheduleSettings(warmup=warmup), groups, LR, 10, 10)


def _backward(net: nn.Module, step: int, scaler: torch.amp.GradScaler = UNSCALED) -> float:
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(16, 6, generator=generator).to(next(net.parameters()).dtype)
    wanted = inputs[:, :3] - inputs[:, 3:].abs()
    loss = (net(inputs) - wanted).square().mean()
    scaler.scale(loss).backward()
    return float(loss.detach())


def _steps(
    net: nn.Module,
    optimizer: PairedOptimizer,
    count: int,
    first: int = 0,
    schedule: Any = None,
    scaler: torch.amp.GradScaler = UNSCALED,
) -> list[float]:
    losses = []
    for step in range(first, first + count):
        losses.append(_backward(net, step, scaler))
        scaler.unscale_(optimizer.inner)
        optimizer.step(scaler)
        optimizer.inner.zero_grad()
        if schedule is not None:
            schedule.step()
    return losses


def _weights(net: nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in net.parameters()]


def _assert_equal(first: nn.Module, second: nn.Module) -> None:
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)


# What every optimizer keeps


@pytest.mark.parametrize(("name", "extra"), ALL)
def test_it_learns(name: str, extra: str) -> None:
    net = _net()
    groups = parameter_groups({"net": net}, 0.0, 0.05, {})
    # RAdam stays close to SGD for long where the second beta is 0.999.
    settings = OptimizerSettings(name=name, betas=(0.9, 0.98), **EXTRAS[extra])  # type: ignore[arg-type]
    optimizer, schedule = build_optimizer(settings, ScheduleSettings(), groups, 0.05, 8, 10)
    optimizer.train()
    losses = _steps(net, optimizer, 80, schedule=schedule)
    assert sum(losses[-10:]) < 0.6 * sum(losses[:10])
    # The evaluated weights have learnt, too.
    optimizer.eval()
    assert sum(_backward(net, step) for step in range(10)) < 0.6 * sum(losses[:10])


@pytest.mark.parametrize(("name", "extra"), ALL)
def test_evaluating_never_disturbs_training(name: str, extra: str) -> None:
    quiet, watched = _net(), _net()
    first = _build(name, quiet, **EXTRAS[extra])[0]
    second = _build(name, watched, **EXTRAS[extra])[0]
    first.train()
    second.train()
    for block in range(4):
        _steps(quiet, first, 5, block * 5)
        _steps(watched, second, 5, block * 5)
        second.eval()
        second.eval()
        second.train()
        second.train()
    _assert_equal(quiet, watched)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("name", "extra"), ALL)
def test_saved_state_continues_bit_for_bit(name: str, extra: str, dtype: torch.dtype) -> None:
    through, stopped = _net().to(dtype), _net().to(dtype)
    first = _build(name, through, weight_decay=0.01, **EXTRAS[extra])
    second = _build(name, stopped, weight_decay=0.01, **EXTRAS[extra])
    for net, (optimizer, schedule) in ((through, first), (stopped, second)):
        optimizer.train()
        _steps(net, optimizer, 10, schedule=schedule)
        optimizer.eval()
    file = io.BytesIO()
    schedule_state = second[1].state_dict() if second[1] else {}
    state, weights = second[0].state_dict(), second[0].train_weights()
    torch.save([stopped.state_dict(), state, weights, schedule_state], file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed = copy.deepcopy(stopped)
    for parameter in resumed.parameters():
        nn.init.normal_(parameter)
    optimizer, schedule = _build(name, resumed, weight_decay=0.01, **EXTRAS[extra])
    resumed.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1], saved[2])
    if schedule:
        schedule.load_state_dict(saved[3])
    assert optimizer.lr == second[0].lr
    for net, (paired, rate) in ((through, first), (resumed, (optimizer, schedule))):
        paired.train()
        losses = _steps(net, paired, 10, 10, schedule=rate)
        assert all(map(math.isfinite, losses))
    _assert_equal(through, resumed)
    first[0].eval()
    optimizer.eval()
    _assert_equal(through, resumed)


@pytest.mark.parametrize(("name", "extra"), AVERAGING)
def test_what_is_evaluated_is_an_average(name: str, extra: str) -> None:
    net = _net()
    optimizer = _build(name, net, warmup=0.0, **EXTRAS[extra])[0]
    assert optimizer.averages
    optimizer.train()
    _steps(net, optimizer, 20)
    trained = _weights(net)
    optimizer.eval()
    pairs = zip(trained, _weights(net), strict=True)
    assert all(not torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(("name", "extra"), [pair for pair in ALL if pair not in AVERAGING])
def test_without_an_average_there_is_one_set_of_weights(name: str, extra: str) -> None:
    net = _net()
    optimizer = _build(name, net, **EXTRAS[extra])[0]
    optimizer.train()
    _steps(net, optimizer, 5)
    trained = _weights(net)
    optimizer.eval()
    assert not optimizer.averages
    assert optimizer.train_weights() == []
    assert all(torch.equal(a, b) for a, b in zip(trained, _weights(net), strict=True))


def _broken_step(optimizer: PairedOptimizer, scaler: torch.amp.GradScaler) -> None:
    """A step after a backward pass that left infinite gradients."""
    for parameter in optimizer.parameters():
        parameter.grad = torch.full_like(parameter, math.inf)
    # As a broken backward pass leaves it; the scale is a power of two and divides exactly.
    scaler.scale(torch.ones(()))
    scaler.unscale_(optimizer.inner)
    optimizer.step(scaler)
    optimizer.inner.zero_grad()


@pytest.mark.parametrize(("name", "extra"), ALL)
def test_a_loss_scaler_changes_nothing_but_leaves_out_broken_steps(name: str, extra: str) -> None:
    plain, scaled = _net(), _net()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8, growth_interval=3)
    first = _build(name, plain, **EXTRAS[extra])[0]
    second = _build(name, scaled, **EXTRAS[extra])[0]
    first.train()
    second.train()
    _steps(plain, first, 8)
    _steps(scaled, second, 4, scaler=scaler)
    before, scale = _weights(scaled), scaler.get_scale()
    assert scale == 2.0**9  # it has grown meanwhile: no sign of a broken step
    _broken_step(second, scaler)
    assert scaler.get_scale() == scale / 2
    assert all(torch.equal(a, b) for a, b in zip(before, _weights(scaled), strict=True))
    _steps(scaled, second, 4, 4, scaler=scaler)
    for optimizer in (first, second):
        optimizer.eval()
    _assert_equal(plain, scaled)


def test_training_weights_are_never_saved_and_averages_never_trained_by_mistake() -> None:
    optimizer = _build("radam_schedulefree", _net())[0]
    with pytest.raises(RuntimeError, match="train"):
        optimizer.step(UNSCALED)
    optimizer.train()
    with pytest.raises(RuntimeError, match="eval"):
        optimizer.state_dict()
    with pytest.raises(RuntimeError, match="eval"):
        optimizer.train_weights()


# Fused kernels


FUSED = ["sgd", "adam", "amsgrad", "adamw"]


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Function that says whether optimizers that are built take fused kernels, as on a GPU."""
    return lambda wanted: monkeypatch.setattr(optimizers, "_takes_fused", lambda groups: wanted)


def _assert_close(first: nn.Module, second: nn.Module) -> None:
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13)


def test_fused_kernels_are_for_gpus() -> None:
    def parameter(device: str, dtype: torch.dtype = torch.float32) -> Any:
        return SimpleNamespace(
            device=torch.device(device), is_floating_point=lambda: dtype.is_floating_point
        )

    there, here = parameter("cuda"), parameter("cpu")
    assert optimizers._takes_fused([{"params": [there]}, {"params": [parameter("cuda:1")]}])
    assert not optimizers._takes_fused([{"params": [there]}, {"params": [here, there]}])
    assert not optimizers._takes_fused([{"params": [parameter("mps")]}])
    assert not optimizers._takes_fused([{"params": [parameter("cuda", torch.int64)]}])


@pytest.mark.parametrize("extra", EXTRAS)
@pytest.mark.parametrize("name", SCHEDULED)
def test_fused_steps_are_the_same(name: str, extra: str, fused: Callable[[bool], None]) -> None:
    nets = [_net().double(), _net().double()]
    for net, wanted in zip(nets, (False, True), strict=True):
        fused(wanted)
        nesterov = {"nesterov": True} if name == "sgd" else {}
        optimizer, schedule = _build(name, net, weight_decay=0.1, **EXTRAS[extra], **nesterov)
        taken = [bool(group.get("fused")) for group in optimizer.inner.param_groups]
        assert taken == [wanted and name in FUSED] * 2
        optimizer.train()
        _steps(net, optimizer, 30, schedule=schedule)
        optimizer.eval()
    _assert_close(*nets)


@pytest.mark.parametrize("extra", ["plain", "both"])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("name", FUSED)
def test_a_run_goes_on_with_the_other_kernels(
    name: str, after: bool, extra: str, fused: Callable[[bool], None]
) -> None:
    through, resumed = _net().double(), _net().double()
    fused(not after)
    first = _build(name, through, weight_decay=0.1, **EXTRAS[extra])[0]
    first.train()
    _steps(through, first, 10)
    first.eval()
    saved = copy.deepcopy([through.state_dict(), first.state_dict(), first.train_weights()])
    fused(after)
    second = _build(name, resumed, weight_decay=0.1, **EXTRAS[extra])[0]
    resumed.load_state_dict(saved[0])
    second.load_state_dict(saved[1], saved[2])
    assert all(bool(group["fused"]) == after for group in second.inner.param_groups)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)  # knows fused steps by another way
    for net, optimizer in ((through, first), (resumed, second)):
        optimizer.train()
        _steps(net, optimizer, 10, 10, scaler=scaler)
        optimizer.eval()
    _assert_close(through, resumed)


@pytest.mark.parametrize("extra", EXTRAS)
@pytest.mark.parametrize("name", FUSED)
def test_a_first_step_that_a_scaler_leaves_out_leaves_nothing(
    name: str, extra: str, fused: Callable[[bool], None]
) -> None:
    plain, broken = _net().double(), _net().double()
    fused(True)
    first, second = (_build(name, net, **EXTRAS[extra])[0] for net in (plain, broken))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    first.train()
    second.train()
    junk = [torch.full_like(p, 1e30) for p in broken.parameters() for _ in range(50)]
    del junk  # what undefined memory would hold
    _broken_step(second, scaler)
    _assert_equal(plain, broken)
    _steps(plain, first, 8)
    _steps(broken, second, 8, scaler=scaler)
    if extra in ("plain", "ema"):  # Lookahead counts the step that was left out
        _assert_close(plain, broken)


@pytest.mark.parametrize("name", FUSED)
def test_parameters_may_get_their_first_gradient_later(
    name: str, fused: Callable[[bool], None]
) -> None:
    nets = [_net().double(), _net().double()]
    for net, wanted in zip(nets, (False, True), strict=True):
        fused(wanted)
        optimizer = _build(name, net)[0]
        optimizer.train()
        net[3].requires_grad_(False)
        _steps(net, optimizer, 5)
        assert not optimizer.inner.state.get(net[3].weight)
        net[3].requires_grad_(True)
        _steps(net, optimizer, 5, 5)
    _assert_close(*nets)


@pytest.mark.parametrize("name", FUSED)
def test_moments_lie_in_memory_as_their_parameters_do(
    name: str, fused: Callable[[bool], None]
) -> None:
    def convolution(layout: torch.memory_format) -> nn.Module:
        torch.manual_seed(0)
        return nn.Conv2d(3, 4, 3).double().to(memory_format=layout)  # type: ignore[call-overload]

    def step(net: nn.Module, optimizer: PairedOptimizer) -> None:
        optimizer.train()
        images = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1)).double()
        net(images).square().mean().backward()
        optimizer.step(UNSCALED)
        optimizer.eval()

    fused(True)
    plain, turned = convolution(torch.contiguous_format), convolution(torch.channels_last)
    first, second = _build(name, plain)[0], _build(name, turned)[0]
    step(plain, first)
    turned.load_state_dict(plain.state_dict())
    second.load_state_dict(copy.deepcopy(first.state_dict()), [])
    for net, optimizer in ((plain, first), (turned, second)):
        net.zero_grad()
        step(net, optimizer)
    _assert_close(plain, turned)


# Averages


@pytest.mark.parametrize("name", SCHEDULE_FREE)
def test_eval_mode_holds_the_library_s_averaged_weights(name: str) -> None:
    ours, reference = _net(), _net()
    paired, plain = _build(name, ours)[0], _build(name, reference)[0].inner
    paired.train()
    plain.train()  # type: ignore[attr-defined]
    _steps(ours, paired, 20)
    for step in range(20):
        _backward(reference, step)
        plain.step()
        plain.zero_grad()
    paired.eval()
    plain.eval()  # type: ignore[attr-defined]
    for a, b in zip(_weights(ours), _weights(reference), strict=True):
        assert torch.equal(a, b)
    before = _weights(ours)
    paired.train()
    assert any(not torch.equal(a, b) for a, b in zip(before, _weights(ours), strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_moving_average_is_the_formula_s(dtype: torch.dtype) -> None:
    net = _net().to(dtype)
    optimizer = _build("sgd", net, ema=0.9)[0]
    optimizer.train()
    expected = [p.double() for p in _weights(net)]
    for step in range(100):
        _steps(net, optimizer, 1, step)
        decay = min(0.9, (1 + step) / (10 + step))
        pairs = zip(expected, _weights(net), strict=True)
        expected = [decay * e + (1 - decay) * w.double() for e, w in pairs]
        if step == 50:
            optimizer.eval()  # must not count as a step
            optimizer.train()
    optimizer.eval()
    # In bfloat16 only what is put into the model is rounded, not what is summed.
    rtol = 1e-5 if dtype == torch.float32 else 2**-7
    for average, wanted in zip(_weights(net), expected, strict=True):
        torch.testing.assert_close(average, wanted.to(dtype), rtol=rtol, atol=1e-6)


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


@pytest.mark.parametrize(("name", "extra"), ALL)
def test_frozen_layers_stand_still_and_learn_once_thawed(name: str, extra: str) -> None:
    net = _net()
    optimizer = _build(name, net, weight_decay=0.1, **EXTRAS[extra])[0]
    frozen = next(net.children())
    frozen.requires_grad_(False)
    before = _weights(frozen)
    optimizer.train()
    _steps(net, optimizer, 7)
    optimizer.eval()
    assert all(torch.equal(a, b) for a, b in zip(before, _weights(frozen), strict=True))
    frozen.requires_grad_(True)
    optimizer.restart_average("net")
    optimizer.train()
    _steps(net, optimizer, 20, 7)
    optimizer.eval()
    assert all(not torch.equal(a, b) for a, b in zip(before, _weights(frozen), strict=True))
    assert all(bool(p.isfinite().all()) for p in net.parameters())


# Lookahead


def test_lookahead_is_the_paper_s_algorithm() -> None:
    ours, fast = _net().double(), _net().double()
    optimizer = _build("sgd", ours, lookahead=4, lookahead_alpha=0.3, momentum=0.0)[0]
    optimizer.train()
    slow = _weights(fast)  # arXiv 1907.08610, algorithm 1: they start where training starts
    for step in range(18):
        for group in optimizer.inner.param_groups:
            group["lr"] = 0.1
        _steps(ours, optimizer, 1, step)
        _backward(fast, step)
        with torch.no_grad():
            for index, parameter in enumerate(fast.parameters()):
                assert parameter.grad is not None
                parameter -= 0.1 * parameter.grad
                parameter.grad = None
                if (step + 1) % 4 == 0:
                    slow[index] = slow[index] + 0.3 * (parameter - slow[index])
                    parameter.copy_(slow[index])
    for a, b in zip(ours.parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_lookahead_is_timm_s_from_the_first_synchronisation_on() -> None:
    ours, theirs = _net(), _net()
    first = Lookahead(torch.optim.AdamW(ours.parameters(), 0.01), alpha=0.5, k=3)
    second = timm.optim.Lookahead(torch.optim.AdamW(theirs.parameters(), 0.01), alpha=0.5, k=3)
    for step in range(3):
        for net, optimizer in ((ours, first), (theirs, second)):
            _backward(net, step)
            optimizer.step()
            optimizer.zero_grad()
    apart = zip(ours.parameters(), theirs.parameters(), strict=True)
    assert all(not torch.equal(a, b) for a, b in apart)
    # The same point and the same moments: from here on nothing differs.
    theirs.load_state_dict(ours.state_dict())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for step in range(3, 20):
        for net, optimizer in ((ours, first), (theirs, second)):
            _backward(net, step)
            optimizer.step()
            optimizer.zero_grad()
    _assert_equal(ours, theirs)


# Which optimizer a name stands for


REFERENCES: dict[str, Callable[[list[Group]], Any]] = {
    "sgd": lambda g: torch.optim.SGD(g, momentum=0.8, nesterov=True),
    "adam": lambda g: torch.optim.Adam(g, betas=(0.8, 0.95)),
    "amsgrad": lambda g: torch.optim.Adam(g, betas=(0.8, 0.95), amsgrad=True),
    "adamw": lambda g: torch.optim.AdamW(g, betas=(0.8, 0.95)),
    "radam": lambda g: torch.optim.RAdam(g, betas=(0.8, 0.95)),
    "lars": lambda g: timm.optim.create_optimizer_v2(
        g, "nlars", momentum=0.8, trust_coeff=1.0, always_adapt=True
    ),
    "lamb": lambda g: timm.optim.create_optimizer_v2(
        g, "lamb", betas=(0.8, 0.95), max_grad_norm=None
    ),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_a_name_stands_for_the_library_s_optimizer(name: str) -> None:
    ours, reference = _net(), _net()
    options: dict[str, Any] = {"betas": (0.8, 0.95)}
    if name in ("sgd", "lars"):
        options = {"momentum": 0.8, "nesterov": True}
    optimizer, schedule = _build(name, ours, weight_decay=0.1, **options)
    other = REFERENCES[name](parameter_groups({"net": reference}, 0.1, LR, {}))
    for step in range(20):
        for group in other.param_groups:
            group["lr"] = optimizer.lr
        optimizer.train()
        _steps(ours, optimizer, 1, step, schedule=schedule)
        _backward(reference, step)
        other.step()
        other.zero_grad()
    _assert_equal(ours, reference)


def test_lars_takes_the_published_step() -> None:
    # arXiv 1708.03888: v = m v + lr |w| / (|g| + decay |w|) (g + decay w) with a trust of 1.
    net = nn.Linear(4, 3, bias=False).double()
    groups = parameter_groups({"net": net}, 0.1, 0.05, {})
    settings = OptimizerSettings(name="lars", momentum=0.9)
    flat = ScheduleSettings(name="constant", warmup=0.0)
    optimizer = build_optimizer(settings, flat, groups, 0.05, 10, 10)[0]
    optimizer.train()
    weight = net.weight.detach().clone()
    velocity = torch.zeros_like(weight)
    for step in range(6):
        gradient = torch.randn(3, 4, generator=torch.Generator().manual_seed(step)).double()
        net.weight.grad = gradient.clone()
        optimizer.step(UNSCALED)
        local = weight.norm() / (gradient.norm() + 0.1 * weight.norm())
        velocity = 0.9 * velocity + 0.05 * local * (gradient + 0.1 * weight)
        weight = weight - velocity
    torch.testing.assert_close(net.weight.detach(), weight, rtol=1e-7, atol=1e-9)


def test_a_group_with_its_own_rate_keeps_its_proportion_in_adabound() -> None:
    modules = {"net": _net(), "loss": nn.Linear(2, 2)}
    groups = parameter_groups(modules, 0.0, LR, {"loss": 10.0})
    settings = OptimizerSettings(name="adabound", final_lr=0.2)
    inner = build_optimizer(settings, ScheduleSettings(), groups, LR, 10, 10)[0].inner
    ends = {group["name"].partition(".")[0]: group["final_lr"] for group in inner.param_groups}
    assert ends == pytest.approx({"net": 0.2, "loss": 2.0})
    assert all("final_lr" not in group for group in groups)


def test_what_schedule_free_optimizers_listen_to() -> None:
    for name in ("adamw_schedulefree", "sgd_schedulefree"):
        for warmup, steps in ((0.2, 20), (3.0, 30)):  # a share of 100 steps; epochs of 10
            groups = _build(name, _net(), warmup=warmup)[0].inner.param_groups
            assert all(group["warmup_steps"] == steps for group in groups)
    groups = _build("sgd_schedulefree", _net(), momentum=0.7)[0].inner.param_groups
    assert all(group["momentum"] == 0.7 for group in groups)
    assert all(_build(name, _net())[1] is None for name in SCHEDULE_FREE)


@pytest.mark.parametrize("name", [*SCHEDULE_FREE, *SCHEDULED])
def test_there_is_a_learning_rate_for_every_optimizer(name: str) -> None:
    assert 0 < default_lr(name, False) <= default_lr(name, True) <= 1


# Groups and schedule


def test_norms_and_biases_do_not_decay_unless_asked_to() -> None:
    net = _net()
    for decay_norms in (False, True):
        groups = parameter_groups({"net": net}, 0.1, LR, {}, decay_norms=decay_norms)
        decays = {id(p): g["weight_decay"] for g in groups for p in g["params"]}
        for name, parameter in net.named_parameters():
            weight = name in ("0.weight", "3.weight")
            assert decays[id(parameter)] == (0.1 if weight or decay_norms else 0.0)
        assert len(decays) == len(list(net.parameters()))


@pytest.mark.parametrize("decay_norms", [False, True])
@pytest.mark.parametrize(("name", "extra"), ALL)
def test_decay_reaches_whom_it_should(name: str, extra: str, decay_norms: bool) -> None:
    net = _net()
    for layer in (0, 2, 3):
        nn.init.constant_(net[layer].bias, 0.3)
    groups = parameter_groups({"net": net}, 0.5, LR, {}, decay_norms=decay_norms)
    settings = OptimizerSettings(name=name, **EXTRAS[extra])  # type: ignore[arg-type]
    optimizer = build_optimizer(settings, ScheduleSettings(warmup=0.0), groups, LR, 10, 10)[0]
    before = _weights(net)
    optimizer.train()
    for _ in range(12):  # no gradient but that of the decay
        for parameter in net.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step(UNSCALED)
    optimizer.eval()
    for old, (key, now) in zip(before, net.named_parameters(), strict=True):
        if key in ("0.weight", "3.weight") or decay_norms:
            assert float(now.detach().norm()) < float(old.norm())
        else:
            assert torch.equal(now.detach(), old)


@pytest.mark.parametrize("decay_norms", [False, True])
def test_lower_layers_learn_slower(decay_norms: bool) -> None:
    import timm

    net = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=4, num_classes=0)
    head = nn.Linear(4, 2)
    groups = parameter_groups(
        {"backbone": net, "head": head},
        0.05,
        LR,
        {"head": 5.0},
        decay_norms=decay_norms,
        layer_decays={"backbone": 0.5},
    )
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert len(rates) == sum(1 for _ in net.parameters()) + 2
    assert groups[0]["lr"] == LR  # the topmost, as TensorBoard shows it
    assert {group["name"].partition(".")[0] for group in groups} == {"backbone", "head"}
    # Twelve blocks, the last norm with the topmost, and the embedding of patches below them.
    for name, parameter in net.named_parameters():
        block = int(name.split(".")[1]) + 1 if name.startswith("blocks.") else 0
        below = 0 if name.startswith("norm.") else 12 - block
        assert rates[id(parameter)] == pytest.approx(LR * 0.5**below), name
        spared = name in ("pos_embed", "cls_token") or (parameter.ndim == 1 and not decay_norms)
        assert decays[id(parameter)] == (0.0 if spared else 0.05), name
    assert rates[id(head.weight)] == rates[id(head.bias)] == 5 * LR


def test_a_network_that_does_not_tell_its_layers_is_refused() -> None:
    with pytest.raises(UserError, match=r"`optimizer\.layer_decay` 0\.5: Sequential does not say"):
        parameter_groups({"backbone": _net()}, 0.0, LR, {}, layer_decays={"backbone": 0.5})


def test_adamw_warms_up_and_decays_to_zero() -> None:
    net = _net()
    optimizer, schedule = _build("adamw", net, warmup=0.1)
    assert schedule is not None
    rates = []
    for _ in range(100):
        rates.append(optimizer.lr)
        optimizer.inner.step()
        schedule.step()
    # The cosine runs from the first step to the last; the warm-up multiplies its beginning.
    cosine = [0.01 * 0.5 * (1 + math.cos(math.pi * k / 100)) for k in range(100)]
    rises = [(k + 1) / 11 for k in range(10)]
    assert rates[:10] == pytest.approx([r * c for r, c in zip(rises, cosine, strict=False)])
    assert rates[10:] == pytest.approx(cosine[10:])
    assert optimizer.lr == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_schedule_drives_all_groups_alike(extra: str) -> None:
    modules = {"net": _net(), "loss": nn.Linear(2, 2)}
    groups = parameter_groups(modules, 0.0, LR, {"loss": 10.0})
    settings = OptimizerSettings(name="adamw", **EXTRAS[extra])
    steps = ScheduleSettings(name="multistep", warmup=0.0, milestones=(2, 0.5))
    optimizer, schedule = build_optimizer(settings, steps, groups, LR, 10, 10)
    assert schedule is not None
    for step in range(60):
        factor = 1.0 if step < 20 else 0.1 if step < 50 else 0.01
        rates = {g["name"].partition(".")[0]: g["lr"] for g in optimizer.inner.param_groups}
        assert rates == pytest.approx({"net": LR * factor, "loss": 10 * LR * factor})
        optimizer.inner.step()
        schedule.step()


def test_what_a_transformer_exempts_does_not_decay() -> None:
    import timm

    net = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=4, num_classes=2)
    decaying, spared = parameter_groups({"network": net}, 0.05, 1e-3, {})
    assert (decaying["weight_decay"], spared["weight_decay"]) == (0.05, 0.0)
    places = {id(parameter): place for place, parameter in net.named_parameters()}
    named = {places[id(parameter)] for parameter in spared["params"]}
    assert {"pos_embed", "cls_token", "norm.weight", "head.bias"} <= named
    assert "blocks.0.attn.qkv.weight" not in named
    assert len(places) == len(decaying["params"]) + len(spared["params"])
