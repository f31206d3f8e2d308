"""Curves and histograms as matplotlib figures, written to files or drawn into a page."""

from __future__ import annotations

import hashlib
import io
import math
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from siamese.files.writing import replacing
from siamese.report.text import drawable
from siamese.verification.counts import Counts, Floats, PairCounts
from siamese.verification.enough import too_few_people
from siamese.verification.figures import Curve

# Okabe-Ito: told apart by colour-blind readers, and by brightness when printed in grey.
_BLUE, _VERMILION, _GREY = "#0072b2", "#d55e00", "#666666"
_GRID, _ZONE = "#e6e6e6", "#ededed"
# On a page each colour is the variable of this name, so that it can follow the page's theme.
_VARIABLES = {
    "#000000": "ink",
    _GREY: "muted",
    _GRID: "grid",
    _ZONE: "zone",
    _BLUE: "first",
    _VERMILION: "second",
}
_Style = dict[str, Any]
Title = str | Sequence[str]  # one line, or several: a model, its data
_Corner = Literal["upper right", "upper left", "lower right", "best"]
_OWN: _Style = {"color": _BLUE, "ls": "-"}
_OTHER: _Style = {"color": _VERMILION, "ls": (0, (4.5, 1.6))}  # told apart without colour, too
_TOO_FEW = "too few people for this FMR"


@dataclass(frozen=True)
class Against:
    """A second model, drawn beside the first.

    Attributes:
        name: the second model.
        own_name: the first model.
        curve: the second model's curve.
        figures: the second model's figures.
    """

    name: str
    own_name: str
    curve: Curve
    figures: dict[str, float]


@dataclass(frozen=True)
class AgainstCmc:
    """A second model's identification rates, float64 (K,), and both models' names."""

    name: str
    own_name: str
    cmc: Floats


@dataclass(frozen=True)
class AgainstOpenSet:
    """A second model's open-set errors, float64 (T,) each, and both models' names."""

    name: str
    own_name: str
    fpir: Floats
    fnir: Floats


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
        axes.grid(color=_GRID)
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
    axes.axhline(chance, color=_GREY, ls=":", lw=1, label=f"chance {chance:.4f}")
    axes.set(xlabel="recall: genuine pairs accepted", ylabel="precision: accepted pairs genuine")
    axes.set(xlim=(0, 1), ylim=(0, 1.01))
    axes.grid(color=_GRID)
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
        dot: _Style = {"marker": "o", "ms": 4} if len(x) == 1 else {}
        axes.plot(
            x, y, lw=1.8, drawstyle="steps-post", label=model.label("eer"), **model.style, **dot
        )
    axes.plot(limits, limits, color=_GREY, ls=":", lw=1, label="FMR = FNMR")
    for model in models:
        if 0 < model.figures["eer"] < 1:
            axes.plot(*[model.figures["eer"]] * 2, **model.mark)
    if not any(len(x) for x, _ in inner):
        axes.text(
            0.5, 0.5, "no threshold makes errors of both kinds:\nnothing can be drawn",
            fontsize=9, color=_GREY, transform=axes.transAxes, ha="center",
        )  # fmt: skip
    _too_few_people(axes, figures, limits)
    axes.set_xlabel("FMR: impostor pairs accepted (%)")
    axes.set_ylabel("FNMR: genuine pairs refused (%)")
    axes.grid(color=_GRID)
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
        (counts.impostor, "impostor", _VERMILION),
        (counts.genuine, "genuine", _BLUE),
    ):
        height, _ = np.histogram(counts.score, bins=bins, weights=pairs, density=True)
        axes.stairs(height, bins, fill=True, alpha=0.35, color=color)
        axes.stairs(height, bins, color=color, label=name)
    axes.set(xlabel="score: cosine similarity", ylabel="density")
    _legend(axes, "best")
    return figure


