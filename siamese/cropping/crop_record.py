"""The record of a folder of faces: how it is made, and what became of every photograph.

A JSON line with the settings, then lines that are only ever added: two per photograph, one before
its faces get their places and one after, so that a killed call knows its files from those of
somebody else, and from faces that somebody has taken away since.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from siamese.cropping.crop_work import NOT_READ, WRITTEN, CroppedFace
from siamese.errors import UserError
from siamese.files.fields import built, parse_json
from siamese.files.journal import open_journal
from siamese.files.shown import shown

_VERSION = 1  # of the lines


@dataclass(frozen=True)
class Entry:
    """What became of a photograph.

    Attributes:
        photograph: its path, relative, with forward slashes.
        stamp: see :func:`siamese.data.cache_files.stamp_of`.
        base: what the names of its faces begin with.
        placed: whether its faces got their places; False: they were about to.
    """

    photograph: str
    stamp: str
    status: str
    base: str
    detail: str = ""
    faces: tuple[CroppedFace, ...] = ()
    placed: bool = False

    def written(self) -> list[CroppedFace]:
        """Its faces that are in the folder, unless somebody took them away."""
        return [face for face in self.faces if face.status == WRITTEN]

    def is_done(self, stamp: str | None) -> bool:
        """Whether the photograph, which has this stamp now, needs no further look.

        One that has changed is looked at again only where nothing was written.
        """
        if not self.placed or self.status == NOT_READ:
            return False
        return bool(self.written()) or self.stamp == stamp


class Record:
    """The entries of a folder.

    Attributes:
        entries: the newest of every photograph.
    """

    def __init__(self, file: TextIO, entries: Iterable[Entry]):
        self._file = file
        self.entries = {entry.photograph: entry for entry in entries}

    def add(self, entry: Entry) -> None:
        """Note what is about to be done, or was."""
        self._file.write(json.dumps(asdict(entry)) + "\n")
        self._file.flush()
        self.entries[entry.photograph] = entry


@contextmanager
def open_record(path: Path, way: Mapping[str, object]) -> Iterator[Record]:
    """Read a folder's record, or begin one; a line that was cut off counts for nothing.

    Raises:
        UserError: the faces in the folder were made in another way; the record is damaged.
    """
    head = json.dumps({"record": _VERSION, **way})
    require = partial(_require_same, path, way)
    with open_journal(path, head, require) as (file, lines):
        yield Record(file, filter(None, map(_entry, lines)))


def _require_same(path: Path, way: Mapping[str, object], head: str) -> None:
    before = _parsed(head)
    if not isinstance(before, dict) or before.get("record") != _VERSION:
        raise UserError(f"{path}: is damaged, or of another version of siamese; name another `out`")
    for name, value in way.items():
        if before.get(name) != value:
            raise UserError(
                f"`{name}` {_told(value)}: the faces in {path.parent} were made with "
                f"{_told(before.get(name))}; name another `out`"
            )


def _told(value: object) -> str:
    return "null" if value is None else shown(str(value))[:200]


def _parsed(line: str) -> Any:
    with suppress(ValueError):
        return parse_json(line)
    return None


def _entry(line: str) -> Entry | None:
    """An entry of the record; None where a line is damaged, or names what no call writes."""
    values = _parsed(line)
    try:
        faces = tuple(built(CroppedFace, _with_tuples(face)) for face in values["faces"])
        entry = built(Entry, {**values, "faces": faces})
    except (ValueError, TypeError, KeyError):
        return None
    plain = (
        entry.base and not entry.base.startswith(".") and not {"/", "\0", os.sep} & set(entry.base)
    )
    return entry if plain else None


def _with_tuples(face: Any) -> Any:
    numbers = {name: tuple(map(float, face[name])) for name in ("box", "landmarks")}
    return {**face, "score": float(face["score"]), **numbers}
