"""What a check found, as a page and as a contact sheet."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import PIL
from matplotlib.ticker import MaxNLocator

from siamese.config import CheckSettings
from siamese.curation.checking.checked import Checked
from siamese.curation.checking.findings import Finding, Found, Kind
from siamese.curation.checking.inspection import FileFacts
from siamese.curation.pages.pages import (
    FindingsPage,
    Group,
    Row,
    Section,
    thumbnail_of,
    write_contact_sheet,
    write_findings_page,
)
from siamese.drawing.figure import blank_figure, svg_of
from siamese.drawing.page import Chart, Facts, Headline, Picture

_ROWS = 24  # of a kind of finding
_PICTURES = 8  # in a row
_SINGLE = 24  # pictures of a kind that is about single files
_SHEET_ROWS = 60
_GROUPS: frozenset[Kind] = frozenset({"copies_within", "copies_across", "near_within",
                                      "near_across"})  # fmt: skip
_FOLDERS: frozenset[Kind] = frozenset({"twin_folders", "similar_names", "shared_pictures",
                                       "one_picture"})  # fmt: skip
_BLUE = "#0072b2"


def write_check_page(
    checked: Checked, facts: Mapping[str, FileFacts], settings: CheckSettings
) -> None:
    """Write check.html and check.png into the folder of the results.

    Args:
        checked: what was found.
        facts: by path; pictures that cannot be decoded are not drawn.
        settings: shown on the page.
    """
    sections = [_section(checked.root, finding, facts) for finding in checked.findings]
    verdict = checked.verdict()
    page = FindingsPage(
        title=f"{checked.root.resolve().name}: check",
        subtitle=f"{checked.root.resolve()}, {time.strftime('%Y-%m-%d %H:%M')}",
        summary=(
            f"{checked.summary()}.",
            f"{verdict[0].upper()}{verdict[1:]}.",
        ),
        headlines=_headlines(checked),
        sections=(*sections, *_balance(checked)),
        facts=(
            Facts("Settings", tuple((name, str(value)) for name, value in vars(settings).items())),
            Facts("Versions", (("Pillow", PIL.__version__), ("numpy", np.__version__))),
        ),
        notes=checked.notes,
    )
    write_findings_page(checked.out / "check.html", page)
    title = f"{checked.root.resolve().name}: check"
    write_contact_sheet(checked.out / "check.png", title, sections, limit=_SHEET_ROWS)


def _headlines(checked: Checked) -> tuple[Headline, ...]:
    counts = {finding.kind: len(finding.found) for finding in checked.findings}
    copies = sum(counts.get(kind, 0) for kind in _GROUPS)
    usable = sum(checked.counts.values())
    balance = checked.balance()
    found = [
        Headline("people", f"{len(checked.counts)}", None, "with a usable picture"),
        Headline("pictures", f"{usable}", None, f"usable, of {checked.files} files"),
        Headline("groups of copies", f"{copies}", None, "the same or nearly the same picture"),
    ]
    if balance:
        spread = f"{balance['least']} to {balance['most']}"
        found.append(Headline("per person", f"{balance['median']}", None, f"median; {spread}"))
    return tuple(found)


def _section(root: Path, finding: Finding, facts: Mapping[str, FileFacts]) -> Section:
    about = finding.about
    return Section(
        title=about.title,
        severity=about.severity,
        caption=about.meaning,
        count=len(finding.found),
        command=finding.command,
        rows=_rows(root, finding, facts),
        paths=tuple(map(_line, finding.found)),
    )


def _line(case: Found) -> str:
    names = " = ".join(case.paths)
    return f"{names} ({case.detail})" if case.detail else names


def _rows(root: Path, finding: Finding, facts: Mapping[str, FileFacts]) -> tuple[Row, ...]:
    def pictures(paths: Iterable[str], most: int) -> tuple[Picture, ...]:
        shown = [path for path in paths if path in facts and facts[path].status == "usable"]
        return tuple(thumbnail_of(root, path, path) for path in shown[:most])

    if finding.kind in _GROUPS:
        return tuple(
            Row(
                " = ".join(dict.fromkeys(path.partition("/")[0] for path in case.paths)),
                case.detail or f"{len(case.paths)} copies",
                (Group("", pictures(case.paths, _PICTURES)),),
            )
            for case in finding.found[:_ROWS]
        )
    if finding.kind in _FOLDERS:
        inside = _by_person(facts)
        return tuple(
            Row(
                " = ".join(case.paths),
                case.detail,
                tuple(
                    Group(name, pictures(inside.get(name, ()), _PICTURES // 2))
                    for name in case.paths[:4]
                ),
            )
            for case in finding.found[:_ROWS]
        )
    singles = [path for case in finding.found for path in case.paths]
    shown = pictures(singles, _SINGLE)
    return tuple(
        Row("", "", (Group("", shown[start : start + _PICTURES]),))
        for start in range(0, len(shown), _PICTURES)
    )


def _by_person(facts: Mapping[str, FileFacts]) -> dict[str, list[str]]:
    inside: dict[str, list[str]] = {}
    for path in facts:
        inside.setdefault(path.partition("/")[0], []).append(path)
    return inside


def _balance(checked: Checked) -> Sequence[Section]:
    counts = list(checked.counts.values())
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
    caption = ", ".join(f"{name} {value}" for name, value in checked.balance().items())
    chart = Chart("Pictures per person", f"{caption}.", svg_of(figure))
    words = "How evenly the people are covered; check.json has the number of each."
    return [Section("Balance", "", words, chart=chart)]
