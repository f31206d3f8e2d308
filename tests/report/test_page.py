"""The page: what is in the file, and how a browser shows it."""

import base64
import io
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from siamese.drawing.figure import svg_of
from siamese.drawing.page import (
    Chart,
    Column,
    Facts,
    Gallery,
    Headline,
    Page,
    Pair,
    Picture,
    Table,
    write_page,
)
from siamese.errors import UserError
from siamese.report.verification_plots import roc_figure
from siamese.verification.counts import count_pairs
from siamese.verification.metrics import curve, summarise
from tests.browser import Browser, in_a_browser


def data_uri(color: str) -> str:
    file = io.BytesIO()
    Image.new("RGB", (8, 6), color).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def chart(panels: tuple[str, ...]) -> Chart:
    rng = np.random.default_rng(0)
    found = count_pairs(rng.normal(size=(20, 4)), np.repeat(np.arange(5), 4))
    figure = roc_figure(curve(found), summarise(found), "", panels=panels)
    return Chart("ROC", "accepted over accepted", svg_of(figure))


NAMES = ("夏子", "Anna Maria", "Zoë", "bob", "陳大文", "x" * 60)
ROWS = tuple(
    (name, pictures, rate, NAMES[0])
    for name, pictures, rate in zip(
        NAMES,
        ("1,200", "9", "30", "30", "2", "101"),
        ("—", "10.5 %", "9.1 %", "", "−1 %", "1e-3"),
        strict=True,
    )
)
PEOPLE = Table(
    "People",
    "each of them",
    (Column("person"), Column("pictures", True), Column("rate", True, "a rate"), Column("like")),
    ROWS,
)
PICTURES = [Picture(f"{n}/{i}.png", n, data_uri("red")) for i, n in enumerate(NAMES[:3])]
PAGE = Page(
    title="six people, all pairs",
    subtitle="best.pt",
    summary=("It tells people apart.",),
    hints=("Some pictures look like someone else's.",),
    headlines=(
        Headline("AUC", "0.7725", "0.70 to 0.83 (95 %)", "how often"),
        Headline("TAR @ FAR 0.1 %", "0.1", None, "accepted", "unsupported"),
    ),
    comparison=Table("a against b", "", (Column("figure"), Column("a", True)), (("AUC", "0.7"),)),
    charts=(chart(("linear",)), chart(("linear", "log"))),
    people=PEOPLE,
    galleries=(
        Gallery("Mistakes", "the worst", (Pair(PICTURES[0], PICTURES[1], "0.91", "refused"),)),
        Gallery("Others", "", (Pair(PICTURES[2], Picture("c/1.png", "c", None), "0.1"),)),
    ),
    facts=(Facts("Data", (("people", "6"), ("folder", "/data/" + "long_name/" * 30))),),
    glossary=(("EER", "where both errors are equal"),),
)


def written(folder: Path, page: Page) -> str:
    path = folder / "page.html"
    write_page(path, page)
    return path.read_text(encoding="utf-8")


