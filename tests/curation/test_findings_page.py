"""The page of findings: what is in it."""

import base64
import io
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from siamese.curation.findings_page import (
    FindingsPage,
    Group,
    Row,
    Section,
    thumbnail_of,
    write_findings_page,
)
from siamese.drawing.page import Chart, Facts, Headline, Picture
from tests.browser import CHROMIUM, Browser
from tests.report.test_page import HOSTILE, PAGE, Elements, browser

__all__ = ["browser"]  # the fixture
COLORS = [(255, 0, 0), (0, 160, 0), (0, 0, 255), (255, 0, 255), (0, 200, 200), (200, 160, 0)]


def picture(path: str, color: tuple[int, int, int], size: tuple[int, int] = (96, 96)) -> Picture:
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, "PNG")
    uri = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    return Picture(path, path.split("/")[0], uri)


PICTURES = [picture(f"夏子/{at}.jpg", color) for at, color in enumerate(COLORS)]
GONE = Picture("夏子/gone.jpg", "夏子", None)
ROWS = (
    Row("夏子/0.jpg", "suspicion 98%", (Group("the suspect", tuple(PICTURES[:1])),
                                       Group("typical of 夏子", (*PICTURES[1:4], GONE)))),
    Row("夏子/4.jpg", "", (Group("", (PICTURES[4],)),)),
)  # fmt: skip
SECTIONS = (
    Section("Zero bytes", "error", "empty files", 3, "siamese-data mend 'a b' --plan p.csv",
            paths=tuple(f"Ann/{at}.jpg" for at in range(3))),
    Section("Wrong pictures", "warning", "somebody else", 1234, rows=ROWS),
    Section("Odd", "note", "nothing found", 0),
    Section("Balance", "", "how many each", chart=Chart("Histogram", "people", PAGE.charts[0].svg)),
)  # fmt: skip
FINDINGS = FindingsPage(
    "faces: check", "today", ("It is fine.",), (Headline("people", "7", None, "usable"),),
    SECTIONS, (Facts("Data", (("folder", "/data"),)),), ("A note.",),
)  # fmt: skip


def written(folder: Path, page: FindingsPage) -> str:
    write_findings_page(folder / "page.html", page)
    return (folder / "page.html").read_text("utf-8")


