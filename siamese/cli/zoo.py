"""``siamese-zoo``: classification networks, trained, tested and compared on small images."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from siamese.cli import printing
from siamese.cli.commands import Command, preload, run_chosen, run_command
from siamese.config import (
    ClassificationSettings,
    ClassifierEvalSettings,
    check_classification,
    check_classifier_evaluation,
)
from siamese.config.starting import starting_point
from siamese.config.studies import StudySettings, check_study
from siamese.errors import UserError

# torch and matplotlib are imported where the work begins: --help and a typo answer at once.

TRAIN_SHORT = {
    "--epochs": "--trainer.epochs",
    "--lr": "--optimizer.lr",
    "--optimizer": "--optimizer.name",
    "--model": "--model.name",
    "--precision": "--trainer.precision",
    "--root": "--data.root",
}
# The same folder is one setting of a group in training, and stands alone elsewhere.
_ROOT = {"--data.root": "--root"}


@dataclass
class ListSettings:
    """Settings of siamese-zoo list."""

    family: str | None = None
    """Show this family only."""
    macs: bool = True
    """Show parameters (10 classes) and multiply-accumulates (of one 32 px RGB image)."""
    json: bool = False
    """As JSON instead of a table."""


@dataclass
class GridSettings:
    """Settings of siamese-zoo augmentations."""

    out: str | None = None
    """The picture to write (.png)."""
    name: str = "cifar10"
    """The set the images come from: cifar10, cifar100, mnist, fashion_mnist, kmnist, folder."""
    root: str = "runs/data"
    """Where the set lies, or is downloaded to."""
    download: bool = True
    """Download the set where it is missing."""
    seed: int = 0
    """Seed of the draws."""


def parse_training(
    argv: Sequence[str], command: str = "train", defaults: dict[str, Any] | None = None
) -> ClassificationSettings:
    """Settings of ``train`` or ``resume`` from its command line, and from ``defaults`` (nested).

    Raises:
        UserError: see :func:`siamese.cli.parsing.parse_settings`; settings that cannot work.
    """
    parsed: ClassificationSettings = COMMANDS[command].parse(
        f"siamese-zoo {command}", argv, defaults
    )
    check_classification(parsed)
    return parsed


def _train(settings: ClassificationSettings) -> None:
    check_classification(settings)
    preload("siamese.tasks.classes.class_runs")
    from siamese.tasks.classes.class_runs import train_classifier

    train_classifier(settings)


class _Resume(Command):
    """``resume RUN``: what the checkpoint says stands below the command line."""

    def __call__(self, prog: str, argv: Sequence[str]) -> None:
        if not argv or argv[0].startswith("-"):
            if {"--help", "-h", "--version"} & set(argv):
                parse_training(argv, "resume")  # prints it
            raise UserError(f"{prog} RUN: give the run's name, or its checkpoint, first")
        target, rest = argv[0], argv[1:]
        given = parse_training(rest, "resume")
        preload("siamese.tasks.classes.class_runs")
        from siamese.tasks.classes.class_runs import resume_classifier

        resume_classifier(
            target,
            given.checkpoints,
            lambda saved: parse_training(rest, "resume", saved),
            given.limits,
        )


def _eval(settings: ClassifierEvalSettings) -> None:
    check_classifier_evaluation(settings)
    if not os.path.exists(settings.checkpoint or ""):
        raise UserError(f"--checkpoint {settings.checkpoint}: no such checkpoint")
    preload("siamese.tasks.classes.evaluate")
    from siamese.tasks.classes.evaluate import evaluate

    printing.classified(evaluate(settings))


def _list(settings: ListSettings) -> None:
    from siamese.zoo.named import PRESETS

    rows = []
    for preset in PRESETS:
        if settings.family not in (None, preset.family):
            continue
        row: dict[str, Any] = {"preset": preset.name, "family": preset.family}
        if settings.macs:
            row |= {"parameters": preset.parameters, "macs": preset.macs}
        row |= {"published_error": preset.published, "published_recipe": preset.recipe}
        rows.append(row | {"what": preset.description})
    if not rows:
        families = sorted({preset.family for preset in PRESETS})
        raise UserError(f"--family {settings.family}: the families are {', '.join(families)}")
    if settings.json:
        print(json.dumps(rows, indent=1))
        return
    header = {
        "macs": "MACs (32 px)",
        "published_error": "published %",
        "published_recipe": "trained with",
    }
    columns = [name for name in rows[0] if name != "what"]
    table = [[header.get(name, name) for name in columns]]
    table += [[_cell(row[name]) for name in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        cells = list(zip(line, widths, strict=True))
        left = [cell.ljust(width) for cell, width in cells[:2]]
        right = [cell.rjust(width) for cell, width in cells[2:-1]]
        print("  ".join([*left, *right, line[-1]]).rstrip())
    print("published: last-epoch test error on CIFAR-10, median (runs). Any timm model: timm/NAME")


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else str(value)


def _augmentations(settings: GridSettings) -> None:
    from siamese.tasks.classes.class_pictures import write_augmentations

    path = write_augmentations(
        Path(str(settings.out)), settings.name, settings.root, settings.download, settings.seed
    )
    print(f"every augmentation, a row each: {path}")


def _compare(settings: StudySettings) -> None:
    check_study(settings)
    settings.study = str(starting_point(str(settings.study), "STUDY", studies=True))
    preload("siamese.studies.compare")
    from siamese.studies.compare import compare

    compare(settings)


COMMANDS = {
    "list": Command(
        ListSettings, "the networks: parameters, multiply-accumulates, published error", _list
    ),
    "train": Command(ClassificationSettings, "train a classifier", _train, short=TRAIN_SHORT),
    "resume": _Resume(
        ClassificationSettings, "continue a run: resume RUN [settings]", _train,
        usage="RUN", short=TRAIN_SHORT,
    ),
    "eval": Command(
        ClassifierEvalSettings, "test a checkpoint: errors, calibration, classes, predictions",
        _eval, also=_ROOT,
    ),
    "augmentations": Command(
        GridSettings, "draw every augmentation into a picture", _augmentations, also=_ROOT,
        needed={"out": "the picture to write, e.g. --out grid.png"},
    ),
    "compare": Command(
        StudySettings, "run a study, or go on with it: compare STUDY.yaml", _compare,
        first=("study", "data"), folder=True, also=_ROOT,
        needed={"study": "the study file; give it first"},
    ),
}  # fmt: skip


def _command(argv: Sequence[str]) -> None:
    closing = "A first run: siamese-zoo train --config cifar/preact20"
    run_chosen("siamese-zoo", COMMANDS, argv, closing)


def main() -> NoReturn:
    """Entry point of ``siamese-zoo``."""
    run_command("siamese-zoo", _command)


if __name__ == "__main__":  # torchrun --nproc_per_node 4 -m siamese.cli.zoo train ...
    main()
