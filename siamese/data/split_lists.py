"""Lists of who learns, validates and tests: ``train.csv``, ``validation.csv``, ``test.csv``.

A list is UTF-8 CSV (RFC 4180) with a header: ``path`` is a picture, relative to the face folder,
with forward slashes; ``person`` is who it shows. Without ``person`` the first folder of the path is
the person. Other columns are ignored. Names that are no valid text keep their bytes.
"""

from __future__ import annotations

import codecs
import csv
import io
import os
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from siamese.data.csv_rows import numbered_rows
from siamese.data.folder import FaceFolder, LeftOut, check_headers, require_folder
from siamese.data.split import Split, require_pairs
from siamese.errors import UserError
from siamese.files.places import is_regular, read_bytes

PARTS = ("train", "validation", "test")


class _Row(NamedTuple):
    where: str  # file and line
    path: str
    person: str


def list_content(pictures: Mapping[str, Sequence[str]]) -> bytes:
    """The file of a list."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(("path", "person"))
    writer.writerows((path, person) for person, paths in pictures.items() for path in paths)
    return text.getvalue().encode("utf-8", "surrogateescape")


def require_lists(lists: Path) -> None:
    """Refuse a folder without lists.

    Raises:
        UserError: no such folder; no ``train.csv`` or ``validation.csv`` in it.
    """
    if not os.path.isdir(lists):  # unlike Path.is_dir never an OSError
        raise UserError(f"{lists}: no such folder; write lists with siamese-data split")
    for part in PARTS[:2]:
        if not os.path.isfile(lists / f"{part}.csv"):
            raise UserError(
                f"{lists}: has no {part}.csv; `split.lists` is a folder with train.csv, "
                "validation.csv and, if you like, test.csv"
            )


def listed_numbers(lists: Path) -> dict[str, int]:
    """Number of pictures that each list names; nothing is looked up.

    Raises:
        UserError: no lists; one that cannot be read.
    """
    require_lists(lists)
    return {part: len(_rows(file)) for part, file in _files(lists).items()}


def read_split(lists: Path, root: Path) -> Split:
    """The people and pictures that lists name.

    A listed picture that cannot be read is left out, as where a folder is scanned.

    Raises:
        UserError: no such folder or list; a malformed line; a picture that is not there, lies
            outside the root or is listed twice; a person in two lists; a part without pairs.
            Names the file and the line.
    """
    require_folder(root)
    require_lists(lists)
    files = _files(lists)
    rows = {part: _rows(file) for part, file in files.items()}
    _refuse_repeated(rows)
    for some in rows.values():
        _refuse_missing(some, root)
    people = {part: _people(some) for part, some in rows.items()}
    paths = [row.path for some in rows.values() for row in some]
    reasons = dict(zip(paths, check_headers(root, paths), strict=True))
    parts = _folders(root, people, reasons)
    for part, file in files.items():
        if not parts[part].paths:
            raise UserError(f"{file}: not one of its {len(rows[part])} pictures can be read")
        require_pairs(part, parts[part], f"add pictures to {file}")
    return Split(parts["train"], parts["validation"], parts.get("test"), listed=True)


def read_again(
    root: Path, parts: Mapping[str, Mapping[str, Sequence[str]]], where: str
) -> dict[str, FaceFolder]:
    """The people of a checkpoint's lists, without the lists.

    What is not there or cannot be read is left out, and so are people who have no other picture.

    Raises:
        UserError: no such folder; a path that leaves it.
    """
    require_folder(root)
    people = {
        part: {person: [_inside(where, path) for path in paths] for person, paths in some.items()}
        for part, some in parts.items()
    }
    paths = [path for part in people.values() for some in part.values() for path in some]
    there = [path for path in paths if is_regular(root / path)]
    reasons: dict[str, str | None] = dict.fromkeys(paths, "missing")
    reasons |= zip(there, check_headers(root, there), strict=True)
    return _folders(root, people, reasons)


def pictures_by_person(folder: FaceFolder) -> dict[str, list[str]]:
    """Person to paths."""
    pictures: dict[str, list[str]] = {name: [] for name in folder.names}
    for path, label in zip(folder.paths, folder.labels, strict=True):
        pictures[folder.names[label]].append(path)
    return pictures


def merged_folders(folder: FaceFolder) -> dict[str, list[str]]:
    """The people whose pictures lie in several folders, with the folders."""
    holders: dict[str, dict[str, None]] = {}
    for path, label in zip(folder.paths, folder.labels, strict=True):
        holders.setdefault(folder.names[label], {})[path.rpartition("/")[0]] = None
    return {person: sorted(some) for person, some in holders.items() if len(some) > 1}


def names_of(part: Mapping[str, Any]) -> list[str]:
    """Names that the people of a checkpoint's part go by: theirs, and those of their folders."""
    paths = (path for some in part.get("listed", {}).values() for path in some)
    folders = {path.split("/")[0] for path in paths if path.count("/") == 1}
    return [*part["identities"], *sorted(folders - set(part["identities"]))]


