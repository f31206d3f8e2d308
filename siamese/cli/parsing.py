"""Command lines: dataclass settings, short names, one-line errors. Imports no torch."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml
from jsonargparse import ArgumentParser, set_parsing_settings

from siamese.errors import UserError

Settings = TypeVar("Settings")

# The help lines are the docstrings below the dataclasses' attributes.
set_parsing_settings(docstring_parse_attribute_docstrings=True)


class _Parser(ArgumentParser):
    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise UserError(_one_line(message, _names(self)))


def _names(parser: ArgumentParser) -> list[str]:
    """Every setting's dotted name."""
    options = (option for action in parser._actions for option in action.option_strings)
    names = [option.removeprefix("--") for option in options if option.startswith("--")]
    groups = {name.split(".")[0] for name in names if "." in name}
    return [name for name in names if name not in groups | {"help", "print_config"}]


_UNKNOWN = (  # the library's ways of saying that a setting does not exist
    re.compile(r"unrecognized arguments?: --([^\s=]+)"),
    re.compile(r"Group '(?P<group>[\w.]+)' does not accept option '(?P<leaf>[\w.]+)'"),
    re.compile(r"Option '([\w.]+)' is not accepted"),
)


def _one_line(message: str, names: Sequence[str]) -> str:
    """The library's message of several lines as one, with the nearest name where one is unknown."""
    for pattern in _UNKNOWN:
        if found := pattern.search(message):
            given = ".".join(found.groups())
            return f"unknown setting {given}{_did_you_mean(given, names)}"
    if found := re.search(r"unrecognized arguments?: (\S+)", message):
        return f"unexpected argument {found.group(1)!r}: every setting starts with --"
    if found := re.search(r'Parser key "(\w+)":\s+Unable to load config', message):
        return f"--{found.group(1)} is a group of settings: set one of them (see --help)"
    if (key := re.search(r'Parser key "([\w.]+)"', message)) and (
        value := re.search(r"(?:Given|Got) value: (.*)", message)
    ):
        return f"--{key.group(1)} {value.group(1)}: must be {_expected(message, value.group(1))}"
    return " ".join(message.split())


def _expected(message: str, given: str) -> str:
    """What a refused value should have been, in words."""
    if choices := re.search(r"Literal\[(.*?)\]", message):
        names = re.findall(r"'(.*?)'", choices.group(1))
        near = difflib.get_close_matches(given, names, n=1)
        return f"one of {', '.join(names)}" + (f" (did you mean {near[0]}?)" if near else "")
    words = {"float": "a number", "int": "a whole number", "bool": "true or false"}
    words |= {"tuple": "a list such as [0.9, 0.999]", "NoneType": "null"}
    words |= {"str": "text, in quotes where it looks like something else"}
    kinds = dict.fromkeys(re.findall(r"Expected a (?:<class ')?(\w+)", message))
    known = [words[kind] for kind in kinds if kind in words]
    return " or ".join(known) or "something else (see --help)"


def _did_you_mean(given: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.6)
    if not near:  # `lr_decay` for `optimizer.lr_decay`: compare what stands behind the dot
        leaves = {name.split(".")[-1]: name for name in names}
        leaf = difflib.get_close_matches(given.split(".")[-1], leaves, n=1, cutoff=0.6)
        near = [leaves[leaf[0]]] if leaf else []
    return f"; did you mean {near[0]}?" if near else "; --help lists all of them"


