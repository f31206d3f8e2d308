"""Class weights of very many people: shared out over the processes, and drawn for each batch."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.func import functional_call

from siamese.data.batches import derive_seed
from siamese.training.distribution import Distribution
from siamese.training.sharing import SharedColumns


class PartialClasses:
    """A PML loss with class weights over a part of its classes (Partial FC, arXiv 2010.05222).

    Each of several processes holds the weights of some classes (at most ceil(classes / processes))
    and computes the logits of the whole batch for them alone; the softmax is over all of them, so
    loss and gradients are those of one process, to float32's rounding.

    With a ``rate`` below 1 a batch's loss is over all of its own classes and random others,
    together round(rate * classes), or its own where these are more (arXiv 2203.15565). All
    processes draw the same ones, from (seed, epoch, batch). Classes that are not drawn get a
    gradient of 0, as in the authors' later code (insightface's PartialFC_V2): the logits cost less,
    while momentum, averages and weight decay go on as for any other weight.

    Args:
        loss: keeps its parameter ``W``, (D, classes * sub-centres), now of this process's classes.
    """

    def __init__(self, loss: Any, classes: int, rate: float, distribution: Distribution, seed: int):
        self.loss, self.classes, self.rate, self.distribution = loss, classes, rate, distribution
        self._logits, self._place = _Logits(loss), (seed, 0, 0)
        world = distribution.world
        bounds = [classes * rank // world for rank in range(world + 1)]
        self.start, self.stop = bounds[distribution.rank : distribution.rank + 2]
        self.centres = loss.W.shape[1] // classes
        self.shared: SharedColumns | None = None
        if world > 1:
            widths = [(stop - start) * self.centres for start, stop in pairwise(bounds)]
            self.shared = SharedColumns(loss.W.detach(), widths, distribution)
            loss.W = self.shared.parameter

    def start_epoch(self, epoch: int, batch: int) -> None:
        """The next batch is that of an epoch, both counted from 0: this decides what is drawn."""
        self._place = (self._place[0], epoch, batch)

    def __call__(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Loss of a batch that every process gives: embeddings float (N, D), labels int64 (N,)."""
        if self.shared is not None and embeddings.requires_grad:
            embeddings = embeddings.view_as(embeddings)
            embeddings.register_hook(_summed)  # type: ignore[no-untyped-call]
        rows = torch.arange(len(labels), device=labels.device)
        if self.shared is not None:  # how many there are makes a GPU wait
            rows = ((labels >= self.start) & (labels < self.stop)).nonzero().squeeze(1)
        own, weights = labels[rows] - self.start, self.loss.W
        if self.rate < 1:
            drawn = self._draw(labels)
            own = torch.searchsorted(drawn, own)
            centres = torch.arange(self.centres, device=drawn.device)
            columns = (drawn[:, None] * self.centres + centres).flatten()
            weights = weights.index_select(1, columns)
        logits = functional_call(self._logits, {"loss.W": weights}, (embeddings, rows, own))
        terms = {
            "losses": self._cross_entropy(logits, rows, own),
            "indices": torch.arange(len(labels), device=labels.device),
            "reduction_type": "element",
        }
        value: torch.Tensor = self.loss.reducer({"loss": terms}, embeddings, labels)
        return value

    def _draw(self, labels: torch.Tensor) -> torch.Tensor:
        """Which of this process's classes take part, rising, counted from its first."""
        generator = torch.Generator(labels.device).manual_seed(derive_seed(*self._place))
        seed, epoch, batch = self._place
        self._place = (seed, epoch, batch + 1)
        order = torch.rand(self.classes, generator=generator, device=labels.device)
        order[labels] = 2.0
        number = round(self.rate * self.classes)
        if number < len(labels):  # only then, as counting classes makes a GPU wait
            number = max(number, len(torch.unique(labels)))
        drawn = order.topk(number, sorted=False).indices.sort().values
        if self.shared is None:
            return drawn
        return drawn[(drawn >= self.start) & (drawn < self.stop)] - self.start

    def _cross_entropy(
        self, logits: torch.Tensor, rows: torch.Tensor, own: torch.Tensor
    ) -> torch.Tensor:
        """Of each picture (N,), from logits (N, n) and where pictures' own classes are in them.

        log-sum-exps add up over processes, as do the own classes' logits, which one of them has.
        Gradients reach this process's numbers, and through them its own weights.
        """
        found = logits.new_zeros(len(logits)).index_put((rows,), logits[rows, own])
        mine = torch.stack([logits.logsumexp(1), found])
        every = [mine]
        if self.shared is not None:
            every = [torch.empty_like(mine) for _ in range(self.distribution.world)]
            dist.all_gather(every, mine.detach())
            every[self.distribution.rank] = mine
        sums, founds = torch.stack(every).unbind(1)
        return sums.logsumexp(0) - founds.sum(0)


class _Logits(nn.Module):
    """Logits (N, n) of a PML loss, the margin in each picture's own class, without PML's mask."""

    def __init__(self, loss: Any):
        super().__init__()
        self.loss = loss

    def forward(
        self, embeddings: torch.Tensor, rows: torch.Tensor, own: torch.Tensor
    ) -> torch.Tensor:
        """``rows``: pictures whose class is among the n of ``loss.W``; ``own``: which it is."""
        loss: Any = self.loss
        if loss.W.shape[1] == 0:  # none of this process's classes was drawn
            empty: torch.Tensor = embeddings @ loss.W
            return empty
        logits: torch.Tensor
        if hasattr(loss, "get_cosine"):
            loss.num_classes = loss.W.shape[1] // getattr(loss, "sub_centers", 1)
            cosine = loss.get_cosine(embeddings)
            margined = loss.modify_cosine_of_target_classes(cosine[rows, own])
            logits = loss.scale_logits(cosine.index_put((rows, own), margined), embeddings)
        else:  # normalized_softmax knows no margin
            logits = loss.get_logits(embeddings)
        return logits


def _summed(gradient: torch.Tensor) -> torch.Tensor:
    """A gradient's parts from all processes, each of which saw some classes."""
    total = gradient.contiguous().clone()
    dist.all_reduce(total)
    return total
