"""Folders that one name was written for in several ways."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

_Form = Literal["NFD", "NFKD"]


@dataclass(frozen=True)
class Twins:
    """Folders that one name was written for.

    Attributes:
        names: two or more, in code-point order.
        differences: in what they differ, such as ``Unicode form``.
        sure: False where only look-alike characters make them equal, such as full-width letters.
    """

    names: tuple[str, ...]
    differences: tuple[str, ...]
    sure: bool


def find_twins(names: Sequence[str]) -> list[Twins]:
    """Names that are equal but for Unicode form, letter case, spaces or width of letters."""
    groups: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        groups.setdefault(_loose_key(name), []).append(name)
    found = []
    for alike in groups.values():
        exact: dict[str, list[str]] = {}
        for name in alike:
            exact.setdefault(name_key(name), []).append(name)
        found += [_twins(group, sure=True) for group in exact.values() if len(group) > 1]
        if len(exact) > 1:
            found.append(_twins(alike, sure=False))
    return sorted(found, key=lambda twins: (not twins.sure, twins.names))


def name_key(name: str) -> str:
    """Equal for names that differ in Unicode form, letter case or spaces only.

    Canonical caseless matching of the Unicode standard (section 3.13), after every space and
    every invisible formatting character is taken out.
    """
    return _key(name)


def spelled(name: str) -> str:
    """A name in which spaces, marks of their own and invisible characters can be seen."""
    return "".join(_seen(character) for character in name)


def _seen(character: str) -> str:
    if character == " ":
        return "\N{OPEN BOX}"
    hidden = character.isspace() or unicodedata.category(character) in ("Cf", "Mn", "Mc", "Me")
    return f"<U+{ord(character):04X}>" if hidden else character


def _loose_key(name: str) -> str:
    return _key(_key(name), form="NFKD")


def _key(name: str, *, form: _Form | None = "NFD", spaces: bool = False, case: bool = False) -> str:
    """A name with some of its properties taken away, until nothing changes any more.

    Args:
        name: of a folder.
        form: Unicode form that it is brought into; None: it stays as it is written.
        spaces: whether spaces stay.
        case: whether the letter case stays.
    """
    while True:
        key = name
        if not spaces:
            key = "".join(c for c in key if not c.isspace() and unicodedata.category(c) != "Cf")
        if form is not None:
            key = unicodedata.normalize("NFD", key)
        if not case:
            key = key.casefold()
        if form is not None:
            key = unicodedata.normalize(form, key)
        if key == name:
            return key
        name = key


def _twins(names: Sequence[str], *, sure: bool) -> Twins:
    """Told in what they differ: the properties without which they would be equal."""
    keys: dict[str, Callable[[str], str]] = {
        "spacing": lambda name: _key(name, spaces=True),
        "Unicode form": lambda name: _key(name, form=None),
        "letter case": lambda name: _key(name, case=True),
    }
    if not sure:
        keys = {"full-width letters or other look-alikes": _key}
    told = [words for words, key in keys.items() if len({key(name) for name in names}) > 1]
    return Twins(tuple(sorted(names)), tuple(told), sure)
