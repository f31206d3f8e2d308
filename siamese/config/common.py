"""What the settings of all commands share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from siamese.errors import UserError

PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]


def require(condition: bool, name: str, value: object, wanted: str) -> None:
    """Refuse a setting's value.

    Raises:
        UserError: the condition does not hold; names the setting, its value and what is wanted.
    """
    if not condition:
        raise UserError(f"--{name} {value}: must be {wanted}")


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
