"""One self-contained page of findings, and the same as one contact sheet."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from siamese.curation.pages.contact_sheet import draw_sheet
from siamese.curation.pages.sections import FindingsPage, Group, Row, Section, Severity
from siamese.data.decode import DecodeError, decode
from siamese.drawing.page import Picture, write_rendered
from siamese.files.writing import replacing

__all__ = [
    "FindingsPage",
    "Group",
    "Row",
    "Section",
    "Severity",
    "thumbnail_of",
    "write_contact_sheet",
    "write_findings_page",
]


def write_findings_page(path: Path, page: FindingsPage) -> None:
    """Write one HTML file that needs no other, whole or not at all; folders are made."""
    write_rendered(path, page, "findings.html", "siamese.curation.pages")


def write_contact_sheet(
    path: Path, title: str, sections: Sequence[Section], *, limit: int = 60
) -> None:
    """Write the sections' rows as one PNG, whole or not at all; folders are made.

    Args:
        path: the file.
        title: its first line.
        sections: those without pictures are left out.
        limit: rows that are drawn, each section's share of them first; the rest is counted.
    """
    sheet = draw_sheet(title, sections, limit)
    with replacing(path) as temporary:
        sheet.save(temporary, "PNG", optimize=True)


def thumbnail_of(root: Path | None, path: str, name: str, size: int = 96) -> Picture:
    """A small picture for a page.

    Args:
        root: the folder; None: there are no pictures.
        path: relative to the root.
        name: whom it shows.
        size: longer side in pixels.

    Returns:
        The picture; its ``data`` is None when it cannot be decoded.
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
    return Picture(
        path, name, "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
    )
