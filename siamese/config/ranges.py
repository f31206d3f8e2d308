"""Which values a setting may have: types that carry their range, and the check of them all."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from siamese.errors import UserError

# No network of pictures comes near these; a checkpoint that says more is damaged.
LARGEST_SIDE = 2048  # pixels of a network's input
LARGEST_DIMENSION = 65536  # of an embedding


def require(condition: bool, name: str, value: object, wanted: str) -> None:
    """Refuse a setting's value.

    Raises:
        UserError: the condition does not hold; names the setting, its value and what is wanted.
    """
    if not condition:
        text = str(list(value) if isinstance(value, tuple) else value)  # as YAML has it
        text = {"None": "null", "True": "true", "False": "false", "": "''"}.get(text, text)
        raise UserError(f"`{name}` {text}: must be {wanted}")


@dataclass(frozen=True)
class Allowed:
    """What a value must be beside its type: ``Annotated[int, Allowed("at least 1", ...)]``."""

    words: str
    holds: Callable[[Any], bool]


def share_or_count(of_what: str, least: int = 0) -> Allowed:
    """A share below 1, or a whole number from ``least`` on; ``least`` 0 allows the share 0, too."""

    def holds(value: float) -> bool:
        return 0 < value < 1 or (value >= least and float(value).is_integer())

    start = f" from {least} on" if least else ""
    return Allowed(
        f"a share of the {of_what} below 1, or a whole number of {of_what}{start}", holds
    )


def _is_plain_name(value: str) -> bool:
    return value == Path(value).name and value not in ("", ".", "..")


def _rises(values: tuple[float, ...], last: float = math.inf) -> bool:
    return 0 < values[0] <= values[1] <= last and math.isfinite(values[0])


PositiveInt = Annotated[int, Allowed("at least 1", lambda v: v >= 1)]
NonNegativeInt = Annotated[int, Allowed("0 or more", lambda v: v >= 0)]
AtLeastTwo = Annotated[int, Allowed("at least 2", lambda v: v >= 2)]
AtLeastTwoOrAuto = Annotated[
    int | Literal["auto"], Allowed("at least 2, or auto", lambda v: v == "auto" or v >= 2)
]
Seed = Annotated[int, Allowed("between 0 and 2**63 - 1", lambda v: 0 <= v < 2**63)]
InputSide = Annotated[
    int, Allowed(f"from 1 to {LARGEST_SIDE} pixels", lambda v: 1 <= v <= LARGEST_SIDE)
]
PictureSide = Annotated[int, Allowed("at least 16 pixels", lambda v: v >= 16)]
PositiveFloat = Annotated[float, Allowed("above 0", lambda v: 0 < v < math.inf)]
NonNegativeFloat = Annotated[float, Allowed("0 or more", lambda v: 0 <= v < math.inf)]
PositiveOrInfinite = Annotated[float, Allowed("above 0", lambda v: v > 0)]
MemoryLimit = Annotated[float, Allowed("above 0, and finite", lambda v: 0 < v < 1e9)]
Probability = Annotated[float, Allowed("between 0 and 1", lambda v: 0 <= v <= 1)]
OpenUnit = Annotated[float, Allowed("above 0 and below 1", lambda v: 0 < v < 1)]
UnitBelowOne = Annotated[float, Allowed("at least 0 and below 1", lambda v: 0 <= v < 1)]
UnitAboveZero = Annotated[float, Allowed("above 0 and at most 1", lambda v: 0 < v <= 1)]
AreaShares = Annotated[tuple[float, float], Allowed("two rising shares", lambda v: _rises(v, 1.0))]
Ratios = Annotated[tuple[float, float], Allowed("two rising ratios above 0", _rises)]
PlainName = Annotated[str, Allowed("a plain name without folders", _is_plain_name)]
SwitchOrAuto = Annotated[
    bool | Literal["auto"],
    Allowed("true, false or auto", lambda v: isinstance(v, bool) or v == "auto"),
]
Compiling = Annotated[
    bool | Literal["auto", "reduce-overhead"],
    Allowed(
        "true, false, auto or reduce-overhead",
        lambda v: isinstance(v, bool) or v in ("auto", "reduce-overhead"),
    ),
]
FolderName = Annotated[str, Allowed("a folder", lambda v: v != "")]


def check_values(settings: Any, prefix: str = "") -> None:
    """Refuse values outside of their types' ranges, and null where a value is needed.

    Raises:
        UserError: names the setting, its value and what is wanted.
    """
    hints = get_type_hints(type(settings), include_extras=True)
    for field in fields(settings):
        value, name = getattr(settings, field.name), f"{prefix}{field.name}"
        if is_dataclass(value):
            check_values(value, f"{name}.")
            continue
        hint = hints[field.name]
        kinds = (hint,) if get_origin(hint) in (Annotated, Literal) else get_args(hint) or (hint,)
        if value is None:
            require(NoneType in kinds, name, "null", "given a value")
            continue
        or_null = ", or null" if NoneType in kinds else ""
        for allowed in (found for kind in kinds for found in _conditions(kind)):
            require(_holds(allowed, value), name, value, allowed.words + or_null)


def _conditions(kind: Any) -> list[Allowed]:
    if get_origin(kind) is Annotated:
        return [extra for extra in get_args(kind)[1:] if isinstance(extra, Allowed)]
    if get_origin(kind) is Literal:
        names = get_args(kind)
        return [Allowed(f"one of {', '.join(names)}", lambda v: v in names)]
    return []


def _holds(allowed: Allowed, value: Any) -> bool:
    try:
        return allowed.holds(value)
    except (TypeError, ValueError, IndexError):  # a value of another type, given in Python
        return False
