"""Batches that are the same each time, kept in memory instead of read again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import torch

from siamese.data.loaders import Batch


class KeptBatches:
    """The first batches of each list of pictures, as many as there is room for.

    A picture that could not be read when its batch was kept stays left out of it.

    Args:
        room: bytes of pictures that are kept at most, of all lists together.
    """

    def __init__(self, room: int):
        self._room, self._full = room, False
        self._kept: dict[str, list[Batch]] = {}

    def read(
        self, name: str, number: int, load: Callable[[int], Iterable[Batch]]
    ) -> Iterator[Batch]:
        """The first batches of a list: those that are kept, then those that are loaded.

        Args:
            name: of the list.
            number: of batches that are wanted.
            load: gives its batches from some batch on, up to that number.
        """
        kept = self._kept.setdefault(name, [])
        known = min(len(kept), number)
        yield from kept[:known]
        if known == number:
            return
        for batch in load(known):
            self._keep(kept, batch)
            yield batch

    def _keep(self, kept: list[Batch], batch: Batch) -> None:
        size = batch.images.nbytes
        # Behind the first one that does not fit none is kept: no list has a gap.
        self._full |= size > self._room
        if self._full:
            return
        self._room -= size
        kept.append(
            replace(
                batch,
                images=_own(batch.images),
                labels=_own(batch.labels),
                indices=_own(batch.indices),
                numbers=None if batch.numbers is None else _own(batch.numbers),
            )
        )


def _own(tensor: torch.Tensor) -> torch.Tensor:
    """In this process's memory: what is shared with loaders is small, and each takes a handle."""
    return tensor.clone() if tensor.is_shared() else tensor  # type: ignore[no-untyped-call]
