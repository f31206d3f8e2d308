"""Mixup of face pictures (arXiv 1710.09412), for losses with one weight per person."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from siamese.data.batches import MIXING, derive_seed
from siamese.tasks.faces.own_parts import FaceLoss


class MixedBatch(NamedTuple):
    """Pictures uint8 (N, 3, S, S) that show their own person by ``share``, a partner by the rest.

    ``partners``: labels int64 (N,) of the other people.
    """

    images: torch.Tensor
    partners: torch.Tensor
    share: float


class InputMixup:
    """Mixes each picture with another one of its batch, all of a batch by one share.

    As in the paper's code the partners are a random permutation, and a loss that says of whom a
    picture is counts by the share for each of the two. What is drawn derives from (seed, epoch,
    batch). Each of several processes mixes its own pictures, all of them by the same share.

    Args:
        alpha: of the Beta(alpha, alpha) that the share is drawn from, above 0.
    """

    def __init__(self, alpha: float, seed: int, rank: int = 0):
        self.alpha, self.seed, self.rank = alpha, seed, rank
        self._place = (0, 0)

    def start_epoch(self, epoch: int, batch: int) -> None:
        """The next batch is that of an epoch, both counted from 0: this decides what is drawn."""
        self._place = (epoch, batch)

    def mix(self, images: torch.Tensor, labels: torch.Tensor) -> MixedBatch:
        """Mix uint8 (N, 3, S, S), labels int64 (N,), rounded to whole grey levels."""
        key = (self.seed, MIXING, *self._place)
        share = float(np.random.default_rng(derive_seed(*key)).beta(self.alpha, self.alpha))
        own = np.random.default_rng(derive_seed(*key, 1 + self.rank))
        order = torch.from_numpy(own.permutation(len(images))).to(images.device)
        mixed = torch.lerp(images[order].float(), images.float(), share).round_()
        return MixedBatch(mixed.to(torch.uint8), labels[order], share)

    def loss(
        self, loss: FaceLoss, embeddings: torch.Tensor, labels: torch.Tensor, mixed: MixedBatch
    ) -> torch.Tensor:
        """Loss of the batch that was mixed last: embeddings (N, D), labels int64 (N,).

        Both terms are told from the same classes where a loss draws some: the partners are the same
        people in another order.
        """
        epoch, batch = self._place
        loss.start_epoch(epoch, batch)
        value = mixed.share * loss(embeddings, labels)
        loss.start_epoch(epoch, batch)
        self._place = (epoch, batch + 1)
        total: torch.Tensor = value + (1 - mixed.share) * loss(embeddings, mixed.partners)
        return total
