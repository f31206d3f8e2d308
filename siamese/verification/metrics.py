"""Figures and curves of 1:1 verification, exact over all counted pairs (ISO/IEC 19795-1).

``FMR(t)`` is the share of impostor scores >= t, ``FNMR(t)`` the share of genuine scores < t.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from siamese.verification.counts import Floats, PairCounts


@dataclass(frozen=True)
class Curve:
    """Points of ROC, DET and PR at shared thresholds, from the highest to the lowest.

    Attributes:
        threshold: float64 (T,).
        fmr: float64 (T,), in [0, 1], rising.
        fnmr: float64 (T,), in [0, 1], falling.
        precision: float64 (T,), in (0, 1]; 1 where no score reaches the threshold.
    """

    threshold: Floats
    fmr: Floats
    fnmr: Floats
    precision: Floats

    @property
    def recall(self) -> Floats:
        """1 - FNMR: the share of genuine pairs accepted (TAR)."""
        return 1 - self.fnmr


def auc(counts: PairCounts) -> float:
    """Area under the ROC curve: P(genuine > impostor) + P(equal) / 2 (Mann-Whitney)."""
    below = counts.impostor_pairs - counts.impostor_at_least[:-1]
    won = (below + counts.impostor / 2) / counts.impostor_pairs
    return float(np.sum(counts.genuine * won) / counts.genuine_pairs)


def average_precision(counts: PairCounts) -> float:
    """Average precision: precision weighted by the recall each threshold adds, not interpolated."""
    positions = np.flatnonzero(counts.genuine)
    accepted = counts.genuine_at_least[positions]
    precision = accepted / (accepted + counts.impostor_at_least[positions])
    return float(np.sum(counts.genuine[positions] * precision) / counts.genuine_pairs)


def error_rates(counts: PairCounts, thresholds: npt.ArrayLike) -> tuple[Floats, Floats]:
    """FMR and FNMR at given thresholds, float64, same shape."""
    positions = np.searchsorted(counts.score, np.asarray(thresholds, np.float64), side="left")
    fmr = counts.impostor_at_least[positions] / counts.impostor_pairs
    fnmr = 1 - counts.genuine_at_least[positions] / counts.genuine_pairs
    return np.asarray(fmr, np.float64), np.asarray(fnmr, np.float64)


def equal_error_rate(counts: PairCounts) -> tuple[float, float]:
    """EER and its threshold.

    Returns:
        ``(eer, threshold)``: (FMR + FNMR) / 2 where their difference is least over all distinct
        scores as thresholds; of equal differences the highest threshold.
    """
    g, i = counts.genuine_pairs, counts.impostor_pairs

    def errors(position: int) -> tuple[int, int]:
        return int(counts.impostor_at_least[position]), g - int(counts.genuine_at_least[position])

    def difference(position: int) -> int:
        """(FMR - FNMR) * G * I, in Python's integers: it may not fit into 64 bits."""
        false_matches, false_non_matches = errors(position)
        return false_matches * g - false_non_matches * i

    # FNMR - FMR never falls as the threshold rises; its zero lies beside the crossing.
    rising = 1 - counts.genuine_at_least / g - counts.impostor_at_least / i
    crossing = int(np.searchsorted(rising, 0.0))
    near = range(max(0, crossing - 2), min(len(rising), crossing + 3))
    best = min(near, key=lambda position: (abs(difference(position)), -position))
    false_matches, false_non_matches = errors(best)
    return (false_matches / i + false_non_matches / g) / 2, _threshold(counts, best)


def _threshold(counts: PairCounts, position: int) -> float:
    """The score at a position, or just above the highest."""
    if position < len(counts.score):
        return float(counts.score[position])
    return _just_above(counts, position - 1)


def _just_above(counts: PairCounts, position: int) -> float:
    """The next float32 above a score; where others lie that near, the next float64."""
    score = float(counts.score[position])
    above = float(np.nextafter(np.float32(score), np.float32(np.inf)))
    nearest = float(counts.score[position + 1]) if position + 1 < len(counts.score) else math.inf
    return above if score < above <= nearest else math.nextafter(score, math.inf)


def threshold_at_fmr(counts: PairCounts, fmr: float) -> float:
    """The lowest threshold whose FMR does not exceed ``fmr`` (to the last bit of a float32, or of a
    float64 where scores lie nearer than those).

    Args:
        fmr: wanted false-match rate in [0, 1].
    """
    total = counts.impostor_pairs
    allowed = int(fmr * total)
    if (allowed + 1) / total <= fmr:  # 0.29 * 100 is 28.999...
        allowed += 1
    if allowed >= total:
        return -1.0
    too_low = int(np.flatnonzero(counts.impostor_at_least > allowed)[-1])
    return _just_above(counts, too_low)


