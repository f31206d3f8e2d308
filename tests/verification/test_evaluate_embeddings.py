"""One call from embeddings and labels to figures, against scikit-learn on the same scores."""

import dataclasses
import unicodedata

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from siamese.errors import UserError
from siamese.verification.bootstrap import count_and_resample
from siamese.verification.evaluate_embeddings import evaluate
from siamese.verification.scores import PairMatrix


def _people(people: int = 40, images: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(people), images)
    centres = rng.normal(size=(people, 16))
    return (centres[labels] + rng.normal(size=(len(labels), 16)) * 0.9).astype(np.float32), labels


def test_figures_are_those_of_scikit_learn() -> None:
    vectors, labels = _people()
    tiles = list(PairMatrix(vectors, labels).tiles())
    genuine = np.concatenate([tile.genuine_levels.numpy() for tile in tiles])
    impostor = np.concatenate([tile.impostor_levels.numpy() for tile in tiles])
    same = np.repeat([1, 0], [len(genuine), len(impostor)])
    score = np.concatenate([genuine, impostor])
    fpr, tpr, _ = roc_curve(same, score, drop_intermediate=False)
    found = evaluate(vectors, labels, far=[0.05, 0.2])
    assert found.auc == pytest.approx(roc_auc_score(same, score), abs=1e-12)
    assert found.ap == pytest.approx(average_precision_score(same, score), abs=1e-12)
    nearest = int(np.argmin(abs(fpr - (1 - tpr))))
    assert found.eer == pytest.approx((fpr + 1 - tpr)[nearest] / 2, abs=1e-12)
    for far in (0.05, 0.2):
        assert found.tar_at_far[far] == pytest.approx(tpr[fpr <= far].max(), abs=1e-12)
        assert np.mean(impostor >= (found.thresholds[far] + 1) * 2**20) <= far
    assert (found.genuine_pairs, found.impostor_pairs) == (len(genuine), len(impostor))
    assert (found.identities, found.images) == (40, 240)
    assert found.intervals is None
    assert found.warnings == ()
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.auc = 1.0  # type: ignore[misc]


def test_arrays_tensors_and_names_are_the_same() -> None:
    vectors, labels = _people()
    expected = evaluate(vectors, labels)
    names = [f"person {label:02}" for label in labels]
    for given, people in (
        (torch.from_numpy(vectors).requires_grad_(), torch.from_numpy(labels)),
        (vectors.tolist(), labels.tolist()),
        (vectors, names),
        (vectors, np.array(names, dtype=object)),
        (vectors.astype(np.float64), np.array(names).astype("S")),
    ):
        assert evaluate(given, people) == expected
    half = torch.from_numpy(vectors).bfloat16()
    assert evaluate(half, labels) == evaluate(half.float().numpy(), labels)
    forms = ["José", unicodedata.normalize("NFD", "José"), "Ana", "Ana"]
    assert evaluate(vectors[:4], forms).identities == 2


def test_intervals_are_those_of_the_commands() -> None:
    vectors, labels = _people()
    found = evaluate(vectors, labels, intervals=True, resamples=200, seed=3)
    assert found.intervals is not None
    limits = count_and_resample(vectors, labels, resamples=200, seed=3)[1].intervals()
    assert found.intervals.auc == limits["auc"]
    assert found.intervals.ap == limits["ap"]
    assert found.intervals.eer == limits["eer"]
    assert found.intervals.eer_threshold == limits["eer_threshold"]
    for far, name in ((1e-2, "1e-2"), (1e-3, "1e-3")):
        assert found.intervals.tar_at_far[far] == limits[f"tar_at_far_{name}"]
        assert found.intervals.thresholds[far] == limits[f"threshold_at_far_{name}"]
    low, high = found.intervals.auc or (0, 0)
    assert low < found.auc < high


def test_too_little_is_warned_of() -> None:
    vectors, labels = _people(4, 3)
    warnings = " ".join(evaluate(vectors, labels).warnings)
    assert "4 people" in warnings
    assert "12 genuine pairs" in warnings
    assert "FAR 0.001" in warnings
    assert "FAR >= 5.0e-01" in warnings


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"far": [0.0]}, "between 0 and 1"),
        ({"intervals": True, "resamples": 10}, "at least 100"),
        ({"labels": np.zeros(240)}, "labels must be integers"),
        ({"labels": np.arange(240)}, "genuine"),
        ({"labels": ["a"] * 239}, "239 labels for 240"),
        ({"embeddings": np.full((240, 4), np.nan)}, "NaN"),
    ],
)
def test_what_cannot_be_judged_is_refused(change: dict[str, object], words: str) -> None:
    vectors, labels = _people()
    given: dict[str, object] = {"embeddings": vectors, "labels": labels, **change}
    with pytest.raises(UserError, match=words):
        evaluate(**given)  # type: ignore[arg-type]
