"""Intervals: a resample is a weighted sample, and intervals cover the truth."""

import numpy as np
import pytest

from siamese.verification.bootstrap import (
    BUNDLES,
    Bootstrap,
    count_and_resample,
    draw_weights,
    interval,
    resample_listed,
)
from siamese.verification.counts import PairCounts, count_pairs, counts_of
from siamese.verification.figures import error_rates, summarise
from siamese.verification.scores import listed_scores, normalise
from tests.verification.test_scores import people


def weighted_figures(embeddings: np.ndarray, labels: np.ndarray, w: np.ndarray) -> dict[str, float]:
    """The figures of one resample, every pair weighted, without bins."""
    first, second = np.triu_indices(len(labels), 1)
    scores = listed_scores(normalise(embeddings), first, second)
    same = labels[first] == labels[second]
    weight = np.where(same, w[labels[first]], w[labels[first]] * w[labels[second]]).astype(int)
    values, where = np.unique(scores, return_inverse=True)
    genuine = np.bincount(where, weight * same, len(values)).astype(np.int64)
    impostor = np.bincount(where, weight * ~same, len(values)).astype(np.int64)
    return summarise(PairCounts(values, genuine, impostor, 9, 9, 36))


@pytest.fixture(scope="module")
def sample() -> tuple[np.ndarray, np.ndarray, PairCounts, Bootstrap]:
    embeddings, labels = people(900, 40)
    return embeddings, labels, *count_and_resample(embeddings, labels, resamples=100, seed=3)


def test_the_sample_is_counted_as_without_resamples(sample) -> None:
    embeddings, labels, counts, _ = sample
    plain = count_pairs(embeddings, labels)
    for field in ("score", "genuine", "impostor"):
        np.testing.assert_array_equal(getattr(counts, field), getattr(plain, field))
    assert (counts.identities, counts.images) == (40, 900)


def test_resamples_weigh_people_and_pairs_of_people(sample) -> None:
    _, labels, _, bootstrap = sample
    weights = draw_weights(40, 100, 3)
    assert (weights.sum(1) == 40).all()
    n = np.bincount(labels)
    np.testing.assert_array_equal(bootstrap.genuine.sum(1), weights @ (n * (n - 1) / 2))
    w = weights * n
    pairs = (w.sum(1) ** 2 - (w**2).sum(1)) / 2
    np.testing.assert_allclose(bootstrap.impostor.sum(1), pairs, rtol=1e-6)


def test_figures_of_resamples_are_those_of_weighted_pairs(sample) -> None:
    embeddings, labels, _, bootstrap = sample
    some = slice(0, 100, 5)
    exact = [weighted_figures(embeddings, labels, w) for w in draw_weights(40, 100, 3)[some]]
    for name, values in bootstrap.figures().items():
        error = values[some] - np.array([figures[name] for figures in exact])
        # What the bins blur, against the spread that the interval shows. At FAR 1e-3 the few
        # hundred impostor pairs of this sample lie in few bins.
        blur = {"auc": 0.01, "ap": 0.02}.get(name, 0.3 if "1e-3" in name else 0.1)
        assert np.sqrt(np.mean(error**2)) < blur * values.std(), name


def test_the_sample_itself_is_met_exactly(sample) -> None:
    counts, bootstrap = sample[2:]
    ones = [
        np.bincount(np.searchsorted(bootstrap.edges, counts.score, "right"), pairs, 200)[
            : len(bootstrap.edges) + 1
        ]
        for pairs in (counts.genuine, counts.impostor)
    ]
    itself = Bootstrap(
        counts, bootstrap.edges, ones[0][None], ones[1][None], bootstrap.genuine_people
    )
    for name, values in itself.figures().items():
        tolerance = 5e-4 if name.startswith("threshold") else 1e-12
        assert values[0] == pytest.approx(summarise(counts)[name], abs=tolerance), name
    fmr, fnmr = itself.rates_at(0.3)
    assert (fmr[0], fnmr[0]) == pytest.approx(tuple(map(float, error_rates(counts, 0.3))))


def test_equal_labels_and_seed_give_equal_resamples() -> None:
    embeddings, labels = people(300, 20)
    first = count_and_resample(embeddings, labels, resamples=100)[1].intervals()
    assert count_and_resample(embeddings, labels, resamples=100)[1].intervals() == first
    assert count_and_resample(embeddings, labels, resamples=100, seed=1)[1].intervals() != first


def test_order_and_numbering_of_people_do_not_matter_to_totals() -> None:
    embeddings, labels = people(300, 20)
    order = np.random.default_rng(1).permutation(300)
    a = count_and_resample(embeddings, labels, resamples=100)[1]
    b = count_and_resample(embeddings[order], labels[order] * 5 + 2, resamples=100)[1]
    np.testing.assert_allclose(a.auc(), b.auc(), atol=1e-6)


def test_thousands_of_people_are_drawn_in_bundles() -> None:
    embeddings, labels = people(3 * 1500, 1500)
    labels = np.repeat(np.arange(1500), 3)
    embeddings += 2 * np.random.default_rng(2).normal(size=(1500, 16))[labels].astype(np.float32)
    counts, bootstrap = count_and_resample(embeddings, labels, resamples=200)
    np.testing.assert_array_equal(counts.impostor, count_pairs(embeddings, labels).impostor)
    # 2 or 3 people of 3 genuine pairs each in a bundle.
    per_person = bootstrap.genuine.sum(1)
    assert per_person.mean() == pytest.approx(4500, rel=0.01)
    assert per_person.std() == pytest.approx(0, abs=4500 / np.sqrt(BUNDLES))
    # As wide as resampling every person: a seventh of the people gives 2.65 times the width.
    few = labels < 214
    other = count_and_resample(embeddings[few], labels[few], resamples=200)[1]
    assert bootstrap.auc().std() * np.sqrt(7) == pytest.approx(other.auc().std(), rel=0.4)


