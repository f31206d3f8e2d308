"""Command lines: dataclass settings, short names, one-line errors. Imports no torch."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

from siamese import __version__
from siamese.config.reading import (
    Settings,
    SettingsParser,
    defaults_of,
    flat_settings,
    flatten,
    read_yaml,
    setting_names,
)
from siamese.config.starting import starting_point
from siamese.errors import UserError, lack
from siamese.files.shown import shown
from siamese.files.terminal import plain_output
from siamese.libraries import without_collection

# No path of a system is longer, and no number of so many digits fits a float.
_LONGEST = 4096
_HUGE = re.compile(r"\s*[-+]?\d{300,}[\d.]*([eE].*)?\s*")


def parse_settings(
    settings: type[Settings],
    argv: Sequence[str],
    *,
    prog: str,
    description: str,
    short: dict[str, str],
    also: Mapping[str, str] | None = None,
    first: str = "",
    defaults: dict[str, Any] | None = None,
) -> Settings:
    """Parse a command line into a settings dataclass.

    ``--config FILE`` may be repeated, later files win; a setting on the command line wins over
    every file wherever it stands. ``defaults`` (nested) replace the dataclass's own.

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
    if defaults:
        try:
            parser.set_defaults(flatten(settings, defaults))
        except (AttributeError, KeyError, TypeError, ValueError):
            raise UserError(
                "the saved settings are those of another version of siamese; start a new run"
            ) from None
    flags = {
        f"--{name}" for name, value in defaults_of(settings).items() if isinstance(value, bool)
    }
    expanded = _expand(argv, {**short, **(also or {})})
    arguments = _with_configs(_config_first(_told(expanded, flags)))
    groups = {name.split(".")[0] for name in setting_names(parser) if "." in name}
    for path in _config_files(arguments):
        told = f"--config {path}"
        # Unknown names, too: the library looks through all settings for each of them.
        flat_settings(settings, read_yaml(path, told, groups), told)
    parsed = parser.parse_args(arguments)
    parsed.pop("config", None)
    return settings(**vars(parser.instantiate(parsed)))


def _expand(argv: Sequence[str], short: dict[str, str]) -> list[str]:
    expanded = []
    for argument in argv:
        if len(argument) > _LONGEST or _HUGE.fullmatch(argument.rpartition("=")[2]):
            told = f"{argument[:40]}..."
            raise UserError(f"{told}: is too long for a value ({len(argument)} characters)")
        option, equals, value = argument.partition("=")
        if option.startswith("--"):  # --target-fmr is --target_fmr
            option = "--" + option[2:].replace("-", "_")
        expanded.append(short.get(option, option) + equals + value)
        text = value if equals else argument
        if text[:1] in ("#", "&"):  # the library would read it as null
            raise UserError(f"{text}: cannot start with {text[0]}; for a path write ./{text}")
    return expanded


def _told(argv: Sequence[str], flags: set[str]) -> list[str]:
    """``--dry_run`` alone is ``--dry_run true``."""
    told = []
    for argument, following in zip(argv, [*argv[1:], "--"], strict=False):
        told.append(argument)
        if argument in flags and following.startswith("--"):
            told.append("true")
    return told


def _config_first(argv: Sequence[str]) -> list[str]:
    """Move ``--config`` to the front: jsonargparse lets a later file beat an earlier override."""
    configs: list[str] = []
    rest: list[str] = []
    position = 0
    while position < len(argv):
        taken = 2 if argv[position] == "--config" else 1
        is_config = taken == 2 or argv[position].startswith("--config=")
        (configs if is_config else rest).extend(argv[position : position + taken])
        position += taken
    return configs + rest


def _with_configs(argv: Sequence[str]) -> list[str]:
    """Each ``--config`` as the path of a file."""
    found = []
    for before, argument in zip(["", *argv], argv, strict=False):
        if before == "--config":
            argument = str(starting_point(argument, "--config"))
        elif argument.startswith("--config="):
            argument = f"--config={starting_point(argument.partition('=')[2], '--config')}"
        found.append(argument)
    return found


def _config_files(arguments: Sequence[str]) -> list[Path]:
    return [Path(file) for file in _values(arguments, "config")]


