"""The loss of classification, on soft targets, in float32."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from siamese.config import ClassLossSettings
from siamese.tasks.classes.mixing import Mixed


class ClassLoss(nn.Module):
    """A scalar from logits and a batch's targets; it has no parameters.

    Of two views (dual cutout) the loss is the mean of both views' losses plus ``dual_cutout`` times
    the mean squared difference of their logits, over images and classes, as the code published with
    arXiv 1802.07426 computes (0.1 for its CIFAR-10 figures).
    """

    def __init__(self, settings: ClassLossSettings, dual_cutout: float = 0.0):
        super().__init__()
        self.name, self.smoothing = settings.name, settings.smoothing
        self.threshold, self.dual_cutout = settings.target_threshold, dual_cutout

    def forward(self, logits: Tensor, mixed: Mixed) -> Tensor:
        """Mean loss of a batch: logits of any float type (views * N, classes)."""
        with torch.autocast(logits.device.type, enabled=False):
            logits = logits.float()
            if mixed.views == 1:
                return self._of_view(logits, mixed.targets)
            first, second = logits.chunk(2)
            both = self._of_view(first, mixed.targets) + self._of_view(second, mixed.targets)
            return both / 2 + self.dual_cutout * functional.mse_loss(first, second)

    def _of_view(self, logits: Tensor, targets: Tensor) -> Tensor:
        if self.name == "bce":
            return binary_cross_entropy(logits, targets, self.smoothing, self.threshold)
        return functional.cross_entropy(logits, targets, label_smoothing=self.smoothing)


def binary_cross_entropy(
    logits: Tensor, targets: Tensor, smoothing: float = 0.0, threshold: float | None = None
) -> Tensor:
    """One yes-or-no decision per class, averaged over images and classes (arXiv 2110.00476).

    Targets, float32 (N, classes), above the threshold become 1, others 0; then they are smoothed.
    timm's ``BinaryCrossEntropy`` smooths before the threshold, which undoes the smoothing, and does
    not smooth mixed targets at all.
    """
    if threshold is not None:
        targets = (targets > threshold).to(targets.dtype)
    targets = targets * (1 - smoothing) + smoothing / targets.shape[1]
    return functional.binary_cross_entropy_with_logits(logits, targets)
