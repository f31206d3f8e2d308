"""Run an embedder over pictures, batch by batch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from siamese.data.loaders import Batch
from siamese.models.device import autocast
from siamese.models.embedder import MODULE, SiameseEmbedder
from siamese.processors import forks, processors

_PIXELS = 2**19  # of pictures that a CPU takes together: what layers hand on stays in its caches
_ALIKE = 16  # a multiple of so many pictures gets the same bits from one thread and from several
_BATCHES_EACH = 2  # at least, or starting processes takes longer than they save


class PictureBatch(Protocol):
    """What is needed of a batch: uint8 pictures (N, 3, H, W) and their positions, int64 (N,)."""

    images: torch.Tensor
    indices: torch.Tensor


@dataclass(frozen=True)
class EmbeddedBatch:
    """Some of a folder's pictures.

    Attributes:
        vectors: embeddings, float32 (n, D), not normalised.
        kept: int64 (n,), positions of the pictures in the folder.
        failed: path and reason of each that cannot be decoded.
    """

    vectors: npt.NDArray[np.float32]
    kept: npt.NDArray[np.int64]
    failed: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class BatchEmbedding:
    """What embeds a folder's batches.

    Attributes:
        model: in eval mode.
        batch: pictures in a full batch.
        flip: average each embedding with that of the mirrored picture.
    """

    model: nn.Module
    batch: int
    device: torch.device
    precision: torch.dtype
    flip: bool

    def __call__(self, batch: Batch | EmbeddedBatch) -> EmbeddedBatch:
        """The embeddings of a batch, (0, 0) where not one picture of it can be decoded."""
        if isinstance(batch, EmbeddedBatch):  # by a loader
            return batch
        vectors = torch.empty(0, 0)
        if len(batch.images):
            vectors = embed_batch(self.model, batch.images, self.device, self.precision, self.flip)
        return EmbeddedBatch(vectors.numpy(), batch.indices.numpy(), tuple(batch.failed))

    def by_loader(self, batch: Batch) -> Batch | EmbeddedBatch:
        """The same in a loader process, which leaves a batch that is not full to the main one.

        In which process a picture is embedded must make no difference, not to the last bit.
        """
        return self(batch) if len(batch.images) == self.batch else batch

    def loaders(self, backbone: str, workers: int, batches: int) -> int:
        """How many loader processes embed what they load; 0: the loaders only load.

        On a CPU each process of one thread has a core to itself. The threads of a single process
        wait for each other after each operation, and for whichever of them a loader keeps from its
        core.

        Args:
            backbone: its name in the description of the embedder; nobody knows what a program's own
                module does in a forked process.
            workers: loader processes that are asked for.
            batches: to be embedded.
        """
        known = isinstance(self.model, SiameseEmbedder) and not backbone.startswith(MODULE)
        if self.device.type != "cpu" or workers == 0 or not known or self.batch % _ALIKE:
            return 0
        if not forks():  # the weights would be sent to each
            return 0
        number = min(torch.get_num_threads(), processors(), batches // _BATCHES_EACH)
        return number if number > 1 else 0


def pictures_together(most: int, side: int, device: torch.device) -> int:
    """How many pictures go through a network together: on a CPU fewer where they are large.

    Args:
        most: as many as there may be.
        side: of a picture, in pixels.
    """
    if device.type != "cpu" or most <= _ALIKE:
        return most
    return max(_ALIKE, min(most, _PIXELS // side**2) // _ALIKE * _ALIKE)


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