def cmc_figure(cmc: Floats, title: Title, against: AgainstCmc | None = None) -> Figure:
    """Cumulative match characteristic: the share of probes found among the k best, over k.

    A gallery of too few people has a note instead of a line.

    Args:
        cmc: float64 (K,), the rate at ranks 1 to K.
        title: of the figure.
        against: a second model, of as many ranks or others.
    """
    figure = blank_figure(title, width=5.6)
    axes = figure.add_subplot()
    drawn = [(cmc, "" if against is None else _short(against.own_name), _OWN)]
    if against is not None:
        drawn.append((against.cmc, _short(against.name), _OTHER))
    ranks = max(len(rates) for rates, _, _ in drawn)
    if few := too_few_enrolled(len(cmc)):
        _note_instead(axes, few)
        drawn, against = [], None
    for rates, name, style in drawn:
        dots: _Style = {"marker": "o", "ms": 4} if ranks <= 20 else {}
        label = f"{name}: rank 1 {rates[0]:.4f}" if name else ""
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
    axes.grid(color=_GRID)
    if against is None:
        axes.set_title("" if few else f"rank 1: {cmc[0]:.4f}", fontsize=11)
    else:
        _legend(axes, "lower right")
    return figure


def open_set_figure(
    fpir: Floats,
    fnir: Floats,
    title: Title,
    against: AgainstOpenSet | None = None,
    *,
    few: str | None = None,
) -> Figure:
    """Open-set identification: FNIR over FPIR, logarithmic.

    Args:
        fpir: float64 (T,), rising: share of unknown probes that raise an alarm.
        fnir: float64 (T,), falling: share of known probes that are missed.
        title: of the figure.
        against: a second model.
        few: a note instead of a line, where too few people are enrolled.
    """
    figure = blank_figure(title, width=5.6)
    axes = figure.add_subplot()
    drawn = [(fpir, fnir, "" if against is None else _short(against.own_name), _OWN)]
    if against is not None:
        drawn.append((against.fpir, against.fnir, _short(against.name), _OTHER))
    if few:
        _note_instead(axes, few)
    for x, y, name, style in [] if few else drawn:
        axes.plot(x, y, lw=1.8, drawstyle="steps-post", label=name, **style)
    above = np.concatenate([x[x > 0] for x, _, _, _ in drawn])
    _log_x_axis(axes, max(1e-9, min(0.1, float(above.min(initial=1.0)))))
    axes.set_xlabel("FPIR: unknown people reported as known")
    axes.set_ylabel("FNIR: known people missed")
    axes.set_ylim(0, 1.01)
    axes.grid(color=_GRID)
    if against is not None and not few:
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
        pairs: int64 (B,), pairs in each bin.
        title: of the figure.
    """
    figure = blank_figure(title, width=5.6)
    axes, strip = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    some = pairs > 0
    axes.plot([0, 1], [0, 1], color=_GREY, ls=":", lw=1, label="perfectly calibrated")
    axes.plot(predicted[some], observed[some], "o-", lw=1.8, ms=4.5, color=_BLUE, label="observed")
    axes.set(ylabel="pairs of one person", xlim=(0, 1), ylim=(0, 1.01))
    axes.grid(color=_GRID)
    _legend(axes, "upper left")
    strip.vlines(predicted[some], 0.5, pairs[some], color=_BLUE, lw=5)
    strip.set_yscale("log")
    strip.set_ylim(0.5, 3 * max(1, int(pairs.max(initial=0))))
    strip.yaxis.set_major_locator(FixedLocator(_decades(int(pairs.max(initial=1)))))
    strip.yaxis.set_major_formatter(FuncFormatter(_power))
    strip.yaxis.set_minor_locator(NullLocator())
    strip.set(xlabel="predicted probability that a pair is of one person", ylabel="pairs")
    return figure


_FORMATS: dict[str, _Style] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
ENDINGS = tuple(_FORMATS)


def save_figure(figure: Figure, stem: Path) -> list[Path]:
    """Write ``stem.png`` (150 dpi), ``stem.svg`` and ``stem.pdf``, each whole or not at all.

    Equal figures give equal bytes. The PDF embeds its fonts as TrueType, as publishers ask.

    Returns:
        the paths.

    Raises:
        CannotWrite: the system refuses to write.
    """
    paths = []
    for ending, metadata in _FORMATS.items():
        path = stem.with_name(f"{stem.name}.{ending}")
        with (
            replacing(path) as temporary,
            mpl.rc_context({"pdf.fonttype": 42, "svg.hashsalt": "siamese"}),
        ):
            figure.savefig(temporary, format=ending, dpi=150, metadata=metadata)
        paths.append(path)
    return paths


def svg_of(figure: Figure) -> str:
    """A figure as an SVG element for the inside of an HTML page.

    It has a ``viewBox`` but no size, no background, text in the page's font, and the page's CSS
    variables ``--ink``, ``--muted``, ``--grid``, ``--zone``, ``--first``, ``--second`` for colours
    (with the colours of paper where they are missing). Equal figures give equal text; the ids of
    different figures differ.
    """
    width, height = figure.get_size_inches()
    drawn = io.StringIO()
    try:
        # Narrower than on paper: so the letters stay readable on a phone.
        figure.set_size_inches(width * _ON_A_PAGE, height * _ON_A_PAGE)
        with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "siamese"}):
            figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    finally:
        figure.set_size_inches(width, height)
    # A font may have control characters, XML never has.
    root = ElementTree.fromstring(_NO_XML.sub("\N{REPLACEMENT CHARACTER}", drawn.getvalue()))
    _simplify(root)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("xmlns", _SVG)
    root.set("style", "fill: var(--ink, #000000); stroke-linejoin: round")
    own = "f" + hashlib.sha256(ElementTree.tostring(root)).hexdigest()[:8]
    for element in root.iter():
        for name, value in element.items():
            if name == "id":
                element.set(name, f"{own}-{value}")
            elif _REFERENCE.match(value):
                element.set(name, value.replace("#", f"#{own}-"))
    return ElementTree.tostring(root, "unicode")


_ON_A_PAGE = 0.84
_SVG = "http://www.w3.org/2000/svg"
_AS_GIVEN = "as given: "
_NO_XML = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_REFERENCE = re.compile(r"^#(.+)|^url\(#(.+)\)$")
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")


def _simplify(root: ElementTree.Element) -> None:
    """Take namespaces, unused ids, fonts, fixed colours and needless digits out of an SVG."""
    for parent in list(root.iter()):
        for child in list(parent):
            # A style element would hold for the whole page.
            if child.tag.rpartition("}")[2] in ("style", "metadata"):
                parent.remove(child)
    used = {
        match[1] or match[2]
        for element in root.iter()
        for value in element.attrib.values()
        if (match := _REFERENCE.match(value))
    }
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        if (given := element.get("id", "")).startswith(_AS_GIVEN):
            lines = given.removeprefix(_AS_GIVEN).split("\n")
            for text, line in zip(element.iter(f"{{{_SVG}}}text"), lines, strict=False):
                text.text = line
        is_text = element.tag in ("text", "tspan")
        attributes = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
        element.attrib.clear()
        for name, value in attributes.items():
            if name == "style":
                value = _themed(value)
            elif name == "d":
                value = _thinned(value)
            elif name in ("x", "y", "transform"):
                value = _LONG_NUMBER.sub(lambda n: f"{float(n[0]):.2f}", value)
            if name != "id" or value in used:
                element.set(name, value)
        element.tail = None
        if not is_text:
            element.text = None


def _thinned(path: str) -> str:
    """Path data of two decimals; a long polyline's of one, without the points that add nothing."""
    if len(path) < 2000 or re.search("[^MLz0-9. \n-]", path):
        return " ".join(_LONG_NUMBER.sub(lambda n: f"{float(n[0]):.2f}", path).split())
    kept: list[tuple[str, float, float]] = []
    for command, x, y in re.findall(r"([ML]) (\S+) (\S+)", path):
        point = (command, round(float(x), 1), round(float(y), 1))
        line = [*kept[-2:], point]
        if command == "L" and kept and kept[-1][1:] == point[1:]:
            continue
        # On one horizontal or vertical line with the two before it, which lead the same way.
        if [c for c, _, _ in line[1:]] == ["L", "L"] and any(
            a[fixed] == b[fixed] == c[fixed] and (b[free] - a[free]) * (c[free] - b[free]) > 0
            for a, b, c in [line]
            for fixed, free in ((1, 2), (2, 1))
        ):
            kept.pop()
        kept.append(point)
    short = [f"M{kept[0][1]:g} {kept[0][2]:g}"]
    for (_, x0, y0), (command, x, y) in pairwise(kept):
        if command == "L" and (x == x0 or y == y0):
            short.append(f"H{x:g}" if y == y0 else f"V{y:g}")
        else:
            short.append(f"{command}{x:g} {y:g}")
    return "".join(short) + "z" * path.count("z")


