"""Check a face folder without a model: what is wrong with its files, names and copies."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from filelock import FileLock
from matplotlib.ticker import MaxNLocator

from siamese.config import CheckSettings
from siamese.curation.contents import results_folder, walk_folder
from siamese.curation.copies import (
    Copies,
    Shot,
    exact_copies,
    groups_of,
    near_copies,
    people_who_share,
    usable_shots,
)
from siamese.curation.findings import (
    Case,
    Cases,
    Finding,
    file_findings,
    find_twins,
    folder_findings,
    spelled,
)
from siamese.curation.findings_page import (
    FindingsPage,
    Group,
    Row,
    Section,
    thumbnail_of,
    write_findings_page,
)
from siamese.curation.inspection import FactCache, FileFacts, gather_facts
from siamese.curation.repairs import make_plans, write_plans
from siamese.drawing.figure import blank_figure, svg_of
from siamese.drawing.page import Chart, Facts, Headline
from siamese.errors import first_few
from siamese.files.shown import counted, shown
from siamese.files.writing import write_json
from siamese.processors import processors

_ROWS = 24  # of a kind of finding
_PICTURES = 8  # in a row
_COPIES = ("copies_within", "copies_across", "near_within", "near_across")
_FOLDERS = ("twin_folders", "similar_names", "shared_pictures", "one_picture")
_BLUE = "#0072b2"


def check_folder(settings: CheckSettings) -> CheckResult:
    """Check a folder; writes check.json, check.html and a plan per kind of finding.

    Raises:
        UserError: no folder; the results would lie inside it, or cannot be written.
    """
    root = Path(str(settings.data))
    contents = walk_folder(root)
    out = results_folder("check", root, settings.out, settings.runs)
    workers = processors() if settings.workers is None else settings.workers
    files = contents.files()
    cache = FactCache(out / "facts.jsonl")
    facts = gather_facts(root, files, cache, workers=workers)
    cases = file_findings(facts, min_side=settings.min_side, max_aspect=settings.max_aspect)
    for kind, of_kind in folder_findings(contents, facts).items():
        cases.setdefault(kind, []).extend(of_kind)
    counts = contents.usable(facts)
    copies = _find_copies(cases, usable_shots(contents, facts), settings.near)
    same_person = _find_same_people(cases, list(contents.people), copies["copies_across"], counts)
    plans = make_plans(contents, facts, cases, copies, same_person, settings.near)
    with FileLock(out / ".check.lock"):  # results of two runs at once would get mixed
        result = CheckResult(
            root,
            out,
            {person: number for person, number in counts.items() if number},
            len(files),
            write_plans(root, out, cases, plans),
            tuple(cache.notes),
        )
        _write_page(result, facts, settings)
        write_json(out / "check.json", {**result.as_dict(), "settings": vars(settings)})
    return result


@dataclass(frozen=True)
class CheckResult:
    """A folder that was checked.

    Attributes:
        root: the folder.
        out: where the results are.
        counts: usable pictures by person.
        files: number of files in people's folders.
        findings: the worst first; kinds without a case are left out.
        notes: what the reader must know.
    """

    root: Path
    out: Path
    counts: Mapping[str, int]
    files: int
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]

    def balance(self) -> dict[str, int]:
        """Pictures per person: least, quartiles, most; empty without a person."""
        ordered = sorted(self.counts.values())
        names = ("least", "lower quartile", "median", "upper quartile", "most")
        last = len(ordered) - 1
        return {name: ordered[round(at / 4 * last)] for at, name in enumerate(names) if ordered}

    def summary(self) -> str:
        """One line."""
        usable = sum(self.counts.values())
        line = f"{self.root}: {len(self.counts)} people, {usable} usable pictures"
        if balance := self.balance():
            line += "; per person {least} to {most}, median {median}".format(**balance)
        return line

    def verdict(self) -> str:
        """In a sentence: how many kinds of findings, or that there is nothing to find them in."""
        if not self.counts:
            return (
                "nobody has a usable picture in it; put each person's pictures into a folder of "
                f"their own, e.g. {self.root.resolve().name}/NAME/picture.jpg"
            )
        severities = Counter(finding.about.severity for finding in self.findings)
        kinds = [
            f"{counted(number, 'kind')} of {name}s"
            for name in ("error", "warning", "note")
            if (number := severities[name])
        ]
        return f"found: {', '.join(kinds)}" if kinds else "nothing is wrong with it"

    def text(self) -> str:
        """All findings by severity: how many, the first of them, the command that mends them."""
        lines = [shown(self.summary()), *(f"note: {shown(note)}" for note in self.notes)]
        for finding in self.findings:
            about = finding.about
            named = first_few([shown(case.text(3)) for case in finding.cases])
            lines += [
                "",
                f"{about.severity}: {about.title}: {len(finding.cases)}",
                f"  {about.meaning}",
                f"  {named}",
            ]
            if finding.command is not None:
                lines.append(f"  $ {finding.command}")
        lines.append("")
        if not self.findings or not self.counts:
            lines.append(shown(self.verdict()))
        if any(finding.plan is not None for finding in self.findings):
            lines.append("Plans move files, siamese-data restore undoes it. Then check once more.")
        page, data = self.out / "check.html", self.out / "check.json"
        lines.append(shown(f"page {page}, all files {data}"))
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "folder": str(self.root),
            "people": len(self.counts),
            "usable_pictures": sum(self.counts.values()),
            "files": self.files,
            "findings": [finding.as_dict() for finding in self.findings],
            "pictures_per_person": {**self.balance(), "by_person": dict(self.counts)},
            "notes": list(self.notes),
        }


def _find_copies(cases: Cases, shots: Sequence[Shot], near: int) -> dict[str, list[Copies]]:
    copies = dict(zip(_COPIES, (*exact_copies(shots), *near_copies(shots, near)), strict=True))
    for kind, groups in copies.items():
        groups.sort(key=lambda group: (group.distance, group.shots[0].path))
        for group in groups:
            detail = f"{group.distance} bits apart" if kind.startswith("near") else ""
            case = Case(tuple(shot.path for shot in group.shots), detail)
            cases.setdefault(kind, []).append(case)
    return copies


def _find_same_people(
    cases: Cases, people: Sequence[str], across: Sequence[Copies], counts: Mapping[str, int]
) -> dict[str, str]:
    """Add folders that are one person; per such folder the name of its group."""
    pairs = []
    for twins in find_twins(people):
        kind = "twin_folders" if twins.sure else "similar_names"
        case = Case(twins.names, f"written {' / '.join(map(spelled, twins.names))}")
        cases.setdefault(kind, []).append(case)
        pairs += [(twins.names[0], name) for name in twins.names[1:]]
    named = groups_of(pairs)
    sharing = people_who_share(across, counts)
    groups: dict[str, list[str]] = {}
    for person, head in sharing.items():
        groups.setdefault(head, []).append(person)
    for group in groups.values():
        if len({named.get(person, person) for person in group}) > 1:  # else their names say it
            cases.setdefault("shared_pictures", []).append(Case(tuple(sorted(group))))
    return groups_of([*pairs, *((head, person) for person, head in sharing.items())])


def _write_page(
    result: CheckResult, facts: Mapping[str, FileFacts], settings: CheckSettings
) -> None:
    """Write check.html into the folder of the results."""
    verdict = result.verdict()
    sections = [
        Section(
            finding.about.title,
            finding.about.severity,
            finding.about.meaning,
            len(finding.cases),
            finding.command,
            _rows(result.root, finding, facts),
            tuple(case.text() for case in finding.cases),
        )
        for finding in result.findings
    ]
    page = FindingsPage(
        title=f"{result.root.resolve().name}: check",
        subtitle=f"{result.root.resolve()}, {time.strftime('%Y-%m-%d %H:%M')}",
        summary=(f"{result.summary()}.", f"{verdict[0].upper()}{verdict[1:]}."),
        headlines=_headlines(result),
        sections=(*sections, *_balance(result)),
        facts=(
            Facts("Settings", tuple((name, str(value)) for name, value in vars(settings).items())),
            Facts("Versions", (("Pillow", PIL.__version__), ("numpy", np.__version__))),
        ),
        notes=result.notes,
    )
    write_findings_page(result.out / "check.html", page)


def _headlines(result: CheckResult) -> tuple[Headline, ...]:
    copies = sum(len(one.cases) for one in result.findings if one.kind in _COPIES)
    usable = sum(result.counts.values())
    headlines = [
        Headline("people", f"{len(result.counts)}", None, "with a usable picture"),
        Headline("pictures", f"{usable}", None, f"usable, of {result.files} files"),
        Headline("groups of copies", f"{copies}", None, "the same or nearly the same picture"),
    ]
    if balance := result.balance():
        spread = f"median; {balance['least']} to {balance['most']}"
        headlines.append(Headline("per person", f"{balance['median']}", None, spread))
    return tuple(headlines)


def _rows(root: Path, finding: Finding, facts: Mapping[str, FileFacts]) -> tuple[Row, ...]:
    def group(title: str, paths: Iterable[str], most: int = _PICTURES) -> Group:
        usable = [path for path in paths if path in facts and facts[path].status == "usable"]
        return Group(title, tuple(thumbnail_of(root, path, path) for path in usable[:most]))

    if finding.kind in _COPIES:
        return tuple(
            Row(
                " = ".join(dict.fromkeys(path.partition("/")[0] for path in case.paths)),
                case.detail or f"{len(case.paths)} copies",
                (group("", case.paths),),
            )
            for case in finding.cases[:_ROWS]
        )
    if finding.kind in _FOLDERS:
        inside: dict[str, list[str]] = {}
        for path in facts:
            inside.setdefault(path.partition("/")[0], []).append(path)
        return tuple(
            Row(
                " = ".join(case.paths),
                case.detail,
                tuple(group(name, inside.get(name, ()), _PICTURES // 2) for name in case.paths[:4]),
            )
            for case in finding.cases[:_ROWS]
        )
    single = group("", (path for case in finding.cases for path in case.paths), _ROWS)
    return (Row("", "", (single,)),) if single.pictures else ()


def _balance(result: CheckResult) -> Sequence[Section]:
    counts = list(result.counts.values())
    if not counts:
        return []
    figure = blank_figure("", width=5.6)
    axes = figure.add_subplot()
    bins = np.unique(np.histogram_bin_edges(counts, bins="auto").round())
    if len(bins) < 3 or len(bins) > 40:
        bins = np.linspace(min(counts), max(counts) + 1, min(40, max(counts) - min(counts) + 1) + 1)
    axes.hist(counts, bins=bins.tolist(), color=_BLUE)
    axes.set(xlabel="pictures of a person", ylabel="people")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    caption = ", ".join(f"{name} {value}" for name, value in result.balance().items())
    chart = Chart("Pictures per person", f"{caption}.", svg_of(figure))
    words = "How evenly the people are covered; check.json has the number of each."
    return [Section("Balance", "", words, chart=chart)]