def parse_settings(
    settings: type[Settings],
    argv: Sequence[str],
    *,
    prog: str,
    description: str,
    short: dict[str, str],
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
        defaults: values to start from instead of the dataclass's defaults.

    Raises:
        UserError: an unknown setting, a value of the wrong type, an unreadable file.
    """
    shown = "  ".join(f"{alias} = {name}" for alias, name in short.items())
    parser = _Parser(
        prog=prog,
        description=f"{description} Short names: {shown}." if shown else description,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", action="config", help="YAML file with settings; repeatable, later wins."
    )
    parser.add_class_arguments(settings)
    if defaults:
        try:
            parser.set_defaults(_flatten(defaults))
        except (KeyError, TypeError, ValueError):
            raise UserError(
                "the saved settings are those of another version of siamese; start a new run with "
                "--model.weights CHECKPOINT"
            ) from None
    arguments = _config_first(_expand(argv, short))
    groups = {name.split(".")[0] for name in _names(parser) if "." in name}
    for path in _config_files(arguments):
        _check_yaml(path, groups)
    parsed = parser.parse_args(arguments)
    parsed.pop("config", None)
    return settings(**vars(parser.instantiate(parsed)))


def _expand(argv: Sequence[str], short: dict[str, str]) -> list[str]:
    expanded = []
    for argument in argv:
        option, equals, value = argument.partition("=")
        if option.startswith("--"):  # --target-fmr is --target_fmr
            option = "--" + option[2:].replace("-", "_")
        expanded.append(short.get(option, option) + equals + value)
        text = value if equals else argument
        if text[:1] in ("#", "&"):  # the library would read it as null
            raise UserError(f"{text}: cannot start with {text[0]}; for a path write ./{text}")
    return expanded


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


def _config_files(arguments: Sequence[str]) -> list[Path]:
    files = [a.removeprefix("--config=") for a in arguments if a.startswith("--config=")]
    files += [value for option, value in pairwise(arguments) if option == "--config"]
    return [Path(file) for file in files]


def _check_yaml(path: Path, groups: set[str]) -> None:
    """Refuse what the readers let pass: a key given twice, a value where a group belongs."""
    try:
        text = path.read_text(encoding="utf-8")
        aliases = any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text))
        node = yaml.compose(text)
    except OSError as error:
        raise UserError(f"--config {path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UserError(f"--config {path}: is not a UTF-8 text file") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise UserError(f"--config {path}{where}: is not valid YAML") from None
    if aliases:  # one that holds itself would never end
        raise UserError(f"--config {path}: aliases (*name) are not read; write the values out")
    if node is None or node.tag == "tag:yaml.org,2002:null":
        raise UserError(f"--config {path}: holds no settings")
    if not isinstance(node, yaml.MappingNode):
        raise UserError(f"--config {path}: must hold settings as `name: value` lines")
    stack = [node]
    while stack:
        mapping = stack.pop()
        seen: set[str] = set()
        for key, value in mapping.value:
            where = f"--config {path} line {key.start_mark.line + 1}"
            if not isinstance(key, yaml.ScalarNode):
                raise UserError(f"{where}: a name is needed before the colon")
            is_group = isinstance(value, yaml.MappingNode)
            if mapping is node and key.value in groups and not is_group:
                raise UserError(f"{where}: {key.value} is a group of settings")
            if key.value in seen:
                raise UserError(f"{where}: {key.value} is given twice")
            seen.add(key.value)
            if is_group:
                stack.append(value)


def choose_command(argv: Sequence[str], commands: Sequence[str], usage: str) -> str | None:
    """The command that a line begins with; None when the usage was asked for, and printed.

    Raises:
        UserError: there is no such command; names the nearest.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(usage)
        return None
    if argv[0] not in commands:
        near = difflib.get_close_matches(argv[0], commands, n=1)
        hint = f"did you mean {near[0]}?" if near else f"commands: {', '.join(commands)}"
        raise UserError(f"unknown command {argv[0]}; {hint}")
    return argv[0]


def _flatten(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        name = f"{prefix}{key}"
        flat.update(_flatten(value, f"{name}.") if isinstance(value, dict) else {name: value})
    return flat


def run_command(command: Callable[[Sequence[str]], None], prog: str) -> NoReturn:
    """Run a command's body; the user's errors become one line and exit code 2."""
    # Before torch is imported: OpenMP threads that wait for each other spin only briefly. Where
    # loader processes share a CPU's cores, long spinning slows training down up to tenfold.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    for stream in (sys.stdout, sys.stderr):  # a name in any script never stops a print
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        command(sys.argv[1:])
    except UserError as error:
        print(f"{prog}: error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # `... | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:  # a full disk, a folder that may not be written, ...
        place = f"{error.filename}: " if error.filename is not None else ""
        print(f"{prog}: error: {place}{error.strerror or error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)
