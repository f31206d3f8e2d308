"""A cache of file facts in one sqlite file, so that a second run need not read the files."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import PIL
from filelock import FileLock

from siamese.curation.checking.inspection import FileFacts
from siamese.errors import UserError

# Facts of another version are computed anew; another Pillow may read other files.
_VERSION = f"1, Pillow {PIL.__version__}"
_COLUMNS = tuple(field.name for field in fields(FileFacts))
_BATCH, _SECONDS = 2000, 5.0  # what an interruption by force can lose
_WAIT = 60.0  # seconds for another run that is writing
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)


@dataclass(frozen=True)
class FileKey:
    """A file as it was when its facts were read.

    Attributes:
        path: absolute; any bytes, as Python's file functions give them.
        modified: nanoseconds.
        size: bytes.
    """

    path: str
    modified: int
    size: int

    def row(self) -> tuple[bytes, int, int]:
        """As the table holds it."""
        return os.fsencode(self.path), self.modified, self.size


class FactStore:
    """Facts by file, written in batches; several runs may use one at the same time."""

    def __init__(self, path: Path) -> None:
        """Open or make the file; a damaged one is set aside as ``NAME.damaged``.

        Raises:
            UserError: the file cannot be opened or made.
        """
        self.path = path
        self.notes: list[str] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        # One run at a time opens: two must not set each other's new file aside.
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=_WAIT):
            try:
                self._connection = _connect(path)
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise UserError(
                        f"{path}: cannot be opened ({error}); give another folder with --out"
                    ) from None
                aside = path.with_name(f"{path.name}.damaged")
                os.replace(path, aside)
                for ending in ("-journal", "-wal", "-shm"):  # belongs to the damaged file
                    path.with_name(path.name + ending).unlink(missing_ok=True)
                self.notes.append(f"{path} was damaged: set aside as {aside.name}, facts read anew")
                self._connection = _connect(path)
        self._pending: list[tuple[Any, ...]] = []
        self._written = time.monotonic()
        self._works = True

    def known(self, keys: Iterable[FileKey]) -> dict[str, FileFacts]:
        """Facts by absolute path, of those files that have not changed since."""
        wanted = {row[0]: (key.path, row[1:]) for key in keys for row in (key.row(),)}
        found: dict[str, FileFacts] = {}
        asked = f"SELECT path, modified, size, {', '.join(_COLUMNS)} FROM facts WHERE version = ?"
        try:
            for raw, modified, size, *values in self._connection.execute(asked, (_VERSION,)):
                path, stamp = wanted.get(raw, ("", None))
                if stamp == (modified, size):
                    found[path] = FileFacts(*values)
        except sqlite3.Error as error:
            self._give_up(error)
        return found

    def add(self, key: FileKey, facts: FileFacts) -> None:
        """Remember facts; written with the next batch."""
        self._pending.append((*key.row(), _VERSION, *astuple(facts)))
        full = len(self._pending) >= _BATCH
        if full or time.monotonic() - self._written > _SECONDS:
            self.write()

    def write(self) -> None:
        """Write what was added since the last batch."""
        if self._pending and self._works:
            marks = ", ".join("?" * (4 + len(_COLUMNS)))
            try:
                with self._connection:
                    self._connection.executemany(
                        f"INSERT OR REPLACE INTO facts VALUES ({marks})", self._pending
                    )
            except sqlite3.Error as error:
                self._give_up(error)
        self._pending.clear()
        self._written = time.monotonic()

    def close(self) -> None:
        """Write the rest and close."""
        self.write()
        self._connection.close()

    def _give_up(self, error: sqlite3.Error) -> None:
        """A cache that fails is no reason to lose the run."""
        if self._works:
            self.notes.append(f"{self.path}: facts are not kept ({error}); the next run reads anew")
        self._works = False


@contextlib.contextmanager
def open_store(path: Path) -> Iterator[FactStore]:
    """A store that is written and closed in the end, whatever happens."""
    store = FactStore(path)
    try:
        yield store
    finally:
        store.close()


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_WAIT)
    try:
        connection.execute("PRAGMA synchronous = NORMAL")
        if connection.execute("PRAGMA quick_check").fetchone() != ("ok",):
            raise _damage()
        connection.execute(
            "CREATE TABLE IF NOT EXISTS facts (path BLOB PRIMARY KEY, modified INTEGER, "
            f"size INTEGER, version TEXT, {', '.join(_COLUMNS)})"
        )
        connection.execute(
            f"SELECT path, modified, size, version, {', '.join(_COLUMNS)} FROM facts LIMIT 1"
        )
        connection.commit()
    except BaseException:
        connection.close()
        raise
    return connection


def _damage() -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError("its pages do not fit together")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF in _DAMAGED
