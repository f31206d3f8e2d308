"""Counts of pairs by score: equal to a loop over all pairs, for all pairs, a target, a list."""

import numpy as np
import pytest

from siamese.errors import UserError
from siamese.verification.counts import PairCounts, count_pairs, count_target, counts_of
from tests.verification.test_scores import float64_cosines, people


def expand(counts: PairCounts) -> tuple[np.ndarray, np.ndarray]:
    """Every genuine and every impostor score, ascending."""
    return np.repeat(counts.score, counts.genuine), np.repeat(counts.score, counts.impostor)


def split(embeddings: np.ndarray, genuine: np.ndarray, impostor: np.ndarray):
    cosines = float64_cosines(embeddings)
    upper = np.triu(np.ones_like(genuine), 1)
    return np.sort(cosines[genuine & upper]), np.sort(cosines[impostor & upper])


def test_all_pairs_are_counted() -> None:
    embeddings, labels = people(900, 40)
    counts = count_pairs(embeddings, labels)
    same = labels[:, None] == labels
    for found, wanted in zip(expand(counts), split(embeddings, same, ~same), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert (np.diff(counts.score) > 0).all()
    assert (counts.genuine + counts.impostor > 0).all()
    assert (counts.identities, counts.images, counts.identity_pairs) == (40, 900, 780)
    assert counts.genuine_pairs + counts.impostor_pairs == 900 * 899 // 2
    assert counts.genuine_at_least[-1] == counts.impostor_at_least[-1] == 0
    at = len(counts.score) // 3
    assert counts.impostor_at_least[at] == (expand(counts)[1] >= counts.score[at]).sum()


def test_true_duplicates_are_genuine_pairs_and_no_image_meets_itself() -> None:
    one = np.array([[1.0, 2.0], [1.0, 2.0], [2.0, -1.0]], np.float32)
    genuine, impostor = expand(count_pairs(one, [0, 0, 1]))
    np.testing.assert_array_equal(genuine, [1.0])
    np.testing.assert_array_equal(impostor, [0.0, 0.0])


@pytest.mark.parametrize("target", [3, 0])
def test_target_pairs_only_its_own_images(target: int) -> None:
    embeddings, labels = people(700, 3 + target)
    counts = count_target(embeddings, labels, target)
    own = labels == target
    genuine, impostor = own[:, None] & own, own[:, None] != own
    for found, wanted in zip(expand(counts), split(embeddings, genuine, impostor), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert (counts.images, counts.identity_pairs) == (700, 2 + target)


def test_one_identity_against_another_is_all_pairs() -> None:
    embeddings, labels = people(60, 2)
    labels[labels == 1] = np.arange(2, 2 + (labels == 1).sum())  # strangers with one image each
    target, everybody = count_target(embeddings, labels, 0), count_pairs(embeddings, labels)
    np.testing.assert_array_equal(expand(target)[0], expand(everybody)[0])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1, 1, 2], "no image"),
        ([0, 1, 1], "has one image only"),
        ([0, 0, 0], "all images are of the target"),
    ],
)
def test_unusable_targets_are_refused(labels: list[int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        count_target(np.eye(3), labels, 0)


def test_listed_pairs_are_counted_by_their_scores() -> None:
    counts = counts_of(
        [0.5, 0.1, 0.5, -1], [True, False, False, False], identities=4, images=6, identity_pairs=3
    )
    np.testing.assert_array_equal(counts.score, [-1, 0.1, 0.5])
    np.testing.assert_array_equal(counts.genuine, [0, 0, 1])
    np.testing.assert_array_equal(counts.impostor, [1, 1, 1])
    assert (counts.identities, counts.images, counts.identity_pairs) == (4, 6, 3)


@pytest.mark.parametrize(("truth", "kind"), [([True, True], "impostor"), ([False], "genuine")])
def test_lists_of_one_kind_are_refused(truth: list[bool], kind: str) -> None:
    with pytest.raises(UserError, match=f"no {kind} pair among the {len(truth)}"):
        counts_of([0.0] * len(truth), truth, identities=2, images=2, identity_pairs=1)
