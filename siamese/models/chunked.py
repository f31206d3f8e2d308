"""A batch larger than memory: its pictures pass through the network in parts, the gradient is
that of the whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from siamese.models.embedder import batch_norms


class Chunked(nn.Module):
    """A network whose activations are kept of one part of a batch at a time.

    Embeddings of all parts come first, without activations. The loss sees the whole batch, and each
    part is computed again when its gradient is due (gradient caching, Gao et al. 2021, arXiv
    2101.06983; here through torch's checkpointing of activations). That takes a second forward
    pass. Without batch norm the gradient is that of the whole batch in one pass, to float32's
    rounding. Batch norms normalise each part by its own statistics, and count it once.

    Args:
        network: maps pictures (N, ...) to embeddings (N, D).
        pictures: most of them in a part, at least 1; parts differ in size by one at most.
    """

    def __init__(self, network: nn.Module, pictures: int):
        super().__init__()
        self.network, self.pictures = network, pictures

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Embeddings (N, D) of pictures (N, ...)."""
        return torch.cat(
            [
                checkpoint(
                    self.network,
                    part,
                    use_reentrant=False,
                    context_fn=lambda: (nullcontext(), _statistics_kept(self.network)),
                )
                for part in parts(images, self.pictures)
            ]
        )


def parts(images: torch.Tensor, most: int) -> tuple[torch.Tensor, ...]:
    """A batch (N, ...) in parts of ``most`` pictures at most, as equal as can be."""
    return images.tensor_split(max(1, math.ceil(len(images) / most)))


@contextmanager
def _statistics_kept(network: nn.Module) -> Iterator[None]:
    """Batch norms normalise as in training, but do not count what they see a second time."""
    norms = [norm for norm in batch_norms(network) if norm.training]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, tracked) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, tracked
