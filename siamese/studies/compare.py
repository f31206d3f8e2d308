"""``siamese-zoo compare``: from a study file to its runs, and from those to tables and plots."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from siamese.config.reading import read_yaml
from siamese.config.studies import StudySettings, check_study
from siamese.errors import UserError
from siamese.files.places import is_inside
from siamese.files.shown import shown
from siamese.files.writing import CannotWrite, going_on, write_json, write_text
from siamese.studies.estimate import Cost, machine_speed, run_cost
from siamese.studies.expand import Line, Place, Run, changed, expand, shared
from siamese.studies.running import Say, make_all, status
from siamese.studies.study import Budget, Study, laid_over, read_study
from siamese.tasks.task_spec import TaskSpec
from siamese.training.interruption import stoppable
from siamese.verification.enough import too_few_seeds

if TYPE_CHECKING:  # they load matplotlib: a mistyped study answers at once
    from siamese.studies.results import LineResult
    from siamese.studies.tables import Drawing
    from siamese.studies.verdict import Compared, Verdict

_PATIENCE = 30.0  # seconds between two drawings of the plots while runs are made


def compare(
    settings: StudySettings,
    trainer: TaskSpec | None = None,
    say: Say = print,
) -> Path:
    """Make the runs of a study that are missing, and write what they show; returns the output
    folder.

    It holds ``table.md``, ``table.tex``, ``table.html``, ``verdict.txt``, ``results.csv`` (every
    epoch of every run), ``summary.json``, ``plots/`` (PNG, SVG, PDF) and a copy of the study file,
    written anew after every run. ``dry_run`` writes nothing. ``trainer`` None: the study's task.

    Raises:
        UserError: a study file or a setting that cannot work, or a run that could not be made.
        KeyboardInterrupt: stopped; the same command goes on.
    """
    check_study(settings)
    assert settings.study is not None, "checked"
    study = read_study(Path(settings.study))
    budget = _budget(study, settings.budget)
    place = Place(
        settings.runs, settings.checkpoints, settings.device, settings.root, settings.data
    )
    lines = expand(study, place, budget)
    runs = [run for line in lines for run in line.runs]
    for line in lines:
        _refuse_far_places(study, line, place)
    costs = {line.label: _cost(study, line) for line in lines}
    stem = study.path.stem + ("" if budget is None else f"-{budget.name}")
    out = Path(settings.out or Path(settings.runs) / "studies" / stem)
    if settings.dry_run:
        for text in describe(study, lines, costs, budget, settings.device, settings.threads):
            say(text)
        return out
    if few := too_few_seeds(min(len(line.runs) for line in lines)):
        say(f"note: {few}")
    with going_on(lambda: "the same command goes on with the study"):
        _write_study(out / "study.yaml", study, budget)
        report = _Reporter(study, lines, costs, budget, out)
        if not settings.only_report:
            _make(runs, trainer or study.task, settings, report, say)
        sentences = report.write()
    for sentence in sentences:
        say(sentence)
    say(f"table, plots, every epoch: {out}\nlook at {out / 'table.html'}")
    return out


def _make(
    runs: Sequence[Run], trainer: TaskSpec, settings: StudySettings, report: _Reporter, say: Say
) -> None:
    """Make the runs; what there is when they are stopped is written."""
    try:
        with stoppable():
            make_all(
                runs,
                trainer,
                jobs=settings.jobs,
                threads=settings.threads,
                logs=report.out / "logs",
                say=say,
                after=report.refresh,
            )
    except KeyboardInterrupt:
        say(f"stopped; the same command goes on. So far: {report.out / 'table.md'}")
        report.write()
        raise
    except UserError:
        with suppress(CannotWrite):  # the first error is the one that counts
            report.write()
        raise


def _refuse_far_places(study: Study, line: Line, place: Place) -> None:
    """UserError where only the study file, which may come from anywhere, names a far place to
    write.
    """
    given = place.settings(study.task.data_folder)
    near = (Path.cwd(), study.path.parent, Path(place.runs))
    for name, folder in study.task.written(line.settings).items():
        if folder is None or name in given or is_inside(Path(folder).expanduser(), *near):
            continue
        fix = "give `root`" if name == "data.root" else "name a folder in one of them"
        raise UserError(
            f"{study.path}: {name} {shown(folder)} would be written, and lies neither in the "
            f"working folder nor beside the study file; {fix}"
        )


def _write_study(path: Path, study: Study, budget: Budget | None) -> None:
    """The study with all that it builds on: the same runs, wherever the file lies."""
    content = read_yaml(study.path)
    content.pop("base", None)
    below = tuple(f"{name}." for name in study.grid)  # what the grid sets stands there alone
    content["settings"] = {
        name: value
        for name, value in laid_over(study.base, study.settings).items()
        if name not in study.grid and not (below and name.startswith(below))
    }
    reduced = "" if budget is None else f" --budget {budget.name}"
    text = f"# siamese-zoo compare {path.name}{reduced}\n# From {study.path.resolve()}\n\n"
    text += yaml.safe_dump(content, allow_unicode=True, sort_keys=False, width=100)
    write_text(path, text)


def _budget(study: Study, name: str | None) -> Budget | None:
    if name is None:
        return None
    if name not in study.budgets:
        known = ", ".join(study.budgets)
        raise UserError(f"`budget` {name}: {study.path} has no such budget; it has {known}")
    return study.budgets[name]


def _cost(study: Study, line: Line) -> Cost:
    """A line's cost; the runs of a line cost the same."""
    try:
        return run_cost(line.runs[0])
    except UserError as error:
        message = str(error)
        raise UserError(f"{study.path}: {line.label!r}: {message}") from None


