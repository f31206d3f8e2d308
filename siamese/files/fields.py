"""Records that come from a file, each of their fields held against its type."""

from __future__ import annotations

import json
import types
import typing
from dataclasses import MISSING, fields
from functools import cache
from typing import Any, Literal, TypeVar

Record = TypeVar("Record")


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text (RFC 8259, so neither NaN nor Infinity).

    Raises:
        ValueError: not JSON, not UTF-8, nested too deeply, a number of too many digits.
    """
    try:
        return json.loads(text, parse_constant=_refused)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _refused(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def built(kind: type[Record], values: Any) -> Record:
    """A dataclass from a mapping of its fields, none of them of another type than it says.

    Its fields are plain types, literals, unions of such, or tuples; those with a default may be
    missing.

    Raises:
        ValueError: no mapping; a field that is missing, unknown or of another type. One line.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{_described(values)} where fields belong")
    types_of = _types_of(kind)  # type: ignore[arg-type]
    for name in values:
        if name not in types_of:
            raise ValueError(f"unknown field {str(name)[:40]!r}")
    for field in fields(kind):  # type: ignore[arg-type]
        if field.name in values:
            if not _fits(values[field.name], types_of[field.name]):
                raise ValueError(f"{field.name} cannot be {_described(values[field.name])}")
        elif field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"{field.name} is missing")
    return kind(**values)


@cache
def _types_of(kind: type[Any]) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _fits(value: Any, wanted: Any) -> bool:
    origin = typing.get_origin(wanted)
    if wanted is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, one) for one in typing.get_args(wanted))
    if origin is Literal:
        return isinstance(value, str) and value in typing.get_args(wanted)
    # Not isinstance: True is an int to Python, and no number to a reader.
    return type(value) is (origin or wanted)


def _described(value: Any) -> str:
    """A value in few words; a long one may take a terminal along."""
    if isinstance(value, (list, dict)):
        return f"a {'list' if isinstance(value, list) else 'mapping'}"
    if isinstance(value, int) and abs(value) >= 2**64:
        return "a huge number"
    text = ascii(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