class Elements(HTMLParser):
    """The elements of a page, its text, and whether its tags match."""

    EMPTY = frozenset({"meta", "link", "input", "img"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "wbr":  # a place to break the line: a path has as many as it has slashes
            return
        if tag == "bdi" and self.open[-1] == "bdi":  # so with the parts between them
            self.open.append(tag)
            return
        self.found.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text += data


def test_everything_given_is_on_the_page(tmp_path):
    page = Elements(written(tmp_path, PAGE))
    text = " ".join(page.text.split())
    for part in (
        PAGE.title, PAGE.subtitle, *PAGE.summary, *PAGE.hints, "0.7725", "0.70 to 0.83 (95 %)",
        "unsupported", "a against b", "accepted over accepted", *NAMES, "1,200", "−1 %", "a rate",
        "Mistakes", "0.91", "refused", "夏子/0.png", "not available", "long_name", "both errors",
    ):  # fmt: skip
        assert part in text
    assert page.open == []
    alts = [attributes["alt"] for tag, attributes in page.found if tag == "img"]
    pictures = ["夏子: 夏子/0.png", "Anna Maria: Anna Maria/1.png", "Zoë: Zoë/2.png"]
    assert alts == ["", "", *pictures]
    ids = [attributes["id"] for _, attributes in page.found if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_what_is_empty_is_left_out(tmp_path):
    page = Elements(written(tmp_path, Page("a title", "")))
    assert page.text.split() == ["a", "title", "siamese", "Dark", "a", "title"]
    assert not {"section", "table", "figure", "dl"} & {tag for tag, _ in page.found}


def test_the_page_needs_no_other_file(tmp_path):
    html = written(tmp_path, PAGE)
    assert not re.findall(r"\w+://[^\"' ]*", html)
    for _, attributes in Elements(html).found:
        for name in ("src", "href", "data", "srcset", "action"):
            value = attributes.get(name) or "data:"
            assert value.startswith(("data:", "#")), (name, value)
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttpRequest", html)


HOSTILE = (
    "<script>alert(1)</script>",
    "</script></style></title><img src=x onerror=alert(1)>",
    "\"' onmouseover='alert(1)\" x=`",
    "{{ page }} {% raw %} &amp; <!-- -->",
    "\u202egnp.exe \u200f\u2067",
    "]]>",
)


def hostile(name: str) -> Page:
    """A page with a name in every place that text can take."""
    picture = Picture(name, name, PICTURES[0].data)
    table = Table(
        name, name, (Column(name, False, name), Column(name, True, name)), ((name, name),)
    )
    return Page(
        name, name, (name,), (name,), (Headline(name, name, name, name, name),), table,
        (Chart(name, name, PAGE.charts[0].svg),), table,
        (Gallery(name, name, (Pair(picture, replace(picture, data=None), name, name),)),),
        (Facts(name, ((name, name),)),), ((name, name),),
    )  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_text_and_add_no_element(tmp_path, name):
    harmless = Elements(written(tmp_path, hostile("name")))
    page = Elements(written(tmp_path, hostile(name)))
    assert page.open == []
    assert page.text == harmless.text.replace("name", name)
    assert [tag for tag, _ in page.found] == [tag for tag, _ in harmless.found]
    assert [list(a) for _, a in page.found] == [list(a) for _, a in harmless.found]


@pytest.mark.parametrize(
    ("name", "shown"), [("caf\udce9", "caf\\udce9"), ("a\0b\x1b[1m\x85", "a\\x00b\\x1b[1m\\x85")]
)
def test_what_is_no_text_is_spelled_out(tmp_path, name, shown):
    page = Elements(written(tmp_path, hostile(name)))
    assert page.text == Elements(written(tmp_path, hostile(shown))).text


def test_only_the_pages_own_script_may_run(tmp_path):
    html = written(tmp_path, PAGE)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', html)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    assert re.fullmatch(r"'sha256-[\w+/]{43}='", rules["script-src"])
    assert html.index("Content-Security-Policy") < html.index("<title>")


def test_a_page_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "new" / "folder" / "page.html"
    write_page(path, Page("first", ""))
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    for module, name in ((os, "replace"), (Path, "write_bytes")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, fail)
            with pytest.raises(UserError, match="disk full"):
                write_page(path, Page("second", ""))
        assert path.read_bytes() == before
        assert [file.name for file in path.parent.iterdir()] == ["page.html"]
    write_page(path, Page("second", ""))
    assert b"second" in path.read_bytes()


def test_numbers_stay_whole_and_long_names_break_at_underscores(tmp_path):
    table = Table("people", "", (Column("person"),), (("Ann_<i>_B",),))
    write_page(tmp_path / "p.html", Page("t", "", ("down to 6.5e-06; <b>more",), people=table))
    text = (tmp_path / "p.html").read_text("utf-8")
    assert 'down to <span class="whole">6.5e-06</span>; &lt;b&gt;more' in text
    assert "Ann_<wbr>&lt;i&gt;_<wbr>B" in text


def test_equal_pages_are_equal_files(tmp_path):
    assert written(tmp_path, PAGE) == written(tmp_path, PAGE)


@pytest.mark.parametrize("data", ["http://example.org/a.png", "javascript:alert(1)", "a.png", ""])
def test_pictures_are_data_only(data):
    with pytest.raises(ValueError, match="data:image/"):
        Picture("a.png", "a", data)


def test_rows_that_do_not_fit_are_refused():
    columns = (Column("a"), Column("b", True))
    with pytest.raises(ValueError, match="do not match"):
        Table("t", "", columns, (("x",),))
    with pytest.raises(ValueError, match="do not match"):
        Table("t", "", columns, (("x", "1"), ("y", "2")), ((None, 1.0),))


@pytest.mark.parametrize(
    ("cell", "number"),
    [
        ("1,234.5 %", "1234.5"), ("−0.5", "-0.5"), ("+3", "3.0"), ("1e-3", "0.001"), ("0", "0.0"),
        ("0.9 (0.8 to 1)", "0.9"), ("12 000", "12000.0"), ("", ""), ("—", ""), ("n/a", ""),
        ("nan", ""),
    ],
)  # fmt: skip
def test_numeric_cells_are_sorted_by_the_number_they_begin_with(cell, number):
    assert Table("t", "", (Column("n", True),), ((cell,),)).sort_key(0, 0) == number
    assert Table("t", "", (Column("n", False),), ((cell,),)).sort_key(0, 0) == ""


def test_given_sort_values_win():
    table = Table(
        "t", "", (Column("n", True),), (("3",), ("4",), ("5",)), ((7.0,), (None,), (np.nan,))
    )
    assert [table.sort_key(row, 0) for row in range(3)] == ["7.0", "", ""]


# In a browser: the page that is tested is the file as it was written.


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.end()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "夏子 #1 100%.html"
    write_page(path, PAGE)
    return path


COLUMN = "[...document.querySelectorAll('#people-filter')].map(i => i.closest('.table'))[0]"


def column(browser: Browser, number: int) -> list[str]:
    """The shown cells of a column of the people table, as they stand."""
    return browser.value(
        f"[...{COLUMN}.querySelectorAll('tbody tr')].filter(r => r.offsetHeight)"
        f".map(r => r.cells[{number}].textContent)"
    )


def header(number: int) -> str:
    return f"section[aria-labelledby=people-title] th:nth-child({number + 1}) button"


def order(browser: Browser) -> list[str]:
    script = f"[...{COLUMN}.querySelectorAll('thead th')].map(h => h.getAttribute('aria-sort'))"
    return browser.value(script)


@in_a_browser
def test_the_browser_would_tell_of_errors(browser, tmp_path):
    policy = '<meta http-equiv="Content-Security-Policy" content="img-src data:">'
    for number, broken in enumerate(
        ("<script>nothing()</script>", "<script>console.error('x')</script>",
         f"{policy}<img src=http://127.0.0.1:9/a.png>")
    ):  # fmt: skip
        path = tmp_path / f"{number}.html"
        path.write_text(f"<!DOCTYPE html><title>x</title><link rel=icon href=data:,>{broken}")
        browser.open(path)
        assert browser.complaints(), broken


@in_a_browser
def test_the_page_opens_without_complaint_or_request_and_shows_its_pictures(browser, page_file):
    browser.open(page_file)
    assert browser.complaints() == []
    asked = {
        event["request"]["url"].split(":")[0] for event in browser.seen("Network.requestWillBeSent")
    }
    assert asked <= {"file", "data"}
    files = [event for event in browser.seen("Network.requestWillBeSent")
             if event["request"]["url"].startswith("file")]  # fmt: skip
    assert len(files) == 1
    widths = browser.value("[...document.images].map(i => i.complete && i.naturalWidth)")
    assert all(width > 200 for width in widths[:2])
    assert widths[2:] == [8, 8, 8]
    assert browser.value("document.compatMode") == "CSS1Compat"
    drawn = "[...document.querySelectorAll('.drawing img')].map(i => i.clientHeight)"
    assert all(height > 200 for height in browser.value(drawn))


@in_a_browser
def test_hostile_names_run_nothing(browser, tmp_path):
    page = replace(hostile(HOSTILE[1]), title="".join(HOSTILE))
    write_page(tmp_path / "a.html", page)
    browser.open(tmp_path / "a.html")
    assert browser.complaints() == []
    assert browser.value("document.querySelector('h1').textContent") == page.title
    # Even markup that got in would not run.
    bad = "<svg viewBox='0 0 1 1'><script>document.title = 'bad'</script></svg>"
    write_page(tmp_path / "b.html", replace(page, title="good", charts=(Chart("", "", bad),)))
    browser.open(tmp_path / "b.html")
    assert browser.value("document.title") == "good"
    assert len(browser.complaints()) == 1


@in_a_browser
def test_columns_sort_by_number_or_name_both_ways(browser, page_file):
    browser.open(page_file)
    assert order(browser) == ["none"] * 4
    browser.click(header(1))
    assert column(browser, 1) == ["2", "9", "30", "30", "101", "1,200"]
    assert order(browser) == ["none", "ascending", "none", "none"]
    browser.click(header(1))
    assert column(browser, 1) == ["1,200", "101", "30", "30", "9", "2"]
    assert column(browser, 0)[2:4] == ["Zoë", "bob"]  # equal ones keep their order
    assert order(browser) == ["none", "descending", "none", "none"]
    # Missing values are last whichever way.
    browser.click(header(2))
    assert column(browser, 2)[:4] == ["−1 %", "1e-3", "9.1 %", "10.5 %"]
    browser.click(header(2))
    assert column(browser, 2)[:4] == ["10.5 %", "9.1 %", "1e-3", "−1 %"]
    assert set(column(browser, 2)[4:]) == {"—", ""}
    browser.click(header(0))
    rising = column(browser, 0)
    assert rising[:4] == ["Anna Maria", "bob", "x" * 60, "Zoë"]
    browser.click(header(0))
    assert column(browser, 0) == rising[::-1]


@in_a_browser
def test_keys_sort_as_clicks_do(browser, page_file):
    browser.open(page_file)
    browser.value("document.querySelector('#people-filter').focus()")
    for _ in range(3):  # the box that scrolls, the first header, the second
        browser.press("Tab", 9)
    assert browser.value("document.activeElement.textContent") == "pictures"
    assert browser.value("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    browser.press("Enter", 13, "\r")
    assert column(browser, 1)[0] == "2"


@in_a_browser
def test_the_filter_shows_matching_names_only(browser, page_file):
    browser.open(page_file)
    browser.click("#people-filter")
    for typed, shown in (("A M", ["Anna Maria"]), ("ZOE", []), ("夏", ["夏子"]), ("ｂｏ", ["bob"])):
        browser.value("document.querySelector('#people-filter').select()")
        browser.call("Input.insertText", text=typed)
        assert column(browser, 0) == shown
        assert browser.value("document.querySelector('output').value") == f"{len(shown)} of 6"
    browser.value("document.querySelector('#people-filter').select()")
    browser.press("Backspace", 8)
    assert len(column(browser, 0)) == 6


@in_a_browser
def test_thousands_of_people_are_sorted_over_all_and_shown_on_demand(browser, tmp_path):
    count = 3000
    rows = tuple((f"person {i}", str(i * 7919 % count)) for i in range(count))
    table = Table("People", "", (Column("person"), Column("n", True)), rows)
    write_page(tmp_path / "many.html", Page("many", "", people=table))
    browser.open(tmp_path / "many.html")
    assert len(column(browser, 0)) == 200
    took = browser.value(
        f"(t => (document.querySelector('{header(1)}').click(), performance.now() - t))"
        "(performance.now())"
    )
    assert took < 2000
    assert column(browser, 1) == [str(i) for i in range(200)]
    browser.click("#people-filter")
    browser.call("Input.insertText", text="person 29")
    assert len(column(browser, 0)) == 111
    assert browser.value("document.querySelector('.more').hidden")
    browser.value("document.querySelector('#people-filter').select()")
    browser.press("Backspace", 8)
    assert browser.value("document.querySelector('.more').textContent") == "Show all 3,000"
    browser.media("print", "light")
    assert len(column(browser, 0)) == count  # a printed table is whole
    browser.media("", "light")
    browser.click(".more")
    assert len(column(browser, 0)) == count


@in_a_browser
@pytest.mark.parametrize("width", [360, 700, 1280])
def test_nothing_is_wider_than_the_window(browser, page_file, tmp_path, width):
    write_page(tmp_path / "long.html", hostile("long" * 60))
    for path in (page_file, tmp_path / "long.html"):
        browser.open(path, width)
        assert browser.value("innerWidth") == width
        assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value("document.body.scrollWidth") <= width


@in_a_browser
def test_on_a_phone_the_table_scrolls_beside_its_names(browser, page_file):
    browser.open(page_file, 360)
    box = "document.querySelector('#people-filter').closest('.table').querySelector('.scroll')"
    assert browser.value(f"{box}.scrollWidth - {box}.clientWidth") > 20
    name = f"{box}.querySelector('tbody th').getBoundingClientRect().x"
    before = browser.value(name)
    browser.value(f"{box}.scrollLeft = 1000")
    assert browser.value(name) == before
    # Letters in charts: 10 units of the drawing are at least 8 pixels of the screen.
    scales = browser.value(
        "[...document.querySelectorAll('.drawing img')].map(i => i.clientWidth / i.naturalWidth)"
    )
    assert min(scales) * 96 / 72 > 0.8


LOOK = """(() => {
    const color = (s, p) => getComputedStyle(document.querySelector(s))[p];
    return [color('body', 'backgroundColor'), color('body', 'color'),
            color('.drawing img', 'filter'), color('.caption', 'color')];
})()"""


def contrast(one: str, other: str) -> float:
    def luminance(color: str) -> float:
        parts = np.array(re.findall(r"[\d.]+", color)[:3], float) / 255
        return float(
            np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
            @ (0.2126, 0.7152, 0.0722)
        )

    bright, dark = sorted([luminance(one), luminance(other)], reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@in_a_browser
def test_the_theme_follows_the_system_the_button_and_the_printer(browser, page_file):
    looks = {}
    for theme in ("light", "dark"):
        browser.open(page_file, theme=theme)
        browser.value("try { localStorage.clear() } catch { }")
        browser.open(page_file, theme=theme)
        looks[theme] = browser.value(LOOK)
        paper, ink, inverted, muted = looks[theme]
        assert inverted.startswith("invert") == (theme == "dark")
        assert contrast(paper, ink) > 10
        assert contrast(paper, muted) > 4.5
    assert all(a != b for a, b in zip(looks["light"], looks["dark"], strict=True))
    assert browser.value("document.querySelector('#theme').textContent") == "Light"
    browser.click("#theme")
    assert browser.value(LOOK) == looks["light"]
    browser.click("#theme")
    assert browser.value(LOOK) == looks["dark"]
    browser.media("print", "dark")
    assert browser.value(LOOK)[1:] == looks["light"][1:]
    hidden = browser.value(
        "[...document.querySelectorAll('#theme, .tools, .more')].every(e => !e.offsetHeight)"
    )
    assert hidden
    assert base64.b64decode(browser.call("Page.printToPDF")["data"]).startswith(b"%PDF")


@in_a_browser
def test_the_page_works_where_storage_is_refused(browser, page_file):
    refuse = "Object.defineProperty(window, 'localStorage', {get() { throw new Error('refused') }})"
    script = browser.call("Page.addScriptToEvaluateOnNewDocument", source=refuse)
    browser.open(page_file)
    before = browser.value(LOOK)
    browser.click("#theme")
    assert browser.value(LOOK) != before
    browser.click(header(1))
    assert column(browser, 1)[0] == "2"
    assert browser.complaints() == []
    browser.call("Page.removeScriptToEvaluateOnNewDocument", **script)