# What a dry run prints


def describe(
    study: Study,
    lines: Sequence[Line],
    costs: Mapping[str, Cost],
    budget: Budget | None,
    device: str = "auto",
    threads: int | None = None,
) -> list[str]:
    """Every run of a study, its settings and an estimate of its cost, as lines of text."""
    from siamese.studies.tables import duration, title_of

    flats = [changed(line.settings) for line in lines]
    common = shared(lines)
    texts = [title_of(study, budget), f"all runs: {_settings(common) or 'the defaults'}"]
    if few := too_few_seeds(min(len(line.runs) for line in lines)):
        texts.append(f"note: {few}")
    speed = machine_speed(device, threads)
    states: Counter[str] = Counter()
    total = left = 0.0
    unknown = 0
    for line, flat in zip(lines, flats, strict=True):
        cost = costs[line.label]
        parameters = "?" if cost.parameters is None else f"{cost.parameters:,}"
        macs = "?" if cost.macs is None else f"{cost.macs / 1e6:,.1f} M"
        texts.append(f"\n{line.label}: {parameters} parameters, {macs} MACs")
        if rest := {name: value for name, value in flat.items() if name not in common}:
            texts.append(f"  {_settings(rest)}")
        estimate = "cost unknown until its images lie there"
        seconds = 0.0
        if cost.total is not None:
            seconds = cost.total / speed
            estimate = f"{cost.total:.1e} MACs, about {duration(seconds)}"
        for run in line.runs:
            state = status(run)
            states[state] += 1
            unknown += cost.total is None
            total += seconds
            left += seconds if state in ("new", "begun") else 0.0
            together = f", {run.processes} processes" if run.processes > 1 else ""
            texts.append(f"  seed {run.seed}: {run.name}{together}, {state}; {estimate}")
    by_state = ", ".join(f"{number} {state}" for state, number in states.items())
    took = "of unknown cost"
    if unknown < states.total():
        took = (
            f"about {duration(total)} one after another on this machine ({speed / 1e9:.0f} GMAC/s "
            f"in training), {duration(left)} of it to do"
        )
        took += f"; {unknown} runs of unknown cost are left out" if unknown else ""
    texts.append(f"\n{states.total()} runs ({by_state}): {took}")
    texts.append(
        "The estimate counts multiply-accumulates (three forward passes per training image), not "
        "reading images, augmentation or what a GPU does better with large batches."
    )
    return texts


def _settings(flat: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_value(value)}" for name, value in flat.items())


