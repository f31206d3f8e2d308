"""Errors by person and pair: equal to loops over all pairs."""

import numpy as np
import pytest

from siamese.verification.counts import count_pairs, count_target
from siamese.verification.metrics import threshold_at_fmr
from siamese.verification.per_identity import Examination, Pairs, examine, mislabelled_share, varied
from siamese.verification.scores import listed_scores, normalise
from tests.verification.test_scores import people


@pytest.fixture(scope="module")
def case() -> tuple[np.ndarray, np.ndarray, Examination, np.ndarray]:
    """700 images of 12 people, one of them with one image; labels are not 0, 1, ..."""
    embeddings, labels = people(700, 12)
    labels = labels * 3 + 5
    labels[0] = 1
    counts = count_pairs(embeddings, labels)
    found = examine(embeddings, labels, counts, 0.31, worst=30)
    first, second = (at.ravel() for at in np.indices((700, 700)))
    scores = listed_scores(normalise(embeddings), first, second).reshape(700, 700)
    return embeddings, labels, found, scores


def test_rates_of_each_person(case) -> None:
    _, labels, found, scores = case
    table = found.people
    assert table.label.tolist() == sorted(set(labels))
    false_non_matches, false_matches = [], []
    for at, label in enumerate(table.label):
        own = labels == label
        n = own.sum()
        assert table.images[at] == n
        genuine = scores[own][:, own][np.triu_indices(n, 1)]
        impostor = scores[own][:, ~own]
        if n > 1:
            assert table.fnmr[at] == pytest.approx((genuine < 0.31).mean(), abs=2 / len(genuine))
            assert table.genuine_mean[at] == pytest.approx(genuine.mean(), abs=1e-6)
        else:
            assert np.isnan(table.fnmr[at])
            assert np.isnan(table.genuine_mean[at])
        assert table.fmr[at] == pytest.approx((impostor >= 0.31).mean(), abs=1e-4)
        false_non_matches.append((genuine < 0.31).sum())
        false_matches.append((impostor >= 0.31).sum())
        means = {o: scores[own][:, labels == o].mean() for o in table.label if o != label}
        assert table.nearest[at] == max(means, key=lambda other: means[other])
        assert table.nearest_mean[at] == pytest.approx(max(means.values()), abs=1e-6)
    for share, numbers in (
        (table.false_non_match_share, false_non_matches),
        (table.false_match_share, false_matches),
    ):
        np.testing.assert_allclose(share, np.array(numbers) / sum(numbers), atol=1e-3)
        assert share.sum() == pytest.approx(1)
    assert table.harm.sum() == pytest.approx(1)


@pytest.mark.parametrize("kind", ["genuine", "impostor"])
def test_worst_pairs(case, kind: str) -> None:
    _, labels, found, scores = case
    pairs = getattr(found, f"worst_{kind}")
    assert len(pairs.score) == 30
    same = labels[pairs.first] == labels[pairs.second]
    assert same.all() if kind == "genuine" else not same.any()
    upper = np.triu(np.ones((700, 700), bool), 1)
    mask = (
        (labels[:, None] == labels) & upper
        if kind == "genuine"
        else ((labels[:, None] != labels) & upper)
    )
    ordered = np.sort(scores[mask])
    wanted = ordered[:30] if kind == "genuine" else ordered[::-1][:30]
    np.testing.assert_allclose(pairs.score, wanted, atol=1e-6)
    np.testing.assert_allclose(pairs.score, scores[pairs.first, pairs.second], atol=1e-6)
    assert len({frozenset(p) for p in zip(pairs.first, pairs.second, strict=True)}) == 30


def test_pairs_of_score_0_below_a_threshold_just_above_0() -> None:
    embeddings, labels = np.eye(4)[[0, 1, 2, 3, 3]], np.array([0, 0, 1, 1, 2])
    counts = count_pairs(embeddings, labels)
    threshold = threshold_at_fmr(counts, 0.2)  # one of eight impostor pairs scores 1, others 0
    assert 0 < threshold < 1e-30
    table = examine(embeddings, labels, counts, threshold).people
    assert table.fmr.tolist() == [0, 1 / 6, 1 / 4]
    assert table.fnmr[:2].tolist() == [1, 1]


def test_more_equal_pairs_than_wanted_and_fewer_pairs_than_wanted() -> None:
    equal = np.ones((1100, 3), np.float32)
    labels = np.repeat(np.arange(550), 2)
    found = examine(equal, labels, count_pairs(equal, labels), 0.5, worst=7)
    assert found.worst_impostor.score.tolist() == [1.0] * 7
    assert found.worst_genuine.score.tolist() == [1.0] * 7
    embeddings, labels = np.eye(3, dtype=np.float32), np.array([0, 0, 1])
    found = examine(embeddings, labels, count_pairs(embeddings, labels), 0.5, worst=7)
    assert (len(found.worst_genuine.score), len(found.worst_impostor.score)) == (1, 2)


def _folder(wrong: float, noise: float, seed: int, images: int = 60):
    """60 people; a share of the first one's pictures shows strangers."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(60), images)
    centres = rng.normal(size=(60, 32))
    shown = centres[labels]
    strangers = round(wrong * images)
    shown[:strangers] = rng.normal(size=(strangers, 32))
    return shown + noise * rng.normal(size=shown.shape), labels


@pytest.mark.parametrize("wrong", [0.17, 0.35])
def test_a_folder_with_wrong_pictures_is_noticed(wrong: float) -> None:
    embeddings, labels = _folder(wrong, 0.6, 0)
    found = examine(embeddings, labels, count_pairs(embeddings, labels), 0.5).people
    assert found.mislabelled[0] == pytest.approx(wrong, abs=0.06)
    assert np.isnan(found.mislabelled[1:]).all()
    target = count_target(embeddings, labels, 0)
    assert mislabelled_share(target) == pytest.approx(wrong, abs=0.06)
    assert mislabelled_share(count_target(embeddings, labels, 1)) is None
    assert mislabelled_share(count_pairs(embeddings, labels)) is None


@pytest.mark.parametrize("noise", [0.6, 1.5, 3.0, 6.0])
def test_a_weak_model_alone_is_no_sign_of_wrong_pictures(noise: float) -> None:
    embeddings, labels = _folder(0, noise, 1)
    counts = count_pairs(embeddings, labels)
    assert mislabelled_share(counts) is None
    assert np.isnan(examine(embeddings, labels, counts, 0.5).people.mislabelled).mean() > 0.98


def test_a_handful_of_pictures_is_too_few_for_a_sign() -> None:
    embeddings, labels = _folder(0.4, 0.3, 0, images=5)
    found = examine(embeddings, labels, count_pairs(embeddings, labels), 0.5).people
    assert np.isnan(found.mislabelled).all()


def test_one_odd_picture_does_not_fill_the_worst_pairs() -> None:
    first = np.array([9, 9, 9, 9, 1, 2, 3])
    second = np.array([1, 2, 3, 4, 2, 3, 4])
    pairs = Pairs(first, second, np.linspace(0, 0.6, 7))
    some = varied(pairs, 4, 2)
    assert list(zip(some.first.tolist(), some.second.tolist(), strict=True)) == [
        (9, 1), (9, 2), (1, 2), (3, 4)
    ]  # fmt: skip
    assert np.array_equal(varied(pairs, 7, 2).score, pairs.score)  # too few: the others fill up
    assert len(varied(pairs, 9, 1).score) == 7
