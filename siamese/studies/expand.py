"""From a study to its runs: every arm at every point of the grid with every seed."""

from __future__ import annotations

import copy
import difflib
import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from siamese.config import MULTI_SIMILARITY, USUAL_BETAS, default_betas
from siamese.config.common import plain
from siamese.config.reading import build_settings, flatten
from siamese.errors import UserError
from siamese.files.places import read_bytes
from siamese.studies.study import Arm, Budget, Flat, Study, laid_over
from siamese.tasks.task_spec import TaskSpec, task_spec

_HASH_DIGITS = 12
# Settings that are younger than runs named by their hash count where they are set.
_LATER = {
    "batches.chunk": None,
    "model.grad_checkpointing": False,
    "loss.sample_rate": 1.0,
    "clean": None,
    "split.train_people": None,
    "images.crop": None,
    "augment.low_resolution": 0.0,
    "augment.jpeg": 0.0,
    "augment.randaugment": 0,
    "augment.randaugment_magnitude": 9,
    "model.pooling": "avg",
    "model.neck": "none",
    "model.embedding_dropout": 0.0,
    "loss.miner_after": 0,
    "loss.triplet_weight": 0.0,
    "loss.memory": 0,
    "optimizer.head_lr_factor": 1.0,
    "optimizer.layer_decay": 1.0,
}
# The same for one task, where another has an older setting of that name.
_LATER_IN = {"face": {"augment.mixup": 0.0, "augment.in_batches": "auto"}}
# What stood for a default before it was chosen by measurement, which changes rounding only.
_BEFORE = {("trainer.channels_last", "auto"): True}


@dataclass(frozen=True)
class Place:
    """Where runs lie and what they run on, which changes no result. ``data``: the face folder."""

    runs: str = "runs"
    checkpoints: str = "checkpoints"
    device: str = "auto"
    root: str | None = None
    data: str | None = None

    def settings(self, data_folder: str) -> Flat:
        """The settings that say so, with the folder of a task's data if it is given."""
        folder = {"data.root": self.root, "data": self.data}[data_folder]
        flat = {"runs": self.runs, "checkpoints": self.checkpoints, "device": self.device}
        return flat if folder is None else {**flat, data_folder: folder}


@dataclass(frozen=True)
class Run:
    """One training run: its resolved settings with name and place, and the hash of those that
    matter.
    """

    label: str
    seed: int
    settings: Any
    hash: str
    processes: int = 1

    @property
    def task(self) -> TaskSpec:
        """What is trained."""
        return task_spec(type(self.settings))

    @property
    def name(self) -> str:
        """The run's name, which ends with its hash."""
        assert self.settings.name is not None, "set by expand"
        return str(self.settings.name)

    @property
    def folder(self) -> Path:
        """Where its metrics and result lie."""
        return Path(self.settings.runs) / self.name

    @property
    def checkpoints(self) -> Path:
        """Where its checkpoints lie."""
        return Path(self.settings.checkpoints) / self.name

    def __str__(self) -> str:
        return f"{self.label}, seed {self.seed}"


@dataclass(frozen=True)
class Line:
    """A line of the table: an arm at a point of the grid (dotted name -> value), a run per seed."""

    label: str
    arm: Arm
    runs: tuple[Run, ...]
    point: Flat = field(default_factory=dict)

    @property
    def settings(self) -> Any:
        """The first run's settings; those of the others differ in the seed."""
        return self.runs[0].settings


def expand(study: Study, place: Place, budget: Budget | None = None) -> list[Line]:
    """Every line of a study, each run with its resolved and checked settings.

    Under a budget runs of different lengths keep their ratio; warm-up and milestones that are given
    in epochs keep their share of the run.

    Raises:
        UserError: settings that cannot work; two runs that are the same; a missing baseline.
    """
    cells = list(_cells(study))
    if budget is not None:
        cells = _reduced(study, cells, budget)
    lines = []
    for label, arm, flat, point in cells:
        settings = _build(study, label, laid_over(flat, place.settings(study.task.data_folder)))
        seeds = _seeds(study, arm, budget)
        runs = tuple(_run(study, label, arm, settings, seed) for seed in seeds)
        lines.append(Line(label, arm, runs, point))
    _refuse_same(study, lines, budget)
    labels = [*(line.label for line in lines), *(line.arm.label for line in lines)]
    if study.baseline is not None and study.baseline not in labels:
        near = difflib.get_close_matches(study.baseline, labels, n=1, cutoff=0)
        raise UserError(
            f"{study.path}: baseline {study.baseline!r} is no run; did you mean {near[0]!r}?"
        )
    return lines


_Cell = tuple[str, Arm, Flat, Flat]  # label, arm, settings, point of the grid


