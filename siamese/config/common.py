"""What the settings of all commands share."""

from __future__ import annotations

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


def plain(value: Any) -> Any:
    """Nested values with lists for tuples, as YAML, JSON and checkpoints keep them."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value
