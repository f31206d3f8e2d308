"""A study file, read and checked: which runs are compared, and what is asked of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from siamese.config.reading import brief, did_you_mean, flat_settings, read_yaml
from siamese.errors import UserError
from siamese.tasks.task_spec import TaskSpec, task_names, task_spec

Flat = dict[str, Any]  # settings by dotted name

# What the command line decides, or the runner; a study file cannot.
_NOT_HERE = {
    "name": "runs are named by the hash of their settings",
    "seed": "give seeds: [0, 1, 2]",
    "resume": "runs are resumed by themselves",
    "runs": "give `runs`",
    "checkpoints": "give `checkpoints`",
    "device": "give `device`",
}
_SMALL_SEEDS = 2


@dataclass(frozen=True)
class Arm:
    """One line of the comparison: settings over the study's, trained with every seed."""

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
    """A reduction that is laid over every run; ``most_seeds``: only the first ones of each arm."""

    name: str
    settings: Flat
    seeds: tuple[int, ...] | None = None
    most_seeds: int | None = None
    grows: bool = False


@dataclass(frozen=True)
class Study:
    """A study file.

    ``base``: settings of the files it builds on, below ``settings``. ``grid``: dotted setting ->
    values, crossed with every arm. ``figure``: the column of metrics.csv that is compared.
    ``report``: whether the last epoch's counts or that of the epoch that validation chose.
    ``target``: value for the time-to-target plot. ``baseline``: label of the arm that others are
    compared with; None: the best.
    """

    path: Path
    title: str
    task: TaskSpec
    base: Flat
    settings: Flat
    seeds: tuple[int, ...]
    arms: tuple[Arm, ...]
    grid: dict[str, tuple[Any, ...]]
    figure: str
    report: Literal["last", "selected"]
    target: float | None
    baseline: str | None
    budgets: dict[str, Budget]

    @property
    def less_is_better(self) -> bool:
        """Whether a lower figure is the better one."""
        return self.task.figures[self.figure]


# What a key may hold, and that in words; null is "not given" everywhere.
_Kind = tuple[Callable[[Any], bool], str]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _are_seeds(value: Any) -> bool:
    whole = isinstance(value, list) and all(type(seed) is int for seed in value)
    return whole and 0 < len(value) == len(set(value))


def _are_files(value: Any) -> bool:
    files = value if isinstance(value, list) else [value]
    return all(isinstance(file, str) for file in files)


_TEXT: _Kind = (lambda value: isinstance(value, str) or _is_number(value), "text")
_NUMBER: _Kind = (
    lambda value: _is_number(value) and math.isfinite(value),
    "a finite number",
)
_WHOLE: _Kind = (lambda value: type(value) is int and value >= 1, "a whole number, at least 1")
_MAPPING: _Kind = (lambda value: isinstance(value, dict), "`name: value` lines")
_SEEDS: _Kind = (_are_seeds, "a list of different whole numbers, e.g. [0, 1, 2]")
_STUDY_KEYS: dict[str, _Kind] = {
    "title": _TEXT,
    "task": _TEXT,
    "base": (_are_files, "a settings file, or a list of them"),
    "settings": _MAPPING,
    "seeds": _SEEDS,
    "runs": (lambda value: isinstance(value, list), "a list of `- label: ...` entries"),
    "grid": _MAPPING,
    "figure": _TEXT,
    "report": _TEXT,
    "target": _NUMBER,
    "baseline": _TEXT,
    "budget": _MAPPING,
    "processes": _WHOLE,
}
_ARM_KEYS: dict[str, _Kind] = {
    "label": _TEXT,
    "settings": _MAPPING,
    "seeds": _SEEDS,
    "processes": _WHOLE,
    "published": _NUMBER,
    "published_runs": _WHOLE,
    "published_time": _TEXT,
    "paper": _TEXT,
}


def read_study(path: Path) -> Study:
    """Read a study file.

    Raises:
        UserError: the file or one it builds on cannot be read; an unknown key or setting; a value
            of the wrong kind; entries that contradict each other. One line with file and entry.
    """
    where = str(path)
    content = _checked(read_yaml(path), _STUDY_KEYS, where)
    names = task_names()
    task = task_spec(_choice(content, "task", names, names[0], where))
    figures = list(task.figures)
    settings = _settings(task, content.get("settings", {}), f"{where}: settings")
    grid = _grid(task, content, where)
    arms = _arms(task, content, grid, where)
    for name in grid:
        _refuse_both(name, settings, f"{where}: {name} stands in settings and in grid")
        for arm in arms:
            _refuse_both(name, arm.settings, f"{where}: {name} stands in {arm.label!r} and in grid")
    return Study(
        path=path,
        title=str(content.get("title", path.stem)),
        task=task,
        base=_base(task, content, path),
        settings=settings,
        seeds=tuple(content.get("seeds", [0])),
        arms=arms,
        grid=grid,
        figure=_choice(content, "figure", figures, figures[0], where),
        report=_choice(content, "report", ("last", "selected"), task.report, where),
        target=_number(content, "target"),
        baseline=_text(content, "baseline"),
        budgets=_budgets(task, content, where),
    )