def tar_at_fmr(counts: PairCounts, fmr: float) -> float:
    """TAR@FAR: share of genuine pairs accepted at :func:`threshold_at_fmr`, in [0, 1]."""
    return float(1 - error_rates(counts, threshold_at_fmr(counts, fmr))[1])


def lowest_supported_fmr(counts: PairCounts) -> float:
    """No FMR below 3 / (pairs of identities) is supported, even optimistically.

    The rule of three: with none of n independent trials failing, rates up to 3 / n stay possible
    at 95 %; pairs of people are the most that can count as independent.
    """
    return supported_fmr(counts.identity_pairs)


def too_coarse(counts: PairCounts) -> bool:
    """Whether the middle half of many pairs lies on so few scores that rounding decides.

    Scores are rounded to a millionth. Where most of them differ by little more (and one image far
    from all others keeps the grid from being zoomed: see :mod:`siamese.verification.scores`), ties
    of the rounding stand for a part of the figures.
    """
    pairs = counts.genuine + counts.impostor
    low, high = np.searchsorted(np.cumsum(pairs), np.array([0.25, 0.75]) * pairs.sum())
    return len(pairs) > 1 and pairs.sum() >= 2000 and int(high - low) < 100


def supported_fmr(identity_pairs: int) -> float:
    """:func:`lowest_supported_fmr` of a number of pairs of identities."""
    return min(1.0, 3 / identity_pairs) if identity_pairs else 1.0


def curve(counts: PairCounts, points: int | None = 2000) -> Curve:
    """ROC, DET and PR at shared thresholds; every point is exact, only their number is thinned.

    Args:
        points: about how many; with fewer distinct scores than that, or None, every one of them
            (every genuine score among them).
    """
    size = len(counts.score)
    if points is None or size <= points:
        positions = np.arange(size + 1)
    else:
        share = points // 3
        # Even steps of FNMR, even steps of FMR, and even ratios of FMR for the log axis.
        few = np.geomspace(1, counts.impostor_pairs, share)
        positions = np.unique(
            np.concatenate(
                [
                    [0, size],
                    reaching(counts.genuine_at_least, np.linspace(1, counts.genuine_pairs, share)),
                    reaching(counts.impostor_at_least, np.linspace(1, few[-1], share)),
                    reaching(counts.impostor_at_least, few),
                ]
            )
        )
    falling = positions[::-1]
    threshold = np.append(counts.score, _threshold(counts, size))[falling]
    matches, accepted = counts.impostor_at_least[falling], counts.genuine_at_least[falling]
    precision = np.divide(
        accepted, accepted + matches, out=np.ones(len(falling)), where=accepted + matches > 0
    )
    fnmr = 1 - accepted / counts.genuine_pairs
    return Curve(threshold, matches / counts.impostor_pairs, fnmr, precision)


def reaching(at_least: npt.NDArray[np.int64], wanted: Floats) -> npt.NDArray[np.int64]:
    """Highest positions at which at least the wanted numbers of pairs are accepted."""
    fewest_first = at_least[::-1]
    return len(at_least) - 1 - np.searchsorted(fewest_first, np.floor(wanted), side="left")


def summarise(counts: PairCounts) -> dict[str, float]:
    """The figures by their plain names, for reports, metrics files and checkpoints."""
    eer, eer_threshold = equal_error_rate(counts)
    return {
        "auc": auc(counts),
        "ap": average_precision(counts),
        "eer": eer,
        "eer_threshold": eer_threshold,
        "tar_at_far_1e-2": tar_at_fmr(counts, 1e-2),
        "tar_at_far_1e-3": tar_at_fmr(counts, 1e-3),
        "threshold_at_far_1e-2": threshold_at_fmr(counts, 1e-2),
        "threshold_at_far_1e-3": threshold_at_fmr(counts, 1e-3),
        "lowest_supported_fmr": lowest_supported_fmr(counts),
        "genuine_mean": float(np.dot(counts.score, counts.genuine) / counts.genuine_pairs),
        "impostor_mean": float(np.dot(counts.score, counts.impostor) / counts.impostor_pairs),
        "genuine_pairs": counts.genuine_pairs,
        "impostor_pairs": counts.impostor_pairs,
        "identities": counts.identities,
        "images": counts.images,
    }