def _value(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


# What is written


@dataclass
class _Reporter:
    """Writes what the runs show, as often as it is asked to."""

    study: Study
    lines: list[Line]
    costs: dict[str, Cost]
    budget: Budget | None
    out: Path
    drawn: float = -_PATIENCE
    drawings: list[Drawing] = field(default_factory=list)

    def refresh(self) -> None:
        """The tables now, and the plots where the last ones are some time old."""
        self.write(plots=time.monotonic() - self.drawn > _PATIENCE)

    def write(self, plots: bool = True) -> list[str]:
        """Write everything; returns the verdict."""
        from siamese.drawing.figure import ENDINGS, save_figure
        from siamese.studies.plots import draw, names
        from siamese.studies.results import collect, write_long_table
        from siamese.studies.tables import comparison, write_html, write_latex, write_markdown
        from siamese.studies.verdict import judge

        results = collect(self.lines)
        write_long_table(self.out / "results.csv", results)
        verdict = judge(self.study, results, self.budget)
        table = comparison(self.study, results, self.costs, self.budget)
        write_text(self.out / "verdict.txt", "\n".join([table.title, "", *verdict.lines(), ""]))
        content = summary(self.study, results, self.costs, verdict, self.budget)
        write_json(self.out / "summary.json", content)
        if plots:
            self.drawings = draw(self.study, results, self.budget)
            for drawing in self.drawings:
                (self.out / "plots").mkdir(exist_ok=True)
                save_figure(drawing.figure, self.out / "plots" / drawing.name)
            drawn = {drawing.name for drawing in self.drawings}
            for name in names() - drawn:  # of an earlier state of the study file
                for ending in ENDINGS:
                    (self.out / "plots" / f"{name}.{ending}").unlink(missing_ok=True)
        write_latex(self.out / "table.tex", table)
        write_markdown(self.out / "table.md", self.study, table, verdict, self.drawings)
        if plots:
            over = sum(run.state in ("done", "diverged") for line in results for run in line.runs)
            count = sum(len(line.runs) for line in results)
            when = time.strftime("%Y-%m-%d %H:%M")
            subtitle = f"{self.study.path.name}; {over} of {count} runs; {when}"
            page = self.out / "table.html"
            write_html(page, self.study, table, verdict, self.drawings, results, subtitle)
            self.drawn = time.monotonic()
        return verdict.lines()


def summary(
    study: Study,
    results: Sequence[LineResult],
    costs: Mapping[str, Cost],
    verdict: Verdict,
    budget: Budget | None = None,
) -> dict[str, Any]:
    """The table and the verdict for programs: plain values, null where nothing is known."""
    from siamese.studies.results import outcome
    from siamese.studies.statistics import summarise

    rows = []
    for result in results:
        outcomes = [(run.run, outcome(study, run)) for run in result.runs]
        values = {str(run.seed): one.value for run, one in outcomes if one is not None}
        over_seeds = summarise(list(values.values()))
        cost = costs[result.line.label]
        rows.append(
            {
                "label": result.line.label,
                "values": values,
                "n": len(values),
                "median": None if over_seeds is None else over_seeds.median,
                "mean": None if over_seeds is None else over_seeds.mean,
                "half_interval": None if over_seeds is None else over_seeds.half,
                "diverged": result.diverged,
                "unfinished": result.unfinished,
                "parameters": cost.parameters,
                "macs": cost.macs,
                "seconds": {
                    str(run.seed): one.seconds
                    for run, one in outcomes
                    if one is not None and math.isfinite(one.seconds)
                },
                "published": result.line.arm.published,
                "published_runs": result.line.arm.published_runs,
                "runs": [run.name for run, _ in outcomes],
            }
        )
    return {
        "title": study.title,
        "budget": None if budget is None else budget.name,  # not null: reduced
        "task": study.task.name,
        "figure": study.figure,
        "report": study.report,
        "reference": verdict.reference,
        "lines": rows,
        "compared": [_difference(one) for one in verdict.compared],
        "across_networks": [_difference(one) for one in verdict.across],
        "verdict": verdict.lines(),
    }


def _difference(one: Compared) -> dict[str, Any]:
    return {
        "label": one.label,
        "reference": one.reference,
        "seeds": one.difference.n,
        "mean": one.difference.mean if one.difference.n else None,
        "half_interval": one.difference.half,
        "p": one.difference.p,
        "p_holm": one.difference.adjusted,
    }
