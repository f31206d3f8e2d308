"""Figures: equal to sklearn on the same scores, and to naive loops with ties of every kind."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from siamese.errors import UserError
from siamese.verification.counts import PairCounts, count_pairs, counts_of
from siamese.verification.metrics import (
    auc,
    average_precision,
    curve,
    equal_error_rate,
    error_rates,
    lowest_supported_fmr,
    summarise,
    tar_at_fmr,
    threshold_at_fmr,
)
from siamese.verification.scores import SCALE, normalise
from tests.oracles import verification as oracle
from tests.verification.test_counts import expand


def _scores(genuine: list[float], impostor: list[float]) -> PairCounts:
    truth = [True] * len(genuine) + [False] * len(impostor)
    return counts_of([*genuine, *impostor], truth, identities=9, images=9, identity_pairs=36)


@pytest.fixture(scope="module")
def large() -> tuple[PairCounts, np.ndarray, np.ndarray]:
    """3,000 images with duplicates; scores and truth of all pairs for sklearn."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 120, 3000)
    embeddings = rng.normal(size=(120, 32))[labels] * 0.6 + rng.normal(size=(3000, 32))
    embeddings[100:130] = embeddings[99]
    counts = count_pairs(embeddings.astype(np.float32), labels)
    genuine, impostor = expand(counts)
    truth = np.repeat([True, False], [len(genuine), len(impostor)])
    return counts, truth, np.concatenate([genuine, impostor]).astype(np.float32)


def test_auc_and_ap_equal_sklearn(large: tuple[PairCounts, np.ndarray, np.ndarray]) -> None:
    scores, truth, values = large
    assert auc(scores) == pytest.approx(roc_auc_score(truth, values), abs=1e-12)
    assert average_precision(scores) == pytest.approx(
        average_precision_score(truth, values), abs=1e-12
    )


def test_eer_and_tar_equal_sklearn(large: tuple[PairCounts, np.ndarray, np.ndarray]) -> None:
    scores, truth, values = large
    fmr, tar, _ = roc_curve(truth, values, drop_intermediate=False)
    at = np.argmin(np.abs(fmr - (1 - tar)))
    assert equal_error_rate(scores)[0] == pytest.approx((fmr[at] + 1 - tar[at]) / 2, abs=1e-9)
    for rate in (1e-1, 1e-2, 1e-3, 1e-5):
        assert tar_at_fmr(scores, rate) == pytest.approx(tar[fmr <= rate].max(), abs=1e-12)


def test_curve_lies_on_sklearns(large: tuple[PairCounts, np.ndarray, np.ndarray]) -> None:
    scores, truth, values = large
    fmr, tar, _ = roc_curve(truth, values, drop_intermediate=False)
    points = curve(scores)
    assert len(points.fmr) <= 2100
    whole = curve(scores, None)
    assert np.isin(points.threshold, whole.threshold).all()
    assert np.isin(scores.score[scores.genuine > 0], whole.threshold).all()
    exact = np.round(fmr, 12) + 1j * np.round(tar, 12)
    ours = np.round(points.fmr, 12) + 1j * np.round(points.recall, 12)
    assert np.isin(ours, exact).all()
    assert (np.diff(points.fmr) >= 0).all()
    assert points.recall[-1] == points.fmr[-1] == 1
    assert (points.fmr[0], points.recall[0], points.precision[0]) == (0, 0, 1)


# Few distinct values, so that ties within and between the classes are the rule.
_tied = st.lists(st.integers(-4, 4).map(lambda k: k / 4), min_size=1, max_size=25)


