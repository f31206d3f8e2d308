"""Calibration: equal to pair-by-pair loops, to another library's regressions, to a known truth."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from siamese.errors import UserError
from siamese.verification.calibration import (
    Calibration,
    cllr,
    fit_calibration,
    minimum_cllr,
    reliability,
)
from siamese.verification.counts import PairCounts, counts_of


def _counts(genuine: list[float] | np.ndarray, impostor: list[float] | np.ndarray) -> PairCounts:
    scores = np.concatenate([genuine, impostor])
    same = np.repeat([True, False], [len(genuine), len(impostor)])
    return counts_of(scores, same, identities=9, images=99, identity_pairs=36)


def _gaussian(genuine: int, impostor: int, mean: float, deviation: float) -> PairCounts:
    rng = np.random.default_rng(0)
    return _counts(rng.normal(mean, deviation, genuine), rng.normal(-mean, deviation, impostor))


def _naive_cllr(genuine: list[float], impostor: list[float], line: Calibration) -> float:
    missed = [math.log2(1 + math.exp(-(line.slope * s + line.offset))) for s in genuine]
    false = [math.log2(1 + math.exp(line.slope * s + line.offset)) for s in impostor]
    return (sum(missed) / len(missed) + sum(false) / len(false)) / 2


def _naive_minimum(genuine: list[float], impostor: list[float]) -> float:
    """Pool adjacent violators, one block at a time."""
    blocks: list[list[float]] = []  # weight of genuine and of impostor pairs
    for score in sorted({*genuine, *impostor}):
        blocks.append([genuine.count(score) / len(genuine), impostor.count(score) / len(impostor)])
        while len(blocks) > 1 and blocks[-2][0] * blocks[-1][1] >= blocks[-1][0] * blocks[-2][1]:
            last = blocks.pop()
            blocks[-1] = [blocks[-1][0] + last[0], blocks[-1][1] + last[1]]
    cost = 0.0
    for both in blocks:
        cost += sum(-own * math.log2(own / sum(both)) for own in both if own > 0)
    return cost / 2


# Few distinct values, so that ties within and between the classes are the rule.
_tied = st.lists(st.integers(-4, 4).map(lambda k: k / 4), min_size=1, max_size=25)


@settings(max_examples=200, deadline=None)
@given(_tied, _tied, st.floats(-9, 9), st.floats(-9, 9))
def test_cllr_equals_naive_loops(
    genuine: list[float], impostor: list[float], slope: float, offset: float
) -> None:
    counts = _counts(genuine, impostor)
    line = Calibration(slope, offset)
    assert cllr(counts, line) == pytest.approx(_naive_cllr(genuine, impostor, line), abs=1e-12)
    least = minimum_cllr(counts)
    assert least == pytest.approx(_naive_minimum(genuine, impostor), abs=1e-12)
    assert 0 <= least <= 1
    # No calibration that rises with the score is better, the fitted one neither.
    assert least <= cllr(counts, Calibration(abs(slope), offset)) + 1e-12
    fitted = fit_calibration(counts)
    assert fitted.slope < 0 or least <= cllr(counts, fitted) + 1e-12


def test_minimum_cllr_equals_isotonic_regression() -> None:
    rng = np.random.default_rng(0)
    scores = np.round(rng.normal(size=20_000), 3)
    same = rng.random(20_000) < 1 / (1 + np.exp(4 - 3 * scores + np.sin(5 * scores)))
    counts = counts_of(scores, same, identities=9, images=99, identity_pairs=36)
    weight = np.where(same, 0.5 / same.sum(), 0.5 / (~same).sum())
    pooled = IsotonicRegression(y_min=0, y_max=1).fit(scores, same, weight).predict(scores)
    said = np.where(same, pooled, 1 - pooled)
    assert minimum_cllr(counts) == pytest.approx(-(weight @ np.log2(said)), abs=1e-9)


@pytest.mark.parametrize("arc", [False, True])
def test_minimum_cllr_of_many_scores_is_exact_and_ends(arc: bool) -> None:
    # An arc, of which every point is a corner of the hull, and, with a last weighty impostor, of
    # which corners fall off one by one.
    level = np.arange(1, 4001)
    genuine, impostor = level.copy(), level[::-1].copy()
    if arc:
        impostor[-1] = 10**8
    counts = PairCounts(level / 4001, genuine, impostor, 9, 99, 36)
    weight = np.concatenate([genuine / genuine.sum(), impostor / impostor.sum()]) / 2
    truth = np.repeat([1.0, 0.0], 4000)
    both = np.tile(level, 2)
    pooled = IsotonicRegression(y_min=0, y_max=1).fit(both, truth, weight).predict(both)
    said = np.where(truth == 1, pooled, 1 - pooled)
    assert minimum_cllr(counts) == pytest.approx(-(weight @ np.log2(said)), abs=1e-9)


@pytest.mark.parametrize(("genuine", "impostor"), [(40, 60), (300, 9000)])
def test_fit_equals_a_general_solver_on_expanded_pairs(genuine: int, impostor: int) -> None:
    counts = _gaussian(genuine, impostor, 0.2, 0.2)
    scores = np.repeat(np.concatenate([counts.score] * 2), [*counts.genuine, *counts.impostor])
    same = np.repeat([True, False], [genuine, impostor])
    # Smoothed targets: each pair once with either truth, in proportion.
    target = np.where(same, (genuine + 1) / (genuine + 2), 1 / (impostor + 2))
    weight = np.where(same, 0.5 / genuine, 0.5 / impostor) * 1e3
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10, max_iter=1000)
    model.fit(
        np.tile(scores, 2)[:, None],
        np.repeat([1, 0], len(scores)),
        np.concatenate([weight * target, weight * (1 - target)]),
    )
    fitted = fit_calibration(counts)
    assert fitted.slope == pytest.approx(model.coef_[0, 0], rel=1e-5)
    assert fitted.offset == pytest.approx(model.intercept_[0], rel=1e-5, abs=1e-5)


def test_smoothed_targets_change_nothing_measurable_with_many_pairs() -> None:
    counts = _gaussian(5000, 50_000, 0.2, 0.2)
    scores = np.repeat(np.concatenate([counts.score] * 2), [*counts.genuine, *counts.impostor])
    same = np.repeat([True, False], [5000, 50_000])
    plain = LogisticRegression(
        C=np.inf, solver="newton-cholesky", tol=1e-8, class_weight="balanced"
    ).fit(scores[:, None], same)
    fitted = fit_calibration(counts)
    assert fitted.slope == pytest.approx(plain.coef_[0, 0], rel=2e-3)
    assert fitted.offset == pytest.approx(plain.intercept_[0], abs=2e-3)


def test_known_likelihood_ratio_is_recovered() -> None:
    counts = _gaussian(100_000, 300_000, 0.3, 0.25)
    fitted = fit_calibration(counts)
    assert fitted.slope == pytest.approx(2 * 0.3 / 0.25**2, rel=0.02)
    assert fitted.offset == pytest.approx(0, abs=0.03)
    # One likelihood ratio is the best one, and falling short of it costs little.
    truth = Calibration(2 * 0.3 / 0.25**2, 0.0)
    assert minimum_cllr(counts) <= cllr(counts, fitted) <= cllr(counts, truth) + 1e-4
    assert cllr(counts, truth) - minimum_cllr(counts) < 0.001


def test_scores_that_separate_perfectly_end_in_a_finite_slope() -> None:
    counts = _counts(np.linspace(0.6, 0.9, 1000), np.linspace(-0.2, 0.3, 50_000))
    fitted = fit_calibration(counts)
    assert 10 < fitted.slope < 200
    assert 0.3 < -fitted.offset / fitted.slope < 0.6
    assert 0 < cllr(counts, fitted) < 0.01
    assert minimum_cllr(counts) == 0


@pytest.mark.parametrize("score", [-1.0, 0.0, 1.0])
def test_collapsed_embeddings_tell_nothing(score: float) -> None:
    counts = _counts([score] * 5, [score] * 100)
    assert fit_calibration(counts) == Calibration(0.0, 0.0)
    assert cllr(counts, fit_calibration(counts)) == pytest.approx(1)
    assert minimum_cllr(counts) == pytest.approx(1)


def test_a_millionth_beside_a_collapse_is_no_crash() -> None:
    rng = np.random.default_rng(0)
    scores = 1 - rng.integers(0, 2, 2000) / 2**20
    same = np.arange(2000) < 500
    counts = counts_of(scores, same, identities=9, images=99, identity_pairs=36)
    assert np.abs(fit_calibration(counts).llr(scores)).max() < 0.2


def test_worse_than_chance_stays_so() -> None:
    counts = _counts([-0.5, -0.4, 0.1, -0.3], [0.5, 0.4, -0.35, 0.3])
    assert fit_calibration(counts).slope < 0
    assert minimum_cllr(counts) > 0.5


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(-(2**20), 2**20), st.integers(0, 10**9), st.integers(0, 10**10)),
        min_size=2,
        max_size=6,
        unique_by=lambda row: row[0],
    )
)
def test_fit_is_the_minimum_whatever_the_counts(rows: list[tuple[int, int, int]]) -> None:
    level, genuine, impostor = (np.array(column) for column in zip(*sorted(rows), strict=True))
    assume(genuine.any() and impostor.any() and (genuine + impostor > 0).all())
    counts = PairCounts(level / 2**20, genuine, impostor, 9, 99, 36)
    fitted = fit_calibration(counts)
    # At the minimum of a convex loss its gradient is 0.
    total, others = genuine.sum(), impostor.sum()
    p = 1 / (1 + np.exp(np.clip(-fitted.llr(counts.score), -700, 700)))
    error = genuine / total * (p - (total + 1) / (total + 2))
    error += impostor / others * (p - 1 / (others + 2))
    assert abs(error.sum()) < 1e-7
    assert abs(error @ (counts.score - counts.score.mean())) < 1e-7 * np.std(counts.score)


def test_probability_moves_with_the_prior() -> None:
    line = Calibration(4.0, -1.0)
    scores = [-0.5, 0.25, 1.0]
    for prior in (0.5, 0.01, 0.9):
        odds = [math.exp(4 * s - 1) * prior / (1 - prior) for s in scores]
        np.testing.assert_allclose(
            line.probability(scores, prior), [o / (1 + o) for o in odds], rtol=1e-12
        )
    assert line.probability(0.25, 0.3) == pytest.approx(0.3)
    far = Calibration(1e5, 0.0).probability([-1.0, 1.0], 0.5)
    assert far.tolist() == [0, 1]
    assert line.llr(scores).dtype == far.dtype == np.float64


@pytest.mark.parametrize("prior", [0.0, 1.0, -0.1, 2.0, math.nan])
def test_priors_that_are_none_are_refused(prior: float) -> None:
    with pytest.raises(UserError, match="`prior`"):
        Calibration(1.0, 0.0).probability([0.0], prior)


@pytest.mark.parametrize("prior", [0.5, 0.1])
def test_reliability_equals_naive_loops(prior: float) -> None:
    rng = np.random.default_rng(1)
    genuine, impostor = rng.normal(0.4, 0.3, 60).round(2), rng.normal(0, 0.3, 200).round(2)
    counts, line = _counts(genuine, impostor), Calibration(8.0, -2.0)
    result = reliability(counts, line, prior, bins=7)
    rows = []
    for bin_ in range(7):
        inside = [
            [p for s in scores if min(int((p := float(line.probability(s, prior))) * 7), 6) == bin_]
            for scores in (genuine, impostor)
        ]
        weights = [prior * len(inside[0]) / 60, (1 - prior) * len(inside[1]) / 200]
        if sum(weights):
            mean = (prior * sum(inside[0]) / 60 + (1 - prior) * sum(inside[1]) / 200) / sum(weights)
            rows.append((mean, weights[0] / sum(weights), len(inside[0]), len(inside[1])))
    predicted, observed, *numbers = zip(*rows, strict=True)
    np.testing.assert_allclose(result.predicted, predicted, atol=1e-12)
    np.testing.assert_allclose(result.observed, observed, atol=1e-12)
    np.testing.assert_array_equal([result.genuine, result.impostor], numbers)
    assert result.genuine.dtype == result.impostor.dtype == np.int64


@pytest.mark.parametrize("prior", [0.5, 0.05])
def test_calibrated_probabilities_lie_near_the_diagonal(prior: float) -> None:
    counts = _gaussian(40_000, 120_000, 0.2, 0.2)
    result = reliability(counts, fit_calibration(counts), prior)
    assert len(result.predicted) == 10
    np.testing.assert_allclose(result.observed, result.predicted, atol=0.02)
    assert (result.genuine.sum(), result.impostor.sum()) == (40_000, 120_000)
    # Overconfidence shows.
    wrong = reliability(counts, Calibration(30.0, 0.0), 0.5)
    assert np.abs(wrong.observed - wrong.predicted).max() > 0.1


def test_bins_without_a_pair_are_left_out() -> None:
    result = reliability(_counts([0.9], [-0.9]), Calibration(5.0, 0.0))
    assert result.genuine.tolist() == [0, 1]
    assert result.observed.tolist() == [0, 1]
    with pytest.raises(UserError, match="at least 1"):
        reliability(_counts([0.9], [-0.9]), Calibration(5.0, 0.0), bins=0)
