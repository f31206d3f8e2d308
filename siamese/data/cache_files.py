"""One decoded cache on disk: rows of pixels in one file, and the index that says whose they are."""

from __future__ import annotations

import os
import sqlite3
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout
from tqdm import tqdm

from siamese.errors import UserError
from siamese.files.places import is_regular

# Rows that every opening checks; where one of them is wrong, all of them are checked.
_SAMPLED = 64
# What SQLite says of the disk; anything else it says of the file.
_DISK_TROUBLE = frozenset(
    {
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
    }
)


@dataclass(frozen=True)
class Entry:
    """What the index knows of one picture.

    Attributes:
        stamp: of the picture's file when it was decoded; see :func:`stamp_of`.
        row: where its pixels are; None: it failed to decode.
        checksum: CRC-32 of its pixels; 0 where it failed.
        reason: why it failed; empty where it did not.
    """

    stamp: str
    row: int | None
    checksum: int
    reason: str = ""


@dataclass(frozen=True)
class CacheFiles:
    """Where one cache lies and how large a row is.

    Attributes:
        base: path without the endings ``.pixels``, ``.index`` and ``.lock``.
        side: height and width of a row's picture, which has 3 channels of 8 bits.
    """

    base: Path
    side: int

    @property
    def pixels(self) -> Path:
        """The memory-mapped file: rows of uint8 (side, side, 3)."""
        return self.base.with_name(self.base.name + ".pixels")

    @property
    def index(self) -> Path:
        """The SQLite file with one line per picture."""
        return self.base.with_name(self.base.name + ".index")

    @property
    def lock(self) -> Path:
        """Held while the others are read or written; the map is read without it."""
        return self.base.with_name(self.base.name + ".lock")

    @property
    def row_bytes(self) -> int:
        """Bytes of one picture."""
        return 3 * self.side * self.side

    def map_rows(self) -> npt.NDArray[np.uint8]:
        """All rows there are, uint8 (rows, side, side, 3), mapped read-only into memory.

        Raises:
            OSError: the file is not there.
        """
        shape = (os.path.getsize(self.pixels) // self.row_bytes, self.side, self.side, 3)
        if not shape[0]:  # nothing can be mapped
            return np.empty(shape, np.uint8)
        return np.memmap(self.pixels, np.uint8, "r", shape=shape)

    def write_row(self, file: int, row: int, pixels: npt.NDArray[np.uint8]) -> int:
        """Write uint8 (side, side, 3) into an open file; returns the checksum.

        Raises:
            OSError: the disk is full. Written plainly, not through a map, where that would kill
                the process.
        """
        rest, offset = pixels.data.cast("B"), row * self.row_bytes
        while rest:
            written = os.pwrite(file, rest, offset)
            rest, offset = rest[written:], offset + written
        return checksum_of(pixels)


def checksum_of(pixels: npt.NDArray[np.uint8]) -> int:
    """CRC-32 of a C-contiguous array."""
    return zlib.crc32(pixels.data)


def stamp_of(path: Path) -> str | None:
    """What changes when a file changes: its time of modification in ns, and its size in bytes.

    None where there is no such file.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return f"{status.st_mtime_ns} {status.st_size}"


@contextmanager
def alone(files: CacheFiles) -> Iterator[None]:
    """Hold a cache's lock; another process that has it is waited for, with a message."""
    lock = FileLock(files.lock)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"cache: another run is at {files.pixels}; waiting for it to be ready")
        lock.acquire(poll_interval=0.2)
    try:
        yield
    finally:
        lock.release()


class Index:
    """The index of a cache, an SQLite file; used only while :func:`alone`."""

    def __init__(self, path: Path):
        self._connection = sqlite3.connect(path)

    def make(self, recipe: str) -> None:
        """An empty index of a cache that was made in this way."""
        with self._connection as connection:
            connection.execute("CREATE TABLE recipe (text TEXT NOT NULL)")
            connection.execute(
                "CREATE TABLE picture (path BLOB PRIMARY KEY, stamp TEXT NOT NULL, row INTEGER, "
                "checksum INTEGER NOT NULL, reason BLOB NOT NULL) WITHOUT ROWID"
            )
            connection.execute("INSERT INTO recipe VALUES (?)", (recipe,))

    def recipe(self) -> str:
        """How its cache was made.

        Raises:
            sqlite3.DatabaseError: this is no index, or a damaged one.
        """
        if self._connection.execute("PRAGMA quick_check").fetchone() != ("ok",):
            raise sqlite3.DatabaseError("damaged")
        row = self._connection.execute("SELECT text FROM recipe").fetchone()
        return "" if row is None else str(row[0])

    def entries(self) -> dict[str, Entry]:
        """Every picture that it knows, by path.

        Raises:
            sqlite3.DatabaseError: a damaged index.
            TypeError, ValueError: values that no index has.
        """
        query = "SELECT path, stamp, row, checksum, reason FROM picture"
        entries = {}
        for path, stamp, row, checksum, reason in self._connection.execute(query):
            entry = Entry(
                str(stamp),
                None if row is None else int(row),
                int(checksum),
                _text(reason),
            )
            if entry.row is not None and entry.row < 0:
                raise ValueError("a row below 0")
            entries[os.fsdecode(path)] = entry
        return entries

    def put(self, path: str, entry: Entry) -> None:
        """Note a picture; nothing is on disk before :meth:`commit`."""
        reason = entry.reason.encode("utf-8", "surrogatepass")
        self._connection.execute(
            "INSERT OR REPLACE INTO picture VALUES (?, ?, ?, ?, ?)",
            (os.fsencode(path), entry.stamp, entry.row, entry.checksum, reason),
        )

    def remove(self, paths: Iterable[str]) -> None:
        """Forget pictures."""
        with self._connection as connection:
            given = ((os.fsencode(path),) for path in paths)
            connection.executemany("DELETE FROM picture WHERE path = ?", given)

    def commit(self) -> None:
        """Put what was noted on disk."""
        self._connection.commit()

    def close(self) -> None:
        """What was not committed is lost."""
        self._connection.close()


