"""Lists of pairs as people write them: LFW's, tables with a header, lines ``a b 1``."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

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
_TRUTHS_TOLD = "1, 0, -1, true, false, yes, no, same or different"
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
    lines = _Lines(_text(file).split("\n"))
    first = lines.first()
    if first is None:
        raise UserError(f"{file}: is empty; a list of pairs is needed")
    number, line = first
    head = re.split(r"[\t ]+", line.strip())
    if len(head) < 3 and all(_NUMBER.fullmatch(entry) for entry in head):
        form = _lfw(file, number, [int(entry) for entry in head], lines)
    else:
        form = _table(file, number, line, lines)
    if not form.pairs:
        raise UserError(f"{file}: no pair follows the header; add one per line")
    comments = f"{lines.comments} lines with # left out" if lines.comments else None
    taken = "; ".join(part for part in (form.taken, comments) if part)
    return Form(form.pairs, form.folded, form.numbered, taken or None)


class _Lines:
    """Lines with numbers, without empty ones and comments, except inside of quotes."""

    def __init__(self, lines: Sequence[str]):
        self._lines = lines
        self._at = 0  # the next line
        self.number = 0  # of the line that was given last, from 1
        self.between = True  # no row is open
        self.comments = 0

    def first(self) -> tuple[int, str] | None:
        """Number and content of the first line that counts."""
        self._skip()
        return None if self._at == len(self._lines) else (self._at + 1, self._lines[self._at])

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        if self.between:
            self._skip()
        if self._at == len(self._lines):
            raise StopIteration
        self._at += 1
        if self.between:
            self.number = self._at
        self.between = False
        return self._lines[self._at - 1] + "\n"

    def _skip(self) -> None:
        while self._at < len(self._lines):
            line = self._lines[self._at].strip()
            if line and not line.startswith("#"):
                return
            self.comments += bool(line)
            self._at += 1


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


def _lfw(file: Path, start: int, numbers: list[int], lines: _Lines) -> Form:
    next(lines)
    if min(numbers) < 1:
        told = " ".join(map(str, numbers))
        raise UserError(f"{file}, line {start}: {told!r} must be whole numbers of at least 1")
    folds, each = (1, numbers[0]) if len(numbers) == 1 else (numbers[0], numbers[1])
    wanted = folds * 2 * each
    says = f"line {start} says {each} genuine and {each} impostor pairs"
    says += f" in each of {folds} folds" if len(numbers) == 2 else ""
    pairs: list[Written] = []
    spaced = 0
    while True:
        lines.between = True
        line = next(lines, None)
        if line is None:
            break
        if len(pairs) == wanted:
            raise UserError(f"{file}, line {lines.number}: one line too many; {says}")
        same = len(pairs) // each % 2 == 0
        spaced += "\t" not in line
        names = _lfw_names(f"{file}, line {lines.number}", line.strip("\r\n"), same)
        pairs.append(Written(lines.number, (names,), same, len(pairs) // (2 * each)))
    if len(pairs) < wanted:
        last = pairs[-1].line if pairs else start
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
    ends = [at for at in range(1, len(words) - 2) if _NUMBER.fullmatch(words[at])]
    if len(ends) > 1:
        raise UserError(f"{where}: spaces leave open where a name ends; write tabs: {form}")
    if not ends:
        return words if len(words) < 4 else [*words[:3], " ".join(words[3:])]
    at = ends[0]
    return [" ".join(words[:at]), words[at], " ".join(words[at + 1 : -1]), words[-1]]


@dataclass(frozen=True)
class _Columns:
    """Positions of what is needed in a header."""

    first: int
    second: int
    truth: int
    fold: int | None


def _table(file: Path, number: int, line: str, lines: _Lines) -> Form:
    where = f"{file}, line {number}"
    for mark in "\t,; ":
        header = _fields(line, mark)
        columns = _columns(where, header)
        if columns is not None:
            return _headed(file, mark, header, columns, lines)
    for mark in "\t,; ":
        fields = _fields(line, mark)
        if (len(fields) == 3 or (mark == " " and len(fields) > 3)) and (
            _truth(fields[-1]) is not None or _truth(fields[0]) is not None
        ):
            return _headless(file, mark, lines)
    fields = max((_fields(line, mark) for mark in "\t,; "), key=len)
    if len(fields) > 2 and re.fullmatch(r"-?[0-9]*\.[0-9]+(e-?[0-9]+)?", fields[-1].strip()):
        raise UserError(
            f"{where}: {fields[-1].strip()!r} is a score or distance, no truth; the last field "
            f"must be {_TRUTHS_TOLD}"
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


def _columns(where: str, header: Sequence[str]) -> _Columns | None:
    """What a header's columns are; None where they are no header of pairs.

    Raises:
        UserError: no column of the truth; several columns could be meant.
    """
    names = [_plain(name) for name in header]
    pairs = [
        (names.index(stem + a), names.index(stem + b))
        for stem in PICTURES
        for a, b in ENDINGS
        if stem + a in names and stem + b in names and (stem or not a.isdigit())
    ]
    pairs += [
        (names.index(a + stem), names.index(b + stem))
        for stem in PICTURES
        for a, b in (("left", "right"), ("first", "second"))
        if stem and a + stem in names and b + stem in names
    ]
    if not pairs:
        return None
    told = ",".join(header)[:60]
    truths = [at for at, name in enumerate(names) if name in TRUTH]
    if len(pairs) > 1 or len(truths) > 1 or len(set(names)) < len(names):
        raise UserError(
            f"{where}: {told!r} has several columns that could be meant; leave two of pictures and "
            "one of the truth"
        )
    if not truths:
        raise UserError(
            f"{where}: {told!r} has no column of the truth; it must be called "
            f"{', '.join(TRUTH[:5])} ... and say {_TRUTHS_TOLD} (a score or distance is no truth)"
        )
    folds = [at for at, name in enumerate(names) if name in FOLD]
    return _Columns(*pairs[0], truths[0], folds[0] if len(folds) == 1 else None)


def _rows(file: Path, mark: str, lines: _Lines) -> Iterator[tuple[int, list[str]]]:
    """Number of the line and fields of every row."""
    if mark == " ":
        while True:
            lines.between = True
            line = next(lines, None)
            if line is None:
                return
            yield lines.number, _fields(line.rstrip("\n"), mark)
    reader = csv.reader(lines, delimiter=mark, strict=True)
    try:
        while True:
            lines.between = True
            row = next(reader, None)
            if row is None:
                return
            if mark == "\t" or row:
                yield lines.number, row
    except csv.Error as error:
        raise UserError(
            f"{file}, line {lines.number}: is no CSV ({error}); put a path that holds a comma or "
            'quote into quotes, and double its quotes: "a ""b"".jpg"'
        ) from None


def _headed(file: Path, mark: str, header: list[str], columns: _Columns, lines: _Lines) -> Form:
    names = [name.strip() for name in header]
    said = _Said(names[columns.truth])
    folds: dict[str, int] = {}
    pairs = []
    rows = _rows(file, mark, lines)
    next(rows)
    for number, row in rows:
        where = f"{file}, line {number}"
        if len(row) != len(header):
            raise UserError(
                f"{where}: {len(row)} field(s), wanted are {len(header)}: {', '.join(names)}; a "
                f"path that holds a {_MARKS[mark]} goes into quotes"
            )
        fold = 0
        if columns.fold is not None:
            fold = folds.setdefault(row[columns.fold].strip(), len(folds))
        both = ((row[columns.first], row[columns.second]),)
        pairs.append(Written(number, both, said.truth(where, row[columns.truth]), fold))
    taken = None
    used = {columns.first, columns.second, columns.truth, columns.fold}
    other = [name for at, name in enumerate(names) if at not in used]
    if sorted(names) != ["path_a", "path_b", "same"] or mark != ",":
        taken = (
            f"{names[columns.first]} and {names[columns.second]} taken as the pictures, "
            f"{names[columns.truth]} as the truth ({said})"
        )
        if columns.fold is not None:
            taken += f", {names[columns.fold]} as the fold ({len(folds)})"
        taken += f"; {', '.join(other)} not read" if other else ""
    return Form(tuple(pairs), len(folds) > 1, False, taken)


_MARKS = {",": "comma", "\t": "tab", ";": "semicolon", " ": "space"}


def _headless(file: Path, mark: str, lines: _Lines) -> Form:
    rows = list(_rows(file, mark, lines))
    for number, row in rows:
        if len(row) != 3 and (mark != " " or len(row) < 3):
            raise UserError(
                f"{file}, line {number}: {len(row)} field(s), wanted are 3: picture, picture, "
                f"{_TRUTHS_TOLD}; a path that holds a {_MARKS[mark]} goes into quotes"
            )
    ahead = any(_truth(row[-1]) is None for _, row in rows) and all(
        _truth(row[0]) is not None for _, row in rows
    )
    said = _Said("the first field" if ahead else "the last field")
    pairs = []
    for number, row in rows:
        where = f"{file}, line {number}"
        same = said.truth(where, row[0 if ahead else -1])
        words = row[1:] if ahead else row[:-1]
        splits = range(1, len(words))
        names = tuple((" ".join(words[:at]), " ".join(words[at:])) for at in splits)
        pairs.append(Written(number, names, same, 0))
    order = "truth, picture, picture" if ahead else "picture, picture, truth"
    taken = f"no header: {order} ({said}), separated by {_MARKS[mark]}s"
    return Form(tuple(pairs), False, False, taken)


def _truth(value: str) -> bool | None:
    return TRUTHS.get(value.strip().lower())


class _Said:
    """How a list writes its truths."""

    def __init__(self, column: str):
        self._column = column
        self._values: dict[str, bool] = {}

    def truth(self, where: str, value: str) -> bool:
        """Whether a value means one person.

        Raises:
            UserError: it means neither; the list says "not" by 0 and by -1.
        """
        same = _truth(value)
        if same is None:
            raise UserError(
                f"{where}: {self._column} is {value.strip()[:60]!r}; wanted: {_TRUTHS_TOLD} (a "
                "score or distance is no truth)"
            )
        self._values[value.strip().lower().removesuffix(".0")] = same
        if {"0", "-1"} <= self._values.keys():
            raise UserError(
                f"{where}: {self._column} is 0 on some lines and -1 on others; write 1 for one "
                "person, and 0 or -1 for two"
            )
        return same

    def __str__(self) -> str:
        parts = []
        for same, words in ((True, "one person"), (False, "two")):
            values = "/".join(sorted(v for v, truth in self._values.items() if truth == same))
            parts += [f"{values}: {words}"] if values else []
        return ", ".join(parts)
