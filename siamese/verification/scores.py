"""Scores of all unordered pairs: cosine similarity in fp32, tile by tile.

A score is rounded to the nearest multiple of 2**-20, about a millionth. fp32 sums of several
hundred products are no more certain than that: another block shape, thread count or device gives
other last bits. Rounded, pairs that are equal in exact arithmetic (duplicates, collapsed
embeddings) are equal here, and the pairs of any number of images fit into one count per score.

Where all embeddings point nearly the same way (a margin that was never learned, a network without a
last normalisation) their scores differ by less than that, and an fp32 cosine holds hardly a digit
of the difference. There the grid is zoomed: its levels divide the range below 1 that scores can lie
in, and scores come from the embeddings' distances to their mean: see :func:`prepare`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from siamese.errors import UserError

Labels = npt.NDArray[np.int64]

# Scores are whole multiples of 1 / SCALE; a score's level is the integer (score + 1) * SCALE.
SCALE = 2**20
LEVELS = 2 * SCALE + 1

# Zoomed where all scores lie within 1 / 32 of 1. Beyond a zoom of 40 embeddings differ by the last
# bits of a float32 only: they are taken as equal.
_LEAST_ZOOM, _MOST_ZOOM = 6, 40

# Fixed, so that a tile's shape depends on the images and labels only.
_ROWS = 512
_COLUMNS = 32768


def normalise(embeddings: npt.ArrayLike) -> torch.Tensor:
    """Embeddings to unit length.

    Args:
        embeddings: (N, D), integers or floats.

    Returns:
        float32 (N, D) on the CPU.

    Raises:
        UserError: not two-dimensional, no numbers, NaN or Inf, or a vector of length 0.
    """
    array = np.asarray(embeddings)
    if array.ndim != 2 or array.shape[1] == 0 or array.dtype.kind not in "iuf":
        raise UserError(
            f"embeddings must be numbers of shape (N, D); these are {array.dtype} {array.shape}"
        )
    with np.errstate(over="ignore"):  # beyond float32 they are Inf, which is refused below
        vectors = np.ascontiguousarray(array, dtype=np.float32)
    broken = int((~np.isfinite(vectors).all(axis=1)).sum())
    if broken:
        raise UserError(
            f"{broken} of {len(vectors)} embeddings hold NaN or Inf: embed again in fp32, or use "
            "another checkpoint"
        )
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
    if (lengths == 0).any():
        first = int(np.argmin(lengths))
        raise UserError(
            f"{int((lengths == 0).sum())} of {len(vectors)} embeddings are all zeros (the first at "
            f"position {first}): a zero vector has no direction; leave it out or embed it again"
        )
    # Divided in float64, rounded once, without a float64 copy of everything.
    unit = np.empty_like(vectors)
    np.divide(vectors, lengths[:, None], out=unit, casting="same_kind")
    return torch.from_numpy(unit)


@dataclass(frozen=True)
class Prepared:
    """Embeddings whose products are scores.

    Attributes:
        unit: float32 (N, D) of unit length.
        rows: float32 (N, D) or (N, D + 2): what stands for an image as a row of the pair matrix.
        zoom: scores lie in [1 - 2**(1 - zoom), 1] on a grid of 2**-(20 + zoom); 0: no zoom.
    """

    unit: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor
    zoom: int

    def at(self, order: torch.Tensor, device: torch.device | str = "cpu") -> Prepared:
        """Some images, in an order, on a device."""
        unit = self.unit[order].to(device)
        if self.zoom == 0:
            return Prepared(unit, unit, unit, 0)
        return Prepared(
            unit, self.rows[order].to(device), self.columns[order].to(device), self.zoom
        )

    def levels(self, rows: slice | torch.Tensor, columns: slice | torch.Tensor) -> torch.Tensor:
        """:func:`score_levels` of some images with some others."""
        return score_levels(self.rows[rows], self.columns[columns], self.zoom)


def prepare(embeddings: npt.ArrayLike) -> Prepared:
    """Embeddings ready to be scored, zoomed where all of them point nearly the same way.

    With the mean m and distances ``d = u - m`` a score is ``1 - |d_i - d_j|**2 / 2``, all terms of
    the size of the differences, so that an fp32 product keeps their digits. No score is below
    ``1 - 2 max |d|**2``, from which the zoom follows.

    Args:
        embeddings: (N, D), integers or floats.

    Raises:
        UserError: see :func:`normalise`.
    """
    unit = normalise(embeddings)
    plain = Prepared(unit, unit, unit, 0)
    # All within r of the mean are within 2 r of the first: most embeddings are told apart at once.
    if len(unit) == 0 or float((unit @ unit[0]).min()) < 1 - 2 * 2.0**-_LEAST_ZOOM:
        return plain
    exact = exact_unit(embeddings)
    distance = exact - exact.mean(0)
    squared = distance.square().sum(1)
    widest = float(squared.max())
    if widest < 2.0**-_MOST_ZOOM:
        return plain
    zoom = math.floor(-math.log2(widest))
    if zoom < _LEAST_ZOOM:
        return plain
    d, half, one = distance.float(), (squared / 2).float()[:, None], torch.ones(len(unit), 1)
    return Prepared(unit, torch.cat([d, -half, -one], 1), torch.cat([d, one, half], 1), zoom)


def exact_unit(embeddings: npt.ArrayLike) -> torch.Tensor:
    """Embeddings to unit length in double precision: float64 (N, D) on the CPU."""
    vectors = torch.from_numpy(np.asarray(embeddings, np.float64))
    return torch.nn.functional.normalize(vectors, eps=0.0)


def check_labels(labels: npt.ArrayLike, images: int) -> Labels:
    """Labels as int64 (N,).

    Raises:
        UserError: not integers, not one per image, beyond int64.
    """
    array = np.asarray(labels)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise UserError(
            f"labels must be integers of shape (N,); these are {array.dtype} {array.shape}"
        )
    if len(array) != images:
        raise UserError(f"{len(array)} labels for {images} embeddings: one per image is needed")
    if len(array) and int(array.max()) > np.iinfo(np.int64).max:
        raise UserError(f"the label {array.max()} is above 2**63 - 1: number the people from 0")
    return array.astype(np.int64)


@dataclass(frozen=True)
class Tile:
    """Scores of some rows with some columns of the pair matrix.

    Attributes:
        levels: int32 (R, C), level of each score: (score + 1) * SCALE. Valid until the next tile.
        genuine: bool (R, C), which are genuine pairs; None: none of them.
        impostor: bool (R, C), which are impostor pairs; None: all of them.
    """

    first_row: int
    first_column: int
    levels: torch.Tensor
    genuine: torch.Tensor | None
    impostor: torch.Tensor | None

    @property
    def impostor_levels(self) -> torch.Tensor:
        """int32, one-dimensional."""
        return self.levels.flatten() if self.impostor is None else self.levels[self.impostor]

    @property
    def genuine_levels(self) -> torch.Tensor:
        """int32, one-dimensional."""
        return self.levels.new_empty(0) if self.genuine is None else self.levels[self.genuine]


class TileConsumer(Protocol):
    """What takes tiles."""

    def add(self, tile: Tile) -> None:
        """Take one tile; its levels are not kept."""


class PairMatrix:
    """All unordered pairs of different images, told apart by position.

    True duplicates therefore count as the genuine pairs they are, and no image meets itself.
    Images are put into the order of their identities, so that genuine pairs lie in narrow tiles
    along the diagonal and all others hold impostor pairs only.

    Args:
        embeddings: (N, D), of any length above 0.
        labels: integers (N,), equal for images of one identity.
        groups: integers (N,), a coarser key that the images are ordered by first; images of one
            identity share it.
        device: where scores are computed: a CUDA device, else the CPU.

    Attributes:
        order: int64 (N,), positions of the caller's images in the matrix's order.
        identity: int64 (N,), 0 ... P - 1, never falling, in the matrix's order.

    Raises:
        UserError: unusable embeddings or labels; no genuine pair; no impostor pair.
    """

    def __init__(
        self,
        embeddings: npt.ArrayLike,
        labels: npt.ArrayLike,
        *,
        groups: npt.ArrayLike | None = None,
        device: torch.device | str = "cpu",
    ):
        prepared = prepare(embeddings)
        checked = check_labels(labels, len(prepared.unit))
        keys = (checked,) if groups is None else (checked, np.asarray(groups))
        self.order = np.lexsort(keys)
        ordered = checked[self.order]
        self.identity = np.cumsum(np.append(0, ordered[1:] != ordered[:-1])[: len(ordered)])
        self.counts = np.bincount(self.identity)
        _require_pairs(self.genuine_pairs, self.impostor_pairs)
        # Other accelerators lack some of what counting needs.
        place = torch.device(device) if torch.device(device).type == "cuda" else "cpu"
        self.prepared = prepared.at(torch.from_numpy(self.order), place)

    @property
    def unit(self) -> torch.Tensor:
        """float32 (N, D) of unit length on the device, in the matrix's order."""
        return self.prepared.unit

    @property
    def zoom(self) -> int:
        """Of the grid that levels are on."""
        return self.prepared.zoom

    @property
    def images(self) -> int:
        """N."""
        return len(self.identity)

    @property
    def identities(self) -> int:
        """P."""
        return len(self.counts)

    @property
    def genuine_pairs(self) -> int:
        """Number of unordered pairs of one identity."""
        return int((self.counts * (self.counts - 1) // 2).sum())

    @property
    def impostor_pairs(self) -> int:
        """Number of unordered pairs of two identities."""
        return len(self.identity) * (len(self.identity) - 1) // 2 - self.genuine_pairs

    @cached_property
    def starts(self) -> Labels:
        """int64 (P,): position of each identity's first image, in the matrix's order."""
        return np.cumsum(self.counts) - self.counts

    def tiles(self, *, progress: bool = False, part: tuple[int, int] = (0, 1)) -> Iterator[Tile]:
        """Every pair once; nothing is carried from one tile to the next.

        ``part`` (0, 3): of every three tiles the first.
        """
        first, step = part
        with tqdm(
            total=self.genuine_pairs + self.impostor_pairs,
            desc="scoring pairs",
            unit="pair",
            unit_scale=True,
            leave=False,
            disable=None if progress else True,
        ) as bar:
            for rows, columns, mixed in islice(self._bounds(), first, None, step):
                levels = self.prepared.levels(rows, columns)
                yield (
                    self._tile(rows, columns, levels)
                    if mixed
                    else Tile(rows.start, columns.start, levels, None, None)
                )
                bar.update(levels.numel() * step)

    def feed(
        self, *consumers: TileConsumer, progress: bool = False, part: tuple[int, int] = (0, 1)
    ) -> None:
        """Hand every tile, or a part of them, to each of the consumers; no score is computed twice
        for them.
        """
        for tile in self.tiles(progress=progress, part=part):
            for consumer in consumers:
                consumer.add(tile)

    def _bounds(self) -> Iterator[tuple[slice, slice, bool]]:
        """Rows, columns, and whether there can be other than impostor pairs among them."""
        for first in range(0, self.images, _ROWS):
            rows = slice(first, min(first + _ROWS, self.images))
            last = self.identity[rows.stop - 1]
            near = int(self.starts[last] + self.counts[last])
            for start, stop, mixed in ((first, near, True), (near, self.images, False)):
                for column in range(start, stop, _COLUMNS):
                    yield rows, slice(column, min(column + _COLUMNS, stop)), mixed

    def _tile(self, rows: slice, columns: slice, levels: torch.Tensor) -> Tile:
        device = levels.device
        identity = torch.from_numpy(self.identity)
        same = identity[rows, None].to(device) == identity[columns].to(device)
        row = torch.arange(rows.start, rows.stop, device=device)
        upper = torch.arange(columns.start, columns.stop, device=device) > row[:, None]
        return Tile(rows.start, columns.start, levels, upper & same, upper & ~same)


@torch.inference_mode()
def score_levels(rows: torch.Tensor, columns: torch.Tensor, zoom: int = 0) -> torch.Tensor:
    """Levels of the cosine similarities of unit vectors: (score + 1) * SCALE, rounded.

    Args:
        rows: float32 (R, D) of unit length, or of :class:`Prepared`.
        columns: the same (C, D), same device.
        zoom: where there is one, the product is score - 1.

    Returns:
        int32 (R, C) in [0, 2 * SCALE].
    """
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")  # no TF32, no bfloat16
    try:
        with torch.autocast(rows.device.type, enabled=False):
            # Powers of two scale without rounding.
            product = (rows * (SCALE * 2.0**zoom)) @ columns.T
    finally:
        torch.set_float32_matmul_precision(precision)
    # Sums of D rounded products may pass 1 by a few last bits.
    return product.round_().add_(2 * SCALE if zoom else SCALE).clamp_(0, 2 * SCALE).to(torch.int32)


def listed_scores(
    unit: torch.Tensor, first: npt.ArrayLike, second: npt.ArrayLike, zoom: int = 0
) -> npt.NDArray[np.float64]:
    """Scores of listed pairs, rounded as all scores are.

    Args:
        unit: float32 (N, D) of unit length, on the CPU; with a zoom float64.
        first: positions (M,) of one image of each pair.
        second: positions (M,) of the other.

    Returns:
        float64 (M,) in [-1, 1].
    """
    vectors, one, other = unit.numpy(), np.asarray(first), np.asarray(second)
    products = np.zeros(len(one))
    for start in range(0, len(one), _ROWS):
        part = slice(start, start + _ROWS)
        products[part] = np.einsum(
            "md,md->m", vectors[one[part]], vectors[other[part]], dtype=np.float64
        )
    return np.asarray(np.clip(np.round(products * SCALE * 2.0**zoom) / SCALE / 2.0**zoom, -1, 1))


def level_counts(levels: torch.Tensor, bins: int = LEVELS) -> torch.Tensor:
    """How often each level occurs.

    Args:
        levels: integers in [0, bins), one-dimensional.

    Returns:
        int64 (bins,), on the same device.
    """
    if levels.device.type != "cpu" or len(levels) < 8 * bins:
        return torch.bincount(levels, minlength=bins)
    # PyTorch counts on one core; a count per core costs its memory, so a few at the most.
    cores = min(torch.get_num_threads(), os.cpu_count() or 1, 4)
    with ThreadPoolExecutor(cores) as pool:
        parts = pool.map(lambda part: torch.bincount(part, minlength=bins), levels.chunk(cores))
        return sum(parts, torch.zeros(bins, dtype=torch.int64))


def level_scores(levels: npt.ArrayLike, zoom: int = 0) -> npt.NDArray[np.float64]:
    """Scores in [-1, 1] of levels; exact."""
    below_one = np.asarray(levels, np.float64) / SCALE - 2
    return np.asarray(1 + below_one / 2.0**zoom)


def levels_of(scores: npt.ArrayLike, zoom: int = 0) -> Labels:
    """The nearest levels of scores, int64."""
    levels = np.round((np.asarray(scores, np.float64) - 1) * SCALE * 2.0**zoom) + 2 * SCALE
    return np.clip(levels, 0, LEVELS - 1).astype(np.int64)


def score_level(score: float, zoom: int = 0) -> int:
    """The lowest level that is at least a score (a threshold)."""
    if zoom:  # near 1 the difference is exact; beyond the grid the level is, too
        return int(np.clip(np.ceil((score - 1) * SCALE * 2.0**zoom) + 2 * SCALE, 0, LEVELS))
    # Not (score + 1) * SCALE: a threshold just above 0 would be rounded to 0.
    return int(np.ceil(score * SCALE)) + SCALE


def _require_pairs(genuine: int, impostor: int) -> None:
    if genuine == 0:
        raise UserError("no genuine pair: nobody has two images; add images of the same people")
    if impostor == 0:
        raise UserError("no impostor pair: all images are of one person; add other people")
