"""Plots of a study: curves with min-max bands over seeds, sweeps, a heat map, times to a target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from siamese.drawing.figure import Title, blank_figure, name_ticks, write_text
from siamese.studies.expand import (
    Line,
    cut_data,
    short_labels,
    siblings,
    value_of,
    varied,
)
from siamese.studies.results import LineResult, RunResult
from siamese.studies.study import Budget, Study
from siamese.studies.tables import Drawing, duration, title_of
from siamese.studies.verdict import by_seed, figure_name, figure_text, judge
from siamese.tasks.task_spec import task_names, task_spec
from siamese.verification.enough import too_few_seeds

Floats = npt.NDArray[np.float64]

# Okabe-Ito, without its yellow: told apart by colour-blind readers.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195")
_DASHES: tuple[Any, ...] = ("-", (0, (4.5, 1.6)), (0, (1.2, 1.4)))
_GREY, _GRID, _PALE = "#666666", "#e6e6e6", "#bdbdbd"
_MOST = 14  # lines that a reader can tell apart; the best ones are named, the others are grey
_MOST_BARS = 24
_LONGEST = 46
_ZOOM = 9  # epochs from which on the last third has a panel of its own


def draw(study: Study, results: Sequence[LineResult], budget: Budget | None) -> list[Drawing]:
    """Every plot that the results so far allow.

    Args:
        study: the study.
        results: of its lines.
        budget: the reduction it was run with; every plot is marked with it.
    """
    title = _titles(study, results, budget)
    drawings = [_over(study, results, title, what) for what in study.task.axes]
    lines = [result.line for result in results]
    differing = varied(lines)
    for name in _SWEEPS:
        if name in differing:
            drawings.append(_sweep(study, results, title, name, budget))
    if {"optimizer.lr", "optimizer.name"} <= set(differing):
        drawings.append(_heat_map(study, results, title))
    if study.target is not None:
        drawings.append(_time_to_target(study, results, title, study.target))
    drawings.append(_differences(study, results, title, budget))
    return [drawing for drawing in drawings if drawing is not None]


def names() -> set[str]:
    """Every name that a drawing can have."""
    curves = {
        f"{figure}_over_{what}"
        for task in map(task_spec, task_names())
        for figure in task.figures
        for what in task.axes
    }
    sweeps = {words.replace(" ", "_") for words in _SWEEPS.values()}
    return curves | sweeps | {"heat_map", "time_to_target", "differences"}


def _titles(study: Study, results: Sequence[LineResult], budget: Budget | None) -> list[str]:
    """The study's title, and a line with its networks and its data."""
    settings = [result.line.settings for result in results]
    networks = list(dict.fromkeys(str(value_of(one, study.task.network)) for one in settings))
    sets = list(dict.fromkeys(study.task.data_name(one) for one in settings))
    words = networks[0] if len(networks) == 1 else f"{len(networks)} networks"
    return [title_of(study, budget), f"{words} on {', '.join(sets[:3])}{', ...' * bool(sets[3:])}"]


# Curves


