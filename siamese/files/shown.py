"""Names and contents of files, as a terminal or a table may show them."""

from __future__ import annotations

import unicodedata


def shown(text: str) -> str:
    r"""Text without what steers a terminal or turns a line around; letters of all scripts stay.

    Control characters, escape sequences, bidirectional overrides, invisible formatting and bytes
    that are no valid text are spelled out (``\x1b``, ``\u202e``, ``\udcff``).
    """
    return "".join(c if is_plain(c) else _spelled(c) for c in text)


def shown_lines(text: str) -> str:
    """The same for text of several lines: line ends and tabs stay."""
    return "".join(c if is_plain(c) or c in "\n\t" else _spelled(c) for c in text)


def is_plain(character: str) -> bool:
    """Whether a character is a letter, mark, sign or space of some script, and does nothing.

    The joiners that Persian and Indic names are written with count as letters. The isolates that a
    sentence puts around a name keep its direction to itself, and stay.
    """
    return (
        character.isprintable()
        or character in "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}\u2068\u2069"
        or unicodedata.category(character) == "Zs"
    )


def _spelled(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode()


def counted(number: int, noun: str) -> str:
    """``1 file``, ``2 files``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def table_cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula: a leading ``'`` where it would be one.

    OWASP, "CSV Injection": cells that begin with ``=``, ``+``, ``-``, ``@``, a tab or a carriage
    return are calculated by spreadsheets.
    """
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
