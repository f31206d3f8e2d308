"""Rows of pictures with their captions, drawn onto one sheet."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from PIL import Image, ImageDraw, ImageOps

from siamese.curation.pages.lettering import Color, Letters
from siamese.curation.pages.sections import Group, Row, Section
from siamese.drawing.page import Picture

_PAPER, _INK, _MUTED, _RULE = (251, 250, 248), (28, 29, 31), (93, 95, 99), (220, 217, 211)
_EMPTY: Color = (239, 237, 233)
_SEVERITIES: dict[str, Color] = {"error": (163, 22, 31), "warning": (138, 65, 0), "note": _MUTED}
_MARGIN, _TILE, _GAP, _APART = 32, 96, 8, 28
_COLUMN = 980  # wide enough for nine pictures in two or three groups
_NARROW = 304  # of a row with one picture: room for its title
_TITLE, _SECTION, _ROW = Letters(28, bold=True), Letters(21, bold=True), Letters(15, bold=True)
_CAPTION, _SMALL = Letters(14), Letters(11)


@dataclass(frozen=True)
class _Strip:
    """A group's pictures in lines of ``per_line``."""

    group: Group
    per_line: int

    @property
    def lines(self) -> int:
        return -(-len(self.group.pictures) // self.per_line)

    @property
    def width(self) -> int:
        return min(self.per_line, len(self.group.pictures)) * (_TILE + _GAP) - _GAP

    @property
    def height(self) -> int:
        return _line(_SMALL) * bool(self.group.title) + self.lines * _tile_height()


@dataclass(frozen=True)
class _Block:
    """A row of findings: its words, and its strips in as many lines as they need."""

    row: Row
    lines: tuple[tuple[_Strip, ...], ...]
    width: int

    @property
    def height(self) -> int:
        words = _line(_ROW) * bool(self.row.title) + _line(_CAPTION) * bool(self.row.caption)
        return words + sum(max(strip.height for strip in line) for line in self.lines)


def draw_sheet(title: str, sections: Sequence[Section], limit: int) -> Image.Image:
    """Draw the sections' rows of pictures, ``limit`` in all; the rest is counted in words."""
    shown = [
        (section, [row for row in section.rows if any(group.pictures for group in row.groups)])
        for section in sections
    ]
    shown = [(section, rows) for section, rows in shown if rows]
    shares = _shares([len(rows) for _, rows in shown], limit)
    columns = 2 if sum(shares) > 12 else 1
    width = columns * (_COLUMN + _APART) - _APART
    shelves = [
        (section, len(rows) - share, _lines([_block(row) for row in rows[:share]], width))
        for (section, rows), share in zip(shown, shares, strict=True)
        if share
    ]
    height = _line(_TITLE) + (0 if shelves else _line(_CAPTION))
    for section, _, lines in shelves:
        height += _APART + _line(_SECTION) + _line(_CAPTION) * bool(section.caption) + _GAP
        height += sum(max(block.height for block in line) + 2 * _GAP for line in lines)
    sheet = Image.new("RGB", (width + 2 * _MARGIN, height + 2 * _MARGIN), _PAPER)
    pen = ImageDraw.Draw(sheet)
    _TITLE.draw(pen, _MARGIN, _MARGIN, _TITLE.fitted(title, width), _INK)
    y = _MARGIN + _line(_TITLE)
    if not shelves:
        _CAPTION.draw(pen, _MARGIN, y, "No pictures to show.", _MUTED)
    for section, left, lines in shelves:
        y = _draw_heading(pen, y, section, left, width)
        for line in lines:
            x = _MARGIN
            for block in line:
                _draw_block(sheet, pen, x, y, block)
                x += block.width + _APART
            y += max(block.height for block in line) + 2 * _GAP
    return sheet


def _line(letters: Letters) -> int:
    return round(1.45 * letters.size)


def _tile_height() -> int:
    return _TILE + _line(_SMALL) + _GAP


def _shares(counts: Sequence[int], limit: int) -> list[int]:
    """How many rows of each section are drawn: small sections whole, large ones alike."""
    shares = [0] * len(counts)
    for _ in range(min(limit, sum(counts))):
        open_sections = [at for at, count in enumerate(counts) if shares[at] < count]
        least = min(open_sections, key=lambda at: shares[at])
        shares[least] += 1
    return shares


def _block(row: Row) -> _Block:
    most = (_COLUMN + _GAP) // (_TILE + _GAP)
    strips = [_Strip(group, most) for group in row.groups if group.pictures]
    lines = _lines(strips, _COLUMN)
    widths = [sum(strip.width + _APART for strip in line) - _APART for line in lines]
    return _Block(row, tuple(map(tuple, lines)), max(_NARROW, *widths))


_Wide = TypeVar("_Wide", _Strip, _Block)


def _lines(items: Sequence[_Wide], width: int) -> list[list[_Wide]]:
    """Strips or blocks side by side, as many as fit."""
    lines: list[list[_Wide]] = []
    x = 0
    for item in items:
        if not lines or x + item.width > width:
            lines.append([])
            x = 0
        lines[-1].append(item)
        x += item.width + _APART
    return lines


def _draw_heading(pen: ImageDraw.ImageDraw, y: int, section: Section, left: int, width: int) -> int:
    """Draw a section's title and caption; returns where its rows begin."""
    y += _APART
    pen.line((_MARGIN, y - _APART // 2, _MARGIN + width, y - _APART // 2), fill=_RULE)
    words: str = section.severity
    if section.count is not None:
        words += f" {section.count:,}"
    if left:
        words += f"  ({left:,} more on the page)"
    title = _SECTION.fitted(section.title, width - _CAPTION.width(words) - _APART)
    _SECTION.draw(pen, _MARGIN, y, title, _INK)
    x = _MARGIN + _SECTION.width(title) + 14
    # On the title's base line.
    at = y + _SECTION.size - _CAPTION.size
    _CAPTION.draw(pen, x, at, words.strip(), _SEVERITIES.get(section.severity, _MUTED))
    y += _line(_SECTION)
    if section.caption:
        _CAPTION.draw(pen, _MARGIN, y, _CAPTION.fitted(section.caption, width), _MUTED)
        y += _line(_CAPTION)
    return y + _GAP


def _draw_block(
    sheet: Image.Image, pen: ImageDraw.ImageDraw, x: int, y: int, block: _Block
) -> None:
    if block.row.title:
        _ROW.draw(pen, x, y, _ROW.fitted(block.row.title, block.width), _INK)
        y += _line(_ROW)
    if block.row.caption:
        _CAPTION.draw(pen, x, y, _CAPTION.fitted(block.row.caption, block.width), _INK)
        y += _line(_CAPTION)
    for line in block.lines:
        at = x
        for strip in line:
            _draw_strip(sheet, pen, at, y, strip, block.width if len(line) == 1 else strip.width)
            at += strip.width + _APART
        y += max(strip.height for strip in line)


def _draw_strip(
    sheet: Image.Image, pen: ImageDraw.ImageDraw, x: int, y: int, strip: _Strip, room: int
) -> None:
    if strip.group.title:
        _SMALL.draw(pen, x, y, _SMALL.fitted(strip.group.title, room), _MUTED)
        y += _line(_SMALL)
    for number, picture in enumerate(strip.group.pictures):
        down, across = divmod(number, strip.per_line)
        place = x + across * (_TILE + _GAP), y + down * _tile_height()
        _draw_tile(sheet, pen, *place, picture)


def _draw_tile(
    sheet: Image.Image, pen: ImageDraw.ImageDraw, x: int, y: int, picture: Picture
) -> None:
    pen.rectangle((x, y, x + _TILE - 1, y + _TILE - 1), fill=_EMPTY)
    if picture.data is None:
        words = "not available"
        _SMALL.draw(pen, x + (_TILE - _SMALL.width(words)) / 2, y + _TILE // 2 - 8, words, _MUTED)
    else:
        file = io.BytesIO(base64.b64decode(picture.data.partition(",")[2]))
        with Image.open(file) as found:
            small = ImageOps.contain(found.convert("RGB"), (_TILE, _TILE))
        sheet.paste(small, (x + (_TILE - small.width) // 2, y + (_TILE - small.height) // 2))
    name = picture.path.rpartition("/")[2]
    _SMALL.draw(pen, x, y + _TILE + 1, _SMALL.fitted(name, _TILE), _MUTED)
