"""Rows of a CSV file with the numbers of their lines."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from siamese.errors import UserError


def numbered_rows(
    file: Path | str, lines: Iterable[str], delimiter: str = ","
) -> list[tuple[int, list[str]]]:
    """Fields of every row that is not empty, each with the number of its first line, from 1.

    Raises:
        UserError: a row that is no CSV (RFC 4180), by its line.
    """
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    rows = []
    number = 1
    try:
        for fields in reader:
            if fields:
                rows.append((number, fields))
            number = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"{file}, line {number}: is no CSV ({error}); put a path that holds a comma or quote "
            'into quotes, and double its quotes: "a ""b"".jpg"'
        ) from None
    return rows
