"""Commands to copy into a shell, for file names of any bytes."""

from __future__ import annotations

import os
import re
import shlex

_PLAIN_START = re.compile(r"[/.]|\w[^=]*/")  # neither an option nor a word such as null

_SAFE = re.compile(r"[\w@%+=:,./-]+")  # in any script; shlex quotes what is no ASCII


def command_line(*words: str | os.PathLike[str]) -> str:
    """A command whose words reach the program as they are.

    Words are quoted where a POSIX shell needs it; what cannot be typed or shown (control
    characters, bytes that are no UTF-8) is spelled out in bash's ``$'...'``.
    """
    return " ".join(_quoted(os.fspath(word)) for word in words)


def path_word(path: str | os.PathLike[str]) -> str:
    """A path that no command takes for an option or another value: ``./-x`` for ``-x``."""
    text = os.fspath(path)
    return text if _PLAIN_START.match(text) else f"./{text}"


def _quoted(word: str) -> str:
    if _SAFE.fullmatch(word):
        return word
    if word.isprintable() and "  " not in word:  # some places show two spaces as one
        return shlex.quote(word)
    return "$'" + "".join(map(_spelled, word)) + "'"


def _spelled(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    if character.isprintable() and character != " ":
        return character
    # Octal with its three digits: a hexadecimal escape would take in a digit that follows.
    return "".join(f"\\{byte:03o}" for byte in os.fsencode(character))
