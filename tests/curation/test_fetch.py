"""siamese-data fetch, from the library's own cache: without network, and without waiting for it."""

import hashlib
import io
import shutil
import socket
import tarfile
from collections.abc import Callable
from pathlib import Path
from urllib.error import HTTPError

import joblib
import numpy as np
import pytest
from PIL import Image

from siamese.config import FetchSettings
from siamese.curation import fetch as fetching
from siamese.curation.fetch import PAIRS, fetch
from siamese.data.folder import scan_folder
from siamese.data.pair_lists import read_pairs
from siamese.errors import UserError

PEOPLE = {"Ann_Lee": 3, "Bob": 1, "Cy_van_Doe": 2}
LISTS = {
    "pairs.txt": "2\t1\nAnn_Lee\t1\t2\nAnn_Lee\t1\tBob\t1\n"
    "Cy_van_Doe\t1\t2\nBob\t1\tCy_van_Doe\t2\n",
    "pairsDevTrain.txt": "1\nAnn_Lee\t1\t3\nBob\t1\tAnn_Lee\t3\n",
    "pairsDevTest.txt": "1\nCy_van_Doe\t1\t2\nAnn_Lee\t2\tCy_van_Doe\t1\n",
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """scikit-learn's place with a small LFW, as its downloader leaves it."""
    place = tmp_path / "sklearn" / "lfw_home"
    draw = np.random.default_rng(0)
    for person, number in PEOPLE.items():
        (place / "lfw_funneled" / person).mkdir(parents=True)
        for at in range(1, number + 1):
            face = Image.fromarray(draw.integers(0, 256, (250, 250, 3), dtype=np.uint8))
            face.save(place / "lfw_funneled" / person / f"{person}_{at:04d}.jpg")
    (place / "lfw_funneled" / "pairs_01.txt").write_text("lies there in the archive, too")
    for name, content in LISTS.items():
        (place / name).write_text(content)
    return tmp_path / "sklearn"


def pack(home: Path, people: list[str] | None = None) -> Path:
    """The unpacked folder as the archive that is downloaded."""
    place = home / "lfw_home"
    with tarfile.open(place / "lfw-funneled.tgz", "w:gz") as archive:
        archive.add(place / "lfw_funneled", "lfw_funneled")
    shutil.rmtree(place / "lfw_funneled")
    return place / "lfw-funneled.tgz"


def lfw(home: Path, out: str = "lfw") -> Path:
    fetch(FetchSettings("lfw", str(home.parent / out), str(home)))
    return home.parent / out


def content(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_lfw_becomes_one_folder_per_person_with_its_own_files(home: Path) -> None:
    fetched = fetch(FetchSettings("lfw", str(home.parent / "lfw"), str(home)))
    assert (fetched.people, fetched.written, fetched.kept) == (3, 6, 0)
    out = home.parent / "lfw"
    folder = scan_folder(out)
    assert folder.counts() == PEOPLE
    assert folder.left_out == ()
    source = content(home / "lfw_home" / "lfw_funneled")
    assert content(out) == {path: digest for path, digest in source.items() if "/" in path}
    assert "has 3 people and 6 pictures, LFW 5749 and 13233" in fetched.text()


def test_lfw_lists_lie_beside_it_and_name_its_pictures(home: Path) -> None:
    fetched = fetch(FetchSettings("lfw", str(home.parent / "lfw"), str(home)))
    assert [file.relative_to(home.parent).as_posix() for file in fetched.pairs] == [
        f"lfw-pairs/{name}" for name in PAIRS
    ]
    found = [read_pairs(file, fetched.out) for file in fetched.pairs]
    assert [len(pairs.same) for pairs in found] == [4, 2, 2]
    assert all(pairs.skipped == 0 for pairs in found)
    assert found[0].fold == (0, 0, 1, 1)
    assert found[0].first[1] == "Ann_Lee/Ann_Lee_0001.jpg"
    assert "siamese-eval pairs --data" in fetched.text()


def test_an_archive_that_was_put_there_by_hand_is_unpacked(home: Path) -> None:
    wanted = content(lfw(home, "before"))
    archive = pack(home)
    assert content(lfw(home)) == wanted
    assert not archive.exists()


def test_unpacking_that_was_interrupted_is_done_again(home: Path) -> None:
    wanted = content(lfw(home, "before"))
    pack(home)
    half = home / "lfw_home" / "lfw_funneled" / "Ann_Lee"
    half.mkdir(parents=True)
    (half / "Ann_Lee_0001.jpg").write_bytes(b"half of")
    assert content(lfw(home)) == wanted


@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
def test_a_damaged_archive_is_named(home: Path, share: float) -> None:
    archive = pack(home)
    archive.write_bytes(archive.read_bytes()[: int(share * archive.stat().st_size)])
    for _ in range(2):  # also where half of it has been unpacked
        with pytest.raises(UserError, match=r"lfw: the download in .*lfw_home is damaged"):
            lfw(home)
    assert not (home.parent / "lfw").exists()


def test_an_interrupted_fetch_leaves_no_half_folder(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = shutil.copyfile, []

    def stop(source: Path, target: Path) -> None:
        calls.append(target)
        original(source, target)
        if len(calls) == 6:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fetching.shutil, "copyfile", stop)
        with pytest.raises(KeyboardInterrupt):
            lfw(home)
    assert [path.name for path in home.parent.iterdir() if "pairs" not in path.name] == ["sklearn"]
    assert scan_folder(lfw(home)).counts() == PEOPLE


def test_a_second_fetch_finds_all_there_or_refuses(home: Path) -> None:
    out = lfw(home)
    (out / "Bob" / ".DS_Store").write_bytes(b"hidden")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    fetched = fetch(FetchSettings("lfw", str(out), str(home)))
    assert (fetched.written, fetched.kept) == (0, 6)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    (out / "Bob" / "Bob_0001.jpg").unlink()
    with pytest.raises(UserError, match=r"lfw: lacks 1 of 6 pictures; move it away"):
        lfw(home)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("Zoe/1.jpg", r"lfw/Zoe/1\.jpg: is no part of what is fetched"),
        ("notes.txt", r"lfw/notes\.txt: is no part"),
        ("Bob/mine.jpg", r"lfw/Bob/mine\.jpg: is no part"),
        ("Bob/Bob_0001.jpg", r"lacks 5 of 6 pictures"),
        ("../lfw-pairs/pairs.txt", r"pairs\.txt: is another file than the one fetched"),
    ],
)
def test_other_files_are_never_touched(home: Path, path: str, message: str) -> None:
    other = home.parent / "lfw" / path
    other.parent.mkdir(parents=True)
    other.write_text("mine")
    with pytest.raises(UserError, match=message):
        lfw(home)
    assert other.read_text() == "mine"