def _themed(style: str) -> str:
    """A style whose known colours are variables and whose font is the page's."""
    kept = []
    for declaration in style.split(";"):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name == "font":  # before matplotlib 3.10 one declaration holds size and family
            size = re.search(r"[\d.]+px", value)
            name, value = "font-size", size[0] if size else "10px"
        if value in _VARIABLES:
            value = f"var(--{_VARIABLES[value]}, {value})"
        if name and name != "font-family":
            kept.append(f"{name}: {value}")
    return "; ".join(kept)


def blank_figure(title: Title, width: float, height: float = 4.4) -> Figure:
    """A figure with a title in any script; sides in inches.

    Args:
        title: of one line, or its lines (a model, its data); empty ones are left out. A line that
            is too long is set smaller, then cut in its middle.
        width: of the figure, in inches.
        height: of the figure, in inches.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    lines = [line for line in ([title] if isinstance(title, str) else title) if line]
    if lines:
        place = figure.suptitle("", fontsize=11)
        write_text(place, *lines)
        _fit(place, lines, 0.97 * width * figure.dpi)
    return figure


def _fit(place: Text, lines: list[str], room: float) -> None:
    """Make a title fit into a width in pixels."""
    width = place.get_window_extent().width
    if width > room:
        place.set_fontsize(max(8.0, 11 * room / width))
    longest = max(map(len, lines))
    while longest > 8 and place.get_window_extent().width > room:
        longest = int(0.95 * longest)
        write_text(place, *(shortened(line, longest) for line in lines))


def shortened(line: str, longest: int) -> str:
    """A line of at most so many letters; what is too long has an ellipsis in its middle."""
    end = longest // 2
    return line if len(line) <= longest else f"{line[: longest - end - 1]}…{line[-end:]}"


def write_text(place: Text, *given: str) -> None:
    """Write lines in any script into a figure; dollar signs are no mathematics."""
    drawn = [drawable(line) for line in given]
    text, whole = "\n".join(line for line, _ in drawn), "\n".join(given)
    place.set_text(text)
    if text != whole:  # a page's reader may have a font that this machine lacks: see svg_of
        place.set_gid(_AS_GIVEN + "\n".join(map(_spelled, given)))
    place.set_fontfamily(_merged(drawn))
    place.set_parse_math(False)


def _spelled(line: str) -> str:
    plain = line.replace("\n", "\\n")
    return _NO_XML.sub(lambda c: c[0].encode("unicode_escape").decode(), plain)


def _merged(drawn: Sequence[tuple[str, list[str]]]) -> list[str]:
    """The families of several texts."""
    return list(dict.fromkeys(family for _, families in drawn for family in families))


def name_ticks(axis: Axis, names: Sequence[str], **style: Any) -> None:
    """Names in any script at an axis's 0, 1, ...

    They are given to the axis: its formatter writes the labels anew whenever the figure is drawn,
    over whatever the labels themselves were told.

    Args:
        axis: ``axes.xaxis`` or ``axes.yaxis``.
        names: of the ticks.
        style: of the labels, as ``fontsize`` or ``rotation``.
    """
    drawn = [drawable(name) for name in names]
    texts = [text for text, _ in drawn]
    families = _merged(drawn)
    axis.set_ticks(range(len(texts)), texts, fontfamily=families, parse_math=False, **style)


@dataclass(frozen=True)
class _Model:
    """One model of a figure; without a name where it is the only one."""

    name: str
    curve: Curve
    figures: dict[str, float]
    style: _Style
    mark: _Style

    def label(self, figure: str) -> str:
        return f"{self.name}: {figure.upper()} {self.figures[figure]:.4f}" if self.name else ""


def _models(curve: Curve, figures: dict[str, float], against: Against | None) -> list[_Model]:
    point = {"ls": "", "marker": "o", "color": _VERMILION}
    if against is None:
        return [_Model("", curve, figures, _OWN, point)]
    edge = {"mec": "#000000", "mew": 0.8, "ms": 7}
    return [
        _Model(
            _short(against.own_name), curve, figures, _OWN, {**point, **edge, "color": _BLUE}
        ),
        _Model(
            _short(against.name), against.curve, against.figures, _OTHER,
            {**point, **edge, "marker": "D", "ms": 6},
        ),
    ]  # fmt: skip


def _short(name: str, longest: int = 24) -> str:
    return name if len(name) <= longest else name[: longest - 1] + "…"


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
        patch.set(edgecolor=_GREY, linewidth=0.6)  # or it could not be seen where it lies on itself
    for text, handle in zip(legend.get_texts(), handles, strict=True):
        write_text(text, str(handle.get_label()))


def _finish_linear_roc(axes: Axes, models: list[_Model]) -> None:
    axes.plot([0, 1], [0, 1], color=_GREY, ls=":", lw=1, label="chance")
    for model in models:
        eer = model.figures["eer"]
        axes.plot(eer, 1 - eer, label=model.label("eer") or f"EER {eer:.4f}", **model.mark)
    axes.set_xlim(0, 1)
    if len(models) == 1:
        axes.set_title(f"AUC {models[0].figures['auc']:.4f}", fontsize=11)
    _legend(axes, "lower right")


def _finish_log_roc(axes: Axes, models: list[_Model]) -> None:
    lowest = _lowest_rate(max(model.figures["impostor_pairs"] for model in models))
    chance = np.geomspace(lowest, 1, 200)
    axes.plot(chance, chance, color=_GREY, ls=":", lw=1)
    _log_x_axis(axes, lowest)
    _too_few_people(axes, models[0].figures, (lowest, 1.0))
    _legend(axes, "best")


def _too_few_people(axes: Axes, figures: dict[str, float], limits: tuple[float, float]) -> None:
    """Mark the rates that the number of people does not support."""
    supported = min(limits[1], figures["lowest_supported_fmr"])
    if supported > limits[0]:
        axes.axvspan(limits[0], supported, color=_ZONE, lw=0, label=_TOO_FEW)


def _lowest_rate(pairs: float) -> float:
    """The lowest rate above 0 among so many pairs, and no axis longer than nine decades."""
    return max(1 / max(2, pairs), 1e-9)


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


def _deviates(rates: npt.ArrayLike) -> Floats:
    """Standard normal quantiles, any shape; outside of (0, 1) not finite."""
    return np.asarray(torch.special.ndtri(torch.tensor(np.asarray(rates, np.float64))))


def _shares(deviates: npt.ArrayLike) -> Floats:
    """Standard normal distribution function, any shape."""
    return np.asarray(torch.special.ndtr(torch.tensor(np.asarray(deviates, np.float64))))


def _inner(curve: Curve) -> tuple[Floats, Floats]:
    """FMR and FNMR where both lie inside (0, 1)."""
    x, y = curve.fmr, curve.fnmr
    inside = (x > 0) & (x < 1) & (y > 0) & (y < 1)
    return x[inside], y[inside]


def _deviate_axes(axes: Axes, drawn: Sequence[tuple[Floats, Floats]]) -> tuple[float, float]:
    """Make both axes normal-deviate, with the same limits and ticks; returns the limits.

    They reach from below the curves' least rates to 40 %, or further for a model that errs more
    often: no threshold of it may have both rates below.
    """
    nearest = [float(np.maximum(x, y).min()) for x, y in drawn if len(x)]
    enough = max(nearest, default=0.0)
    high = min([r for r in _RATES if r >= 0.4 and r > min(1.2 * enough, 0.985)], default=0.99)
    shown = [np.concatenate([x, y])[np.tile((x <= high) & (y <= high), 2)] for x, y in drawn]
    least = min((float(rates.min()) for rates in shown if len(rates)), default=0.01)
    # On to the next round rate, so that the curve ends inside.
    low = max([rate for rate in _RATES if rate < min(0.01, least)], default=min(_RATES))
    low = min(low, 0.005)
    first, last = _deviates([low, high])
    letter = 0.016 * (last - first)
    ticks: list[float] = []
    for rate in _RATES:
        near = (
            abs(float(_deviates(rate) - _deviates(tick)))
            < letter * (1 + (len(_percent(rate)) + len(_percent(tick))) / 2)
            for tick in ticks
        )
        if low <= rate <= high and not any(near):
            ticks.append(rate)
    for axis, scale in ((axes.xaxis, axes.set_xscale), (axes.yaxis, axes.set_yscale)):
        scale("function", functions=(_deviates, _shares))
        axis.set_major_locator(FixedLocator(ticks))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda rate, _: _percent(rate)))
    axes.set(xlim=(low, high), ylim=(low, high), box_aspect=1)
    return low, high


def _percent(rate: float) -> str:
    return f"{100 * rate:.7f}".rstrip("0").rstrip(".")
