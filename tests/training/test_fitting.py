"""The largest batch that fits: found exactly, with few trials, and without a trace in the run."""

import copy
import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from siamese.config import OptimizerSettings, ScheduleSettings
from siamese.errors import UserError
from siamese.training.distribution import SINGLE, Distribution
from siamese.training.fitting import kept_bytes, largest_fitting, require_gpu, search
from siamese.training.optimizers import build_optimizer, parameter_groups
from tests.training.test_optimizers import ALL, EXTRAS

CPU = torch.device("cpu")


# The search


@pytest.mark.parametrize(("least", "most"), [(2, 2), (2, 3), (2, 40), (3, 100), (8, 1024)])
def test_the_largest_is_found_exactly_with_few_trials(least: int, most: int) -> None:
    for limit in range(least - 1, most + 3):
        tried: list[int] = []

        def fits(number: int, tried: list[int] = tried, limit: int = limit) -> bool:
            tried.append(number)
            return number <= limit

        found = search(fits, least, most)
        assert found == (min(limit, most) if limit >= least else None)
        assert len(set(tried)) == len(tried)
        assert all(least <= number <= most for number in tried)
        # What is far too large is never tried.
        assert max(tried) <= max(2 * limit, least)
        assert len(tried) <= 2 * math.log2(max(limit, least)) + 2


def test_numbers_beyond_the_first_failure_are_not_tried_again() -> None:
    tried = []

    def fits(number: int) -> bool:
        tried.append(number)
        return number <= 11

    assert search(fits, 2, 1000) == 11
    assert tried == [2, 4, 8, 16, 12, 10, 11]


# Trials


class _Network(nn.Module):
    """Runs out of memory, or fails otherwise, beyond a number of pictures."""

    def __init__(self, limit: int, error: type[Exception] = torch.OutOfMemoryError):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.limit, self.error = limit, error

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layers(inputs)
        if len(inputs) > self.limit:
            raise self.error("no")
        return result


def _largest(network: _Network, **changes: Any) -> int | None:
    options: dict[str, Any] = {
        "least": 2,
        "most": 50,
        "modules": [network],
        "kept": 16,
        "device": CPU,
        "distribution": SINGLE,
    }
    return largest_fitting(
        lambda size: network(torch.randn(size, 3)).square().sum().backward(), **options | changes
    )


def test_a_step_that_runs_out_of_memory_does_not_fit() -> None:
    assert _largest(_Network(13)) == 13
    assert _largest(_Network(99)) == 50
    assert _largest(_Network(1)) is None


def test_what_training_needs_beside_the_step_is_set_aside() -> None:
    assert _largest(_Network(13), kept=2**60) is None


def test_an_error_of_another_kind_is_raised_but_where_smaller_batches_pass() -> None:
    assert _largest(_Network(13, RuntimeError)) == 13  # a kernel's own limit
    with pytest.raises(RuntimeError, match="no"):
        _largest(_Network(1, RuntimeError))
    with pytest.raises(TypeError, match="no"):
        _largest(_Network(13, TypeError))


@pytest.mark.parametrize("limit", [1, 13])
def test_trying_leaves_no_trace(limit: int) -> None:
    network = _Network(limit)
    before, random = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    _largest(network)
    assert torch.equal(torch.get_rng_state(), random)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.grad is None for parameter in network.parameters())


def test_all_processes_agree_on_what_fits_each_of_them() -> None:
    @dataclass(frozen=True)
    class Beside(Distribution):
        """Another process, whom fewer trials succeed."""

        def any(self, value: bool) -> bool:
            return value or len(sizes) > 3

    sizes = []
    network = _Network(30)
    network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    assert _largest(network, distribution=Beside(world=2)) == 8
    assert sizes == [2, 4, 8, 16, 12, 10, 9]


def test_only_a_gpu_is_asked() -> None:
    require_gpu(torch.device("cuda", 1))
    for name in ("cpu", "mps"):
        with pytest.raises(UserError, match=rf"`batches.people` auto: needs a GPU, as {name}.*8"):
            require_gpu(torch.device(name))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("name", "extra"), ALL)
def test_no_optimizer_keeps_more_than_is_set_aside(
    name: str, extra: str, dtype: torch.dtype
) -> None:
    network = nn.Linear(20, 30).to(dtype)
    settings = OptimizerSettings(name=name, **EXTRAS[extra])  # type: ignore[arg-type]
    groups = parameter_groups({"network": network}, 0.0, 0.1, {})
    optimizer = build_optimizer(settings, ScheduleSettings(), groups, 0.1, 10, 10)[0]
    optimizer.train()
    for _ in range(8):  # until every moment and slow weight is there
        network(torch.ones(5, 20, dtype=dtype)).sum().backward()
        optimizer.step(torch.amp.GradScaler("cpu", enabled=False))
    kept = [p.grad for p in network.parameters()]
    optimizer.eval()
    state = optimizer.state_dict()
    for values in state["state"].values():
        kept += [v for v in values.values() if torch.is_tensor(v) and v.numel() > 1]
    kept += optimizer.train_weights()
    kept += optimizer._ema_weights
    taken = sum(one.numel() * one.element_size() for one in kept if one is not None)
    planned = kept_bytes([network], settings, SINGLE)
    assert taken <= planned
    assert dtype != torch.float32 or planned <= taken + 3 * 4 * 630  # nor much more
    assert kept_bytes([network], settings, Distribution(world=2)) > planned