@settings(max_examples=300, deadline=None)
@given(_tied, _tied)
def test_figures_equal_naive_loops_with_ties(genuine: list[float], impostor: list[float]) -> None:
    scores = _scores(genuine, impostor)
    assert auc(scores) == pytest.approx(oracle.auc(genuine, impostor), abs=1e-14)
    assert average_precision(scores) == pytest.approx(
        oracle.average_precision(genuine, impostor), abs=1e-12
    )
    eer, threshold = equal_error_rate(scores)
    assert any(
        eer == pytest.approx(e, abs=1e-12) for e in oracle.equal_error_rates(genuine, impostor)
    )
    fmr, fnmr = oracle.rates(genuine, impostor, threshold)
    assert eer == pytest.approx(float(fmr + fnmr) / 2, abs=1e-12)
    for wanted in (0.0, 0.04, 0.1, 0.29, 0.5, 1.0):
        assert tar_at_fmr(scores, wanted) == pytest.approx(
            oracle.tar_at(genuine, impostor, wanted), abs=1e-12
        )
        assert (
            oracle.rates(genuine, impostor, threshold_at_fmr(scores, wanted))[0] <= wanted + 1e-12
        )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 40), st.integers(1, 12), st.sampled_from([0, 0, 0, 1]))
def test_embeddings_to_figures_equals_naive_loop(
    seed: int, images: int, identities: int, equal: int
) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, identities, images)
    # +-1 vectors of 64 dimensions: every cosine is exact, and ties abound.
    embeddings = rng.choice([-1.0, 1.0], (images, 64)).astype(np.float32)
    embeddings[:, 8:] = 1
    if equal:
        embeddings[1:] = embeddings[0]
    unit = normalise(embeddings).numpy().astype(np.float64)
    grid = np.round(unit @ unit.T * SCALE) / SCALE
    genuine, impostor = oracle.pair_lists(grid, labels)
    if not genuine or not impostor:
        with pytest.raises(UserError, match="pair"):
            count_pairs(embeddings, labels)
        return
    scores = count_pairs(embeddings, labels)
    assert auc(scores) == pytest.approx(oracle.auc(genuine, impostor), abs=1e-12)
    assert average_precision(scores) == pytest.approx(
        oracle.average_precision(genuine, impostor), abs=1e-12
    )
    assert any(
        equal_error_rate(scores)[0] == pytest.approx(eer, abs=1e-12)
        for eer in oracle.equal_error_rates(genuine, impostor)
    )
    for wanted in (0.0, 0.01, 0.3):
        assert tar_at_fmr(scores, wanted) == pytest.approx(
            oracle.tar_at(genuine, impostor, wanted), abs=1e-12
        )
    points = curve(scores, None)
    assert set(genuine) <= set(points.threshold)
    for threshold, fmr, fnmr in zip(points.threshold, points.fmr, points.fnmr, strict=True):
        exact = oracle.rates(genuine, impostor, threshold)
        assert (fmr, fnmr) == pytest.approx((float(exact[0]), float(exact[1])), abs=1e-12)


def test_two_images_are_enough_for_a_curve() -> None:
    scores = _scores([0.5], [0.5])
    assert auc(scores) == 0.5
    assert len(curve(scores).fmr) == 2


@pytest.mark.parametrize("seed", range(3))
def test_collapsed_embeddings_are_chance(seed: int) -> None:
    labels = np.repeat([0, 1, 2], 4)
    one = np.random.default_rng(seed).normal(size=300)
    figures = summarise(count_pairs(np.tile(one, (12, 1)), labels))
    assert figures["auc"] == 0.5
    assert figures["eer"] == 0.5
    assert figures["tar_at_far_1e-2"] == 0.0
    assert figures["ap"] == pytest.approx(figures["genuine_pairs"] / 66)


def test_error_rates_compare_as_defined() -> None:
    scores = _scores([0.2, 0.4, 0.6], [0.1, 0.4, 0.5, 0.6])
    fmr, fnmr = error_rates(scores, [0.4, 0.41, 2.0])
    np.testing.assert_allclose(fmr, [3 / 4, 2 / 4, 0])
    np.testing.assert_allclose(fnmr, [1 / 3, 2 / 3, 1])


def test_support_follows_the_number_of_people() -> None:
    embeddings = np.random.default_rng(0).normal(size=(400, 8)).astype(np.float32)
    figures = summarise(count_pairs(embeddings, np.repeat(np.arange(200), 2)))
    assert figures["lowest_supported_fmr"] == pytest.approx(1.5e-4, rel=0.01)
    assert lowest_supported_fmr(_scores([0.5], [0.5])) == pytest.approx(3 / 36)
