"""A classifier's figures against sklearn, torch and naive loops."""

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)

from siamese.tasks.classes.judging import (
    calibration_error,
    class_table,
    confusion,
    summarise_logits,
)


@pytest.fixture
def judged() -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(3)
    labels = torch.randint(8, (500,), generator=draw)
    logits = torch.randn(500, 8, generator=draw)
    logits[torch.arange(500), labels] += 1.5
    return logits, labels


def test_errors_and_loss_are_those_of_sklearn(judged: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, labels = judged
    figures = summarise_logits(logits, labels)
    probabilities = logits.double().softmax(dim=1).numpy()
    top1 = accuracy_score(labels, logits.argmax(dim=1))
    assert figures["error"] == pytest.approx(100 * (1 - top1))
    top5 = top_k_accuracy_score(labels, probabilities, k=5)
    assert figures["top5_error"] == pytest.approx(100 * (1 - top5))
    assert figures["loss"] == pytest.approx(log_loss(labels, probabilities), rel=1e-9)
    assert "top5_error" not in summarise_logits(logits[:, :5], labels % 5)


@pytest.mark.parametrize("bins", [5, 15])
def test_calibration_error_is_that_of_a_plain_loop(
    judged: tuple[torch.Tensor, torch.Tensor], bins: int
) -> None:
    logits, labels = judged
    probabilities = logits.double().softmax(dim=1)
    members: dict[int, list[tuple[float, bool]]] = {}
    for row, label in zip(probabilities.tolist(), labels.tolist(), strict=True):
        confidence = max(row)
        at = next(b for b in range(bins) if confidence <= (b + 1) / bins)
        members.setdefault(at, []).append((confidence, row.index(confidence) == label))
    expected = 0.0
    for found in members.values():
        accuracy = sum(right for _, right in found) / len(found)
        confidence = sum(c for c, _ in found) / len(found)
        expected += len(found) / len(labels) * abs(accuracy - confidence)
    assert calibration_error(probabilities, labels, bins) == pytest.approx(expected, abs=1e-12)
    assert expected > 0.01


def test_a_calibrated_and_an_overconfident_forecast() -> None:
    labels = torch.tensor([0, 0, 0, 1])
    honest = torch.tensor([[0.75, 0.25]]).repeat(4, 1)
    assert calibration_error(honest, labels, 10) == pytest.approx(0)
    sure = torch.tensor([[1.0, 0.0]]).repeat(4, 1)
    assert calibration_error(sure, labels, 10) == pytest.approx(0.25)


def test_classes_are_those_of_sklearn(judged: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, labels = judged
    predicted = logits.argmax(dim=1).numpy()
    confused = confusion(logits, labels)
    assert (confused == confusion_matrix(labels, predicted, labels=range(8))).all()
    table = class_table(confused)
    precision, recall, f1, support = precision_recall_fscore_support(labels, predicted)
    for ours, theirs in ((table.precision, precision), (table.recall, recall), (table.f1, f1)):
        assert np.allclose(ours, theirs)
    assert (table.images == support).all()
    wrong = [int(p) for p, label in zip(predicted, labels.tolist(), strict=True) if p != label == 2]
    assert wrong.count(int(table.confused_with[2])) == max(wrong.count(c) for c in range(8))


def test_a_class_without_images_has_no_figures() -> None:
    table = class_table(np.array([[3, 0], [0, 0]]))
    assert np.isnan(table.recall[1])
    assert np.isnan(table.precision[1])
    assert table.confused_with.tolist() == [-1, -1]
