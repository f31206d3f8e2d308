"""From text to settings: YAML files and nested values become checked dataclasses, or one line.

Imports no torch. The command lines and the study files read through it, so that a mistyped setting
is refused in the same words wherever it stands.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml
from jsonargparse import ArgumentParser, _loaders_dumpers, set_loader, set_parsing_settings

from siamese.config.helping import HelpFormatter
from siamese.errors import UserError
from siamese.files.places import read_bytes

Settings = TypeVar("Settings")

LARGEST = 2**20  # bytes of a file; the largest that siamese brings has 12,000
_MOST = 20_000  # names, values and brackets of a file; the most that siamese brings are 1,500
_DEEPEST = 20
_BRIEF = 100  # characters of a value in a message
_DIGITS = 300  # a float holds 308
_TEXT = "tag:yaml.org,2002:str"

# The help lines are the docstrings below the dataclasses' attributes.
set_parsing_settings(docstring_parse_attribute_docstrings=True)


class SettingsParser(ArgumentParser):
    """jsonargparse's parser, whose refusals are one line that names the nearest setting."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, formatter_class=HelpFormatter, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Refuse what was given.

        Raises:
            UserError: always.
        """
        raise UserError(_one_line(message, setting_names(self)))


def setting_names(parser: ArgumentParser) -> list[str]:
    """Every setting's dotted name."""
    options = (option for action in parser._actions for option in action.option_strings)
    names = [option.removeprefix("--") for option in options if option.startswith("--")]
    groups = {name.split(".")[0] for name in names if "." in name}
    return [name for name in names if name not in groups | {"help", "print_config", "version"}]


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
            return f"unknown setting {brief(given)}{did_you_mean(given, names)}"
    if found := re.search(r"unrecognized arguments?: (\S+)", message):
        return f"unexpected argument {found.group(1)!r}: every setting starts with --"
    if found := re.search(r'Parser key "(\w+)":\s+Unable to load config', message):
        return f"{found.group(1)} is a group of settings: set one of them"
    if (key := re.search(r'Parser key "([\w.]+)"', message)) and (
        value := re.search(r"(?:Given|Got) value: (.*)", message)
    ):
        given = brief(value.group(1))
        return f"`{key.group(1)}` {given}: must be {_expected(message, given)}"
    return brief(" ".join(message.split()), 300)


def brief(text: str, most: int = _BRIEF) -> str:
    """The beginning of a text that is too long for a message."""
    return text if len(text) <= most else f"{text[:most]}..."


def _expected(message: str, given: str) -> str:
    """What a refused value should have been, in words."""
    words = {"float": "a number", "int": "a whole number", "bool": "true or false"}
    words |= {"dict": "a mapping such as {dropout: 0.3}"}
    words |= {"tuple": "a list such as [0.9, 0.999]", "NoneType": "null"}
    words |= {"str": "text, in quotes where it looks like something else"}
    kinds = dict.fromkeys(re.findall(r"Expected a (?:<class ')?(\w+)", message))
    if choices := re.search(r"Literal\[(.*?)\]", message):
        names = re.findall(r"'(.*?)'", choices.group(1))
        if "int" in kinds:
            return " or ".join([words["int"], *names])
        if "bool" in kinds:
            names = ["true", "false", *names]
        near = difflib.get_close_matches(given, names, n=1)
        return f"one of {', '.join(names)}" + (f" (did you mean {near[0]}?)" if near else "")
    known = [words[kind] for kind in kinds if kind in words]
    return " or ".join(known) or "something else"


def did_you_mean(
    given: str, names: Sequence[str], otherwise: str = "; --help lists all of them"
) -> str:
    """The end of a refusal: the nearest name, or ``otherwise`` where none is near."""
    if len(given) > _BRIEF:  # the comparison takes the product of the lengths
        return otherwise
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.6)
    if not near:  # `lr_decay` for `optimizer.lr_decay`: compare the last parts of the names
        leaves = {name.split(".")[-1]: name for name in names}
        leaf = difflib.get_close_matches(given.split(".")[-1], leaves, n=1, cutoff=0.6)
        near = [leaves[leaf[0]]] if leaf else []
    return f"; did you mean {near[0]}?" if near else otherwise


class _Refused(yaml.YAMLError):
    """YAML that is valid but not read here; the message goes on behind the file's name."""


def _check_shape(text: str) -> None:
    """Refuse what would take long, run deep or build other things than plain values."""
    depth = 0
    events: Iterator[Any] = yaml.parse(text, _Parser)
    for number, event in enumerate(events):
        where = f" line {event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent):  # one that holds itself would never end
            raise _Refused(f"{where}: aliases (*name) are not read; write the values out")
        if getattr(event, "tag", None) is not None:
            raise _Refused(f"{where}: tags ({event.tag}) are not read; write the value plainly")
        plain = isinstance(event, yaml.ScalarEvent) and not event.style
        if plain and len(event.value) > _DIGITS and re.fullmatch(r"[-+]?[\d_.]+", event.value):
            raise _Refused(f"{where}: a number of {len(event.value)} digits is none of a setting")
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            depth += 1
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            depth -= 1
        if depth > _DEEPEST:
            raise _Refused(f"{where}: is nested more than {_DEEPEST} deep; is it the right file?")
        if number > _MOST:
            raise _Refused(f": holds more than {_MOST} values; is it the right file?")


