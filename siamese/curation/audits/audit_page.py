"""What an audit found, as a page."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from siamese.curation.audits.audited import Audit, Leak, MixedFolder, SamePerson, Suspect
from siamese.curation.pages.pages import FindingsPage, Group, Row, Section, thumbnail_of
from siamese.drawing.page import Column, Facts, Headline, Picture, Table

_TYPICAL = 4  # pictures of a person beside a suspect
_EXAMPLES = 4  # pictures of either side of two people or two folders
_TABLE = 500  # rows of a table on the page
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
KINDS = {
    "file": "same file",
    "picture": "nearly the same picture",
    "person": "seems the same person",
    "name": "same name",
}
"""The kinds of leaks in words."""
_NOTHING = "Nothing found."
_Kind = TypeVar("_Kind")


def audit_page(
    audit: Audit, out: Path, *, shown: int, mend: str | None, split: str | None
) -> FindingsPage:
    """The page of an audit; reads the pictures that are shown.

    Args:
        audit: what was found.
        out: where the results are; told on the page.
        shown: findings of each kind whose pictures are shown.
        mend: the command that quarantines the suspects.
        split: the command that makes lists in which one person's folders are together.
    """
    return FindingsPage(
        title="audit" if audit.root is None else f"{audit.root.resolve().name}: audit",
        subtitle=f"{audit.origin}, {time.strftime('%Y-%m-%d %H:%M')}",
        summary=summary_of(audit),
        headlines=_headlines(audit),
        sections=_sections(audit, shown, mend, split),
        facts=(_facts(audit, out),),
        notes=audit.notes,
    )


def summary_of(audit: Audit) -> tuple[str, ...]:
    """How much was found, and what that is worth, in sentences."""
    found = [
        counted(len(audit.suspects), "suspicious picture", "suspicious pictures"),
        counted(len(audit.same), "pair of folders that seems", "pairs of folders that seem")
        + " to be one person",
        counted(len(audit.mixed), "folder that seems", "folders that seem")
        + " to hold two people",
    ]  # fmt: skip
    if _has_other(audit):
        found.append(counted(len(audit.leaks), "leak", "leaks") + " between the two folders")
    scope = counted(audit.people, "person", "people")
    scope += ", " + counted(audit.pictures, "picture", "pictures")
    honest = (
        "These are a model's guesses: look before you move anything, and what is not here may be "
        "wrong all the same; a weak model misses many."
    )
    return f"{scope}: {', '.join(found)}.", honest


def isolated(name: str) -> str:
    """A name that does not turn its sentence round when its script runs from right to left."""
    return f"\u2068{name}\u2069"


def counted(count: int, one: str, many: str) -> str:
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
            paths=tuple(f"{one.suspicion:.3f} {isolated(one.path)}" for one in audit.suspects),
            table=_folder_table(audit.suspects),
        ),
        Section(
            "One person under two names",
            "warning",
            _SAME_MEANS if audit.same else _NOTHING,
            count=len(audit.same),
            command=split,
            rows=same,
            table=_pair_table(audit.same),
        ),
        Section(
            "Two people under one name",
            "note",
            _MIXED_MEANS if audit.mixed else _NOTHING,
            count=len(audit.mixed),
            rows=mixed,
            table=_mixed_table(audit.mixed),
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
                table=_leak_table(audit.leaks),
            )
        )
    return tuple(sections)


def _suspect_row(pictures: _Pictures, one: Suspect) -> Row:
    groups = [
        Group("the suspect", pictures.own([one.path], 1)),
        Group(f"typical of {isolated(one.person)}", pictures.typical(one.person, one.path)),
    ]
    words = f"suspicion {one.suspicion:.0%}, "
    if one.owner is None:
        words += f"looks like nobody here (score in its own folder {one.own_score:.3f})"
    else:
        words += f"looks most like {isolated(one.owner)} "
        words += f"(score {one.owner_score:.3f}, in its own folder {one.own_score:.3f})"
        owner = f"typical of {isolated(one.owner)}"
        groups.append(Group(owner, pictures.typical(one.owner, one.path)))
    return Row(one.path, words, tuple(groups))


def _same_row(pictures: _Pictures, one: SamePerson) -> Row:
    groups = [
        Group(
            name, pictures.own(list(dict.fromkeys(pair[side] for pair in one.examples)), _EXAMPLES)
        )
        for side, name in enumerate((one.first, one.second))
    ]
    title = f"{isolated(one.first)} = {isolated(one.second)}"
    words = f"probability {one.probability:.0%}, score {one.score:.3f}"
    return Row(title, words, tuple(groups))


def _mixed_row(pictures: _Pictures, one: MixedFolder) -> Row:
    main = counted(len(one.main), "picture", "pictures")
    other = counted(len(one.other), "other picture", "other pictures")
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
    title = f"{isolated(one.first)} = {isolated(one.second)}"
    words = f"{KINDS[one.kind]}, score {one.score:.3f}"
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


def _folder_table(suspects: Sequence[Suspect]) -> Table | None:
    by_person: dict[str, list[float]] = defaultdict(list)
    for one in suspects:
        by_person[one.person].append(one.suspicion)
    rows = sorted(by_person.items(), key=lambda item: (-len(item[1]), item[0]))
    return _table(
        "By folder",
        "person",
        ("suspects", "highest suspicion"),
        [((name,), (float(len(found)), max(found)), ("d", ".3f")) for name, found in rows],
    )


def _pair_table(same: Sequence[SamePerson]) -> Table | None:
    rows = [((o.first, o.second), (o.probability, o.score), (".3f", ".3f")) for o in same]
    return _table("All pairs", "first", ("probability", "score"), rows, "second")


def _mixed_table(mixed: Sequence[MixedFolder]) -> Table | None:
    rows = [
        ((one.person,), (one.probability, float(len(one.main)), float(len(one.other))),
         (".3f", "d", "d"))
        for one in mixed
    ]  # fmt: skip
    return _table("All folders", "person", ("probability", "pictures", "other pictures"), rows)


def _leak_table(leaks: Sequence[Leak]) -> Table | None:
    rows = [((one.first, one.second, KINDS[one.kind]), (one.score,), (".3f",)) for one in leaks]
    return _table("All of them", "here", ("score",), rows, "in the other folder", "kind")


_Cells = tuple[tuple[str, ...], tuple[float, ...], tuple[str, ...]]  # texts, numbers, their form


def _table(
    title: str, name: str, numbers: Sequence[str], rows: Sequence[_Cells], *more: str
) -> Table | None:
    """A table of texts, then numbers; None without rows."""
    if not rows:
        return None
    caption = f"The first {_TABLE:,} of {len(rows):,}." if len(rows) > _TABLE else ""
    columns = [Column(text) for text in (name, *more)]
    columns += [Column(text, numeric=True) for text in numbers]
    rows = rows[:_TABLE]
    return Table(
        title,
        caption,
        tuple(columns),
        tuple((*texts, *map(_cell, values, forms)) for texts, values, forms in rows),
        tuple((*(None for _ in texts), *values) for texts, values, _ in rows),
    )


def _cell(value: float, form: str) -> str:
    return f"{int(value):,}" if form == "d" else f"{value:{form}}"
