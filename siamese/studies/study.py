"""A study file, read and checked: which runs are compared, and what is asked of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from siamese.config import ClassificationSettings, TrainSettings
from siamese.config.reading import brief, did_you_mean, flat_settings, read_yaml
from siamese.errors import UserError

TaskName = Literal["classification", "face"]
ReportName = Literal["last", "selected"]
Flat = dict[str, Any]  # settings by dotted name

SETTINGS: dict[TaskName, type[Any]] = {
    "classification": ClassificationSettings,
    "face": TrainSettings,
}
# The figures of metrics.csv that a study may ask for, and whether less of them is better.
FIGURES: dict[TaskName, dict[str, bool]] = {
    "classification": {
        "test_error": True,
        "test_loss": True,
        "validation_error": True,
        "validation_loss": True,
        "train_loss": True,
    },
    "face": {
        "test_auc": False,
        "test_ap": False,
        "test_eer": True,
        "auc": False,
        "ap": False,
        "eer": True,
        "train_loss": True,
    },
}
# What the command line decides, or the runner; a study file cannot.
_NOT_HERE = {
    "name": "runs are named by the hash of their settings",
    "seed": "give seeds: [0, 1, 2]",
    "resume": "runs are resumed by themselves",
    "runs": "give --runs",
    "checkpoints": "give --checkpoints",
    "device": "give --device",
}
_SMALL: dict[TaskName, Flat] = {
    "classification": {"data.subset": 2000, "data.test_subset": 1000, "trainer.epochs": 2},
    "face": {
        "batches.images_per_epoch": 1024,
        "trainer.epochs": 2,
        "trainer.recalibration_batches": 10,
    },
}
_SMALL_SEEDS = 2


@dataclass(frozen=True)
class Arm:
    """One line of the comparison: settings that are trained with every seed.

    Attributes:
        label: its name in tables and plots.
        settings: over the study's, by dotted name.
        seeds: its own; None: the study's.
        processes: how many train a run together (torchrun); 1: no torchrun.
        published: a published figure, in the unit of ours.
        published_runs: the number of runs behind it.
        published_time: the training time told with it.
        paper: what the original paper says.
    """

    label: str
    settings: Flat
    seeds: tuple[int, ...] | None = None
    processes: int = 1
    published: float | None = None
    published_runs: int | None = None
    published_time: str | None = None
    paper: str | None = None


@dataclass(frozen=True)
class Budget:
    """A reduction that is laid over every run.

    Attributes:
        name: as ``--budget`` calls it.
        settings: by dotted name.
        seeds: instead of the study's; None: the study's.
        most_seeds: only the first so many seeds of each arm; None: all.
        grows: ``data.subset`` grows to the largest batch of the study.
    """

    name: str
    settings: Flat
    seeds: tuple[int, ...] | None = None
    most_seeds: int | None = None
    grows: bool = False


@dataclass(frozen=True)
class Study:
    """A study file.

    Attributes:
        path: the file.
        title: heading of tables and plots.
        task: what is trained.
        base: settings of the files it builds on, by dotted name.
        settings: of all runs, over the base.
        seeds: of all runs.
        arms: what is compared.
        grid: dotted setting -> values; crossed with every arm.
        figure: the figure of metrics.csv that is compared.
        report: which epoch's figure counts: the last one's, or the one that validation chose.
        target: value of the figure for the time-to-target plot.
        baseline: label of the arm that the others are compared with; None: the best.
        budgets: what ``--budget NAME`` lays over every run.
    """

    path: Path
    title: str
    task: TaskName
    base: Flat
    settings: Flat
    seeds: tuple[int, ...]
    arms: tuple[Arm, ...]
    grid: dict[str, tuple[Any, ...]]
    figure: str
    report: ReportName
    target: float | None
    baseline: str | None
    budgets: dict[str, Budget]

    @property
    def less_is_better(self) -> bool:
        """Whether a lower figure is the better one."""
        return FIGURES[self.task][self.figure]


_STUDY_KEYS = (
    "title", "task", "base", "settings", "seeds", "runs", "grid", "figure", "report", "target",
    "baseline", "budget", "processes",
)  # fmt: skip
_ARM_KEYS = (
    "label", "settings", "seeds", "processes", "published", "published_runs", "published_time",
    "paper",
)  # fmt: skip


def read_study(path: Path) -> Study:
    """Read a study file.

    Raises:
        UserError: the file or one it builds on cannot be read; an unknown key or setting; a value
            of the wrong kind; entries that contradict each other. One line with file and entry.
    """
    content = read_yaml(path)
    told = str(path)
    _refuse_unknown(content, _STUDY_KEYS, told)
    task: TaskName = _choice(content, "task", tuple(SETTINGS), "classification", told)
    figure = _choice(content, "figure", tuple(FIGURES[task]), next(iter(FIGURES[task])), told)
    chosen: ReportName = "selected" if task == "face" else "last"
    settings = _settings(task, _mapping(content, "settings", told), f"{told}: settings")
    seeds = _seeds(content, told) or (0,)
    grid = _grid(task, content, told)
    arms = _arms(task, content, grid, told)
    for name in grid:
        _refuse_both(name, settings, f"{told}: {name} stands in settings and in grid")
        for arm in arms:
            _refuse_both(name, arm.settings, f"{told}: {name} stands in {arm.label!r} and in grid")
    return Study(
        path=path,
        title=_text(content, "title", told) or path.stem,
        task=task,
        base=_base(task, content, path),
        settings=settings,
        seeds=seeds,
        arms=arms,
        grid=grid,
        figure=figure,
        report=_choice(content, "report", ("last", "selected"), chosen, told),
        target=_number(content, "target", told),
        baseline=_text(content, "baseline", told),
        budgets=_budgets(task, content, told),
    )


def _base(task: TaskName, content: Mapping[str, Any], path: Path) -> Flat:
    """The settings of the files a study builds on; later ones win."""
    given = content.get("base", [])
    files = [given] if isinstance(given, str) else given
    if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
        raise UserError(f"{path}: base must be a settings file, or a list of them")
    flat: Flat = {}
    for file in files:
        base = path.parent / file
        told = f"{path}: base {file}"
        values = flat_settings(SETTINGS[task], read_yaml(base, told), told)
        flat = laid_over(flat, {name: v for name, v in values.items() if name not in _NOT_HERE})
    return flat


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> Flat:
    """Two layers of settings by dotted name; a mapping given as a whole replaces its entries."""
    replaced = tuple(f"{name}." for name, value in above.items() if isinstance(value, dict))
    kept = {name: value for name, value in below.items() if not name.startswith(replaced or "\0")}
    return {**kept, **above}


def _arms(
    task: TaskName, content: Mapping[str, Any], grid: Mapping[str, Any], told: str
) -> tuple[Arm, ...]:
    if "runs" not in content and grid:
        return (Arm("", {}, processes=_processes(content, {}, told)),)
    entries = content.get("runs")
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{told}: runs must be a list of `- label: ...` entries (or give a grid)")
    arms: list[Arm] = []
    for number, entry in enumerate(entries, 1):
        where = f"{told}: run {number}"
        if not isinstance(entry, dict):
            raise UserError(f"{where} must hold `label: ...` and `settings: ...`")
        _refuse_unknown(entry, _ARM_KEYS, where)
        label = _text(entry, "label", where)
        if label is None or not label.strip():
            raise UserError(f"{where} has no label")
        if label in [arm.label for arm in arms]:
            raise UserError(f"{told}: two runs have the label {label!r}; give each its own")
        where = f"{told}: {label!r}"
        published = _number(entry, "published", where)
        if published is not None and any(len(values) > 1 for values in grid.values()):
            raise UserError(
                f"{where}: a published figure belongs to one run; list the runs instead of a grid"
            )
        arms.append(
            Arm(
                label=label,
                settings=_settings(task, _mapping(entry, "settings", where), where),
                seeds=_seeds(entry, where),
                processes=_processes(content, entry, where),
                published=published,
                published_runs=_whole(entry, "published_runs", where),
                published_time=_text(entry, "published_time", where),
                paper=_text(entry, "paper", where),
            )
        )
    return tuple(arms)


def _processes(content: Mapping[str, Any], entry: Mapping[str, Any], told: str) -> int:
    return _whole(entry, "processes", told) or _whole(content, "processes", told) or 1


def _grid(task: TaskName, content: Mapping[str, Any], told: str) -> dict[str, tuple[Any, ...]]:
    flat = _settings(task, _mapping(content, "grid", told), f"{told}: grid")
    for name, values in flat.items():
        if not isinstance(values, list) or not values:
            raise UserError(f"{told}: grid: {name} must be a list of values, e.g. [0.1, 0.2]")
        if any(value in values[:at] for at, value in enumerate(values)):
            raise UserError(f"{told}: grid: {name} holds a value twice")
    return {name: tuple(values) for name, values in flat.items()}


def _budgets(task: TaskName, content: Mapping[str, Any], told: str) -> dict[str, Budget]:
    budgets = {"small": Budget("small", dict(_SMALL[task]), None, _SMALL_SEEDS, grows=True)}
    for name, values in _mapping(content, "budget", told).items():
        where = f"{told}: budget {name}"
        if not isinstance(values, dict) or not values:
            raise UserError(f"{where} must hold settings, e.g. {{trainer.epochs: 2}}")
        rest = {key: value for key, value in values.items() if key != "seeds"}
        seeds = _seeds(values, where)
        most = _SMALL_SEEDS if name == "small" and seeds is None else None
        budgets[str(name)] = Budget(str(name), _settings(task, rest, where), seeds, most)
    return budgets


def _settings(task: TaskName, values: Mapping[str, Any], told: str) -> Flat:
    flat = flat_settings(SETTINGS[task], values, told)
    for name in flat:
        if name in _NOT_HERE:
            raise UserError(f"{told}: {name} does not belong here: {_NOT_HERE[name]}")
    return flat


def _refuse_both(name: str, flat: Mapping[str, Any], message: str) -> None:
    for other in flat:
        if other == name or other.startswith(f"{name}.") or name.startswith(f"{other}."):
            raise UserError(f"{message}: leave one of them out")


def _refuse_unknown(values: Mapping[str, Any], known: Sequence[str], told: str) -> None:
    for key in values:
        if key not in known:
            otherwise = f"; known are {', '.join(known)}"
            raise UserError(
                f"{told}: unknown key {brief(str(key))}{did_you_mean(str(key), known, otherwise)}"
            )


def _choice(
    values: Mapping[str, Any], key: str, choices: Sequence[str], default: str, told: str
) -> Any:
    value = values.get(key, default)
    if value not in choices:
        near = did_you_mean(str(value), choices, "")
        raise UserError(f"{told}: {key} {value}: must be one of {', '.join(choices)}{near}")
    return value


def _mapping(values: Mapping[str, Any], key: str, told: str) -> dict[str, Any]:
    value = values.get(key)
    if value is not None and not isinstance(value, dict):
        raise UserError(f"{told}: {key} must hold `name: value` lines")
    return value or {}


def _text(values: Mapping[str, Any], key: str, told: str) -> str | None:
    value = values.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, (str, int, float))):
        raise UserError(f"{told}: {key} must be text")
    return None if value is None else str(value)


def _number(values: Mapping[str, Any], key: str, told: str) -> float | None:
    value = values.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise UserError(f"{told}: {key} {value}: must be a number")
    if value is not None and not math.isfinite(value):
        raise UserError(f"{told}: {key} {value}: must be a finite number")
    return None if value is None else float(value)


def _whole(values: Mapping[str, Any], key: str, told: str) -> int | None:
    value = values.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise UserError(f"{told}: {key} {value}: must be a whole number, at least 1")
    return value


def _seeds(values: Mapping[str, Any], told: str) -> tuple[int, ...] | None:
    value = values.get("seeds")
    if value is None:
        return None
    numbers = isinstance(value, list) and all(
        isinstance(seed, int) and not isinstance(seed, bool) for seed in value
    )
    if not numbers or not value:
        raise UserError(f"{told}: seeds {value}: must be a list of whole numbers, e.g. [0, 1, 2]")
    if len(set(value)) < len(value):
        raise UserError(f"{told}: seeds {value}: a seed is given twice")
    return tuple(value)
