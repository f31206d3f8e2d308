"""Groups of pictures whose fingerprints are nearly equal, exactly and without all pairs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
from tqdm import tqdm

from siamese.curation.checking.fingerprints import Words

Index = npt.NDArray[np.int64]

FINE_LIMIT = 64
"""Fine bits, of 256, in which near pictures differ at most."""
SEVERAL = -1
"""The owner of a picture that several people have."""

_BANDS, _BAND_BITS = 4, 16
_BLOCK = 1 << 18  # pairs looked at together: they stay in the processor's cache
_DEARER = 16  # times that a candidate costs what a pair costs where all are compared
_FEW = 2048  # so few are compared all with all
_EDGES = 1 << 21  # edges kept before they are thinned to a forest


@dataclass(frozen=True)
class NearGroup:
    """Pictures that near-equal fingerprints connect.

    Attributes:
        members: their positions, rising.
        distance: coarse bits in which the closest two differ.
    """

    members: tuple[int, ...]
    distance: int


def near_groups(
    fingerprints: Words, near: int, owners: Index, *, fine_limit: int = FINE_LIMIT
) -> list[NearGroup]:
    """Connect pictures that look nearly the same and do not belong to one and the same owner.

    Two pictures are near when their coarse words differ in at most ``near`` bits and their fine
    words in at most ``fine_limit``. Equal fingerprints are one point of the graph, so a thousand
    copies of one picture cost no more than one.

    Args:
        fingerprints: uint64 (N, 5), see :func:`siamese.curation.checking.fingerprints.as_words`.
        near: 0 to 64.
        owners: int64 (N,); two pictures of one owner are not connected, unless it is ``SEVERAL``.
        fine_limit: 0 to 256.

    Returns:
        The connected groups of two pictures and more, by their first member.
    """
    if len(fingerprints) < 2:
        return []
    points, point_of = np.unique(fingerprints, axis=0, return_inverse=True)
    point_of = np.asarray(point_of, np.int64).reshape(-1)
    point_owner = _common_owner(point_of, owners, len(points))
    edges = near_pairs(points[:, 0], near)
    forest = _forest(_allowed(edges, points, point_owner, fine_limit), len(points))
    label = connected_components(forest, directed=False)[1]
    # Equal fingerprints of several owners are a group without any edge.
    sizes = np.bincount(point_of, minlength=len(points))
    joined = np.bincount(label)[label] > 1
    grouped = joined | ((sizes > 1) & (point_owner == SEVERAL))
    closest = np.full(label.max() + 1, 64, np.int64)
    np.minimum.at(closest, label[forest.coords[0]], forest.data.astype(np.int64) - 1)
    np.minimum.at(closest, label[grouped & (sizes > 1) & (point_owner == SEVERAL)], 0)
    members: dict[int, list[int]] = {}
    for at in np.nonzero(grouped[point_of])[0].tolist():
        members.setdefault(int(label[point_of[at]]), []).append(at)
    return [NearGroup(tuple(group), int(closest[key])) for key, group in members.items()]


def near_pairs(words: Words, near: int) -> Iterator[tuple[Index, Index, Index]]:
    """All pairs of words that differ in at most ``near`` bits, each once.

    Multi-index hashing (Norouzi, Punjani & Fleet, "Fast Search in Hamming Space with Multi-Index
    Hashing", 2012): of four bands of 16 bits, one differs in at most ``near // 4``; so the
    candidates are the words that share a band up to so many bits. Where that is no gain, all
    pairs are compared.

    Args:
        words: uint64 (N,).
        near: 0 to 64.

    Yields:
        Blocks of ``first < second`` and ``distance``, int64 (M,) each; memory is bounded.
    """
    flips = near // _BANDS
    pairs = len(words) * (len(words) - 1) // 2
    if len(words) <= _FEW or flips > 4 or _DEARER * _candidates(words, flips) > pairs:
        yield from _compared(words, near)
        return
    for first, second in _banded_pairs(words, flips):
        distance = ones(words[first] ^ words[second])
        kept = distance <= near
        if kept.any():
            yield first[kept], second[kept], distance[kept]


def ones(words: Words) -> Index:
    """Number of set bits of each word, int64."""
    return _ones_of(words).astype(np.int64)


def _ones_of(words: Words) -> npt.NDArray[np.uint8]:
    if hasattr(np, "bitwise_count"):  # numpy 2
        return np.bitwise_count(words)
    octets = np.ascontiguousarray(words).view(np.uint8).reshape(*words.shape, 8)
    return np.asarray(_ones_of_octets()[octets].sum(axis=-1, dtype=np.uint8))


@cache
def _ones_of_octets() -> npt.NDArray[np.uint8]:
    return np.array([value.bit_count() for value in range(256)], np.uint8)


def _common_owner(point_of: Index, owners: Index, points: int) -> Index:
    lowest = np.full(points, np.iinfo(np.int64).max)
    highest = np.full(points, np.iinfo(np.int64).min)
    np.minimum.at(lowest, point_of, owners)
    np.maximum.at(highest, point_of, owners)
    return np.where(lowest == highest, lowest, SEVERAL)


def _allowed(
    edges: Iterable[tuple[Index, Index, Index]], points: Words, owner: Index, fine_limit: int
) -> Iterator[tuple[Index, Index, Index]]:
    for first, second, distance in edges:
        kept = (owner[first] != owner[second]) | (owner[first] == SEVERAL)
        first, second, distance = first[kept], second[kept], distance[kept]
        kept = ones(points[first, 1:] ^ points[second, 1:]).sum(axis=1) <= fine_limit
        yield first[kept], second[kept], distance[kept]


def _forest(edges: Iterable[tuple[Index, Index, Index]], points: int) -> coo_array:
    """A minimum spanning forest: the same groups, and the closest pair of each, in few edges.

    Its weights are distances plus 1, as a sparse matrix has no edge of weight 0.
    """
    kept: list[tuple[Index, Index, Index]] = [(np.zeros(0, np.int64),) * 3]
    for block in edges:
        kept.append(block)
        if sum(len(part[0]) for part in kept) > _EDGES:
            thinned = _thinned(kept, points)
            first, second = thinned.coords
            distance = thinned.data.astype(np.int64) - 1
            kept = [(first.astype(np.int64), second.astype(np.int64), distance)]
    return _thinned(kept, points)


def _thinned(edges: list[tuple[Index, Index, Index]], points: int) -> coo_array:
    first, second, distance = (np.concatenate(part) for part in zip(*edges, strict=True))
    graph = coo_array((distance + 1, (first, second)), (points, points)).tocsr()
    return coo_array(minimum_spanning_tree(graph))


def _compared(words: Words, near: int) -> Iterator[tuple[Index, Index, Index]]:
    """All with all, a block of rows at a time."""
    rows = max(1, _BLOCK // max(1, len(words)))
    starts = range(0, len(words), rows)
    bar = tqdm(starts, "comparing", unit="block", disable=None, leave=False, delay=1)
    for start in bar:
        block, rest = words[start : start + rows], words[start:]
        first, second = np.nonzero(_ones_of(block[:, None] ^ rest) <= near)
        kept = first < second
        if kept.any():
            first, second = first[kept] + start, second[kept] + start
            yield first, second, ones(words[first] ^ words[second])


def _bands(words: Words) -> Iterator[tuple[int, Index]]:
    for band in range(_BANDS):
        shifted = words >> np.uint64(band * _BAND_BITS)
        yield band, (shifted & np.uint64((1 << _BAND_BITS) - 1)).astype(np.int64)


@cache
def _masks(flips: int) -> tuple[int, ...]:
    """All patterns of at most so many of a band's bits."""
    bits = [1 << bit for bit in range(_BAND_BITS)]
    return tuple(sum(some) for many in range(flips + 1) for some in combinations(bits, many))


def _candidates(words: Words, flips: int) -> int:
    total = 0
    values = np.arange(1 << _BAND_BITS)
    for _, keys in _bands(words):
        counts = np.bincount(keys, minlength=1 << _BAND_BITS)
        total += sum(int(counts @ counts[values ^ mask]) for mask in _masks(flips))
    return total


def _banded_pairs(words: Words, flips: int) -> Iterator[tuple[Index, Index]]:
    for band, keys in _bands(words):
        order = np.argsort(keys, kind="stable")
        counts = np.bincount(keys, minlength=1 << _BAND_BITS)
        starts = np.concatenate([[0], np.cumsum(counts)])
        bar = tqdm(_masks(flips), f"comparing {band + 1}/{_BANDS}", disable=None, leave=False,
                   delay=1)  # fmt: skip
        for mask in bar:
            wanted = keys ^ mask
            for first, second in _expanded(starts[wanted], counts[wanted], order):
                kept = first < second
                first, second = first[kept], second[kept]
                yield _not_before(words, first, second, band, flips)


def _expanded(start: Index, count: Index, order: Index) -> Iterator[tuple[Index, Index]]:
    """Each position with all words of its bucket, a block at a time."""
    rows = np.nonzero(count)[0]
    ends = np.cumsum(count[rows])
    done = 0
    while done < len(rows):
        before = int(ends[done - 1]) if done else 0
        upto = max(done + 1, int(np.searchsorted(ends, before + _BLOCK, side="right")))
        some = rows[done:upto]
        number = count[some]
        within = np.arange(int(number.sum())) - np.repeat(np.cumsum(number) - number, number)
        yield np.repeat(some, number), order[np.repeat(start[some], number) + within]
        done = upto


def _not_before(
    words: Words, first: Index, second: Index, band: int, flips: int
) -> tuple[Index, Index]:
    """Without the pairs that an earlier band has found already."""
    different = words[first] ^ words[second]
    new = np.ones(len(first), bool)
    for earlier, bits in _bands(different):
        if earlier < band:
            new &= ones(bits.astype(np.uint64)) > flips
    return first[new], second[new]
