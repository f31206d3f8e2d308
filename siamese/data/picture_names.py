"""Pictures as a list names them, found among those that are there."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache
from pathlib import Path

from PIL import Image

from siamese.errors import UserError, first_few
from siamese.files.places import is_regular, require_inside

# Name_0001_0.jpg: the first face that an aligner found in Name_0001.jpg.
_ALIGNED = re.compile(r"(.+)_[0-9]{1,2}")
_FOLDERS = ("", "in deeper folders", "by the end of the path")
_FILES = ("", "with another suffix", "aligned (_0)")
_Spelled = tuple[tuple[str, ...], str, str]  # folders, file, file without a picture's suffix


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

    def find(self, name: str, where: str) -> tuple[str | None, str]:
        """The picture of a name, None without one; how it was found, empty for its own name.

        Raises:
            UserError: several fit equally well; names ``where`` it is wanted.
        """
        if name in self._exact:
            return name, ""
        wanted = _spelled(name)
        found: dict[tuple[int, int, int], list[str]] = {}
        for known, path in self._index.get(wanted[2], ()):
            if (rank := _rank(wanted, known)) is not None:
                found.setdefault(rank, []).append(path)
        if not found:
            return None, ""
        best = min(found)
        if len(found[best]) > 1:
            several = f"any of {len(found[best])}: {first_few(sorted(found[best]))}"
            raise UserError(
                f"{where}: {name!r} may be {several}; write the path of the one that is meant"
            )
        return found[best][0], ", ".join(filter(None, (_FOLDERS[best[0]], _FILES[best[2]])))

    @cached_property
    def _index(self) -> dict[str, list[tuple[_Spelled, str]]]:
        """By what a list may call the file: its stem, and the stem that was aligned."""
        index: dict[str, list[tuple[_Spelled, str]]] = {}
        for path in self._paths:
            known = _spelled(path)
            aligned = _ALIGNED.fullmatch(known[2])
            for stem in (known[2], aligned[1]) if aligned else (known[2],):
                index.setdefault(stem, []).append((known, path))
        return index


def _spelled(path: str) -> _Spelled:
    plain = unicodedata.normalize("NFC", path).replace("\\", "/")
    *folders, file = [part for part in plain.split("/") if part not in ("", ".")] or [""]
    stem, suffix = os.path.splitext(file)
    return tuple(folders), file, stem if suffix.lower() in picture_suffixes() else file


def _rank(wanted: _Spelled, known: _Spelled) -> tuple[int, int, int] | None:
    """How well a known picture fits, less is better; None: not at all."""
    here, there = wanted[0], known[0]
    if here == there:
        folders = (0, 0)
    elif there[len(there) - len(here) :] == here:
        folders = (1, 0)
    elif here[len(here) - len(there) :] == there:
        folders = (2, -len(there))  # the more of the list's folders are there, the better
    else:
        return None
    if wanted[1] == known[1]:
        return (*folders, 0)
    return (*folders, 1 if wanted[2] == known[2] else 2)


class FolderPictures:
    """The same for a folder, which is listed only when a name is not found as it is."""

    def __init__(self, root: Path):
        self._root = root

    def find(self, name: str, where: str) -> tuple[str | None, str]:
        """See :meth:`KnownPictures.find`; paths are relative to the root.

        Raises:
            UserError: several fit equally well; the picture leads outside the root through a link.
        """
        path, way = (name, "") if is_regular(self._root / name) else self._listed.find(name, where)
        if path is not None:
            require_inside(self._root, path, f"{self._root}, a picture of the list")
        return path, way

    @cached_property
    def _listed(self) -> KnownPictures:
        return KnownPictures(sorted(_pictures_below(self._root)))


def _pictures_below(root: Path) -> Iterator[str]:
    """Every picture by its suffix, relative, with forward slashes; links are followed once."""
    seen: set[str] = set()
    for folder, below, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        for file in files:
            path = Path(folder, file)
            if os.path.splitext(file)[1].lower() in picture_suffixes() and is_regular(path):
                yield path.relative_to(root).as_posix()


@lru_cache(maxsize=1)
def picture_suffixes() -> frozenset[str]:
    """Suffixes of the file types that Pillow knows, in small letters."""
    Image.init()
    return frozenset(Image.registered_extensions())
