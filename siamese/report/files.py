"""Files that are written whole or not at all."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, in the same folder, that takes ``path``'s place when all went well.

    Until then, and after any error, ``path`` holds what it held before. Its folder is made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two runs that write one file at once must not write into each other's.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_csv(
    path: Path,
    header: Sequence[str],
    rows: Iterable[Iterable[object]],
    *,
    errors: Literal["backslashreplace", "surrogateescape"] = "backslashreplace",
) -> None:
    """Write a table as UTF-8 CSV; what is no valid text in a name is escaped, or kept as bytes."""
    with (
        replacing(path) as temporary,
        open(temporary, "w", encoding="utf-8", errors=errors, newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def write_json(path: Path, content: Mapping[str, Any]) -> Path:
    """Write plain values as UTF-8 JSON, which has no NaN and no Infinity."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")
    return path
