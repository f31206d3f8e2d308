"""Numbers about runs: medians, means with t-intervals, differences paired by seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95


@dataclass(frozen=True)
class Summary:
    """Several runs' figure.

    Attributes:
        n: number of runs.
        median: of them.
        mean: of them.
        half: half the width of the mean's 95 % t-interval; None for one run.
        low, high: least and greatest.
    """

    n: int
    median: float
    mean: float
    half: float | None
    low: float
    high: float


def summarise(values: Sequence[float]) -> Summary | None:
    """Median, mean and t-interval of some runs; None without any.

    The interval is that of Student's t with n - 1 degrees of freedom: it takes the runs for draws
    from a normal distribution and speaks of the mean over seeds.
    """
    if not values:
        return None
    x = np.asarray(values, np.float64)
    half = None
    if len(x) > 1:
        error = float(x.std(ddof=1)) / math.sqrt(len(x))
        half = float(stats.t.ppf((1 + LEVEL) / 2, len(x) - 1)) * error
    return Summary(
        len(x), float(np.median(x)), float(x.mean()), half, float(x.min()), float(x.max())
    )


@dataclass(frozen=True)
class Difference:
    """One arm's figure less another's, paired by seed.

    Attributes:
        n: seeds that both have.
        mean: of the differences; NaN without a common seed.
        half: half the width of its 95 % t-interval; None for one seed.
        p: of the two-sided paired t-test; None where there is no spread to judge by.
        adjusted: p after Holm's correction; None where p is.
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


def paired(first: Mapping[int, float], second: Mapping[int, float]) -> Difference:
    """``first`` less ``second`` over the seeds they share.

    Args:
        first: seed -> figure.
        second: seed -> figure.
    """
    seeds = sorted(first.keys() & second.keys())
    x = np.asarray([first[seed] - second[seed] for seed in seeds], np.float64)
    if not len(x):
        return Difference(0, math.nan, None, None)
    mean = float(x.mean())
    if len(x) == 1:
        return Difference(1, mean, None, None)
    error = float(x.std(ddof=1)) / math.sqrt(len(x))
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(x) - 1)) * error
    # Equal differences (few seeds, few test images) have no spread, so no test and no certainty.
    if error <= 1e-12 * max(1.0, abs(mean)):
        return Difference(len(x), mean, half, None)
    p = float(2 * stats.t.sf(abs(mean) / error, len(x) - 1))
    return Difference(len(x), mean, half, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979): the chance of any false difference.

    Args:
        p_values: in any order, in [0, 1].

    Returns:
        corrected values in the same order, at most 1.
    """
    order = sorted(range(len(p_values)), key=lambda at: p_values[at])
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, at in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[at]))
        adjusted[at] = highest
    return adjusted
