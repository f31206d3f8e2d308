"""What a page of findings is made of, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from siamese.drawing.page import Chart, Facts, Headline, Picture, Table

Severity = Literal["error", "warning", "note", ""]


@dataclass(frozen=True)
class Group:
    """Pictures that belong together, such as ``typical pictures of Ann``."""

    title: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Row:
    """One line of pictures."""

    title: str
    caption: str
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Section:
    """A kind of finding.

    Attributes:
        title: of the section.
        severity: how bad it is; empty: no finding, such as a chart.
        caption: what it means.
        count: number of findings; None: nothing is counted.
        command: the exact command that mends it.
        rows: pictures.
        paths: the files; the page shows the first 200, folded.
        table: shown after the pictures.
        chart: shown first.
    """

    title: str
    severity: Severity
    caption: str
    count: int | None = None
    command: str | None = None
    rows: tuple[Row, ...] = ()
    paths: tuple[str, ...] = ()
    table: Table | None = None
    chart: Chart | None = None


@dataclass(frozen=True)
class FindingsPage:
    """All that a page of findings shows. What is empty is left out.

    Attributes:
        title: what was looked at.
        subtitle: by what, when.
        summary: the result in sentences.
        headlines: the big figures.
        sections: the findings, the gravest first; a table of them stands before them.
        facts: settings, data, versions.
        notes: sentences of warning.
    """

    title: str
    subtitle: str
    summary: tuple[str, ...]
    headlines: tuple[Headline, ...]
    sections: tuple[Section, ...]
    facts: tuple[Facts, ...]
    notes: tuple[str, ...]

    first_paths: ClassVar[int] = 200
    """Lines of a section's list of files that are shown."""
