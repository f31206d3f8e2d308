"""1:N: equal to naive loops over every search, and to another library's retrieval figures."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN

from siamese.errors import UserError
from siamese.verification import identification
from siamese.verification.identification import Identification, _draw_gallery, identify, retrieval


def _people(
    counts: list[int], seed: int = 0, noise: float = 1.0, width: int = 16
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)) * 7 - 3, counts))
    centres = dict(zip(np.unique(labels), rng.normal(size=(len(counts), width)), strict=True))
    embeddings = np.array([centres[label] for label in labels])
    return (embeddings + noise * rng.normal(size=embeddings.shape)).astype(np.float32), labels


def _naive_searches(
    scores: np.ndarray, labels: list[int], gallery: list[int], fusion: str
) -> list[tuple[int, float, float]]:
    """Rank, own score and best other score of every probe."""
    people = sorted({labels[image] for image in gallery})
    searches = []
    for probe in range(len(labels)):
        if probe in gallery or labels[probe] not in people:
            continue
        by_person = {}
        for name in people:
            several = [float(scores[probe, image]) for image in gallery if labels[image] == name]
            by_person[name] = max(several) if fusion == "max" else sum(several) / len(several)
        own = by_person.pop(labels[probe])
        rank = 1
        for other in by_person.values():
            if other >= own:
                rank += 1
        searches.append((rank, own, max(by_person.values())))
    return searches


def _naive_rates(searches: list[tuple[int, float, float]], threshold: float) -> tuple[float, float]:
    false_alarms = missed = 0
    for rank, own, other in searches:
        false_alarms += other >= threshold
        missed += not (rank == 1 and own >= threshold)
    return false_alarms / len(searches), missed / len(searches)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.lists(st.integers(1, 5), min_size=2, max_size=7),
    st.sampled_from([1, 2, 3]),
    st.sampled_from(["max", "mean"]),
    st.integers(1, 3),
)
def test_searches_equal_naive_loops_with_ties(
    seed: int, counts: list[int], images: int, fusion: str, draws: int
) -> None:
    enough = [count for count in counts if count > images]
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    # +-1 vectors of 64 dimensions: every cosine is exact, and ties abound.
    embeddings = rng.choice([-1.0, 1.0], (len(labels), 64))
    embeddings[:, 6:] = 1
    if len(enough) < 2:
        with pytest.raises(UserError):
            identify(embeddings, labels, images_per_person=images)
        return
    result = identify(
        embeddings, labels, images_per_person=images, fusion=fusion, seed=seed, draws=draws
    )
    scores = embeddings @ embeddings.T / 64
    kept = [i for i, label in enumerate(labels) if counts[label] > images]
    people = np.unique(labels[kept], return_inverse=True)[1]
    searches = []
    for draw in range(draws):
        drawn = _draw_gallery(people, images, np.random.default_rng([seed, draw]))
        gallery = [kept[image] for image in drawn]
        searches += _naive_searches(scores, labels.tolist(), gallery, fusion)
    assert result.people == len(enough)
    assert result.people_left_out == len(counts) - len(enough)
    assert result.probes == sum(enough) - images * len(enough) == len(searches) / draws
    cmc = [
        sum(rank <= k for rank, _, _ in searches) / len(searches) for k in range(1, len(enough) + 1)
    ]
    np.testing.assert_allclose(result.cmc, cmc, atol=1e-12)

    # A mean of three is no float of its own: compare between the scores.
    shift = 1e-9
    both = [_naive_rates(searches, t - shift) for t in result.threshold]
    np.testing.assert_allclose(result.fpir, [fpir for fpir, _ in both], atol=1e-12)
    np.testing.assert_allclose(result.fnir, [fnir for _, fnir in both], atol=1e-12)
    tried = {own for _, own, _ in searches} | {other for _, _, other in searches}
    rates = [_naive_rates(searches, t + s) for t in tried for s in (-shift, shift)]
    for wanted in (0.0, 0.04, 0.1, 0.29, 0.5, 1.0):
        least = min(fnir for fpir, fnir in rates if fpir <= wanted)
        assert result.fnir_at(wanted) == pytest.approx(least, abs=1e-12)
        chosen = result.threshold_at(wanted)
        fpir, fnir = _naive_rates(searches, chosen if chosen > 1 else chosen - shift)
        assert fpir <= wanted
        assert fnir == pytest.approx(least, abs=1e-12)


def test_galleries_are_random_seeded_and_of_the_stated_size() -> None:
    person = np.array([2, 0, 1, 0, 2, 1, 0, 2, 2])
    seen = set()
    for draw in range(200):
        gallery = _draw_gallery(person, 2, np.random.default_rng([0, draw]))
        assert len(set(gallery.tolist())) == 6
        assert person[gallery].tolist() == [0, 1, 2, 0, 1, 2]
        seen |= {image for image in gallery.tolist() if person[image] == 2}
    assert seen == {0, 4, 7, 8}
    embeddings, labels = _people([6] * 10)
    once, again = (identify(embeddings, labels, seed=3) for _ in range(2))
    np.testing.assert_array_equal(once.mated, again.mated)
    assert not np.array_equal(once.mated, identify(embeddings, labels, seed=4).mated)
    one = identify(embeddings, labels, draws=1)
    assert len(one.mated) == len(one.non_mated) == one.probes == 50


def test_separated_people_are_found_and_strangers_are_not() -> None:
    embeddings, labels = _people([5, 4, 3, 2, 1, 9], noise=0.01)
    result = identify(embeddings, labels)
    assert result.cmc.tolist() == [1.0] * 5
    assert result.fnir_at(0) == 0
    assert (result.people, result.people_left_out, result.probes) == (5, 1, 18)


def test_a_collapsed_model_finds_nobody() -> None:
    result = identify(np.ones((12, 3)), np.repeat([0, 1, 2], 4))
    assert result.cmc.tolist() == [0, 0, 1]
    assert result.fnir_at(0) == result.fnir_at(1) == 1
    assert (result.mated == -np.inf).all()


def test_open_set_curve_is_thin_and_exact() -> None:
    embeddings, labels = _people([20] * 60, noise=2.0)
    result = identify(embeddings, labels)
    assert 300 < len(result.threshold) <= 1000
    assert (np.diff(result.threshold) > 0).all()
    for threshold, fpir, fnir in zip(result.threshold, result.fpir, result.fnir, strict=True):
        assert fpir == pytest.approx(np.mean(result.non_mated >= threshold), abs=1e-12)
        assert fnir == pytest.approx(np.mean(result.mated < threshold), abs=1e-12)
    assert (result.fpir[0], result.fpir[-1]) == (1, 0)
    assert result.fnir[-1] >= result.fnir_at(0)
    for wanted in (0.001, 0.01, 0.1):
        near = result.fnir[result.fpir <= wanted].min()
        assert 0 <= near - result.fnir_at(wanted) < 0.01


def test_rates_that_are_no_floats_are_met_exactly() -> None:
    # 0.29 * 100 is 28.999...: 29 false alarms of 100 are allowed all the same.
    scores = np.arange(100.0)
    none = np.zeros(0)
    result = Identification(2, 0, 1, "max", 1, 100, none, none, none, none, scores, scores)
    for share in range(101):
        assert result.fnir_at(share / 100) == (100 - share) / 100


def test_more_images_in_the_gallery_help() -> None:
    embeddings, labels = _people([12] * 30, noise=1.5)

    def rank_one(**settings: object) -> float:
        return float(identify(embeddings, labels, **settings).cmc[0])

    assert rank_one() < rank_one(images_per_person=4) < rank_one(images_per_person=4, fusion="mean")


@pytest.mark.parametrize("fusion", ["max", "mean"])
def test_blocks_of_probes_change_nothing(fusion: str, monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings, labels = _people([7, 9, 4, 5, 30, 2])

    def search() -> Identification:
        return identify(embeddings, labels, images_per_person=2, fusion=fusion, draws=2)

    whole, ranked = search(), retrieval(embeddings, labels)
    monkeypatch.setattr(identification, "_BLOCK", 100)
    blocks = search()
    np.testing.assert_array_equal(whole.cmc, blocks.cmc)
    np.testing.assert_allclose(whole.non_mated, blocks.non_mated, atol=2e-6)
    assert retrieval(embeddings, labels).map_at_r == pytest.approx(ranked.map_at_r, abs=1e-9)


@pytest.mark.parametrize(
    ("labels", "settings", "message"),
    [
        ([0, 0, 1, 1], {"images_per_person": 0}, "0 images per person"),
        ([0, 0, 1, 1], {"draws": 0}, "0 random galleries"),
        ([0, 0, 1, 1], {"fusion": "median"}, "must be max or mean"),
        ([0, 0, 1, 1], {"images_per_person": 2}, "nobody has more than 2 .* fewer images"),
        ([0, 1, 2, 3], {}, "nobody has more than 1"),
        ([0, 0, 1, 2], {}, "only one person has more than 1"),
        ([0, 0, 1], {}, "3 labels for 4 embeddings"),
    ],
)
def test_unusable_input_is_refused(labels: list[int], settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        identify(np.eye(4), labels, **settings)


def _metric_learning(embeddings: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    calculator = AccuracyCalculator(
        include=("mean_average_precision_at_r", "r_precision"),
        k="max_bin_count",
        device=torch.device("cpu"),
        knn_func=CustomKNN(CosineSimilarity()),
    )
    figures = calculator.get_accuracy(torch.from_numpy(embeddings), torch.from_numpy(labels))
    return figures["mean_average_precision_at_r"], figures["r_precision"]


@pytest.mark.parametrize("counts", [[5] * 8, [1, 1, 2, 3, 9, 40, 6], [30, 1, 2], [4]])
def test_retrieval_equals_pytorch_metric_learning(counts: list[int]) -> None:
    for seed in range(5):
        embeddings, labels = _people(counts, seed, noise=1.5)
        result = retrieval(embeddings, labels)
        map_at_r, r_precision = _metric_learning(embeddings, labels)
        assert result.map_at_r == pytest.approx(map_at_r, abs=1e-9)
        assert result.r_precision == pytest.approx(r_precision, abs=1e-9)
        assert result.queries == sum(count for count in counts if count > 1)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_retrieval_equals_naive_loops_with_ties(seed: int, counts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    embeddings = rng.choice([-1.0, 1.0], (len(labels), 64))
    embeddings[:, 5:] = 1
    if max(counts) < 2:
        with pytest.raises(UserError, match="nobody has two images"):
            retrieval(embeddings, labels)
        return
    averages, precisions = [], []
    for query, label in enumerate(labels):
        others = [
            (-float(embeddings[query] @ embeddings[image]), bool(labels[image] == label))
            for image in range(len(labels))
            if image != query
        ]
        r = counts[label] - 1
        if r == 0:
            continue
        found, gained = 0, 0.0
        for place, (_, own) in enumerate(sorted(others)[:r], start=1):  # others' first of equals
            if own:
                found += 1
                gained += found / place
        averages.append(gained / r)
        precisions.append(found / r)
    result = retrieval(embeddings, labels)
    assert result.map_at_r == pytest.approx(math.fsum(averages) / len(averages), abs=1e-12)
    assert result.r_precision == pytest.approx(math.fsum(precisions) / len(averages), abs=1e-12)
    assert result.queries == len(averages)
