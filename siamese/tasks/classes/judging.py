"""Figures of a classifier from its logits: pure numerics, no files and no networks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ClassTable:
    """What happened to each class; all arrays (C,), NaN where a figure has no images to go by."""

    images: Counts
    correct: Counts
    recall: Floats
    precision: Floats
    f1: Floats
    confused_with: Counts  # the class that its images were most often taken for; -1: none ever was


def summarise_logits(
    logits: torch.Tensor, labels: torch.Tensor, bins: int = 15
) -> dict[str, float]:
    """Errors, loss and calibration of logits, float32 (N, C), and labels, int64 (N,).

    ``error`` (top 1) and ``top5_error`` in per cent (the latter with more than five classes only),
    ``loss`` (mean cross entropy in nats), ``ece`` in [0, 1].
    """
    logits, labels = logits.float().cpu(), labels.cpu()  # float64 is not to be had on every device
    figures = {"error": 100 * _top_error(logits, labels, 1)}
    if logits.shape[1] > 5:
        figures["top5_error"] = 100 * _top_error(logits, labels, 5)
    figures["loss"] = float(functional.cross_entropy(logits.double(), labels))
    probabilities = logits.double().softmax(dim=1)
    figures["ece"] = calibration_error(probabilities, labels, bins)
    return figures


def calibration_error(probabilities: torch.Tensor, labels: torch.Tensor, bins: int) -> float:
    """Expected calibration error (Guo et al., 2017, arXiv 1706.04599).

    The mean over images of |accuracy - confidence| of the bin that the image's confidence (its
    largest probability) falls in; bins of equal width, each closed on the right. Probabilities are
    (N, C), labels int64 (N,).
    """
    confidence, predicted = probabilities.double().max(dim=1)
    right = (predicted == labels).double()
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64, device=confidence.device)
    place = torch.bucketize(confidence, edges[1:-1])
    gaps = torch.zeros(bins, dtype=torch.float64, device=confidence.device)
    gaps.index_add_(0, place, right - confidence)
    return float(gaps.abs().sum() / len(labels))


def confusion(logits: torch.Tensor, labels: torch.Tensor) -> Counts:
    """How often each class was taken for which: int64 (C, C), rows are the true classes."""
    classes = logits.shape[1]
    flat = labels.cpu() * classes + logits.argmax(dim=1).cpu()
    return flat.bincount(minlength=classes**2).reshape(classes, classes).numpy()


def class_table(confused: Counts) -> ClassTable:
    """Each class's figures from a confusion matrix, (C, C), rows true."""
    wrong = confused - np.diag(np.diag(confused))
    most = np.where(wrong.sum(axis=1) > 0, wrong.argmax(axis=1), -1)
    images, correct, predicted = confused.sum(axis=1), np.diag(confused), confused.sum(axis=0)
    recall, precision = _ratio(correct, images), _ratio(correct, predicted)
    f1 = _ratio(2 * correct, images + predicted)
    return ClassTable(images, correct, recall, precision, f1, most)


def _top_error(logits: torch.Tensor, labels: torch.Tensor, k: int) -> float:
    found = (logits.topk(k, dim=1).indices == labels[:, None]).any(dim=1)
    return 1 - float(found.double().mean())


def _ratio(part: Counts, whole: Counts) -> Floats:
    ratio: Floats = np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
    return ratio
