"""Fixed protocols: equal to naive loops over every threshold that makes a difference."""

import math
import statistics
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siamese.errors import UserError
from siamese.verification.protocols import accuracy_at, best_threshold, fold_accuracy

_pairs = st.lists(
    st.tuples(st.integers(-4, 4).map(lambda k: k / 4), st.booleans(), st.integers(3, 6)),
    min_size=1,
    max_size=30,
)


def _naive_accuracy(pairs: list[tuple[float, bool, int]], threshold: float) -> float:
    right = 0
    for score, same, _ in pairs:
        accepted = score >= threshold
        if accepted == same:
            right += 1
    return right / len(pairs)


def _naive_best(pairs: list[tuple[float, bool, int]]) -> float:
    scores = sorted({score for score, _, _ in pairs})
    tried = [scores[0], *((a + b) / 2 for a, b in pairwise(scores))]
    tried.append(math.nextafter(scores[-1], math.inf))
    most = max(_naive_accuracy(pairs, threshold) for threshold in tried)
    best = [threshold for threshold in tried if _naive_accuracy(pairs, threshold) == most]
    return best[(len(best) + 1) // 2 - 1]


@settings(max_examples=200, deadline=None)
@given(_pairs, st.floats(-1.5, 1.5))
def test_accuracy_and_best_threshold_equal_naive_loops(
    pairs: list[tuple[float, bool, int]], threshold: float
) -> None:
    scores, same, _ = zip(*pairs, strict=True)
    assert accuracy_at(scores, same, threshold) == pytest.approx(_naive_accuracy(pairs, threshold))
    assert best_threshold(scores, same) == _naive_best(pairs)


@settings(max_examples=100, deadline=None)
@given(_pairs)
def test_folds_equal_naive_loops(pairs: list[tuple[float, bool, int]]) -> None:
    scores, same, folds = zip(*pairs, strict=True)
    numbers = sorted(set(folds))
    if len(numbers) < 2:
        with pytest.raises(UserError, match="one fold"):
            fold_accuracy(scores, same, folds)
        return
    thresholds, accuracies = [], []
    for number in numbers:
        thresholds.append(_naive_best([pair for pair in pairs if pair[2] != number]))
        own = [pair for pair in pairs if pair[2] == number]
        accuracies.append(_naive_accuracy(own, thresholds[-1]))
    result = fold_accuracy(scores, same, folds)
    assert result.thresholds.tolist() == thresholds
    np.testing.assert_allclose(result.accuracies, accuracies, atol=1e-15)
    assert result.mean == pytest.approx(statistics.fmean(accuracies))
    assert result.standard_error == pytest.approx(
        statistics.stdev(accuracies) / math.sqrt(len(numbers))
    )


def test_threshold_at_the_middle_of_what_separates() -> None:
    assert best_threshold([0.1, 0.2, 0.6, 0.7], [False, False, True, True]) == pytest.approx(0.4)
    # Three are equally good: between -1 and 0, 0 and 1, 1 and 2 of these, the middle one.
    scores, same = [-1, 0, 0, 1, 1, 2], [False, True, False, True, False, True]
    assert best_threshold(scores, same) == 0.5


def test_all_or_nothing() -> None:
    scores = [0.5, 0.25, 0.75]
    assert accuracy_at(scores, [True] * 3, best_threshold(scores, [True] * 3)) == 1
    assert accuracy_at(scores, [False] * 3, best_threshold(scores, [False] * 3)) == 1


def test_neighbouring_floats_are_told_apart() -> None:
    for low in (0.1, 0.3, 0.7, -0.2):
        scores = [low, math.nextafter(low, 1)]
        assert accuracy_at(scores, [False, True], best_threshold(scores, [False, True])) == 1


def test_own_fold_does_not_choose_its_threshold() -> None:
    scores = [0.0, 1.0, 0.0, 1.0, 5.0, 6.0]
    result = fold_accuracy(scores, [False, True] * 3, [0, 0, 1, 1, 2, 2])
    assert result.accuracies.tolist()[2] == 0.5
    assert result.thresholds.tolist()[2] == 0.5


@pytest.mark.parametrize(
    ("scores", "same", "message"),
    [
        ([], [], "empty"),
        ([0.1, 0.2], [True], "1 truths for 2 scores"),
        ([0.1, math.nan], [True, False], "1 of 2 scores are NaN"),
    ],
)
def test_unusable_input_is_refused(scores: list[float], same: list[bool], message: str) -> None:
    for judged in (
        lambda: accuracy_at(scores, same, 0.0),
        lambda: best_threshold(scores, same),
        lambda: fold_accuracy(scores, same, [0] * len(scores)),
    ):
        with pytest.raises(UserError, match=message):
            judged()
    with pytest.raises(UserError, match="3 fold numbers for 2 pairs"):
        fold_accuracy([0.1, 0.2], [True, False], [0, 1, 2])
