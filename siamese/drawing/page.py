"""One self-contained HTML page from plain data."""

from __future__ import annotations

import base64
import hashlib
import math
import posixpath
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from siamese.files.writing import replacing


@dataclass(frozen=True)
class Headline:
    """One of the big figures at the top.

    Attributes:
        name: such as ``AUC``.
        value: such as ``0.7725``.
        interval: such as ``0.70 to 0.83 (95 %)``; None when unknown.
        mark: a word of warning, such as ``unsupported``; None for none.
    """

    name: str
    value: str
    interval: str | None
    explanation: str
    mark: str | None = None


@dataclass(frozen=True)
class Chart:
    """A figure with its words. ``svg`` is put in as it is: from ``svg_of``, never from a user."""

    title: str
    caption: str
    svg: str


@dataclass(frozen=True)
class Picture:
    """A picture of a person; ``data`` is a ``data:image/`` URI, None when it is not there.

    Raises:
        ValueError: ``data`` is something else.
    """

    path: str
    name: str
    data: str | None

    def __post_init__(self) -> None:
        if self.data is not None and not self.data.startswith("data:image/"):
            raise ValueError(f"{self.path}: not a data:image/ URI: {self.data[:40]}")


@dataclass(frozen=True)
class Pair:
    """Two pictures and their score."""

    first: Picture
    second: Picture
    score: str
    note: str = ""


@dataclass(frozen=True)
class Gallery:
    """Pairs that belong together, such as the worst mistakes."""

    title: str
    caption: str
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class Column:
    """A column of a table; numbers stand at the right and are sorted as numbers."""

    title: str
    numeric: bool = False
    explanation: str = ""


@dataclass(frozen=True)
class Table:
    """A table whose first column names its rows.

    Attributes:
        columns: one per cell of a row.
        sort_values: per row and column the number to sort by, None for a missing one (always
            last); without it the number that a numeric cell begins with.

    Raises:
        ValueError: rows of different lengths.
    """

    title: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    sort_values: tuple[tuple[float | None, ...], ...] | None = None

    def __post_init__(self) -> None:
        keys = self.rows if self.sort_values is None else self.sort_values
        lengths = {len(self.columns), *map(len, self.rows), *map(len, keys)}
        if len(lengths) > 1 or len(keys) != len(self.rows):
            raise ValueError(f"{self.title}: rows, columns and sort values do not match")

    def sort_key(self, row: int, column: int) -> str:
        """The number that a cell is sorted by; empty when it is missing or the column is text."""
        if not self.columns[column].numeric:
            return ""
        if self.sort_values is None:
            value = _leading_number(self.rows[row][column])
        else:
            value = self.sort_values[row][column]
        return "" if value is None or not math.isfinite(value) else repr(float(value))


@dataclass(frozen=True)
class Facts:
    """Names and values: settings, data, counts, versions."""

    title: str
    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Page:
    """All that the page shows. What is empty or None is left out.

    Attributes:
        people: one row per person; it can be sorted and filtered.
    """

    title: str
    subtitle: str
    summary: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    headlines: tuple[Headline, ...] = ()
    comparison: Table | None = None
    charts: tuple[Chart, ...] = ()
    people: Table | None = None
    galleries: tuple[Gallery, ...] = ()
    facts: tuple[Facts, ...] = ()
    glossary: tuple[tuple[str, str], ...] = ()


def write_page(path: Path, page: Page) -> None:
    """Write one HTML file that needs no other, whole or not at all; folders are made."""
    write_rendered(path, page, "report.html", "siamese.drawing")


def write_rendered(path: Path, page: object, template: str, package: str) -> None:
    """Write a page by a package's own template, see :func:`rendered`.

    The file needs no other and is written whole or not at all; folders are made.
    """
    html = rendered(page, template, package)
    with replacing(path) as temporary:
        temporary.write_bytes(html.encode("utf-8", errors="backslashreplace"))


def rendered(page: object, template: str, package: str) -> str:
    """A page by a package's own template, which may take in the parts of the report's.

    The template gets ``page``; what is text in it is escaped.
    """
    return _environment(package).get_template(template).render(page=page)


@cache
def _environment(package: str) -> Environment:
    loaders = [PackageLoader(name) for name in dict.fromkeys((package, "siamese.drawing"))]
    environment = Environment(
        loader=ChoiceLoader(loaders),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["folder_of"] = posixpath.dirname
    environment.filters["is_wide"] = _is_wide
    environment.filters["csp_hash"] = _csp_hash
    environment.filters["breakable"] = _breakable
    environment.filters["unbroken"] = _unbroken
    return environment


_INVISIBLE = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def _visible(value: Any) -> Any:
    """Text in which control characters and bytes that are no UTF-8 are spelled out."""
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return _INVISIBLE.sub(lambda c: c[0].encode("unicode_escape").decode(), value)
    return value


def _breakable(name: str) -> Markup:
    """A name that may go on in the next line after an underscore."""
    return escape(_visible(name)).replace("_", Markup("_<wbr>"))


def _unbroken(sentence: str) -> Markup:
    """A sentence whose numbers, such as 6.5e-06, stay on one line."""
    text = str(escape(_visible(sentence)))
    return Markup(re.sub(r"\d\S*e-\d+", r'<span class="whole">\g<0></span>', text))


def _is_wide(svg: str) -> bool:
    """Whether a figure has two panels side by side."""
    size = re.search(r'width="(\d+)" height="(\d+)"', svg)
    return size is not None and int(size[1]) > 1.7 * int(size[2])


def _csp_hash(script: str) -> str:
    """The name by which a content-security policy allows one script and no other."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def _leading_number(text: str) -> float | None:
    """The number that a text such as ``1,234.5 %`` begins with, None without one."""
    found = re.match(r"[+-]?\d+(\.\d+)?(e[+-]?\d+)?", _plain(text))
    return float(found[0]) if found else None


def _plain(text: str) -> str:
    return re.sub(r"(?<=\d)[, \u00a0\u202f](?=\d{3})", "", text.strip()).replace("\u2212", "-")
