"""Matplotlib figures: one look, names in any script, written to files or drawn into a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from siamese.drawing.text import drawable
from siamese.files.writing import replacing

# Okabe-Ito: told apart by colour-blind readers, and by brightness when printed in grey.
BLUE, VERMILION, GREY = "#0072b2", "#d55e00", "#666666"
GRID, ZONE = "#e6e6e6", "#ededed"
Style = dict[str, Any]
Title = str | Sequence[str]  # one line, or several: a model, its data

_FORMATS: dict[str, Style] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
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
    engine = figure.get_layout_engine()
    try:
        for ending, metadata in _FORMATS.items():
            path = stem.with_name(f"{stem.name}.{ending}")
            with (
                replacing(path) as temporary,
                mpl.rc_context({"pdf.fonttype": 42, "svg.hashsalt": "siamese"}),
            ):
                figure.savefig(temporary, format=ending, dpi=150, metadata=metadata)
            paths.append(path)
            figure.set_layout_engine(None)  # the others take the first one's, which costs most
    finally:
        figure.set_layout_engine(engine)
    return paths


def svg_of(figure: Figure) -> str:
    """A figure as an ``<img>`` element that holds its SVG, for the inside of an HTML page.

    Its background is transparent and its text is text, in the fonts of whoever reads the page. The
    page's style sheet inverts it where the page is dark. Equal figures give equal elements.
    """
    width, height = figure.get_size_inches()
    drawn = io.BytesIO()
    try:
        # Narrower than on paper: so the letters stay readable on a phone.
        figure.set_size_inches(width * _ON_A_PAGE, height * _ON_A_PAGE)
        with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "siamese"}):
            figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    finally:
        figure.set_size_inches(width, height)
    data = base64.b64encode(drawn.getvalue()).decode()
    size = f'width="{100 * width:.0f}" height="{100 * height:.0f}"'
    return f'<img src="data:image/svg+xml;base64,{data}" {size} alt="">'


_ON_A_PAGE = 0.84


def blank_figure(title: Title, width: float, height: float = 4.4) -> Figure:
    """A figure with a title in any script; sides in inches.

    Args:
        title: of one line, or its lines (a model, its data); empty ones are left out. A line that
            is too long is set smaller, then cut in its middle.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    lines = [line for line in ([title] if isinstance(title, str) else title) if line]
    if lines:
        place = figure.suptitle("", fontsize=11)
        write_text(place, *lines)
        _fit(place, lines, 0.95 * _ON_A_PAGE * width * figure.dpi)  # see svg_of
    return figure


def fix_margins(figure: Figure) -> None:
    """Margins for a title of two lines and labels of usual size, in place of measured ones.

    Measuring takes longer than drawing: for what is drawn again and again.
    """
    width, height = figure.get_size_inches()
    figure.set_layout_engine(None)
    figure.subplots_adjust(
        left=0.75 / width,
        right=1 - 0.15 / width,
        bottom=0.6 / height,
        top=1 - 0.8 / height,
        wspace=0.2,
    )


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
    place.set_text("\n".join(line for line, _ in drawn))
    place.set_fontfamily(merged_families(drawn))
    place.set_parse_math(False)


def merged_families(drawn: Sequence[tuple[str, list[str]]]) -> list[str]:
    """The families of several texts."""
    return list(dict.fromkeys(family for _, families in drawn for family in families))


def name_ticks(axis: Axis, names: Sequence[str], **style: Any) -> None:
    """Names in any script at an axis's 0, 1, ...

    They are given to the axis: its formatter writes the labels anew whenever the figure is drawn,
    over whatever the labels themselves were told.
    """
    drawn = [drawable(name) for name in names]
    texts = [text for text, _ in drawn]
    families = merged_families(drawn)
    axis.set_ticks(range(len(texts)), texts, fontfamily=families, parse_math=False, **style)
