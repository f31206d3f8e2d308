"""Lists of pairs as people write them: LFW's, tables with a header, lines ``a b 1``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from siamese.data.csv_rows import numbered_rows
from siamese.errors import UserError
from siamese.files.places import read_bytes

_LIMIT = 64 * 2**20  # bytes: a million pairs of long paths
_NUMBER = re.compile(r"[0-9]{1,9}")
_MARKS = {"\t": "tab", ",": "comma", ";": "semicolon", " ": "space"}

# A header's names, without regard to case, spaces, _ and -: two of these with one pair of endings,
# (img1, img2), (path_a, path_b), (left, right) ...
PICTURES = (
    "path", "img", "image", "im", "file", "filename", "picture", "pic", "photo", "face",
    "imagepath", "imgpath", "filepath", "imagefile", "imagename", "imgname", "",
)  # fmt: skip
ENDINGS = (("a", "b"), ("1", "2"), ("0", "1"), ("left", "right"), ("first", "second"))
# One of these for the truth, and none other: a distance or score says nothing certain.
TRUTH = (
    "same", "issame", "sameperson", "label", "labels", "target", "match", "ismatch", "y", "truth",
    "groundtruth", "gt", "genuine", "isgenuine",
)  # fmt: skip
FOLD = ("fold", "folds", "split")
TRUTHS = {
    **dict.fromkeys(("1", "1.0", "true", "yes", "same", "genuine"), True),
    **dict.fromkeys(("0", "0.0", "-1", "-1.0", "false", "no", "different", "impostor"), False),
}
_TRUTHS_SHOWN = "1, 0, -1, true, false, yes, no, same or different (a score is no truth)"
_WANTED = (
    "a header with two columns of pictures and one of the truth (path_a,path_b,same or "
    'img1,img2,label ...), lines "a b 1", or LFW\'s 10<TAB>300 (folds, pairs) or 500 (pairs)'
)
Rows = list[tuple[int, list[str]]]


class Written(NamedTuple):
    """A pair as its line (counted from 1) says it; folds are counted from 0."""

    line: int
    first: str
    second: str
    same: bool
    fold: int


@dataclass(frozen=True)
class Form:
    """A list that was read.

    Attributes:
        pairs: in the list's order, at least one.
        folded: whether there are several folds.
        numbered: whether pictures are named by a person and a number, as LFW does.
        taken: what was taken as what, where it is not one of the two plain forms.
    """

    pairs: list[Written]
    folded: bool
    numbered: bool
    taken: str | None


def read_form(file: Path) -> Form:
    """Read a list of pairs, whatever its form; see :func:`siamese.data.pair_lists.read_pairs`.

    Raises:
        UserError: missing, malformed (by the number of the line), empty.
    """
    # Comments are emptied, not removed: the numbers of the lines stay.
    lines = ["" if line.lstrip()[:1] in ("", "#") else line for line in _text(file).split("\n")]
    first = next((number for number, line in enumerate(lines) if line), None)
    if first is None:
        raise UserError(f"{file}: is empty; a list of pairs is needed")
    head = lines[first].split()
    is_lfw = len(head) < 3 and all(_NUMBER.fullmatch(entry) for entry in head)
    form = _lfw(file, first, lines) if is_lfw else _table(file, first, lines)
    if not form.pairs:
        raise UserError(f"{file}: no pair follows the header; add one per line")
    return form


def _text(file: Path) -> str:
    """The file's text with Unix line ends, without empty lines at its end."""
    content = read_bytes(file, limit=_LIMIT)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{file}, line {line}: is not UTF-8; save the list as UTF-8") from None
    if "\0" in text:
        raise UserError(f"{file}: holds a zero byte; a text file is needed")
    return text.replace("\r\n", "\n").rstrip("\r\n\t ")


