"""What an audit found: plain data, and the tables, the plan, the page and the text made of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

from tqdm import tqdm

from siamese.curation.findings_page import (
    FindingsPage,
    Group,
    Row,
    Section,
    thumbnail_of,
    write_findings_page,
)
from siamese.curation.plans import Move, mend_command, write_plan
from siamese.curation.shell import command_line, path_word
from siamese.drawing.page import Facts, Headline, Picture
from siamese.files.writing import write_csv

_PLAN = Path("plans") / "suspects.csv"
_SAME = "same_person.csv"
_LISTED = 5  # findings of a kind in the text
_TYPICAL = 4  # pictures of a person beside a suspect
_EXAMPLES = 4  # pictures of either side of two people or two folders
_SUSPECTS_MEAN = (
    "Pictures that seem to show somebody else than their folder's person, the most suspicious "
    "first, beside typical pictures of that person and of the one whom they look most like. "
    "Suspicion is the probability of this according to the model."
)
_SAME_MEANS = (
    "Pairs of folders that seem to hold one person. Two people who look alike to the model stand "
    "here, too: look before you merge. The command makes lists for training in which each pair is "
    "one person; it moves nothing."
)
_MIXED_MEANS = (
    "Folders whose pictures fall into two groups, as those of two people do. Large differences in "
    "age, light or angle may look the same to a weak model."
)
_LEAKS_MEAN = (
    "What stands in both folders. A model that is trained on one and tested on the other would be "
    "judged by what it has seen."
)
_LEAK_KINDS = {
    "file": "same file",
    "picture": "nearly the same picture",
    "person": "seems the same person",
    "name": "same name",
}
_NOTHING = "Nothing found."
_Kind = TypeVar("_Kind")


@dataclass(frozen=True)
class Suspect:
    """A picture that seems to show somebody else than its folder's person.

    Attributes:
        path: relative to the audited folder.
        person: the folder's name.
        suspicion: probability in [0, 1] that it is somebody else.
        owner: the person whom it looks most like; None: like nobody in the folder.
        own_score: cosine to the typical face of its folder, in [-1, 1].
        owner_score: cosine to the typical face of the person whom it looks most like.
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
        first, second: the folders' names.
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
        main: its larger cluster's pictures, the most typical first.
        other: its smaller cluster's pictures, the most typical first.
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
        people: number of people.
        pictures: number of pictures.
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
    write = partial(write_csv, errors="surrogateescape")  # names of any bytes
    tables = (
        write(
            out / "suspects.csv",
            ("rank", "path", "person", "suspicion", "owner", "own_score", "owner_score"),
            (
                (rank, one.path, one.person, _number(one.suspicion), one.owner or "",
                 _number(one.own_score), _number(one.owner_score))
                for rank, one in enumerate(audit.suspects, start=1)
            ),
        ),
        write(
            out / _SAME,
            ("first", "second", "probability", "score"),
            (
                (one.first, one.second, _number(one.probability), _number(one.score))
                for one in audit.same
            ),
            exact=True,  # siamese-data split --merge reads it
        ),
        write(
            out / "mixed.csv",
            ("person", "probability", "pictures", "other_pictures", "example", "other_example"),
            (
                (one.person, _number(one.probability), len(one.main), len(one.other),
                 _first(one.main), _first(one.other))
                for one in audit.mixed
            ),
        ),
        write(
            out / "leaks.csv",
            ("kind", "first", "second", "score"),
            ((one.kind, one.first, one.second, _number(one.score)) for one in audit.leaks),
        ),
    )  # fmt: skip
    write_plan(out / _PLAN, [Move(suspect.path, None) for suspect in audit.suspects])
    files = (*tables, out / _PLAN)
    page = _page(audit, out, shown=shown, mend=_mend(audit, files), split=_split(audit, files))
    write_findings_page(out / "audit.html", page)
    return (*files, out / "audit.html")


