"""Run an embedder over pictures, batch by batch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import nn

from siamese.models.device import autocast


class PictureBatch(Protocol):
    """What is needed of a batch: uint8 pictures (N, 3, H, W) and their positions, int64 (N,)."""

    images: torch.Tensor
    indices: torch.Tensor


def embed(
    model: nn.Module,
    batches: Iterable[PictureBatch],
    *,
    device: torch.device,
    precision: torch.dtype = torch.float32,
    flip: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Embed every picture of the batches; the model is put in eval mode.

    Args:
        batches: batches of pictures, empty ones allowed.

    Returns:
        embeddings float32 (N, D) on the CPU, and the pictures' positions int64 (N,).
    """
    model.eval()
    embeddings, indices = [], []
    for batch in batches:
        if len(batch.images) == 0:
            continue
        embeddings.append(embed_batch(model, batch.images, device, precision, flip))
        indices.append(batch.indices)
    if not embeddings:
        return torch.empty(0, 0), torch.empty(0, dtype=torch.int64)
    return torch.cat(embeddings), torch.cat(indices)


@torch.inference_mode()
def embed_batch(
    model: nn.Module,
    images: torch.Tensor,
    device: torch.device,
    precision: torch.dtype = torch.float32,
    flip: bool = False,
) -> torch.Tensor:
    """Embeddings float32 (N, D), on the CPU, of uint8 pictures (N, 3, H, W), N at least 1.

    Args:
        model: in eval mode.
        flip: average the embedding with that of the mirrored picture, unless the model is a graph
            that does so by itself.
    """
    images = images.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last)
    with autocast(device, precision):
        given = model(images)
    result: torch.Tensor = given.float()
    if flip and not getattr(model, "mirrors", False):
        with autocast(device, precision):
            mirrored = model(images.flip(-1))
        normalise = nn.functional.normalize
        result = (normalise(result) + normalise(mirrored.float())) / 2
    return result.cpu()
