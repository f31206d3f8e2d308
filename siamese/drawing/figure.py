"""Matplotlib figures: one look, names in any script, written to files or drawn into a page."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

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
# On a page each colour is the variable of this name, so that it can follow the page's theme.
_VARIABLES = {
    "#000000": "ink",
    GREY: "muted",
    GRID: "grid",
    ZONE: "zone",
    BLUE: "first",
    VERMILION: "second",
}
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
    place.set_fontfamily(merged_families(drawn))
    place.set_parse_math(False)


def _spelled(line: str) -> str:
    plain = line.replace("\n", "\\n")
    return _NO_XML.sub(lambda c: c[0].encode("unicode_escape").decode(), plain)


def merged_families(drawn: Sequence[tuple[str, list[str]]]) -> list[str]:
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
    families = merged_families(drawn)
    axis.set_ticks(range(len(texts)), texts, fontfamily=families, parse_math=False, **style)
