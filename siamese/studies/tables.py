"""The table that papers print, as Markdown, as LaTeX and as an HTML page."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from siamese.drawing.figure import svg_of
from siamese.drawing.page import Chart, Column, Facts, Page, Table, write_page
from siamese.files.shown import shown
from siamese.files.writing import write_text
from siamese.studies.estimate import Cost
from siamese.studies.expand import cut_data, shared, short_labels
from siamese.studies.results import LineResult, outcome
from siamese.studies.statistics import Summary, summarise
from siamese.studies.study import Budget, Study
from siamese.studies.verdict import Verdict, budget_text, figure_name, figure_text


@dataclass(frozen=True)
class Drawing:
    """A plot with its words; ``name`` is that of its files."""

    name: str
    title: str
    caption: str
    figure: Figure


def title_of(study: Study, budget: Budget | None) -> str:
    """The study's title, marked where it was run reduced."""
    return study.title + ("" if budget is None else f" - REDUCED (budget {budget.name})")


def comparison(
    study: Study, results: Sequence[LineResult], costs: Mapping[str, Cost], budget: Budget | None
) -> Table:
    """One row per line: its figure, its cost and what was published."""
    lines = [result.line for result in results]
    labels = short_labels(lines)
    cells = [_cells(study, result, costs.get(result.line.label)) for result in results]
    columns = [
        (column, texts)
        for column, *texts in zip(_columns(study), *cells, strict=True)
        if any(text is not None for text in texts)
    ]
    names = [labels[line.label] for line in lines]
    rows = zip(names, *([text or "" for text in texts] for _, texts in columns), strict=True)
    figure = figure_name(study)
    caption = (
        f"{figure.capitalize() if figure.islower() else figure} of each run."
        if budget is None
        else f"Reduced budget {budget.name!r} ({budget_text(budget, lines)}): not comparable with "
        "published figures."
    )
    heads = (Column("run"), *(column for column, _ in columns))
    return Table(title_of(study, budget), caption, heads, tuple(rows))


def _columns(study: Study) -> list[Column]:
    """The columns of :func:`_cells`."""
    which, chosen = "last epoch", "of the last epoch: nothing selects"
    if study.report == "selected":
        which, chosen = "chosen epoch", "of the epoch that the validation figure chose"
    figure = figure_name(study)
    best = f"extra: best epoch{' on test' if study.figure.startswith('test_') else ''}"
    numbers = {
        f"{figure}, {which}: median (n)": f"{figure} {chosen}; n: runs (seeds).",
        "mean ± 95 % t-interval": "Over the seeds, by Student's t with n - 1 degrees.",
        best: "The best of all epochs, chosen by the figure itself, so too good; median. Not a "
        "result.",
        "diverged": "Runs whose loss became NaN or infinite; in no figure.",
        "parameters": "",
        "MACs": "Multiply-accumulates of one image's forward pass.",
        "time": "Training time of a run without judging it, median.",
        "published (n)": "The published figure and its runs.",
        "published time": "",
    }
    columns = [Column(title, True, words) for title, words in numbers.items()]
    return [*columns, Column("original paper")]


def _cells(study: Study, result: LineResult, cost: Cost | None) -> list[str | None]:
    """A line's cells; None in a column that a table only has where another line needs it."""
    outcomes = [one for run in result.runs if (one := outcome(study, run)) is not None]
    found = summarise([one.value for one in outcomes])
    parameters, macs = (None, None) if cost is None else (cost.parameters, cost.macs)
    diverged = f"{result.diverged} of {len(result.runs)}" if result.diverged else "0"
    arm = result.line.arm
    published = None
    if arm.published is not None:
        runs = f" ({arm.published_runs})" if arm.published_runs is not None else ""
        cut = ", of all images" if cut_data(result.line.settings) is not None else ""
        published = f"{figure_text(study, arm.published)}{runs}{cut}"
    return [
        "" if found is None else f"{figure_text(study, found.median)} ({found.n})",
        "" if found is None else _interval(study, found),
        figure_text(study, float(np.median([one.best for one in outcomes]))) if outcomes else "",
        diverged + (f" ({result.unfinished} to do)" if result.unfinished else ""),
        "" if parameters is None else f"{parameters:,}",
        "" if macs is None else f"{macs / 1e6:,.1f} M",
        duration(float(np.median([one.seconds for one in outcomes]))) if outcomes else "",
        published,
        arm.published_time,
        arm.paper,
    ]


def _interval(study: Study, found: Summary) -> str:
    mean = figure_text(study, found.mean)
    if found.half is None:
        return f"{mean} (too few seeds: {found.n})"
    return f"{mean} ± {figure_text(study, found.half)}"


def duration(seconds: float) -> str:
    """A time in at most two units: 45 s, 3 min 20 s, 2 h 05 min, 12 days."""
    if not math.isfinite(seconds):
        return ""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole >= 96 * 3600:
        return f"{whole / 86400:,.0f} days"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min"


