"""The pair matrix: every unordered pair once, fp32 cosines on a grid of 2**-20."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from siamese.errors import UserError
from siamese.verification.bootstrap import count_and_resample
from siamese.verification.counts import count_pairs, count_target
from siamese.verification.identification import identify, retrieval
from siamese.verification.metrics import auc, error_rates, threshold_at_fmr, too_coarse
from siamese.verification.per_identity import examine
from siamese.verification.scores import (
    SCALE,
    PairMatrix,
    Tile,
    exact_unit,
    level_counts,
    level_scores,
    listed_scores,
    normalise,
    prepare,
    score_level,
    score_levels,
)


def people(images: int, identities: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, identities, images)
    centres = rng.normal(size=(identities, 16))
    return (centres[labels] + rng.normal(size=(images, 16))).astype(np.float32), labels


def float64_cosines(embeddings: np.ndarray) -> np.ndarray:
    unit = embeddings.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    return unit @ unit.T


class Collected:
    """Writes every tile into the full matrix of the caller's images: score and how often."""

    def __init__(self, pairs: PairMatrix):
        self.order = pairs.order
        size = pairs.images
        self.score = np.full((size, size), np.nan)
        self.genuine = np.zeros((size, size), int)
        self.impostor = np.zeros((size, size), int)

    def add(self, tile: Tile) -> None:
        height, width = tile.levels.shape
        rows = self.order[tile.first_row : tile.first_row + height]
        columns = self.order[tile.first_column : tile.first_column + width]
        at = np.ix_(rows, columns)
        if tile.genuine is not None:
            self.genuine[at] += tile.genuine.numpy()
        impostor = np.ones((height, width), bool) if tile.impostor is None else tile.impostor
        self.impostor[at] += np.asarray(impostor)
        counted = np.asarray(impostor) | (0 if tile.genuine is None else tile.genuine.numpy())
        self.score[at] = np.where(counted > 0, level_scores(tile.levels.numpy()), self.score[at])


@pytest.mark.parametrize(("images", "identities"), [(70, 6), (1500, 3), (1300, 700)])
def test_every_unordered_pair_comes_once_with_its_cosine(images: int, identities: int) -> None:
    embeddings, labels = people(images, identities)
    pairs = PairMatrix(embeddings, labels)
    collected = Collected(pairs)
    pairs.feed(collected)
    same = labels[:, None] == labels
    once = ~np.eye(images, dtype=bool)
    genuine = collected.genuine + collected.genuine.T
    impostor = collected.impostor + collected.impostor.T
    np.testing.assert_array_equal(genuine, same & once)
    np.testing.assert_array_equal(impostor, ~same)
    assert (collected.genuine.sum(), collected.impostor.sum()) == (
        pairs.genuine_pairs,
        pairs.impostor_pairs,
    )
    found = ~np.isnan(collected.score)
    cosines = float64_cosines(embeddings)
    # Half a level, and what fp32 loses in a sum of 16.
    np.testing.assert_allclose(collected.score[found], cosines[found], atol=0.5 / SCALE + 4e-7)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 60), st.integers(1, 8), st.booleans())
def test_any_sizes_and_groups(seed: int, images: int, identities: int, grouped: bool) -> None:
    embeddings, labels = people(images, identities, seed)
    labels = labels * 7 - 3  # labels need not be 0, 1, ...
    groups = np.where(labels % 2 == 0, 5, 1) if grouped else None
    same = labels[:, None] == labels
    if same.sum() == images or same.all():
        return
    pairs = PairMatrix(embeddings, labels, groups=groups)
    assert sorted(pairs.order) == list(range(images))
    assert (np.diff(pairs.identity) >= 0).all()
    if groups is not None:
        assert (np.diff(groups[pairs.order]) >= 0).all()
    collected = Collected(pairs)
    pairs.feed(collected)
    np.testing.assert_array_equal(collected.impostor + collected.impostor.T, ~same)
    np.testing.assert_array_equal(
        collected.genuine + collected.genuine.T, same & ~np.eye(images, dtype=bool)
    )


