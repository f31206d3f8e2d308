"""``siamese-zoo``: classification networks, trained, tested and compared on small images."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from siamese.cli import telling
from siamese.cli.parsing import (
    choose_command,
    name_arguments,
    parse_settings,
    preload,
    run_command,
    usage,
)
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
    """Settings of a classification run from its command line; see :func:`parse_settings`."""
    settings = parse_settings(
        ClassificationSettings,
        argv,
        prog=f"siamese-zoo {command}",
        description=f"{COMMANDS[command].description}.",
        short=TRAIN_SHORT,
        first="RUN" if command == "resume" else "",
        defaults=defaults,
    )
    check_classification(settings)
    return settings


def _train(argv: Sequence[str]) -> None:
    settings = parse_training(argv)
    preload("siamese.tasks.classes.class_runs")
    from siamese.tasks.classes.class_runs import train_classifier

    train_classifier(settings)


def _resume(argv: Sequence[str]) -> None:
    if not argv or argv[0].startswith("-"):
        if {"--help", "-h", "--version"} & set(argv):
            parse_training(argv, "resume")  # prints it
        raise UserError("siamese-zoo resume RUN: give the run's name, or its checkpoint, first")
    target, rest = argv[0], argv[1:]
    # What the checkpoint says stands below the command line, so that comes first to be read.
    given = parse_training(rest, "resume")
    preload("siamese.tasks.classes.class_runs")
    from siamese.tasks.classes.class_runs import resume_classifier

    resume_classifier(
        target,
        given.checkpoints,
        lambda saved: parse_training(rest, "resume", saved),
        given.limits,
    )


def _eval(argv: Sequence[str]) -> None:
    settings = _parsed(ClassifierEvalSettings, "eval", argv)
    check_classifier_evaluation(settings)
    if not os.path.exists(settings.checkpoint):
        raise UserError(f"--checkpoint {settings.checkpoint}: no such checkpoint")
    preload("siamese.tasks.classes.evaluate")
    from siamese.tasks.classes.evaluate import evaluate

    telling.classified(evaluate(settings))


def _list(argv: Sequence[str]) -> None:
    settings = _parsed(ListSettings, "list", argv)
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
    widths = [max(len(line[at]) for line in table) for at in range(len(columns))]
    for line in table:
        left = [line[at].ljust(widths[at]) for at in range(2)]
        right = [line[at].rjust(widths[at]) for at in range(2, len(columns) - 1)]
        print("  ".join([*left, *right, line[-1]]).rstrip())
    print("published: last-epoch test error on CIFAR-10, median (runs). Any timm model: timm/NAME")


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else str(value)


def _augmentations(argv: Sequence[str]) -> None:
    settings = _parsed(GridSettings, "augmentations", argv)
    if settings.out is None:
        raise UserError("--out FILE is missing: the picture to write, e.g. --out grid.png")
    from siamese.tasks.classes.class_pictures import write_augmentations

    path = write_augmentations(
        Path(settings.out), settings.name, settings.root, settings.download, settings.seed
    )
    print(f"every augmentation, a row each: {path}")


def _compare(argv: Sequence[str]) -> None:
    arguments = name_arguments(argv, ["study"], data=True)
    settings = _parsed(StudySettings, "compare", arguments, "STUDY [FOLDER]")
    check_study(settings)
    settings.study = str(starting_point(str(settings.study), "STUDY", studies=True))
    preload("siamese.studies.compare")
    from siamese.studies.compare import compare

    compare(settings)


def _parsed(settings: type[Any], command: str, argv: Sequence[str], first: str = "") -> Any:
    return parse_settings(
        settings,
        argv,
        prog=f"siamese-zoo {command}",
        description=f"{COMMANDS[command].description}.",
        short={},
        also=_ROOT if hasattr(settings, "root") else None,
        first=first,
    )


@dataclass(frozen=True)
class _Command:
    description: str
    run: Callable[[Sequence[str]], None]


COMMANDS = {
    "list": _Command("the networks: parameters, multiply-accumulates, published error", _list),
    "train": _Command("train a classifier", _train),
    "resume": _Command("continue a run: resume RUN [settings]", _resume),
    "eval": _Command("test a checkpoint: errors, calibration, classes, predictions", _eval),
    "augmentations": _Command("draw every augmentation into a picture", _augmentations),
    "compare": _Command("run a study, or go on with it: compare STUDY.yaml", _compare),
}
_HELP = usage(
    "siamese-zoo",
    {name: command.description for name, command in COMMANDS.items()},
    "A first run: siamese-zoo train --config cifar/preact20",
)


def _command(argv: Sequence[str]) -> None:
    name = choose_command(argv, list(COMMANDS), _HELP)
    if name is not None:
        COMMANDS[name].run(argv[1:])


def main() -> NoReturn:
    """Entry point of ``siamese-zoo``."""
    run_command(_command, "siamese-zoo")


if __name__ == "__main__":  # torchrun --nproc_per_node 4 -m siamese.cli.zoo train ...
    main()
