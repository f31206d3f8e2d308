"""Cross-validation: only pictures of one fold are paired, and people of all folds are resampled."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from siamese.verification.bootstrap import draw_weights
from siamese.verification.metrics import summarise
from siamese.verification.pooled_folds import count_folds

Fold = tuple[np.ndarray, np.ndarray]


def drawn(people: int, images: int, seed: int, shift: float = 0.0) -> Fold:
    """Embeddings of a model of its own: a common direction of another weight."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(people), images)
    centres = rng.normal(size=(people, 8))
    vectors = centres[labels] + rng.normal(size=(len(labels), 8))
    return (vectors + shift).astype(np.float32), labels


FOLDS = [drawn(4, 5, 0), drawn(3, 6, 1, 0.5), drawn(5, 3, 2, 1.0)]


def pairs(fold: Fold) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Scores of a fold's pairs in float64, whether they are genuine, and both people."""
    vectors, labels = fold[0].astype(np.float64), fold[1]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    a, b = np.triu_indices(len(labels), 1)
    return (unit[a] * unit[b]).sum(1), labels[a] == labels[b], labels[a], labels[b]


def test_pairs_of_different_folds_are_not_compared() -> None:
    folds = count_folds(FOLDS)
    parts = [pairs(fold) for fold in FOLDS]
    scores, same = (np.concatenate([part[at] for part in parts]) for at in (0, 1))
    figures = summarise(folds.pooled)
    assert figures["auc"] == pytest.approx(roc_auc_score(same, scores), abs=1e-4)
    assert folds.pooled.genuine_pairs + folds.pooled.impostor_pairs == len(scores)
    assert (folds.pooled.identities, folds.pooled.identity_pairs) == (12, 6 + 3 + 10)
    for one, (own, truth, _, _) in zip(folds.counts, parts, strict=True):
        assert summarise(one)["auc"] == pytest.approx(roc_auc_score(truth, own), abs=1e-4)


def test_people_are_resampled_out_of_everybody() -> None:
    resamples, seed = 200, 3
    folds = count_folds(FOLDS, resamples=resamples, seed=seed)
    assert folds.bootstrap is not None
    weights = draw_weights(12, resamples, seed)
    genuine = np.zeros(resamples)
    impostor = np.zeros(resamples)
    first = 0
    for fold in FOLDS:
        _, same, a, b = pairs(fold)
        # Units are people in an order of their own: compare what no order changes.
        people = len(np.unique(fold[1]))
        own = weights[:, first : first + people]
        genuine += own.sum(1) * same.sum() / people
        squares = (own.sum(1) ** 2 - (own**2).sum(1)) / 2
        impostor += squares * (~same).sum() / (people * (people - 1) / 2)
        first += people
        assert (a <= b).all()
    assert folds.bootstrap.genuine.sum(1) == pytest.approx(genuine)
    assert folds.bootstrap.impostor.sum(1) == pytest.approx(impostor)


@pytest.mark.parametrize("fmr", [0.1, 0.3])
def test_each_fold_is_checked_by_the_threshold_of_the_others(fmr: float) -> None:
    crossed = count_folds(FOLDS, resamples=100).crossed_rates(fmr)
    false_matches = false_non_matches = 0
    parts = [pairs(fold) for fold in FOLDS]
    for at, (scores, same, _, _) in enumerate(parts):
        others = np.concatenate([p[0][~p[1]] for n, p in enumerate(parts) if n != at])
        # The lowest threshold that lets no more than the share through: the naive search.
        allowed = int(fmr * len(others))
        threshold = np.sort(others)[::-1][allowed]
        assert crossed.thresholds[at] == pytest.approx(threshold, abs=2e-6)
        false_matches += int((scores[~same] > threshold + 1e-7).sum())
        false_non_matches += int((scores[same] <= threshold + 1e-7).sum())
    truth = np.concatenate([part[1] for part in parts])
    assert crossed.fmr == pytest.approx(false_matches / (~truth).sum(), abs=2e-2)
    assert crossed.fnmr == pytest.approx(false_non_matches / truth.sum(), abs=2e-2)
    assert np.nanmin(crossed.fmr_resampled) <= crossed.fmr <= np.nanmax(crossed.fmr_resampled)
    assert np.nanmin(crossed.fnmr_resampled) <= crossed.fnmr <= np.nanmax(crossed.fnmr_resampled)