@contextmanager
def opened_index(files: CacheFiles, recipe: str) -> Iterator[tuple[Index, dict[str, Entry]]]:
    """The index and its entries; a damaged, foreign or outdated cache is begun anew.

    Entries whose pixels are not there or not theirs are left out.
    """
    found = _found(files, recipe)
    if found is None:
        if os.path.lexists(files.index):
            say(f"cache: {files.index} is damaged or of other versions; it is built anew")
        # New files, not emptied ones: whoever still reads the old ones keeps them.
        for path in (files.index, files.index.with_name(files.index.name + "-journal")):
            path.unlink(missing_ok=True)
        files.pixels.unlink(missing_ok=True)
        with closing(Index(files.index)) as index:
            index.make(recipe)
        found = {}
    kept = _with_pixels(files, found)
    with closing(Index(files.index)) as index:
        index.remove(found.keys() - kept.keys())
        yield index, kept


def _found(files: CacheFiles, recipe: str) -> dict[str, Entry] | None:
    """The index's entries; None where there is no index that can be used."""
    if os.path.islink(files.index) or os.path.islink(files.pixels):
        return None  # a link might lead to somebody's file
    if not is_regular(files.index):
        return None
    try:
        with closing(Index(files.index)) as index:
            return index.entries() if index.recipe() == recipe else None
    except sqlite3.Error as error:
        if _is_disk_trouble(error):
            raise
        return None
    except (TypeError, ValueError, AttributeError, OverflowError):
        return None


def _with_pixels(files: CacheFiles, entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """The entries without those whose row is missing, claimed twice, or not what was written."""
    with suppress(FileNotFoundError):
        rows = files.map_rows()
        owner = {entry.row: path for path, entry in entries.items() if entry.row is not None}
        kept = {
            path: entry
            for path, entry in entries.items()
            if entry.row is None or (entry.row < len(rows) and owner[entry.row] == path)
        }
        placed = [path for path, entry in kept.items() if entry.row is not None]
        sample = placed[:: max(1, len(placed) // _SAMPLED)]
        if all(_is_whole(rows, kept[path]) for path in sample):
            return kept
        checked = tqdm(placed, "checking the cache", unit="img", disable=None, leave=False)
        wrong = {path for path in checked if not _is_whole(rows, kept[path])}
        say(f"cache: {len(wrong)} rows of {files.pixels} are damaged; they are decoded again")
        return {path: entry for path, entry in kept.items() if path not in wrong}
    return {path: entry for path, entry in entries.items() if entry.row is None}


def _is_whole(rows: npt.NDArray[np.uint8], entry: Entry) -> bool:
    assert entry.row is not None, "only rows are checked"
    return checksum_of(rows[entry.row]) == entry.checksum


def _is_disk_trouble(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _DISK_TROUBLE


@contextmanager
def told_plainly(place: Path) -> Iterator[None]:
    """What a disk refuses becomes one line that names the folder.

    Raises:
        UserError: for any OSError or SQLite error inside.
    """
    try:
        yield
    except UserError:
        raise
    except (OSError, NotImplementedError, sqlite3.Error) as error:
        why = getattr(error, "strerror", None) or error
        where = getattr(error, "filename", None) or place
        raise UserError(
            f"--cache {place}: {os.fsdecode(where)} cannot be used ({why}); "
            "name another folder, or leave --cache out"
        ) from None


def say(line: str) -> None:
    """Tell something beside the progress bars; names may be of any bytes."""
    print(line.encode("utf-8", "backslashreplace").decode(), file=sys.stderr, flush=True)


def _text(value: object) -> str:
    if not isinstance(value, bytes):
        raise TypeError("not what was written")
    return value.decode("utf-8", "surrogatepass")