def _over(study: Study, results: Sequence[LineResult], title: Title, what: str) -> Drawing | None:
    """The figure over epochs, training images seen, or training time."""
    shown = [result for result in results if any(run.curve(study.figure)[0] for run in result.runs)]
    if not shown:
        return None
    ranked = sorted(shown, key=lambda result: _rank(study, result))
    last = max(row["epoch"] for result in shown for run in result.runs for row in run.rows)
    zoomed = what == "epochs" and last >= _ZOOM
    longest = max(
        (row.get("seconds", 0.0) for r in shown for run in r.runs for row in run.rows), default=0.0
    )
    height = max(4.4, 1.6 + 0.2 * min(len(ranked), _MOST + 1))
    figure = blank_figure(title, 12.5 if zoomed else 9.0, height)
    panels = figure.subplots(1, 2 if zoomed else 1, squeeze=False)[0]
    for axes in panels:
        for result in reversed(ranked[_MOST:]):
            _curve(axes, study, result, what, {"color": _PALE, "lw": 0.8}, band=False)
        handles = []
        for at, result in reversed(list(enumerate(ranked[:_MOST]))):
            style = {"color": _COLORS[at % len(_COLORS)], "ls": _DASHES[at // len(_COLORS)]}
            handles.append(_curve(axes, study, result, what, {**style, "lw": 1.6}, band=True))
        handles.reverse()
        axes.grid(color=_GRID)
        axes.set_ylabel(figure_name(study))
        if what == "epochs":
            axes.set_xlabel("epoch")
        elif what == "images":
            axes.set_xlabel("training images seen")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
        else:
            _time_axis(axes, longest)
        _from_first_epoch(axes, study, shown, what)
    short = short_labels([result.line for result in results])
    labels = [short[result.line.label] for result in ranked[:_MOST]]
    if ranked[_MOST:]:
        handles.append(mpl.lines.Line2D([], [], color=_PALE, lw=0.8))
        labels.append(f"the other {len(ranked) - _MOST}")
    _figure_axis(panels[0], study, _values(study, shown))
    if zoomed:
        first = math.floor(last * 2 / 3)
        panels[1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        panels[1].set_xlim(first, last + 0.02 * (last - first))
        named = _values(study, [r for r in ranked[:_MOST] if r.diverged < len(r.runs)], first)
        if named:
            margin = 0.05 * (max(named) - min(named)) or 0.01 * abs(max(named)) or 1.0
            panels[1].set_ylim(min(named) - margin, max(named) + margin)
        panels[1].set_title("the last third", fontsize=10)
    _legend(panels[-1], handles, labels)
    several = any(len(result.runs) > 1 for result in shown)
    caption = "Line: median over seeds; band: least to greatest. " if several else "One run each. "
    if any(result.diverged for result in shown):
        caption += "A cross ends the curve of a run that diverged. "
    if study.figure.startswith("test_"):
        caption += "Test curves are here to be looked at; they select nothing. "
    caption += "The legend is in the order of the last values, the best first."
    over = {"epochs": "epochs", "images": "images seen", "time": "wall time"}[what]
    heading = f"{_capital(figure_name(study))} over {over}"
    if what == "time":
        caption += " Time: in training steps, judging left out."
    return Drawing(f"{study.figure}_over_{what}", heading, caption, figure)


def _from_first_epoch(axes: Axes, study: Study, results: Sequence[LineResult], what: str) -> None:
    """Begin where the first epoch ended: before it nothing was measured."""
    places = [
        row[_COLUMNS[what]]
        for result in results
        for run in result.runs
        for row in run.curve(study.figure)[0]
        if _COLUMNS[what] in row
    ]
    if places:
        first, last = min(places), max(places)
        room = 0.02 * (last - first) or 0.5 * (first if what != "epochs" else 1.0) or 1.0
        axes.set_xlim(first - room, last + room)
        if what == "epochs":
            ticks = MaxNLocator(integer=True, min_n_ticks=1).tick_values(first, last)
            step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
            kept = [tick for tick in ticks if first + 0.5 * step < tick <= last]
            axes.xaxis.set_major_locator(FixedLocator([first, *kept]))


def _values(study: Study, results: Sequence[LineResult], first: float = 0) -> list[float]:
    """Every figure of the runs from an epoch on."""
    return [
        value
        for result in results
        for run in result.runs
        for row, value in zip(*run.curve(study.figure), strict=True)
        if row["epoch"] >= first
    ]


def _rank(study: Study, result: LineResult) -> float:
    """Sorts lines by their latest median, the best first."""
    finals = [run.curve(study.figure)[1] for run in result.runs if run.state != "diverged"]
    last = [values[-1] for values in finals if values]
    sign = 1 if study.less_is_better else -1
    return sign * float(np.median(last)) if last else math.inf


def _curve(
    axes: Axes, study: Study, result: LineResult, what: str, style: dict[str, Any], band: bool
) -> Any:
    """A line's median and band; returns the artist for the legend."""
    going = [run for run in result.runs if run.state != "diverged"]
    handle: Any = mpl.lines.Line2D([], [], **style)
    epochs, values, places = _aligned(study, going, _COLUMNS[what])
    if len(epochs):
        x = _median(places)
        dots: dict[str, Any] = {"marker": "o", "ms": 3.5} if len(epochs) <= 12 and band else {}
        (handle,) = axes.plot(x, _median(values), **style, **dots)
        if band and len(going) > 1:
            low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
            axes.fill_between(x, low, high, color=style["color"], alpha=0.16, lw=0)
            if len(epochs) == 1:  # a band of no width
                axes.vlines(x, low, high, color=style["color"], lw=1)
    for run in result.runs:
        rows, diverged = run.curve(study.figure)
        if run.state == "diverged" and rows:
            place = [row.get(_COLUMNS[what], math.nan) for row in rows]
            axes.plot(place, diverged, color=style["color"], lw=0.8)
            axes.plot(place[-1:], diverged[-1:], "x", color=style["color"], ms=7, mew=1.8)
    return handle


def _median(values: Floats) -> Floats:
    return np.asarray(np.nanmedian(values, axis=0))


# Column of metrics.csv that each kind of curve is drawn over.
_COLUMNS = {"epochs": "epoch", "images": "images_seen", "time": "seconds"}


def _aligned(study: Study, runs: Sequence[RunResult], column: str) -> tuple[Floats, Floats, Floats]:
    """Epochs (E,), figures and a column (runs, E); NaN where a run has not come so far."""
    curves = []
    for run in runs:
        rows, values = run.curve(study.figure)
        curves.append(
            {
                int(row["epoch"]): (value, row.get(column, math.nan))
                for row, value in zip(rows, values, strict=True)
            }
        )
    epochs = sorted({epoch for curve in curves for epoch in curve})
    gap = (math.nan, math.nan)
    both = np.array([[curve.get(epoch, gap) for epoch in epochs] for curve in curves], np.float64)
    both = both.reshape(len(curves), len(epochs), 2)
    kept = [at for at, curve in enumerate(curves) if curve]
    return np.asarray(epochs, np.float64), both[kept, :, 0], both[kept, :, 1]


# Sweeps


_SWEEPS = {
    "optimizer.lr": "learning rate",
    "optimizer.weight_decay": "weight decay",
    "trainer.epochs": "number of epochs",
}


@dataclass(frozen=True)
class _Point:
    value: float
    figures: list[float]
    diverged: int
    published: float | None


def _sweep(
    study: Study, results: Sequence[LineResult], title: Title, name: str, budget: Budget | None
) -> Drawing | None:
    """The figure over a setting that the study varies, on a logarithmic axis."""
    groups = siblings([result.line for result in results], name)
    found = {result.line.label: result for result in results}
    curves = [
        (label, [_point(study, found[line.label], name) for line in group])
        for label, group in zip(_group_labels(groups, name), groups, strict=True)
    ]
    curves = [(label, points) for label, points in curves if any(p.figures for p in points)]
    if not curves:
        return None
    words = _SWEEPS[name]
    figure = blank_figure(title, 9.0, max(4.4, 1.6 + 0.2 * len(curves)))
    axes = figure.add_subplot()
    place = _log_places([point.value for _, points in curves for point in points])
    handles, labels = [], []
    broken: set[float] = set()
    for at, (label, points) in enumerate(curves):
        color, dash = _COLORS[at % len(_COLORS)], _DASHES[at // len(_COLORS) % len(_DASHES)]
        good = [point for point in points if point.figures]
        x = [place[point.value] for point in good]
        middle = [float(np.median(point.figures)) for point in good]
        (handle,) = axes.plot(x, middle, marker="o", ms=4.5, lw=1.6, color=color, ls=dash)
        low, high = ([f(point.figures) for point in good] for f in (min, max))
        axes.fill_between(x, low, high, color=color, alpha=0.16, lw=0)
        axes.vlines(x, low, high, color=color, lw=1)
        handles.append(handle)
        labels.append(label or "ours")
        published = [(place[p.value], p.published) for p in points if p.published is not None]
        if published and budget is None:
            (mark,) = axes.plot(*zip(*published, strict=True), "D", ms=6, mfc="none", mec=color)
            handles.append(mark)
            labels.append(f"{label}, published" if label else "published")
        for point in points:
            if point.diverged:
                broken.add(point.value)
                partly = len(point.figures) > 0
                # Above the axis, where no curve is.
                axes.plot(
                    place[point.value], 1.03 + 0.035 * at, "x" if not partly else "+", color=color,
                    ms=7, mew=1.6, transform=axes.get_xaxis_transform(), clip_on=False,
                )  # fmt: skip
    figures = [v for _, points in curves for p in points for v in p.figures]
    figures += [p.published for _, points in curves for p in points if p.published and not budget]
    _figure_axis(axes, study, figures)
    axes.set_xscale("log")
    axes.set_xlabel(words)
    values = sorted(place)
    shown = _apart([place[value] for value in values])
    axes.xaxis.set_major_locator(FixedLocator(shown))
    texts = {place[value]: f"{value:g}" for value in values}
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: texts.get(x, "")))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.minorticks_off()
    axes.tick_params(axis="x", labelrotation=30 if len(shown) > 8 else 0)
    axes.grid(color=_GRID)
    if len(handles) > 1:
        _legend(axes, handles, labels)
    caption = f"Median over seeds, least to greatest, at each {words} tried."
    if broken:
        axes.text(
            0, 1.03, "diverged", transform=axes.transAxes, fontsize=8.5, color=_GREY, va="center"
        )
        caption += " Above the axis: x all runs diverged, + some did."
    if any("published" in label for label in labels):
        caption += " Diamonds: published figures."
    heading = f"{_capital(figure_name(study))} over the {words}"
    return Drawing(words.replace(" ", "_"), heading, caption, figure)


def _point(study: Study, result: LineResult, name: str) -> _Point:
    return _Point(
        float(value_of(result.line.settings, name)),
        list(by_seed(study, result).values()),
        result.diverged,
        None if cut_data(result.line.settings) else result.line.arm.published,
    )


def _log_places(values: Sequence[float]) -> dict[float, float]:
    """Where each value stands on a logarithmic axis: 0 one step left of the least above it."""
    above = sorted({value for value in values if value > 0})
    step = 10.0 if len(above) < 2 else max(2.0, above[1] / above[0])
    least = above[0] / step if above else 1.0
    return {value: value if value > 0 else least for value in values}


def _apart(places: Sequence[float]) -> list[float]:
    """Places on a logarithmic axis that leave room for their labels, the first among them."""
    room = math.log(places[-1] / places[0]) / 14
    kept = [places[0]]
    for place in places[1:]:
        if math.log(place / kept[-1]) >= room:
            kept.append(place)
    return kept


def _group_labels(groups: Sequence[Sequence[Line]], name: str) -> list[str]:
    """What tells the groups of a sweep apart: their arms, or the fewest settings that differ."""
    if len(groups) < 2:
        return ["" for _ in groups]
    arms = [{line.arm.label for line in group} for group in groups]
    if all(len(own) == 1 for own in arms) and len(set.union(*arms)) == len(groups):
        return [own.pop() for own in arms]
    heads = [group[0] for group in groups]
    names = sorted(
        (other for other in varied(list(heads)) if other != name), key=lambda n: n not in _BARE
    )
    words: list[list[str]] = [[] for _ in heads]
    for other in names:
        texts = [_setting(head, other) for head in heads]
        longer = [[*before, text] for before, text in zip(words, texts, strict=True)]
        if len({tuple(word) for word in longer}) > len({tuple(word) for word in words}):
            words = longer
    for word, head in zip(words, heads, strict=True):
        if len({line.arm.processes for line in heads}) > 1:
            word.append(f"{head.arm.processes} processes")
    return [", ".join(word) or head.label for word, head in zip(words, heads, strict=True)]


# Settings whose values speak for themselves.
_BARE = ("optimizer.name", "model.name", "model.backbone", "schedule.name")


def _setting(line: Line, name: str) -> str:
    value = value_of(line.settings, name)
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if name in _BARE else f"{name.partition('.')[2] or name} {text}"


# Heat map


def _heat_map(study: Study, results: Sequence[LineResult], title: Title) -> Drawing | None:
    """Optimizer x learning rate, diverged cells hatched."""
    groups = siblings([result.line for result in results], "optimizer.lr", least=1)
    optimizers = {group[0].settings.optimizer.name for group in groups}
    if len(optimizers) < 2 or max(map(len, groups)) < 2:
        return None  # no grid
    found = {result.line.label: result for result in results}
    rows = _group_labels(groups, "optimizer.lr")
    points = [
        [_point(study, found[line.label], "optimizer.lr") for line in group] for group in groups
    ]
    rates = sorted({point.value for row in points for point in row})
    medians = [float(np.median(p.figures)) for row in points for p in row if p.figures]
    if not medians or len(rates) < 2:
        return None
    figure = blank_figure(title, max(6.4, 2.6 + 0.72 * len(rates)), 1.7 + 0.42 * len(rows))
    axes = figure.add_subplot()
    # The best is dark in either direction; a few awful cells shall not hide the others.
    low, high = min(medians), max(medians)
    logarithmic = study.less_is_better and low > 0 and high / low > 3
    kind = mpl.colors.LogNorm if logarithmic else mpl.colors.Normalize
    norm = kind(low, high if high > low else low * 1.01 + 1e-9)
    colors = mpl.colormaps["viridis" if study.less_is_better else "viridis_r"]
    for at, row in enumerate(points):
        for point in row:
            column = rates.index(point.value)
            some = bool(point.figures)
            if not some and not point.diverged:
                continue
            face = colors(norm(float(np.median(point.figures)))) if some else "#d9d9d9"
            hatch = "//" if point.diverged else None
            edge = "#555555" if not some else "#ffffff"
            axes.add_patch(
                Rectangle((column - 0.5, at - 0.5), 1, 1, fc=face, ec=edge, lw=0.8, hatch=hatch)
            )
            text = figure_text(study, float(np.median(point.figures))) if some else "diverged"
            dark = some and sum(np.asarray(face)[:3] * (0.3, 0.59, 0.11)) < 0.55
            box = {"boxstyle": "round,pad=0.15", "fc": face, "ec": "none"}
            axes.text(
                column, at, text, ha="center", va="center", fontsize=8.5 if some else 7.5,
                color="#ffffff" if dark else "#111111", bbox=box if point.diverged else None,
            )  # fmt: skip
    axes.set_xlim(-0.5, len(rates) - 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
    _name_rows(axes, rows)
    axes.set_xlabel("learning rate")
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    bar = figure.colorbar(mpl.cm.ScalarMappable(norm, colors), ax=axes, pad=0.02)
    bar.set_label(f"{figure_name(study)}, median")
    if logarithmic:
        _log_ticks(bar.ax.yaxis)
    if any(point.diverged for row in points for point in row):
        _legend(
            axes, [Patch(fc="#d9d9d9", ec="#555555", hatch="//")], ["runs diverged"], below=True
        )
    caption = (
        f"Median {figure_name(study)} of every optimizer at every learning rate tried. Hatched: "
        "runs diverged (grey: all of them; coloured: some, the figure is that of the others). "
        "White: not tried."
    )
    return Drawing("heat_map", "Optimizer and learning rate", caption, figure)


# Time to a target


def _time_to_target(
    study: Study, results: Sequence[LineResult], title: Title, target: float
) -> Drawing | None:
    """Training time until the figure first reaches a value, as bars."""
    times = [[_reached(study, run, target) for run in result.runs] for result in results]
    reached = [[t for t in row if t is not None] for row in times]
    if not any(reached):
        return None  # the verdict says so
    middle = [float(np.median(row)) if row else math.nan for row in reached]
    order = sorted(range(len(results)), key=lambda at: (math.isnan(middle[at]), middle[at]))
    left_out = len(order) - _MOST_BARS
    order = order[:_MOST_BARS]
    figure = blank_figure(title, 9.0, 1.6 + 0.36 * len(order))
    axes = figure.add_subplot()
    longest = max((t for row in reached for t in row), default=1.0)
    unit, word = _unit(longest)
    for y, at in enumerate(order):
        if reached[at]:
            value, row = middle[at] / unit, [t / unit for t in reached[at]]
            axes.barh(y, value, height=0.62, color=_COLORS[0])
            axes.plot([min(row), max(row)], [y, y], color="#000000", lw=1.2)
            axes.plot([min(row), max(row)], [y, y], "|", color="#000000", ms=8, mew=1.2)
        end = max(reached[at], default=0.0) / unit
        words = f"{duration(middle[at])}" if reached[at] else "not reached"
        if len(reached[at]) < len(times[at]) or not reached[at]:
            words += f" ({len(reached[at])} of {len(times[at])} runs)"
        axes.annotate(
            words, (end, y), (6, 0), textcoords="offset points", va="center", fontsize=8.5,
            color="#000000" if reached[at] else _GREY,
        )  # fmt: skip
    short = short_labels([result.line for result in results])
    _name_rows(axes, [short[results[at].line.label] for at in order])
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.set_xlim(0, 1.28 * longest / unit)
    axes.set_xlabel(f"training time in {word}, judging left out")
    axes.grid(color=_GRID, axis="x")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    sign = "≤" if study.less_is_better else "≥"
    caption = (
        f"Median over the runs that reach {figure_name(study)} {sign} {target:g} at the end of an "
        "epoch; the line runs from the fastest to the slowest."
        + (f" The {left_out} slowest are left out." if left_out > 0 else "")
    )
    return Drawing(
        "time_to_target", f"Time to {figure_name(study)} {sign} {target:g}", caption, figure
    )


def _reached(study: Study, run: RunResult, target: float) -> float | None:
    rows, values = run.curve(study.figure)
    for row, value in zip(rows, values, strict=True):
        if (value <= target if study.less_is_better else value >= target) and "seconds" in row:
            return row["seconds"]
    return None


# Differences


def _differences(
    study: Study, results: Sequence[LineResult], title: Title, budget: Budget | None
) -> Drawing | None:
    """Every comparison of the verdict as a point with its interval, a part after the other.

    A part is what the study asks its question for anew: a network, a set, a length.
    """
    compared = [one for one in judge(study, results, budget).compared if one.difference.n]
    if not compared:
        return None
    left_out = len(compared) - _MOST_BARS
    compared = compared[:_MOST_BARS]
    short = short_labels([result.line for result in results])
    figure = blank_figure(title, 9.0, 1.9 + 0.36 * len(compared))
    axes = figure.add_subplot()
    axes.axvline(0, color=_GREY, ls=":", lw=1)
    ends = [0.0]
    for y, one in enumerate(compared):
        found = one.difference
        few = too_few_seeds(found.n)
        if few is not None or found.half is None:
            # An interval of two seeds would dwarf all others, and say nothing.
            axes.text(
                1.0, y, f"too few seeds ({found.n}) ", ha="right", va="center", fontsize=8.5,
                color=_GREY, transform=axes.get_yaxis_transform(),
            )  # fmt: skip
            continue
        color = _COLORS[0] if found.seen else _GREY
        low, high = found.mean - found.half, found.mean + found.half
        axes.plot([low, high], [y, y], "|-", color=color, lw=1.6, ms=8, mew=1.6)
        axes.plot([found.mean], [y], "o", color=color, ms=5.5)
        ends += [low, high]
    one_reference = len({one.reference for one in compared}) == 1
    _name_rows(
        axes,
        [
            short[one.label] if one_reference else f"{short[one.label]} - {short[one.reference]}"
            for one in compared
        ],
    )
    room = 0.06 * (max(ends) - min(ends)) or 1.0
    axes.set_xlim(min(ends) - room, max(ends) + room)
    if len(ends) == 1:  # a scale for nothing
        axes.set_xticks([])
    axes.set_ylim(len(compared) - 0.4, -0.6)
    than = f" less that of {_short(short[compared[0].reference])}" if one_reference else ""
    write_text(axes.set_xlabel(""), f"{figure_name(study)}{than}")
    axes.grid(color=_GRID, axis="x")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    better = "left" if study.less_is_better else "right"
    caption = (
        f"Mean difference over the seeds with its 95 % t-interval; further {better} is better. "
        "Blue: seen after the correction for the number of comparisons; grey: not."
        + (f" {left_out} more are in the verdict." if left_out > 0 else "")
    )
    return Drawing("differences", f"Differences in {figure_name(study)}", caption, figure)


# What all plots share


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Names at the y axis's 0, 1, ..., in any script."""
    name_ticks(axes.yaxis, [_short(name) for name in names])


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _legend(axes: Axes, handles: Sequence[Any], labels: Sequence[str], below: bool = False) -> None:
    """A legend to the right of the axes, or below them, with names in any script."""
    legend = axes.legend(
        list(handles),
        [str(number) for number in range(len(handles))],
        loc="upper center" if below else "upper left",
        bbox_to_anchor=(0.5, -0.25) if below else (1.01, 1.02),
        frameon=False,
        fontsize=8.5,
    )
    for text, label in zip(legend.get_texts(), labels, strict=True):
        write_text(text, _short(label))


def _figure_axis(axes: Axes, study: Study, values: Sequence[float]) -> None:
    """The figure's axis: logarithmic where errors span more than a factor of three."""
    axes.set_ylabel(figure_name(study))
    low, high = min(values), max(values)
    if study.less_is_better and low > 0 and high / low > 3:
        axes.set_yscale("log")
        _log_ticks(axes.yaxis)


def _log_ticks(axis: Any) -> None:
    """Plain numbers at 1, 2 and 5 of each decade."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _time_axis(axes: Axes, longest: float) -> None:
    unit, word = _unit(longest)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / unit:g}"))
    steps = MaxNLocator(nbins=8).tick_values(0, max(longest / unit, 1e-6))
    axes.xaxis.set_major_locator(FixedLocator([step * unit for step in steps]))
    axes.set_xlabel(f"training time in {word}, judging left out")


def _unit(seconds: float) -> tuple[float, str]:
    if seconds < 180:
        return 1.0, "seconds"
    return (60.0, "minutes") if seconds < 2.5 * 3600 else (3600.0, "hours")