def _lfw(file: Path, first: int, lines: Sequence[str]) -> Form:
    """LFW's list; its header, ``folds each`` or ``each``, stands at the position ``first``."""
    numbers = [int(entry) for entry in lines[first].split()]
    if min(numbers) < 1:
        given = " ".join(map(str, numbers))
        raise UserError(f"{file}, line {first + 1}: {given!r} must be whole numbers of at least 1")
    folds, each = numbers if len(numbers) == 2 else (1, numbers[0])
    wanted = folds * 2 * each
    says = f"line {first + 1} says {each} genuine and {each} impostor pairs in each of its folds"
    pairs: list[Written] = []
    body = [(number, line) for number, line in enumerate(lines, 1) if line][1:]
    for number, line in body:
        if len(pairs) == wanted:
            raise UserError(f"{file}, line {number}: one line too many; {says}")
        same = len(pairs) // each % 2 == 0
        names = _lfw_names(f"{file}, line {number}", line, same)
        pairs.append(Written(number, *names, same, len(pairs) // (2 * each)))
    if len(pairs) < wanted:
        raise UserError(
            f"{file}, line {len(lines)}: the list ends after {len(pairs)} of {wanted} pairs; {says}"
        )
    spaced = any("\t" not in line for _, line in body)
    taken = "LFW's list, separated by spaces" if spaced else None
    return Form(pairs, folds > 1, True, taken)  # one fold has no others to choose by


def _lfw_names(where: str, line: str, same: bool) -> tuple[str, str]:
    """Paths of both pictures of a line."""
    form = "a genuine pair is wanted here: name<TAB>i<TAB>j"
    spaced = r"(.+?)\s+(\S+)\s+(\S+)"
    if not same:
        form = "an impostor pair is wanted here: name1<TAB>i<TAB>name2<TAB>j"
        spaced = r"(.+?)\s+([0-9]+)\s+(.+)\s+(\S+)"
    if "\t" in line:
        fields = [entry.strip() for entry in line.split("\t")]
    else:  # names may hold spaces
        matched = re.fullmatch(spaced, line.strip())
        fields = list(matched.groups()) if matched else line.split()[:2]
    if len(fields) != (3 if same else 4):
        raise UserError(f"{where}: {len(fields)} field(s); {form}")
    names = [fields[0], fields[0]] if same else [fields[0], fields[2]]
    numbers = [fields[1], fields[-1]]
    for name in names:
        if name in ("", ".", "..") or "/" in name or "\\" in name:
            raise UserError(f"{where}: {name!r} cannot be a person's folder; {form}")
    for number in numbers:
        if not _NUMBER.fullmatch(number) or int(number) < 1:
            raise UserError(f"{where}: {number!r} is no picture's number (1, 2, ...); {form}")
    if not same and names[0] == names[1]:
        raise UserError(f"{where}: {names[0]!r} twice; an impostor pair is of two people")
    one, other = (
        f"{name}/{name}_{int(number):04d}.jpg" for name, number in zip(names, numbers, strict=True)
    )
    return one, other


def _table(file: Path, first: int, lines: Sequence[str]) -> Form:
    """A table with or without a header, whose first row stands at the position ``first``."""
    where, line = f"{file}, line {first + 1}", lines[first]
    for mark in _MARKS:
        header = line.split() if mark == " " else [one.strip('"') for one in line.split(mark)]
        columns = _columns(where, header)
        if columns is not None:
            return _read_table(file, mark, header, columns, _rows(file, mark, lines)[1:])
        if len(header) == 3 and header[2].strip().lower() in TRUTHS:
            return _read_table(file, mark, None, (0, 1, 2, None), _rows(file, mark, lines))
    raise UserError(
        f"{where}: {line.strip()[:60]!r} starts no list of pairs; wanted: {_WANTED}; the truth is "
        f"{_TRUTHS_SHOWN}"
    )


def _rows(file: Path, mark: str, lines: Sequence[str]) -> Rows:
    if mark == " ":
        return [(number, line.split()) for number, line in enumerate(lines, 1) if line]
    return numbered_rows(file, (f"{line}\n" for line in lines), mark)


def _columns(where: str, header: Sequence[str]) -> tuple[int, int, int, int | None] | None:
    """Positions of both pictures, the truth and the fold; None where this is no header of pairs."""
    names = [re.sub(r"[\s_-]", "", name).lower() for name in header]
    pairs = [
        (names.index(one), names.index(other))
        for stem in PICTURES
        for a, b in ENDINGS
        for one, other in {(stem + a, stem + b), (a + stem, b + stem)}
        if one in names and other in names and (stem or a.isalpha())
    ]
    if not pairs:
        return None
    shown = ",".join(header)[:60]
    truths = [index for index, name in enumerate(names) if name in TRUTH]
    if len(pairs) > 1 or len(truths) > 1 or len(set(names)) < len(names):
        raise UserError(
            f"{where}: {shown!r} has several columns that could be meant; leave two of pictures "
            "and one of the truth"
        )
    if not truths:
        raise UserError(
            f"{where}: {shown!r} has no column of the truth; it must be called "
            f"{', '.join(TRUTH[:5])} ... and say {_TRUTHS_SHOWN}"
        )
    folds = [index for index, name in enumerate(names) if name in FOLD]
    return (*pairs[0], truths[0], folds[0] if len(folds) == 1 else None)


def _read_table(
    file: Path,
    mark: str,
    header: Sequence[str] | None,
    columns: tuple[int, int, int, int | None],
    rows: Rows,
) -> Form:
    """The rows below a header; without one they hold picture, picture, truth."""
    names = [name.strip() for name in header or ("picture", "picture", "the last field")]
    one, other, truth, fold = columns
    folds: dict[str, int] = {}
    said: dict[str, bool] = {}
    pairs = []
    for number, row in rows:
        where = f"{file}, line {number}"
        if len(row) != len(names):
            raise UserError(
                f"{where}: {len(row)} field(s), wanted are {len(names)}: {', '.join(names)}; "
                f"a path that holds a {_MARKS[mark]} goes into quotes, in a list by commas"
            )
        value = row[truth].strip().lower()
        if value not in TRUTHS:
            raise UserError(
                f"{where}: {names[truth]} is {row[truth].strip()[:60]!r}; wanted: {_TRUTHS_SHOWN}"
            )
        said[value.removesuffix(".0")] = TRUTHS[value]
        if {"0", "-1"} <= said.keys():
            raise UserError(f"{where}: {names[truth]} is 0 on some lines and -1 on others")
        position = 0 if fold is None else folds.setdefault(row[fold].strip(), len(folds))
        pairs.append(Written(number, row[one], row[other], TRUTHS[value], position))
    if sorted(names) == ["path_a", "path_b", "same"] and mark == ",":
        return Form(pairs, False, False, None)
    meaning = ", ".join(
        f"{value}: {'one person' if same else 'two'}" for value, same in said.items()
    )
    if header is None:
        taken = f"no header: picture, picture, truth ({meaning}), separated by {_MARKS[mark]}s"
        return Form(pairs, False, False, taken)
    taken = f"{names[one]} and {names[other]} taken as the pictures, {names[truth]} as the truth"
    taken += f" ({meaning})"
    taken += "" if fold is None else f", {names[fold]} as the fold ({len(folds)})"
    unread = [name for index, name in enumerate(names) if index not in columns]
    taken += f"; {', '.join(unread)} not read" if unread else ""
    return Form(pairs, len(folds) > 1, False, taken)
