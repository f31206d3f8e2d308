"""Curves and histograms as matplotlib figures, written to files or drawn into a page."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator
from scipy.special import ndtr, ndtri

from siamese.drawing.figure import (
    BLUE,
    GREY,
    GRID,
    VERMILION,
    ZONE,
    Style,
    Title,
    blank_figure,
    write_text,
)
from siamese.verification.counts import Counts, Floats, PairCounts
from siamese.verification.enough import too_few_people
from siamese.verification.metrics import Curve

_Corner = Literal["upper right", "upper left", "lower right", "best"]
_STYLES: tuple[Style, Style] = (
    {"color": BLUE, "ls": "-"},
    {"color": VERMILION, "ls": (0, (4.5, 1.6))},  # distinct in black and white, too
)
_TOO_FEW = "too few people for this FMR"


@dataclass(frozen=True)
class Against:
    """A second model, drawn beside the first.

    Attributes:
        name: the second model.
        curve: the second model's curve.
        figures: the second model's figures.
    """

    name: str
    first_name: str
    curve: Curve
    figures: dict[str, float]


def roc_figure(
    curve: Curve,
    figures: dict[str, float],
    title: Title,
    against: Against | None = None,
    panels: Sequence[Literal["linear", "log"]] = ("linear", "log"),
) -> Figure:
    """ROC on linear axes, and on a logarithmic FMR axis where deployed thresholds lie."""
    figure = blank_figure(title, width=9.6 if len(panels) == 2 else 5.6)
    models = _models(curve, figures, against)
    for number, panel in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), number + 1)
        for model in models:
            x, y = model.curve.fmr, model.curve.recall
            axes.plot(x, y, lw=1.8, drawstyle="steps-post", label=model.label("auc"), **model.style)
        axes.set_xlabel("FMR: impostor pairs accepted")
        axes.set_ylabel("1 - FNMR: genuine pairs accepted")
        axes.set_ylim(0, 1.01)
        axes.grid(color=GRID)
        if panel == "linear":
            _finish_linear_roc(axes, models)
        else:
            _finish_log_roc(axes, models)
            if len(panels) == 2:
                axes.set_title("the same, logarithmic FMR", fontsize=11)
    return figure


def pr_figure(
    curve: Curve, figures: dict[str, float], title: Title, against: Against | None = None
) -> Figure:
    """Precision over recall, with the line of chance: the share of genuine pairs."""
    figure = blank_figure(title, width=5.6)
    axes = figure.add_subplot()
    models = _models(curve, figures, against)
    for model in models:
        x, y = model.curve.recall, model.curve.precision
        axes.plot(x, y, lw=1.8, drawstyle="steps-pre", label=model.label("ap"), **model.style)
    chance = figures["genuine_pairs"] / (figures["genuine_pairs"] + figures["impostor_pairs"])
    axes.axhline(chance, color=GREY, ls=":", lw=1, label=f"chance {chance:.4f}")
    axes.set(xlabel="recall: genuine pairs accepted", ylabel="precision: accepted pairs genuine")
    axes.set(xlim=(0, 1), ylim=(0, 1.01))
    axes.grid(color=GRID)
    if against is None:
        axes.set_title(f"AP {figures['ap']:.4f}", fontsize=11)
    _legend(axes, "upper right" if against is None else "best")
    return figure


def det_figure(
    curve: Curve, figures: dict[str, float], title: Title, against: Against | None = None
) -> Figure:
    """DET (Martin et al. 1997): FNMR over FMR, both on normal-deviate axes.

    Scores of normal distributions give a straight line. Rates of exactly 0 or 1 lie at infinity
    on such axes: those points are not drawn.
    """
    figure = blank_figure(title, width=5.6, height=5.8)
    axes = figure.add_subplot()
    models = _models(curve, figures, against)
    inner = [_inner(model.curve) for model in models]
    limits = _deviate_axes(axes, inner)
    for model, (x, y) in zip(models, inner, strict=True):
        dot: Style = {"marker": "o", "ms": 4} if len(x) == 1 else {}
        axes.plot(
            x, y, lw=1.8, drawstyle="steps-post", label=model.label("eer"), **model.style, **dot
        )
    axes.plot(limits, limits, color=GREY, ls=":", lw=1, label="FMR = FNMR")
    for model in models:
        if 0 < model.figures["eer"] < 1:
            axes.plot(*[model.figures["eer"]] * 2, **model.mark)
    if not any(len(x) for x, _ in inner):
        axes.text(
            0.5, 0.5, "no threshold makes errors of both kinds:\nnothing can be drawn",
            fontsize=9, color=GREY, transform=axes.transAxes, ha="center",
        )  # fmt: skip
    _too_few_people(axes, figures, limits)
    axes.set_xlabel("FMR: impostor pairs accepted (%)")
    axes.set_ylabel("FNMR: genuine pairs refused (%)")
    axes.grid(color=GRID)
    if against is None:
        axes.set_title(f"EER {figures['eer']:.4f}", fontsize=11)
    _legend(axes, "best")
    return figure


def score_figure(counts: PairCounts, title: Title) -> Figure:
    """Histogram of the scores of each class, each of area 1."""
    figure = blank_figure(title, width=5.6)
    axes = figure.add_subplot()
    low = float(counts.score[0])
    bins = np.linspace(low if low < 1 else 0, 1, 81)
    for pairs, name, color in (
        (counts.impostor, "impostor", VERMILION),
        (counts.genuine, "genuine", BLUE),
    ):
        height, _ = np.histogram(counts.score, bins=bins, weights=pairs, density=True)
        axes.stairs(height, bins, fill=True, alpha=0.35, color=color)
        axes.stairs(height, bins, color=color, label=name)
    axes.set(xlabel="score: cosine similarity", ylabel="density")
    _legend(axes, "best")
    return figure


def cmc_figure(models: Sequence[tuple[str, Floats]], title: Title) -> Figure:
    """Cumulative match characteristic: the share of probes found among the k best, over k.

    A gallery of too few people has a note instead of a line.

    Args:
        models: one or two; the name of each and float64 (K,), its rates at ranks 1 to K.
    """
    figure = blank_figure(title, width=5.6)
    axes = figure.add_subplot()
    ranks = max(len(rates) for _, rates in models)
    few = too_few_enrolled(len(models[0][1]))
    if few:
        _note_instead(axes, few)
    for (name, rates), style in zip([] if few else models, _STYLES, strict=False):
        dots: Style = {"marker": "o", "ms": 4} if ranks <= 20 else {}
        label = f"{_short(name)}: rank 1 {rates[0]:.4f}" if len(models) > 1 else ""
        axes.plot(np.arange(1, len(rates) + 1), rates, lw=1.8, label=label, **style, **dots)
    if ranks > 50:
        axes.set_xscale("log")
        axes.set_xlim(1, ranks)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda rank, _: f"{rank:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlim(0.5, ranks + 0.5)
    axes.set(xlabel="rank k", ylabel="probes whose person is among the k best", ylim=(0, 1.01))
    axes.grid(color=GRID)
    if few or len(models) == 1:
        axes.set_title("" if few else f"rank 1: {models[0][1][0]:.4f}", fontsize=11)
    else:
        _legend(axes, "lower right")
    return figure


def open_set_figure(
    models: Sequence[tuple[str, Floats, Floats]], title: Title, *, few: str | None = None
) -> Figure:
    """Open-set identification: FNIR over FPIR, logarithmic.

    Args:
        models: one or two; the name of each, float64 (T,) FPIR (rising, the share of unknown probes
            that raise an alarm) and float64 (T,) FNIR (falling, the share of known ones missed).
        few: a note instead of a line, where too few people are enrolled.
    """
    figure = blank_figure(title, width=5.6)
    axes = figure.add_subplot()
    if few:
        _note_instead(axes, few)
    for (name, fpir, fnir), style in zip([] if few else models, _STYLES, strict=False):
        label = _short(name) if len(models) > 1 else ""
        axes.plot(fpir, fnir, lw=1.8, drawstyle="steps-post", label=label, **style)
    above = np.concatenate([fpir[fpir > 0] for _, fpir, _ in models])
    _log_x_axis(axes, max(1e-9, min(0.1, float(above.min(initial=1.0)))))
    axes.set_xlabel("FPIR: unknown people reported as known")
    axes.set_ylabel("FNIR: known people missed")
    axes.set_ylim(0, 1.01)
    axes.grid(color=GRID)
    if len(models) > 1 and not few:
        _legend(axes, "best")
    return figure


def too_few_enrolled(people: int) -> str | None:
    """What stands in the place of a line where a gallery has too few people for one."""
    few = too_few_people(people, "enrolled people")
    return None if few is None else f"no line is drawn: {few}"


def _note_instead(axes: Axes, note: str) -> None:
    wrapped = textwrap.fill(note, 46)  # no names in it, so any font will do
    axes.text(0.5, 0.5, wrapped, transform=axes.transAxes, ha="center", va="center", fontsize=10)


def reliability_figure(predicted: Floats, observed: Floats, pairs: Counts, title: Title) -> Figure:
    """Observed share of genuine pairs over the predicted probability, above the number of pairs.

    Args:
        predicted: float64 (B,), mean predicted probability of each bin.
        observed: float64 (B,), share of genuine pairs; ignored where a bin is empty.
    """
    figure = blank_figure(title, width=5.6)
    axes, strip = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    some = pairs > 0
    axes.plot([0, 1], [0, 1], color=GREY, ls=":", lw=1, label="perfectly calibrated")
    axes.plot(predicted[some], observed[some], "o-", lw=1.8, ms=4.5, color=BLUE, label="observed")
    axes.set(ylabel="pairs of one person", xlim=(0, 1), ylim=(0, 1.01))
    axes.grid(color=GRID)
    _legend(axes, "upper left")
    strip.vlines(predicted[some], 0.5, pairs[some], color=BLUE, lw=5)
    strip.set_yscale("log")
    strip.set_ylim(0.5, 3 * max(1, int(pairs.max(initial=0))))
    strip.yaxis.set_major_locator(FixedLocator(_decades(int(pairs.max(initial=1)))))
    strip.yaxis.set_major_formatter(FuncFormatter(_power))
    strip.yaxis.set_minor_locator(NullLocator())
    strip.set(xlabel="predicted probability that a pair is of one person", ylabel="pairs")
    return figure


@dataclass(frozen=True)
class _Model:
    """One model of a figure; without a name where it is the only one."""

    name: str
    curve: Curve
    figures: dict[str, float]
    style: Style
    mark: Style

    def label(self, figure: str) -> str:
        return f"{self.name}: {figure.upper()} {self.figures[figure]:.4f}" if self.name else ""


def _models(curve: Curve, figures: dict[str, float], against: Against | None) -> list[_Model]:
    point: Style = {"ls": "", "marker": "o", "color": VERMILION}
    if against is None:
        return [_Model("", curve, figures, _STYLES[0], point)]
    point |= {"mec": "#000000", "mew": 0.8, "ms": 7}
    first, second = {**point, "color": BLUE}, {**point, "marker": "D", "ms": 6}
    return [
        _Model(_short(against.first_name), curve, figures, _STYLES[0], first),
        _Model(_short(against.name), against.curve, against.figures, _STYLES[1], second),
    ]


def _short(name: str) -> str:
    return name if len(name) <= 24 else name[:23] + "…"


def _legend(axes: Axes, place: _Corner) -> None:
    """A legend of all labelled artists, with names in any script."""
    handles = [
        handle
        for handle in (*axes.lines, *axes.patches)
        if not re.fullmatch(r"_child\d+|", str(handle.get_label()))
    ]
    # matplotlib leaves out names that begin with an underscore: they are written afterwards.
    if not handles:
        return
    numbers = [str(number) for number in range(len(handles))]
    legend = axes.legend(handles, numbers, loc=place, frameon=False)
    for patch in legend.get_patches():
        patch.set(edgecolor=GREY, linewidth=0.6)  # or it could not be seen where it lies on itself
    for text, handle in zip(legend.get_texts(), handles, strict=True):
        write_text(text, str(handle.get_label()))


def _finish_linear_roc(axes: Axes, models: list[_Model]) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, ls=":", lw=1, label="chance")
    for model in models:
        eer = model.figures["eer"]
        axes.plot(eer, 1 - eer, label=model.label("eer") or f"EER {eer:.4f}", **model.mark)
    axes.set_xlim(0, 1)
    if len(models) == 1:
        axes.set_title(f"AUC {models[0].figures['auc']:.4f}", fontsize=11)
    _legend(axes, "lower right")


def _finish_log_roc(axes: Axes, models: list[_Model]) -> None:
    # The lowest rate above 0 among so many pairs, and no axis longer than nine decades.
    lowest = max(1 / max(2, *(model.figures["impostor_pairs"] for model in models)), 1e-9)
    chance = np.geomspace(lowest, 1, 200)
    axes.plot(chance, chance, color=GREY, ls=":", lw=1)
    _log_x_axis(axes, lowest)
    _too_few_people(axes, models[0].figures, (lowest, 1.0))
    _legend(axes, "best")


def _too_few_people(axes: Axes, figures: dict[str, float], limits: tuple[float, float]) -> None:
    """Mark the rates that the number of people does not support."""
    supported = min(limits[1], figures["lowest_supported_fmr"])
    if supported > limits[0]:
        axes.axvspan(limits[0], supported, color=ZONE, lw=0, label=_TOO_FEW)


def _log_x_axis(axes: Axes, lowest: float) -> None:
    """A logarithmic x axis of rates from ``lowest`` to 1, with plain text at its ticks."""
    axes.set_xscale("log")
    axes.set_xlim(lowest, 1)
    axes.xaxis.set_major_formatter(FuncFormatter(_power))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _power(value: float, _: object = None) -> str:
    exponent = str(round(math.log10(value)))
    return "10" + exponent.translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _decades(highest: int) -> list[int]:
    """The first, a middle and the last power of ten up to a number of pairs."""
    last = int(math.log10(max(1, highest)))
    return sorted({1, 10 ** (last // 2), 10**last})


# Normal-deviate axes. The most wanted ticks first: a tick too near to a wanted one is left out.
_RATES = (
    0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.98, 0.99, 0.001, 0.0001, 0.005,
    0.00001, 0.000001, 0.0000001,
)  # fmt: skip


def _inner(curve: Curve) -> tuple[Floats, Floats]:
    """FMR and FNMR where both lie inside (0, 1)."""
    x, y = curve.fmr, curve.fnmr
    inside = (x > 0) & (x < 1) & (y > 0) & (y < 1)
    return x[inside], y[inside]


def _deviate_axes(axes: Axes, drawn: Sequence[tuple[Floats, Floats]]) -> tuple[float, float]:
    """Make both axes normal-deviate, with the same limits and ticks; returns the limits."""
    nearest = [float(np.maximum(x, y).min()) for x, y in drawn if len(x)]
    enough = max(nearest, default=0.0)
    high = min([r for r in _RATES if r >= 0.4 and r > min(1.2 * enough, 0.985)], default=0.99)
    shown = [np.concatenate([x, y])[np.tile((x <= high) & (y <= high), 2)] for x, y in drawn]
    least = min((float(rates.min()) for rates in shown if len(rates)), default=0.01)
    # On to the next round rate, so that the curve ends inside.
    low = max([rate for rate in _RATES if rate < min(0.01, least)], default=min(_RATES))
    low = min(low, 0.005)
    first, last = ndtri([low, high])
    letter = 0.016 * (last - first)
    ticks: list[float] = []
    for rate in _RATES:
        near = (
            abs(float(ndtri(rate) - ndtri(tick)))
            < letter * (1 + (len(_percent(rate)) + len(_percent(tick))) / 2)
            for tick in ticks
        )
        if low <= rate <= high and not any(near):
            ticks.append(rate)
    for axis, scale in ((axes.xaxis, axes.set_xscale), (axes.yaxis, axes.set_yscale)):
        scale("function", functions=(ndtri, ndtr))
        axis.set_major_locator(FixedLocator(ticks))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda rate, _: _percent(rate)))
    axes.set(xlim=(low, high), ylim=(low, high), box_aspect=1)
    return low, high


def _percent(rate: float) -> str:
    return f"{100 * rate:.7f}".rstrip("0").rstrip(".")
