"""What the settings of all commands share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from siamese.config.ranges import MemoryLimit

PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]
FittedName = Literal["plda", "wccn"]
ComparedName = Literal["cosine", FittedName]
ScoringName = Literal["auto", ComparedName]
FITTED: tuple[FittedName, ...] = get_args(FittedName)


@dataclass
class LimitSettings:
    """Limits: what checkpoints and weights files may take before they are refused."""

    weights: MemoryLimit = 16.0
    """Largest weights that are read from one file, in GiB."""
    description: MemoryLimit = 256.0
    """Memory for all else that one file holds (settings, names, lists of pictures), in MiB."""


@dataclass
class SavedSettings:
    """Settings that are written to YAML files and checkpoints; a base of dataclasses."""

    def as_dict(self) -> dict[str, Any]:
        """Settings as nested plain dictionaries; tuples become lists."""
        values: dict[str, Any] = plain(asdict(self))
        return values


def scoring_title(name: ComparedName) -> str:
    """A scoring's name as it stands in sentences."""
    return name.upper() if name in FITTED else name


def usable_pixels(mean: Sequence[float], std: Sequence[float], channels: int) -> bool:
    """Whether pixels in [0, 1] can be normalised with these; each needs a value per channel."""
    return (
        len(mean) == len(std) == channels
        and all(math.isfinite(value) and abs(value) <= 1e3 for value in mean)
        and all(math.isfinite(value) and 1e-6 <= value <= 1e6 for value in std)
    )


def plain(value: Any) -> Any:
    """Nested values with lists for tuples, as YAML, JSON and checkpoints keep them."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value
