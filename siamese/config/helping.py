"""Help as a user reads it: what a value is in words, each choice once, no types of Python."""

from __future__ import annotations

import json
import re
from argparse import SUPPRESS, Action
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from jsonargparse import DefaultHelpFormatter
from jsonargparse._actions import _ActionConfigLoad

_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    NoneType: "null",
    dict: "mapping",
}


class HelpFormatter(DefaultHelpFormatter):
    """The library's formatter with words for types and YAML for defaults."""

    def add_argument(self, action: Action) -> None:
        """Leave out groups: their settings are given one by one."""
        if not isinstance(action, _ActionConfigLoad):
            super().add_argument(action)

    def _get_help_string(self, action: Action) -> str:
        text = action.help or ""
        kind = getattr(action, "_typehint", None)
        if kind is None:
            if action.dest == "print_config":
                return "Print all settings as YAML, usable with --config, and exit."
            return text[:1].upper() + text[1:].removesuffix(".") + "."
        choices = choices_of(kind)
        if choices and not all(re.search(rf"\b{re.escape(one)}\b", text) for one in choices):
            what = "one of " + ", ".join(choices)
        else:
            what = "" if choices else in_words(kind)
        default = "null" if action.default is None else in_yaml(action.default)
        shown = f"default: {default}" if action.default != SUPPRESS else ""
        # %: the library puts its own words for %(name)s.
        return f"{text} ({'; '.join(filter(None, (what, shown)))})"

    def _format_args(self, action: Action, default_metavar: str) -> str:
        if action.dest == "print_config":
            return ""
        if getattr(action, "_typehint", None) is None:
            return super()._format_args(action, default_metavar)
        return action.dest.rpartition(".")[2].upper()


def choices_of(kind: Any) -> list[str]:
    """The names that a setting takes; none where it takes others."""
    if get_origin(kind) is Literal:
        return [str(one) for one in get_args(kind)]
    if get_origin(kind) in (Union, UnionType):
        parts = [part for part in get_args(kind) if part is not NoneType]
        named = [choices_of(part) for part in parts]
        if all(named):
            null = ["null"] if NoneType in get_args(kind) else []
            return [*(one for names in named for one in names), *null]
    return []


def in_words(kind: Any) -> str:
    """What a value of a type is called."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return " or ".join(in_words(part) for part in parts)
    if origin is Literal:
        return ", ".join(str(part) for part in parts)
    if origin in (tuple, list):
        items = [part for part in parts if part is not Ellipsis]
        number = f"{len(items)} " if origin is tuple and Ellipsis not in parts else ""
        return f"list of {number}{in_words(items[0])}s"
    return _WORDS.get(origin or kind, "value")


def in_yaml(value: Any) -> str:
    """A default as one would write it."""
    if isinstance(value, str):
        return value
    return json.dumps(list(value) if isinstance(value, tuple) else value, default=str)
