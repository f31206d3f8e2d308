"""Which folders hold one person, from pairs of folders."""

from __future__ import annotations

import csv
import difflib
import io
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from siamese.errors import UserError
from siamese.files.places import read_bytes


@dataclass(frozen=True)
class Pair:
    """Two folders that are one person.

    Attributes:
        first, second: the folders' names.
        probability: in [0, 1].
    """

    first: str
    second: str
    probability: float = 1.0


def merge_folders(counts: Mapping[str, int], pairs: Iterable[Pair]) -> dict[str, list[str]]:
    """People from folders: what pairs link, also through others, is one person.

    Args:
        counts: pictures of every folder.
        pairs: of these folders.

    Returns:
        Every person's folders, sorted. A person has the name of the folder with most pictures, the
        first of several by name.
    """
    names = sorted(counts)
    at = {name: number for number, name in enumerate(names)}
    links = [(at[pair.first], at[pair.second]) for pair in pairs]
    rows, columns = np.asarray(links, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(links), np.int8), (rows, columns)), (len(names), len(names)))
    _, groups = connected_components(graph, directed=False)
    members: dict[int, list[str]] = {}
    for name, group in zip(names, groups.tolist(), strict=True):
        members.setdefault(group, []).append(name)
    people = {max(some, key=lambda name: counts[name]): some for some in members.values()}
    return dict(sorted(people.items()))


def read_pairs_to_merge(file: Path, names: Iterable[str]) -> list[Pair]:
    """Read a CSV with the columns ``first`` and ``second``, such as audit's ``same_person.csv``.

    Args:
        file: UTF-8; other columns are ignored.
        names: the folders that there are; a name is found in any Unicode form.

    Raises:
        UserError: unreadable; no such columns; a name that no folder has. Names file and line.
    """
    text = read_bytes(file).decode("utf-8-sig", "surrogateescape")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    known = {_plain(name): name for name in names}
    pairs: list[Pair] = []
    columns: list[int] = []
    line = 1
    try:
        for fields in reader:
            where = f"{file}, line {line}"
            if not columns:
                columns = _columns(where, fields)
            elif fields:
                if max(columns) >= len(fields):
                    raise UserError(f"{where}: {len(fields)} field(s); wanted: first and second")
                first, second = (_known(where, fields[at], known) for at in columns)
                if first == second:
                    raise UserError(f"{where}: {first!r} twice; name two folders")
                pairs.append(Pair(first, second))
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{file}, line {line}: is no CSV ({error})") from None
    if not columns:
        raise UserError(f"{file}: is empty; wanted: a CSV with the columns first and second")
    return pairs


def _columns(where: str, fields: list[str]) -> list[int]:
    header = [name.strip().lower() for name in fields]
    for name in ("first", "second"):
        if header.count(name) != 1:
            told = ",".join(fields)[:60]
            raise UserError(f"{where}: {told!r} has no column {name}; wanted: first,second")
    return [header.index("first"), header.index("second")]


def _known(where: str, name: str, known: Mapping[str, str]) -> str:
    found = known.get(_plain(name))
    if found is None:
        near = difflib.get_close_matches(_plain(name), known, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(f"{where}: no folder with pictures has the name {name!r}{hint}")
    return found


def _plain(name: str) -> str:
    """One form for all spellings: tables escape the bytes of a name that are no valid text."""
    return unicodedata.normalize("NFC", name.encode("utf-8", "backslashreplace").decode())
