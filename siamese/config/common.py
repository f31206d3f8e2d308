"""What the settings of all commands share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from types import NoneType
from typing import Any, Literal, get_args, get_type_hints

from siamese.errors import UserError

PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]

# No network of pictures comes near these; a checkpoint that says more is damaged.
LARGEST_SIDE = 2048  # pixels of a network's input
LARGEST_DIMENSION = 65536  # of an embedding


@dataclass
class LimitSettings:
    """Limits: what checkpoints and weights files may take before they are refused."""

    weights: float = 16.0
    """Largest weights that are read from one file, in GiB."""
    description: float = 256.0
    """Memory for all else that one file holds (settings, names, lists of pictures), in MiB."""


def check_limits(limits: LimitSettings) -> None:
    """Refuse limits that are none; errors as of :func:`require`."""
    for name in ("weights", "description"):
        value = getattr(limits, name)
        require(0 < value < 1e9, f"limits.{name}", value, "above 0, and finite")


def usable_pixels(mean: Sequence[float], std: Sequence[float], channels: int) -> bool:
    """Whether pixels in [0, 1] can be normalised with these; each needs a value per channel."""
    return (
        len(mean) == len(std) == channels
        and all(math.isfinite(value) and abs(value) <= 1e3 for value in mean)
        and all(math.isfinite(value) and 1e-6 <= value <= 1e6 for value in std)
    )


def require(condition: bool, name: str, value: object, wanted: str) -> None:
    """Refuse a setting's value.

    Raises:
        UserError: the condition does not hold; names the setting, its value and what is wanted.
    """
    if not condition:
        raise UserError(f"--{name} {value}: must be {wanted}")


def require_given(settings: Any, prefix: str = "") -> None:
    """Refuse null for a setting that needs a value; parsers take null for "not given".

    Args:
        settings: a dataclass of settings, whose fields may be groups of them.
        prefix: of the names, e.g. ``schedule.``.

    Raises:
        UserError: see :func:`require`.
    """
    hints = get_type_hints(type(settings))
    for field in fields(settings):
        value, name = getattr(settings, field.name), f"{prefix}{field.name}"
        if is_dataclass(value):
            require_given(value, f"{name}.")
        else:
            usable = value is not None or NoneType in get_args(hints[field.name])
            require(usable, name, "null", "given a value")


def require_values(settings: Any, wanted: Mapping[str, tuple[Callable[[Any], bool], str]]) -> None:
    """Refuse values of settings that have one of the names.

    Args:
        settings: a dataclass; names that it lacks are passed over.
        wanted: by name, what must hold, and in words.

    Raises:
        UserError: see :func:`require`.
    """
    for name, (holds, words) in wanted.items():
        if hasattr(settings, name):
            value = getattr(settings, name)
            require(holds(value), name, value, words)


def plain(value: Any) -> Any:
    """Nested values with lists for tuples, as YAML, JSON and checkpoints keep them."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value
