"""Tables as CSV files in which a name keeps its bytes."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from siamese.report.files import replacing


def write_table(path: Path, header: Sequence[str], rows: Iterable[Iterable[object]]) -> Path:
    """Write UTF-8 CSV, whole or not at all; bytes of names that are no UTF-8 stay as they are."""
    with (
        replacing(path) as temporary,
        open(temporary, "w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path
