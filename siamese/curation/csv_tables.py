"""Tables as CSV files in which a name keeps its bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from siamese.files.writing import write_csv


def write_table(
    path: Path, header: Sequence[str], rows: Iterable[Iterable[object]], *, exact: bool = False
) -> Path:
    """Write UTF-8 CSV, whole or not at all; bytes of names that are no UTF-8 stay as they are.

    Names that a spreadsheet would calculate get a leading ``'``, unless a command reads the file
    back (``exact``).
    """
    write_csv(path, header, rows, errors="surrogateescape", exact=exact)
    return path
