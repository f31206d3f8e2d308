"""Figures: what they show, that they are written, that names never become boxes."""

import base64
import re
import warnings
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from PIL import Image
from scipy.stats import norm

from siamese.drawing.figure import blank_figure, fix_margins, name_ticks, save_figure, svg_of
from siamese.drawing.text import drawable, font_note
from siamese.report.verification_plots import (
    Against,
    cmc_figure,
    det_figure,
    open_set_figure,
    pr_figure,
    reliability_figure,
    roc_figure,
    score_figure,
    too_few_enrolled,
)
from siamese.tasks.classes.class_figures import confusion_figure
from siamese.verification.counts import PairCounts, count_pairs, counts_of
from siamese.verification.metrics import Curve, curve, summarise

CURVES = {"roc": roc_figure, "pr": pr_figure, "det": det_figure}
ALL = [*CURVES, "scores", "cmc", "open set", "reliability"]


def scores(people: int = 6, images: int = 5, noise: float = 0.8) -> PairCounts:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(people), images)
    vectors = rng.normal(size=(people, 16))[labels]
    return count_pairs(vectors + rng.normal(scale=noise, size=vectors.shape), labels)


def draw(kind: str, found: PairCounts, title: str = "six people", rival: str | None = None):
    points, figures = curve(found), summarise(found)
    other = curve(scores(noise=1.2))
    if kind in CURVES:
        against = None
        if rival is not None:
            against = Against(rival, "own", other, summarise(scores(noise=1.2)))
        return CURVES[kind](points, figures, title, against)
    if kind == "scores":
        return score_figure(found, title)
    if kind == "cmc":
        models = [("own", points.recall[1:]), (rival, other.recall[1:])]
        return cmc_figure(models if rival else models[:1], title)
    if kind == "open set":
        models = [("own", points.fmr, points.fnmr), (rival, other.fmr, other.fnmr)]
        return open_set_figure(models if rival else models[:1], title)
    predicted = np.linspace(0, 1, 7)
    return reliability_figure(predicted, predicted**2, np.arange(7) ** 6, title)


def lines(axes) -> list[tuple[np.ndarray, np.ndarray]]:
    """Data of an axes' lines that are neither dotted nor single points."""
    thick = [
        line for line in axes.lines if line.get_linewidth() > 1.5 and len(line.get_xdata()) > 1
    ]
    return [line.get_data() for line in thick]


@pytest.mark.parametrize("kind", ALL)
def test_png_svg_and_pdf_are_written(tmp_path, kind):
    paths = save_figure(draw(kind, scores()), tmp_path / "v1.2" if kind == "pr" else tmp_path / "a")
    assert [path.suffix for path in paths] == [".png", ".svg", ".pdf"]
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in paths}
    with Image.open(paths[0]) as image:
        assert min(image.size) > 500
        assert len(image.convert("RGB").getcolors(1 << 24)) > 50
    assert ElementTree.parse(paths[1]).getroot().tag.endswith("svg")
    assert paths[1].stat().st_size > 5000


def test_the_roc_curve_is_drawn_on_linear_and_on_logarithmic_axes():
    found = scores()
    points, figures = curve(found), summarise(found)
    linear, log = draw("roc", found).axes
    for axes in (linear, log):
        x, y = axes.lines[0].get_data()
        assert np.array_equal(x, points.fmr)
        assert np.array_equal(y, points.recall)
    assert (linear.get_xscale(), log.get_xscale()) == ("linear", "log")
    assert log.get_xlim() == pytest.approx((1 / figures["impostor_pairs"], 1))
    marks = [line.get_data() for line in linear.lines if line.get_marker() == "o"]
    assert np.ravel(marks) == pytest.approx([figures["eer"], 1 - figures["eer"]])
    assert f"{figures['auc']:.4f}" in linear.get_title()


@pytest.mark.parametrize("panel", ["linear", "log"])
def test_one_panel_of_the_roc_can_be_drawn_alone(panel):
    found = scores()
    (axes,) = roc_figure(curve(found), summarise(found), "", panels=(panel,)).axes
    assert axes.get_xscale() == panel
    assert np.array_equal(axes.lines[0].get_ydata(), curve(found).recall)


def test_the_chance_line_of_roc_is_the_diagonal():
    linear, log = draw("roc", scores()).axes
    for axes in (linear, log):
        assert any(np.array_equal(*line.get_data()) for line in axes.lines[1:])


