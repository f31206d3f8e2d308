"""Pictures that are there more than once: the same bytes, or nearly the same to the eye."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from tqdm import tqdm

from siamese.curation.checking.fingerprints import Words, as_words
from siamese.curation.checking.near import FINE_LIMIT, SEVERAL, near_groups, ones

_MOST_PEOPLE = 30  # a file that more people have says nothing about two of them


@dataclass(frozen=True)
class Shot:
    """A usable picture, as far as copies of it are concerned.

    Attributes:
        path: relative to the root.
        person: its folder.
        content: hash of its bytes.
        fingerprint: see :mod:`.fingerprints`; None: one colour, like no other.
        pixels: its area.
        size: in bytes.
        is_link: whether the file is a link.
    """

    path: str
    person: str
    content: str
    fingerprint: str | None
    pixels: int
    size: int
    is_link: bool = False


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
    by_content: dict[str, list[Shot]] = defaultdict(list)
    for shot in shots:
        by_content[shot.content].append(shot)
    within, across = [], []
    for same in by_content.values():
        by_person: dict[str, list[Shot]] = defaultdict(list)
        for shot in same:
            by_person[shot.person].append(shot)
        within += [Copies(_best_first(own)) for own in by_person.values() if len(own) > 1]
        if len(by_person) > 1:
            across.append(Copies(tuple(same)))
    return within, across


def near_copies(shots: Sequence[Shot], near: int) -> tuple[list[Copies], list[Copies]]:
    """Pictures that look nearly the same, within one folder and in several people's folders.

    The same bytes count as one picture here. In the second list each picture is near to one of
    somebody else; in the first to one of its own folder.

    Args:
        shots: all usable pictures.
        near: coarse fingerprint bits in which two may differ.
    """
    told = [shot for shot in shots if shot.fingerprint is not None]
    people: dict[str, dict[str, Shot]] = defaultdict(dict)
    by_content: dict[str, list[Shot]] = defaultdict(list)
    for shot in told:
        people[shot.person].setdefault(shot.content, shot)
        by_content[shot.content].append(shot)
    within = []
    for own in tqdm(people.values(), "near-duplicates", unit="person", disable=None, leave=False):
        pictures = list(own.values())
        owners = np.full(len(pictures), SEVERAL)
        for group in near_groups(_words(pictures), near, owners):
            near_ones = _best_first([pictures[at] for at in group.members])
            within.append(Copies(near_ones, group.distance))
    number = {person: at for at, person in enumerate(people)}
    contents = list(by_content.values())
    owner = [
        number[same[0].person] if len({shot.person for shot in same}) == 1 else SEVERAL
        for same in contents
    ]
    firsts = [same[0] for same in contents]
    across = [
        Copies(tuple(shot for at in group.members for shot in contents[at]), group.distance)
        for group in near_groups(_words(firsts), near, np.array(owner, np.int64))
    ]
    return within, across


def superfluous(copies: Copies, near: int) -> list[Shot]:
    """Those near copies that have a better one, which stays, near to them."""
    words = _words(copies.shots)
    kept: list[int] = []
    gone = []
    for at, shot in enumerate(copies.shots):
        different = words[kept] ^ words[at]
        close = ones(different[:, 0]) <= near
        close &= ones(different[:, 1:]).sum(axis=1) <= FINE_LIMIT
        if close.any():
            gone.append(shot)
        else:
            kept.append(at)
    return gone


def people_who_share(across: Sequence[Copies], counts: Mapping[str, int]) -> dict[str, str]:
    """People who have half of the smaller folder's pictures in common, and two at least.

    Args:
        across: files that several people have.
        counts: pictures by person.

    Returns:
        Per such person the first name of the group it belongs to.
    """
    shared: Counter[tuple[str, str]] = Counter()
    for copies in across:
        people = sorted(copies.people())
        if len(people) <= _MOST_PEOPLE:
            shared.update(combinations(people, 2))
    pairs = [
        pair
        for pair, number in shared.items()
        if number >= 2 and 2 * number >= min(counts[name] for name in pair)
    ]
    return groups_of(pairs)


def groups_of(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Per name the least name of all that pairs connect it with."""
    group: dict[str, str] = {}

    def head(name: str) -> str:
        while group.setdefault(name, name) != name:
            group[name] = group[group[name]]
            name = group[name]
        return name

    for first, second in pairs:
        low, high = sorted((head(first), head(second)))
        group[high] = low
    return {name: head(name) for name in list(group)}


def _words(shots: Sequence[Shot]) -> Words:
    return as_words([shot.fingerprint or "" for shot in shots])


def _best_first(shots: Sequence[Shot]) -> tuple[Shot, ...]:
    """The largest first, files before links to them."""

    def rank(shot: Shot) -> tuple[bool, int, int, int, str]:
        return shot.is_link, -shot.pixels, -shot.size, len(shot.path), shot.path

    return tuple(sorted(shots, key=rank))
