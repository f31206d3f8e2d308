"""How many genuine and impostor pairs have each score: all that exact figures need."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from siamese.crew import crew
from siamese.errors import UserError
from siamese.verification.scores import (
    LEVELS,
    PairMatrix,
    Tile,
    TileConsumer,
    check_labels,
    level_counts,
    level_scores,
    prepare,
)

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PairCounts:
    """Pairs by score, for every distinct score.

    Attributes:
        score: float64 (S,), distinct, ascending, in [-1, 1].
        genuine: int64 (S,), genuine pairs of exactly that score.
        impostor: int64 (S,), impostor pairs of exactly that score.
        identity_pairs: number of pairs of identities behind the impostor scores: C(P, 2), or
            P - 1 where one target is judged.
    """

    score: Floats
    genuine: Counts
    impostor: Counts
    identities: int
    images: int
    identity_pairs: int

    @cached_property
    def genuine_at_least(self) -> Counts:
        """int64 (S + 1,): genuine pairs of at least each score, and 0 above the highest."""
        return _at_least(self.genuine)

    @cached_property
    def impostor_at_least(self) -> Counts:
        """int64 (S + 1,): impostor pairs of at least each score, and 0 above the highest."""
        return _at_least(self.impostor)

    @property
    def genuine_pairs(self) -> int:
        """G."""
        return int(self.genuine_at_least[0])

    @property
    def impostor_pairs(self) -> int:
        """I."""
        return int(self.impostor_at_least[0])


def _at_least(counts: Counts) -> Counts:
    return np.append(np.cumsum(counts[::-1])[::-1], 0)


class Counter:
    """Counts the pairs of tiles by level. Counters of disjoint tiles add up."""

    def __init__(self, device: torch.device | str = "cpu", zoom: int = 0):
        self._zoom = zoom
        self.genuine = torch.zeros(LEVELS, dtype=torch.int64, device=device)
        self.impostor = torch.zeros(LEVELS, dtype=torch.int64, device=device)

    def add(self, tile: Tile) -> None:
        """Count one tile."""
        self.impostor += level_counts(tile.impostor_levels)
        if tile.genuine is not None:
            self.genuine += level_counts(tile.genuine_levels)

    def counts(self, identities: int, images: int, identity_pairs: int) -> PairCounts:
        """What was counted."""
        levels = torch.nonzero(self.genuine + self.impostor).flatten()
        return PairCounts(
            level_scores(levels.cpu().numpy(), self._zoom),
            self.genuine[levels].cpu().numpy(),
            self.impostor[levels].cpu().numpy(),
            identities,
            images,
            identity_pairs,
        )


def count_pairs(
    embeddings: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> PairCounts:
    """Score and count all unordered pairs of different images.

    Memory beside the embeddings: one tile and two counts of 2 million levels, at any N.

    Args:
        embeddings: (N, D), of any length above 0.
        labels: integers (N,), equal for images of one identity.

    Raises:
        UserError: unusable embeddings or labels; no genuine pair; no impostor pair.
    """
    pairs, (counter,) = counted(_counter, embeddings, labels, device, progress=progress)
    counts: PairCounts = counter.counts(*people_of(pairs))
    return counts


def _counter(
    embeddings: npt.ArrayLike, labels: npt.ArrayLike, device: torch.device | str
) -> tuple[PairMatrix, tuple[Counter]]:
    pairs = PairMatrix(embeddings, labels, device=device)
    return pairs, (Counter(pairs.unit.device, pairs.zoom),)


class Adding(TileConsumer, Protocol):
    """What counts pairs by kind: those of disjoint tiles add up, exactly in any order."""

    genuine: torch.Tensor
    impostor: torch.Tensor


def counted(
    make: Callable[..., tuple[PairMatrix, tuple[Any, ...]]], *given: Any, progress: bool
) -> tuple[PairMatrix, tuple[Any, ...]]:
    """The pair matrix and the :class:`Adding` that ``make(*given)`` makes, with all pairs counted.

    The processes of :mod:`siamese.crew` share the tiles; ``make`` and ``given`` are pickled.
    """
    pairs, counters = make(*given)
    together = crew()
    mine = _part(pairs, counters, 0, together.world, progress)
    [[_, *others]] = together.share(mine, _other_part, make, given)  # all in one round
    for sums in others:
        for counter, (genuine, impostor) in zip(counters, sums, strict=True):
            counter.genuine += genuine.to(counter.genuine.device)
            counter.impostor += impostor.to(counter.impostor.device)
    return pairs, counters


def _part(
    pairs: PairMatrix, counters: tuple[Adding, ...], rank: int, world: int, progress: bool
) -> Iterator[list[tuple[torch.Tensor, torch.Tensor]]]:
    pairs.feed(*counters, progress=progress, part=(rank, world))
    yield [(counter.genuine.cpu(), counter.impostor.cpu()) for counter in counters]


def _other_part(
    rank: int,
    world: int,
    make: Callable[..., tuple[PairMatrix, tuple[Adding, ...]]],
    given: tuple[Any, ...],
) -> Iterator[list[tuple[torch.Tensor, torch.Tensor]]]:
    yield from _part(*make(*given), rank, world, False)


def people_of(pairs: PairMatrix) -> tuple[int, int, int]:
    """Identities, images and pairs of identities of a pair matrix."""
    return pairs.identities, pairs.images, pairs.identities * (pairs.identities - 1) // 2


def count_target(embeddings: npt.ArrayLike, labels: npt.ArrayLike, target: int) -> PairCounts:
    """Count one registered identity against everybody: the classic single-person curve.

    Genuine pairs are those of the target's images; impostor pairs join one of them with an image
    of another identity.

    Raises:
        UserError: as :func:`count_pairs`, and when no image has the target's label.
    """
    prepared = prepare(embeddings)
    identity = check_labels(labels, len(prepared.unit))
    is_target = torch.from_numpy(identity == target)
    if not is_target.any():
        raise UserError("the target has no image among the judged ones")
    count = int(is_target.sum())
    if count < 2:
        raise UserError("no genuine pair: the target has one image only; add another of theirs")
    if count == len(is_target):
        raise UserError("no impostor pair: all images are of the target; add other people")
    counter = Counter(zoom=prepared.zoom)
    everybody = prepared.at(torch.from_numpy(np.argsort(identity != target, kind="stable")))
    position = torch.arange(len(is_target))
    for first in range(0, count, _TARGET_ROWS):
        row = position[first : min(first + _TARGET_ROWS, count), None]
        levels = everybody.levels(row.flatten(), slice(None))
        genuine = (position < count) & (position > row)
        impostor = (position >= count).expand_as(genuine)
        counter.add(Tile(first, 0, levels, genuine, impostor))
    people = len(np.unique(identity))
    return counter.counts(people, len(identity), people - 1)


_TARGET_ROWS = 128


def counts_of(
    scores: npt.ArrayLike,
    same: npt.ArrayLike,
    *,
    identities: int,
    images: int,
    identity_pairs: int,
) -> PairCounts:
    """Counts of listed pairs.

    Args:
        scores: (M,), one score per pair.
        same: bool (M,), whether the pair is genuine.

    Raises:
        UserError: no genuine pair; no impostor pair.
    """
    truth = np.asarray(same, bool)
    if truth.all() or not truth.any():
        missing = "impostor" if truth.any() else "genuine"
        raise UserError(f"no {missing} pair among the {len(truth)} listed ones; add some")
    values, where = np.unique(np.asarray(scores, np.float64), return_inverse=True)
    genuine = np.bincount(where[truth], minlength=len(values))
    impostor = np.bincount(where[~truth], minlength=len(values))
    return PairCounts(values, genuine, impostor, identities, images, identity_pairs)
