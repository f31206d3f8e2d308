"""A matrix that the processes share out: each holds some columns, checkpoints hold the whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from siamese.training.distribution import Distribution

Change = Callable[[torch.Tensor], torch.Tensor]


class SharedColumns:
    """A matrix (D, C) that learns, of which this process holds some columns as ``parameter``.

    Nobody averages its gradients: they are whole where the columns are. Steps are those of the
    whole matrix with optimizers that treat each number by itself, i.e. not with LARS and LAMB.

    Args:
        whole: the matrix as it begins, alike in every process.
        widths: how many columns each process holds, by rank.
    """

    def __init__(self, whole: torch.Tensor, widths: Sequence[int], distribution: Distribution):
        self.widths, self.distribution = list(widths), distribution
        self.parameter = nn.Parameter(self._part(whole))

    def _part(self, whole: torch.Tensor) -> torch.Tensor:
        return torch.split(whole, self.widths, dim=1)[self.distribution.rank].clone()

    def _whole(self, part: torch.Tensor) -> torch.Tensor:
        """All columns, in the first process's main memory; others get theirs back."""
        part = part.detach().contiguous()
        if not self.distribution.first:
            dist.send(part, 0)
            return part
        parts = [part.cpu()]
        for rank, width in enumerate(self.widths[1:], 1):
            received = part.new_empty(len(part), width)
            dist.recv(received, rank)
            parts.append(received.cpu())
        return torch.cat(parts, dim=1)

    def gathered(
        self, content: Mapping[str, Any], parameters: Iterable[torch.Tensor]
    ) -> dict[str, Any]:
        """A checkpoint's content of all processes, in the first one; each must call it.

        ``parameters`` are the optimizer's, in its order.
        """
        return _changed(content, self._place(parameters), self._whole)

    def cut(self, content: Mapping[str, Any], parameters: Iterable[torch.Tensor]) -> dict[str, Any]:
        """This process's part of a checkpoint's content."""
        return _changed(content, self._place(parameters), self._part)

    def _place(self, parameters: Iterable[torch.Tensor]) -> int:
        return next(at for at, parameter in enumerate(parameters) if parameter is self.parameter)

    def clip(self, parameters: Iterable[torch.Tensor], limit: float) -> torch.Tensor:
        """``clip_grad_norm_`` with all columns in the norm, so that every process clips alike."""
        everything = list(parameters)
        mine = [p.grad for p in everything if p is self.parameter and p.grad is not None]
        others = [p.grad for p in everything if p is not self.parameter and p.grad is not None]
        square = nn.utils.get_total_norm(mine).to(self.parameter.device) ** 2
        dist.all_reduce(square)
        norm = (square + nn.utils.get_total_norm(others) ** 2).sqrt()
        nn.utils.clip_grads_with_norm_(everything, limit, norm)
        return norm


def _changed(content: Mapping[str, Any], place: int, change: Change) -> dict[str, Any]:
    """A checkpoint's content, changed in everything that belongs to the parameter at a place."""

    def there(weights: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return [change(kept) if at == place else kept for at, kept in enumerate(weights)]

    optimizer = dict(content["optimizer"])
    if place in optimizer["state"]:
        moments = {
            name: change(kept) if torch.is_tensor(kept) and kept.ndim == 2 else kept
            for name, kept in optimizer["state"][place].items()
        }
        optimizer["state"] = {**optimizer["state"], place: moments}
    if "ema" in optimizer:
        optimizer["ema"] = {**optimizer["ema"], "weights": there(optimizer["ema"]["weights"])}
    return {
        **content,
        "optimizer": optimizer,
        "train_weights": there(content["train_weights"]),
        "loss": {name: change(kept) for name, kept in content["loss"].items()},
    }
