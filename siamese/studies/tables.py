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
from siamese.files.writing import replacing, write_text
from siamese.studies.estimate import Cost
from siamese.studies.expand import changed, cut_data, short_labels
from siamese.studies.results import LineResult, Outcome, outcome
from siamese.studies.statistics import Summary, summarise
from siamese.studies.study import Budget, Study
from siamese.studies.verdict import Verdict, budget_text, figure_name, figure_text
from siamese.verification.enough import too_few_seeds


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
    """One row per line: its figure, its cost and what was published.

    Args:
        study: the study.
        results: of its lines.
        costs: by label.
        budget: the reduction it was run with.
    """
    published = any(result.line.arm.published is not None for result in results)
    times = any(result.line.arm.published_time is not None for result in results)
    papers = any(result.line.arm.paper is not None for result in results)
    figure = figure_name(study)
    which = "last epoch" if study.report == "last" else "chosen epoch"
    chosen = (
        "of the last epoch: nothing selects"
        if study.report == "last"
        else "of the epoch that the validation figure chose"
    )
    columns = [
        Column("run"),
        Column(f"{figure}, {which}: median (n)", True, f"{figure} {chosen}; n: runs (seeds)."),
        Column(
            "mean ± 95 % t-interval", True, "Over the seeds, by Student's t with n - 1 degrees."
        ),
        Column(
            f"extra: best epoch{' on test' if study.figure.startswith('test_') else ''}",
            True,
            "The best of all epochs, chosen by the figure itself, so too good; median. Not a "
            "result.",
        ),
        Column("diverged", True, "Runs whose loss became NaN or infinite; in no figure."),
        Column("parameters", True),
        Column("MACs", True, "Multiply-accumulates of one image's forward pass."),
        Column("time", True, "Training time of a run without judging it, median."),
    ]
    if published:
        columns.append(Column("published (n)", True, "The published figure and its runs."))
    if times:
        columns.append(Column("published time", True))
    if papers:
        columns.append(Column("original paper"))
    rows = []
    short = short_labels([result.line for result in results])
    for result in results:
        cost = costs.get(result.line.label)
        cells = _cells(study, result, cost, published, times, papers)
        rows.append((short[result.line.label], *cells))
    caption = (
        f"{figure.capitalize() if figure.islower() else figure} of each run."
        if budget is None
        else f"Reduced budget {budget.name!r} "
        f"({budget_text(budget, [result.line for result in results])}): not comparable with "
        "published figures."
    )
    return Table(title_of(study, budget), caption, tuple(columns), tuple(rows))


def _cells(
    study: Study,
    result: LineResult,
    cost: Cost | None,
    published: bool,
    times: bool,
    papers: bool,
) -> tuple[str, ...]:
    found = [one for run in result.runs if (one := outcome(study, run)) is not None]
    summary = summarise([one.value for one in found])
    state = f" ({result.unfinished} to do)" if result.unfinished else ""
    arm = result.line.arm
    cells = [
        "" if summary is None else f"{figure_text(study, summary.median)} ({summary.n})",
        "" if summary is None else _interval(study, summary),
        _median_text(study, found),
        (f"{result.diverged} of {len(result.runs)}" if result.diverged else "0") + state,
        "" if cost is None or cost.parameters is None else f"{cost.parameters:,}",
        "" if cost is None or cost.macs is None else f"{cost.macs / 1e6:,.1f} M",
        duration(float(np.median([one.seconds for one in found]))) if found else "",
    ]
    if published:
        runs = f" ({arm.published_runs})" if arm.published_runs is not None else ""
        runs += ", of all images" if cut_data(result.line.settings) is not None else ""
        cells.append("" if arm.published is None else f"{figure_text(study, arm.published)}{runs}")
    if times:
        cells.append(arm.published_time or "")
    if papers:
        cells.append(arm.paper or "")
    return tuple(cells)


def _interval(study: Study, found: Summary) -> str:
    mean = figure_text(study, found.mean)
    if too_few_seeds(found.n) is not None or found.half is None:
        return f"{mean} (too few seeds: {found.n})"
    return f"{mean} ± {figure_text(study, found.half)}"


def _median_text(study: Study, found: Sequence[Outcome]) -> str:
    return figure_text(study, float(np.median([one.best for one in found]))) if found else ""


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
    text = "\n".join(lines).rstrip() + "\n"
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


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
    runs = Table(
        "Every run",
        "One row per seed; the folder in runs/ ends with the hash of its settings.",
        (
            Column("run"),
            Column("seed", True),
            Column("state"),
            Column(figure_name(study), True),
            Column("of epoch", True),
            Column("time", True),
            Column("folder"),
        ),
        tuple(
            (
                result.line.label,
                str(run.run.seed),
                run.state,
                figure_text(study, one.value) if (one := outcome(study, run)) else "",
                str(one.epoch) if one else "",
                duration(one.seconds) if one else "",
                run.run.name,
            )
            for result in results
            for run in result.runs
        ),
    )
    page = Page(
        title=table.title,
        subtitle=subtitle,
        summary=verdict.sentences,
        hints=verdict.warnings,
        comparison=table,
        charts=tuple(Chart(d.title, d.caption, svg_of(d.figure)) for d in drawings),
        people=runs,
        facts=(_common(results),) if results else (),
    )
    write_page(path, page)


def _common(results: Sequence[LineResult]) -> Facts:
    """The settings that all runs share and that are not their defaults."""
    flats = [changed(result.line.settings) for result in results]
    shared = {
        name: value
        for name, value in flats[0].items()
        if all(name in flat and flat[name] == value for flat in flats)
    }
    return Facts(
        "Settings of all runs (the others are the defaults)",
        tuple((name, str(value)) for name, value in shared.items()) or (("none", ""),),
    )
