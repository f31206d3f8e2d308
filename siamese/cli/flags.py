"""The library names settings; a command's user reads them as flags: `images.size`, --images.size.

What a command prints goes through :func:`with_flags`, errors and notes alike.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_NAME = re.compile(r"`([A-Za-z_][\w.]*)`")

# Of the running command: what it calls each setting. A process runs one command.
_FLAGS: dict[str, str] = {}
_MAPPINGS: set[str] = set()


def forget_flags() -> None:
    """No command runs yet: names stay as the library writes them."""
    _FLAGS.clear()
    _MAPPINGS.clear()


def use_flags(settings: Mapping[str, bool], short: Mapping[str, str]) -> None:
    """From now on these names are printed as flags.

    ``settings`` say by dotted name whether it holds a mapping, so that names below it
    (``model.options.depth``) are flags, too; ``short`` are short names and their flags.
    """
    _FLAGS.update({name: f"--{name}" for name in settings})
    _FLAGS.update({name.removeprefix("--"): flag for name, flag in short.items()})
    _MAPPINGS.update(name for name, mapping in settings.items() if mapping)


def with_flags(text: str) -> str:
    """Text in which the names in backquotes that are the running command's options are flags."""
    return _NAME.sub(_flag, text)


def _flag(match: re.Match[str]) -> str:
    name = match.group(1)
    if any(name.startswith(f"{mapping}.") for mapping in _MAPPINGS):
        return f"--{name}"
    return _FLAGS.get(name, match.group(0))
