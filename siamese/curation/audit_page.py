"""What an audit found: plain data, and the tables, the plan, the page and the text made of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from siamese.curation.findings_page import (
    FindingsPage,
    Group,
    Row,
    Section,
    Severity,
    thumbnail_of,
    write_findings_page,
)
from siamese.curation.plans import Move, mend_command, write_plan
from siamese.curation.shell import command_line, path_word
from siamese.drawing.page import Facts, Headline
from siamese.files.writing import write_csv

_PLAN, _SAME, _PAGE = Path("plans") / "suspects.csv", "same_person.csv", "audit.html"
_LISTED = 5  # findings of a kind in the text
_PICTURES = 4  # in a group on the page
_LEAK_KINDS = {
    "file": "same file",
    "picture": "nearly the same picture",
    "person": "seems the same person",
    "name": "same name",
}


@dataclass(frozen=True)
class Suspect:
    """A picture that seems to show somebody else than its folder's person.

    Attributes:
        path: relative to the audited folder.
        person: the folder's name.
        suspicion: probability in [0, 1] that it is somebody else.
        owner: the person whom it looks most like; None: like nobody in the folder.
        own_score: cosine to the typical face of its folder, in [-1, 1].
        owner_score: cosine to the typical face of ``owner``.
    """

    path: str
    person: str
    suspicion: float
    owner: str | None
    own_score: float
    owner_score: float


@dataclass(frozen=True)
class SamePerson:
    """Two folders that seem to hold one person.

    Attributes:
        first: the folder's name.
        second: the other's.
        probability: in [0, 1].
        score: mean cosine between pictures of the two, in [-1, 1].
        examples: a picture of each, the pairs that are most alike first.
    """

    first: str
    second: str
    probability: float
    score: float
    examples: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class MixedFolder:
    """A folder that seems to hold two people.

    Attributes:
        person: the folder's name.
        probability: in [0, 1].
        main: pictures of its larger cluster, the most typical first.
        other: of its smaller one.
    """

    person: str
    probability: float
    main: tuple[str, ...]
    other: tuple[str, ...]


@dataclass(frozen=True)
class Leak:
    """A person or a picture that is in both folders.

    Attributes:
        kind: ``file`` (same bytes), ``picture`` (nearly the same pixels), ``person``, or ``name``.
        first: picture (person, for the kinds person and name) of the audited folder.
        second: the same of the other folder.
        score: cosine, in [-1, 1]; 1 for the same bytes.
    """

    kind: Literal["file", "picture", "person", "name"]
    first: str
    second: str
    score: float


@dataclass(frozen=True)
class Audit:
    """Everything that an audit found, the most probable first.

    Attributes:
        origin: what was audited, with what, in words.
        root: the audited folder; None when only embeddings are known.
        other_root: the folder it was held against; None without one.
        people: their number.
        pictures: their number.
        suspects: pictures at or above the suspicion that was set.
        typical: per person the paths of a few typical pictures.
        same: folder pairs that seem to be one person.
        mixed: folders that seem to hold two people.
        leaks: what is in both folders.
        notes: what the reader must know.
        weak: why nothing should be moved by what the model says; None: it may.
    """

    origin: str
    root: Path | None
    other_root: Path | None
    people: int
    pictures: int
    suspects: tuple[Suspect, ...]
    typical: dict[str, tuple[str, ...]]
    same: tuple[SamePerson, ...]
    mixed: tuple[MixedFolder, ...]
    leaks: tuple[Leak, ...]
    notes: tuple[str, ...]
    weak: str | None = None


@dataclass(frozen=True)
class _Kind:
    """Findings of one kind, and how the text and the page show them."""

    title: str
    name: str  # of one, and of several
    names: str
    severity: Severity
    meaning: str
    found: Sequence[Any]
    line: Callable[[Any], str]
    row: Callable[[Audit, _Show, Any], Row]
    command: str | None = None


# A title, the paths of pictures, and whether they are the other folder's.
_Show = Callable[[str, Iterable[str], bool], Group]


def write_audit(out: Path, audit: Audit, *, shown: int) -> tuple[Path, ...]:
    """Write every result of an audit into a folder; what is there already is replaced.

    Args:
        out: the folder; made where it is missing.
        audit: what was found.
        shown: findings of each kind whose pictures are on the page.

    Returns:
        suspects.csv, same_person.csv, mixed.csv, leaks.csv, plans/suspects.csv (a plan that
        quarantines the suspects), audit.html; without findings they are there as well.
    """
    tables: dict[str, tuple[tuple[str, ...], list[tuple[Any, ...]]]] = {
        "suspects.csv": (
            ("rank", "path", "person", "suspicion", "owner", "own_score", "owner_score"),
            [(rank, *astuple(one)) for rank, one in enumerate(audit.suspects, start=1)],
        ),
        _SAME: (
            ("first", "second", "probability", "score"),
            [astuple(one)[:4] for one in audit.same],
        ),
        "mixed.csv": (
            ("person", "probability", "pictures", "other_pictures", "example", "other_example"),
            [
                (m.person, m.probability, len(m.main), len(m.other), m.main[0], m.other[0])
                for m in audit.mixed
            ],
        ),
        "leaks.csv": (("kind", "first", "second", "score"), list(map(astuple, audit.leaks))),
    }
    for name, (header, rows) in tables.items():
        cells = ([f"{x:.6f}" if isinstance(x, float) else x for x in row] for row in rows)
        # Names of any bytes; siamese-data split --merge reads pairs of people back.
        write_csv(out / name, header, cells, errors="surrogateescape", exact=name == _SAME)
    write_plan(out / _PLAN, [Move(suspect.path, None) for suspect in audit.suspects])
    write_findings_page(out / _PAGE, _page(audit, out, shown))
    return tuple(out / name for name in (*tables, str(_PLAN), _PAGE))


def audit_text(audit: Audit, out: Path, *, moved: bool = False) -> str:
    """What the command prints: counts, the first few of each kind, what to do next.

    Args:
        audit: what was found.
        out: where :func:`write_audit` wrote it.
        moved: the suspects are in the quarantine already.
    """
    kinds = _kinds(audit, out)
    lines = [audit.origin, *_summary(audit, kinds)]
    for kind in kinds:
        if kind.found:
            lines.append(f"{kind.title.lower()}:")
            lines += [f"  {kind.line(one)}" for one in kind.found[:_LISTED]]
            if len(kind.found) > _LISTED:
                lines.append(f"  and {len(kind.found) - _LISTED} more")
    lines += audit.notes
    lines.append(f"look: {command_line(out / _PAGE)}")
    if audit.weak is not None:
        lines.append(f"next: no move; {audit.weak}")
    todo = kinds[1:] if moved else kinds
    lines += [f"next: {kind.command}" for kind in todo if kind.command is not None]
    return "\n".join(lines)


def _kinds(audit: Audit, out: Path) -> list[_Kind]:
    mend = split = None
    if audit.root is not None and audit.suspects and audit.weak is None:
        mend = mend_command(audit.root, out / _PLAN)
    if audit.root is not None and audit.same:
        merge = ("--merge", path_word(out / _SAME))
        split = command_line("siamese-data", "split", path_word(audit.root), *merge)
    kinds = [
        _Kind(
            "Wrong pictures inside a folder", "suspicious picture", "suspicious pictures",
            "warning",
            "Pictures that seem to show somebody else than their folder's person, the most "
            "suspicious first, beside typical pictures of that person and of the one whom they "
            "look most like. Suspicion is the probability of this according to the model.",
            audit.suspects, _suspect_line, _suspect_row, mend,
        ),
        _Kind(
            "One person under two names", "pair of folders that seems to be one person",
            "pairs of folders that seem to be one person", "warning",
            "Two people who look alike to the model stand here, too: look before you merge. The "
            "command makes lists for training in which each pair is one person; it moves nothing.",
            audit.same, _same_line, _same_row, split,
        ),
        _Kind(
            "Two people under one name", "folder that seems to hold two people",
            "folders that seem to hold two people", "note",
            "Folders whose pictures fall into two groups. Large differences in age, light or angle "
            "may look the same to a weak model.",
            audit.mixed, _mixed_line, _mixed_row,
        ),
    ]  # fmt: skip
    if audit.other_root is not None or audit.leaks:
        meaning = (
            "A model that is trained on one folder and tested on the other would be judged by what "
            "it has seen."
        )
        kinds.append(
            _Kind(
                "In both folders", "leak between the two folders", "leaks between the two folders",
                "error", meaning, audit.leaks, _leak_line, _leak_row,
            )
        )  # fmt: skip
    return kinds


def _page(audit: Audit, out: Path, shown: int) -> FindingsPage:
    """The page; of each kind the pictures of so many findings are read."""
    kinds = _kinds(audit, out)
    places = (
        ("folder", audit.root), ("results", out), ("held against", audit.other_root)
    )  # fmt: skip
    return FindingsPage(
        title="audit" if audit.root is None else f"{audit.root.resolve().name}: audit",
        subtitle=f"{audit.origin}, {time.strftime('%Y-%m-%d %H:%M')}",
        summary=_summary(audit, kinds),
        headlines=tuple(
            Headline(kind.title, f"{len(kind.found):,}", None, kind.names) for kind in kinds
        ),
        sections=_sections(audit, kinds, shown),
        facts=(
            Facts(
                "Data",
                (
                    ("audited", audit.origin),
                    ("people", f"{audit.people:,}"),
                    ("pictures", f"{audit.pictures:,}"),
                    *((name, str(place.resolve())) for name, place in places if place is not None),
                ),
            ),
        ),
        notes=audit.notes,
    )


def _summary(audit: Audit, kinds: Sequence[_Kind]) -> tuple[str, ...]:
    """How much was found, and what that is worth, in sentences."""
    found = ", ".join(_counted(len(kind.found), kind.name, kind.names) for kind in kinds)
    scope = _counted(audit.people, "person", "people")
    scope += ", " + _counted(audit.pictures, "picture", "pictures")
    return (
        f"{scope}: {found}.",
        "These are a model's guesses: look before you move anything, and what is not here may be "
        "wrong all the same; a weak model misses many.",
    )


def _counted(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


def _sections(audit: Audit, kinds: Sequence[_Kind], shown: int) -> tuple[Section, ...]:
    thumbnail = cache(thumbnail_of)

    def show(title: str, paths: Iterable[str], other: bool = False) -> Group:
        root = audit.other_root if other else audit.root
        first = list(dict.fromkeys(paths))[:_PICTURES]
        return Group(title, tuple(thumbnail(root, path, "") for path in first))

    sections = []
    for kind in kinds:
        rows = tqdm(
            kind.found[:shown] if audit.root is not None else (),
            "thumbnails", unit="row", disable=None, leave=False, delay=1,
        )  # fmt: skip
        sections.append(
            Section(
                kind.title,
                kind.severity,
                kind.meaning if kind.found else "Nothing found.",
                count=len(kind.found),
                command=kind.command,
                rows=tuple(kind.row(audit, show, one) for one in rows),
                paths=tuple(map(kind.line, kind.found)),
            )
        )
    return tuple(sections)


def _isolated(name: str) -> str:
    """A name that does not turn its sentence round when its script runs from right to left."""
    return f"\u2068{name}\u2069"


def _typical(audit: Audit, show: _Show, one: Suspect, person: str) -> Group:
    others = (path for path in audit.typical.get(person, ()) if path != one.path)
    return show(f"typical of {_isolated(person)}", others, False)


def _suspect_line(one: Suspect) -> str:
    like = "nobody here" if one.owner is None else command_line(one.owner)
    return f"{one.suspicion:.3f}  {command_line(one.path)}  looks like {like}"


def _suspect_row(audit: Audit, show: _Show, one: Suspect) -> Row:
    groups = [show("the suspect", [one.path], False), _typical(audit, show, one, one.person)]
    words = f"suspicion {one.suspicion:.0%}, score in its own folder {one.own_score:.3f}, "
    if one.owner is None:
        words += "looks like nobody here"
    else:
        words += f"looks most like {_isolated(one.owner)} (score {one.owner_score:.3f})"
        groups.append(_typical(audit, show, one, one.owner))
    return Row(one.path, words, tuple(groups))


def _same_line(one: SamePerson) -> str:
    return f"{one.probability:.3f}  {command_line(one.first)} = {command_line(one.second)}"


def _same_row(audit: Audit, show: _Show, one: SamePerson) -> Row:
    first, second = zip(*one.examples, strict=True)
    groups = show(one.first, first, False), show(one.second, second, False)
    words = f"probability {one.probability:.0%}, score {one.score:.3f}"
    return Row(f"{_isolated(one.first)} = {_isolated(one.second)}", words, groups)


def _mixed_line(one: MixedFolder) -> str:
    numbers = f"{len(one.main)} + {len(one.other)} pictures"
    return f"{one.probability:.3f}  {command_line(one.person)}: {numbers}"


def _mixed_row(audit: Audit, show: _Show, one: MixedFolder) -> Row:
    main = show(_counted(len(one.main), "picture", "pictures"), one.main, False)
    other = show(_counted(len(one.other), "other picture", "other pictures"), one.other, False)
    return Row(one.person, f"probability {one.probability:.0%}", (main, other))


def _leak_line(one: Leak) -> str:
    names = f"{command_line(one.first)} = {command_line(one.second)}"
    return f"{one.score:.3f}  {_LEAK_KINDS[one.kind]}: {names}"


def _leak_row(audit: Audit, show: _Show, one: Leak) -> Row:
    here, there = [one.first], [one.second]
    if one.kind in ("person", "name"):
        here, there = list(audit.typical.get(one.first, ())), _files_of(audit, one.second)
    words = f"{_LEAK_KINDS[one.kind]}, score {one.score:.3f}"
    title = f"{_isolated(one.first)} = {_isolated(one.second)}"
    return Row(title, words, (show("here", here, False), show("there", there, True)))


def _files_of(audit: Audit, person: str) -> list[str]:
    """The files of a person of the other folder."""
    if audit.other_root is None:
        return []
    try:
        names = sorted(os.listdir(audit.other_root / person))
    except OSError:
        return []
    return [f"{person}/{name}" for name in names if not name.startswith(".")]
