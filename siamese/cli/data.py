"""``siamese-data``: folders of faces that one can trust."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from siamese.cli.commands import Command, run_chosen, run_command
from siamese.cli.parsing import require_places
from siamese.config import (
    AuditSettings,
    CheckSettings,
    ConvertSettings,
    CropSettings,
    DemoSettings,
    FetchSettings,
    MendSettings,
    RestoreSettings,
    SplitListSettings,
    check_curation,
    check_evaluation,
)
from siamese.errors import UserError

_FOLDER = "the folder, with one folder per person"
_DETECTOR = "YuNet's ONNX file (siamese-data fetch yunet --out yunet.onnx downloads it)"
_PLACES = ("data", "checkpoint", "embeddings", "against", "plan", "manifest", "merge", "detector")

# What a command needs is imported where its work begins: --help and a typo answer at once.


def _require_usable(settings: Any) -> None:
    check_curation(settings)
    require_places(settings, dict.fromkeys(_PLACES, "no such file or folder"))


def _require_judged(settings: AuditSettings | SplitListSettings) -> None:
    # Beside --embeddings the folder says where their pictures are.
    check_evaluation(replace(settings, data=None) if settings.embeddings else settings)
    if settings.data is None and settings.embeddings is None:
        raise UserError(f"--data is missing: {_FOLDER} (or --embeddings FILE)")
    _require_usable(settings)


def _work(
    module: str, function: str, require: Callable[[Any], None] = _require_usable
) -> Callable[[Any], None]:
    """A command whose work is one function of the package, whose text is printed."""

    def run(settings: Any) -> None:
        require(settings)
        work = getattr(import_module(f"siamese.{module}"), function)
        print(work(settings).text())

    return run


def _restore(settings: RestoreSettings) -> None:
    _require_usable(settings)
    from siamese.curation.moves import restore

    root, quarantine = (
        None if place is None else Path(place) for place in (settings.root, settings.quarantine)
    )
    print(restore(Path(str(settings.manifest)), root, quarantine).text())


def _demo(settings: DemoSettings) -> None:
    _require_usable(settings)
    from siamese.demo.demo_faces import write_demo_faces

    folder = write_demo_faces(
        Path(str(settings.out)), settings.people, settings.images, settings.size, settings.seed
    )
    print(f"{settings.people} people with {settings.images} pictures each in {folder}")


def _fetch(settings: FetchSettings) -> None:
    _require_usable(settings)
    if settings.name == "yunet":
        from siamese.cropping.detector_file import fetch_detector

        print(fetch_detector(Path(str(settings.out))).text())
        return
    from siamese.curation.fetch import fetch

    print(fetch(settings).text())


_OUT = {"out": "the folder to write"}
COMMANDS = {
    "check": Command(
        CheckSettings, "what is wrong with a folder's files and names",
        _work("curation.check", "check_folder"),
        first=("data",), folder=True, needed={"data": _FOLDER},
    ),
    "audit": Command(
        AuditSettings, "wrong pictures and one person under two names, by a model",
        _work("curation.audit", "audit_folder", _require_judged),
        first=("data",), folder=True,
    ),
    "mend": Command(
        MendSettings, "carry out a plan of check or audit; moves, never deletes",
        _work("curation.moves", "mend_folder"),
        first=("data",), folder=True,
        needed={"data": _FOLDER, "plan": "a plan that siamese-data check or audit wrote"},
    ),
    "restore": Command(
        RestoreSettings, "undo mend or audit --quarantine", _restore,
        first=("manifest",), needed={"manifest": "the manifest that siamese-data mend wrote"},
    ),
    "split": Command(
        SplitListSettings, "train, validation and test lists that share no person",
        _work("curation.identity_split", "write_split", _require_judged),
        first=("data",), folder=True,
    ),
    "convert": Command(
        ConvertSettings, "any folder to RGB pictures of one size",
        _work("curation.convert", "convert_folder"),
        first=("data",), folder=True, needed={"data": _FOLDER, **_OUT},
    ),
    "crop": Command(
        CropSettings, "faces out of photographs: found, aligned by five landmarks",
        _work("cropping.crop_run", "crop_folder"),
        first=("data",), folder=True,
        needed={"data": "the photographs", **_OUT, "detector": _DETECTOR},
    ),
    "fetch": Command(
        FetchSettings, "LFW or Olivetti faces into one folder per person; a face detector", _fetch,
        first=("name",), needed={"name": "lfw, olivetti or yunet", **_OUT},
    ),
    "demo": Command(
        DemoSettings, "draw demo faces into a folder with one folder per person", _demo,
        needed=_OUT,
    ),
}  # fmt: skip


def _command(argv: Sequence[str]) -> None:
    closing = "A first look at any folder: siamese-data check faces/"
    run_chosen("siamese-data", COMMANDS, argv, closing)


def main() -> NoReturn:
    """Entry point of ``siamese-data``."""
    run_command("siamese-data", _command)