def audit_text(audit: Audit, files: Sequence[Path], *, moved: bool = False) -> str:
    """What the command prints: counts, the first few of each kind, the files, what to do next.

    Args:
        audit: what was found.
        files: what :func:`write_audit` returned.
        moved: the suspects are in the quarantine already.
    """
    lines = [audit.origin, *_summary(audit)]
    listed = (
        ("wrong pictures", map(_suspect_line, audit.suspects[:_LISTED]), audit.suspects),
        ("one person under two names", map(_same_line, audit.same[:_LISTED]), audit.same),
        ("two people under one name", map(_mixed_line, audit.mixed[:_LISTED]), audit.mixed),
        ("in both folders", map(_leak_line, audit.leaks[:_LISTED]), audit.leaks),
    )
    for title, first, every in listed:
        if every:
            lines += [f"{title}:", *(f"  {line}" for line in first)]
            if len(every) > _LISTED:
                lines.append(f"  and {len(every) - _LISTED} more")
    lines += audit.notes
    lines += [f"look: {command_line(file)}" for file in files if file.suffix == ".html"]
    mend = None if moved else _mend(audit, files)
    if audit.weak is not None:
        lines.append(f"next: no move; {audit.weak}")
    for command in filter(None, (mend, _split(audit, files))):
        lines.append(f"next: {command}")
    return "\n".join(lines)


def _mend(audit: Audit, files: Sequence[Path]) -> str | None:
    """The command that quarantines the suspects; None where the model is too weak for that."""
    plans = [file for file in files if file.parts[-2:] == _PLAN.parts]
    if audit.weak is not None or audit.root is None or not audit.suspects or not plans:
        return None
    return mend_command(audit.root, plans[0])


def _split(audit: Audit, files: Sequence[Path]) -> str | None:
    """The command that makes lists in which one person's folders are together."""
    same = [file for file in files if file.name == _SAME]
    if audit.root is None or not audit.same or not same:
        return None
    root = path_word(audit.root)
    return command_line("siamese-data", "split", root, "--merge", path_word(same[0]))


def _number(value: float) -> str:
    return f"{value:.6f}"


def _first(paths: Sequence[str]) -> str:
    return paths[0] if paths else ""


def _shown(name: str) -> str:
    """A name as a word of the shell: spaces and what cannot be seen are spelled out."""
    return command_line(name)


def _suspect_line(one: Suspect) -> str:
    like = "nobody here" if one.owner is None else _shown(one.owner)
    return f"{one.suspicion:.3f}  {_shown(one.path)}  looks like {like}"


def _same_line(one: SamePerson) -> str:
    return f"{one.probability:.3f}  {_shown(one.first)} = {_shown(one.second)}"


def _mixed_line(one: MixedFolder) -> str:
    return (
        f"{one.probability:.3f}  {_shown(one.person)}: {len(one.main)} + {len(one.other)} pictures"
    )


def _leak_line(one: Leak) -> str:
    return f"{one.score:.3f}  {_LEAK_KINDS[one.kind]}: {_shown(one.first)} = {_shown(one.second)}"


def _page(
    audit: Audit, out: Path, *, shown: int, mend: str | None, split: str | None
) -> FindingsPage:
    """The page of an audit; reads the pictures that are shown.

    Args:
        audit: what was found.
        out: where the results are; named on the page.
        shown: findings of each kind whose pictures are shown.
        mend: the command that quarantines the suspects.
        split: the command that makes lists in which one person's folders are together.
    """
    return FindingsPage(
        title="audit" if audit.root is None else f"{audit.root.resolve().name}: audit",
        subtitle=f"{audit.origin}, {time.strftime('%Y-%m-%d %H:%M')}",
        summary=_summary(audit),
        headlines=_headlines(audit),
        sections=_sections(audit, shown, mend, split),
        facts=(_facts(audit, out),),
        notes=audit.notes,
    )


