"""Pictures as a list names them, found among those that are there."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from PIL import Image

from siamese.errors import UserError, first_few
from siamese.files.places import is_regular, require_inside

# Name_0001_0.jpg: the first face that an aligner found in Name_0001.jpg.
_ALIGNED = re.compile(r"(.+)_[0-9]{1,2}")


class SeveralMatch(UserError):  # noqa: N818 - a state of the folder, which the list's reader tells
    """A name could mean several pictures."""


@dataclass(frozen=True)
class Match:
    """A picture that was found.

    Attributes:
        path: as it is there.
        way: how it was found: ``exact``, or in words.
    """

    path: str
    way: str


class KnownPictures:
    """Pictures by their paths, found under other spellings, too.

    Taken is, in this order: the path itself (in any Unicode form, with either slash); the same
    without a suffix or with another one; an aligned picture (``Name_0001_0.jpg`` for
    ``Name_0001.jpg``); the same three where the path there, or the one in the list, has more
    folders in front. The first of these that finds one picture counts.

    Args:
        paths: what is there, relative or absolute.
    """

    def __init__(self, paths: Iterable[str]):
        self._paths = tuple(paths)
        self._exact = set(self._paths)

    def find(self, name: str) -> Match | None:
        """The picture of a name; None where there is none.

        Raises:
            SeveralMatch: several fit equally well.
        """
        if name in self._exact:
            return Match(name, "exact")
        wanted = _Spelled.of(name)
        found: dict[tuple[int, int, int], list[str]] = {}
        for known, path in self._index.get(wanted.stem, ()):
            rank = _rank(wanted, known)
            if rank is not None:
                found.setdefault(rank, []).append(path)
        if not found:
            return None
        best = min(found)
        if len(found[best]) > 1:
            raise SeveralMatch(
                f"{name!r} may be any of {len(found[best])}: {first_few(sorted(found[best]))}"
            )
        return Match(found[best][0], _WAYS[best[0]][best[2]])

    @cached_property
    def _index(self) -> dict[str, list[tuple[_Spelled, str]]]:
        """By what a list may call the file: its stem, and the stem that was aligned."""
        index: dict[str, list[tuple[_Spelled, str]]] = {}
        for path in self._paths:
            known = _Spelled.of(path)
            aligned = _ALIGNED.fullmatch(known.stem)
            for stem in (known.stem, aligned[1]) if aligned else (known.stem,):
                index.setdefault(stem, []).append((known, path))
        return index


_NAMES = ("", "with another suffix", "aligned (_0)")
_WAYS = (
    ("exact", *_NAMES[1:]),
    ("in deeper folders", *(f"in deeper folders, {way}" for way in _NAMES[1:])),
    ("by the end of the path", *(f"by the end of the path, {way}" for way in _NAMES[1:])),
)


@dataclass(frozen=True)
class _Spelled:
    """A path in its plainest form: folders, file, and the file without a picture's suffix."""

    folders: tuple[str, ...]
    file: str
    stem: str

    @classmethod
    def of(cls, path: str) -> _Spelled:
        """Of any path."""
        plain = unicodedata.normalize("NFC", path).replace("\\", "/")
        parts = [part for part in plain.split("/") if part not in ("", ".")] or [""]
        stem, suffix = os.path.splitext(parts[-1])
        return cls(
            tuple(parts[:-1]),
            parts[-1],
            stem if suffix.lower() in picture_suffixes() else parts[-1],
        )


def _rank(wanted: _Spelled, known: _Spelled) -> tuple[int, int, int] | None:
    """How well a known picture fits, less is better; None: not at all."""
    here, there = wanted.folders, known.folders
    if here == there:
        folders = (0, 0)
    elif there[len(there) - len(here) :] == here:
        folders = (1, 0)
    elif here[len(here) - len(there) :] == there:
        folders = (2, -len(there))  # the more of the list's folders are there, the better
    else:
        return None
    if wanted.file == known.file:
        return (*folders, 0)
    return (*folders, 1 if wanted.stem == known.stem else 2)


class FolderPictures:
    """The same for the pictures of a folder, which is listed only when a name is not found as is.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path):
        self._root = root

    def find(self, name: str) -> Match | None:
        """See :meth:`KnownPictures.find`; paths are relative to the root.

        Raises:
            SeveralMatch: several fit equally well.
            UserError: the picture leads outside the root through a link.
        """
        match = Match(name, "exact") if is_regular(self._root / name) else self._listed.find(name)
        if match is not None:
            require_inside(self._root, match.path, f"{self._root}, a picture of the list")
        return match

    @cached_property
    def _listed(self) -> KnownPictures:
        return KnownPictures(_pictures_below(self._root))


def _pictures_below(root: Path) -> Sequence[str]:
    """Every picture by its suffix, relative, with forward slashes; links are followed once."""
    found: list[str] = []
    seen: set[str] = set()
    for folder, below, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        start = os.path.relpath(folder, root).replace(os.sep, "/")
        ahead = "" if start == "." else f"{start}/"
        found += [
            ahead + file
            for file in files
            if os.path.splitext(file)[1].lower() in picture_suffixes()
            and is_regular(os.path.join(folder, file))
        ]
    return sorted(found)


@lru_cache(maxsize=1)
def picture_suffixes() -> frozenset[str]:
    """Suffixes of the file types that Pillow knows, in small letters."""
    Image.init()
    return frozenset(Image.registered_extensions())


def without_suffix(path: str) -> str:
    """The path without the ending of a picture; any other ending is part of the name."""
    stem, ending = os.path.splitext(path)
    return stem if ending.lower() in picture_suffixes() else path
