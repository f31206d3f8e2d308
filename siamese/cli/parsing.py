"""Command lines: dataclass settings, short names, one-line errors. Imports no torch."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from siamese import __version__
from siamese.cli.flags import use_flags
from siamese.config.reading import (
    Settings,
    SettingsParser,
    defaults_of,
    flat_settings,
    flatten,
    names_of,
    read_yaml,
)
from siamese.config.starting import starting_point
from siamese.errors import UserError

# No path of a system is longer, and no number of so many digits fits a float.
_LONGEST = 4096
_HUGE = re.compile(r"\s*[-+]?\d{300,}[\d.]*([eE].*)?\s*")


def parse_settings(
    settings: type[Settings],
    argv: Sequence[str],
    *,
    prog: str,
    description: str,
    short: Mapping[str, str],
    also: Mapping[str, str] | None = None,
    first: str = "",
    defaults: dict[str, Any] | None = None,
) -> Settings:
    """Parse a command line into a settings dataclass.

    ``--config FILE`` may be repeated, later files win; a setting on the command line wins over
    every file wherever it stands. ``defaults`` (nested) replace the dataclass's own. From here on
    messages name these settings as flags.

    Args:
        settings: the dataclass.
        argv: arguments without the program's name.
        prog: name of the command.
        description: first line of the help.
        short: short option -> dotted setting, e.g. ``{"--lr": "--optimizer.lr"}``.
        also: the same for spellings that the help does not name.
        first: what may stand first, for the help, e.g. ``[FOLDER]``.
        defaults: values to start from instead of the dataclass's defaults.

    Raises:
        UserError: an unknown setting, a value of the wrong type, an unreadable file.
    """
    also = also or {}
    parser = _parser(settings, prog, description, short, first)
    if defaults:
        try:
            parser.set_defaults(flatten(settings, defaults))
        except (AttributeError, KeyError, TypeError, ValueError):
            raise UserError(
                "the saved settings are those of another version of siamese; start a new run"
            ) from None
    files, arguments = _split_off_configs(_expand(argv, {**short, **also}))
    for path in files:
        source = f"--config {path}"
        # Unknown names, too: the library looks through all settings for each of them.
        flat_settings(settings, read_yaml(path, source), source)
    arguments = _switched_on(arguments, _switches(settings))
    try:
        parsed = parser.parse_args([*(f"--config={path}" for path in files), *arguments])
    finally:  # after --print_config, whose text is a file's
        use_flags(names_of(settings), {**{name: name for name in short}, **also})
    parsed.pop("config", None)
    return settings(**vars(parser.instantiate(parsed)))


def _parser(
    settings: type[Any],
    prog: str,
    description: str,
    short: Mapping[str, str],
    first: str,
) -> SettingsParser:
    names = "  ".join(f"{alias} = {name}" for alias, name in short.items())
    parser = SettingsParser(
        prog=prog,
        usage=" ".join(filter(None, ("%(prog)s", first, "[--SETTING VALUE ...]"))),
        description=f"{description} Short names: {names}." if names else description,
        allow_abbrev=False,
        version=__version__,
    )
    parser.add_argument(
        "--config",
        action="config",
        metavar="FILE",
        help="YAML file with settings, or the name of one that siamese brings, such as "
        "face/from_scratch; repeatable, later wins.",
    )
    parser.add_class_arguments(settings)
    return parser


def _expand(argv: Sequence[str], short: Mapping[str, str]) -> list[str]:
    """Short names written out; what cannot be a setting's value is refused."""
    expanded = []
    for argument in argv:
        if len(argument) > _LONGEST or _HUGE.fullmatch(argument.rpartition("=")[2]):
            raise UserError(
                f"{argument[:40]}...: is too long for a value ({len(argument)} characters)"
            )
        option, equals, value = argument.partition("=")
        if option.startswith("--"):  # --target-fmr is --target_fmr
            option = "--" + option[2:].replace("-", "_")
        expanded.append(short.get(option, option) + equals + value)
        text = value if equals else argument
        if text[:1] in ("#", "&"):  # the library would read it as null
            raise UserError(f"{text}: cannot start with {text[0]}; for a path write ./{text}")
    return expanded


def _switched_on(argv: Sequence[str], switches: set[str]) -> list[str]:
    """``--dry_run`` alone is ``--dry_run true``."""
    written = []
    for argument, following in zip(argv, [*argv[1:], "--"], strict=False):
        written.append(argument)
        if argument in switches and following.startswith("--"):
            written.append("true")
    return written


def _split_off_configs(argv: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The files of ``--config``, and all else: jsonargparse lets a later file beat a setting."""
    files, rest = [], []
    words = iter(argv)
    for word in words:
        option, equals, value = word.partition("=")
        given = value if equals else next(words, None) if option == "--config" else None
        if option == "--config" and given is not None:
            files.append(starting_point(given, "--config"))
        else:
            rest.append(word)
    return files, rest


def name_arguments(argv: Sequence[str], names: Sequence[str], *, data: bool = False) -> list[str]:
    """Name the values that stand first: ``compare A B`` is ``compare --a=A --b=B``.

    With ``data`` a folder among them is ``--data``.

    Raises:
        UserError: the same setting is given by its name, too, with another value.
    """
    given: dict[str, str] = {}
    left = list(names)
    rest = list(argv)
    while rest and not rest[0].startswith("-"):
        folder = data and "data" not in given and (os.path.isdir(rest[0]) or rest[0].endswith("/"))
        if not folder and not left:
            break
        given["data" if folder else left.pop(0)] = rest.pop(0)
    for name, value in given.items():
        option = f"--{name}"
        others = [value for word, value in pairwise(rest) if word == option]
        others += [word[len(option) + 1 :] for word in rest if word.startswith(f"{option}=")]
        for other in others:
            if os.path.abspath(other) != os.path.abspath(value):
                raise UserError(f"--{name} {other}: {value} stands first; give one of them")
    return [*(f"--{name}={value}" for name, value in given.items()), *rest]


def gather_words(argv: Sequence[str], settings: type[Any]) -> tuple[list[str], list[str]]:
    """The words that are neither options nor their values, and all else.

    ``--name Ann a.jpg`` has the word ``a.jpg``; what follows ``--`` is words.

    Args:
        argv: arguments without the command's name.
        settings: dataclass of the command's settings.
    """
    words: list[str] = []
    options: list[str] = []
    left = iter(argv)
    switches = _switches(settings)
    for word in left:
        if word == "--":
            words += left
        elif not word.startswith("-") or word == "-":
            words.append(word)
        else:
            options.append(word)
            if "=" not in word and word not in ("-h", "--help", "--version", *switches):
                options += [value for value in (next(left, None),) if value is not None]
    return words, options


def _switches(settings: type[Any]) -> set[str]:
    """Settings that are true or false, as options."""
    return {f"--{name}" for name, value in defaults_of(settings).items() if isinstance(value, bool)}


def require_places(settings: Any, reasons: Mapping[str, str]) -> None:
    """Notice what is missing before anything slow is loaded.

    ``reasons`` say, by the name of a setting that holds a path, what is wrong where nothing is
    there; settings that are lacking or null are passed over.

    Raises:
        UserError: the path of a setting does not exist.
    """
    for name, reason in reasons.items():
        value = getattr(settings, name, None)
        if value is not None and not os.path.exists(value):
            raise UserError(f"--{name} {value}: {reason}")
