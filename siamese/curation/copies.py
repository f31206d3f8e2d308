"""Pictures that are there more than once: the same bytes, or nearly the same to the eye."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import DisjointSet
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
from tqdm import tqdm

from siamese.curation.contents import Contents
from siamese.curation.findings import is_blank
from siamese.curation.inspection import FileFacts, Words, as_words

Index = npt.NDArray[np.int64]
Edges = tuple[Index, Index, Index]  # first, second, distance

FINE_LIMIT = 64
"""Fine bits, of 256, in which near pictures differ at most."""
SEVERAL = -1
"""The owner of a picture that several people have."""

_MOST_PEOPLE = 30  # a file that more people have says nothing about two of them
_EDGES = 1 << 21  # edges kept before they are thinned to a forest


@dataclass(frozen=True)
class Shot:
    """A usable picture, as far as copies of it are concerned.

    ``fingerprint`` is None for a picture of one colour, which is like no other; ``pixels`` is its
    area, ``size`` its bytes.
    """

    path: str
    person: str
    content: str
    fingerprint: str | None
    pixels: int
    size: int
    is_link: bool = False


def usable_shots(contents: Contents, facts: Mapping[str, FileFacts]) -> list[Shot]:
    """The usable pictures of all people."""
    return [
        Shot(
            file.path,
            person,
            seen.content,
            None if is_blank(seen) else seen.fingerprint,
            seen.width * seen.height,
            file.size,
            file.is_link,
        )
        for person, files in contents.people.items()
        for file in files
        if (seen := facts[file.path]).status == "usable"
    ]


@dataclass(frozen=True)
class Copies:
    """Pictures that show one thing.

    Attributes:
        shots: the best first.
        distance: coarse fingerprint bits in which the closest differ; 0 for the same bytes.
    """

    shots: tuple[Shot, ...]
    distance: int = 0

    def people(self) -> set[str]:
        """In whose folders they lie."""
        return {shot.person for shot in self.shots}


def exact_copies(shots: Sequence[Shot]) -> tuple[list[Copies], list[Copies]]:
    """The same bytes within one person's folder, and in several people's folders.

    A file that is twice in one folder and once in another is in both lists.
    """
    within, across = [], []
    for same in _grouped(shots, "content").values():
        by_person = _grouped(same, "person")
        within += [Copies(_best_first(mine)) for mine in by_person.values() if len(mine) > 1]
        if len(by_person) > 1:
            across.append(Copies(tuple(same)))
    return within, across


def near_copies(shots: Sequence[Shot], near: int) -> tuple[list[Copies], list[Copies]]:
    """Pictures that look nearly the same, within one folder and in several people's folders.

    The same bytes count as one picture here. In the second list each picture is near to one of
    somebody else; in the first to one of its own folder. ``near`` coarse fingerprint bits may
    differ.
    """
    hashed = [shot for shot in shots if shot.fingerprint is not None]
    people = _grouped(hashed, "person")
    within = []
    for mine in tqdm(people.values(), "near-duplicates", unit="person", disable=None, leave=False):
        pictures = [same[0] for same in _grouped(mine, "content").values()]
        for members, distance in near_groups(
            _words(pictures), near, np.full(len(pictures), SEVERAL)
        ):
            within.append(Copies(_best_first([pictures[at] for at in members]), distance))
    number = {person: position for position, person in enumerate(people)}
    contents = list(_grouped(hashed, "content").values())
    owners = [
        number[same[0].person] if len({shot.person for shot in same}) == 1 else SEVERAL
        for same in contents
    ]
    words = _words([same[0] for same in contents])
    across = [
        Copies(tuple(shot for at in members for shot in contents[at]), distance)
        for members, distance in near_groups(words, near, np.array(owners, np.int64))
    ]
    return within, across


def _grouped(shots: Sequence[Shot], attribute: str) -> dict[str, list[Shot]]:
    groups: dict[str, list[Shot]] = defaultdict(list)
    for shot in shots:
        groups[getattr(shot, attribute)].append(shot)
    return groups


def superfluous(copies: Copies, near: int) -> list[Shot]:
    """Those near copies that have a better one, which stays, near to them."""
    words = _words(copies.shots)
    kept: list[int] = []
    gone = []
    for position, shot in enumerate(copies.shots):
        different = words[kept] ^ words[position]
        close = np.bitwise_count(different[:, 0]) <= near
        close &= np.bitwise_count(different[:, 1:]).sum(axis=1) <= FINE_LIMIT
        if close.any():
            gone.append(shot)
        else:
            kept.append(position)
    return gone


def people_who_share(across: Sequence[Copies], counts: Mapping[str, int]) -> dict[str, str]:
    """People who have half of the smaller folder's pictures in common, and two at least.

    Returns:
        Per such person the first name of the group it belongs to.
    """
    shared: Counter[tuple[str, str]] = Counter()
    for copies in across:
        people = sorted(copies.people())
        if len(people) <= _MOST_PEOPLE:
            shared.update(combinations(people, 2))
    return groups_of(
        pair
        for pair, number in shared.items()
        if number >= 2 and 2 * number >= min(counts[name] for name in pair)
    )


def groups_of(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Per name the least name of all that pairs connect it with."""
    connected = DisjointSet()
    for first, second in pairs:
        connected.add(first)
        connected.add(second)
        connected.merge(first, second)
    least = {connected[name]: name for name in sorted(connected, reverse=True)}
    return {name: least[connected[name]] for name in connected}