def faces() -> np.ndarray:
    """What the cache holds: float in [0, 1], one column-major face in each row."""
    grey = np.random.default_rng(1).integers(0, 256, (400, 64, 64))
    grey[0, 0, :2] = 0, 255
    return grey


def olivetti_home(tmp_path: Path, grey: np.ndarray) -> Path:
    home = tmp_path / "sklearn"
    home.mkdir()
    rows = grey.transpose(0, 2, 1).reshape(400, 4096) / 255
    joblib.dump(rows.astype(np.float32), home / "olivetti_py3.pkz", compress=6)
    return home


def test_olivetti_becomes_forty_people_of_ten_grey_pictures(tmp_path: Path) -> None:
    grey = faces()
    home = olivetti_home(tmp_path, grey)
    out = tmp_path / "olivetti"
    fetched = fetch(FetchSettings("olivetti", str(out), str(home)))
    assert (fetched.people, fetched.written, fetched.pairs, fetched.notes) == (40, 400, (), ())
    folder = scan_folder(out)
    assert set(folder.counts().values()) == {10}
    assert len(folder.names) == 40
    assert folder.left_out == ()
    for at in (0, 9, 10, 399):
        with Image.open(out / folder.paths[at]) as image:
            assert image.mode == "L"
            assert np.array_equal(np.asarray(image), grey[at])
    again = fetch(FetchSettings("olivetti", str(out), str(home)))
    assert (again.written, again.kept) == (0, 400)


def test_a_damaged_cache_is_named(tmp_path: Path) -> None:
    home = olivetti_home(tmp_path, faces())
    file = home / "olivetti_py3.pkz"
    whole = file.read_bytes()
    for damaged in (b"", b"garbage", whole[: len(whole) // 2]):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match=r"olivetti: the download in .*sklearn is damaged"):
            fetch(FetchSettings("olivetti", str(tmp_path / "out"), str(home)))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "file"), [("lfw", "lfw-funneled.tgz"), ("olivetti", "faces.mat")])
def test_without_network_one_line_says_what_to_do(
    tmp_path: Path, run_here: Callable[..., object], name: str, file: str
) -> None:
    before = socket.getdefaulttimeout()
    told = run_here("data", "fetch", name, "--out", tmp_path / "o", "--downloads", tmp_path / "d")
    assert told.returncode == 2
    assert told.stdout == ""
    assert told.stderr.count("\n") == 1
    assert f"{name}: cannot be downloaded (" in told.stderr
    assert "Name or service not known" in told.stderr
    assert f"{tmp_path / 'd'}" in told.stderr
    assert file in told.stderr
    assert not (tmp_path / "o").exists()
    assert socket.getdefaulttimeout() == before


def test_a_server_that_refuses_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(url: str, *_: object) -> None:
        raise HTTPError(url, 403, "Forbidden", {}, io.BytesIO())  # type: ignore[arg-type]

    monkeypatch.setattr("sklearn.datasets._base.urlretrieve", forbidden)
    monkeypatch.setattr(fetching, "why_unreachable", lambda *_: None)
    monkeypatch.setattr(fetching, "_RETRY_AFTER", 1e-3)
    with pytest.raises(UserError, match=r"cannot be downloaded \(Forbidden\)"):
        fetch(FetchSettings("lfw", str(tmp_path / "out"), str(tmp_path / "d")))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lwf", "--out", "o"), "lfw"),
        ((), "--name is missing: lfw, olivetti or yunet"),
        (("lfw",), "--out is missing"),
        (("lfw", "--out", "file"), "--out file: is a file; choose a folder"),
    ],
)
def test_bad_settings_are_one_line(
    tmp_path: Path, run_here: Callable[..., object], arguments: tuple[str, ...], message: str
) -> None:
    (tmp_path / "file").write_text("x")
    told = run_here("data", "fetch", *arguments, cwd=tmp_path)
    assert told.returncode == 2
    assert message in told.stderr
    assert told.stderr.count("\n") == 1
