"""CSV tables that a person may have written, or a spreadsheet saved."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from siamese.errors import UserError
from siamese.files.places import read_bytes
from siamese.files.shown import shown


def read_table(path: Path, columns: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Some columns of a UTF-8 CSV file, with or without byte-order mark, with either line end.

    Bytes that are no UTF-8 stay as they are. Other columns and empty lines are ignored; names in
    the header count in any letter case.

    Returns:
        For every row the words ``FILE, line N`` and the cells of the columns.

    Raises:
        UserError: unreadable; no CSV; a column that is missing or there twice; a row of another
            length than the header. Names the file and the line.
    """
    text = read_bytes(path).decode("utf-8-sig", "surrogateescape")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[tuple[str, list[str]]] = []
    line = 1
    try:
        first = next(reader, [])
        header = [name.strip().lower() for name in first]
        for name in columns:
            if header.count(name) != 1:
                begin = shown(",".join(first)[:60])
                raise UserError(
                    f"{path}, line 1: '{begin}' has no column {name}, or has it twice; wanted: a "
                    f"CSV that begins with the line {','.join(columns)}"
                )
        places = [header.index(name) for name in columns]
        line = reader.line_num + 1
        for row in reader:
            where = f"{path}, line {line}"
            if row and len(row) != len(header):
                raise UserError(
                    f"{where}: {len(row)} values, {len(header)} are needed (quote a name with a "
                    "comma in it)"
                )
            if row:
                rows.append((where, [row[place] for place in places]))
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}, line {line}: not a CSV file ({error})") from None
    return rows