def _cells(study: Study) -> Iterable[_Cell]:
    """Each arm at each point of the grid."""
    common: Flat = {"trainer.test_curve": True} if study.figure.startswith("test_") else {}
    common = laid_over(laid_over(common, study.base), study.settings)
    for arm in study.arms:
        for values in itertools.product(*study.grid.values()):
            point = dict(zip(study.grid, values, strict=True))
            words = [f"{name}={value_text(value)}" for name, value in point.items()]
            label = ", ".join([arm.label, *words] if arm.label else words)
            yield label, arm, laid_over(laid_over(common, arm.settings), point), point


def value_text(value: Any) -> str:
    """A setting's value in a label."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def short_labels(lines: Sequence[Line]) -> dict[str, str]:
    """Label of each line -> the same for tables and plots, without the full names of settings.

    A word that no other setting of the grid takes stands alone (``preact20``), any other value
    behind the last part of its setting's name (``lr 0.1``). All keep their labels where two would
    be alike.
    """
    points = [line.point for line in lines]
    last = [name.rpartition(".")[2] for name in dict.fromkeys(n for p in points for n in p)]

    def word(name: str, value: Any) -> str:
        alone = isinstance(value, str) and not any(
            other != name and point.get(other) == value for point in points for other in point
        )
        ending = name.rpartition(".")[2]
        shown = value_text(value)
        return shown if alone else f"{ending if last.count(ending) == 1 else name} {shown}"

    words = {
        line.label: ", ".join(
            [line.arm.label] * bool(line.arm.label)
            + [word(name, value) for name, value in line.point.items()]
        )
        for line in lines
    }
    return words if len(set(words.values())) == len(words) else {label: label for label in words}


def _seeds(study: Study, arm: Arm, budget: Budget | None) -> tuple[int, ...]:
    seeds = study.seeds if arm.seeds is None else arm.seeds
    if budget is None:
        return seeds
    return (seeds if budget.seeds is None else budget.seeds)[: budget.most_seeds]


def _reduced(study: Study, cells: list[_Cell], budget: Budget) -> list[_Cell]:
    """The cells with a budget laid over them."""
    full = [_build(study, label, flat) for label, _, flat, _ in cells]
    shortest = min(settings.trainer.epochs for settings in full)
    given = dict(budget.settings)
    if budget.grows and "data.subset" in given:  # else a batch would not find its images
        given["data.subset"] = max(given["data.subset"], *(one.batches.size for one in full))
    reduced = []
    for (label, arm, flat, point), settings in zip(cells, full, strict=True):
        reduction = dict(given)
        epochs, schedule = settings.trainer.epochs, settings.schedule
        if isinstance(least := given.get("trainer.epochs"), int):
            reduction["trainer.epochs"] = new = max(1, round(least * epochs / shortest))
            if schedule.warmup >= 1:
                reduction.setdefault("schedule.warmup", schedule.warmup / epochs)
            marks = [mark / epochs if mark >= 1 else mark for mark in schedule.milestones]
            if marks != list(schedule.milestones):
                reduction.setdefault("schedule.milestones", marks)
            if schedule.name == "sgdr":
                reduction.setdefault("schedule.cycle", schedule.cycle * new / epochs)
        reduced.append((label, arm, laid_over(flat, reduction), point))
    return reduced


def _build(study: Study, label: str, flat: Flat) -> Any:
    settings = build_settings(study.task.settings, flat, f"{study.path}: {label!r}")
    if settings.trainer.epochs is None:
        raise UserError(
            f"{study.path}: {label!r}: `trainer.epochs` null: runs are compared at a length that "
            "the study says; set a number"
        )
    return settings


def _run(study: Study, label: str, arm: Arm, settings: Any, seed: int) -> Run:
    settings = copy.deepcopy(settings)
    settings.seed = seed
    try:
        _check_parts(study, settings)
        study.task.check(settings)
    except UserError as error:
        message = str(error)
        raise UserError(f"{study.path}: {label!r}: {message}") from None
    digest = settings_hash(settings, arm.processes)
    what = f"{study.task.prefix(settings)}-{value_of(settings, study.task.network)}"
    settings.name = re.sub(r"[^\w.+-]+", "-", what) + f"-{digest}"
    return Run(label, seed, settings, digest, arm.processes)


def _check_parts(study: Study, settings: Any) -> None:
    """Whether a run will measure what the study asks for."""
    validated, tested = study.task.parts(settings)
    if study.figure.startswith("test_"):
        if not tested:
            raise UserError(f"figure {study.figure} needs test people: set split.test")
        if not settings.trainer.test_curve:
            raise UserError(f"figure {study.figure} needs trainer.test_curve true")
    elif not validated and study.figure.startswith("validation_"):
        raise UserError(f"figure {study.figure} needs validation images: set data.validation")
    if study.report == "selected" and not validated:
        raise UserError("report: selected needs validation images: set data.validation, or last")


def settings_hash(settings: Any, processes: int = 1) -> str:
    """12 hexadecimal digits of the SHA-256 over the settings that a run's result depends on."""
    task = task_spec(type(settings))
    flat = material_settings(settings)
    later = {**_LATER, **_LATER_IN.get(task.name, {})}
    flat = {name: v for name, v in flat.items() if name not in later or v != later[name]}
    for (name, now), before in _BEFORE.items():
        if flat.get(name) == now:
            flat[name] = before
    if flat["optimizer.betas"] is None:
        name = settings.optimizer.name
        flat["optimizer.betas"] = default_betas(name) if task.name == "face" else USUAL_BETAS
    if flat["optimizer.lr"] is None and _is_new_default(settings):
        flat["optimizer.lr"] = learning_rate(settings)
    if flat.get("loss.name") == "multi_similarity":  # others before
        for name, value in zip(("loss.margin", "loss.scale"), MULTI_SIMILARITY, strict=True):
            flat[name] = value if flat[name] is None else flat[name]
    for name in task.folders & flat.keys():  # the same folder, however it is written
        if flat[name] is not None:
            flat[name] = os.path.abspath(os.path.expanduser(flat[name]))
    if flat.get("clean") is not None:  # its lines may be edited
        flat["clean"] = hashlib.sha256(read_bytes(Path(flat["clean"]))).hexdigest()
    content: dict[str, Any] = {"settings": _canonical(flat), "task": task.name}
    if processes != 1:
        content["processes"] = processes
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_DIGITS]