def test_far_tiles_hold_impostor_pairs_only_and_no_mask() -> None:
    embeddings, labels = people(1300, 700)
    tiles = [(t.impostor is None, t.levels.shape) for t in PairMatrix(embeddings, labels).tiles()]
    assert any(pure for pure, _ in tiles)
    assert max(columns for pure, (_, columns) in tiles if not pure) < 600


def test_levels_are_the_scores_on_the_grid() -> None:
    unit = normalise([[1, 1], [1, -1], [-3, -3], [1, 0]])
    levels = score_levels(unit, unit).numpy()
    expected = np.array([1, 0, -1, np.sqrt(0.5)])
    np.testing.assert_array_equal(levels[0], np.round((expected + 1) * SCALE))
    np.testing.assert_allclose(level_scores(levels[0]), expected, atol=0.5 / SCALE)


@pytest.mark.parametrize("dimensions", [3, 512, 4096])
def test_equal_vectors_score_exactly_one_in_every_block_shape(dimensions: int) -> None:
    one = np.random.default_rng(dimensions).normal(size=dimensions).astype(np.float32)
    unit = normalise(np.tile(one, (513, 1)))
    for rows, columns in ((1, 513), (2, 3), (513, 513)):
        levels = score_levels(unit[:rows], unit[:columns])
        assert (levels == 2 * SCALE).all()


def test_scores_do_not_depend_on_the_length_of_embeddings() -> None:
    embeddings, _ = people(50, 5)
    stretched = embeddings * np.random.default_rng(1).uniform(1e-3, 1e3, (50, 1))
    np.testing.assert_allclose(normalise(stretched), normalise(embeddings), atol=2e-7)
    np.testing.assert_allclose(np.linalg.norm(normalise(embeddings), axis=1), 1, atol=2e-7)


def test_the_precision_of_products_is_forced_and_put_back() -> None:
    unit = normalise(np.random.default_rng(0).normal(size=(64, 512)))
    expected = score_levels(unit, unit)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(score_levels(unit, unit), expected)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("size", [10, 100_000])
def test_levels_are_counted_like_numpy(size: int) -> None:
    levels = np.random.default_rng(0).integers(0, 50, size).astype(np.int32)
    counted = level_counts(torch.from_numpy(levels), 60)
    np.testing.assert_array_equal(counted, np.bincount(levels, minlength=60))


@settings(max_examples=200, deadline=None)
@given(st.floats(-1, 1))
def test_a_threshold_s_level_is_the_lowest_that_reaches_it(threshold: float) -> None:
    level = score_level(threshold)
    assert level_scores(level) >= threshold - 1e-15
    assert level == 0 or level_scores(level - 1) < threshold


