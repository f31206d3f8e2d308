"""Which pictures are drawn for each training batch: P x K, or as any sampler of torch says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from torch.utils.data import BatchSampler, Sampler

from siamese.data.labelled_pictures import Draw
from siamese.errors import UserError

# Purposes of random streams: each has draws of its own.
TRAINING, RECALIBRATION, MIXING = 0, 1, 2


class _Batches(Sampler[list[Draw]]):
    """What all draws of training batches share: the key of an epoch's randomness, its batches."""

    seed: int
    batches_per_epoch: int

    def start_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Let the next iteration draw this epoch, from some batch on (for a resume)."""
        self._key = (self.seed, TRAINING, epoch)
        self._range = range(first_batch, self.batches_per_epoch)

    def start_recalibration(self, batches: int, first_batch: int = 0) -> None:
        """Let the next iteration draw the fixed batches of batch-norm recalibration."""
        self._key = (self.seed, RECALIBRATION, 0)
        self._range = range(first_batch, batches)

    def __len__(self) -> int:
        return len(self._range)


class PKBatches(_Batches):
    """Batches of P people with K pictures each, drawn as PML's ``MPerClassSampler`` draws them.

    People with fewer than K pictures give each of theirs, some of them again; people with a single
    picture are never drawn, as they have no genuine pair. With fewer than P people a batch holds
    all of them. The order depends on (seed, epoch) alone. Of several training processes each gets
    some of a batch's people; together they draw what one alone would.

    Args:
        labels: one label per picture.
        images_per_epoch: pictures drawn per epoch, rounded down to whole batches, at least one
            batch; None: as many as there are.

    Raises:
        UserError: fewer than two people with two pictures; more processes than people in a batch.
    """

    def __init__(
        self,
        labels: Sequence[int],
        people: int,
        images: int,
        images_per_epoch: int | None = None,
        seed: int = 0,
        *,
        rank: int = 0,
        world: int = 1,
    ):
        values = np.asarray(labels)
        counts = np.bincount(values)
        self._usable = np.flatnonzero(counts[values] >= 2)
        self._labels = values[self._usable]
        found, begins = np.unique(self._labels, return_index=True)
        if len(found) < 2:
            raise UserError(
                "training needs at least two people with two pictures each; "
                f"{len(found)} found: add pictures or lower `split.validation`"
            )
        # Per person, in the order of their first pictures: positions among the usable ones.
        places = np.split(np.argsort(self._labels, kind="stable"), np.cumsum(counts[found])[:-1])
        self._pictures = {int(found[at]): places[at] for at in np.argsort(begins)}
        self.people = min(people, len(found))
        self.images = images
        if self.people < world:
            raise UserError(
                f"`batches.people`: {self.people} people cannot be shared by {world} processes"
            )
        self._share = range(self.people * images)
        if world > 1:
            first, after = (self.people * at // world * images for at in (rank, rank + 1))
            self._share = range(first, after)
        self.batch_size = self.people * images
        drawn = images_per_epoch or len(values)
        self.batches_per_epoch = max(1, drawn // self.batch_size)
        self.seed = seed
        self.start_epoch(0)

    @property
    def drawn(self) -> str:
        """What a batch holds, in words."""
        return f"{self.people} people x {self.images} pictures"

    def __iter__(self) -> Iterator[list[Draw]]:
        order = self._draw_order(self._range.stop)
        for batch in self._range:
            positions = [batch * self.batch_size + place for place in self._share]
            yield [
                Draw(int(self._usable[order[at]]), derive_seed(*self._key, at)) for at in positions
            ]

    def _draw_order(self, batches: int) -> list[int]:
        """Positions among the usable pictures, batch after batch."""
        generator = np.random.RandomState(derive_seed(*self._key) % 2**32)
        shuffled = list(self._pictures)
        order: list[int] = []
        for _ in range(batches):
            generator.shuffle(shuffled)
            for person in shuffled[: self.people]:
                own = self._pictures[person]
                few = len(own) < self.images
                drawn = generator.choice(own, size=self.images, replace=few)
                order += drawn.tolist()
        # Where a person has fewer than K pictures PML may draw K times the same one.
        for first in range(0, len(order), self.images):
            own = self._pictures[int(self._labels[order[first]])]
            if len(own) < self.images:
                shares = np.resize(generator.permutation(own), self.images)
                order[first : first + self.images] = shares.tolist()
        return order


class SampledBatches(_Batches):
    """Batches of any torch sampler over the training pictures.

    The order is the sampler's own affair: where it is not a function of its ``set_epoch``, a
    resumed run draws other batches than the uninterrupted one would have.

    Args:
        batch_size: pictures per batch, where it gives single positions.

    Raises:
        UserError: the sampler has no length, or less than one batch.
    """

    def __init__(self, sampler: Iterable[Any], batch_size: int, seed: int = 0):
        first = next(iter(sampler), None)
        single = not isinstance(first, list | tuple)
        self._sampler = BatchSampler(sampler, batch_size, drop_last=True) if single else sampler
        self._inner, self.seed, self.batch_size = sampler, seed, batch_size
        try:
            self.batches_per_epoch = len(self._sampler)  # type: ignore[arg-type]
        except TypeError:
            raise UserError("`sampler`: has no length; give it a __len__") from None
        if self.batches_per_epoch < 1:
            raise UserError(f"`sampler`: gives less than one batch of {batch_size}")
        self.start_epoch(0)

    @property
    def drawn(self) -> str:
        """What a batch holds, in words."""
        return f"pictures that {type(self._inner).__name__} chooses"

    def start_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Let the next iteration draw this epoch, from some batch on (for a resume)."""
        set_epoch = getattr(self._inner, "set_epoch", None)
        if callable(set_epoch):
            set_epoch(epoch)
        super().start_epoch(epoch, first_batch)

    def start_recalibration(self, batches: int, first_batch: int = 0) -> None:
        """Let the next iteration draw an epoch's first batches, for batch-norm recalibration."""
        self.start_epoch(0)
        super().start_recalibration(min(batches, self.batches_per_epoch), first_batch)

    def __iter__(self) -> Iterator[list[Draw]]:
        drawn = islice(self._sampler, self._range.start, self._range.stop)
        for batch, positions in zip(self._range, drawn, strict=False):
            stream = (*self._key, batch)
            yield [Draw(int(p), derive_seed(*stream, at)) for at, p in enumerate(positions)]


def derive_seed(*parts: int) -> int:
    """A 63-bit seed from a few non-negative integers; nearby parts give unrelated seeds."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
