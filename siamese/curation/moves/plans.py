"""Plans of moves as CSV files, which a person may read and edit."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from siamese.curation.csv_tables import write_table
from siamese.curation.moves.manifests import is_inside
from siamese.curation.shell import command_line, path_word
from siamese.errors import UserError
from siamese.files.places import read_bytes
from siamese.files.shown import shown

_COLUMNS = ("path", "to")


@dataclass(frozen=True)
class Move:
    """One move of a plan.

    Attributes:
        path: a file, a link or a whole folder, relative to the root, with forward slashes.
        to: its new place, relative to the root; None: into the quarantine, at the same path.
    """

    path: str
    to: str | None


def write_plan(path: Path, moves: Sequence[Move]) -> None:
    """Write a plan as UTF-8 CSV with the columns ``path,to``; an empty ``to`` is the quarantine.

    Bytes of names that are no UTF-8 are written as they are.
    """
    write_table(path, _COLUMNS, ((move.path, move.to or "") for move in moves), exact=True)


def read_plan(path: Path) -> list[Move]:
    """Read a plan, also one that a spreadsheet has saved (byte-order mark, either line end).

    More columns are allowed and ignored.

    Raises:
        UserError: not a plan; names the file and the line.
    """
    text = read_bytes(path).decode("utf-8-sig", "surrogateescape")
    try:
        return _moves(path, csv.reader(io.StringIO(text, newline="")))
    except csv.Error as error:
        raise UserError(f"{path}: not a CSV file ({error})") from None


def _moves(path: Path, reader: Any) -> list[Move]:
    header: list[str] = next(reader, [])
    if not set(_COLUMNS) <= set(header):
        raise UserError(f"{path}, line 1: not a plan; it must begin with the line path,to")
    if any(header.count(name) > 1 for name in _COLUMNS):
        raise UserError(f"{path}, line 1: not a plan; it has a column path or to twice")
    source, target = map(header.index, _COLUMNS)
    moves = []
    for row in reader:
        if not row:
            continue
        if len(row) != len(header):
            raise UserError(
                f"{path}, line {reader.line_num}: {len(row)} values, {len(header)} are needed "
                "(quote a name with a comma in it)"
            )
        if not row[source]:
            raise UserError(f"{path}, line {reader.line_num}: the path is empty")
        for place in (row[source], row[target]):
            if place and not is_inside(place):
                raise UserError(
                    f"{path}, line {reader.line_num}: '{shown(place)}' leads out of the folder; "
                    "name a path inside it"
                )
        moves.append(Move(row[source], row[target] or None))
    return moves


def mend_command(
    root: str | os.PathLike[str],
    plan: str | os.PathLike[str],
    quarantine: str | os.PathLike[str] | None = None,
) -> str:
    """The command that carries out a plan, quoted for a shell."""
    chosen = () if quarantine is None else ("--quarantine", path_word(quarantine))
    return command_line("siamese-data", "mend", path_word(root), "--plan", path_word(plan), *chosen)