@pytest.mark.parametrize(("people", "images"), [(2, 9), (20, 2)])
def test_the_chance_line_of_pr_is_the_share_of_genuine_pairs(people, images):
    found = scores(people, images)
    axes = draw("pr", found).axes[0]
    share = found.genuine_pairs / (found.genuine_pairs + found.impostor_pairs)
    chance = [line for line in axes.lines if str(line.get_label()).startswith("chance")]
    assert [list(line.get_ydata()) for line in chance] == [[share, share]]
    assert chance[0].get_label() == f"chance {share:.4f}"
    assert f"AP {summarise(found)['ap']:.4f}" in axes.get_title()


def legend(axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().texts] if axes.get_legend() else []


@pytest.mark.parametrize("draw_curve", [roc_figure, det_figure])
@pytest.mark.parametrize(("people", "grey"), [(4, True), (600, False)])
def test_unsupported_rates_are_marked(draw_curve, people, grey):
    found = scores(4)
    lowest = min(1, 6 / (people * (people - 1)))
    axes = draw_curve(curve(found), {**summarise(found), "lowest_supported_fmr": lowest}, "").axes
    assert ("too few people for this FMR" in legend(axes[-1])) == grey
    if grey:
        (zone,) = axes[-1].patches
        assert zone.get_x() + zone.get_width() == pytest.approx(min(lowest, axes[-1].get_xlim()[1]))


@pytest.mark.parametrize("noise", [0.0, 0.8])
def test_histograms_hold_every_score_with_area_one(noise):
    found = scores(noise=noise)
    axes = draw("scores", found).axes[0]
    heights = {}
    for patch in axes.patches:
        values, edges, _ = patch.get_data()
        assert np.sum(values * np.diff(edges)) == pytest.approx(1)
        heights[patch.get_label()] = (values, edges)
    assert legend(axes) == ["impostor", "genuine"]
    for name, pairs in (("genuine", found.genuine), ("impostor", found.impostor)):
        values, edges = heights[name]
        each = np.repeat(found.score, pairs)
        assert np.allclose(values, np.histogram(each, edges, density=True)[0])


# Rates of normally distributed scores are a straight line on normal-deviate axes.


def test_a_det_curve_of_normal_scores_is_straight_and_lies_where_the_quantiles_say():
    threshold = np.linspace(4, -3, 400)
    fmr, fnmr = norm.sf(threshold), norm.cdf(threshold - 1.5)
    points = Curve(threshold, fmr, fnmr, np.ones(400))
    eer = float(norm.cdf(-0.75))
    figures = {"eer": eer, "lowest_supported_fmr": 0.0, "impostor_pairs": 1e6}
    figure = det_figure(points, figures, "")
    (axes,) = figure.axes
    figure.canvas.draw()
    ((x, y),) = lines(axes)
    assert np.array_equal(x, fmr)
    assert np.array_equal(y, fnmr)
    pixels = axes.transData.transform(np.column_stack([fmr, fnmr]))
    assert np.polyfit(*pixels.T, 1, full=True)[1] < 1e-9
    (left, right), box = norm.ppf(axes.get_xlim()), axes.bbox
    for rate in (0.01, 0.05, 0.4):
        expected = box.x0 + box.width * (norm.ppf(rate) - left) / (right - left)
        assert axes.transData.transform((rate, rate))[0] == pytest.approx(expected)
    (mark,) = [line for line in axes.lines if line.get_marker() == "o"]
    assert np.ravel(mark.get_data()).tolist() == [eer, eer]
    assert f"EER {eer:.4f}" in axes.get_title()


def test_det_ticks_are_round_percentages_that_do_not_touch():
    figure = draw("det", scores(30, 8))
    figure.canvas.draw()
    (axes,) = figure.axes
    texts = [text.get_text() for text in axes.get_xticklabels()]
    assert {"1", "2", "5", "10", "20", "40"} <= set(texts)
    assert texts == [text.get_text() for text in axes.get_yticklabels()]
    assert axes.get_xlim() == axes.get_ylim()
    for axis in (axes.xaxis, axes.yaxis):
        boxes = [text.get_window_extent() for text in axis.get_ticklabels()]
        boxes.sort(key=lambda box: (box.x0, box.y0))
        assert not any(a.overlaps(b) for a, b in pairwise(boxes))


