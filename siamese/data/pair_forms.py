"""Lists of pairs as people write them: LFW's, tables with a header, lines ``a b 1``."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from siamese.data.csv_rows import numbered_rows
from siamese.errors import UserError
from siamese.files.places import read_bytes

_LIMIT = 64 * 2**20  # bytes: a million pairs of long paths
_NUMBER = re.compile(r"[0-9]{1,9}")

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
_TRUTHS_SHOWN = "1, 0, -1, true, false, yes, no, same or different"
_WANTED = (
    "a header with two columns of pictures and one of the truth (path_a,path_b,same or "
    'img1,img2,label ...), lines "a b 1", or LFW\'s 10<TAB>300 (folds, pairs) or 500 (pairs)'
)


@dataclass(frozen=True, slots=True)
class Written:
    """A pair as its line says it.

    Attributes:
        line: number of the line, from 1.
        names: what both pictures are called; several where spaces leave open where one ends.
        same: whether they show one person.
        fold: number of the fold, from 0.
    """

    line: int
    names: tuple[tuple[str, str], ...]
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

    pairs: tuple[Written, ...]
    folded: bool
    numbered: bool
    taken: str | None


def read_form(file: Path) -> Form:
    """Read a list of pairs, whatever its form; see :func:`siamese.data.pair_lists.read_pairs`.

    Raises:
        UserError: missing, malformed (by the number of the line), empty.
    """
    lines = _text(file).split("\n")
    comments = [line.lstrip().startswith("#") for line in lines]
    # Emptied, not removed: the numbers of the lines stay.
    lines = [
        "" if comment or not line.strip() else line
        for line, comment in zip(lines, comments, strict=True)
    ]
    first = next((number for number, line in enumerate(lines, 1) if line), None)
    if first is None:
        raise UserError(f"{file}: is empty; a list of pairs is needed")
    head = lines[first - 1].split()
    if len(head) < 3 and all(_NUMBER.fullmatch(entry) for entry in head):
        form = _lfw(file, first, [int(entry) for entry in head], lines)
    else:
        form = _table(file, first, lines)
    if not form.pairs:
        raise UserError(f"{file}: no pair follows the header; add one per line")
    left_out = f"{sum(comments)} lines with # left out" if any(comments) else None
    taken = "; ".join(part for part in (form.taken, left_out) if part)
    return replace(form, taken=taken or None)


def _text(file: Path) -> str:
    """The file's text with Unix line ends, without empty lines at its end."""
    content = read_bytes(file, limit=_LIMIT)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{file}, line {line}: is not UTF-8; save the list as UTF-8") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(f"{file}, line {line}: holds a zero byte; a text file is needed")
    return text.replace("\r\n", "\n").rstrip("\r\n\t ")


