"""``siamese-data``: folders of faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from siamese.cli.parsing import choose_command, parse_settings, run_command
from siamese.errors import UserError

COMMANDS = {"demo": "draw demo faces into a folder with one folder per person"}
_HELP = "\n".join(
    [
        "usage: siamese-data COMMAND [settings]   (siamese-data COMMAND --help lists them)",
        "",
        *(f"  {name:6} {text}" for name, text in COMMANDS.items()),
    ]
)


@dataclass
class DemoSettings:
    """Settings of siamese-data demo."""

    out: str | None = None
    """The folder to write; it must be missing or empty."""
    people: int = 60
    """Number of people."""
    images: int = 20
    """Pictures of each."""
    size: int = 96
    """Side of a picture in pixels."""
    seed: int = 0
    """Seed; the same seed draws the same faces."""


def _command(argv: Sequence[str]) -> None:
    if choose_command(argv, list(COMMANDS), _HELP) is None:
        return
    settings = parse_settings(
        DemoSettings,
        argv[1:],
        prog="siamese-data demo",
        description=f"{COMMANDS['demo']}.",
        short={},
    )
    if settings.out is None:
        raise UserError("--out DIR is missing: the folder to draw the faces into")
    from siamese.data.demo import write_demo_faces

    folder = write_demo_faces(
        Path(settings.out), settings.people, settings.images, settings.size, settings.seed
    )
    print(f"{settings.people} people with {settings.images} pictures each in {folder}")


def main() -> NoReturn:
    """Entry point of ``siamese-data``."""
    run_command(_command, "siamese-data")