@pytest.mark.parametrize(
    ("spread", "ends"), [(1.5, ("0.00001", "40")), (0.7, ("0.001", "40")), (0.2, ("10", "60"))]
)
def test_det_ticks_fit_good_and_bad_models(spread, ends):
    threshold = np.linspace(6, -6, 900)
    fmr, fnmr = norm.sf(threshold + 3 * spread / 2 - 0.5), norm.cdf(threshold - 3 * spread / 2)
    points = Curve(threshold, fmr, fnmr, np.ones(900))
    figures = {"eer": 0.2, "lowest_supported_fmr": 0.0, "impostor_pairs": 1e6}
    figure = det_figure(points, figures, "")
    figure.canvas.draw()
    (axes,) = figure.axes
    for axis in (axes.xaxis, axes.yaxis):
        labels = [text for text in axis.get_ticklabels() if text.get_text()]
        assert {"1", "2", "5", "10", "20", "40"} <= {text.get_text() for text in labels}
        boxes = sorted((text.get_window_extent() for text in labels), key=lambda b: (b.x0, b.y0))
        assert not any(a.overlaps(b) for a, b in pairwise(boxes))


def test_pictures_are_the_same_bytes_each_time_and_hold_their_fonts_as_truetype(tmp_path):
    first, second = ([p.read_bytes() for p in save_figure(draw("pr", scores()), tmp_path / name)]
                     for name in "ab")  # fmt: skip
    assert first == second
    assert b"CreationDate" not in first[2]
    assert b"/FontFile2" in first[2]
    assert b"/Type3" not in first[2]


@pytest.mark.parametrize("kind", ["roc", "pr", "scores"])
def test_fixed_margins_hold_the_labels_as_measured_ones_do(kind):
    """Of what a run draws after each epoch."""
    figure = draw(kind, scores(), ("a run, epoch 12", "10 validation people of faces"))
    fix_margins(figure)
    figure.canvas.draw()
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    for box in boxes:
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.width
        assert box.y1 <= figure._suptitle.get_window_extent().y0
    assert not any(a.overlaps(b) for a, b in pairwise(boxes))


def test_a_saved_figure_is_laid_out_anew_when_it_changes(tmp_path):
    """Though its second and third file took the layout of the first."""
    figure = draw("pr", scores())
    save_figure(figure, tmp_path / "a")
    place = figure.axes[0].get_position().x0
    figure.axes[0].set_ylabel("a label\nof three\nlines")
    figure.canvas.draw()
    assert figure.axes[0].get_position().x0 > place


@pytest.mark.parametrize("kind", ALL)
def test_a_figure_names_its_model_and_its_data_however_long(kind):
    figure = draw(kind, scores(), ("a/checkpoint/" * 20 + "best.pt", "people"))
    figure.canvas.draw()
    first, second = figure.get_suptitle().split("\n")
    assert first.startswith("a/check")
    assert first.endswith("best.pt")
    assert second == "people"
    box = figure._suptitle.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width


def test_det_leaves_out_rates_of_none_and_all():
    points = Curve(
        np.arange(5.0), np.array([0, 0.1, 0.2, 0.5, 1]), np.array([1, 0.5, 0.3, 0, 0]), np.ones(5)
    )
    figures = {"eer": 0.25, "lowest_supported_fmr": 0.0, "impostor_pairs": 10}
    ((x, y),) = lines(det_figure(points, figures, "").axes[0])
    assert (x.tolist(), y.tolist()) == ([0.1, 0.2], [0.5, 0.3])


def test_a_perfect_model_has_an_empty_det_that_says_so():
    (axes,) = draw("det", scores(noise=0.0)).axes
    assert lines(axes) == []
    assert "nothing can be drawn" in axes.texts[0].get_text()


@pytest.mark.parametrize("ranks", [10, 30, 200])
def test_cmc_is_drawn_over_ranks_from_one(ranks):
    rates = np.linspace(0.4, 0.9, ranks)
    (axes,) = cmc_figure([("", rates)], "").axes
    x, y = axes.lines[0].get_data()
    assert x.tolist() == list(range(1, ranks + 1))
    assert np.array_equal(y, rates)
    assert axes.get_xscale() == ("log" if ranks > 50 else "linear")
    assert axes.get_title() == "rank 1: 0.4000"


