"""What all programs share: a table of commands, and how one of them runs and ends."""

from __future__ import annotations

import contextlib
import difflib
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from types import ModuleType
from typing import Any, NoReturn

from siamese import __version__
from siamese.cli.flags import forget_flags, with_flags
from siamese.cli.parsing import gather_words, name_arguments, parse_settings
from siamese.errors import UserError, lack
from siamese.files.shown import shown
from siamese.files.terminal import plain_output
from siamese.libraries import without_collection

# What the usage line calls the values that may stand first.
_PLACEHOLDERS = {
    "data": "[FOLDER]",
    "manifest": "[MANIFEST]",
    "name": "[NAME]",
    "a": "A",
    "b": "B",
    "study": "STUDY",
}


@dataclass(frozen=True)
class Command:
    """One command of a program.

    Attributes:
        settings: dataclass of its settings.
        description: what it does, for the help.
        run: does it, and prints.
        first: settings whose values may stand first, without their names.
        folder: a folder among these is the setting ``data``, wherever it stands.
        words: the setting that takes every word that is no option, wherever it stands.
        usage: what the usage line says of the first values; empty: their names.
        needed: settings that it cannot do without, and what they are.
        short: short option -> setting, both with ``--``.
        also: the same for spellings that the help does not name.
    """

    settings: type[Any]
    description: str
    run: Callable[[Any], None]
    first: tuple[str, ...] = ()
    folder: bool = False
    words: str = ""
    usage: str = ""
    needed: Mapping[str, str] = field(default_factory=dict)
    short: Mapping[str, str] = field(default_factory=dict)
    also: Mapping[str, str] = field(default_factory=dict)

    def parse(self, prog: str, argv: Sequence[str], defaults: dict[str, Any] | None = None) -> Any:
        """Its settings from a command line; see :func:`siamese.cli.parsing.parse_settings`."""
        words: list[str] = []
        if self.words:
            words, argv = gather_words(argv, self.settings)
        settings = parse_settings(
            self.settings,
            name_arguments(argv, self.first, data=self.folder),
            prog=prog,
            description=f"{self.description}.",
            short=self.short,
            also=self.also,
            first=self.usage or " ".join(_PLACEHOLDERS[name] for name in self.first),
            defaults=defaults,
        )
        if words:
            settings = replace(settings, **{self.words: (*getattr(settings, self.words), *words)})
        for name, what in self.needed.items():
            if getattr(settings, name) is None:
                raise UserError(f"--{name} is missing: {what}")
        return settings

    def __call__(self, prog: str, argv: Sequence[str]) -> None:
        """Run it as it was typed."""
        self.run(self.parse(prog, argv))


def run_chosen(
    prog: str, commands: Mapping[str, Command], argv: Sequence[str], *closing: str
) -> None:
    """Run the command that a line begins with; print the usage, with ``closing``, where none is.

    Raises:
        UserError: there is no such command; names the nearest.
    """
    if not argv or argv[0] in ("-h", "--help"):
        width = 1 + max(map(len, commands))
        print(f"usage: {prog} COMMAND [settings]   ({prog} COMMAND --help lists them)\n")
        for name, command in commands.items():
            print(f"  {name:{width}} {command.description}")
        print("", *closing, sep="\n")
    elif argv[0] == "--version":
        print(f"{prog} {__version__}")
    elif argv[0] in commands:
        commands[argv[0]](f"{prog} {argv[0]}", argv[1:])
    else:
        near = difflib.get_close_matches(argv[0], commands, n=1)
        hint = f"did you mean {near[0]}?" if near else f"commands: {', '.join(commands)}"
        raise UserError(f"unknown command {argv[0]}; {hint}")


def preload(module: str) -> ModuleType:
    """Import the module of a command's work, and all that it imports."""
    with without_collection():
        return import_module(module)


def run_command(prog: str, command: Callable[[Sequence[str]], None]) -> NoReturn:
    """Run a command's body; the user's errors become one line and exit code 2."""
    # Before torch is imported: OpenMP threads that wait for each other spin only briefly. Where
    # loader processes share a CPU's cores, long spinning slows training down up to tenfold.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    threading.excepthook = _print_failure
    forget_flags()
    with plain_output(with_flags):
        _run(prog, command)
    sys.exit(0)


def _run(prog: str, command: Callable[[Sequence[str]], None]) -> None:
    try:
        command(sys.argv[1:])
        _print_font_note()
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
        if (reason := lack(error)) is None:
            raise
        _end(prog, reason)
    except KeyboardInterrupt as stop:  # may say what to do now
        print(f"{prog}: {'; '.join(('interrupted', *map(str, stop.args)))}", file=sys.stderr)
        sys.exit(130)


def _end(prog: str, message: str) -> NoReturn:
    """Print one line and end with code 2, also where nothing can be printed."""
    with contextlib.suppress(UserError, OSError):
        print(f"{prog}: error: {message}", file=sys.stderr)
    for number, stream in enumerate((sys.stdout, sys.stderr), 1):
        try:
            if stream is not None:
                stream.flush()
        except (UserError, OSError):  # at its end the interpreter would try again, and complain
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    sys.exit(2)


def _print_failure(failed: threading.ExceptHookArgs) -> None:
    """No traceback of a thread whose failure to write is raised again where it is waited for."""
    if not issubclass(failed.exc_type, OSError):
        threading.__excepthook__(failed)


def _print_font_note() -> None:
    """Say once which fonts the pictures of this command lacked, if it drew any."""
    text = sys.modules.get("siamese.drawing.text")
    if text is not None and (note := text.font_note()) is not None:
        print(f"note: {note}")
