"""Lists of picture pairs with the truth about each: LFW's ``pairs.txt`` and its kin, or CSV."""

from __future__ import annotations

import csv
import io
import os
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from PIL import Image

from siamese.data.folder import require_folder
from siamese.errors import UserError
from siamese.files.places import read_bytes


@dataclass(frozen=True)
class PairList:
    """The listed pairs whose pictures both exist.

    Attributes:
        first: path of one picture of each pair, relative to the root, with forward slashes.
        second: path of the other one.
        same: whether they show one person.
        fold: number of each pair's fold, from 0; None where the list knows none.
        missing: files that are named but not there, each once, in the list's order.
        skipped: number of pairs left out because of them.
    """

    first: tuple[str, ...]
    second: tuple[str, ...]
    same: tuple[bool, ...]
    fold: tuple[int, ...] | None
    missing: tuple[str, ...]
    skipped: int


@dataclass(frozen=True)
class _Pair:
    line: int
    first: str
    second: str
    same: bool
    fold: int


def read_pairs(file: Path, root: Path) -> PairList:
    """Read a list of pairs; which kind it is, its first line tells.

    *LFW* (Huang et al. 2007): fields are separated by tabs. ``10<TAB>300``: for each of 10 folds,
    300 genuine lines ``name<TAB>i<TAB>j``, then 300 impostor lines
    ``name1<TAB>i<TAB>name2<TAB>j``; a single number, ``500``: one fold. Picture 7 of Ann is
    ``Ann/Ann_0007.jpg``, or the like with another suffix of a picture.

    *CSV* (RFC 4180): header ``path_a,path_b,same``, columns in any order; paths relative to the
    root, ``same`` one of 1, 0, true, false, yes, no.

    Both are UTF-8.

    Args:
        file: the list.
        root: the folder that its pictures are in.

    Raises:
        UserError: a file or folder that is not there; a malformed line, by its number; the same
            pair twice; no pair whose pictures exist.
    """
    file, root = Path(file), Path(root)
    require_folder(root)
    lines = _text(file).split("\n")
    header = lines[0].strip().split("\t")
    if all(_NUMBER.fullmatch(entry) for entry in header) and len(header) < 3:
        pairs = list(_lfw_pairs(file, lines, _Pictures(root)))
        folded = len(header) == 2 and int(header[0]) > 1  # one fold has no others to choose by
    else:
        pairs = list(_csv_pairs(file, lines))
        folded = False
    _refuse_repeated(file, pairs)
    return _existing(file, root, pairs, folded=folded)


_NUMBER = re.compile(r"[0-9]{1,9}")


def _text(file: Path) -> str:
    """The file's text with Unix line ends, without empty lines at its end."""
    if not os.path.exists(file):  # unlike Path.exists never an OSError
        raise UserError(f"{file}: no such file")
    if file.is_dir():
        raise UserError(f"{file}: is a folder; a list of pairs is needed (a text file)")
    content = read_bytes(file)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{file}, line {line}: is not UTF-8; save the list as UTF-8") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(f"{file}, line {line}: holds a zero byte; a text file is needed")
    text = text.replace("\r\n", "\n").rstrip("\r\n\t ")
    if not text:
        raise UserError(f"{file}: is empty; a list of pairs is needed")
    return text


class _Pictures:
    """LFW's names of pictures to paths; every person's folder is listed once."""

    def __init__(self, root: Path):
        self._root = root
        self._folders: dict[str, dict[str, str]] = {}
        self._suffixes = set(_picture_suffixes())

    def path(self, name: str, number: int) -> str:
        """Path of a picture relative to the root; where there is none, of the .jpg it should be."""
        if name not in self._folders:
            self._folders[name] = self._listed(name)
        stem = f"{name}_{number:04d}"
        return f"{name}/{self._folders[name].get(stem, stem + '.jpg')}"

    def _listed(self, name: str) -> dict[str, str]:
        """Stem to file name."""
        try:
            files = os.listdir(self._root / name)
        except OSError:
            return {}
        found: dict[str, str] = {}
        # .jpg before all others, then by name.
        for file in sorted(files, key=lambda file: (not file.endswith(".jpg"), file)):
            stem, suffix = os.path.splitext(file)
            if suffix.lower() in self._suffixes:
                found.setdefault(stem, file)
        return found


def _picture_suffixes() -> Iterator[str]:
    Image.init()
    yield from Image.registered_extensions()