@pytest.mark.parametrize("ranks", [2, 9])
def test_a_gallery_of_too_few_people_has_a_note_instead_of_a_line(ranks):
    (axes,) = cmc_figure([("", np.linspace(0.5, 1, ranks))], "").axes
    assert lines(axes) == []
    assert f"{ranks} enrolled people are too few" in " ".join(axes.texts[0].get_text().split())
    assert axes.get_title() == ""
    found = curve(scores())
    (axes,) = open_set_figure([("", found.fmr, found.fnmr)], "", few=too_few_enrolled(ranks)).axes
    assert lines(axes) == []
    assert "no line is drawn" in axes.texts[0].get_text()
    assert "\\n" not in axes.texts[0].get_text()


def test_open_set_errors_are_drawn_on_a_logarithmic_axis():
    found = curve(scores())
    (axes,) = open_set_figure([("", found.fmr, found.fnmr)], "").axes
    ((x, y),) = lines(axes)
    assert np.array_equal(x, found.fmr)
    assert np.array_equal(y, found.fnmr)
    assert axes.get_xscale() == "log"
    assert axes.get_xlim() == pytest.approx((found.fmr[found.fmr > 0].min(), 1))


def test_reliability_leaves_out_empty_bins():
    predicted, observed = np.array([0.1, 0.5, 0.9]), np.array([0.2, np.nan, 0.8])
    axes, strip = reliability_figure(predicted, observed, np.array([100, 0, 3]), "").axes
    ((x, y),) = lines(axes)
    assert (x.tolist(), y.tolist()) == ([0.1, 0.9], [0.2, 0.8])
    bars = [path.vertices for path in strip.collections[0].get_paths()]
    assert [(bar[0, 0], bar[1, 1]) for bar in bars] == [(0.1, 100), (0.9, 3)]


# A second model.


@pytest.mark.parametrize("kind", [*CURVES, "cmc", "open set"])
def test_a_second_model_has_its_own_line_colour_and_name(kind):
    axes = draw(kind, scores(), rival="_夏子 $x_$").axes[0]
    own, other = [line for line in axes.lines if line.get_linewidth() > 1.5][:2]
    single = draw(kind, scores()).axes[0].lines[0]
    assert np.array_equal(own.get_data(), single.get_data())
    assert not np.array_equal(other.get_ydata(), own.get_ydata())
    assert own.get_color() == single.get_color() != other.get_color()
    assert own.get_linestyle() == "-" != other.get_linestyle()
    assert any(text.startswith("own") for text in legend(axes))
    assert sum(text.startswith(drawable("_夏子 $x_$")[0]) for text in legend(axes)) in (1, 2)
    assert not any(text.get_parse_math() for text in axes.get_legend().texts)


def test_a_long_name_is_shortened_in_the_legend():
    texts = legend(draw("pr", scores(), rival="x" * 100).axes[0])
    assert max(map(len, texts)) < 40
    assert any(text.startswith("xxxx") and "…" in text for text in texts)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("rival", [None, "other"])
