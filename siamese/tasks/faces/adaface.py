"""AdaFace: a margin that follows each picture's quality."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_metric_learning import losses

# h, and how much a batch moves the mean and deviation of lengths, as in the paper (section 3.3).
_CONCENTRATION = 0.333
_MOMENTUM = 0.01
_SHORTEST, _LONGEST = 1e-3, 100.0
_EPSILON = 1e-3


class AdaFaceLoss(losses.ArcFaceLoss):  # type: ignore[misc]
    """Kim, Jain & Liu, "AdaFace: Quality Adaptive Margin for Face Recognition", CVPR 2022 (arXiv
    2204.00964).

    A picture's quality is told from the length of its embedding among recent ones: -1 (poor) to 1.
    A poor one gets a margin on the angle that draws easy pictures, a good one a margin on angle and
    cosine that draws hard ones. Unlike the paper's code, which begins at a mean of 20 and a
    deviation of 100 for embeddings behind its own batch norm, the moving mean and deviation begin
    as the first batch's.

    Args:
        num_classes: people.
        embedding_size: D.
        margin: m, on cosines and in radians.
        scale: s of the logits.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        margin: float = 0.4,
        scale: float = 64.0,
        **options: Any,
    ):
        super().__init__(num_classes, embedding_size, margin=margin, scale=scale, **options)
        self.mean: torch.Tensor
        self.deviation: torch.Tensor
        self.register_buffer("mean", torch.tensor(float("nan")))
        self.register_buffer("deviation", torch.tensor(float("nan")))

    def init_margin(self) -> None:
        """Radians already."""

    def get_cosine(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Cosines with the class weights, (N, classes); tells the quality of the same batch."""
        self._quality = self._measure(embeddings.detach().norm(dim=1))
        cosine: torch.Tensor = super().get_cosine(embeddings)
        return cosine

    @torch.no_grad()
    def _measure(self, lengths: torch.Tensor) -> torch.Tensor:
        """Quality in [-1, 1] by length, (N,) to (N,); the moving mean and deviation take a step."""
        lengths = lengths.clamp(_SHORTEST, _LONGEST)
        mean, deviation = lengths.mean(), lengths.std(correction=0)
        begun = torch.isfinite(self.mean)
        self.mean = torch.where(begun, self.mean.to(mean).lerp(mean, _MOMENTUM), mean)
        moved = self.deviation.to(mean).lerp(deviation, _MOMENTUM)
        self.deviation = torch.where(begun, moved, deviation)
        quality = (lengths - self.mean) / (self.deviation + _EPSILON)
        return (quality * _CONCENTRATION).clamp(-1, 1)

    def modify_cosine_of_target_classes(self, cosine: torch.Tensor) -> torch.Tensor:
        """Each picture's cosine with its own class (N,), less its margin."""
        angle = torch.acos(cosine.clamp(-1 + 1e-7, 1 - 1e-7)) - self.margin * self._quality
        moved = angle.clamp(_EPSILON, torch.pi - _EPSILON).cos()
        less: torch.Tensor = moved - self.margin * (1 + self._quality)
        return less
