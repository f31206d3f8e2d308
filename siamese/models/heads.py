"""What stands around an embedder's linear head: pooling before it, a neck behind it."""

from __future__ import annotations

import torch
from torch import nn

_START, _MOST, _LEAST = 3.0, 6.0, 1e-6


class GeM(nn.Module):
    """Generalised-mean pooling, (N, C, H, W) to (N, C), one learnt exponent that starts at 3.

    Radenovic, Tolias & Chum, "Fine-tuning CNN Image Retrieval with No Human Annotation", 2017
    (arXiv 1711.02512). At 1 it is the average of what is above 0, at infinity the greatest value;
    it stays between 1 and 6, where float32 holds the powers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.exponent = nn.Parameter(torch.tensor([_START]))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """In float32: a power of a half-precision number soon leaves its range."""
        with torch.autocast(maps.device.type, enabled=False):
            exponent = self.exponent.float().clamp(1, _MOST)
            powers = maps.float().clamp(min=_LEAST).pow(exponent)
            pooled: torch.Tensor = powers.mean((2, 3)).pow(1 / exponent)
        return pooled


def make_neck(name: str, embedding_dim: int) -> nn.Module:
    """What follows the linear head: ``none``, or ``batch_norm`` (BNNeck, arXiv 1903.07071).

    Its bias stays 0, so that the embeddings lie around the origin, as cosines want it.
    """
    if name == "none":
        return nn.Identity()
    neck = nn.BatchNorm1d(embedding_dim)
    neck.bias.requires_grad_(False)
    return neck