def _lfw(file: Path, first: int, numbers: list[int], lines: list[str]) -> Form:
    """LFW's list, whose header stands on line `first`."""
    if min(numbers) < 1:
        given = " ".join(map(str, numbers))
        raise UserError(f"{file}, line {first}: {given!r} must be whole numbers of at least 1")
    folds, each = (1, numbers[0]) if len(numbers) == 1 else (numbers[0], numbers[1])
    wanted = folds * 2 * each
    says = f"line {first} says {each} genuine and {each} impostor pairs"
    says += f" in each of {folds} folds" if len(numbers) == 2 else ""
    pairs: list[Written] = []
    spaced = False
    for number, line in enumerate(lines, 1):
        if number <= first or not line:
            continue
        where = f"{file}, line {number}"
        if len(pairs) == wanted:
            raise UserError(f"{where}: one line too many; {says}")
        same = len(pairs) // each % 2 == 0
        spaced = spaced or "\t" not in line
        names = _lfw_names(where, line, same)
        pairs.append(Written(number, (names,), same, len(pairs) // (2 * each)))
    if len(pairs) < wanted:
        last = pairs[-1].line if pairs else first
        raise UserError(
            f"{file}, line {last}: the list ends after {len(pairs)} of {wanted} pairs; {says}"
        )
    taken = "LFW's list, separated by spaces" if spaced else None
    return Form(tuple(pairs), folds > 1, True, taken)  # one fold has no others to choose by


def _lfw_names(where: str, line: str, same: bool) -> tuple[str, str]:
    """Paths of both pictures of a line."""
    kind = "a genuine pair" if same else "an impostor pair"
    form = "name<TAB>i<TAB>j" if same else "name1<TAB>i<TAB>name2<TAB>j"
    fields = [entry.strip() for entry in line.split("\t")]
    if len(fields) == 1:
        fields = _spaced_fields(where, fields[0], same, form)
    if len(fields) != (3 if same else 4):
        raise UserError(f"{where}: {len(fields)} field(s); {kind} is wanted here: {form}")
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
    if same and int(numbers[0]) == int(numbers[1]):
        raise UserError(f"{where}: a picture paired with itself; name two different pictures")
    if not same and names[0] == names[1]:
        raise UserError(f"{where}: {names[0]!r} twice; an impostor pair is of two people")
    one, other = (
        f"{name}/{name}_{int(number):04d}.jpg" for name, number in zip(names, numbers, strict=True)
    )
    return one, other


def _spaced_fields(where: str, line: str, same: bool, form: str) -> list[str]:
    """Fields of a line without tabs; names may hold spaces, their numbers tell where they end."""
    words = line.split()
    if same:
        return [" ".join(words[:-2]), *words[-2:]] if len(words) > 2 else words
    ends = [end for end in range(1, len(words) - 2) if _NUMBER.fullmatch(words[end])]
    if len(ends) > 1:
        raise UserError(f"{where}: spaces leave open where a name ends; write tabs: {form}")
    if not ends:
        return words if len(words) < 4 else [*words[:3], " ".join(words[3:])]
    end = ends[0]
    return [" ".join(words[:end]), words[end], " ".join(words[end + 1 : -1]), words[-1]]


_MARKS = {"\t": "tab", ",": "comma", ";": "semicolon", " ": "space"}


def _table(file: Path, first: int, lines: list[str]) -> Form:
    """A table with or without a header."""
    where, line = f"{file}, line {first}", lines[first - 1]
    fields = {mark: _fields(line, mark) for mark in _MARKS}
    for mark, header in fields.items():
        columns = _columns(where, header)
        if columns is not None:
            return _headed(file, mark, columns, _rows(file, mark, lines))
    for mark, entries in fields.items():
        if (len(entries) == 3 or (mark == " " and len(entries) > 3)) and (
            _truth(entries[-1]) is not None or _truth(entries[0]) is not None
        ):
            return _headless(file, mark, _rows(file, mark, lines))
    longest = max(fields.values(), key=len)
    if len(longest) > 2 and re.fullmatch(r"-?[0-9]*\.[0-9]+(e-?[0-9]+)?", longest[-1].strip()):
        raise UserError(
            f"{where}: {longest[-1].strip()!r} is a score or distance, no truth; the last field "
            f"must be {_TRUTHS_SHOWN}"
        )
    raise UserError(f"{where}: {line.strip()[:60]!r} starts no list of pairs; wanted: {_WANTED}")


def _fields(line: str, mark: str) -> list[str]:
    """Fields of one line; by spaces any number of them, and tabs, count as one."""
    if mark == " " and '"' not in line:
        return line.split()
    try:
        rows = list(csv.reader([line], delimiter=mark, skipinitialspace=mark == " "))
    except csv.Error:
        return []
    fields = rows[0] if rows else []
    return [field for field in fields if field] if mark == " " else fields


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).lower()


def _columns(where: str, header: Sequence[str]) -> tuple[int, int, int, int | None] | None:
    """Positions of both pictures, the truth and the fold; None where this is no header of pairs.

    Raises:
        UserError: no column of the truth; several columns could be meant.
    """
    names = [_plain(name) for name in header]
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
            f"{', '.join(TRUTH[:5])} ... and say {_TRUTHS_SHOWN} (a score or distance is no truth)"
        )
    folds = [index for index, name in enumerate(names) if name in FOLD]
    return (*pairs[0], truths[0], folds[0] if len(folds) == 1 else None)


def _rows(file: Path, mark: str, lines: list[str]) -> list[tuple[int, list[str]]]:
    """Number of the line, from 1, and fields of every row."""
    if mark == " ":
        return [(number, _fields(line, mark)) for number, line in enumerate(lines, 1) if line]
    return numbered_rows(file, (f"{line}\n" for line in lines), mark)


