"""Pair scores: every unordered pair once, float32, the same number everywhere."""

import numpy as np
import pytest

from siamese.errors import UserError
from siamese.verification.scores import normalise, pair_scores, score_blocks, target_scores


def _people(images: int, identities: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, identities, images)
    centres = rng.normal(size=(identities, 16))
    return (centres[labels] + rng.normal(size=(images, 16))).astype(np.float32), labels


def test_scores_are_cosines_of_every_unordered_pair() -> None:
    embeddings, labels = _people(70, 6)
    unit = embeddings.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    genuine, impostor = [], []
    for i in range(70):
        for j in range(i + 1, 70):
            (genuine if labels[i] == labels[j] else impostor).append(unit[i] @ unit[j])
    scores = pair_scores(embeddings, labels)
    np.testing.assert_allclose(scores.genuine, np.sort(genuine), atol=1e-6)
    np.testing.assert_allclose(scores.impostor, np.sort(impostor), atol=1e-6)
    assert scores.genuine.dtype == scores.impostor.dtype == np.float32
    assert (scores.identities, scores.images, scores.identity_pairs) == (6, 70, 15)


def test_several_blocks_cover_every_pair_once() -> None:
    embeddings, labels = _people(2300, 40)
    scores = pair_scores(embeddings, labels)
    counts = np.bincount(labels)
    assert len(scores.genuine) == (counts * (counts - 1) // 2).sum()
    assert len(scores.genuine) + len(scores.impostor) == 2300 * 2299 // 2
    full = (normalise(embeddings) @ normalise(embeddings).T).numpy()
    upper = np.triu_indices(2300, 1)
    same = labels[upper[0]] == labels[upper[1]]
    np.testing.assert_allclose(scores.impostor, np.sort(full[upper][~same]), atol=1e-6)


def test_true_duplicates_are_genuine_pairs_and_no_image_meets_itself() -> None:
    one = np.array([[1.0, 2.0], [1.0, 2.0], [2.0, -1.0]], np.float32)
    scores = pair_scores(one, [0, 0, 1])
    np.testing.assert_allclose(scores.genuine, [1.0], atol=1e-6)
    np.testing.assert_allclose(scores.impostor, [0.0, 0.0], atol=1e-6)


def test_target_pairs_only_its_own_images() -> None:
    embeddings, labels = _people(60, 5)
    scores = target_scores(embeddings, labels, 3)
    own = int((labels == 3).sum())
    assert len(scores.genuine) == own * (own - 1) // 2
    assert len(scores.impostor) == own * (60 - own)
    assert scores.identity_pairs == 4
    # A pair's score is the same number wherever it is computed.
    everybody = pair_scores(embeddings, labels)
    assert set(scores.genuine) <= set(everybody.genuine)
    assert set(scores.impostor) <= set(everybody.impostor)


def test_scores_do_not_depend_on_the_length_of_embeddings() -> None:
    embeddings, labels = _people(50, 5)
    stretched = embeddings * np.random.default_rng(1).uniform(0.1, 9, (50, 1)).astype(np.float32)
    np.testing.assert_allclose(
        pair_scores(stretched, labels).genuine, pair_scores(embeddings, labels).genuine, atol=1e-6
    )


def test_blocks_hold_scores_in_range() -> None:
    for _, block in score_blocks(normalise(np.ones((5, 7), np.float32))):
        assert block.max() <= 1.0


@pytest.mark.parametrize(
    ("embeddings", "labels", "message"),
    [
        (np.ones(3), [0, 0, 1], "shape"),
        (np.ones((3, 2)), [0, 0], "2 labels for 3 embeddings"),
        (np.ones((3, 2)), [0.0, 0.0, 1.0], "integers"),
        (np.array([[1, np.nan], [1, 1], [1, 2]]), [0, 0, 1], "1 of 3 embeddings hold NaN"),
        (np.ones((3, 2)), [0, 1, 2], "no genuine pair"),
        (np.ones((3, 2)), [0, 0, 0], "no impostor pair"),
        (np.array([["a"], ["b"]]), [0, 1], "numbers"),
    ],
)
def test_unusable_input_is_refused(embeddings: object, labels: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        pair_scores(embeddings, labels)


def test_a_targets_scores_are_bit_for_bit_those_of_all_pairs() -> None:
    # Two rows of 128 numbers: where a smaller product rounds otherwise than a block of all.
    embeddings = np.random.default_rng(0).normal(size=(50, 128)).astype(np.float32)
    labels = np.repeat(np.arange(25), 2)
    scores = target_scores(embeddings, labels, 3)
    everybody = pair_scores(embeddings, labels)
    assert set(scores.genuine.tolist()) <= set(everybody.genuine.tolist())
    assert set(scores.impostor.tolist()) <= set(everybody.impostor.tolist())