def _words(shots: Sequence[Shot]) -> Words:
    return as_words([shot.fingerprint or "" for shot in shots])


def _best_first(shots: Sequence[Shot]) -> tuple[Shot, ...]:
    """The largest first, files before links to them."""

    def rank(shot: Shot) -> tuple[bool, int, int, int, str]:
        return shot.is_link, -shot.pixels, -shot.size, len(shot.path), shot.path

    return tuple(sorted(shots, key=rank))


def near_groups(fingerprints: Words, near: int, owners: Index) -> list[tuple[tuple[int, ...], int]]:
    """Connect pictures that look nearly the same and do not belong to one and the same owner.

    Two pictures are near when their coarse words differ in at most ``near`` bits and their fine
    words in at most ``FINE_LIMIT``. Equal fingerprints are one point of the graph, so a thousand
    copies of one picture cost no more than one.

    Args:
        fingerprints: uint64 (N, 5), see :func:`siamese.curation.inspection.as_words`.
        near: 0 to 64.
        owners: int64 (N,); two pictures of one owner are not connected, unless it is ``SEVERAL``.

    Returns:
        Of each connected group the rising positions of its pictures, two or more, and the coarse
        bits in which the closest two differ; by their first member.
    """
    if len(fingerprints) < 2:
        return []
    points, point_of = np.unique(fingerprints, axis=0, return_inverse=True)
    point_of = np.asarray(point_of, np.int64).reshape(-1)
    point_owner = _common_owner(point_of, owners, len(points))
    forest = _forest(near_pairs(points, near, point_owner), len(points))
    label = connected_components(forest, directed=False)[1]
    # Equal fingerprints of several owners are a group without any edge.
    sizes = np.bincount(point_of, minlength=len(points))
    joined = np.bincount(label)[label] > 1
    grouped = joined | ((sizes > 1) & (point_owner == SEVERAL))
    closest = np.full(label.max() + 1, 64, np.int64)
    np.minimum.at(closest, label[forest.coords[0]], forest.data.astype(np.int64) - 1)
    np.minimum.at(closest, label[grouped & (sizes > 1) & (point_owner == SEVERAL)], 0)
    members: dict[int, list[int]] = {}
    for position in np.nonzero(grouped[point_of])[0].tolist():
        members.setdefault(int(label[point_of[position]]), []).append(position)
    return [(tuple(group), int(closest[key])) for key, group in members.items()]


def near_pairs(fingerprints: Words, near: int, owners: Index) -> Iterator[Edges]:
    """All pairs of fingerprints that are near and of different owners, each once.

    Every coarse word is compared with all that follow it: 100,000 pictures take about 5 seconds of
    one core (``scripts/bench_check.py`` measures it). Arguments as of :func:`near_groups`.

    Yields:
        Blocks of ``first < second`` and the distance in coarse bits, int64 (M,) each.
    """
    coarse = np.ascontiguousarray(fingerprints[:, 0])
    rows = tqdm(range(len(coarse) - 1), "comparing", disable=None, leave=False, delay=1)
    for row in rows:
        distance = np.bitwise_count(coarse[row + 1 :] ^ coarse[row])
        second = np.flatnonzero(distance <= near) + row + 1
        if owners[row] != SEVERAL:
            second = second[owners[second] != owners[row]]
        if len(second):
            fine = np.bitwise_count(fingerprints[second, 1:] ^ fingerprints[row, 1:])
            second = second[fine.sum(axis=1) <= FINE_LIMIT]
            yield np.full(len(second), row), second, distance[second - row - 1].astype(np.int64)


def _common_owner(point_of: Index, owners: Index, points: int) -> Index:
    lowest = np.full(points, np.iinfo(np.int64).max)
    highest = np.full(points, np.iinfo(np.int64).min)
    np.minimum.at(lowest, point_of, owners)
    np.maximum.at(highest, point_of, owners)
    return np.where(lowest == highest, lowest, SEVERAL)


def _forest(edges: Iterator[Edges], points: int) -> coo_array:
    """A minimum spanning forest: the same groups, and the closest pair of each, in few edges.

    Its weights are distances plus 1, as a sparse matrix has no edge of weight 0.
    """
    kept: list[Edges] = []
    number = 0
    for block in edges:
        kept.append(block)
        number += len(block[0])
        if number > _EDGES:
            thinned = _thinned(kept, points)
            kept = [(*thinned.coords, thinned.data.astype(np.int64) - 1)]
            number = 0
    return _thinned(kept, points)


def _thinned(edges: Sequence[Edges], points: int) -> coo_array:
    parts = zip(*edges, strict=True) if edges else [[np.zeros(0, np.int64)]] * 3
    first, second, distance = map(np.concatenate, parts)
    graph = coo_array((distance + 1, (first, second)), (points, points)).tocsr()
    return coo_array(minimum_spanning_tree(graph))
