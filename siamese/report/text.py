"""Names in any script, on pictures."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from matplotlib import font_manager, ft2font


def drawable(text: str) -> tuple[str, str]:
    """A text and a font family that can draw it.

    matplotlib's own font lacks CJK and other scripts and would draw boxes. A system font that has
    every character is taken; where there is none, the missing characters are escaped.

    Returns:
        ``(text, family)``, ready for ``Axes.set_title(text, family=family)``.
    """
    default = font_manager.FontProperties().get_family()[0]
    needed = frozenset(map(ord, text))
    own = Path(font_manager.findfont(font_manager.FontProperties()))
    if needed <= _characters(own):
        return text, default
    for entry in sorted(font_manager.fontManager.ttflist, key=_plainness):
        # matplotlib brings a "last resort" font along that has every character, as a box.
        resort = entry.name.replace(" ", "").lstrip(".").lower().startswith("lastresort")
        if not resort and needed <= _characters(Path(entry.fname)):
            return text, entry.name
    has = _characters(own)
    escaped = (c if ord(c) in has else _escape(c) for c in text)
    return "".join(escaped), default


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _plainness(entry: font_manager.FontEntry) -> tuple[bool, bool, str]:
    """Upright fonts of normal weight first."""
    upright, weight = entry.style == "normal", entry.weight in ("normal", "regular", "book", 400)
    return not upright, not weight, entry.name


@lru_cache(maxsize=512)
def _characters(path: Path) -> frozenset[int]:
    try:
        return frozenset(ft2font.FT2Font(str(path)).get_charmap())
    except (RuntimeError, OSError):  # a font that FreeType cannot read has no characters for us
        return frozenset()
