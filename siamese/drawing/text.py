"""Names in any script, on pictures."""

from __future__ import annotations

import logging
import unicodedata
from functools import lru_cache

from matplotlib import font_manager, ft2font

from siamese.files.shown import is_plain

# Which of a family's weights is taken where it has no normal one is nobody's concern.
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)

# Debian's packages of fonts; other systems have them under similar names.
_CJK, _SYMBOLS, _OTHERS = "fonts-noto-cjk", "fonts-symbola", "fonts-noto-core"
_CJK_NAMES = (
    "CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC", "FULLWIDTH", "HALFWIDTH",
)  # fmt: skip
_lacking: dict[str, str] = {}  # package -> the first character that it was needed for


def drawable(text: str) -> tuple[str, list[str]]:
    """A text and the font families that can draw it, each character in the first that has it.

    matplotlib's own font lacks CJK and other scripts and would draw boxes. One system font that has
    all that is missing is taken, else as many as are needed. What no font has, and what steers a
    text instead of being drawn (control characters, overrides of its direction), is escaped;
    :func:`font_note` then says what to install.

    Returns:
        ``(text, families)``, ready for ``Axes.set_title(text, family=families)``.
    """
    default = font_manager.FontProperties().get_family()[0]
    wanted = {c for c in text if is_plain(c)}
    families, missing = [default], wanted - font_characters(default)
    if missing:
        others, missing = _covering(missing)
        families += others
    for character in sorted(missing):
        if (package := _package(character)) is not None:
            _lacking.setdefault(package, character)
    escaped = (c if c in wanted and c not in missing else _escape(c) for c in text)
    return "".join(escaped), families


def _covering(needed: set[str]) -> tuple[list[str], set[str]]:
    """Families for these characters, one where one has them all; and those that none has."""
    chosen: list[str] = []
    missing = needed
    for family in _families(needed):
        has = needed & font_characters(family)
        if has == needed:
            return [family], set()
        if has & missing:
            chosen.append(family)
            missing = missing - has
    return chosen, missing


def font_file(family: str) -> str:
    """The file that matplotlib draws a family with; where it has several faces, it tells which.

    Raises:
        ValueError: the family is not installed.
    """
    wanted = font_manager.FontProperties(family=[family])
    found: str = font_manager.fontManager.findfont(
        wanted, fallback_to_default=False, rebuild_if_missing=False
    )
    return found


def font_characters(family: str) -> frozenset[str]:
    """The characters that a family really draws; none where it is gone or cannot be read."""
    try:
        return _characters(str(font_file(family)))
    except ValueError:
        return frozenset()


def font_note() -> str | None:
    """One line that names the fonts to install for all that had to be escaped; told once.

    None where nothing was escaped for want of a font since the last call.
    """
    if not _lacking:
        return None
    packages, seen = " ".join(sorted(_lacking)), ", ".join(_lacking.values())
    _lacking.clear()
    return (
        f"no font here has {seen} and the like: pictures show codes in their place; install one "
        f"that has them (Debian, Ubuntu: apt install {packages})"
    )


def _package(character: str) -> str | None:
    """The package of fonts for a character; None where no font would help."""
    if not is_plain(character) or unicodedata.category(character) in ("Co", "Cn"):
        return None
    if unicodedata.name(character, "").startswith(_CJK_NAMES):
        return _CJK
    return _SYMBOLS if unicodedata.category(character).startswith("S") else _OTHERS


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode()


def _families(needed: set[str]) -> list[str]:
    """Families with any of these characters, those with an upright font of normal weight first."""
    names = (
        entry.name
        for entry in sorted(font_manager.fontManager.ttflist, key=_plainness)
        # matplotlib brings a "last resort" font along that has every character, as a box.
        if not entry.name.replace(" ", "").lstrip(".").lower().startswith("lastresort")
        and needed & _characters(str(entry.fname))
    )
    return list(dict.fromkeys(names))


def _plainness(entry: font_manager.FontEntry) -> tuple[bool, bool, str]:
    upright, weight = entry.style == "normal", entry.weight in ("normal", "regular", "book", 400)
    return not upright, not weight, entry.name


@lru_cache(maxsize=512)
def _characters(path: str) -> frozenset[str]:
    try:
        return frozenset(map(chr, ft2font.FT2Font(path).get_charmap()))
    except (RuntimeError, OSError):  # a font that FreeType cannot read has no characters for us
        return frozenset()
