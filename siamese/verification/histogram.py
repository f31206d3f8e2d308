"""How the scores of genuine and of impostor pairs are spread: their numbers in fixed bins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from siamese.verification.counts import Counts, PairCounts

BINS = 200  # of equal width from -1 to 1; a score on an edge belongs to the bin above it
_MOST = 2**62  # pairs: no set of pictures comes near it


@dataclass(frozen=True)
class ScoreHistogram:
    """Numbers of pairs by score, in :data:`BINS` bins of equal width from -1 to 1.

    Attributes:
        genuine: (BINS,), pairs of one person.
        impostor: (BINS,), pairs of two people.
    """

    genuine: tuple[int, ...]
    impostor: tuple[int, ...]

    @classmethod
    def of(cls, counts: PairCounts) -> ScoreHistogram:
        """The histogram of counted pairs; each is in exactly one bin."""
        places = np.minimum(((counts.score + 1) * (BINS / 2)).astype(np.int64), BINS - 1)
        return cls(_summed(places, counts.genuine), _summed(places, counts.impostor))

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> ScoreHistogram:
        """The histogram that ``dataclasses.asdict`` gave; the values are not trusted.

        Raises:
            KeyError, TypeError, ValueError: these are not the fields of one.
        """
        kinds = []
        for name in ("genuine", "impostor"):
            numbers = fields[name]
            if not isinstance(numbers, list | tuple) or len(numbers) != BINS:
                raise ValueError(f"{name} of the histogram: not {BINS} numbers")
            if not all(type(one) is int and 0 <= one <= _MOST for one in numbers):
                raise ValueError(f"{name} of the histogram: a number that counts nothing")
            if not any(numbers):
                raise ValueError(f"{name} of the histogram: no pair at all")
            kinds.append(tuple(numbers))
        return cls(*kinds)


def _summed(places: Counts, numbers: Counts) -> tuple[int, ...]:
    sums = np.zeros(BINS, np.int64)
    np.add.at(sums, places, numbers)
    return tuple(sums.tolist())
