"""One decoded cache on disk: an SQLite file of pictures and their pixels."""

from __future__ import annotations

import os
import sqlite3
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from siamese.errors import UserError
from siamese.files.places import is_regular

# Pictures whose pixels every opening checks; all are checked when they are read.
_SAMPLED = 64
_WAIT = 60.0  # seconds that a writer waits for readers
_READER_WAIT = 1.0  # seconds that a reader waits for a writer; decoding is quick, too
# What SQLite says of a file's content; anything else it says of the disk.
_BAD_CONTENT = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_TABLES = """
    CREATE TABLE picture (
        number INTEGER PRIMARY KEY AUTOINCREMENT, path BLOB UNIQUE NOT NULL, stamp TEXT NOT NULL,
        failure BLOB
    );
    CREATE TABLE pixels (number INTEGER PRIMARY KEY, checksum INTEGER NOT NULL, content BLOB);
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a cache knows of one picture.

    Attributes:
        number: of its pixels; never given to another picture.
        failure: why it could not be decoded; None where it could.
    """

    number: int
    stamp: str
    failure: str | None


@dataclass(frozen=True)
class PixelReader:
    """Reads pixels of a cache; can be pickled, and each process opens the file for itself.

    Attributes:
        side: height and width of each picture, which has 3 channels of 8 bits.
    """

    file: Path
    side: int
    _connections: dict[int, sqlite3.Connection] = field(default_factory=dict, compare=False)

    def pixels(self, number: int, path: str) -> npt.NDArray[np.uint8] | None:
        """A picture's pixels, uint8 (side, side, 3).

        None where they are not there any more, are damaged, or cannot be read now.
        """
        process = os.getpid()  # a connection does not outlive a fork
        try:
            if process not in self._connections:
                # Read-only: the file may have been removed, and another made under its name.
                address = f"{self.file.absolute().as_uri()}?mode=ro"
                self._connections[process] = sqlite3.connect(address, _READER_WAIT, uri=True)
            query = "SELECT checksum, content FROM pixels WHERE number = ?"
            row = self._connections[process].execute(query, (number,)).fetchone()
        except sqlite3.Error:
            return None
        if row is None or not isinstance(row[1], bytes) or len(row[1]) != 3 * self.side**2:
            return None
        if _checksum(path, row[1]) != row[0]:
            return None
        return np.frombuffer(row[1], np.uint8).reshape(self.side, self.side, 3).copy()

    def __getstate__(self) -> dict[str, Any]:
        return {"file": self.file, "side": self.side, "_connections": {}}


class PixelStore:
    """A cache's file, opened to be changed; used only while :func:`alone`."""

    def __init__(self, file: Path):
        self._connection = sqlite3.connect(file, timeout=_WAIT)

    def make(self, recipe: int) -> None:
        """Make the tables of a new file.

        Args:
            recipe: a number below 2**31 that tells how the pixels are made.
        """
        self._connection.executescript(f"{_TABLES} PRAGMA user_version = {recipe};")

    def recipe(self) -> int:
        """The number that the file was made with; 0 where it is another file.

        Raises:
            sqlite3.Error: the file is damaged, or cannot be read.
        """
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])

    def entries(self) -> dict[str, Entry]:
        """Every picture that it knows, by path.

        Raises:
            sqlite3.Error: the file is damaged, or cannot be read.
            TypeError, ValueError, AttributeError: values that no cache has.
        """
        query = "SELECT path, number, stamp, failure FROM picture"
        return {
            os.fsdecode(path): Entry(
                int(number),
                str(stamp),
                None if failure is None else failure.decode("utf-8", "surrogatepass"),
            )
            for path, number, stamp, failure in self._connection.execute(query)
        }

    def put(self, path: str, stamp: str, pixels: bytes | None, failure: str | None) -> None:
        """Note a picture's pixels or failure; nothing is on disk before :meth:`commit`."""
        reason = None if failure is None else failure.encode("utf-8", "surrogatepass")
        cursor = self._connection.execute(
            "INSERT INTO picture (path, stamp, failure) VALUES (?, ?, ?)",
            (os.fsencode(path), stamp, reason),
        )
        if pixels is not None:
            row = (cursor.lastrowid, _checksum(path, pixels), pixels)
            self._connection.execute("INSERT INTO pixels VALUES (?, ?, ?)", row)

    def remove(self, entries: Iterable[Entry]) -> None:
        """Forget pictures."""
        numbers = [(entry.number,) for entry in entries]
        with self._connection as connection:
            connection.executemany("DELETE FROM picture WHERE number = ?", numbers)
            connection.executemany("DELETE FROM pixels WHERE number = ?", numbers)

    def free_bytes(self) -> int:
        """Room within the file that nothing takes."""
        pages, size = (
            self._connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("freelist_count", "page_size")
        )
        return int(pages * size)

    def commit(self) -> None:
        """Put what was noted on disk."""
        self._connection.commit()

    def close(self) -> None:
        """What was not committed is lost."""
        self._connection.close()


