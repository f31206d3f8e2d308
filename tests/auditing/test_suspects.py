"""Planted wrong pictures are found: in folders of every kind, and better than by plain distance."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score

from siamese.auditing import likeness, suspects
from siamese.auditing.suspects import find_suspects
from tests.auditing.people import draw, draw_wide


def _moved(labels: np.ndarray, share: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed + 99)
    people = int(labels.max()) + 1
    given = labels.copy()
    for at in rng.permutation(len(labels))[: round(share * len(labels))]:
        given[at] = rng.choice(np.setdiff1d(np.arange(people), labels[at]))
    return given


def _plain(embeddings: np.ndarray, labels: np.ndarray) -> np.ndarray:
    rows = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    means = np.stack([rows[labels == p].mean(0) for p in range(labels.max() + 1)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    return 1 - (rows * means[labels]).sum(1)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.4])
def test_wrong_pictures_are_ranked_first(share: float) -> None:
    embeddings, labels = draw(30, 20)
    given = _moved(labels, share)
    wrong = given != labels
    found = find_suspects(embeddings, given)
    ours = average_precision_score(wrong, found.log_odds)
    assert ours > 0.9
    assert ours > average_precision_score(wrong, _plain(embeddings, given)) + 0.05
    suspects = found.probability >= 0.5
    assert wrong[suspects].mean() > 0.9
    assert suspects[wrong].mean() > 0.7
    right = found.owner[suspects & wrong] == labels[suspects & wrong]
    assert right.mean() > 0.8


def test_a_clean_folder_has_hardly_a_suspect() -> None:
    embeddings, labels = draw(30, 20, seed=3)
    assert (find_suspects(embeddings, labels).probability >= 0.5).mean() < 0.01


@pytest.mark.parametrize(("people", "images"), [(10, 12), (20, 25), (50, 30)])
def test_few_pictures_of_many_dimensions(people: int, images: int) -> None:
    embeddings, labels = draw_wide(people, images, dimensions=256)
    given = _moved(labels, 0.1)
    wrong = given != labels
    found = find_suspects(embeddings, given)
    suspects = found.probability >= 0.5
    assert suspects[wrong].mean() > 0.9
    assert wrong[suspects].mean() > 0.9
    assert found.probability.sum() == pytest.approx(wrong.sum(), rel=0.25)  # calibrated
    assert (find_suspects(embeddings, labels).probability >= 0.5).mean() < 0.01


@pytest.mark.parametrize(("people", "images"), [(3, 100), (5, 100), (8, 100), (5, 20)])
def test_people_whom_the_model_tells_apart_without_an_error(people: int, images: int) -> None:
    embeddings, labels = draw_wide(people, images, dimensions=64)
    found = find_suspects(embeddings, labels)  # where no factor fits better than a larger one
    assert not (found.probability >= 0.5).any()
    assert found.probability.sum() < 1
    given = _moved(labels, 0.1)
    suspects = find_suspects(embeddings, given).probability >= 0.5
    assert (suspects == (given != labels)).mean() > 0.98


def test_folders_with_two_fifths_of_wrong_pictures() -> None:
    embeddings, labels = draw(25, 30, seed=1)
    rng = np.random.default_rng(0)
    given = labels.copy()
    for person in range(5):
        others = np.flatnonzero((labels != person) & (labels >= 5) & (given == labels))
        given[rng.permutation(others)[:20]] = person
    wrong = given != labels
    found = find_suspects(embeddings, given)
    suspects = found.probability >= 0.5
    assert suspects[wrong].mean() > 0.9
    assert wrong[suspects].mean() > 0.9


def test_two_fifths_that_are_one_other_person() -> None:
    embeddings, labels = draw(25, 30, seed=2)
    given = labels.copy()
    for person in range(3):
        given[np.flatnonzero(labels == person + 10)[:15]] = person
    given[np.flatnonzero(labels == 3)[:5]] = 3
    wrong = given != labels
    found = find_suspects(embeddings, given)
    assert average_precision_score(wrong, found.log_odds) > 0.9
    assert (found.mixed.probability[:3] >= 0.5).all()


def test_pictures_of_nobody_in_the_folder() -> None:
    embeddings, labels = draw(31, 20, seed=4)
    kept = labels < 30
    kept[np.flatnonzero(labels == 30)[:6]] = True
    strangers = labels[kept] == 30
    given = labels[kept].copy()
    given[strangers] = np.arange(6)
    found = find_suspects(embeddings[kept], given)
    assert average_precision_score(strangers, found.log_odds) > 0.9
    assert (found.owner[strangers] == -1).mean() >= 0.5
    assert np.isnan(found.owner_score[found.owner == -1]).all()


def test_typical_scores_are_cosines_to_the_other_pictures_mean() -> None:
    embeddings, labels = draw(8, 6, seed=5)
    found = find_suspects(embeddings, labels)
    rows = embeddings.astype(float) / np.linalg.norm(embeddings, axis=1, keepdims=True)
    weight = 1 - found.probability
    for at in range(0, len(labels), 7):
        others = (labels == labels[at]) & (np.arange(len(labels)) != at)
        mean = (weight[others, None] * rows[others]).sum(0)
        assert found.own_score[at] == pytest.approx(rows[at] @ mean / np.linalg.norm(mean))


@pytest.mark.parametrize("images", [1, 2, 3])
def test_people_with_few_pictures(images: int) -> None:
    embeddings, labels = draw(6, images, seed=6)
    found = find_suspects(embeddings, labels)
    assert np.isfinite(found.log_odds).all()
    assert found.probability.shape == (6 * images,)


def test_more_dimensions_than_pictures_of_no_person_at_all() -> None:
    noise = np.random.default_rng(0).normal(size=(140, 600))
    assert np.isfinite(find_suspects(noise, np.arange(140) % 14).log_odds).all()


@pytest.mark.filterwarnings("error")
def test_a_folder_of_copies_of_one_picture_is_no_news() -> None:
    embeddings, labels = draw(8, 7, seed=8)
    embeddings[labels == 3] = embeddings[labels == 3][0]
    found = find_suspects(embeddings, labels)
    assert (found.probability[labels == 3] < 0.5).all()


def test_the_same_answer_in_any_order_and_twice() -> None:
    embeddings, labels = draw(12, 10, seed=7)
    given = _moved(labels, 0.1)
    first = find_suspects(embeddings, given)
    again = find_suspects(embeddings, given)
    np.testing.assert_array_equal(first.log_odds, again.log_odds)
    order = np.random.default_rng(0).permutation(len(labels))
    mixed = find_suspects(embeddings[order], given[order])
    suspects = first.probability[order] >= 0.5
    assert ((mixed.probability >= 0.5) == suspects).mean() > 0.99
    assert np.corrcoef(mixed.log_odds, first.log_odds[order])[0, 1] > 0.99


@pytest.mark.parametrize("spread", [1.0, 2.0])
def test_neighbours_and_a_sample_rank_as_all_pairs_do(
    monkeypatch: pytest.MonkeyPatch, spread: float
) -> None:
    embeddings, labels = draw(150, 20, seed=9, spread=spread)
    given = _moved(labels, 0.1)
    wrong = given != labels
    dense = find_suspects(embeddings, given)
    monkeypatch.setattr(suspects, "_SAMPLE", 1000)
    monkeypatch.setattr(suspects, "_BEST", 50)
    monkeypatch.setattr(likeness, "_NEIGHBOURS", 60)
    found = find_suspects(embeddings, given)
    assert found.neighbours.nnz > 0
    wanted = average_precision_score(wrong, dense.log_odds)
    assert wanted > 0.5
    ours = average_precision_score(wrong, found.log_odds)
    assert ours == pytest.approx(wanted, abs=0.002)
    again = find_suspects(embeddings, given, neighbours=found.neighbours)  # without a search
    np.testing.assert_array_equal(again.log_odds, found.log_odds)


def test_few_people_stand_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 30, 401)).astype(np.float32) * 4
    own = rng.integers(400, size=30)
    total = 0.25 * first[:, :400] + second[:, :400]
    wanted = np.log(np.exp(total.astype(float)).sum(1))
    for best, most in ((400, 1e-4), (100, 0.05)):
        monkeypatch.setattr(suspects, "_BEST", best)
        one, other, stands_for = suspects._few((first, second), own)
        np.testing.assert_array_equal(one[:, 0], first[np.arange(30), own])
        found = np.log(np.exp(0.25 * one + other + stands_for).sum(1))
        np.testing.assert_allclose(found, wanted, atol=most)
        np.testing.assert_allclose(np.exp(stands_for).sum(1), 400)


@pytest.mark.real_faces
def test_wrong_real_faces_by_their_bare_pixels(real_faces: Path) -> None:
    """No model at all: six by six pixels. Plain distance ranks little better than chance."""
    rows, shown = [], []
    for person, folder in enumerate(sorted(real_faces.iterdir())[:24]):
        for file in sorted(folder.iterdir())[:50]:
            with Image.open(file) as picture:
                rows.append(np.asarray(picture.convert("RGB").resize((6, 6)), np.float32) - 128)
            shown.append(person)
    embeddings, labels = np.array(rows).reshape(len(rows), -1), np.array(shown)
    given = _moved(labels, 0.1)
    wrong = given != labels
    ours = average_precision_score(wrong, find_suspects(embeddings, given).log_odds)
    assert ours > average_precision_score(wrong, _plain(embeddings, given)) + 0.1
