"""One person under two names, here and across folders, and two people under one name."""

import numpy as np
import pytest
from sklearn.cluster import KMeans

from siamese.auditing.mixed import _cut, find_mixed, probability
from siamese.auditing.same_person import find_same_people, same_people, same_people_across
from tests.auditing.people import draw, draw_wide


def test_cut_folders_are_found_and_no_others() -> None:
    embeddings, labels = draw(40, 20)
    given = labels.copy()
    for number, person in enumerate((3, 17, 38)):
        given[np.flatnonzero(labels == person)[:10]] = 40 + number
    found = find_same_people(embeddings, given)
    assert {(a, b) for a, b, _, _ in found} == {(3, 40), (17, 41), (38, 42)}
    rows = embeddings.astype(float) / np.linalg.norm(embeddings, axis=1, keepdims=True)
    for a, b, certain, cosine in found:
        assert 0.5 <= certain <= 1
        assert cosine == pytest.approx((rows[given == a] @ rows[given == b].T).mean())


def test_few_pictures_of_many_dimensions() -> None:
    embeddings, labels = draw_wide(60, 20)
    given = labels.copy()
    for number, person in enumerate((3, 17, 38)):
        given[np.flatnonzero(labels == person)[:10]] = 60 + number
    found = find_same_people(embeddings, given)
    assert {(a, b) for a, b, _, _ in found} == {(3, 60), (17, 61), (38, 62)}
    given = labels.copy()
    given[np.flatnonzero(labels == 58)[:10]] = 0
    given[np.flatnonzero(labels == 59)[:10]] = 1
    kept = given < 58
    found = find_mixed(embeddings[kept], given[kept])
    assert np.flatnonzero(found.probability >= 0.5).tolist() == [0, 1]


def test_nobody_is_paired_in_a_clean_folder() -> None:
    embeddings, labels = draw(300, 8, seed=1)  # more than one block of rows
    assert find_same_people(embeddings, labels) == []


def test_pairs_beyond_the_first_block_of_rows() -> None:
    embeddings, labels = draw(300, 16, seed=2)
    given = labels.copy()
    given[np.flatnonzero(labels == 290)[:8]] = 300
    assert [(a, b) for a, b, _, _ in find_same_people(embeddings, given)] == [(290, 300)]


def test_people_in_two_folders() -> None:
    embeddings, labels = draw(30, 20, seed=3)
    second = np.arange(len(labels)) % 20 < 10
    here = second & (labels < 20)
    there = ~second & (labels >= 15)
    found = same_people_across(
        embeddings[here],
        embeddings[there],
        (labels[here], labels[there] - 15),
        np.ones(int(here.sum())),
    )
    pairs = set(zip(found.first.tolist(), found.second.tolist(), strict=True))
    assert pairs == {(person, person - 15) for person in range(15, 20)}


@pytest.mark.parametrize(("images", "least"), [(2, 2), (3, 8), (10, 10)])
def test_a_few_pictures_of_a_person_of_many(images: int, least: int) -> None:
    embeddings, labels = draw_wide(80, 40, dimensions=64, seed=5)
    number = np.arange(len(labels)) % 40
    here = (labels < 50) & (number >= 10)
    there = (labels >= 40) & (number < images)
    sides = labels[here], labels[there] - 40
    weights = np.ones(int(here.sum()))
    found = same_people_across(embeddings[here], embeddings[there], sides, weights)
    pairs = set(zip(found.first.tolist(), found.second.tolist(), strict=True))
    shared = {(person, person - 40) for person in range(40, 50)}
    assert pairs <= shared
    assert len(pairs) >= least


def test_mixed_folders_are_found_and_cut_rightly() -> None:
    embeddings, labels = draw(40, 20, seed=4)
    given = labels.copy()
    given[np.flatnonzero(labels == 39)] = 0
    given[np.flatnonzero(labels == 38)[:10]] = 1
    kept = given < 38
    found = find_mixed(embeddings[kept], given[kept])
    assert np.flatnonzero(found.probability >= 0.5).tolist() == [0, 1]
    cut = found.smaller[given[kept] == 1]
    other = labels[kept][given[kept] == 1] == 38
    assert (cut == other).mean() > 0.95


@pytest.mark.parametrize("pictures", [6, 17, 60])
def test_folders_are_cut_as_scikit_learn_does(pictures: int) -> None:
    embeddings, _ = draw_wide(20, pictures, dimensions=64)
    for at in range(0, 19 * pictures, pictures // 2):  # of one person, or half of two
        points = embeddings[at : at + pictures].astype(float)
        parts = KMeans(2, n_init=5, random_state=0).fit_predict(points)
        np.testing.assert_array_equal(_cut(points), parts == int(parts.mean() < 0.5))


def test_small_folders_are_never_called_mixed() -> None:
    embeddings, labels = draw(10, 5, seed=5)
    assert not find_mixed(embeddings, labels).probability.any()


def test_probability_rises_with_evidence_and_ignores_hidden_cases() -> None:
    rng = np.random.default_rng(0)
    found = rng.normal(10, 1, 200)
    absent = np.concatenate([rng.normal(0, 1, 190), rng.normal(10, 1, 10)])  # ten are so after all
    values = np.linspace(-3, 14, 50)
    told = probability(values, found, absent, 0.05)
    assert (np.diff(told) >= 0).all()
    assert told[values < 3].max() < 0.05
    assert told[values > 8].min() > 0.9


def test_folders_of_which_nothing_is_believed_are_nobody() -> None:
    embeddings, labels = draw(6, 5)
    assert not len(same_people(embeddings, labels, np.zeros(len(labels))).first)