def name_arguments(argv: Sequence[str], names: Sequence[str], *, data: bool = False) -> list[str]:
    """Name the values that stand first: ``compare A B`` is ``compare --a=A --b=B``.

    Args:
        argv: arguments without the command's name.
        names: what the values are, in this order.
        data: a folder among them is ``--data``.

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
        for other in _values(rest, name):
            if os.path.abspath(other) != os.path.abspath(value):
                raise UserError(f"--{name} {other}: {value} stands first; give one of them")
    return [*(f"--{name}={value}" for name, value in given.items()), *rest]


def _values(argv: Sequence[str], name: str) -> list[str]:
    """What a setting is given on a command line."""
    option = f"--{name}"
    told = [word.removeprefix(f"{option}=") for word in argv if word.startswith(f"{option}=")]
    return told + [value for word, value in pairwise(argv) if word == option]


def preload(module: str) -> None:
    """Import what a command's work needs, and all that it imports."""
    with without_collection():
        import_module(module)


def usage(prog: str, commands: Mapping[str, str], *closing: str) -> str:
    """The help of a program with commands: each with its description, then some lines more."""
    width = 1 + max(map(len, commands))
    return "\n".join(
        [
            f"usage: {prog} COMMAND [settings]   ({prog} COMMAND --help lists them)",
            "",
            *(f"  {name:{width}} {description}" for name, description in commands.items()),
            "",
            *closing,
        ]
    )


def require_places(settings: Any, reasons: Mapping[str, str]) -> None:
    """Notice what is missing before anything slow is loaded.

    Args:
        settings: of a command; settings that it lacks or that are null are passed over.
        reasons: by the name of a setting that holds a path, what to say where nothing is there.

    Raises:
        UserError: the path of a setting does not exist.
    """
    for name, reason in reasons.items():
        value = getattr(settings, name, None)
        if value is not None and not os.path.exists(value):
            raise UserError(f"--{name} {value}: {reason}")


def choose_command(argv: Sequence[str], commands: Sequence[str], help_text: str) -> str | None:
    """The command that a line begins with; None when the usage was asked for, and printed.

    Raises:
        UserError: there is no such command; names the nearest.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(help_text)
        return None
    if argv[0] == "--version":
        print(f"{help_text.split()[1]} {__version__}")
        return None
    if argv[0] not in commands:
        near = difflib.get_close_matches(argv[0], commands, n=1)
        hint = f"did you mean {near[0]}?" if near else f"commands: {', '.join(commands)}"
        raise UserError(f"unknown command {argv[0]}; {hint}")
    return argv[0]


def _tell_of_fonts() -> None:
    """Say once which fonts the pictures of this command lacked, if it drew any."""
    text = sys.modules.get("siamese.drawing.text")
    if text is not None and (note := text.font_note()) is not None:
        print(f"note: {note}")


def run_command(command: Callable[[Sequence[str]], None], prog: str) -> NoReturn:
    """Run a command's body; the user's errors become one line and exit code 2."""
    # Before torch is imported: OpenMP threads that wait for each other spin only briefly. Where
    # loader processes share a CPU's cores, long spinning slows training down up to tenfold.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    threading.excepthook = _told_later
    with plain_output():
        _run(command, prog)
    sys.exit(0)


def _run(command: Callable[[Sequence[str]], None], prog: str) -> None:
    try:
        command(sys.argv[1:])
        _tell_of_fonts()
        if sys.stdout is not None:
            sys.stdout.flush()
    except UserError as error:
        _end(prog, " ".join(str(error).split()))
    except BrokenPipeError:  # `... | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:  # a full disk, a folder that may not be written, ...
        place = f"{shown(str(error.filename))}: " if error.filename is not None else ""
        _end(prog, f"{place}{error.strerror or error}")
    except (MemoryError, ImportError, RuntimeError) as error:
        if (told := lack(error)) is None:
            raise
        _end(prog, told)
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        sys.exit(130)


def _end(prog: str, told: str) -> NoReturn:
    """Tell one line and end with code 2, also where nobody can be told."""
    with contextlib.suppress(UserError, OSError):
        print(f"{prog}: error: {told}", file=sys.stderr)
    for number, stream in enumerate((sys.stdout, sys.stderr), 1):
        try:
            if stream is not None:
                stream.flush()
        except (UserError, OSError):  # at its end the interpreter would try again, and complain
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    sys.exit(2)


def _told_later(failed: threading.ExceptHookArgs) -> None:
    """No traceback of a thread whose failure to write is raised again where it is waited for."""
    if not issubclass(failed.exc_type, OSError):
        threading.__excepthook__(failed)