@pytest.mark.parametrize(
    ("embeddings", "labels", "message"),
    [
        (np.ones(3), [0, 0, 1], "shape"),
        (np.ones((3, 0)), [0, 0, 1], "shape"),
        (np.ones((0, 3)), [], "integers|no genuine pair"),
        (np.ones((3, 2)), [0, 0], "2 labels for 3 embeddings"),
        (np.ones((3, 2)), [0.0, 0.0, 1.0], "integers"),
        (np.array([[1, np.nan], [1, 1], [1, 2]]), [0, 0, 1], "1 of 3 embeddings hold NaN"),
        (np.array([[1, np.inf], [1, 1], [np.nan, 2]]), [0, 0, 1], "2 of 3 embeddings hold NaN"),
        (np.array([[1, 2], [0, 0], [1, 1]]), [0, 0, 1], "1 of 3 .* zeros .*position 1"),
        (np.ones((3, 2)), [0, 1, 2], "no genuine pair"),
        (np.ones((3, 2)), [0, 0, 0], "no impostor pair"),
        (np.array([["a"], ["b"]]), [0, 1], "numbers"),
        (np.ones((2, 2), bool), [0, 1], "numbers"),
        (np.ones((2, 2), complex), [0, 1], "numbers"),
    ],
)
def test_unusable_input_is_refused(embeddings: object, labels: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        PairMatrix(embeddings, labels)


def nearly_equal(spread: float) -> tuple[np.ndarray, np.ndarray]:
    """40 people with 6 pictures whose embeddings all point the same way but for `spread`."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(40), 6)
    own = rng.normal(size=(40, 64))[labels] + 0.75 * rng.normal(size=(240, 64))
    return rng.normal(size=64) + spread * own, labels


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("spread", [1.0, 0.1, 1e-2, 1.4e-3, 3e-4])
def test_the_area_is_that_of_float64_however_near_the_scores_lie(spread: float, kind: type) -> None:
    """At 1.4e-3 scores lie within 5e-5 and deviate by some 1e-7: far below a millionth."""
    embeddings, labels = nearly_equal(spread)
    embeddings = embeddings.astype(kind)
    first, second = np.triu_indices(len(labels), 1)
    cosines = float64_cosines(embeddings)[first, second]
    truth = labels[first] == labels[second]
    expected = roc_auc_score(truth, cosines)
    assert expected > 0.9
    counts = count_pairs(embeddings, labels)
    # Single precision holds the embeddings themselves no better than to 6e-8.
    assert auc(counts) == pytest.approx(expected, abs=1e-5)
    scores = np.repeat(counts.score, counts.genuine + counts.impostor)
    blur = 1e-6 if prepare(embeddings).zoom == 0 else 2e-6 * np.ptp(cosines)
    np.testing.assert_allclose(scores, np.sort(cosines), rtol=0, atol=blur)
    found = count_and_resample(embeddings, labels, resamples=100)[1]
    assert np.std(found.auc()) < 0.03
    assert found.auc().mean() == pytest.approx(expected, abs=0.02)
    fmr = float(error_rates(counts, threshold_at_fmr(counts, 1e-2))[0])
    assert 0.009 < fmr <= 0.01
    prepared = prepare(embeddings)
    unit = exact_unit(embeddings) if prepared.zoom else prepared.unit
    listed = listed_scores(unit, first, second, prepared.zoom)
    assert roc_auc_score(truth, listed) == pytest.approx(expected, abs=1e-5)
    target = labels == 3
    pairs = target[first] | target[second]
    assert auc(count_target(embeddings, labels, 3)) == pytest.approx(
        roc_auc_score(truth[pairs], cosines[pairs]), abs=1e-4
    )


def test_ranks_and_people_are_told_apart_however_near_the_scores_lie() -> None:
    near, labels = nearly_equal(3e-4)
    # The same pictures, their differences seen from the mean: nearest neighbours hardly change.
    cosines = float64_cosines(near)
    np.fill_diagonal(cosines, -1)
    best = np.argsort(-cosines, axis=1)[:, :5]
    hits = labels[best] == labels[:, None]
    assert retrieval(near, labels).r_precision == pytest.approx(hits.mean(), abs=1e-3)
    found = identify(near, labels, draws=2)
    assert found.cmc[0] > 0.5
    assert found.non_mated.min() > 1 - 1e-5
    assert found.non_mated.max() <= 1
    counts = count_pairs(near, labels)
    worst = examine(near, labels, counts, threshold_at_fmr(counts, 1e-2), worst=3).worst_impostor
    same = labels[:, None] == labels
    assert worst.score[0] == pytest.approx(cosines[~same].max(), abs=1e-12)


def test_one_image_far_from_all_others_is_told() -> None:
    near, labels = nearly_equal(3e-4)
    assert not too_coarse(count_pairs(near, labels))
    near[0] = -near[0]  # the grid must hold its scores, too
    assert prepare(near).zoom == 0
    assert too_coarse(count_pairs(near, labels))
    assert not too_coarse(count_pairs(*nearly_equal(1.0)))
    assert not too_coarse(count_pairs(np.ones((200, 3)), np.arange(200) // 4))  # another note's


def test_embeddings_that_differ_by_rounding_only_are_equal() -> None:
    one = np.random.default_rng(0).normal(size=512)
    stretched = (one * np.random.default_rng(1).uniform(0.1, 9, (20, 1))).astype(np.float32)
    assert prepare(stretched).zoom == 0
    assert count_pairs(stretched, np.arange(20) // 2).score.tolist() == [1.0]