def _files(lists: Path) -> dict[str, Path]:
    files = {part: lists / f"{part}.csv" for part in PARTS}
    return {part: file for part, file in files.items() if part != "test" or file.exists()}


def _rows(file: Path) -> list[_Row]:
    content = read_bytes(file)
    if b"\0" in content:
        raise UserError(f"{file}: is not UTF-8 text (UTF-16?); save it as CSV in UTF-8")
    # Bytes that are not UTF-8 are kept as surrogates: they may be in a name.
    text = content.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")
    rows = numbered_rows(file, io.StringIO(text, newline=""))
    header = [name.strip().lower() for name in rows[0][1]] if rows else ["path"]
    if header.count("path") != 1 or header.count("person") > 1:
        raise UserError(
            f"{file}, line {rows[0][0]}: {','.join(rows[0][1])[:60]!r} starts no list; wanted: a "
            "header with the column path, and person where it is not the folder's name, separated "
            "by commas"
        )
    if len(rows) < 2:
        raise UserError(f"{file}: lists no picture; a header path,person and a line for each")
    return [_row(f"{file}, line {line}", fields, header) for line, fields in rows[1:]]


def _row(where: str, fields: list[str], header: list[str]) -> _Row:
    if len(fields) != len(header):
        raise UserError(
            f"{where}: {len(fields)} field(s), but the header has {len(header)}; a path that holds "
            "a comma goes into quotes"
        )
    values = dict(zip(header, fields, strict=True))
    path = _inside(where, values["path"])
    person = values.get("person", path.rpartition("/")[0].split("/")[0])
    if not person:
        raise UserError(f"{where}: no person; say who {path!r} shows in the column person")
    return _Row(where, path, person)


def _inside(where: str, path: str) -> str:
    """A path below the root in its plainest form, with forward slashes."""
    if not path:
        raise UserError(f"{where}: an empty path; wanted: a picture's, relative to the folder")
    if PurePath(path).anchor:
        raise UserError(f"{where}: {path!r} is absolute; write it relative to the folder")
    parts = PurePath(os.path.normpath(path)).parts
    if parts[:1] == ("..",):
        raise UserError(f"{where}: {path!r} leaves the folder; name a picture inside it")
    return "/".join(parts)


def _refuse_repeated(rows: Mapping[str, list[_Row]]) -> None:
    """Refuse a picture that is listed twice, and a person who stands in two lists."""
    places: dict[str, str] = {}
    people: dict[str, tuple[str, str]] = {}
    for part, some in rows.items():
        for where, path, person in some:
            earlier = places.setdefault(path, where)
            if earlier != where:
                raise UserError(f"{where}: {path!r} is listed in {earlier} already")
            first, earlier = people.setdefault(_plain(person), (part, where))
            if first != part:
                raise UserError(
                    f"{where}: {person!r} is in {earlier}, too; a person stands in one list "
                    "only: write lists with siamese-data split"
                )


def _refuse_missing(rows: list[_Row], root: Path) -> None:
    missing = [row for row in rows if not is_regular(root / row.path)]
    if missing:
        raise UserError(
            f"{missing[0].where}: no such picture in {root}: {missing[0].path!r} ({len(missing)} "
            f"of {len(rows)} are missing); give the folder that the lists were made of with "
            "`data`, write / between folder and file, and save the list as UTF-8"
        )


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _people(rows: list[_Row]) -> dict[str, list[str]]:
    """Person to paths; a name in several Unicode forms is one person, by the form that is first."""
    spelt: dict[str, str] = {}
    pictures: dict[str, list[str]] = {}
    for _, path, person in rows:
        pictures.setdefault(spelt.setdefault(_plain(person), person), []).append(path)
    return pictures


def _folders(
    root: Path,
    parts: Mapping[str, Mapping[str, Sequence[str]]],
    reasons: Mapping[str, str | None],
) -> dict[str, FaceFolder]:
    """The usable pictures of each part; all parts name everything that is left out."""
    found: dict[str, dict[str, list[str]]] = {part: {} for part in parts}
    left_out: list[LeftOut] = []
    for part, people in parts.items():
        for person, paths in sorted(people.items()):
            usable = sorted(path for path in paths if reasons[path] is None)
            if usable:
                found[part][person] = usable
            else:
                left_out.append(LeftOut(person, "person without a usable picture"))
    left_out += [LeftOut(path, reason) for path, reason in reasons.items() if reason is not None]
    everything = tuple(sorted(left_out, key=lambda item: item.path))
    return {
        part: FaceFolder(
            root=root,
            names=tuple(people),
            paths=tuple(path for paths in people.values() for path in paths),
            labels=tuple(label for label, paths in enumerate(people.values()) for _ in paths),
            left_out=everything,
        )
        for part, people in found.items()
    }
