"""What the runs of a study left behind, as rows and as one figure per run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from siamese.files.writing import write_csv
from siamese.studies.expand import Line, Run
from siamese.studies.running import read_result
from siamese.studies.study import Study
from siamese.training.runs import read_metrics

Row = dict[str, float]
State = Literal["done", "diverged", "running", "missing"]

# Columns of the long table, before those that metrics.csv adds beyond them.
_FIRST = ("label", "run", "hash", "seed", "status")
_METRICS = ("epoch", "step", "images_seen", "seconds", "lr")


@dataclass(frozen=True)
class RunResult:
    """A run and its rows of ``metrics.csv``, one per epoch; figures that were not measured are
    missing.
    """

    run: Run
    state: State
    rows: tuple[Row, ...]
    device: str = ""

    def curve(self, figure: str) -> tuple[list[Row], list[float]]:
        """The rows that hold a figure, and the figure."""
        rows = [row for row in self.rows if figure in row]
        return rows, [row[figure] for row in rows]


@dataclass(frozen=True)
class Outcome:
    """The figure of a finished run: at the epoch that counts, and the best of all epochs."""

    value: float
    epoch: int
    best: float
    seconds: float


@dataclass(frozen=True)
class LineResult:
    """A line of the table and the results of its runs, in their order."""

    line: Line
    runs: tuple[RunResult, ...]

    @property
    def diverged(self) -> int:
        """How many of its runs diverged."""
        return sum(result.state == "diverged" for result in self.runs)

    @property
    def unfinished(self) -> int:
        """How many of its runs are not over."""
        return sum(result.state in ("running", "missing") for result in self.runs)


def collect(lines: Sequence[Line]) -> list[LineResult]:
    """The results of every run as they lie on disk now; UserError for a damaged file."""
    return [LineResult(line, tuple(_result(run) for run in line.runs)) for line in lines]


def _result(run: Run) -> RunResult:
    result = read_result(run)
    read = read_metrics(run.folder / "metrics.csv", "remove its folder to make the run anew")
    rows = tuple({name: float(value) for name, value in row.items() if value} for row in read)
    if result is None:
        return RunResult(run, "running" if rows else "missing", rows)
    return RunResult(run, result["status"], rows, str(result.get("device", "")))


def outcome(study: Study, result: RunResult) -> Outcome | None:
    """The figure that counts of a run that is done; None for any other.

    ``last``: the last epoch's. ``selected``: that of the epoch which the validation chose, the
    first of equal ones, as training does.
    """
    rows, values = result.curve(study.figure)
    if result.state != "done" or not rows:
        return None
    best = min(values) if study.less_is_better else max(values)
    row = rows[-1] if study.report == "last" else _selected(study, result.run, rows)
    if row is None or not math.isfinite(row[study.figure]):
        return None
    return Outcome(row[study.figure], int(row["epoch"]), best, rows[-1].get("seconds", math.nan))


def _selected(study: Study, run: Run, rows: Sequence[Row]) -> Row | None:
    name = study.task.selecting(run.settings)
    judged = [row for row in rows if name in row]
    best = min if study.task.figures[name] else max
    return best(judged, key=lambda row: row[name]) if judged else None


def write_long_table(path: Path, results: Iterable[LineResult]) -> None:
    """Every epoch of every run: label, run, hash, seed, status, then the columns of metrics.csv.

    Errors in per cent are joined by accuracies (``test_accuracy`` = 100 - ``test_error``).
    """
    table: list[tuple[RunResult, Row]] = []
    for line in results:
        for result in line.runs:
            for row in result.rows:
                accuracies = {
                    name.replace("_error", "_accuracy"): 100 - value
                    for name, value in row.items()
                    if name.endswith("_error")
                }
                table.append((result, {**row, **accuracies}))
    names = dict.fromkeys([*_METRICS, *(name for _, row in table for name in row)])
    write_csv(
        path,
        [*_FIRST, *names],
        (
            [
                *(result.run.label, result.run.name, result.run.hash, result.run.seed),
                result.state,
                *(_cell(row.get(name)) for name in names),
            ]
            for result, row in table
        ),
    )


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