def _lfw_pairs(file: Path, lines: list[str], pictures: _Pictures) -> Iterator[_Pair]:
    numbers = [int(entry) for entry in lines[0].strip().split("\t")]
    if min(numbers) < 1:
        raise UserError(f"{file}, line 1: {lines[0].strip()!r} must be whole numbers of at least 1")
    folds, each = (1, numbers[0]) if len(numbers) == 1 else (numbers[0], numbers[1])
    wanted = folds * 2 * each
    says = f"line 1 says {each} genuine and {each} impostor pairs"
    says += f" in each of {folds} folds" if len(numbers) == 2 else ""
    if len(lines) - 1 > wanted:
        raise UserError(f"{file}, line {wanted + 2}: one line too many; {says}")
    for at, line in enumerate(lines[1:]):
        same = at // each % 2 == 0
        one, other = _lfw_entries(f"{file}, line {at + 2}", line.strip("\r").split("\t"), same)
        yield _Pair(at + 2, pictures.path(*one), pictures.path(*other), same, at // (2 * each))
    if len(lines) - 1 < wanted:
        raise UserError(
            f"{file}, line {len(lines)}: the list ends after {len(lines) - 1} of {wanted} pairs; "
            f"{says}"
        )


def _lfw_entries(
    where: str, fields: list[str], same: bool
) -> tuple[tuple[str, int], tuple[str, int]]:
    """Name and number of both pictures of a line."""
    kind = "a genuine pair" if same else "an impostor pair"
    form = "name<TAB>i<TAB>j" if same else "name1<TAB>i<TAB>name2<TAB>j"
    fields = [entry.strip() for entry in fields]
    if len(fields) != (3 if same else 4):
        raise UserError(
            f"{where}: {len(fields)} field(s) separated by tabs; {kind} is wanted here: {form}"
        )
    names = [fields[0], fields[0]] if same else [fields[0], fields[2]]
    for name in names:
        if name in ("", ".", "..") or "/" in name or "\\" in name:
            raise UserError(f"{where}: {name!r} cannot be a person's folder; wanted: {form}")
    numbers = [fields[1], fields[-1]]
    for number in numbers:
        if not _NUMBER.fullmatch(number) or int(number) < 1:
            raise UserError(
                f"{where}: {number!r} is no picture's number (a whole number of at least 1); "
                f"wanted: {form}"
            )
    one, other = ((name, int(number)) for name, number in zip(names, numbers, strict=True))
    if one == other:
        raise UserError(f"{where}: a picture paired with itself; name two different pictures")
    if not same and names[0] == names[1]:
        raise UserError(f"{where}: {names[0]!r} twice; an impostor pair is of two people")
    return one, other


_COLUMNS = ("path_a", "path_b", "same")
_TRUTHS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def _csv_pairs(file: Path, lines: list[str]) -> Iterator[_Pair]:
    reader = csv.reader(io.StringIO("\n".join(lines), newline=""), strict=True)
    start = 1
    order: list[int] | None = None
    try:
        for row in reader:
            if order is None:
                order = _column_order(file, row)
            else:
                yield _csv_pair(file, start, row, order)
            start = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"{file}, line {start}: is no CSV ({error}); put a path that holds a comma or quote "
            'into quotes, and double its quotes: "a ""b"".jpg"'
        ) from None


def _column_order(file: Path, header: list[str]) -> list[int]:
    names = [name.strip() for name in header]
    if sorted(names) != sorted(_COLUMNS):
        raise UserError(
            f"{file}, line 1: {','.join(names)[:60]!r} starts no list of pairs; wanted: the header "
            "path_a,path_b,same of a CSV, or LFW's 10<TAB>300 (folds, pairs) or 500 (pairs)"
        )
    return [names.index(name) for name in _COLUMNS]


def _csv_pair(file: Path, line: int, row: list[str], order: list[int]) -> _Pair:
    where = f"{file}, line {line}"
    if len(row) != len(_COLUMNS):
        raise UserError(
            f"{where}: {len(row)} field(s), wanted are 3: path_a, path_b, same; a path that holds "
            "a comma goes into quotes"
        )
    first, second, truth = (row[at] for at in order)
    one, other = _inside(where, first), _inside(where, second)
    if one == other:
        raise UserError(f"{where}: a picture paired with itself; name two different pictures")
    same = _TRUTHS.get(truth.strip().lower())
    if same is None:
        raise UserError(f"{where}: same is {truth!r}; wanted: 1, 0, true, false, yes or no")
    return _Pair(line, one, other, same, 0)


def _inside(where: str, path: str) -> str:
    """A path below the root in its plainest form."""
    if not path.strip():
        raise UserError(f"{where}: an empty path; wanted: a picture's, relative to the root")
    windows = PureWindowsPath(path)
    plain = posixpath.normpath(path)
    if plain.startswith("/") or windows.drive or windows.root:
        raise UserError(f"{where}: {path!r} is absolute; write it relative to the root")
    if plain.split("/")[0] == ".." or ("\\" in path and ".." in windows.parts):
        raise UserError(f"{where}: {path!r} leaves the root; name a picture inside it")
    return plain


def _refuse_repeated(file: Path, pairs: list[_Pair]) -> None:
    known: dict[tuple[str, str], int] = {}
    for pair in pairs:
        one, other = sorted((pair.first, pair.second))
        earlier = known.setdefault((one, other), pair.line)
        if earlier != pair.line:
            raise UserError(
                f"{file}, line {pair.line}: {one!r} and {other!r} are paired on line {earlier} "
                "already; leave one of the two lines out"
            )


def _existing(file: Path, root: Path, pairs: list[_Pair], *, folded: bool) -> PairList:
    """The pairs whose pictures are there."""
    if not pairs:
        raise UserError(f"{file}: no pair follows the header; add one per line")
    named = dict.fromkeys(path for pair in pairs for path in (pair.first, pair.second))
    missing = {path: None for path in named if not os.path.isfile(root / path)}
    kept = [pair for pair in pairs if pair.first not in missing and pair.second not in missing]
    if not kept:
        raise UserError(
            f"{file}: none of its {len(pairs)} pairs has both pictures in {root} (the first that "
            f"is not there: {next(iter(missing))!r}); give the folder that its paths start from"
        )
    return PairList(
        first=tuple(pair.first for pair in kept),
        second=tuple(pair.second for pair in kept),
        same=tuple(pair.same for pair in kept),
        fold=tuple(pair.fold for pair in kept) if folded else None,
        missing=tuple(missing),
        skipped=len(pairs) - len(kept),
    )