def _is_new_default(settings: Any) -> bool:
    """Whether null meant another learning rate when runs were first named by their hash."""
    name = settings.optimizer.name
    if task_spec(type(settings)).name != "face":
        return False
    return name == "adamw" or (name == "radam_schedulefree" and not settings.model.is_random)


def material_settings(settings: Any) -> Flat:
    """The settings that a result depends on, by dotted name."""
    ignored = task_spec(type(settings)).immaterial(settings)
    flat = flatten(type(settings), settings.as_dict())
    return {name: value for name, value in flat.items() if name not in ignored}


def _canonical(value: Any) -> Any:
    """Numbers that are equal are written alike: 1 for 1.0."""
    if isinstance(value, dict):
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _refuse_same(study: Study, lines: list[Line], budget: Budget | None) -> None:
    labels = [line.label for line in lines]
    for label in labels:
        if labels.count(label) > 1:
            raise UserError(f"{study.path}: two runs have the label {label!r}")
    seen: dict[str, Run] = {}
    for run in (run for line in lines for run in line.runs):
        first = seen.setdefault(run.hash, run)
        if first is not run:
            why = "" if budget is None else f" under the budget {budget.name}"
            raise UserError(
                f"{study.path}: {first.label!r} and {run.label!r} are the same run{why} (seed "
                f"{run.seed}): leave one of them out, or let a setting differ"
            )


def changed(settings: Any) -> Flat:
    """The settings that differ from their defaults and matter, by dotted name, plain values."""
    default = material_settings(type(settings)())
    return {
        name: value
        for name, value in material_settings(settings).items()
        if name != "seed" and (name not in default or value != plain(default[name]))
    }


def shared(lines: Sequence[Line]) -> Flat:
    """The settings that all lines have in common and that are not their defaults."""
    first, *others = [changed(line.settings) for line in lines]
    return {
        name: value
        for name, value in first.items()
        if all(name in flat and flat[name] == value for flat in others)
    }


def varied(lines: Sequence[Line]) -> list[str]:
    """Names of the settings in which a study's lines differ."""
    flats = [material_settings(line.settings) for line in lines]
    names = dict.fromkeys(name for flat in flats for name in flat if name != "seed")
    return [name for name in names if len({repr(flat.get(name)) for flat in flats}) > 1]


def cut_data(settings: Any) -> str | None:
    """The settings that leave out images, in words; None where a run uses its whole set."""
    given = {name: value_of(settings, name) for name in task_spec(type(settings)).subsets}
    return ", ".join(f"{name} {n}" for name, n in given.items() if n is not None) or None


def value_of(settings: Any, name: str) -> Any:
    """A setting by its dotted name; the learning rate is the one that null stands for."""
    if name == "optimizer.lr":
        return learning_rate(settings)
    return flatten(type(settings), settings.as_dict())[name]


def learning_rate(settings: Any) -> float:
    """A run's learning rate, also where the settings leave it to a default."""
    given = settings.optimizer.lr
    return task_spec(type(settings)).default_lr(settings) if given is None else float(given)


def siblings(lines: Sequence[Line], name: str, least: int = 2) -> list[list[Line]]:
    """Groups of at least ``least`` lines that differ in one setting only, each sorted by it."""
    groups: dict[str, list[Line]] = {}
    for line in lines:
        flat = material_settings(line.settings)
        rest = {key: value for key, value in flat.items() if key not in (name, "seed")}
        key = json.dumps([rest, line.arm.processes], sort_keys=True)
        groups.setdefault(key, []).append(line)
    return [
        sorted(group, key=lambda line: float(value_of(line.settings, name)))
        for group in groups.values()
        if len(group) >= least
    ]
