"""Files that are written whole or not at all."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from siamese.errors import UserError
from siamese.files.shown import table_cell


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
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, in the same folder, that takes ``path``'s place when all went well.

    Until then, and after any error, ``path`` holds what it held before. Its folder is made.

    Raises:
        CannotWrite: the system refuses to write.
    """
    # Two runs that write one file at once must not write into each other's.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            os.replace(temporary, path)
    finally:
        if os.path.lexists(temporary):
            temporary.unlink(missing_ok=True)


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
) -> None:
    """Write a table as UTF-8 CSV; what is no valid text in a name is escaped, or kept as bytes.

    Args:
        path: the file.
        header: names of the columns.
        rows: their cells.
        errors: what becomes of what is no valid text.
        exact: the file is read back by a command: every name as it is. Else a name that a
            spreadsheet would calculate gets a leading ``'``; numbers stay as they are.

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
