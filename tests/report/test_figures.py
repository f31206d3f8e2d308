"""Figures: what they show, that they are written, that names never become boxes."""

import warnings
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from PIL import Image

from siamese.report.figures import pr_figure, roc_figure, save_figure, score_figure
from siamese.report.text import drawable
from siamese.verification.figures import curve, summarise
from siamese.verification.scores import PairScores, pair_scores


def scores(people: int = 6, images: int = 5, noise: float = 0.8) -> PairScores:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(people), images)
    vectors = rng.normal(size=(people, 16))[labels]
    return pair_scores(vectors + rng.normal(scale=noise, size=vectors.shape), labels)


def draw(kind: str, found: PairScores, title: str = "six people"):
    if kind == "scores":
        return score_figure(found, title)
    figure = roc_figure if kind == "roc" else pr_figure
    return figure(curve(found), summarise(found), title)


@pytest.mark.parametrize("kind", ["roc", "pr", "scores"])
def test_png_and_svg_are_written(tmp_path, kind):
    paths = save_figure(draw(kind, scores()), tmp_path / "v1.2" if kind == "pr" else tmp_path / "a")
    assert [path.suffix for path in paths] == [".png", ".svg"]
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


def test_the_chance_line_of_roc_is_the_diagonal():
    linear, log = draw("roc", scores()).axes
    for axes in (linear, log):
        assert any(np.array_equal(*line.get_data()) for line in axes.lines[1:])


@pytest.mark.parametrize(("people", "images"), [(2, 9), (20, 2)])
def test_the_chance_line_of_pr_is_the_share_of_genuine_pairs(people, images):
    found = scores(people, images)
    axes = draw("pr", found).axes[0]
    share = len(found.genuine) / (len(found.genuine) + len(found.impostor))
    lines = [line for line in axes.lines if str(line.get_label()).startswith("chance")]
    assert [list(line.get_ydata()) for line in lines] == [[share, share]]
    assert lines[0].get_label() == f"chance {share:.4f}"
    assert f"AP {summarise(found)['ap']:.4f}" in axes.get_title()


@pytest.mark.parametrize(("people", "grey"), [(4, True), (600, False)])
def test_unsupported_rates_are_marked(people, grey):
    found = scores(4)
    figures = {**summarise(found), "lowest_supported_fmr": min(1, 6 / (people * (people - 1)))}
    log = roc_figure(curve(found), figures, "").axes[1]
    assert any("too few people" in text.get_text() for text in log.texts) == grey


@pytest.mark.parametrize("noise", [0.0, 0.8])
def test_histograms_hold_every_score_with_area_one(noise):
    found = scores(noise=noise)
    axes = draw("scores", found).axes[0]
    for patch in axes.patches:
        corners = patch.get_xy()
        x, y = corners[:, 0], corners[:, 1]
        area = abs(np.sum(x * np.roll(y, 1) - y * np.roll(x, 1))) / 2
        if patch.get_fill():
            assert area == pytest.approx(1, rel=1e-6)
    assert {text.get_text() for text in axes.get_legend().texts} == {"impostor", "genuine"}


@pytest.mark.parametrize("kind", ["roc", "pr", "scores"])
@pytest.mark.parametrize("vectors", [np.ones((3, 4)), [[1, 0], [0, 1], [1, 0]]])
def test_extreme_scores_are_drawn_without_a_warning(tmp_path, kind, vectors):
    found = pair_scores(np.asarray(vectors, np.float32), [0, 0, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_figure(draw(kind, found), tmp_path / kind)


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
        _, svg = save_figure(draw("pr", scores(), title), folder / "pr")
    ElementTree.parse(svg)


def test_latin_text_stays_in_the_default_font(plain_fonts):
    assert drawable("Zoë, 3 others") == ("Zoë, 3 others", "sans-serif")


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
    assert drawable(title) == (title, "Whole Gothic")
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
