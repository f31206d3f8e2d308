"""A batch larger than memory: its pictures pass through the network in parts, the gradient is
that of the whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

_Context = AbstractContextManager[Any]


class Chunked(nn.Module):
    """A network whose activations are kept of one part of a batch at a time.

    Embeddings of all parts come first, without activations. The loss sees the whole batch, and each
    part is computed again when its gradient is due (gradient caching, Gao et al. 2021, arXiv
    2101.06983; here through torch's checkpointing of activations). That takes a second forward
    pass. Without batch norm the gradient is that of the whole batch in one pass, to float32's
    rounding. Batch norms normalise each part by its own statistics, and count it once.

    Args:
        network: maps pictures (N, ...) to embeddings (N, D).
        pictures: in a part, at least 2; see :func:`parts`.
    """

    def __init__(self, network: nn.Module, pictures: int):
        super().__init__()
        self.network, self.pictures = network, pictures

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Embeddings (N, D) of pictures (N, ...)."""
        if len(images) <= self.pictures:
            whole: torch.Tensor = self.network(images)
            return whole
        return torch.cat(
            [
                checkpoint(
                    self.network,
                    part,
                    use_reentrant=False,
                    context_fn=lambda: _contexts(self.network),
                )
                for part in parts(images, self.pictures)
            ]
        )


def parts(images: torch.Tensor, most: int) -> tuple[torch.Tensor, ...]:
    """A batch (N, ...) in parts of ``most`` pictures, as equal as can be.

    One more where a single picture would be left: batch norms cannot normalise it.
    """
    number = min(math.ceil(len(images) / most), len(images) // 2)
    return images.tensor_split(max(1, number))


def _contexts(network: nn.Module) -> tuple[_Context, _Context]:
    """Around a part's two passes: the second finds the buffers of the first, and leaves no trace.

    So batch norms count a picture once, and layers that iterate from pass to pass repeat the step.
    """
    return nullcontext(), _put_back(network, [buffer.clone() for buffer in network.buffers()])


@contextmanager
def _put_back(network: nn.Module, before: list[torch.Tensor]) -> Iterator[None]:
    now = [buffer.clone() for buffer in network.buffers()]
    _fill(network, before)
    try:
        yield
    finally:
        _fill(network, now)


def _fill(network: nn.Module, values: list[torch.Tensor]) -> None:
    for buffer, value in zip(network.buffers(), values, strict=True):
        buffer.data.copy_(value)  # unseen by autograd, which keeps some of them
