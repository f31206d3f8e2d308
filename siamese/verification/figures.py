"""Figures and curves of 1:1 verification, exact counts over all pairs (ISO/IEC 19795-1).

``FMR(t)`` is the share of impostor scores >= t, ``FNMR(t)`` the share of genuine scores < t.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from siamese.verification.scores import PairScores, Scores

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


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


def auc(scores: PairScores) -> float:
    """Area under the ROC curve: P(genuine > impostor) + P(equal) / 2 (Mann-Whitney)."""
    below = np.searchsorted(scores.impostor, scores.genuine, side="left")
    not_above = np.searchsorted(scores.impostor, scores.genuine, side="right")
    twice = int(below.sum(dtype=np.int64)) + int(not_above.sum(dtype=np.int64))
    return twice / (2 * len(scores.genuine) * len(scores.impostor))


def average_precision(scores: PairScores) -> float:
    """Average precision: precision weighted by the recall each threshold adds, not interpolated."""
    values, first = np.unique(scores.genuine, return_index=True)
    total = len(scores.genuine)
    accepted = total - first  # genuine scores >= value
    false = len(scores.impostor) - np.searchsorted(scores.impostor, values, side="left")
    gained = np.diff(np.append(first, total))
    return float(np.sum(gained / total * (accepted / (accepted + false))))


def error_rates(scores: PairScores, thresholds: npt.ArrayLike) -> tuple[Floats, Floats]:
    """FMR and FNMR at given thresholds, float64, same shape."""
    at = np.asarray(thresholds, dtype=np.float64)
    fmr = _at_least(scores.impostor, at) / len(scores.impostor)
    fnmr = 1 - _at_least(scores.genuine, at) / len(scores.genuine)
    return np.asarray(fmr, np.float64), np.asarray(fnmr, np.float64)


def _at_least(values: Scores, thresholds: Floats) -> Counts:
    """How many of the sorted values are >= each threshold, compared in float64."""
    # The thresholds come from float32 scores or lie between two of them; rounding one up to
    # float32 keeps every comparison with a float32 score as it is in float64.
    rounded = thresholds.astype(np.float32)
    low = rounded.astype(np.float64) < thresholds
    rounded = np.where(low, np.nextafter(rounded, np.float32(np.inf)), rounded)
    return np.asarray(len(values) - np.searchsorted(values, rounded, side="left"), np.int64)


def equal_error_rate(scores: PairScores) -> tuple[float, float]:
    """EER and its threshold.

    Returns:
        ``(eer, threshold)``: (FMR + FNMR) / 2 where their difference is least over all distinct
        scores as thresholds; of equal differences the highest threshold.
    """
    genuine, impostor = scores.genuine, scores.impostor
    g, i = len(genuine), len(impostor)

    def errors(threshold: np.float32) -> tuple[int, int]:
        false_matches = i - int(np.searchsorted(impostor, threshold, side="left"))
        return false_matches, int(np.searchsorted(genuine, threshold, side="left"))

    def difference(threshold: np.float32) -> int:
        """(FNMR - FMR) * G * I: an integer that never falls as the threshold rises."""
        false_matches, false_non_matches = errors(threshold)
        return false_non_matches * i - false_matches * g

    candidates = [np.nextafter(max(genuine[-1], impostor[-1]), np.float32(np.inf))]
    for values in (genuine, impostor):
        crossing = bisect.bisect_left(values, 0, key=difference)
        candidates += [values[at] for at in (crossing - 1, crossing) if 0 <= at < len(values)]
    best = min(candidates, key=lambda t: (abs(difference(t)), -t))
    false_matches, false_non_matches = errors(best)
    return (false_matches / i + false_non_matches / g) / 2, float(best)


def threshold_at_fmr(scores: PairScores, fmr: float) -> float:
    """The lowest threshold whose FMR does not exceed ``fmr`` (as float32 scores allow).

    Args:
        scores: the scores.
        fmr: wanted false-match rate in [0, 1].
    """
    total = len(scores.impostor)
    allowed = int(fmr * total)
    if (allowed + 1) / total <= fmr:  # 0.29 * 100 is 28.999...
        allowed += 1
    if allowed >= total:
        return -1.0
    return float(np.nextafter(scores.impostor[total - 1 - allowed], np.float32(np.inf)))


def tar_at_fmr(scores: PairScores, fmr: float) -> float:
    """TAR@FAR: share of genuine pairs accepted at :func:`threshold_at_fmr`, in [0, 1]."""
    return float(1 - error_rates(scores, threshold_at_fmr(scores, fmr))[1])


def lowest_supported_fmr(scores: PairScores) -> float:
    """No FMR below 3 / (pairs of identities) is supported, even optimistically.

    The rule of three: with none of n independent trials failing, rates up to 3 / n stay possible
    at 95 %; pairs of people are the most that can count as independent.
    """
    return min(1.0, 3 / scores.identity_pairs) if scores.identity_pairs else 1.0


def curve(scores: PairScores, points: int = 2000) -> Curve:
    """ROC, DET and PR at shared thresholds; every point is exact, only their number is thinned.

    Args:
        scores: the scores.
        points: about how many; with fewer distinct scores than that, all of them.
    """
    both = len(scores.genuine) + len(scores.impostor)
    if both <= points:
        thresholds = np.unique(np.concatenate([scores.genuine, scores.impostor]))
    else:
        share = points // 3
        # Even steps of FNMR, even steps of FMR, and even ratios of FMR for the log axis.
        top = np.unique(np.geomspace(1, len(scores.impostor), share).astype(np.int64))
        spread = [_spread(scores.genuine, share), _spread(scores.impostor, share)]
        thresholds = np.unique(np.concatenate([*spread, scores.impostor[-top]]))
    highest = np.nextafter(thresholds[-1], np.float32(np.inf))
    falling = np.append(thresholds, highest)[::-1].astype(np.float64)
    matches, accepted = _at_least(scores.impostor, falling), _at_least(scores.genuine, falling)
    precision = np.divide(
        accepted, accepted + matches, out=np.ones(len(falling)), where=accepted + matches > 0
    )
    fnmr = 1 - accepted / len(scores.genuine)
    return Curve(falling, matches / len(scores.impostor), fnmr, precision)


def _spread(values: Scores, count: int) -> Scores:
    at = np.linspace(0, len(values) - 1, min(count, len(values))).astype(np.int64)
    return values[at]


def summarise(scores: PairScores) -> dict[str, float]:
    """The figures by their plain names, for reports, metrics files and checkpoints."""
    eer, eer_threshold = equal_error_rate(scores)
    return {
        "auc": auc(scores),
        "ap": average_precision(scores),
        "eer": eer,
        "eer_threshold": eer_threshold,
        "tar_at_far_1e-2": tar_at_fmr(scores, 1e-2),
        "tar_at_far_1e-3": tar_at_fmr(scores, 1e-3),
        "threshold_at_far_1e-2": threshold_at_fmr(scores, 1e-2),
        "threshold_at_far_1e-3": threshold_at_fmr(scores, 1e-3),
        "lowest_supported_fmr": lowest_supported_fmr(scores),
        "genuine_mean": float(scores.genuine.mean(dtype=np.float64)),
        "impostor_mean": float(scores.impostor.mean(dtype=np.float64)),
        "genuine_pairs": len(scores.genuine),
        "impostor_pairs": len(scores.impostor),
        "identities": scores.identities,
        "images": scores.images,
    }
