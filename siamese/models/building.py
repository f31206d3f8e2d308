"""Whether weights fit a description, found out before the network takes memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.modules import module as registration
from torch.overrides import TorchFunctionMode

from siamese.errors import UserError

# What a network may have while it is built beyond what its weights are: some of timm's make a head
# of 1000 classes first and take it off again.
_MORE_TENSORS, _MORE_NUMBERS, _MORE_MODULES = 1000, 50_000_000, 10_000

# How networks draw their weights, beside torch.nn.init.
_DRAWS = {"normal_", "uniform_", "bernoulli_", "trunc_normal_", "exponential_", "log_normal_"}

Network = TypeVar("Network", bound=nn.Module)


class DoesNotFit(Exception):  # noqa: N818 - a state of a file
    """A description and the weights beside it are not of one network."""


def build_fitting(build: Callable[[], Network], state: Mapping[str, torch.Tensor]) -> Network:
    """Build the network that a file describes and load the file's weights into it.

    Raises:
        DoesNotFit: other names or shapes than those of ``state``.
    """
    require_fitting(build, state)
    with _bounded(state):  # where it could be built here only
        network = build()
    return load_fitting(network, state)


def load_fitting(network: Network, state: Mapping[str, torch.Tensor]) -> Network:
    """Load weights into a network; where they do not fit, it keeps those that it has.

    Raises:
        DoesNotFit: other names or shapes than those of ``state``.
    """
    wanted = network.state_dict()
    if (difference := first_difference(wanted, state)) is not None:
        raise DoesNotFit(difference)
    if more := [name for name in state if name not in wanted]:
        raise DoesNotFit(f"{more[0]} is not in it")
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError, ValueError):
        raise DoesNotFit from None
    return network


def first_difference(
    wanted: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]
) -> str | None:
    """The first of a network's weights that others cannot replace, and why; None: they can."""
    for name, tensor in wanted.items():
        if name not in state:
            return f"{name} is missing"
        if state[name].shape != tensor.shape:
            return f"{name} has another shape"
    return None


def require_fitting(build: Callable[[], nn.Module], state: Mapping[str, torch.Tensor]) -> None:
    """Refuse a description of another network than the weights are of.

    The network is built on the meta device, where tensors have shapes and no memory, and no
    further than the weights go: a few bytes can describe terabytes, or a million layers.

    Raises:
        DoesNotFit: other names or shapes than those of ``state``.
    """
    try:
        with _bounded(state), torch.device("meta"), _Undrawn():
            network = build()
    except UserError:
        raise
    except (NotImplementedError, RuntimeError, TypeError, ValueError):
        return  # some of timm's look at values while they are built; what fits is seen later
    wanted = {name: tensor.shape for name, tensor in network.state_dict().items()}
    if wanted != {name: tensor.shape for name, tensor in state.items()}:
        raise DoesNotFit


class _Undrawn(TorchFunctionMode):
    """Leave weights undrawn: without memory there are none, and trying loads torch's compiler."""

    def __torch_function__(
        self,
        func: Any,
        _types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        is_draw = getattr(func, "__name__", "") in _DRAWS
        if is_draw or getattr(func, "__module__", "") == nn.init.__name__:
            return args[0] if args else named["tensor"]
        return func(*args, **named)


@contextmanager
def _bounded(state: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Give up a network that grows far beyond its weights while it is built."""
    left = {
        "tensors": 2 * len(state) + _MORE_TENSORS,
        "numbers": 2 * sum(tensor.numel() for tensor in state.values()) + _MORE_NUMBERS,
        "modules": 50 * len(state) + _MORE_MODULES,
    }

    def spend(name: str, number: int) -> None:
        left[name] -= number
        if left[name] < 0:
            raise DoesNotFit

    def parameter(_module: nn.Module, _name: str, given: Any) -> None:
        spend("tensors", 1)
        spend("numbers", 0 if given is None else given.numel())

    def submodule(_module: nn.Module, _name: str, _given: Any) -> None:
        spend("modules", 1)

    handles = (
        registration.register_module_parameter_registration_hook(parameter),
        registration.register_module_module_registration_hook(submodule),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
