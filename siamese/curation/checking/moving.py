"""Plans that mend findings: none of them moves what another one moves."""

from __future__ import annotations

import os
import posixpath
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from siamese.curation.plans import Move

_LONGEST = 255  # bytes of a name that file systems take


class Planner:
    """Moves for one folder after the other, so that all plans can be carried out in any order.

    Args:
        names: per folder every name in it; the root is the empty string.
    """

    def __init__(self, names: Mapping[str, Iterable[str]]) -> None:
        self._taken = {folder: {_same(name) for name in inside} for folder, inside in names.items()}
        self._moved: set[str] = set()
        self._touched: set[str] = set()  # folders of which something is moved, or into which

    def take_out(self, paths: Iterable[str]) -> list[Move]:
        """Files or folders into the quarantine; those that another plan moves are left to it."""
        return [Move(path, None) for path in paths if self._claim(path)]

    def move_into(self, paths: Iterable[str], folder: str) -> list[Move]:
        """Files into a folder, under names that are free there."""
        return [
            Move(path, self._free(folder, posixpath.basename(path)))
            for path in paths
            if self._claim(path)
        ]

    def rename(self, pairs: Sequence[tuple[str, str]]) -> list[Move]:
        """Files to new paths in the same folder, or to free names like them."""
        return [
            Move(path, self._free(*posixpath.split(wanted)))
            for path, wanted in pairs
            if self._claim(path)
        ]

    def _claim(self, path: str) -> bool:
        above = _above(path)
        if path in self._moved or path in self._touched or self._moved.intersection(above):
            return False
        self._moved.add(path)
        self._touched.update(above)
        return True

    def _free(self, folder: str, name: str) -> str:
        taken = self._taken.setdefault(folder, set())
        self._touched.update((folder, *_above(folder)))
        stem, ending = posixpath.splitext(name)
        number, tried = 2, name
        while _same(tried) in taken:
            tried = _shortened(stem, f"-{number}{ending}")
            number += 1
        taken.add(_same(tried))
        return f"{folder}/{tried}" if folder else tried


def _above(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:number]) for number in range(1, len(parts))]


def _same(name: str) -> str:
    """Equal for names that some file system takes for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def _shortened(stem: str, tail: str) -> str:
    while len(os.fsencode(stem + tail)) > _LONGEST and stem:
        stem = stem[:-1]
    return stem + tail