def _summary(audit: Audit) -> tuple[str, ...]:
    """How much was found, and what that is worth, in sentences."""
    found = [
        _counted(len(audit.suspects), "suspicious picture", "suspicious pictures"),
        _counted(len(audit.same), "pair of folders that seems", "pairs of folders that seem")
        + " to be one person",
        _counted(len(audit.mixed), "folder that seems", "folders that seem")
        + " to hold two people",
    ]  # fmt: skip
    if _has_other(audit):
        found.append(_counted(len(audit.leaks), "leak", "leaks") + " between the two folders")
    scope = _counted(audit.people, "person", "people")
    scope += ", " + _counted(audit.pictures, "picture", "pictures")
    honest = (
        "These are a model's guesses: look before you move anything, and what is not here may be "
        "wrong all the same; a weak model misses many."
    )
    return f"{scope}: {', '.join(found)}.", honest


def _isolated(name: str) -> str:
    """A name that does not turn its sentence round when its script runs from right to left."""
    return f"\u2068{name}\u2069"


def _counted(count: int, one: str, many: str) -> str:
    """A number with its noun."""
    return f"{count:,} {one if count == 1 else many}"


def _has_other(audit: Audit) -> bool:
    return audit.other_root is not None or bool(audit.leaks)


def _headlines(audit: Audit) -> tuple[Headline, ...]:
    share = len(audit.suspects) / audit.pictures if audit.pictures else 0.0
    found = [
        Headline("suspects", f"{len(audit.suspects):,}", None,
                 f"{share:.1%} of {audit.pictures:,} pictures"),
        Headline("one person, two names", f"{len(audit.same):,}", None,
                 f"pairs among {audit.people:,} folders"),
        Headline("two people, one name", f"{len(audit.mixed):,}", None, "folders in two groups"),
    ]  # fmt: skip
    if _has_other(audit):
        found.append(Headline("leaks", f"{len(audit.leaks):,}", None, "in both folders"))
    return tuple(found)


def _facts(audit: Audit, out: Path) -> Facts:
    rows = [
        ("audited", audit.origin),
        ("people", f"{audit.people:,}"),
        ("pictures", f"{audit.pictures:,}"),
        ("results", str(out.resolve())),
    ]
    if audit.root is not None:
        rows.insert(1, ("folder", str(audit.root.resolve())))
    if audit.other_root is not None:
        rows.append(("held against", str(audit.other_root.resolve())))
    return Facts("Data", tuple(rows))


class _Pictures:
    """Thumbnails, each decoded once."""

    def __init__(self, audit: Audit) -> None:
        self.audit = audit
        self._made: dict[tuple[Path | None, str], Picture] = {}

    def of(self, paths: Sequence[str], most: int, root: Path | None) -> tuple[Picture, ...]:
        for path in paths[:most]:
            if (root, path) not in self._made:
                self._made[root, path] = thumbnail_of(root, path, "")
        return tuple(self._made[root, path] for path in paths[:most])

    def own(self, paths: Sequence[str], most: int) -> tuple[Picture, ...]:
        return self.of(paths, most, self.audit.root)

    def typical(self, person: str, but: str = "") -> tuple[Picture, ...]:
        paths = [path for path in self.audit.typical.get(person, ()) if path != but]
        return self.own(paths, _TYPICAL)


