"""A page of findings with small pictures in it, as one HTML file that needs no other."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from PIL import Image

from siamese.data.decode import DecodeError, decode
from siamese.drawing.page import Chart, Facts, Headline, Picture, write_rendered

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
        chart: shown first.
    """

    title: str
    severity: Severity
    caption: str
    count: int | None = None
    command: str | None = None
    rows: tuple[Row, ...] = ()
    paths: tuple[str, ...] = ()
    chart: Chart | None = None


@dataclass(frozen=True)
class FindingsPage:
    """All that a page of findings shows; what is empty is left out.

    A table of the sections, the gravest first, stands before them.
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


def write_findings_page(path: Path, page: FindingsPage) -> None:
    """Write one HTML file, whole or not at all; folders are made."""
    write_rendered(path, page, "findings.html", "siamese.curation")


def thumbnail_of(root: Path | None, path: str, name: str, size: int = 96) -> Picture:
    """A small picture for a page, whose ``data`` is None when it cannot be decoded.

    Args:
        root: the folder; None: there are no pictures.
        path: relative to the root.
        name: whom it shows.
        size: longer side in pixels.
    """
    if root is None or not path:
        return Picture(path, name, None)
    try:
        small = decode(root / path, size)
    except DecodeError:
        return Picture(path, name, None)
    small.thumbnail((size, size), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=78)
    data = base64.b64encode(file.getvalue()).decode()
    return Picture(path, name, f"data:image/jpeg;base64,{data}")
