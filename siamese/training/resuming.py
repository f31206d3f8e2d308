"""Whether a saved state can be one of the thing that is to go on with it.

torch's own ``load_state_dict`` of optimizers and schedules takes over whatever it is given, and the
next step fails, or is another than it would have been.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch


def require_alike(fresh: Any, saved: Any) -> None:
    """ValueError where a saved state has another form than a fresh one of the same thing.

    Numbers may differ but are finite; dictionaries have the same keys, lists the same length. What
    a fresh state does not know yet (None) may be anything plain; a group of an optimizer may have
    got further entries.
    """
    if isinstance(fresh, Mapping):
        if not (isinstance(saved, Mapping) and fresh.keys() <= saved.keys()):
            raise ValueError("a state with other entries")
        for key, value in saved.items():
            require_alike(fresh.get(key), value)
    elif isinstance(fresh, list | tuple):
        if not (isinstance(saved, list | tuple) and len(fresh) == len(saved)):
            raise ValueError("a state of another length")
        for one, other in zip(fresh, saved, strict=True):
            require_alike(one, other)
    elif isinstance(fresh, torch.Tensor):
        if not (isinstance(saved, torch.Tensor) and fresh.shape == saved.shape):
            raise ValueError("a state with a tensor of another shape")
    elif fresh is None or isinstance(fresh, bool):
        if not (saved is None or isinstance(saved, bool | str) or _is_finite(saved)):
            raise ValueError("a state with something else than a plain value")
        if isinstance(fresh, bool) and not isinstance(saved, bool):
            raise ValueError("a state without a yes or no")
    elif isinstance(fresh, int | float):
        if not _is_finite(saved):
            raise ValueError("a state without a number")
    elif type(fresh) is not type(saved):
        raise ValueError("a state of another kind")


def require_moments(parameters: Sequence[torch.Tensor], saved: Any) -> None:
    """Refuse what an optimizer cannot have kept about its parameters, by position.

    That are dictionaries of tensors of the parameter's shape, single numbers, or None; alike for
    all parameters that have learnt. ValueError, IndexError, TypeError, AttributeError for something
    else.
    """
    kinds: dict[str, bool] | None = None
    for position, state in saved.items():
        parameter = parameters[position]
        if position < 0:
            raise ValueError("a state of no parameter")
        for value in state.values():
            if isinstance(value, torch.Tensor):
                if value.numel() != 1 and value.shape != parameter.shape:
                    raise ValueError("a state of another shape than the parameter's")
            elif value is not None and not _is_finite(value):
                raise ValueError("a state that is no number")
        if not state:  # it has not learnt yet, or never will
            continue
        found = {key: isinstance(value, torch.Tensor) for key, value in state.items()}
        if kinds is not None and found != kinds:
            raise ValueError("states of several kinds")
        kinds = found


def _is_finite(value: Any) -> bool:
    if isinstance(value, torch.Tensor):  # LAMB counts its steps in one
        return value.numel() == 1 and bool(torch.isfinite(value).all())
    return isinstance(value, int | float) and math.isfinite(value)