@pytest.mark.parametrize("vectors", [np.ones((3, 4)), [[1, 0], [0, 1], [1, 0]]])
def test_extreme_scores_are_drawn_without_a_warning(kind, rival, vectors):
    found = count_pairs(np.asarray(vectors, np.float32), [0, 0, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = draw(kind, found, rival=rival)
        figure.canvas.draw()
        svg_of(figure)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("scored", [([0.9, 0.1], [True, False]), ([0.1, 0.9], [True, False])])
def test_a_single_pair_of_each_kind_is_drawn_without_a_warning(kind, scored):
    found = counts_of(*scored, identities=2, images=4, identity_pairs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw(kind, found).canvas.draw()


# Figures inside a page.

SVG = "{http://www.w3.org/2000/svg}"


def parsed(image: str) -> ElementTree.Element:
    """The SVG inside an ``<img>`` element."""
    found = re.fullmatch(
        r'<img src="data:image/svg\+xml;base64,([\w+/=]+)" width="\d+" height="\d+" alt="">', image
    )
    assert found is not None
    return ElementTree.fromstring(base64.b64decode(found[1]))


@pytest.mark.parametrize("kind", ALL)
def test_an_svg_for_a_page_is_a_small_image_without_background(kind):
    image = svg_of(draw(kind, scores(), rival="other"))
    root = parsed(image)
    assert root.tag == f"{SVG}svg"
    assert root.find(f".//{SVG}path").get("style") == "fill: none"
    assert len(image) < 60_000


def test_text_of_an_svg_is_text():
    texts = ["".join(e.itertext()) for e in parsed(svg_of(draw("pr", scores()))).iter(f"{SVG}text")]
    assert "recall: genuine pairs accepted" in texts
    assert "six people" in texts


def test_an_svg_is_the_same_each_time_and_leaves_the_figure_as_it_was():
    figure = draw("roc", scores())
    size = figure.get_size_inches().tolist()
    first = svg_of(figure)
    assert svg_of(draw("roc", scores())) == first
    assert svg_of(figure) == first
    assert figure.get_size_inches().tolist() == size


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("$x_$", "$x_$"),
        ('<b> & " id="x" url(#a)', '<b> & " id="x" url(#a)'),
        ("a\x07b", "a\\x07b"),
        ("caf\udce9", "caf\\udce9"),
        ("夏\ufffe", "\\u590f\\ufffe"),
    ],
)
def test_names_in_an_svg_are_as_in_every_picture(plain_fonts, name, shown):
    svg = svg_of(draw("pr", scores(), rival=name))
    texts = ["".join(e.itertext()) for e in parsed(svg).iter(f"{SVG}text")]
    assert any(text.startswith(f"{shown}: AP") for text in texts)


# Names in any script. Bug: matplotlib's own "Last Resort" font is taken, a box for each character.


@pytest.fixture
def plain_fonts(monkeypatch):
    """Only the fonts that matplotlib brings along, whatever this machine has."""
    manager = font_manager.fontManager
    own = [font for font in manager.ttflist if font.fname.startswith(matplotlib.get_data_path())]
    monkeypatch.setattr(manager, "ttflist", own)
    return manager


def write_font(path: Path, family: str, characters: str) -> str:
    """A font in which each of the characters is a square."""
    pen = TTGlyphPen(None)
    pen.moveTo((100, 0))
    for corner in ((100, 700), (800, 700), (800, 0)):
        pen.lineTo(corner)
    pen.closePath()
    names = [".notdef", *(f"uni{ord(character):04X}" for character in characters)]
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder(names)
    font.setupCharacterMap({ord(c): name for c, name in zip(characters, names[1:], strict=True)})
    font.setupGlyf(dict.fromkeys(names, pen.glyph()))
    font.setupHorizontalMetrics(dict.fromkeys(names, (900, 100)))
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": family, "styleName": "Regular"})
    font.setupOS2(sTypoAscender=800, sTypoDescender=-200)
    font.setupPost()
    font.save(path)
    return str(path)


def save_without_warnings(title: str, folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, svg, _ = save_figure(draw("pr", scores(), title), folder / "pr")
    ElementTree.parse(svg)


def test_latin_text_stays_in_the_default_font(plain_fonts):
    assert drawable("Zoë, 3 others") == ("Zoë, 3 others", ["sans-serif"])


@pytest.mark.parametrize(
    ("title", "shown"),
    [
        ("夏子 against 3 others", "\\u590f\\u5b50 against 3 others"),
        ("😀\U00020000", "😀\\U00020000"),
        ("a\x07b", "a\\x07b"),
        ("caf\udce9", "caf\\udce9"),
    ],
)
def test_without_a_font_for_it_text_is_escaped(plain_fonts, tmp_path, title, shown):
    assert drawable(title)[0] == shown
    save_without_warnings(title, tmp_path)


def test_a_font_that_has_the_characters_is_chosen(plain_fonts, tmp_path):
    latin = "abcdefghijklmnopqrstuvwxyz0123456789 "
    plain_fonts.addfont(write_font(tmp_path / "half.ttf", "Half Gothic", latin + "夏"))
    plain_fonts.addfont(write_font(tmp_path / "whole.ttf", "Whole Gothic", latin + "夏子"))
    title = "夏子 against 3 others"
    assert drawable(title) == (title, ["sans-serif", "Whole Gothic"])
    figure = draw("roc", scores(), title)
    assert figure.get_suptitle() == title
    save_without_warnings(title, tmp_path)


def test_a_font_file_that_cannot_be_read_is_passed_over(plain_fonts, tmp_path):
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    for file in ("broken.ttf", "gone.ttf"):
        entry = font_manager.FontEntry(fname=str(tmp_path / file), name="Aaa")
        plain_fonts.ttflist.append(entry)
    assert drawable("夏")[0] == "\\u590f"


@pytest.mark.parametrize("title", ["<b> & 'c' \"d\"", "a -- b --", "50% \\n", "{x} ^_^"])
def test_marks_with_a_meaning_elsewhere_are_drawn_as_they_are(plain_fonts, tmp_path, title):
    assert draw("pr", scores(), title).get_suptitle() == title
    save_without_warnings(title, tmp_path)


# matplotlib reads a name between dollar signs as TeX mathematics (and stops where it is not
# valid), and draws wide spaces and tabs as boxes.


@pytest.mark.parametrize("title", ["$x_$ against 3 others", "$a$ against 3 others"])
def test_dollar_signs_are_drawn_as_they_are(plain_fonts, tmp_path, title):
    save_without_warnings(title, tmp_path)
    texts = draw("pr", scores(), title).texts
    assert [text.get_parse_math() for text in texts] == [False]


@pytest.mark.parametrize("title", ["山田\u3000夏子", "a\tb", "a\u2028b"])
def test_unusual_spaces_are_never_boxes(plain_fonts, tmp_path, title):
    save_without_warnings(title, tmp_path)


# Bug: letters that no font has were drawn as boxes in some pictures and as codes in others.


def pixels(figure) -> np.ndarray:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba()).copy()


def pictures_of(name: str) -> list[np.ndarray]:
    """A name in a title, in a legend, beside a confusion matrix, in lists."""
    matrix = np.array([[9, 1], [2, 8]])
    listed = blank_figure("", 5.6)
    name_ticks(listed.add_subplot().yaxis, [name, "b"])
    return [
        *map(
            pixels,
            (
                draw("pr", scores(), name),
                draw("pr", scores(), rival=name),
                confusion_figure(matrix, [name, "b"], ""),
                listed,
            ),
        ),
    ]


@pytest.mark.parametrize(
    ("name", "codes", "package"),
    [
        ("夏子", "\\u590f\\u5b50", "fonts-noto-cjk"),
        ("हि", "\\u0939\\u093f", "fonts-noto-core"),
        ("ไทย", "\\u0e44\\u0e17\\u0e22", "fonts-noto-core"),
        ("a\u202eb", "a\\u202eb", None),
    ],
)
def test_without_a_font_every_picture_shows_codes_and_one_line_names_a_package(
    plain_fonts, name, codes, package
):
    font_note()
    expected = pictures_of(codes)
    assert font_note() is None
    for drawn, wanted in zip(pictures_of(name), expected, strict=True):
        assert np.array_equal(drawn, wanted)
    note = font_note()
    assert (note is None) if package is None else note.endswith(f"apt install {package})")
    assert font_note() is None, "told once"


def test_with_a_font_every_picture_shows_the_letters(plain_fonts, tmp_path):
    codes = pictures_of("\\u590f")
    plain_fonts.addfont(write_font(tmp_path / "one.ttf", "One Gothic", "夏"))
    font_note()
    for drawn, escaped in zip(pictures_of("夏"), codes, strict=True):
        assert not np.array_equal(drawn, escaped)
    assert font_note() is None


def test_scripts_of_two_fonts_stand_in_one_line(plain_fonts, tmp_path):
    plain_fonts.addfont(write_font(tmp_path / "a.ttf", "A Gothic", "夏"))
    plain_fonts.addfont(write_font(tmp_path / "b.ttf", "B Gothic", "ह"))
    assert drawable("夏 ह") == ("夏 ह", ["sans-serif", "A Gothic", "B Gothic"])
    save_without_warnings("夏 ह", tmp_path)


# Bug: the labels were set to "" and edited afterwards; the axis's formatter wrote "" over them.


def test_the_confusion_picture_has_its_classes_names_when_it_is_drawn():
    figure = confusion_figure(np.eye(3, dtype=int), ["cat", "$dog_$", "_x"], "model")
    blank = confusion_figure(np.eye(3, dtype=int), [" ", " ", " "], "model")
    assert (pixels(figure) != pixels(blank)).any()
    for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis):
        assert [text.get_text() for text in axis.get_ticklabels()] == ["cat", "$dog_$", "_x"]
        assert not any(text.get_parse_math() for text in axis.get_ticklabels())
