"""Accuracy on listed pairs, as fixed protocols state it: Labeled Faces in the Wild and its kin."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from siamese.errors import UserError
from siamese.verification.bootstrap import Interval, logit_interval
from siamese.verification.counts import Floats

Truths = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class FoldAccuracy:
    """Accuracy over folds, each judged at the threshold that the other folds choose.

    Attributes:
        mean: mean accuracy, in [0, 1].
        standard_error: of the mean: the folds' sample standard deviation / sqrt(F).
        accuracies: float64 (F,), in the order of the folds' numbers.
        thresholds: float64 (F,).
    """

    mean: float
    standard_error: float
    accuracies: Floats
    thresholds: Floats

    @property
    def interval(self) -> Interval:
        """95 % interval of the mean by Student's t over the folds, on the scale of the logit.

        None where all folds are alike, as with no error in any.
        """
        spread = self.mean * (1 - self.mean)
        error = self.standard_error / spread if spread else 0.0
        return logit_interval(self.mean, error, len(self.accuracies) - 1)


def accuracy_at(scores: npt.ArrayLike, same: npt.ArrayLike, threshold: float) -> float:
    """Share of pairs told right when scores >= threshold are accepted, in [0, 1].

    Args:
        scores: (M,).
        same: bool (M,), whether the pair is genuine.
        threshold: any number.

    Raises:
        UserError: no pair, NaN, or not one truth per score.
    """
    values, truth = _checked(scores, same)
    return float(np.mean((values >= threshold) == truth))


def best_threshold(scores: npt.ArrayLike, same: npt.ArrayLike) -> float:
    """The threshold of the highest accuracy.

    The thresholds tried are the midpoints between neighbouring distinct scores, the lowest score
    (accepts all) and just above the highest (accepts none): all that make a difference. Of k best
    ones in ascending order it is the middle one, number (k + 1) // 2 counted from 1: the lower of
    two middle ones.

    Args:
        scores: (M,).
        same: bool (M,), whether the pair is genuine.

    Raises:
        UserError: no pair, NaN, or not one truth per score.
    """
    values, truth = _checked(scores, same)
    score, where = np.unique(values, return_inverse=True)
    genuine = np.bincount(where[truth], minlength=len(score))
    impostor = np.bincount(where[~truth], minlength=len(score))
    # Right at the lowest threshold: all genuine. Passing a score loses its genuine pairs.
    right = truth.sum() + np.append(0, np.cumsum(impostor - genuine))
    best = np.flatnonzero(right == right.max())
    middle_best = int(best[(len(best) - 1) // 2])
    if middle_best == 0:
        return float(score[0])
    if middle_best == len(score):
        return float(np.nextafter(score[-1], np.inf))
    below, above = float(score[middle_best - 1]), float(score[middle_best])
    middle = below + (above - below) / 2
    return middle if middle > below else above  # neighbouring floats have no middle


def fold_accuracy(scores: npt.ArrayLike, same: npt.ArrayLike, folds: npt.ArrayLike) -> FoldAccuracy:
    """Cross-validated accuracy (Huang et al. 2007, "Labeled Faces in the Wild").

    Args:
        scores: (M,).
        same: bool (M,), whether the pair is genuine.
        folds: integers (M,), the fold of each pair.

    Raises:
        UserError: no pair, NaN, not one truth and fold per score, or fewer than two folds.
    """
    values, truth = _checked(scores, same)
    fold = np.asarray(folds)
    if fold.shape != values.shape:
        raise UserError(f"{fold.size} fold numbers for {len(values)} pairs: one each is needed")
    numbers = np.unique(fold)
    if len(numbers) < 2:
        raise UserError("all pairs are of one fold: its threshold needs other folds to choose it")
    accuracies, thresholds = [], []
    for number in numbers:
        in_fold = fold == number
        thresholds.append(best_threshold(values[~in_fold], truth[~in_fold]))
        accuracies.append(accuracy_at(values[in_fold], truth[in_fold], thresholds[-1]))
    error = float(np.std(accuracies, ddof=1)) / math.sqrt(len(numbers))
    return FoldAccuracy(
        float(np.mean(accuracies)), error, np.array(accuracies), np.array(thresholds)
    )


def _checked(scores: npt.ArrayLike, same: npt.ArrayLike) -> tuple[Floats, Truths]:
    values, truth = np.asarray(scores, np.float64), np.asarray(same, bool)
    if values.ndim != 1 or values.shape != truth.shape:
        raise UserError(f"{truth.size} truths for {values.size} scores: one each is needed")
    if len(values) == 0:
        raise UserError("no pair to judge: the list is empty")
    if np.isnan(values).any():
        raise UserError(f"{int(np.isnan(values).sum())} of {len(values)} scores are NaN")
    return values, truth
