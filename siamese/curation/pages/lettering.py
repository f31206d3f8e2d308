"""Lines of text in any script, drawn into a Pillow picture."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

from PIL import ImageDraw, ImageFont, features

from siamese.drawing.text import drawable, font_characters, font_file

Color = tuple[int, int, int]
# A path begins at the left whatever its script; Pillow without Raqm knows no direction.
_LTR = "ltr" if features.check("raqm") else None
_ISOLATES = re.compile("[\u2068\u2069]")  # round a name that must not turn its sentence round


@dataclass(frozen=True)
class Letters:
    """Letters of one size; of a name's characters each is drawn by a font that has it.

    Attributes:
        size: in pixels.
        bold: whether matplotlib's own font is taken in bold; other fonts come as they are.
    """

    size: int
    bold: bool = False

    def width(self, text: str) -> float:
        """Width of a line in pixels."""
        return sum(font.getlength(part, direction=_LTR) for part, font in self._parts(text))

    def fitted(self, text: str, width: float) -> str:
        """A line that is no wider than this; what is too long has an ellipsis in its middle."""
        text = _spelled(text)
        if self.width(text) <= width:
            return text
        low, high = 0, len(text)  # the number of letters that stay
        while low < high:
            middle = (low + high + 1) // 2
            if self.width(_shortened(text, middle)) <= width:
                low = middle
            else:
                high = middle - 1
        return _shortened(text, low)

    def draw(self, pen: ImageDraw.ImageDraw, x: float, y: float, text: str, fill: Color) -> None:
        """Draw a line; (x, y) is the upper left corner of its letters' box."""
        for part, font in self._parts(text):
            # On one base line, whatever the font.
            at = (x, y + self.size)
            pen.text(at, part, fill=fill, font=font, anchor="ls", direction=_LTR)
            x += font.getlength(part, direction=_LTR)

    def _parts(self, text: str) -> list[tuple[str, ImageFont.FreeTypeFont]]:
        found = []
        for isolated in _ISOLATES.split(_spelled(text)):
            found += self._runs(isolated)
        return found

    def _runs(self, text: str) -> list[tuple[str, ImageFont.FreeTypeFont]]:
        drawn, families = drawable(text, self.bold)
        return [
            ("".join(characters), _font(family, self.bold, self.size))
            for family, characters in groupby(drawn, lambda c: _first(c, families, self.bold))
        ]


def _first(character: str, families: list[str], bold: bool) -> str:
    """The first family that has a character; one of them does."""
    return next(family for family in families if character in font_characters(family, bold))


def _shortened(text: str, kept: int) -> str:
    end = kept // 2
    return f"{text[: kept - end]}…{text[len(text) - end :]}"


@lru_cache(maxsize=4096)
def _spelled(text: str) -> str:
    """Text in which what cannot be seen is spelled out, such as line ends and broken UTF-8."""
    return "".join(c if _is_shown(c) else _escape(c) for c in text)


def _is_shown(character: str) -> bool:
    if _ISOLATES.match(character):  # told apart when it is drawn
        return True
    return character.isprintable() or unicodedata.category(character) == "Zs"


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


@lru_cache(maxsize=256)
def _font(family: str, bold: bool, size: int) -> ImageFont.FreeTypeFont:
    found = font_file(family, bold)
    return ImageFont.truetype(str(found), size, index=int(getattr(found, "face_index", 0)))
