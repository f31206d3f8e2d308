"""ROC, PR and score histograms as matplotlib figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from siamese.report.text import drawable
from siamese.verification.figures import Curve
from siamese.verification.scores import PairScores

# Okabe-Ito: told apart by colour-blind readers, and by brightness when printed in grey.
_BLUE, _VERMILION, _GREY = "#0072B2", "#D55E00", "#666666"


def roc_figure(curve: Curve, figures: dict[str, float], title: str) -> Figure:
    """ROC on linear axes, and on a logarithmic FMR axis where deployed thresholds lie."""
    figure = _figure(title, width=9.6)
    linear, log = figure.subplots(1, 2)
    for axes in (linear, log):
        axes.plot(curve.fmr, curve.recall, color=_BLUE, lw=1.8, drawstyle="steps-post")
        axes.set_xlabel("FMR: impostor pairs accepted")
        axes.set_ylabel("1 - FNMR: genuine pairs accepted")
        axes.set_ylim(0, 1.01)
        axes.grid(color="0.9")
    linear.plot([0, 1], [0, 1], color=_GREY, ls=":", lw=1, label="chance")
    linear.plot(
        figures["eer"],
        1 - figures["eer"],
        "o",
        color=_VERMILION,
        label=f"EER {figures['eer']:.4f}",
    )
    linear.set_xlim(0, 1)
    linear.set_title(f"AUC {figures['auc']:.4f}", fontsize=11)
    linear.legend(loc="lower right", frameon=False)
    lowest = max(1 / figures["impostor_pairs"], 1e-9)
    log.plot(np.geomspace(lowest, 1, 200), np.geomspace(lowest, 1, 200), color=_GREY, ls=":", lw=1)
    log.set_xscale("log")
    log.set_xlim(lowest, 1)
    supported = figures["lowest_supported_fmr"]
    if supported > lowest:
        log.axvspan(lowest, min(1.0, supported), color="0.93", lw=0)
        log.text(
            0.02, 0.02, "grey: too few people\nto support an FMR this low", fontsize=8,
            color=_GREY, transform=log.transAxes, va="bottom",
        )  # fmt: skip
    log.set_title("the same, logarithmic FMR", fontsize=11)
    return figure


def pr_figure(curve: Curve, figures: dict[str, float], title: str) -> Figure:
    """Precision over recall, with the line of chance: the share of genuine pairs."""
    figure = _figure(title, width=5.6)
    axes = figure.subplots()
    axes.plot(curve.recall, curve.precision, color=_BLUE, lw=1.8, drawstyle="steps-pre")
    chance = figures["genuine_pairs"] / (figures["genuine_pairs"] + figures["impostor_pairs"])
    axes.axhline(chance, color=_GREY, ls=":", lw=1, label=f"chance {chance:.4f}")
    axes.set(xlabel="recall: genuine pairs accepted", ylabel="precision: accepted pairs genuine")
    axes.set(xlim=(0, 1), ylim=(0, 1.01))
    axes.set_title(f"AP {figures['ap']:.4f}", fontsize=11)
    axes.grid(color="0.9")
    axes.legend(loc="upper right", frameon=False)
    return figure


def score_figure(scores: PairScores, title: str) -> Figure:
    """Histogram of the scores of each class, each of area 1."""
    figure = _figure(title, width=5.6)
    axes = figure.subplots()
    low = float(min(scores.genuine[0], scores.impostor[0]))
    bins = np.linspace(low if low < 1 else 0, 1, 81).tolist()
    for values, name, color in (
        (scores.impostor, "impostor", _VERMILION),
        (scores.genuine, "genuine", _BLUE),
    ):
        axes.hist(values, bins=bins, density=True, histtype="stepfilled", alpha=0.35, color=color)
        axes.hist(values, bins=bins, density=True, histtype="step", color=color, label=name)
    axes.set(xlabel="score: cosine similarity", ylabel="density")
    axes.legend(frameon=False)
    return figure


def save_figure(figure: Figure, stem: Path) -> list[Path]:
    """Write ``stem.png`` (150 dpi) and ``stem.svg``; returns both paths."""
    paths = [stem.with_name(f"{stem.name}.{ending}") for ending in ("png", "svg")]
    for path in paths:
        figure.savefig(path, dpi=150)
    return paths


def _figure(title: str, width: float) -> Figure:
    figure = Figure(figsize=(width, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    text, family = drawable(title)
    # A name may hold dollar signs: they are no mathematics.
    figure.suptitle(text, family=family, fontsize=11, parse_math=False)
    return figure
