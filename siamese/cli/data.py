"""``siamese-data``: folders of faces that one can trust."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from siamese.cli.parsing import (
    choose_command,
    name_arguments,
    parse_settings,
    require_places,
    run_command,
    usage,
)
from siamese.config import (
    AuditSettings,
    CheckSettings,
    ConvertSettings,
    DemoSettings,
    FetchSettings,
    MendSettings,
    RestoreSettings,
    SplitListSettings,
    check_curation,
    check_evaluation,
)
from siamese.errors import UserError


@dataclass(frozen=True)
class _Command:
    settings: type[Any]
    description: str
    run: Callable[[Any], str]
    first: str | None
    needed: tuple[str, ...]


# What a command needs is imported where its work begins: --help and a typo answer at once.


def _check(settings: CheckSettings) -> str:
    from siamese.curation.check import check_folder

    return check_folder(settings).text()


def _audit(settings: AuditSettings) -> str:
    from siamese.curation.audit import audit_folder

    return audit_folder(settings).text()


def _mend(settings: MendSettings) -> str:
    from siamese.curation.moves import mend_folder

    return mend_folder(settings).text()


def _restore(settings: RestoreSettings) -> str:
    from siamese.curation.moves import restore

    root, quarantine = (
        None if place is None else Path(place) for place in (settings.root, settings.quarantine)
    )
    return restore(Path(str(settings.manifest)), root, quarantine).text()


def _split(settings: SplitListSettings) -> str:
    from siamese.curation.identity_split import write_split

    return write_split(settings).text()


def _convert(settings: ConvertSettings) -> str:
    from siamese.curation.convert import convert_folder

    return convert_folder(settings).text()


def _fetch(settings: FetchSettings) -> str:
    from siamese.curation.fetch import fetch

    return fetch(settings).text()


def _demo(settings: DemoSettings) -> str:
    from siamese.demo.demo_faces import write_demo_faces

    folder = write_demo_faces(
        Path(str(settings.out)), settings.people, settings.images, settings.size, settings.seed
    )
    return f"{settings.people} people with {settings.images} pictures each in {folder}"


COMMANDS = {
    "check": _Command(
        CheckSettings, "what is wrong with a folder's files and names", _check, "data", ("data",)
    ),
    "audit": _Command(
        AuditSettings, "wrong pictures and one person under two names, by a model", _audit, "data",
        (),
    ),
    "mend": _Command(
        MendSettings, "carry out a plan of check or audit; moves, never deletes", _mend, "data",
        ("data", "plan"),
    ),
    "restore": _Command(
        RestoreSettings, "undo mend or audit --quarantine", _restore, "manifest", ("manifest",)
    ),
    "split": _Command(
        SplitListSettings, "train, validation and test lists that share no person", _split, "data",
        (),
    ),
    "convert": _Command(
        ConvertSettings, "any folder to RGB pictures of one size", _convert, "data",
        ("data", "out"),
    ),
    "fetch": _Command(
        FetchSettings, "LFW or Olivetti faces into one folder per person", _fetch, "name",
        ("name", "out"),
    ),
    "demo": _Command(
        DemoSettings, "draw demo faces into a folder with one folder per person", _demo, None,
        ("out",),
    ),
}  # fmt: skip
_PLACES = ("data", "checkpoint", "embeddings", "against", "plan", "manifest", "merge")
_FIRST = {"data": "[FOLDER]", "manifest": "[MANIFEST]", "name": "[NAME]"}
_MISSING = {
    "data": "the folder, with one folder per person",
    "out": "the folder to write",
    "plan": "a plan that siamese-data check or audit wrote",
    "manifest": "the manifest that siamese-data mend wrote",
    "name": "lfw or olivetti",
}
_HELP = usage(
    "siamese-data",
    {name: command.description for name, command in COMMANDS.items()},
    "A first look at any folder: siamese-data check faces/",
)


def _command(argv: Sequence[str]) -> None:
    name = choose_command(argv, list(COMMANDS), _HELP)
    if name is None:
        return
    command, arguments = COMMANDS[name], list(argv[1:])
    if command.first is not None:
        data = command.first == "data"
        arguments = name_arguments(arguments, [command.first], data=data)
    settings = parse_settings(
        command.settings,
        arguments,
        prog=f"siamese-data {name}",
        description=f"{command.description}.",
        short={},
        first="" if command.first is None else _FIRST[command.first],
    )
    for needed in command.needed:
        if getattr(settings, needed) is None:
            raise UserError(f"--{needed} is missing: {_MISSING[needed]}")
    if isinstance(settings, AuditSettings | SplitListSettings):
        # Beside --embeddings the folder says where their pictures are.
        check_evaluation(replace(settings, data=None) if settings.embeddings else settings)
        if settings.data is None and settings.embeddings is None:
            raise UserError(f"--data is missing: {_MISSING['data']} (or --embeddings FILE)")
    check_curation(settings)
    require_places(settings, dict.fromkeys(_PLACES, "no such file or folder"))
    print(command.run(settings))


def main() -> NoReturn:
    """Entry point of ``siamese-data``."""
    run_command(_command, "siamese-data")