# libyaml's parser, a hundred times faster, where it was built in.
_Parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Parser):  # type: ignore[misc]
    """YAML 1.2's plain values: 1e-3 is a number; `no`, 1:20, 017 and 2020-01-01 are text."""

    def __init__(self, text: str):
        _check_shape(text)
        super().__init__(text)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping whose keys are names, each given once; YAML readers let others pass."""
        seen: set[str] = set()
        for key, _ in node.value:
            where = f" line {key.start_mark.line + 1}"
            if not isinstance(key, yaml.ScalarNode) or key.tag != _TEXT:
                raise _Refused(f"{where}: a name is needed before the colon")
            if key.value in seen:
                raise _Refused(f"{where}: {brief(key.value)} is given twice")
            seen.add(key.value)
        content: dict[Any, Any] = super().construct_mapping(node, deep)
        return content


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] == "null"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first)
    )


def _load_value(text: str) -> Any:
    """What the library reads values and files with: the same rules for all of them."""
    try:
        value = yaml.load(text, _Loader)
    except ValueError as error:  # bytes of a name that are no text
        raise yaml.YAMLError(str(error)) from None
    # `faces: ` and `{a, b}` on a command line are text, not mappings to null.
    is_text = isinstance(value, dict) and "\n" not in text.strip()
    return text if is_text and all(item is None for item in value.values()) and value else value


set_loader("yaml", _load_value, (yaml.YAMLError,))
# Where a text may be a number, the library asks its own loader once more.
_loaders_dumpers.yaml_default_loader = _Loader  # type: ignore[assignment]
# Before its loader it would take a number by rules of its own, by which 017 is 17.
_loaders_dumpers.load_basic = lambda value: _loaders_dumpers.not_loaded


def read_yaml(path: Path, source: str | None = None) -> dict[str, Any]:
    """A YAML file's names and values, as plain Python ones.

    Raises:
        UserError: the file cannot be read, is larger than ``LARGEST``, is no mapping of names, is
            nested too deep, holds too many values, a name twice, aliases, tags or a number that is
            none of a setting.
    """
    source = source or str(path)
    written = read_bytes(path, source, LARGEST)
    try:
        content = yaml.load(written.decode("utf-8"), _Loader)
    except UnicodeDecodeError:
        raise UserError(f"{source}: is not a UTF-8 text file") from None
    except _Refused as error:
        raise UserError(f"{source}{error}") from None
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise UserError(f"{source}{where}: is not valid YAML") from None
    if content is None:
        raise UserError(f"{source}: holds no settings")
    if not isinstance(content, dict):
        raise UserError(f"{source}: must hold settings as `name: value` lines")
    return content


def flatten(settings: type[Any], nested: Mapping[str, Any]) -> dict[str, Any]:
    """A settings dataclass's nested values by their dotted names.

    Unlike :func:`flat_settings` it judges nothing; a setting that holds a mapping stays whole.
    """
    mappings = {name for name, mapping in names_of(settings).items() if mapping}

    def flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for key, value in values.items():
            name = f"{prefix}{key}"
            if isinstance(value, dict) and name not in mappings:
                yield from flat(value, f"{name}.")
            else:
                yield name, value

    return dict(flat(nested, ""))


def names_of(settings: type[Any]) -> dict[str, bool]:
    """Every setting of a settings dataclass by its dotted name, and whether it holds a mapping."""
    return {name: isinstance(value, dict) for name, value in defaults_of(settings).items()}


def defaults_of(settings: type[Any]) -> Mapping[str, Any]:
    """The defaults of a settings dataclass by dotted name."""
    if settings not in _DEFAULTS:
        _DEFAULTS[settings] = dict(_defaults_of(settings()))
    return _DEFAULTS[settings]


_DEFAULTS: dict[type[Any], dict[str, Any]] = {}
_PARSERS: dict[type[Any], SettingsParser] = {}


def _defaults_of(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for field in fields(settings):
        value = getattr(settings, field.name)
        if is_dataclass(value):
            yield from _defaults_of(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", value


def flat_settings(settings: type[Any], values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Values by dotted name, from nested groups, dotted names, or both.

    A setting that holds a mapping (``model.options``) is one value; ``model.options.dropout``
    names one entry of it.

    Raises:
        UserError: an unknown setting, one given twice, a value for a whole group.
    """
    names = names_of(settings)
    groups = {name.rpartition(".")[0] for name in names if "." in name}
    flat: dict[str, Any] = {}

    def take(key: str, value: Any) -> None:
        if key in groups:
            if not isinstance(value, dict):
                raise UserError(f"{source}: {key} is a group of settings")
            for name, item in value.items():
                take(f"{key}.{name}", item)
            return
        if key not in names and not any(
            mapping and key.startswith(f"{name}.") for name, mapping in names.items()
        ):
            near = did_you_mean(key, list(names), "")
            raise UserError(f"{source}: unknown setting {brief(key)}{near}")
        if key in flat:
            raise UserError(f"{source}: {key} is given twice")
        flat[key] = value

    for key, value in values.items():
        take(str(key), value)
    return flat


def build_settings(settings: type[Settings], flat: Mapping[str, Any], source: str) -> Settings:
    """A settings dataclass from values by dotted name, each checked for its type.

    Raises:
        UserError: a value of the wrong type.
    """
    mappings = [name for name, mapping in names_of(settings).items() if mapping]
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        holder = next((name for name in mappings if key.startswith(f"{name}.")), None)
        path = key.split(".") if holder is None else [*holder.split("."), key[len(holder) + 1 :]]
        group = nested
        for part in path[:-1]:
            group = group.setdefault(part, {})
        group[path[-1]] = dict(value) if isinstance(value, dict) else value
    parser = _parser(settings)
    try:
        parsed = parser.parse_object(nested)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    return settings(**vars(parser.instantiate(parsed)))


def _parser(settings: type[Any]) -> SettingsParser:
    if settings not in _PARSERS:
        _PARSERS[settings] = SettingsParser(allow_abbrev=False)
        _PARSERS[settings].add_class_arguments(settings)
    return _PARSERS[settings]
