"""Neighbours and smooth counts of near pictures, against loops over all pairs in float64."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from siamese.auditing import likeness
from siamese.auditing.likeness import Likeness, Pairs, find_neighbours
from siamese.auditing.two_covariance import Labels, Rows
from tests.auditing.people import draw


def _cosines(points: Rows) -> np.ndarray:
    rows = points.astype(float) / np.linalg.norm(points.astype(float), axis=1, keepdims=True)
    return np.asarray(rows @ rows.T)


@pytest.fixture
def drawn() -> tuple[Rows, Labels]:
    points, labels = draw(12, 25, seed=3)
    order = np.random.default_rng(0).permutation(300)
    return points[order], labels[order]


def test_neighbours_are_as_near_as_the_first_few_of_the_sample(
    drawn: tuple[Rows, Labels], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(likeness, "_NEIGHBOURS", 20)
    monkeypatch.setattr(likeness, "_BLOCK", 64)  # several, the last one shorter
    points, sample = drawn[0], np.random.default_rng(1).permutation(300)[:60]
    found = find_neighbours(points, sample).toarray()
    cosines = _cosines(points)
    for at in range(300):
        least = np.sort(cosines[at, sample])[-1 - 4]  # 20 of 300 are 4 of 60, and one for itself
        sure = np.abs(cosines[at] - least) > 1e-6
        np.testing.assert_array_equal(found[at, sure], cosines[at, sure] > least)
    assert 15 < found.sum(1).mean() < 30
    assert not find_neighbours(points, np.arange(300)).nnz


def test_with_all_in_the_sample_every_pair_counts(drawn: tuple[Rows, Labels]) -> None:
    points, labels = drawn
    weights = np.random.default_rng(2).random(300)
    pairs = Pairs(csr_array((300, 300), dtype=bool), labels, np.arange(300))
    found = Likeness(points, labels, weights, pairs)(np.arange(7, 300, 3))
    kernel = np.exp(np.sqrt(32) * (_cosines(points) - 1)) * weights
    np.fill_diagonal(kernel, 0)
    for person in range(12):
        wanted = kernel[7::3, labels == person].sum(1)
        np.testing.assert_allclose(found[:, person], wanted, rtol=1e-4)


def test_far_pictures_count_as_those_of_the_sample(
    drawn: tuple[Rows, Labels], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(likeness, "_NEIGHBOURS", 20)
    points, labels = drawn
    rng = np.random.default_rng(4)
    weights, sample = rng.random(300), rng.permutation(300)[:60]
    neighbours = find_neighbours(points, sample)
    found = Likeness(points, labels, weights, Pairs(neighbours, labels, sample))(np.arange(300))
    kernel = np.exp(np.sqrt(32) * (_cosines(points) - 1))
    np.fill_diagonal(kernel, 0)
    wanted = np.zeros((300, 12))
    inside = np.isin(np.arange(300), sample)
    for at in range(300):
        # All of its folder are held against it: they are fewer than 200.
        near = neighbours.toarray()[at] | (labels == labels[at])
        weighed = weights * kernel[at]
        far = weighed[inside & ~near].sum() / weights[inside & ~near].sum()
        for person in range(12):
            own = labels == person
            known, unknown = own & inside & ~near, own & ~inside & ~near
            rate = (weighed[known].sum() + 10 * far) / (weights[known].sum() + 10)
            exact = weighed[own & (near | inside)].sum()
            wanted[at, person] = exact + weights[unknown].sum() * rate
    np.testing.assert_allclose(found, wanted, rtol=1e-3)
