"""The two-covariance model against scipy's multivariate normal."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.covariance import ledoit_wolf, ledoit_wolf_shrinkage
from sklearn.decomposition import PCA

from siamese.auditing.two_covariance import (
    Likelihoods,
    TwoCovariance,
    _shrunk,
    centred,
    fit,
    fit_to_halves,
    fit_without,
    means_by_label,
    means_of_halves,
    membership,
    normalised,
    sums_by_label,
)
from tests.auditing.people import draw, draw_wide

DIMENSIONS = 3


@pytest.fixture
def model() -> TwoCovariance:
    return TwoCovariance(np.zeros(DIMENSIONS), np.eye(DIMENSIONS), np.array([4.0, 1.0, 0.1]))


def _joint(model: TwoCovariance, groups: list[np.ndarray]) -> float:
    """Log density of pictures, each group of one person, by the full covariance matrix."""
    total = 0.0
    for group in groups:
        for d, ratio in enumerate(model.ratio):
            covariance = np.eye(len(group)) + ratio
            total += multivariate_normal.logpdf(group[:, d], np.zeros(len(group)), covariance)
    return total


def test_log_likelihood_is_that_of_one_more_picture(model: TwoCovariance) -> None:
    rng = np.random.default_rng(0)
    known, further = rng.normal(size=(5, DIMENSIONS)), rng.normal(size=(4, DIMENSIONS))
    found = model.log_likelihood(further, known.sum(0)[None], np.array([5.0]))[:, 0]
    before = _joint(model, [known])
    wanted = [_joint(model, [np.vstack([known, row])]) - before for row in further]
    constant = -0.5 * DIMENSIONS * np.log(2 * np.pi)
    np.testing.assert_allclose(found + constant, wanted, rtol=1e-10)
    own = model.log_likelihood_own(further, np.repeat(known.sum(0)[None], 4, 0), np.full(4, 5.0))
    np.testing.assert_allclose(own, found, rtol=1e-12)


@pytest.mark.parametrize("most", [0.0, 1.0, 30.0, 5000.0])
def test_likelihoods_by_one_product(most: float) -> None:
    rng = np.random.default_rng(0)
    ratio = np.concatenate([np.geomspace(1e-4, 300, 30), [1e-4]])
    model = TwoCovariance(np.zeros(31), np.eye(31), ratio)
    counts = rng.random(50) * most
    sums = rng.normal(size=(50, 31)) * np.sqrt(counts * (1 + counts * ratio[:, None])).T
    points = rng.normal(size=(20, 31)) * np.sqrt(1 + ratio)
    nobody = model.log_likelihood(points, np.zeros((1, 31)), np.zeros(1))
    wanted = model.log_likelihood(points, sums, counts) - nobody
    found = Likelihoods(model, sums, counts)(points.astype(np.float32))
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max() + 1e-3)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (4, 2), (3, 7)])
def test_log_ratio_is_that_of_all_pictures(model: TwoCovariance, n: int, m: int) -> None:
    rng = np.random.default_rng(n)
    first, second = rng.normal(size=(n, DIMENSIONS)), rng.normal(size=(m, DIMENSIONS))
    found = model.log_ratio(
        first.mean(0)[None], np.array([n]), second.mean(0)[None], np.array([m]), 30
    )
    wanted = _joint(model, [np.vstack([first, second])]) - _joint(model, [first, second])
    assert found[0, 0] == pytest.approx(wanted, rel=1e-9)


def test_log_ratio_of_all_with_all_is_each_alone(model: TwoCovariance) -> None:
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(6, DIMENSIONS)), rng.normal(size=(5, DIMENSIONS))
    n, m = np.array([1, 2, 2, 9, 40, 31]), np.array([1, 3, 3, 50, 9])
    found = model.log_ratio(first, n, second, m, 10)
    for i in range(6):
        for j in range(5):
            alone = model.log_ratio(first[[i]], n[[i]], second[[j]], m[[j]], 10)[0, 0]
            assert found[i, j] == pytest.approx(alone)
    many = model.log_ratio(first, np.full(6, 10), second, np.full(5, 10), 10)
    np.testing.assert_allclose(found[4:, 3], many[4:, 3])


def test_fit_finds_the_directions_in_which_people_differ() -> None:
    embeddings, labels = draw(60, 12)
    model = fit(embeddings, labels, np.ones(len(labels)))
    rows = embeddings.astype(float) / np.linalg.norm(embeddings, axis=1, keepdims=True)
    rest = rows - np.stack([rows[labels == p].mean(0) for p in range(60)])[labels]
    within, _ = ledoit_wolf(rest, assume_centered=True)
    within *= len(labels) / (len(labels) - 60)  # means were estimated
    np.testing.assert_allclose(model.axes.T @ within @ model.axes, np.eye(16), atol=1e-3)
    strong = np.abs(model.axes[:, np.argmax(model.ratio)])
    assert strong[:8].sum() > 5 * strong[8:].sum()  # of the first half


def test_people_of_one_picture_that_hardly_counts_spoil_nothing() -> None:
    embeddings, labels = draw(30, 12, seed=1)
    wanted = fit(embeddings, labels, np.ones(len(labels))).ratio
    alone = np.flatnonzero(labels < 5)[::12]
    labels[alone] = 30 + np.arange(5)
    weights = np.ones(len(labels))
    weights[alone] = 1e-4
    np.testing.assert_allclose(fit(embeddings, labels, weights).ratio, wanted, rtol=0.3, atol=0.1)


def test_pictures_of_weight_nought_change_nothing_but_the_centre() -> None:
    embeddings, labels = draw(10, 8)
    weights = np.ones(len(labels))
    weights[::5] = 0.0
    sums, counts = sums_by_label(embeddings.astype(float), labels, weights)
    for person in range(10):
        kept = (labels == person) & (weights > 0)
        np.testing.assert_allclose(sums[person], embeddings[kept].sum(0), rtol=1e-5)
        assert counts[person] == kept.sum()
    assert membership(labels, weights).shape == (10, len(labels))


def test_alike_embeddings_and_few_pictures_do_not_crash() -> None:
    labels = np.array([0, 1, 2])
    for rows in (np.ones((3, 4)), np.eye(4)[:3]):
        model = fit(rows, labels, np.ones(3))
        assert np.isfinite(model.axes).all()
        assert np.isfinite(model.coordinates(rows)).all()


def test_few_pictures_are_seen_in_their_principal_components() -> None:
    embeddings, labels = draw_wide(10, 12, dimensions=64)
    weights = np.ones(120)
    weights[:20] = 0.0
    model = fit(embeddings, labels, weights)
    assert model.axes.shape == (64, 20)  # a fifth of the pictures that count
    rows = normalised(embeddings)
    components = PCA(20).fit(rows).components_
    outside = model.axes - components.T @ (components @ model.axes)
    np.testing.assert_allclose(outside, 0, atol=1e-6 * np.abs(model.axes).max())
    assert fit(embeddings[:, :16], labels, np.ones(120)).axes.shape == (16, 16)


@pytest.mark.parametrize("dimensions", [16, 64])
def test_what_a_model_does_not_see_is_as_of_weight_nought(dimensions: int) -> None:
    embeddings, labels = draw_wide(12, 12, dimensions=dimensions)
    weights = np.random.default_rng(0).random(144)
    parts = [np.arange(5, 60, 2), np.flatnonzero(labels > 9), np.arange(144)]
    models = fit_without(centred(embeddings), labels, weights, parts)
    for part, model in zip(parts, models, strict=True):
        seen = weights.copy()
        seen[part] = 0
        wanted = fit(embeddings, labels, seen)
        np.testing.assert_allclose(model.ratio, wanted.ratio, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(np.abs(wanted.axes), np.abs(model.axes), rtol=1e-3, atol=1e-3)


def test_covariances_are_shrunk_as_scikit_learn_shrinks_them() -> None:
    rows = np.random.default_rng(0).normal(size=(40, 6)) * np.arange(1, 7)
    wanted, amount = ledoit_wolf(rows, assume_centered=True)
    assert amount == pytest.approx(ledoit_wolf_shrinkage(rows, assume_centered=True))
    assert 0.01 < amount < 0.9
    found = _shrunk(rows.T @ rows, (rows**2).sum(1), 40, None)
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_halves_of_folders() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(5), [9, 6, 1, 3, 1]))
    points = np.random.default_rng(1).normal(size=(20, 3))
    weights = np.random.default_rng(2).random(20)
    one, other, n, m = means_of_halves(points, labels, np.ones(20))
    assert n.tolist() == [5, 3, 1, 2, 1]
    assert m.tolist() == [4, 3, 0, 1, 0]
    sums, counts = sums_by_label(points, labels, np.ones(20))
    np.testing.assert_allclose(n[:, None] * one + m[:, None] * other, sums)
    np.testing.assert_array_equal(n + m, counts)
    np.testing.assert_array_equal(other[4], 0)
    _, _, n, m = means_of_halves(points, labels, weights)
    np.testing.assert_allclose(n + m, np.bincount(labels, weights))
    same, few, n, m = means_of_halves(points, labels, np.ones(20), most=2)
    np.testing.assert_array_equal(same, one)
    assert n.tolist() == [5, 3, 1, 2, 1]
    assert m.tolist() == [2, 2, 0, 1, 0]
    assert not np.allclose(few[0], other[0])
    np.testing.assert_array_equal(few[3], other[3])


@pytest.mark.filterwarnings("error")
def test_halves_without_pictures_are_silent() -> None:
    embeddings, labels = draw(6, 5)
    labels[-5:] = [5, 6, 7, 8, 8]  # folders of one picture have one half only
    for weights in (np.ones(30), np.where(labels == 0, 0.0, 1.0), np.zeros(30)):
        model = fit_to_halves(embeddings, labels, weights)
        assert np.isfinite(model.axes).all()
        assert np.isfinite(model.ratio).all()


def test_halves_make_up_for_directions_chosen_to_fit_these_people() -> None:
    embeddings, labels = draw_wide(100, 20)
    given = labels.copy()
    given[np.flatnonzero(labels < 4)[::2]] += 100  # four people have two folders
    evidence = {}
    for fitted in (fit, fit_to_halves):
        model = fitted(embeddings, given, np.ones(2000))
        means, counts = means_by_label(model.coordinates(embeddings), given, np.ones(2000))
        evidence[fitted] = model.log_ratio(means, counts, means, counts, 30)
    same = np.zeros((104, 104), bool)
    same[np.arange(4), 100 + np.arange(4)] = True
    others = np.triu(~same, 1)
    assert (evidence[fit][same] < 0).all()  # what is mended
    assert (evidence[fit_to_halves][same] > np.log(104)).all()
    assert (evidence[fit_to_halves][others] < -np.log(104)).all()