def test_listed_pairs_are_resampled_by_their_people() -> None:
    scores = np.array([0.9, 0.8, 0.3, 0.2, 0.4])
    same = np.array([True, True, False, False, False])
    first, second = np.array([0, 1, 0, 1, 2]), np.array([0, 1, 1, 2, 0])
    counts = counts_of(scores, same, identities=3, images=6, identity_pairs=3)
    bootstrap = resample_listed(counts, scores, same, (first, second), resamples=100)
    w = draw_weights(3, 100, 0)
    np.testing.assert_allclose(bootstrap.genuine.sum(1), w[:, 0] + w[:, 1])
    expected = w[:, 0] * w[:, 1] + w[:, 1] * w[:, 2] + w[:, 2] * w[:, 0]
    np.testing.assert_allclose(bootstrap.impostor.sum(1), expected)
    exists = (bootstrap.genuine.sum(1) > 0) & (expected > 0)
    assert (bootstrap.auc()[exists] == 1).all()
    assert np.isnan(bootstrap.auc()[~exists]).all()


def test_no_interval_of_two_people_or_of_what_never_varies() -> None:
    embeddings, labels = people(20, 2)
    bootstrap = count_and_resample(embeddings, labels, resamples=100)[1]
    assert set(bootstrap.intervals().values()) == {None}
    labels = np.repeat(np.arange(8), 3)
    # All alike, and without any error: no resample differs from the sample.
    for vectors in (np.ones((24, 4)), np.eye(8)[labels]):
        bootstrap = count_and_resample(vectors, labels, resamples=100)[1]
        found = bootstrap.auc()[np.isfinite(bootstrap.auc())]
        assert (found == found[0]).all()
        assert bootstrap.intervals()["auc"] is None
        assert bootstrap.intervals()["eer"] is None


def test_resamples_without_impostors_have_no_figure() -> None:
    embeddings, labels = people(12, 3)
    bootstrap = count_and_resample(embeddings, labels, resamples=200)[1]
    alone = bootstrap.impostor.sum(1) == 0
    assert alone.any()
    for name, values in bootstrap.figures().items():
        if not name.startswith("eer"):
            np.testing.assert_array_equal(np.isnan(values), alone, err_msg=name)


def test_intervals_rest_on_the_people_with_genuine_pairs() -> None:
    """Of 60 people four have more than one picture: as wide as four people's interval."""
    rng = np.random.default_rng(0)
    labels = np.r_[np.repeat(np.arange(4), 8), np.arange(4, 60)]
    vectors = rng.normal(size=(60, 8))[labels] + 0.7 * rng.normal(size=(len(labels), 8))
    bootstrap = count_and_resample(vectors, labels, resamples=500)[1]
    assert bootstrap.genuine_people == 4
    assert bootstrap.intervals()["auc"] == interval(bootstrap.auc(), 4)


def test_listed_pairs_in_chunks_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    scores, same = np.round(rng.uniform(-1, 1, 300), 3), rng.random(300) < 0.5
    persons = rng.integers(0, 20, 300), rng.integers(0, 20, 300)
    counts = counts_of(scores, same, identities=20, images=300, identity_pairs=100)
    whole = resample_listed(counts, scores, same, persons, resamples=100)
    monkeypatch.setattr("siamese.verification.bootstrap._CELLS", 700)
    parts = resample_listed(counts, scores, same, persons, resamples=100)
    np.testing.assert_array_equal(whole.genuine, parts.genuine)
    np.testing.assert_array_equal(whole.impostor, parts.impostor)


def test_intervals_widen_as_students_t_asks() -> None:
    values = np.random.default_rng(0).normal(size=20_000)
    wide, plain = interval(values, 5), np.quantile(values, [0.025, 0.975])
    assert wide is not None
    # t with 4 degrees of freedom: 2.776, times sqrt(5 / 4).
    assert wide[1] == pytest.approx(2.776 * np.sqrt(5 / 4), rel=0.1)
    assert interval(values, 100_000) == pytest.approx(plain, abs=0.02)
    assert interval(np.full(100, np.nan), 10) is None


@pytest.mark.parametrize("persons", [30, 100])
def test_intervals_cover_the_truth(persons: int) -> None:
    """100 samples of a known population; scripts/bench_intervals.py does 300 and more figures."""
    rng = np.random.default_rng(persons)

    def draw(size: int, images: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.repeat(np.arange(size), images)
        spread = 0.8 * np.exp(rng.normal(0, 0.35, size))  # some people are harder
        noise = rng.normal(size=(len(labels), 12)) * spread[labels, None]
        return (rng.normal(size=(size, 12))[labels] + noise).astype(np.float32), labels

    truth = summarise(count_pairs(*draw(3000, 4)))
    covered = {"auc": 0, "tar_at_far_1e-2": 0}
    repetitions = 100
    for seed in range(repetitions):
        bootstrap = count_and_resample(*draw(persons, 6), resamples=200, seed=seed)[1]
        limits = bootstrap.intervals()
        for name in covered:
            found = limits[name]
            covered[name] += found is not None and found[0] <= truth[name] <= found[1]
    for name, count in covered.items():
        # 90 to 98 %, and the 2 standard errors that 100 repetitions leave.
        assert 0.90 - 0.05 <= count / repetitions <= 0.98 + 0.02, (name, count)