@contextmanager
def opened_store(reader: PixelReader, recipe: int) -> Iterator[tuple[PixelStore, dict[str, Entry]]]:
    """A cache's file and its entries; a damaged, foreign or outdated file is begun anew.

    Raises:
        OSError, sqlite3.Error: the disk refuses.
    """
    entries = _entries(reader, recipe)
    if entries is None:
        if os.path.lexists(reader.file):
            say(f"cache: {reader.file} is damaged or of other versions; it is built anew")
        # A new file, not an emptied one: whoever still reads the old one keeps it. The last two
        # are what caches consisted of before they were SQLite files.
        for ending in ("", "-journal"):
            reader.file.with_name(reader.file.name + ending).unlink(missing_ok=True)
        for ending in (".pixels", ".index"):
            reader.file.with_suffix(ending).unlink(missing_ok=True)
    with closing(PixelStore(reader.file)) as store:
        if entries is None:
            store.make(recipe)
        yield store, entries or {}


def _entries(reader: PixelReader, recipe: int) -> dict[str, Entry] | None:
    """The file's entries; None where there is no file that can be used."""
    # A link might lead to somebody's file.
    if os.path.islink(reader.file) or not is_regular(reader.file):
        return None
    try:
        with closing(PixelStore(reader.file)) as store:
            entries = store.entries() if store.recipe() == recipe else None
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _BAD_CONTENT:
            return None
        raise
    except (TypeError, ValueError, AttributeError):
        return None
    return entries if entries is not None and _is_whole(reader, entries) else None


def _is_whole(reader: PixelReader, entries: Mapping[str, Entry]) -> bool:
    """Whether the pixels of some entries are there and theirs."""
    numbers = [(entry.number, path) for path, entry in entries.items() if entry.failure is None]
    sample = numbers[:: max(1, len(numbers) // _SAMPLED)]
    return all(reader.pixels(number, path) is not None for number, path in sample)


def _checksum(path: str, pixels: bytes) -> int:
    """CRC-32 of a picture's path and pixels."""
    return zlib.crc32(pixels, zlib.crc32(os.fsencode(path)))


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
def alone(file: Path) -> Iterator[None]:
    """Hold a cache's lock; another process that has it is waited for, with a message."""
    lock = FileLock(file.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"cache: another run is at {file}; waiting for it to be ready")
        lock.acquire(poll_interval=0.2)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def disk_errors_in_one_line(place: Path) -> Iterator[None]:
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
            f"`cache` {place}: {os.fsdecode(where)} cannot be used ({why}); "
            "name another folder, or leave `cache` out"
        ) from None


def say(line: str) -> None:
    """Print a line beside the progress bars; names may be of any bytes."""
    print(line.encode("utf-8", "backslashreplace").decode(), file=sys.stderr, flush=True)
