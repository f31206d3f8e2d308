"""Numbers about runs: medians, means with t-intervals, differences paired by seed."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TypeVar

import numpy as np
from scipy.special import stdtr, stdtrit

from siamese.verification.enough import FEWEST_SEEDS

LEVEL = 0.95


@dataclass(frozen=True)
class Summary:
    """Several runs' figure; ``half``: half the mean's 95 % t-interval, None with too few runs."""

    n: int
    median: float
    mean: float
    half: float | None


def summarise(values: Sequence[float]) -> Summary | None:
    """Median, mean and t-interval of some runs; None without any.

    The interval is that of Student's t with n - 1 degrees of freedom: it takes the runs for draws
    from a normal distribution and speaks of the mean over seeds.
    """
    if not values:
        return None
    x = np.asarray(values, np.float64)
    half = None
    if len(x) >= FEWEST_SEEDS:
        error = float(x.std(ddof=1)) / math.sqrt(len(x))
        half = float(stdtrit(len(x) - 1, (1 + LEVEL) / 2)) * error
    return Summary(len(x), float(np.median(x)), float(x.mean()), half)


Seed = TypeVar("Seed", bound=Hashable)


@dataclass(frozen=True)
class Difference:
    """One arm's figure less another's, paired by the ``n`` seeds that both have.

    ``mean`` is NaN without a common seed; ``half``, half of its 95 % t-interval, None with too few.
    ``p``: two-sided paired t-test, None where it cannot be made; ``adjusted``: after Holm's
    correction.
    """

    n: int
    mean: float
    half: float | None
    p: float | None
    adjusted: float | None = None

    @property
    def seen(self) -> bool:
        """Whether the difference stands out of the noise after the correction."""
        return self.adjusted is not None and self.adjusted < 1 - LEVEL


def paired(first: Mapping[Seed, float], second: Mapping[Seed, float]) -> Difference:
    """``first`` less ``second`` over the seeds (or any other key of runs) they share."""
    seeds = [seed for seed in first if seed in second]
    x = np.asarray([first[seed] - second[seed] for seed in seeds], np.float64)
    if not len(x):
        return Difference(0, math.nan, None, None)
    mean = float(x.mean())
    if len(x) < FEWEST_SEEDS:
        return Difference(len(x), mean, None, None)
    error = float(x.std(ddof=1)) / math.sqrt(len(x))
    half = float(stdtrit(len(x) - 1, (1 + LEVEL) / 2)) * error
    # Equal differences (few seeds, few test images) have no spread, so no test and no certainty.
    if error <= 1e-12 * max(1.0, abs(mean)):
        return Difference(len(x), mean, half, None)
    p = float(2 * stdtr(len(x) - 1, -abs(mean) / error))
    return Difference(len(x), mean, half, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979): the chance of any false difference; in
    order.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def corrected(shown: Sequence[Difference], others: Sequence[Difference] = ()) -> list[Difference]:
    """Differences with p after Holm's correction for their number and that of ``others``, not
    shown.
    """
    together = [*shown, *others]
    adjusted = iter(holm([one.p for one in together if one.p is not None]))
    return [one if one.p is None else replace(one, adjusted=next(adjusted)) for one in together][
        : len(shown)
    ]


def against_best(
    values: Sequence[Mapping[Seed, float]], best: int
) -> tuple[list[Difference], list[Difference]]:
    """Every arm less the one that was chosen as the best of them, and the tests that choice made.

    Whoever compares with the best has looked at all arms: with 8 equal ones a correction for 7
    comparisons leaves a family-wise error of 8 %. Holm's correction for all k (k - 1) / 2 pairs
    (Hochberg & Tamhane 1987, "Multiple Comparison Procedures") keeps it at 5 %. Hsu's, Dunnett's
    and Tukey's tests want equal variances in all arms, which a diverging optimizer has not.

    Returns the others less the best, in order, and the differences of all other pairs.
    """
    shown = [paired(one, values[best]) for index, one in enumerate(values) if index != best]
    others = [
        paired(values[one], values[other])
        for one, other in combinations(range(len(values)), 2)
        if best not in (one, other)
    ]
    return shown, others