def _sections(audit: Audit, shown: int, mend: str | None, split: str | None) -> tuple[Section, ...]:
    pictures = _Pictures(audit)
    with tqdm(desc="thumbnails", unit="row", disable=None, leave=False, delay=1) as bar:

        def rows(found: Sequence[_Kind], row: Callable[[_Pictures, _Kind], Row]) -> tuple[Row, ...]:
            made = []
            for one in found[:shown] if audit.root is not None else ():
                made.append(row(pictures, one))
                bar.update()
            return tuple(made)

        suspects = rows(audit.suspects, _suspect_row)
        same = rows(audit.same, _same_row)
        mixed = rows(audit.mixed, _mixed_row)
        leaks = rows(audit.leaks, _leak_row)
    sections = [
        Section(
            "Wrong pictures inside a folder",
            "warning",
            _SUSPECTS_MEAN if audit.suspects else _NOTHING,
            count=len(audit.suspects),
            command=mend,
            rows=suspects,
            paths=tuple(f"{one.suspicion:.3f} {_isolated(one.path)}" for one in audit.suspects),
        ),
        Section(
            "One person under two names",
            "warning",
            _SAME_MEANS if audit.same else _NOTHING,
            count=len(audit.same),
            command=split,
            rows=same,
            paths=tuple(map(_same_line, audit.same)),
        ),
        Section(
            "Two people under one name",
            "note",
            _MIXED_MEANS if audit.mixed else _NOTHING,
            count=len(audit.mixed),
            rows=mixed,
            paths=tuple(map(_mixed_line, audit.mixed)),
        ),
    ]
    if _has_other(audit):
        sections.append(
            Section(
                "In both folders",
                "error",
                _LEAKS_MEAN if audit.leaks else _NOTHING,
                count=len(audit.leaks),
                rows=leaks,
                paths=tuple(map(_leak_line, audit.leaks)),
            )
        )
    return tuple(sections)


def _suspect_row(pictures: _Pictures, one: Suspect) -> Row:
    groups = [
        Group("the suspect", pictures.own([one.path], 1)),
        Group(f"typical of {_isolated(one.person)}", pictures.typical(one.person, one.path)),
    ]
    words = f"suspicion {one.suspicion:.0%}, "
    if one.owner is None:
        words += f"looks like nobody here (score in its own folder {one.own_score:.3f})"
    else:
        words += f"looks most like {_isolated(one.owner)} "
        words += f"(score {one.owner_score:.3f}, in its own folder {one.own_score:.3f})"
        owner = f"typical of {_isolated(one.owner)}"
        groups.append(Group(owner, pictures.typical(one.owner, one.path)))
    return Row(one.path, words, tuple(groups))


def _same_row(pictures: _Pictures, one: SamePerson) -> Row:
    groups = [
        Group(
            name, pictures.own(list(dict.fromkeys(pair[side] for pair in one.examples)), _EXAMPLES)
        )
        for side, name in enumerate((one.first, one.second))
    ]
    title = f"{_isolated(one.first)} = {_isolated(one.second)}"
    words = f"probability {one.probability:.0%}, score {one.score:.3f}"
    return Row(title, words, tuple(groups))


def _mixed_row(pictures: _Pictures, one: MixedFolder) -> Row:
    main = _counted(len(one.main), "picture", "pictures")
    other = _counted(len(one.other), "other picture", "other pictures")
    groups = (
        Group(main, pictures.own(one.main, _EXAMPLES)),
        Group(other, pictures.own(one.other, _EXAMPLES)),
    )
    return Row(one.person, f"probability {one.probability:.0%}", groups)


def _leak_row(pictures: _Pictures, one: Leak) -> Row:
    other_root = pictures.audit.other_root
    if one.kind in ("file", "picture"):
        here, there = pictures.own([one.first], 1), pictures.of([one.second], 1, other_root)
    else:
        some = _some_pictures(other_root, one.second)
        here, there = pictures.typical(one.first), pictures.of(some, _TYPICAL, other_root)
    title = f"{_isolated(one.first)} = {_isolated(one.second)}"
    words = f"{_LEAK_KINDS[one.kind]}, score {one.score:.3f}"
    return Row(title, words, (Group("here", here), Group("there", there)))


def _some_pictures(root: Path | None, person: str) -> list[str]:
    """A few files of a person of the other folder."""
    if root is None:
        return []
    try:
        names = sorted(os.listdir(root / person))
    except OSError:
        return []
    return [f"{person}/{name}" for name in names if not name.startswith(".")][:_TYPICAL]
