"""From a score to the weight of evidence: log-likelihood ratios, and how good they are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from siamese.errors import UserError
from siamese.verification.counts import Counts, Floats, PairCounts


@dataclass(frozen=True)
class Calibration:
    """A straight line from the score to the natural logarithm of the likelihood ratio.

    Attributes:
        slope: below 0 where higher scores speak against one person: a model worse than chance.
        offset: log-likelihood ratio of score 0.
    """

    slope: float
    offset: float

    def llr(self, scores: npt.ArrayLike) -> Floats:
        """Natural-log likelihood ratios, float64, any shape.

        How many times likelier the score is for two pictures of one person than for two people's.
        """
        return np.asarray(self.slope * np.asarray(scores, np.float64) + self.offset)

    def probability(self, scores: npt.ArrayLike, prior: float) -> Floats:
        """Probability that two pictures show one person, float64 in [0, 1], any shape.

        Args:
            prior: the probability before the pictures were compared, above 0 and below 1.

        Raises:
            UserError: a prior that is none.
        """
        require_prior(prior)
        return _sigmoid(self.llr(scores) + math.log(prior) - math.log1p(-prior))


def require_prior(prior: float) -> None:
    """Refuse what is no probability of an open question; UserError."""
    if not 0 < prior < 1:
        raise UserError(
            f"`prior` {prior:g}: must lie above 0 and below 1, the probability of one person "
            "before looking at the pictures, e.g. `prior` 0.5"
        )


def fit_calibration(counts: PairCounts) -> Calibration:
    """Logistic regression of genuine against impostor, one half of the weight each.

    With equal weights the fitted log odds are log-likelihood ratios (Brümmer & du Preez 2006,
    "Application-independent evaluation of speaker detection"). The targets are Platt's (1999):
    (G + 1) / (G + 2) and 1 / (I + 2) instead of 1 and 0. Scores that separate the two kinds
    perfectly would otherwise fit best with an infinite slope; as it is, no ratio can be much
    beyond what the number of pairs supports. With many pairs whose scores overlap they change
    nothing measurable; at an EER of 0.1 % the slope falls by 18 % and Cllr rises by 0.0002 bits.

    A slope below 0 is returned as fitted. One score for all pairs tells nothing: LLR 0.
    """
    genuine = counts.genuine / (2 * counts.genuine_pairs)
    impostor = counts.impostor / (2 * counts.impostor_pairs)
    weight = genuine + impostor
    # Of mean 0 and deviation 1, so that Newton's equations are well conditioned on any scores.
    mean = float(weight @ counts.score)
    deviation = math.sqrt(float(weight @ (counts.score - mean) ** 2))
    if len(counts.score) < 2 or deviation == 0:
        return Calibration(0.0, 0.0)
    same = genuine * ((counts.genuine_pairs + 1) / (counts.genuine_pairs + 2))
    same += impostor / (counts.impostor_pairs + 2)
    slope, offset = _newton((counts.score - mean) / deviation, same, weight - same)
    return Calibration(slope / deviation, offset - slope * mean / deviation)


_STEPS = 200


def _newton(x: Floats, same: Floats, other: Floats) -> tuple[float, float]:
    """Slope and offset of least cross-entropy; strictly convex as no target is 0 or 1."""

    def loss(line: Floats) -> float:
        z = line[0] * x + line[1]
        # log(1 + e^-z) = log(1 + e^z) - z
        return float((same + other) @ np.logaddexp(0, z) - same @ z)

    line = np.zeros(2)
    current = loss(line)
    for _ in range(_STEPS):
        p = _sigmoid(line[0] * x + line[1])
        error = (same + other) * p - same
        gradient = np.array([error @ x, error.sum()])
        bend = (same + other) * p * (1 - p)
        across = bend @ x
        hessian = np.array([[bend @ x**2, across], [across, bend.sum()]])
        step = np.linalg.solve(hessian, gradient)
        # Far from the minimum a full step may overshoot: ask for a good part of the promised
        # descent, but for rounding noise.
        descent = float(gradient @ step)
        while (reached := loss(line - step)) > current - descent / 4 + 1e-14:
            step, descent = step / 2, descent / 2
        line, current = line - step, reached
        if descent < 1e-20:
            break
    return float(line[0]), float(line[1])


def cllr(counts: PairCounts, calibration: Calibration) -> float:
    """Cost of the log-likelihood ratios in bits (Brümmer & du Preez 2006).

    0: always certain and right; 1: as good as saying nothing (LLR 0); above 1: misleading.
    """
    llr = calibration.llr(counts.score)
    misses = counts.genuine @ np.logaddexp(0, -llr) / counts.genuine_pairs
    false_alarms = counts.impostor @ np.logaddexp(0, llr) / counts.impostor_pairs
    return float((misses + false_alarms) / (2 * math.log(2)))


def minimum_cllr(counts: PairCounts) -> float:
    """Least Cllr in bits, in [0, 1], of any calibration that never falls with the score.

    What is left when calibration is perfect: the cost of the score's order alone. The best
    rising calibration, isotonic regression by pooling adjacent violators, is the upper convex
    hull of the ROC curve: all scores of one side of the hull share one likelihood ratio, its
    slope (Fawcett & Niculescu-Mizil 2007, "PAV and the ROC convex hull").
    """
    hull = _hull(counts.impostor_at_least, counts.genuine_at_least)
    genuine = -np.diff(counts.genuine_at_least[hull]) / counts.genuine_pairs
    impostor = -np.diff(counts.impostor_at_least[hull]) / counts.impostor_pairs
    cost = 0.0
    for share in (genuine, impostor):
        # share * log2(1 + other / share), 0 where there is none.
        some = share > 0
        cost += float(share[some] @ np.log2((genuine + impostor)[some] / share[some]))
    return max(0.0, cost / 2)


def _hull(x: Counts, y: Counts) -> Counts:
    """Positions of the corners of the upper convex hull of a ROC curve, both ends included."""
    kept = np.arange(len(x))
    # A point on or below the line between its neighbours is no corner. Dropping all such points at
    # once, over and over, leaves few of millions; what lies in long arcs is left to the loop.
    while len(kept) > 2:
        dx, dy = np.diff(x[kept]).astype(np.float64), np.diff(y[kept]).astype(np.float64)
        corner = np.concatenate([[True], dy[:-1] * dx[1:] < dy[1:] * dx[:-1], [True]])
        before, kept = len(kept), kept[corner]
        if len(kept) > 0.9 * before:
            break
    corners: list[int] = []
    for position, across, up in zip(kept.tolist(), x[kept].tolist(), y[kept].tolist(), strict=True):
        while len(corners) > 1:
            a, b = corners[-2], corners[-1]
            if (int(y[b]) - int(y[a])) * (across - int(x[b])) < (up - int(y[b])) * (
                int(x[b]) - int(x[a])
            ):
                break
            corners.pop()
        corners.append(position)
    return np.array(corners)


@dataclass(frozen=True)
class Reliability:
    """How often what was said at a probability was so.

    Attributes:
        predicted: float64 (B,), mean predicted probability of each bin that holds a pair, rising.
        observed: float64 (B,), share of genuine pairs in it, at the prior.
        genuine: int64 (B,), number of genuine pairs in it.
        impostor: int64 (B,), number of impostor pairs in it.
    """

    predicted: Floats
    observed: Floats
    genuine: Counts
    impostor: Counts


def reliability(
    counts: PairCounts, calibration: Calibration, prior: float = 0.5, bins: int = 10
) -> Reliability:
    """Predicted probabilities in bins of equal width, and what was observed in each.

    All genuine pairs together weigh ``prior``, all impostor pairs ``1 - prior``: among all pairs
    of some images impostors are far more frequent than where a model is used.

    Args:
        prior: probability of one person before the comparison, above 0 and below 1.
        bins: number of bins, at least 1; those without a pair are left out.

    Raises:
        UserError: a prior or number of bins that is none.
    """
    if bins < 1:
        raise UserError(f"a reliability diagram of {bins} bins: at least 1 is needed")
    predicted = calibration.probability(counts.score, prior)
    index = np.minimum((predicted * bins).astype(np.int64), bins - 1)
    same = prior * counts.genuine / counts.genuine_pairs
    weight = same + (1 - prior) * counts.impostor / counts.impostor_pairs

    def total(values: Floats) -> Floats:
        return np.bincount(index, values, minlength=bins).astype(np.float64)

    genuine, impostor = (
        np.rint(total(values.astype(np.float64))).astype(np.int64)  # exact below 2**53
        for values in (counts.genuine, counts.impostor)
    )
    used = genuine + impostor > 0
    return Reliability(
        total(weight * predicted)[used] / total(weight)[used],
        total(same)[used] / total(weight)[used],
        genuine[used],
        impostor[used],
    )


def _sigmoid(z: Floats) -> Floats:
    """1 / (1 + e^-z) without overflow."""
    return np.asarray(np.exp(-np.logaddexp(0, -z)))
