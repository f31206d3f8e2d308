"""``siamese-train``: a folder of faces becomes a trained embedder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from siamese.cli.commands import Command, preload, run_command
from siamese.config import TrainSettings, check_settings, demo_settings

SHORT = {
    "--epochs": "--trainer.epochs",
    "--lr": "--optimizer.lr",
    "--optimizer": "--optimizer.name",
    "--loss": "--loss.name",
    "--backbone": "--model.backbone",
    "--size": "--images.size",
    "--workers": "--batches.workers",
    "--precision": "--trainer.precision",
}


def parse(argv: Sequence[str], defaults: dict[str, Any] | None = None) -> TrainSettings:
    """Settings of a training run from its command line, and from ``defaults`` (nested).

    Raises:
        UserError: see :func:`siamese.cli.parsing.parse_settings`; settings that cannot work.
    """
    settings: TrainSettings = COMMAND.parse("siamese-train", argv, defaults)
    if settings.resume is None:  # else they are laid over the saved ones first
        check_settings(settings)
    return settings


def _command(argv: Sequence[str]) -> None:
    settings = parse(argv)
    if settings.resume is not None:
        preload("siamese.tasks.faces.face_runs")
        from siamese.tasks.faces.face_runs import resume_training

        resume_training(
            settings.resume,
            settings.checkpoints,
            lambda saved: parse(argv, saved),
            settings.limits,
        )
        return
    if settings.data is None:
        settings = parse(argv, demo_settings())
    _train(settings)


def _train(settings: TrainSettings) -> None:
    from siamese.data.folder import require_folder

    for folder in (settings.data, settings.split.validation_data, settings.split.test_data):
        if folder is not None:  # before torch is loaded: a mistyped folder is refused at once
            require_folder(Path(folder))
    if settings.split.lists is not None:
        from siamese.data.split_lists import require_lists

        require_lists(Path(settings.split.lists))
    if settings.clean is not None:
        from siamese.data.cleaning import read_suspects

        read_suspects(Path(settings.clean))
    preload("siamese.tasks.faces.face_runs")
    from siamese.tasks.faces.face_runs import train_faces

    train_faces(settings)


COMMAND = Command(
    TrainSettings,
    "Train a face embedder on a folder with one folder per person. "
    "Without --data it trains on the demo faces",
    _train,
    first=("data",),
    folder=True,
    short=SHORT,
)


def main() -> NoReturn:
    """Entry point of ``siamese-train``."""
    run_command("siamese-train", _command)


if __name__ == "__main__":  # torchrun --nproc_per_node 4 -m siamese.cli.train ...
    main()