def test_everything_given_is_on_the_page(tmp_path):
    page = Elements(written(tmp_path, FINDINGS))
    text = " ".join(page.text.split())
    for part in (
        "faces: check", "today", "It is fine.", "A note.", "usable", "Zero bytes", "empty files",
        "siamese-data mend 'a b' --plan p.csv", "Ann/2.jpg", "List of 3", "Wrong pictures", "1,234",
        "夏子/0.jpg", "suspicion 98%", "the suspect", "typical of 夏子", "not available",
        "nothing found", "Histogram", "/data",
    ):  # fmt: skip
        assert part in text, part
    assert page.open == []
    assert [tag for tag, _ in page.found].count("img") == 6  # one of them is the chart
    ids = [attributes["id"] for _, attributes in page.found if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_the_sections_stand_at_the_top_with_severity_and_count(tmp_path):
    html = written(tmp_path, FINDINGS)
    contents = Elements(html[html.index("<nav") : html.index("</nav>") + 6])
    links = [attributes["href"] for tag, attributes in contents.found if tag == "a"]
    assert links == [f"#section-{at}" for at in range(1, 5)]
    ids = {attributes.get("id") for _, attributes in Elements(html).found}
    assert {link[1:] for link in links} <= ids
    assert contents.text.split() == [
        "What", "was", "found", "Zero", "byteserror3", "Wrong", "pictureswarning1,234", "Odd0",
        "Balance",
    ]  # fmt: skip


def test_what_is_empty_is_left_out(tmp_path):
    page = Elements(written(tmp_path, FindingsPage("a title", "", (), (), (), (), ())))
    assert page.text.split() == ["a", "title", "siamese", "Dark", "a", "title"]
    assert not {"section", "table", "nav", "pre", "details"} & {tag for tag, _ in page.found}


def test_long_lists_are_cut(tmp_path):
    section = Section("s", "note", "", paths=tuple(f"path {at};" for at in range(201)))
    text = Elements(written(tmp_path, replace(FINDINGS, sections=(section,)))).text
    assert "The first 200 of 201" in text
    assert "path 199;" in text
    assert "path 200;" not in text


def hostile(name: str) -> FindingsPage:
    shown = Picture(f"{name}!", f"x{name}", PICTURES[0].data)
    row = Row(name, name, (Group(name, (shown, replace(shown, data=None))),))
    section = Section(name, "error", name, 1, name, (row,), (name,))
    return FindingsPage(
        name, name, (name,), (Headline(name, name, name, name, name),), (section,),
        (Facts(name, ((name, name),)),), (name,),
    )  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_text_and_add_no_element(tmp_path, name):
    name = name.replace("/", "|")  # which would part a path
    harmless = Elements(written(tmp_path, hostile("name")))
    page = Elements(written(tmp_path, hostile(name)))
    assert page.open == []
    assert page.text == harmless.text.replace("name", name)
    assert [tag for tag, _ in page.found] == [tag for tag, _ in harmless.found]


def test_the_page_needs_no_other_file_and_runs_its_own_script_only(tmp_path):
    html = written(tmp_path, FINDINGS)
    assert "http" not in html.replace("http-equiv", "")
    for _, attributes in Elements(html).found:
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#"))
    assert "default-src 'none'; script-src 'sha256-" in html


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_in_a_browser(tmp_path, browser: Browser, theme):
    """On a phone nothing sticks out, the script runs, commands can be copied by keyboard."""
    long = Section("x" * 300, "error", "y" * 300, 1, "siamese-data mend " + "z" * 300, ROWS * 3,
                   ("p" * 500,))  # fmt: skip
    name = "名" * 80 + "/" + "long_name" * 30
    odd = Row(name, name, (Group(name, (replace(PICTURES[0], path=name, name="n" * 90),) * 9),) * 3)
    page = replace(FINDINGS, sections=(*SECTIONS, long, Section("w", "note", "", rows=(odd,))))
    written(tmp_path, page)
    for width in (400, 1200):
        browser.open(tmp_path / "page.html", width, theme)
        assert browser.value("document.documentElement.scrollWidth") <= width
        assert browser.complaints() == []
    assert browser.value("document.querySelectorAll('.copy:not([hidden])').length") == 2
    browser.value("document.querySelector('.copy').focus()")
    browser.press("Enter", 13, "\r")
    told = "Copy"
    for _ in range(100):
        told = browser.value("document.querySelector('.copy').textContent")
        if told != "Copy":
            break
        time.sleep(0.02)
    assert told in ("Copied", "Selected")
    browser.value("document.querySelector('summary').focus()")
    browser.press("Enter", 13, "\r")
    assert browser.value("document.querySelector('details').open")


def test_thumbnails_keep_their_aspect(tmp_path):
    (tmp_path / "夏子").mkdir()
    Image.new("RGB", (400, 100), (10, 200, 30)).save(tmp_path / "夏子" / "a.png")
    shown = thumbnail_of(tmp_path, "夏子/a.png", "夏子", size=80)
    assert (shown.path, shown.name) == ("夏子/a.png", "夏子")
    with Image.open(io.BytesIO(base64.b64decode(shown.data.split(",")[1]))) as small:
        assert (small.format, small.size) == ("JPEG", (80, 20))
        assert np.abs(np.asarray(small).astype(int) - (10, 200, 30)).max() < 12


def test_thumbnails_are_small(tmp_path):
    noise = np.random.default_rng(0).normal(128, 30, (300, 300, 3)).clip(0, 255)
    Image.fromarray(noise.astype(np.uint8)).save(tmp_path / "a.png")
    assert len(thumbnail_of(tmp_path, "a.png", "").data) < 8_000


@pytest.mark.parametrize("path", ["gone.png", "broken.png", "", ".", "a\0b", "x" * 400])
def test_what_cannot_be_decoded_is_a_picture_without_data(tmp_path, path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    assert thumbnail_of(tmp_path, path, "Ann") == Picture(path, "Ann", None)
    assert thumbnail_of(None, path, "Ann") == Picture(path, "Ann", None)
