"""Pictures of a classifier's errors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from siamese.drawing.figure import Title, blank_figure, name_ticks, shortened

_LABELLED = 60  # classes beyond which names no longer fit
_NUMBERED = 20  # classes up to which the cells hold their numbers


def confusion_figure(
    confused: npt.NDArray[np.int64], classes: Sequence[str], title: Title
) -> Figure:
    """A confusion matrix, int64 (C, C): rows are the true classes, cells the row's share in per
    cent.
    """
    number = len(classes)
    side = min(12.0, max(5.0, 0.42 * min(number, 30) + 2.2))
    figure = blank_figure(title, side, side)
    axes = figure.add_subplot()
    totals = confused.sum(axis=1, keepdims=True)
    shares = np.divide(100 * confused, totals, out=np.zeros(confused.shape), where=totals > 0)
    # Errors are what one looks for: a scale up to 100 would drown them beside the diagonal.
    errors = shares - np.diag(np.diag(shares))
    top = max(1.0, float(errors.max()))
    picture = axes.imshow(np.minimum(shares, top), cmap="Blues", vmin=0, vmax=top)
    bar = figure.colorbar(picture, ax=axes, shrink=0.8)
    bar.set_label(f"per cent of the class's images (darkest: {top:.3g} and more)")
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    if number <= _LABELLED:
        size = 9 if number <= 20 else 6
        for axis, rotation in ((axes.xaxis, 90), (axes.yaxis, 0)):
            name_ticks(
                axis, [shortened(name, 28) for name in classes], fontsize=size, rotation=rotation
            )
    if number <= _NUMBERED:
        for row, column in np.argwhere(confused > 0):
            share = shares[row, column]
            axes.text(
                column,
                row,
                f"{share:.3g}" if share < 99.95 else "100",
                ha="center",
                va="center",
                fontsize=7,
                color="white" if min(share, top) > 0.6 * top else "black",
            )
    return figure
