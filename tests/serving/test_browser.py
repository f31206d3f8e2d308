"""The page in a real browser: two pictures, who is this, enrol, remove, and the token."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import Browser, in_a_browser
from tests.serving.conftest import running

pytestmark = in_a_browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.end()


def text(browser: Browser, selector: str) -> str:
    return browser.value(f"document.querySelector({selector!r}).textContent")


def is_shown(browser: Browser, selector: str) -> bool:
    return browser.value(f"document.querySelector({selector!r}).offsetHeight > 0")


def names(browser: Browser) -> list[str]:
    return browser.value("[...document.querySelectorAll('#people bdi')].map(b => b.textContent)")


def enrol(browser: Browser, name: str, *pictures: Path) -> str:
    browser.value("document.querySelector('#person').value = ''")
    browser.choose_files("#new input", *pictures)
    browser.type("#person", name)
    browser.click("#enrol button")
    browser.wait("document.querySelector('#enrol-done').textContent")
    browser.wait("!document.querySelector('#enrol button').disabled")
    return text(browser, "#enrol-done")


def test_a_visit(browser: Browser, checkpoint: Path, tmp_path: Path, face_folder: Path) -> None:
    ann, other = face_folder / "Ann" / "0.png", face_folder / "夏子" / "1.png"
    with running(tmp_path, checkpoint) as (address, _):
        browser.open(f"{address}/")
        assert browser.complaints() == []
        # Two pictures.
        browser.choose_files("#a input", ann)
        assert not is_shown(browser, "#verdict")
        browser.choose_files("#b input", ann)
        browser.wait("!document.querySelector('#histogram').hidden")
        assert text(browser, "#same") == "The same person"
        assert text(browser, "#score") == "1.0000"
        assert text(browser, "#threshold") == "0.9990"
        assert text(browser, "#probability") == "88.1 %"  # 1 / (1 + exp(2 - 4))
        seen = "[...document.querySelectorAll('#a img, #b img')].map(i => i.naturalWidth)"
        browser.wait(f"{seen}.every(w => w === 32)")  # as the network sees them
        assert browser.value("document.querySelectorAll('#plot path.area').length") == 2
        assert "this pair 1.000" in text(browser, "#plot")
        assert "threshold 0.999" in text(browser, "#plot")
        browser.choose_files("#b input", other)
        browser.wait("document.querySelector('#score').textContent !== '1.0000'")
        browser.value("document.querySelector('#prior').value = '0.01'")
        before = text(browser, "#probability")
        browser.value("document.querySelector('#prior').dispatchEvent(new Event('change'))")
        browser.wait(f"document.querySelector('#probability').textContent !== {before!r}")
        # Who is this?
        browser.click("#tab-identify")
        browser.choose_files("#who input", ann)
        browser.wait("!document.querySelector('#identity').hidden")
        assert text(browser, "#name") == "Nobody known"
        assert text(browser, "#identity-note") == "Nobody is enrolled yet."
        hostile = "<img src=x onerror=alert(1)>\u202egnp/../?#%"
        told = enrol(browser, hostile, *sorted((face_folder / "Ann").glob("*.png"))[:3])
        assert told.startswith("<img src=x onerror=alert(1)>\\u202egnp/../?#%: 3 pictures enrolled")
        enrol(browser, "夏子", other)
        assert sorted(names(browser)) == ["<img src=x onerror=alert(1)>\\u202egnp/../?#%", "夏子"]
        browser.choose_files("#who input", other)
        browser.wait("document.querySelector('#name').textContent === '夏子'")
        assert browser.value("document.querySelectorAll('#candidates li').length") == 2
        # Remove, in two clicks.
        for count in (1, 0):
            browser.click("#people button")
            assert len(names(browser)) == count + 1
            browser.click("#people button")
            browser.wait(f"document.querySelectorAll('#people li').length === {count}")
        assert browser.complaints() == []
        asked = {event["request"]["url"] for event in browser.seen("Network.requestWillBeSent")}
        assert all(url.startswith((address, "data:")) for url in asked)
        # What cannot be used is told in one line.
        broken = tmp_path / "broken.png"
        broken.write_bytes(ann.read_bytes()[:300])
        browser.choose_files("#who input", broken)
        browser.wait("!document.querySelector('#identify-error').hidden")
        assert text(browser, "#identify-error").startswith("picture: cannot be decoded")
    browser.choose_files("#who input", ann)  # the service is gone
    browser.wait("document.querySelector('#identify-error').textContent.includes('not answer')")


def test_the_token_is_asked_for(
    browser: Browser, checkpoint: Path, tmp_path: Path, face_folder: Path
) -> None:
    token = "0123456789abcdef"
    with running(tmp_path, checkpoint, SIAMESE_TOKEN=token) as (address, _):
        browser.open(f"{address}/", 360, "dark")
        assert browser.value("document.documentElement.scrollWidth") <= 360
        for place in "ab":
            browser.choose_files(f"#{place} input", face_folder / "Ann" / "0.png")
        browser.wait("!document.querySelector('#token').hidden")
        browser.type("#token-text", "wrong")
        browser.click("#token button")
        browser.wait("document.querySelector('#token-text').value === ''")
        browser.wait("!document.querySelector('#token').hidden")
        browser.type("#token-text", token)
        browser.click("#token button")
        browser.wait("document.querySelector('#same').textContent === 'The same person'")
        assert not is_shown(browser, "#token")
        assert browser.value("sessionStorage.getItem('siamese-token')") == token
        assert browser.value("document.documentElement.scrollWidth") <= 360
        browser.open(f"{address}/docs", 360)
        assert browser.complaints() == []
        assert browser.value("document.documentElement.scrollWidth") <= 360
        assert "Authorization: Bearer" in text(browser, "main")