def _headed(
    file: Path,
    mark: str,
    columns: tuple[int, int, int, int | None],
    rows: list[tuple[int, list[str]]],
) -> Form:
    """A table whose first row is its header."""
    names = [name.strip() for name in rows[0][1]]
    for number, row in rows[1:]:
        if len(row) != len(names):
            raise UserError(
                f"{file}, line {number}: {len(row)} field(s), wanted are {len(names)}: "
                f"{', '.join(names)}; a path that holds a {_MARKS[mark]} goes into quotes"
            )
    one, other, truth, fold = columns
    values = [(number, row[truth]) for number, row in rows[1:]]
    truths, meaning = _truths(file, names[truth], values)
    folds: dict[str, int] = {}
    pairs = []
    for (number, row), same in zip(rows[1:], truths, strict=True):
        position = 0 if fold is None else folds.setdefault(row[fold].strip(), len(folds))
        pairs.append(Written(number, ((row[one], row[other]),), same, position))
    if sorted(names) == ["path_a", "path_b", "same"] and mark == ",":
        return Form(tuple(pairs), False, False, None)
    taken = f"{names[one]} and {names[other]} taken as the pictures, {names[truth]} as the truth"
    taken += f" ({meaning})"
    if fold is not None:
        taken += f", {names[fold]} as the fold ({len(folds)})"
    unread = [name for index, name in enumerate(names) if index not in columns]
    taken += f"; {', '.join(unread)} not read" if unread else ""
    return Form(tuple(pairs), len(folds) > 1, False, taken)


def _headless(file: Path, mark: str, rows: list[tuple[int, list[str]]]) -> Form:
    """Rows of two pictures and the truth, which stands last or first."""
    for number, row in rows:
        if len(row) != 3 and (mark != " " or len(row) < 3):
            raise UserError(
                f"{file}, line {number}: {len(row)} field(s), wanted are 3: picture, picture, "
                f"{_TRUTHS_SHOWN}; a path that holds a {_MARKS[mark]} goes into quotes"
            )
    ahead = any(_truth(row[-1]) is None for _, row in rows) and all(
        _truth(row[0]) is not None for _, row in rows
    )
    values = [(number, row[0 if ahead else -1]) for number, row in rows]
    truths, meaning = _truths(file, "the first field" if ahead else "the last field", values)
    pairs = []
    for (number, row), same in zip(rows, truths, strict=True):
        words = row[1:] if ahead else row[:-1]
        names = ((" ".join(words[:end]), " ".join(words[end:])) for end in range(1, len(words)))
        pairs.append(Written(number, tuple(names), same, 0))
    order = "truth, picture, picture" if ahead else "picture, picture, truth"
    taken = f"no header: {order} ({meaning}), separated by {_MARKS[mark]}s"
    return Form(tuple(pairs), False, False, taken)


def _truth(value: str) -> bool | None:
    return TRUTHS.get(value.strip().lower())


def _truths(file: Path, column: str, values: list[tuple[int, str]]) -> tuple[list[bool], str]:
    """Whether each value means one person, and in words what the values mean.

    Raises:
        UserError: a value means neither; the list says "not" by 0 and by -1.
    """
    truths: list[bool] = []
    meanings: dict[str, bool] = {}
    for number, value in values:
        same = _truth(value)
        if same is None:
            raise UserError(
                f"{file}, line {number}: {column} is {value.strip()[:60]!r}; wanted: "
                f"{_TRUTHS_SHOWN} (a score or distance is no truth)"
            )
        truths.append(same)
        meanings[value.strip().lower().removesuffix(".0")] = same
        if {"0", "-1"} <= meanings.keys():
            raise UserError(
                f"{file}, line {number}: {column} is 0 on some lines and -1 on others; write 1 "
                "for one person, and 0 or -1 for two"
            )
    parts = []
    for same, words in ((True, "one person"), (False, "two")):
        shown = "/".join(sorted(value for value, truth in meanings.items() if truth == same))
        parts += [f"{shown}: {words}"] if shown else []
    return truths, ", ".join(parts)
