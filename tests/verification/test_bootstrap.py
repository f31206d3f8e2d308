"""Intervals: a resample is a weighted sample, and intervals cover the truth."""

import math

import numpy as np
import pytest
from scipy.stats import beta, t

from siamese.verification.bootstrap import (
    BUNDLES,
    Bootstrap,
    count_and_resample,
    draw_weights,
    effective_people,
    logit_interval,
    quantile_interval,
    resample_listed,
    share_interval,
)
from siamese.verification.counts import PairCounts, count_pairs, counts_of
from siamese.verification.metrics import error_rates, summarise
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
    itself = Bootstrap(counts, bootstrap.edges, ones[0][None], ones[1][None], 40, 40.0, 40.0)
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


def test_no_interval_of_two_people_or_of_embeddings_that_are_all_equal() -> None:
    embeddings, labels = people(20, 2)
    bootstrap = count_and_resample(embeddings, labels, resamples=100)[1]
    assert set(bootstrap.intervals().values()) == {None}
    bootstrap = count_and_resample(np.ones((24, 4)), np.repeat(np.arange(8), 3), resamples=100)[1]
    assert bootstrap.intervals()["auc"] is None
    assert bootstrap.intervals()["eer"] is None


def test_without_any_error_people_are_the_trials_of_the_rule_of_three() -> None:
    labels = np.repeat(np.arange(30), 3)
    bootstrap = count_and_resample(np.eye(30)[labels], labels, resamples=100)[1]
    found = bootstrap.intervals()
    bound = beta.ppf(0.95, 1, 30)  # Clopper-Pearson, one-sided, 0 of 30
    assert found["auc"] == pytest.approx((1 - bound, 1))
    assert found["tar_at_far_1e-3"] == pytest.approx((1 - bound, 1))
    assert found["eer"] == pytest.approx((0, bound))
    assert bound == pytest.approx(3 / 30, rel=0.06)


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
    assert bootstrap.genuine_effective == pytest.approx(4)
    own = summarise(bootstrap.counts)["auc"]
    assert bootstrap.intervals()["auc"] == share_interval(own, bootstrap.auc(), 4)


def test_people_with_many_pictures_count_for_more() -> None:
    assert effective_people([3, 3, 3, 3, 0]) == pytest.approx(4)
    assert effective_people([100, 1, 1, 1]) == 2  # the least that has a deviation
    assert effective_people([5, 5]) == 0
    labels = np.repeat(np.arange(5), [4, 3, 4, 5, 6])
    vectors = np.random.default_rng(0).normal(size=(22, 6))
    bootstrap = count_and_resample(vectors, labels, resamples=50)[1]
    assert bootstrap.genuine_effective == pytest.approx(40**2 / (36 + 9 + 36 + 100 + 225))
    assert bootstrap.impostor_effective == pytest.approx(22**2 / (16 + 9 + 16 + 25 + 36))


def naive_logit_interval(share: float, values: list[float], people: float) -> tuple[float, float]:
    """One resample at a time."""
    least = min(share, 1 - share) / (2 * people)
    logits = []
    for value in values:
        if not math.isnan(value):
            p = min(max(value, least), 1 - least)
            logits.append(math.log(p) - math.log(1 - p))
    mean = math.fsum(logits) / len(logits)
    deviation = math.sqrt(math.fsum((x - mean) ** 2 for x in logits) / len(logits))
    half = t.ppf(0.975, people - 1) * deviation * math.sqrt(people / (people - 1))
    centre = math.log(share / (1 - share))
    return 1 / (1 + math.exp(half - centre)), 1 / (1 + math.exp(-half - centre))


@pytest.mark.parametrize(("share", "people"), [(0.97, 10), (0.82, 23.5), (0.004, 30), (0.5, 3)])
def test_intervals_of_shares_are_students_on_the_logit(share: float, people: float) -> None:
    rng = np.random.default_rng(0)
    values = np.clip(rng.normal(share, 0.05, 500), 0, 1)  # some of them exactly 0 or 1
    values[:10] = np.nan
    found = share_interval(share, values, people)
    assert found == pytest.approx(naive_logit_interval(share, values.tolist(), people), rel=1e-9)
    assert 0 < found[0] < share < found[1] < 1


def test_errors_are_the_mirror_of_successes() -> None:
    values = np.random.default_rng(1).beta(30, 2, 400)
    low, high = share_interval(0.94, values, 20)
    assert share_interval(0.06, 1 - values, 20) == pytest.approx((1 - high, 1 - low))
    assert share_interval(0.94, np.full(100, 0.94), 20) is None
    assert share_interval(0.94, np.full(100, np.nan), 20) is None
    assert logit_interval(1.0, 0.1, 9) is None


def test_the_accuracy_of_resamples_is_that_of_weighted_pairs() -> None:
    rng = np.random.default_rng(4)
    scores, same = np.round(rng.uniform(-1, 1, 60), 2), rng.random(60) < 0.5
    one = rng.integers(0, 9, 60)
    other = np.where(same, one, (one + 1 + rng.integers(0, 8, 60)) % 9)
    counts = counts_of(scores, same, identities=9, images=60, identity_pairs=30)
    bootstrap = resample_listed(counts, scores, same, (one, other), resamples=20)
    for w, found in zip(draw_weights(9, 20, 0), bootstrap.accuracy_at(0.1), strict=True):
        right = total = 0.0
        for score, genuine, a, b in zip(scores, same, one, other, strict=True):
            weight = w[a] if genuine else w[a] * w[b]
            total += weight
            right += weight * ((score >= 0.1) == genuine)
        assert found == pytest.approx(right / total, abs=0.03)  # one threshold inside a bin


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
    wide, plain = quantile_interval(values, 5), np.quantile(values, [0.025, 0.975])
    assert wide is not None
    # t with 4 degrees of freedom: 2.776, times sqrt(5 / 4).
    assert wide[1] == pytest.approx(2.776 * np.sqrt(5 / 4), rel=0.1)
    assert quantile_interval(values, 100_000) == pytest.approx(plain, abs=0.02)
    assert quantile_interval(np.full(100, np.nan), 10) is None


@pytest.mark.parametrize(("persons", "noise"), [(10, 0.5), (30, 0.8)])
def test_intervals_cover_the_truth(persons: int, noise: float) -> None:
    """60 samples of a known population; scripts/bench_intervals.py does 300 and more figures.

    With 10 people and an AUC of 0.97 the resamples' own quantiles cover it in 86 %.
    """
    rng = np.random.default_rng(persons)

    def draw(size: int, images: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.repeat(np.arange(size), images)
        spread = noise * np.exp(rng.normal(0, 0.35, size))  # some people are harder
        vectors = rng.normal(size=(len(labels), 12)) * spread[labels, None]
        return (rng.normal(size=(size, 12))[labels] + vectors).astype(np.float32), labels

    truth = summarise(count_pairs(*draw(2000, 4)))
    covered = {"auc": 0, "eer": 0, "tar_at_far_1e-2": 0}
    repetitions = 60
    for seed in range(repetitions):
        bootstrap = count_and_resample(*draw(persons, 6), resamples=150, seed=seed)[1]
        limits = bootstrap.intervals()
        for name in covered:
            found = limits[name]
            covered[name] += found is not None and found[0] <= truth[name] <= found[1]
    for name, count in covered.items():
        # 93 to 99 %, and the 2 standard errors that 60 repetitions leave.
        assert count / repetitions >= 0.93 - 0.06, (name, count)