def _checked(values: Mapping[str, Any], kinds: Mapping[str, _Kind], where: str) -> Flat:
    """The values that are given; UserError for an unknown key, or a value of another kind."""
    for key, value in values.items():
        if key not in kinds:
            known = did_you_mean(str(key), list(kinds), f"; known are {', '.join(kinds)}")
            raise UserError(f"{where}: unknown key {brief(str(key))}{known}")
        fits, wanted = kinds[key]
        if value is not None and not fits(value):
            raise UserError(f"{where}: {key} {brief(str(value))}: must be {wanted}")
    return {key: value for key, value in values.items() if value is not None}


def _choice(
    values: Mapping[str, Any], key: str, choices: Sequence[str], default: str, where: str
) -> Any:
    value = values.get(key, default)
    if value not in choices:
        near = did_you_mean(str(value), choices, "")
        raise UserError(f"{where}: {key} {value}: must be one of {', '.join(choices)}{near}")
    return value


def _text(values: Mapping[str, Any], key: str) -> str | None:
    return str(values[key]) if key in values else None


def _number(values: Mapping[str, Any], key: str) -> float | None:
    return float(values[key]) if key in values else None


def _base(task: TaskSpec, content: Mapping[str, Any], path: Path) -> Flat:
    """The settings of the files a study builds on; later ones win."""
    given = content.get("base", [])
    flat: Flat = {}
    for file in [given] if isinstance(given, str) else given:
        where = f"{path}: base {file}"
        values = flat_settings(task.settings, read_yaml(path.parent / file, where), where)
        flat = laid_over(flat, {name: v for name, v in values.items() if name not in _NOT_HERE})
    return flat


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> Flat:
    """Two layers of settings by dotted name; a mapping given as a whole replaces its entries."""
    replaced = tuple(f"{name}." for name, value in above.items() if isinstance(value, dict))
    kept = {name: value for name, value in below.items() if not name.startswith(replaced or "\0")}
    return {**kept, **above}


def _arms(
    task: TaskSpec, content: Mapping[str, Any], grid: Mapping[str, Any], where: str
) -> tuple[Arm, ...]:
    processes = content.get("processes", 1)
    if "runs" not in content and grid:
        return (Arm("", {}, processes=processes),)
    if not content.get("runs"):
        raise UserError(f"{where}: runs must be a list of `- label: ...` entries (or give a grid)")
    arms: dict[str, Arm] = {}
    for number, entry in enumerate(content["runs"], 1):
        if not isinstance(entry, dict):
            raise UserError(f"{where}: run {number} must hold `label: ...` and `settings: ...`")
        values = _checked(entry, _ARM_KEYS, f"{where}: run {number}")
        label = str(values.get("label", ""))
        if not label.strip():
            raise UserError(f"{where}: run {number} has no label")
        if label in arms:
            raise UserError(f"{where}: two runs have the label {label!r}; give each its own")
        entry_place = f"{where}: {label!r}"
        if "published" in values and any(len(points) > 1 for points in grid.values()):
            raise UserError(
                f"{entry_place}: a published figure belongs to one run; list the runs instead of a "
                "grid"
            )
        arms[label] = Arm(
            label=label,
            settings=_settings(task, values.get("settings", {}), entry_place),
            seeds=tuple(values["seeds"]) if "seeds" in values else None,
            processes=values.get("processes", processes),
            published=_number(values, "published"),
            published_runs=values.get("published_runs"),
            published_time=_text(values, "published_time"),
            paper=_text(values, "paper"),
        )
    return tuple(arms.values())


def _grid(task: TaskSpec, content: Mapping[str, Any], where: str) -> dict[str, tuple[Any, ...]]:
    flat = _settings(task, content.get("grid", {}), f"{where}: grid")
    for name, values in flat.items():
        if not isinstance(values, list) or not values:
            raise UserError(f"{where}: grid: {name} must be a list of values, e.g. [0.1, 0.2]")
        if any(value in values[:position] for position, value in enumerate(values)):
            raise UserError(f"{where}: grid: {name} holds a value twice")
    return {name: tuple(values) for name, values in flat.items()}


def _budgets(task: TaskSpec, content: Mapping[str, Any], where: str) -> dict[str, Budget]:
    budgets = {"small": Budget("small", dict(task.small), None, _SMALL_SEEDS, grows=True)}
    for name, values in content.get("budget", {}).items():
        place = f"{where}: budget {name}"
        if not isinstance(values, dict) or not values:
            raise UserError(f"{place} must hold settings, e.g. {{trainer.epochs: 2}}")
        seeds = _checked({"seeds": values.get("seeds")}, {"seeds": _SEEDS}, place).get("seeds")
        settings = {key: value for key, value in values.items() if key != "seeds"}
        budgets[name] = Budget(
            name,
            _settings(task, settings, place),
            None if seeds is None else tuple(seeds),
            _SMALL_SEEDS if name == "small" and seeds is None else None,
        )
    return budgets


def _settings(task: TaskSpec, values: Mapping[str, Any], where: str) -> Flat:
    flat = flat_settings(task.settings, values, where)
    for name in flat:
        if name in _NOT_HERE:
            raise UserError(f"{where}: {name} does not belong here: {_NOT_HERE[name]}")
    return flat


def _refuse_both(name: str, flat: Mapping[str, Any], message: str) -> None:
    for other in flat:
        if other == name or other.startswith(f"{name}.") or name.startswith(f"{other}."):
            raise UserError(f"{message}: leave one of them out")
