"""Plots of a study: curves with min-max bands over seeds, sweeps, a heat map, times to a target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from siamese.drawing.figure import blank_figure, name_ticks, write_text
from siamese.studies.expand import (
    Line,
    cut_data,
    short_labels,
    siblings,
    value_of,
    value_text,
    varied,
)
from siamese.studies.results import LineResult, RunResult
from siamese.studies.study import Budget, Study
from siamese.studies.tables import Drawing, duration, title_of
from siamese.studies.verdict import by_seed, figure_name, figure_text, judge, reached_after
from siamese.tasks.task_spec import task_names, task_spec

Floats = npt.NDArray[np.float64]

# Okabe-Ito, without its yellow: told apart by colour-blind readers.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195")
_DASHES: tuple[Any, ...] = ("-", (0, (4.5, 1.6)), (0, (1.2, 1.4)))
_GREY, _GRID, _PALE = "#666666", "#e6e6e6", "#bdbdbd"
_MOST = 14  # lines that a reader can tell apart; the best ones are named, the others are grey
_MOST_BARS = 24
_LONGEST = 46
_ZOOM = 9  # epochs from which on the last third has a panel of its own
# What curves are drawn over: the column of metrics.csv, and the end of the title.
_AXES = {
    "epochs": ("epoch", "epochs"),
    "images": ("images_seen", "images seen"),
    "time": ("seconds", "wall time"),
}
_SWEEPS = {
    "optimizer.lr": "learning rate",
    "optimizer.weight_decay": "weight decay",
    "trainer.epochs": "number of epochs",
}


def draw(study: Study, results: Sequence[LineResult], budget: Budget | None) -> list[Drawing]:
    """Every plot that the results so far allow.

    Args:
        study: the study.
        results: of its lines.
        budget: the reduction it was run with; every plot is marked with it.
    """
    plots = _Plots(study, results, budget)
    differing = varied(plots.lines)
    drawings = [plots.over(what) for what in study.task.axes]
    drawings += [plots.sweep(name) for name in _SWEEPS if name in differing]
    if {"optimizer.lr", "optimizer.name"} <= set(differing):
        drawings.append(plots.heat_map())
    if study.target is not None:
        drawings.append(plots.time_to_target(study.target))
    drawings.append(plots.differences())
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


class _Plots:
    """The plots of a study; each method gives one, or None where the results do not allow it."""

    def __init__(self, study: Study, results: Sequence[LineResult], budget: Budget | None):
        self.study, self.results, self.budget = study, results, budget
        self.lines = [result.line for result in results]
        self.by_label = {result.line.label: result for result in results}
        self.short = short_labels(self.lines)
        self.name = figure_name(study)
        settings = [line.settings for line in self.lines]
        networks = list(dict.fromkeys(str(value_of(s, study.task.network)) for s in settings))
        sets = list(dict.fromkeys(study.task.data_name(s) for s in settings))
        network = networks[0] if len(networks) == 1 else f"{len(networks)} networks"
        data = ", ".join(sets[:3]) + (", ..." if sets[3:] else "")
        self.title = [title_of(study, budget), f"{network} on {data}"]

    # Curves

    def over(self, what: str) -> Drawing | None:
        """The figure over epochs, training images seen, or training time."""
        figure_of = self.study.figure
        shown = [r for r in self.results if any(run.curve(figure_of)[0] for run in r.runs)]
        if not shown:
            return None
        ranked = sorted(shown, key=self._rank)
        last = max(row["epoch"] for result in shown for run in result.runs for row in run.rows)
        zoomed = what == "epochs" and last >= _ZOOM
        height = max(4.4, 1.6 + 0.2 * min(len(ranked), _MOST + 1))
        figure = blank_figure(self.title, 12.5 if zoomed else 9.0, height)
        panels = figure.subplots(1, 2 if zoomed else 1, squeeze=False)[0]
        for axes in panels:
            handles = self._curves(axes, ranked, what)
        labels = [self.short[result.line.label] for result in ranked[:_MOST]]
        if ranked[_MOST:]:
            handles.append(mpl.lines.Line2D([], [], color=_PALE, lw=0.8))
            labels.append(f"the other {len(ranked) - _MOST}")
        self._figure_axis(panels[0], self._values(shown))
        if zoomed:
            self._zoom(panels[1], ranked, last)
        _legend(panels[-1], handles, labels)
        several = any(len(result.runs) > 1 for result in shown)
        caption = "Line: median over seeds; band: least to greatest. " * several
        caption += "One run each. " * (not several)
        if any(result.diverged for result in shown):
            caption += "A cross ends the curve of a run that diverged. "
        if figure_of.startswith("test_"):
            caption += "Test curves are here to be looked at; they select nothing. "
        caption += "The legend is in the order of the last values, the best first."
        if what == "time":
            caption += " Time: in training steps, judging left out."
        heading = f"{_capital(self.name)} over {_AXES[what][1]}"
        return Drawing(f"{figure_of}_over_{what}", heading, caption, figure)

    def _rank(self, result: LineResult) -> float:
        """Sorts lines by their latest median, the best first."""
        going = [run for run in result.runs if run.state != "diverged"]
        last = [values[-1] for run in going if (values := run.curve(self.study.figure)[1])]
        sign = 1 if self.study.less_is_better else -1
        return sign * float(np.median(last)) if last else math.inf

    def _curves(self, axes: Axes, ranked: Sequence[LineResult], what: str) -> list[Any]:
        """Every line's curve, the best one uppermost; returns the artists of those with a name."""
        for result in reversed(ranked[_MOST:]):
            self._curve(axes, result, what, {"color": _PALE, "lw": 0.8}, band=False)
        handles = []
        for number, result in reversed(list(enumerate(ranked[:_MOST]))):
            style = {"color": _COLORS[number % len(_COLORS)], "ls": _DASHES[number // len(_COLORS)]}
            handles.append(self._curve(axes, result, what, {**style, "lw": 1.6}, band=True))
        axes.grid(color=_GRID)
        axes.set_ylabel(self.name)
        if what == "epochs":
            axes.set_xlabel("epoch")
        elif what == "images":
            axes.set_xlabel("training images seen")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
        else:
            rows = [row for result in ranked for run in result.runs for row in run.rows]
            _time_axis(axes, max((row.get("seconds", 0.0) for row in rows), default=0.0))
        self._from_first_epoch(axes, ranked, what)
        return handles[::-1]

    def _curve(
        self, axes: Axes, result: LineResult, what: str, style: dict[str, Any], band: bool
    ) -> Any:
        """A line's median and band; returns the artist for the legend."""
        column = _AXES[what][0]
        going = [run for run in result.runs if run.state != "diverged"]
        handle: Any = mpl.lines.Line2D([], [], **style)
        epochs, values, places = self._aligned(going, column)
        if len(epochs):
            x = np.nanmedian(places, axis=0)
            dots: dict[str, Any] = {"marker": "o", "ms": 3.5} if len(epochs) <= 12 and band else {}
            (handle,) = axes.plot(x, np.nanmedian(values, axis=0), **style, **dots)
            if band and len(going) > 1:
                low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
                axes.fill_between(x, low, high, color=style["color"], alpha=0.16, lw=0)
                if len(epochs) == 1:  # a band of no width
                    axes.vlines(x, low, high, color=style["color"], lw=1)
        for run in result.runs:
            rows, diverged = run.curve(self.study.figure)
            if run.state == "diverged" and rows:
                place = [row.get(column, math.nan) for row in rows]
                axes.plot(place, diverged, color=style["color"], lw=0.8)
                axes.plot(place[-1:], diverged[-1:], "x", color=style["color"], ms=7, mew=1.8)
        return handle

    def _aligned(self, runs: Sequence[RunResult], column: str) -> tuple[Floats, Floats, Floats]:
        """Epochs (E,), figures and a column (runs, E); NaN where a run has not come so far."""
        curves = []
        for run in runs:
            rows, values = run.curve(self.study.figure)
            if rows:
                pairs = zip(rows, values, strict=True)
                curves.append({int(r["epoch"]): (v, r.get(column, math.nan)) for r, v in pairs})
        epochs = sorted({epoch for curve in curves for epoch in curve})
        gap = (math.nan, math.nan)
        both = np.array([[curve.get(e, gap) for e in epochs] for curve in curves], np.float64)
        both = both.reshape(len(curves), len(epochs), 2)
        return np.asarray(epochs, np.float64), both[..., 0], both[..., 1]

    def _from_first_epoch(self, axes: Axes, shown: Sequence[LineResult], what: str) -> None:
        """Begin where the first epoch ended: before it nothing was measured."""
        column = _AXES[what][0]
        rows = [row for r in shown for run in r.runs for row in run.curve(self.study.figure)[0]]
        places = [row[column] for row in rows if column in row]
        if not places:
            return
        first, last = min(places), max(places)
        room = 0.02 * (last - first) or 0.5 * (first if what != "epochs" else 1.0) or 1.0
        axes.set_xlim(first - room, last + room)
        if what == "epochs":
            ticks = MaxNLocator(integer=True, min_n_ticks=1).tick_values(first, last)
            step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
            kept = [tick for tick in ticks if first + 0.5 * step < tick <= last]
            axes.xaxis.set_major_locator(FixedLocator([first, *kept]))

    def _zoom(self, axes: Axes, ranked: Sequence[LineResult], last: float) -> None:
        """Show the last third of the epochs, of the lines that have a name."""
        first = math.floor(last * 2 / 3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlim(first, last + 0.02 * (last - first))
        named = self._values([r for r in ranked[:_MOST] if r.diverged < len(r.runs)], first)
        if named:
            margin = 0.05 * (max(named) - min(named)) or 0.01 * abs(max(named)) or 1.0
            axes.set_ylim(min(named) - margin, max(named) + margin)
        axes.set_title("the last third", fontsize=10)

    def _values(self, results: Sequence[LineResult], first: float = 0) -> list[float]:
        """Every figure of the runs from an epoch on."""
        runs = [run.curve(self.study.figure) for result in results for run in result.runs]
        pairs = [pair for curve in runs for pair in zip(*curve, strict=True)]
        return [value for row, value in pairs if row["epoch"] >= first]

    def _figure_axis(self, axes: Axes, values: Sequence[float]) -> None:
        """The figure's axis: logarithmic where errors span more than a factor of three."""
        axes.set_ylabel(self.name)
        if self._is_wide(min(values), max(values)):
            axes.set_yscale("log")
            _log_ticks(axes.yaxis)

    def _is_wide(self, low: float, high: float) -> bool:
        """Whether a logarithmic scale shows more: errors over more than a factor of three."""
        return self.study.less_is_better and low > 0 and high / low > 3

    # Sweeps

    def sweep(self, name: str) -> Drawing | None:
        """The figure over a setting that the study varies, on a logarithmic axis."""
        groups = siblings(self.lines, name)
        curves = [
            (label, self._points(group, name))
            for label, group in zip(_group_labels(groups, name), groups, strict=True)
        ]
        curves = [(label, points) for label, points in curves if any(p.figures for p in points)]
        if not curves:
            return None
        everything = [point for _, points in curves for point in points]
        words = _SWEEPS[name]
        figure = blank_figure(self.title, 9.0, max(4.4, 1.6 + 0.2 * len(curves)))
        axes = figure.add_subplot()
        place = _log_places([point.value for point in everything])
        handles, labels = [], []
        for number, (label, points) in enumerate(curves):
            color = _COLORS[number % len(_COLORS)]
            style = {"color": color, "ls": _DASHES[number // len(_COLORS) % len(_DASHES)]}
            handles.append(_draw_points(axes, points, place, style))
            labels.append(label or "ours")
            published = [(place[p.value], p.published) for p in points if p.published is not None]
            if published:
                (mark,) = axes.plot(*zip(*published, strict=True), "D", ms=6, mfc="none", mec=color)
                handles.append(mark)
                labels.append(f"{label}, published" if label else "published")
            for point in points:
                if point.diverged:  # above the axis, where no curve is
                    axes.plot(
                        place[point.value], 1.03 + 0.035 * number, "+" if point.figures else "x",
                        color=color, ms=7, mew=1.6, transform=axes.get_xaxis_transform(),
                        clip_on=False,
                    )  # fmt: skip
        figures = [value for point in everything for value in point.figures]
        figures += [point.published for point in everything if point.published]
        self._figure_axis(axes, figures)
        _log_values_axis(axes, place)
        axes.set_xlabel(words)
        if len(handles) > 1:
            _legend(axes, handles, labels)
        caption = f"Median over seeds, least to greatest, at each {words} tried."
        if any(point.diverged for point in everything):
            axes.text(
                0, 1.03, "diverged", transform=axes.transAxes, fontsize=8.5, color=_GREY,
                va="center",
            )  # fmt: skip
            caption += " Above the axis: x all runs diverged, + some did."
        if any("published" in label for label in labels):
            caption += " Diamonds: published figures."
        heading = f"{_capital(self.name)} over the {words}"
        return Drawing(words.replace(" ", "_"), heading, caption, figure)

    def _points(self, group: Sequence[Line], name: str) -> list[_Point]:
        return [_Point(self, self.by_label[line.label], name) for line in group]

    # Optimizer and learning rate

    def heat_map(self) -> Drawing | None:
        """Optimizer x learning rate, diverged cells hatched."""
        groups = siblings(self.lines, "optimizer.lr", least=1)
        optimizers = {group[0].settings.optimizer.name for group in groups}
        if len(optimizers) < 2 or max(map(len, groups)) < 2:
            return None  # no grid
        rows = _group_labels(groups, "optimizer.lr")
        points = [self._points(group, "optimizer.lr") for group in groups]
        rates = sorted({point.value for row in points for point in row})
        medians = [point.median for row in points for point in row if point.figures]
        if not medians or len(rates) < 2:
            return None
        figure = blank_figure(self.title, max(6.4, 2.6 + 0.72 * len(rates)), 1.7 + 0.42 * len(rows))
        axes = figure.add_subplot()
        # The best is dark in either direction; a few awful cells shall not hide the others.
        low, high = min(medians), max(medians)
        wide = self._is_wide(low, high)
        norm = (mpl.colors.LogNorm if wide else mpl.colors.Normalize)(
            low, high if high > low else low * 1.01 + 1e-9
        )
        colors = mpl.colormaps["viridis" if self.study.less_is_better else "viridis_r"]
        for y, row in enumerate(points):
            for point in row:
                if point.figures or point.diverged:
                    face = colors(norm(point.median)) if point.figures else "#d9d9d9"
                    self._cell(axes, rates.index(point.value), y, point, face)
        axes.set_xlim(-0.5, len(rates) - 0.5)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
        _name_rows(axes, rows)
        axes.set_xlabel("learning rate")
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        bar = figure.colorbar(mpl.cm.ScalarMappable(norm, colors), ax=axes, pad=0.02)
        bar.set_label(f"{self.name}, median")
        if wide:
            _log_ticks(bar.ax.yaxis)
        if any(point.diverged for row in points for point in row):
            grey = Patch(fc="#d9d9d9", ec="#555555", hatch="//")
            _legend(axes, [grey], ["runs diverged"], below=True)
        caption = (
            f"Median {self.name} of every optimizer at every learning rate tried. Hatched: runs "
            "diverged (grey: all of them; coloured: some, the figure is that of the others). "
            "White: not tried."
        )
        return Drawing("heat_map", "Optimizer and learning rate", caption, figure)

    def _cell(self, axes: Axes, x: int, y: int, point: _Point, face: Any) -> None:
        some = bool(point.figures)
        hatch = "//" if point.diverged else None
        edge = "#ffffff" if some else "#555555"
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fc=face, ec=edge, lw=0.8, hatch=hatch))
        text = figure_text(self.study, point.median) if some else "diverged"
        dark = some and sum(np.asarray(face)[:3] * (0.3, 0.59, 0.11)) < 0.55
        box = {"boxstyle": "round,pad=0.15", "fc": face, "ec": "none"}
        axes.text(
            x, y, text, ha="center", va="center", fontsize=8.5 if some else 7.5,
            color="#ffffff" if dark else "#111111", bbox=box if point.diverged else None,
        )  # fmt: skip

    # Rows

    def time_to_target(self, target: float) -> Drawing | None:
        """Training time until the figure first reaches a value, as bars."""
        sign = "≤" if self.study.less_is_better else "≥"
        times = [[reached_after(self.study, run, target) for run in r.runs] for r in self.results]
        reached = [[t for t in row if t is not None] for row in times]
        if not any(reached):
            return None  # the verdict says so
        middle = [float(np.median(row)) if row else math.nan for row in reached]
        everyone = range(len(times))
        order = sorted(everyone, key=lambda row: (math.isnan(middle[row]), middle[row]))
        left_out = len(order) - _MOST_BARS
        order = order[:_MOST_BARS]
        figure = blank_figure(self.title, 9.0, 1.6 + 0.36 * len(order))
        axes = figure.add_subplot()
        longest = max(t for row in reached for t in row)
        unit, word = _unit(longest)
        for y, number in enumerate(order):
            row = [t / unit for t in reached[number]]
            if row:
                axes.barh(y, middle[number] / unit, height=0.62, color=_COLORS[0])
                axes.plot([min(row), max(row)], [y, y], color="#000000", lw=1.2)
                axes.plot([min(row), max(row)], [y, y], "|", color="#000000", ms=8, mew=1.2)
            words = duration(middle[number]) if row else "not reached"
            if len(row) < len(times[number]) or not row:
                words += f" ({len(row)} of {len(times[number])} runs)"
            axes.annotate(
                words, (max(row, default=0.0), y), (6, 0), textcoords="offset points",
                va="center", fontsize=8.5, color="#000000" if row else _GREY,
            )  # fmt: skip
        axes.set_xlim(0, 1.28 * longest / unit)
        axes.set_xlabel(f"training time in {word}, judging left out")
        _as_rows(axes, [self.short[self.lines[number].label] for number in order])
        caption = (
            f"Median over the runs that reach {self.name} {sign} {target:g} at the end of an "
            "epoch; the line runs from the fastest to the slowest."
            + (f" The {left_out} slowest are left out." if left_out > 0 else "")
        )
        heading = f"Time to {self.name} {sign} {target:g}"
        return Drawing("time_to_target", heading, caption, figure)

    def differences(self) -> Drawing | None:
        """Every comparison of the verdict as a point with its interval, a part after the other.

        A part is what the study asks its question for anew: a network, a set, a length.
        """
        verdict = judge(self.study, self.results, self.budget)
        compared = [one for one in verdict.compared if one.difference.n]
        if not compared:
            return None
        left_out = len(compared) - _MOST_BARS
        compared = compared[:_MOST_BARS]
        figure = blank_figure(self.title, 9.0, 1.9 + 0.36 * len(compared))
        axes = figure.add_subplot()
        axes.axvline(0, color=_GREY, ls=":", lw=1)
        ends = [0.0]
        for y, one in enumerate(compared):
            found = one.difference
            if found.half is None:
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
        labels = [self.short[one.label] for one in compared]
        references = [self.short[one.reference] for one in compared]
        than = f" less that of {_short(references[0])}"
        if len(set(references)) > 1:
            than = ""
            labels = [f"{a} - {b}" for a, b in zip(labels, references, strict=True)]
        room = 0.06 * (max(ends) - min(ends)) or 1.0
        axes.set_xlim(min(ends) - room, max(ends) + room)
        if len(ends) == 1:  # a scale for nothing
            axes.set_xticks([])
        write_text(axes.set_xlabel(""), f"{self.name}{than}")
        _as_rows(axes, labels)
        better = "left" if self.study.less_is_better else "right"
        caption = (
            f"Mean difference over the seeds with its 95 % t-interval; further {better} is better. "
            "Blue: seen after the correction for the number of comparisons; grey: not."
            + (f" {left_out} more are in the verdict." if left_out > 0 else "")
        )
        return Drawing("differences", f"Differences in {self.name}", caption, figure)


class _Point:
    """A line at its value of a setting: the figures of its runs, and the published one."""

    def __init__(self, plots: _Plots, result: LineResult, name: str):
        settings = result.line.settings
        self.value = float(value_of(settings, name))
        self.figures = list(by_seed(plots.study, result).values())
        self.diverged = result.diverged
        comparable = plots.budget is None and not cut_data(settings)
        self.published = result.line.arm.published if comparable else None

    @property
    def median(self) -> float:
        """Of its figures, of which there is at least one."""
        return float(np.median(self.figures))


def _draw_points(
    axes: Axes, points: Sequence[_Point], place: dict[float, float], style: dict[str, Any]
) -> Any:
    """A curve through the medians with its band; returns the artist for the legend."""
    good = [point for point in points if point.figures]
    x = [place[point.value] for point in good]
    (handle,) = axes.plot(x, [point.median for point in good], marker="o", ms=4.5, lw=1.6, **style)
    low, high = ([f(point.figures) for point in good] for f in (min, max))
    axes.fill_between(x, low, high, color=style["color"], alpha=0.16, lw=0)
    axes.vlines(x, low, high, color=style["color"], lw=1)
    return handle


def _log_values_axis(axes: Axes, place: dict[float, float]) -> None:
    """A logarithmic x axis whose ticks are the values themselves, as far as there is room."""
    axes.set_xscale("log")
    shown = _apart(sorted(place.values()))
    axes.xaxis.set_major_locator(FixedLocator(shown))
    texts = {x: f"{value:g}" for value, x in place.items()}
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: texts.get(x, "")))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.minorticks_off()
    axes.tick_params(axis="x", labelrotation=30 if len(shown) > 8 else 0)
    axes.grid(color=_GRID)


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
    text = value_text(value_of(line.settings, name))
    return text if name in _BARE else f"{name.partition('.')[2] or name} {text}"


# What all plots share


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Names at the y axis's 0, 1, ..., in any script."""
    name_ticks(axes.yaxis, [_short(name) for name in names])


def _as_rows(axes: Axes, names: Sequence[str]) -> None:
    """What is drawn in rows from the top: their names, lines at the values of the x axis."""
    _name_rows(axes, names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(color=_GRID, axis="x")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


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
