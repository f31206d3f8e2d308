"""Batch-norm recalibration against float64 statistics of the same batches."""

import copy

import pytest
import timm
import torch
from torch import nn

from siamese.training.recalibration import recalibrate


def _net() -> nn.Module:
    torch.manual_seed(0)
    net: nn.Module = timm.create_model("test_efficientnet", num_classes=0, drop_path_rate=0.2)
    return net


def _batches(count: int = 5) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(8, 3, 32, 32, generator=generator) * 2 + 0.5 for _ in range(count)]


def _reference(net: nn.Module, batches: list[torch.Tensor]) -> dict[str, tuple[torch.Tensor, ...]]:
    """Mean of per-batch means and unbiased variances of every norm's input, in float64."""
    exact = copy.deepcopy(net).double().train()
    seen: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}
    for name, module in exact.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(
                lambda _m, args, _o, name=name: seen.setdefault(name, []).append(
                    (args[0].mean((0, 2, 3)), args[0].var((0, 2, 3), unbiased=True))
                )
            )
    with torch.no_grad(), torch.random.fork_rng():
        for batch in batches:
            exact(batch.double())
    return {
        name: tuple(torch.stack(values).mean(0) for values in zip(*pairs, strict=True))
        for name, pairs in seen.items()
    }


def test_statistics_equal_a_float64_reference() -> None:
    net, batches = timm.create_model("test_efficientnet", num_classes=0), _batches()
    reference = _reference(net, batches)
    assert recalibrate(net, batches) == 5
    assert len(reference) > 5
    for name, (mean, variance) in reference.items():
        norm = net.get_submodule(name)
        torch.testing.assert_close(norm.running_mean.double(), mean, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(norm.running_var.double(), variance, rtol=1e-5, atol=1e-5)


def test_nothing_else_moves() -> None:
    net = _net()
    frozen = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)][2]
    frozen.momentum = 0.3

    class _Frozen(nn.Module):  # a net that keeps one of its layers in eval mode
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            output: torch.Tensor = self.net(inputs)
            return output

        def train(self, mode: bool = True) -> "_Frozen":
            super().train(mode)
            frozen.eval()
            return self

    model = _Frozen()
    momenta = [m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    kept = frozen.running_mean.clone(), frozen.running_var.clone()
    weights = [p.clone() for p in model.parameters()]
    state = torch.get_rng_state()
    recalibrate(model, _batches())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(frozen.running_mean, kept[0])
    assert torch.equal(frozen.running_var, kept[1])
    assert momenta == [m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for a, b in zip(model.parameters(), weights, strict=True):
        assert torch.equal(a, b)
        assert a.grad is None


def test_earlier_statistics_do_not_count() -> None:
    net, other = _net(), _net()
    for module in other.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.fill_(1e3)
    batches = _batches()
    with torch.random.fork_rng():
        torch.manual_seed(5)
        recalibrate(net, batches)
        torch.manual_seed(5)
        recalibrate(other, batches)
    for a, b in zip(net.buffers(), other.buffers(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("net", [nn.Linear(3, 3), nn.Sequential(nn.LayerNorm(3))])
def test_nets_without_batch_norm_are_left_alone(net: nn.Module) -> None:
    assert recalibrate(net, [torch.ones(2, 3)]) == 0


@pytest.mark.parametrize("changed", [{}, {"benchmark": True}, {"deterministic": True}])
def test_only_tf32_is_switched_off_meanwhile(changed: dict[str, bool]) -> None:
    """``torch.backends.cudnn.flags`` turns off everything that it is not given."""
    cudnn = torch.backends.cudnn
    names = ("enabled", "benchmark", "benchmark_limit", "deterministic", "allow_tf32")
    assert cudnn.enabled
    before = {name: getattr(cudnn, name) for name in changed}
    seen: list[dict[str, object]] = []

    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append({name: getattr(cudnn, name) for name in names})
            return self.norm(images)

    try:
        for name, value in changed.items():
            setattr(cudnn, name, value)
        outside = {name: getattr(cudnn, name) for name in names}
        recalibrate(Watched(), _batches(2))
        assert seen == [outside | {"allow_tf32": False}] * 2
        assert {name: getattr(cudnn, name) for name in names} == outside
    finally:
        for name, value in before.items():
            setattr(cudnn, name, value)
