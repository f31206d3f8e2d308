"""Files and folders that are written whole or not at all.

What is not whole yet is called ``.NAME.xxxxxxxx.tmp`` (eight hexadecimal digits), lies beside
``NAME``, and is locked by the process that writes it. One that nobody locks was left by a killed
process; it is removed when ``NAME`` is written the next time.
"""

from __future__ import annotations

import csv
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from siamese.errors import UserError
from siamese.files.shown import table_cell

try:
    import fcntl
except ImportError:  # no such locks on this system: there what is left stays
    fcntl = None  # type: ignore[assignment]

_LONGEST = 200  # bytes of a name that its temporary's name takes over
_OPEN = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


class CannotWrite(UserError):  # noqa: N818 - the state of a disk, as the user is told it
    """A file could not be written (full disk, no permission); what was there before stays."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the system refuses inside becomes one line about ``path``.

    Raises:
        CannotWrite: an ``OSError`` inside: a full disk, a quota, a place that may not be written.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise CannotWrite(
            f"{path}: cannot be written ({reason}); what was there before stays as it is"
        ) from error


@contextmanager
def going_on(way: Callable[[], str]) -> Iterator[None]:
    """What cannot be written inside is reported with the way to go on, in words made then."""
    try:
        yield
    except CannotWrite as error:
        raise CannotWrite(f"{error}; {way()}") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, in the same folder, that takes ``path``'s place when all went well.

    Until then, and after any error, ``path`` holds what it held before. Its folder is made. The
    file has the permissions that the user's umask gives.

    Raises:
        CannotWrite: the system refuses to write.
    """
    with writing(path), _temporary(path, folder=False) as temporary:
        yield temporary
        os.replace(temporary, path)


@contextmanager
def drafting(path: Path) -> Iterator[Path]:
    """A folder to fill, in the same folder, that becomes ``path`` when all went well.

    Until then, and after any error, ``path`` is missing or empty as before.

    Raises:
        OSError: the system refuses to write; there is something at ``path``.
    """
    with _temporary(path, folder=True) as temporary:
        yield temporary
        if os.path.lexists(path):
            os.rmdir(path)
        os.rename(temporary, path)


@contextmanager
def _temporary(path: Path, *, folder: bool) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    stem = path.name
    while len(os.fsencode(stem)) > _LONGEST:
        stem = stem[:-1]
    remove_leftovers(path.parent, re.escape(stem))
    temporary, lock = _new(path, stem, folder)
    try:
        yield temporary
    finally:
        # Two runs that write one file at once must not take away each other's.
        _remove(temporary)
        if lock is not None:
            os.close(lock)


def _new(path: Path, stem: str, folder: bool) -> tuple[Path, int | None]:
    """A new file or folder that only this process has, and what keeps it locked."""
    while True:
        temporary = path.with_name(f".{stem}.{secrets.token_hex(4)}.tmp")
        try:
            if folder:
                temporary.mkdir()
            else:
                os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
            lock = _locked(temporary)
        # Between its making and its locking it may pass for a dead process's, and be removed.
        except (FileExistsError, BlockingIOError):
            continue
        if os.path.lexists(temporary):
            return temporary, lock
        if lock is not None:
            os.close(lock)


def remove_leftovers(folder: Path, name: str) -> None:
    """Remove what killed processes left beside a target; what a living one writes stays.

    ``name`` is the target's, as a regular expression.
    """
    if fcntl is None:
        return
    wanted = re.compile(rf"\.(?:{name})\.[0-9a-f]{{8}}\.tmp", re.DOTALL)
    try:
        leftovers = [entry for entry in os.listdir(folder) if wanted.fullmatch(entry)]
    except OSError:  # what is wrong with it is reported where it is written
        return
    for entry in leftovers:
        with suppress(BlockingIOError):
            lock = _locked(folder / entry)
            if lock is not None:
                _remove(folder / entry)
                os.close(lock)


def _locked(path: Path) -> int | None:
    """Lock a file or folder; None where there is no lock for it; BlockingIOError: it is taken."""
    if fcntl is None:
        return None
    try:
        handle = os.open(path, _OPEN | (os.O_RDONLY if path.is_dir() else os.O_RDWR))
    except OSError:
        return None
    try:
        if lock_file(handle):
            return handle
    except BlockingIOError:
        os.close(handle)
        raise
    os.close(handle)
    return None


def lock_file(handle: int) -> bool:
    """Lock an open file for this process, until it closes it or ends.

    Returns:
        whether it is locked; False where the system, or this disk, has no such locks.

    Raises:
        BlockingIOError: another process has it.
    """
    if fcntl is None:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # some network disks
        return False
    return True


@contextmanager
def held(path: Path, busy: UserError) -> Iterator[None]:
    """Hold a lock file, made where it is missing; ``busy`` is raised where another process does."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            lock_file(handle)
        except BlockingIOError:
            raise busy from None
        yield
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    with suppress(OSError):  # the error that led here is the one to tell
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def write_text(
    path: Path,
    text: str,
    *,
    errors: Literal["backslashreplace", "surrogateescape"] = "backslashreplace",
) -> Path:
    """Write text as UTF-8; what is no valid text in a name is escaped, or kept as bytes."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors=errors)
    return path


def write_csv(
    path: Path,
    header: Sequence[str],
    rows: Iterable[Iterable[object]],
    *,
    errors: Literal["backslashreplace", "surrogateescape"] = "backslashreplace",
    exact: bool = False,
) -> Path:
    """Write a table as UTF-8 CSV; what is no valid text in a name is escaped, or kept as bytes.

    A name that a spreadsheet would calculate gets a leading ``'``; with ``exact`` every name stays
    as it is, for files that a command reads back. Numbers always do.

    Raises:
        CannotWrite: the system refuses to write.
    """
    with (
        replacing(path) as temporary,
        open(temporary, "w", encoding="utf-8", errors=errors, newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows if exact else ([_cell(cell) for cell in row] for row in rows))
    return path


def _cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        float(value)
    except ValueError:
        return table_cell(value)
    return value


def write_json(path: Path, content: Mapping[str, Any]) -> Path:
    """Write plain values as UTF-8 JSON, which has no NaN and no Infinity."""
    return write_text(path, json.dumps(content, indent=1, allow_nan=False))