def write_markdown(
    path: Path, study: Study, table: Table, verdict: Verdict, drawings: Sequence[Drawing]
) -> None:
    """The table, the verdict and the plots as Markdown."""
    head = [_plain(column.title) for column in table.columns]
    rule = ["---:" if column.numeric else "---" for column in table.columns]
    lines = [f"# {_plain(table.title)}", "", _plain(table.caption), ""]
    for cells in (head, rule, *([_plain(cell) for cell in row] for row in table.rows)):
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "## Verdict", ""]
    lines += [f"- {_plain(sentence)}" for sentence in verdict.lines()]
    if drawings:
        lines += ["", "## Plots", ""]
    for drawing in drawings:
        lines += [f"![{_plain(drawing.title)}](plots/{drawing.name}.png)", ""]
        lines += [_plain(drawing.caption), ""]
    origin = f"From {_plain(study.path.name)}; every epoch of every run: results.csv; "
    lines += ["", f"{origin}the same runs again: study.yaml, whose first line is the command."]
    write_text(path, "\n".join(lines).rstrip() + "\n")


def _plain(text: str) -> str:
    """Text that Markdown takes as it is, on one line."""
    kept = " ".join(text.split())
    for sign in "\\|*_<>`[":
        kept = kept.replace(sign, f"\\{sign}")
    return kept


def write_latex(path: Path, table: Table) -> None:
    r"""The table for a paper: ``\input{table}`` with the packages booktabs and graphicx.

    Every sign that LaTeX reads as a command is escaped. Names in other scripts are UTF-8, which
    needs XeLaTeX or LuaLaTeX and a font that has them.
    """
    columns = "".join("r" if column.numeric else "l" for column in table.columns)
    lines = [
        "% Needs \\usepackage{booktabs,graphicx}; names in other scripts: XeLaTeX or LuaLaTeX.",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{_latex(table.title)}. {_latex(table.caption)}}}",
        # As wide as the text, and no wider than it is.
        "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%",
        f"\\begin{{tabular}}{{{columns}}}",
        "\\toprule",
        _latex_row([column.title for column in table.columns]),
        "\\midrule",
        *(_latex_row(row) for row in table.rows),
        "\\bottomrule",
        "\\end{tabular}}",
        "\\end{table}",
    ]
    write_text(path, "\n".join(lines) + "\n")


def _latex_row(cells: Sequence[str]) -> str:
    # The braces: a first cell that begins with [ or * would belong to the row's end before it.
    return " & ".join(f"{{{_latex(cell)}}}" for cell in cells) + " \\\\"


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"{\char34}",  # babel gives the bare one a meaning
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    "±": r"\ensuremath{\pm}",
    "≤": r"\ensuremath{\le}",
    "≥": r"\ensuremath{\ge}",
    **{sign: f"\\{sign}" for sign in "_%&#${}"},
}


def _latex(text: str) -> str:
    """Text that LaTeX prints as it is, on one line."""
    kept = " ".join(shown(" ".join(text.split())).split())
    escaped = "".join(_LATEX.get(sign, sign) for sign in kept)
    return re.sub("(?<=[-<>,])(?=[-<>,])", "{}", escaped)  # two of them would be one other sign


def write_html(
    path: Path,
    study: Study,
    table: Table,
    verdict: Verdict,
    drawings: Sequence[Drawing],
    results: Sequence[LineResult],
    subtitle: str,
) -> None:
    """The same as one HTML page that needs no other file."""
    common = shared([result.line for result in results]) if results else {}
    facts = tuple((name, str(value)) for name, value in common.items()) or (("none", ""),)
    page = Page(
        title=table.title,
        subtitle=subtitle,
        summary=verdict.sentences,
        hints=verdict.warnings,
        comparison=table,
        charts=tuple(Chart(d.title, d.caption, svg_of(d.figure)) for d in drawings),
        people=_every_run(study, results),
        facts=(Facts("Settings of all runs (the others are the defaults)", facts),),
    )
    write_page(path, page)


def _every_run(study: Study, results: Sequence[LineResult]) -> Table:
    columns = {
        "run": False,
        "seed": True,
        "state": False,
        figure_name(study): True,
        "of epoch": True,
        "time": True,
        "folder": False,
    }
    rows = []
    for result in results:
        for run in result.runs:
            one = outcome(study, run)
            figures = ("", "", "")
            if one is not None:
                figures = (figure_text(study, one.value), str(one.epoch), duration(one.seconds))
            label, seed = result.line.label, str(run.run.seed)
            rows.append((label, seed, run.state, *figures, run.run.name))
    return Table(
        "Every run",
        "One row per seed; the folder in runs/ ends with the hash of its settings.",
        tuple(Column(title, numeric) for title, numeric in columns.items()),
        tuple(rows),
    )
