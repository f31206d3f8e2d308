"""One decoded cache on disk: an SQLite file of pictures and their pixels."""

from __future__ import annotations

import os
import sqlite3
import sys
import zlib
from collections.abc import Iterable, Iterator
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


def read_entries(connection: sqlite3.Connection) -> dict[str, Entry]:
    """Every picture that a cache knows, by path.

    Raises:
        sqlite3.Error: the file is damaged, or cannot be read.
        TypeError, ValueError, AttributeError: values that no cache has.
    """
    rows = connection.execute("SELECT path, number, stamp, failure FROM picture")
    return {
        os.fsdecode(path): Entry(
            int(number),
            str(stamp),
            None if failure is None else failure.decode("utf-8", "surrogatepass"),
        )
        for path, number, stamp, failure in rows
    }


def put_picture(
    connection: sqlite3.Connection,
    path: str,
    stamp: str,
    pixels: bytes | None,
    failure: str | None = None,
) -> None:
    """Note a picture's pixels or failure; nothing is on disk before the connection's commit."""
    reason = None if failure is None else failure.encode("utf-8", "surrogatepass")
    cursor = connection.execute(
        "INSERT INTO picture (path, stamp, failure) VALUES (?, ?, ?)",
        (os.fsencode(path), stamp, reason),
    )
    if pixels is not None:
        row = (cursor.lastrowid, _checksum(path, pixels), pixels)
        connection.execute("INSERT INTO pixels VALUES (?, ?, ?)", row)


def remove_pictures(connection: sqlite3.Connection, entries: Iterable[Entry]) -> None:
    """Forget pictures."""
    numbers = [(entry.number,) for entry in entries]
    with connection:
        connection.executemany("DELETE FROM picture WHERE number = ?", numbers)
        connection.executemany("DELETE FROM pixels WHERE number = ?", numbers)


@contextmanager
def opened_store(
    reader: PixelReader, recipe: int
) -> Iterator[tuple[sqlite3.Connection, dict[str, Entry]]]:
    """A cache's file and its entries; a damaged, foreign or outdated file is begun anew.

    Used only while :func:`alone`. What was not committed is lost.

    Args:
        recipe: a number below 2**31 that says how the pixels are made.

    Raises:
        OSError, sqlite3.Error: the disk refuses.
    """
    entries = _usable_entries(reader, recipe)
    if entries is None:
        if os.path.lexists(reader.file):
            say(f"cache: {reader.file} is damaged or of other versions; it is built anew")
        # A new file, not an emptied one: whoever still reads the old one keeps it.
        for ending in ("", "-journal"):
            reader.file.with_name(reader.file.name + ending).unlink(missing_ok=True)
    with closing(sqlite3.connect(reader.file, timeout=_WAIT)) as connection:
        if entries is None:
            connection.executescript(f"{_TABLES} PRAGMA user_version = {recipe};")
        yield connection, entries or {}


def _usable_entries(reader: PixelReader, recipe: int) -> dict[str, Entry] | None:
    """The file's entries; None where there is no file that can be used."""
    # A link might lead to somebody's file.
    if os.path.islink(reader.file) or not is_regular(reader.file):
        return None
    try:
        with closing(sqlite3.connect(reader.file, timeout=_WAIT)) as connection:
            if connection.execute("PRAGMA user_version").fetchone()[0] != recipe:
                return None
            entries = read_entries(connection)
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _BAD_CONTENT:
            return None
        raise
    except (TypeError, ValueError, AttributeError):
        return None
    numbers = [(entry.number, path) for path, entry in entries.items() if entry.failure is None]
    sample = numbers[:: max(1, len(numbers) // _SAMPLED)]
    return entries if all(reader.pixels(*one) is not None for one in sample) else None


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
