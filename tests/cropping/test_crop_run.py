"""siamese-data crop over folders: what is listed, what is kept, and that it always goes on."""

import csv
import hashlib
import io
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from siamese.config import CropSettings
from siamese.cropping import crop_run
from siamese.cropping.alignment import align, template
from siamese.cropping.crop_run import crop_folder
from siamese.cropping.cropped import Cropped
from siamese.cropping.detection import FoundFace
from siamese.curation import convert
from siamese.curation.contents import OWN_FILES, walk_folder
from siamese.data.folder import scan_folder
from siamese.errors import UserError
from tests.cropping.dots import dots
from tests.cropping.stub import SHAPE, Counting, photograph
from tests.cropping.yunet_network import network_of_squares, photograph_with_square, yunet_like
from tests.file_names import raw_names

Run = Callable[..., CompletedProcess[str]]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two people with photographs of no, one, two and three faces."""
    root = tmp_path / "photos"
    for person, numbers in {"Ann Lee": (1, 2, 0), "夏子": (3, 1)}.items():
        (root / person).mkdir(parents=True)
        for at, number in enumerate(numbers):
            photograph(number, at).save(root / person / f"{at}.png")
    return root


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "faces"


def crop(data: Path, out: Path, **given: Any) -> Cropped:
    detector = given.pop("detector", Counting())
    given = {"size": 32, "workers": 0, "min_side": 10, "format": "png", **given}
    return crop_folder(CropSettings(data=str(data), out=str(out), **given), detector)


def faces_in(out: Path) -> list[str]:
    """Everything in the folder but the list and what begins with a dot on top."""
    paths = [path.relative_to(out).as_posix() for path in out.rglob("*") if not path.is_dir()]
    return sorted(p for p in paths if "/" in p or not (p.startswith(".") or p == "crop.csv"))


def table(out: Path) -> list[dict[str, str]]:
    with open(out / "crop.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def statuses(out: Path) -> Counter[tuple[str, str]]:
    return Counter((row["photograph"], row["status"]) for row in table(out))


def contents(out: Path) -> dict[str, str]:
    """What a reader sees: the faces' bytes, and the list."""
    names = [*faces_in(out), "crop.csv"]
    return {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in names}


# What is written and listed


def test_the_largest_of_each_photograph_of_a_person(photos, out):
    result = crop(photos, out)
    assert faces_in(out) == ["Ann Lee/0_0.png", "Ann Lee/1_0.png", "夏子/0_0.png", "夏子/1_0.png"]
    assert statuses(out) == {
        ("Ann Lee/0.png", "written"): 1,
        ("Ann Lee/1.png", "written"): 1,
        ("Ann Lee/1.png", "not the largest"): 1,
        ("Ann Lee/2.png", "none found"): 1,
        ("夏子/0.png", "written"): 1,
        ("夏子/0.png", "not the largest"): 2,
        ("夏子/1.png", "written"): 1,
    }
    assert [entry.photograph for entry in result.several()] == ["Ann Lee/1.png", "夏子/0.png"]
    assert scan_folder(out, progress=False).names == ("Ann Lee", "夏子")
    text = result.text()
    assert "4 faces of 2 people from 5 photographs" in text
    assert "2 photographs of people with more than one face: the largest was taken" in text
    assert "1 photograph without a face (1 none found): Ann Lee/2.png" in text
    assert text.endswith(f"next: siamese-train --data {out}")


def test_a_person_of_whom_no_face_was_found_is_not_counted_but_named(photos, out):
    (photos / "Zoë").mkdir()
    photograph(0, 9).save(photos / "Zoë" / "0.png")
    text = crop(photos, out).text()
    assert "4 faces of 2 people from 6 photographs" in text
    assert "people of whom no face was found: 1: Zoë" in text


def test_all_faces_are_numbered_by_their_size(photos, out):
    result = crop(photos, out, faces="all")
    assert [name for name in faces_in(out) if name.startswith("夏子/0")] == [
        "夏子/0_0.png", "夏子/0_1.png", "夏子/0_2.png"
    ]  # fmt: skip
    sides = [float(row["width"]) for row in table(out) if row["photograph"] == "夏子/0.png"]
    assert sides == sorted(sides, reverse=True)
    assert result.faces() == 7
    assert "2 photographs of people with more than one face: all were taken" in result.text()


def test_the_list_has_the_places_and_the_pixels_are_those_of_the_alignment(photos, out):
    crop(photos, out, margin=0.3)
    (row,) = [row for row in table(out) if row["face"] == "Ann Lee/0_0.png"]
    with Image.open(photos / "Ann Lee" / "0.png") as image:
        picture = image.convert("RGB")
    (face,) = Counting().find(picture)
    assert float(row["score"]) == pytest.approx(face.score)
    box = [float(row[name]) for name in ("x", "y", "width", "height")]
    assert box == pytest.approx(list(face.box), abs=0.01)
    marks = [float(value) for name, value in row.items() if name[-2:] in ("_x", "_y")]
    assert marks == pytest.approx(face.points().ravel().tolist(), abs=0.01)
    oracle = np.asarray(align(picture, face.points(), 32, 0.3))
    with Image.open(out / row["face"]) as image:
        assert np.array_equal(np.asarray(image), oracle)


def test_a_flat_folder_gives_all_faces_in_nobodys_folder(tmp_path, out):
    (tmp_path / "photos").mkdir()
    photograph(2).save(tmp_path / "photos" / "été.png")
    result = crop(tmp_path / "photos", out, format="jpeg")
    assert faces_in(out) == ["été_0.jpg", "été_1.jpg"]
    assert "in nobody's folder" in result.text()
    assert str(out / "NAME") in result.text()
    with pytest.raises(UserError, match="no usable picture"):
        scan_folder(out, progress=False)  # so that nobody is trained as one person


def test_small_faces_are_listed_and_not_written(photos, out):
    crop(photos, out, faces="all", min_side=50)  # the sides are 96, 64 and 32 pixels
    small = [row for row in table(out) if row["status"] == "too small"]
    assert [float(row["width"]) for row in small] == pytest.approx([32.0])
    assert [row["face"] for row in small] == [""]
    assert len(faces_in(out)) == 6


def test_where_even_the_largest_is_too_small(photos, out):
    result = crop(photos, out, min_side=97)
    assert faces_in(out) == []
    assert "4 too small" in result.text()
    assert "siamese-train" not in result.text()


@pytest.mark.parametrize("quality", [20, 95])
def test_jpeg_has_the_quality(photos, out, quality):
    crop(photos, out, format="jpeg", quality=quality)
    with Image.open(out / "Ann Lee" / "0_0.jpg") as image:
        assert image.size == (32, 32)
        found = image.quantization[0]  # type: ignore[attr-defined]
    expected = io.BytesIO()
    Image.new("RGB", (8, 8)).save(expected, "jpeg", quality=quality)
    with Image.open(expected) as image:
        assert found == image.quantization[0]  # type: ignore[attr-defined]


def test_photographs_are_turned_upright_first(tmp_path, out):
    (tmp_path / "photos" / "Ann").mkdir(parents=True)
    upright = photograph(1)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees to the right
    stored = upright.transpose(Image.Transpose.ROTATE_90)
    stored.save(tmp_path / "photos" / "Ann" / "a.png", exif=exif)
    crop(tmp_path / "photos", out)
    (face,) = Counting().find(upright)
    with Image.open(out / "Ann" / "a_0.png") as image:
        assert np.array_equal(np.asarray(image), align(upright, face.points(), 32))


def test_what_is_no_photograph_is_listed_with_its_reason(photos, out):
    place = photos / "Ann Lee"
    (place / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    whole = (place / "0.png").read_bytes()
    (place / "cut.png").write_bytes(whole[: len(whole) // 2])
    (place / "notes.txt").write_text("x")
    head = bytearray(whole[:33])
    head[16:24] = (50_000).to_bytes(4, "big") * 2
    head[29:33] = __import__("zlib").crc32(bytes(head[12:29])).to_bytes(4, "big")
    (place / "bomb.png").write_bytes(bytes(head) + whole[33:])
    (place / "deeper").mkdir()
    photograph(1).save(place / "deeper" / "x.png")
    (place / ".hidden.png").write_bytes(whole)
    os.mkfifo(place / "pipe.png")
    (place / "nowhere.png").symlink_to("gone.png")
    crop(photos, out)
    told = {row["photograph"]: row for row in table(out)}
    expected = {
        "broken.jpg": "unreadable image", "cut.png": "unreadable image",
        "notes.txt": "not an image", "bomb.png": "too large (decompression bomb)",
        "deeper/x.png": "left out", ".hidden.png": "left out", "pipe.png": "left out",
        "nowhere.png": "left out",
    }  # fmt: skip
    assert {name: told[f"Ann Lee/{name}"]["status"] for name in expected} == expected
    assert told["Ann Lee/deeper/x.png"]["note"] == "in a deeper folder"
    assert "cannot be decoded" in told["Ann Lee/cut.png"]["note"]
    assert len(faces_in(out)) == 4


class Odd:
    """Finds what no detector should."""

    def find(self, picture: Image.Image) -> list[FoundFace]:
        kind = round(picture.getpixel((0, 0))[0] / 50)  # type: ignore[index]
        if kind == 0:
            raise RuntimeError("of OpenCV")
        point = (5.0, 5.0)
        points = {1: (point,) * 5, 2: ((1e30, 0.0), *(point,) * 4), 3: ((0.0, 1.0),) * 4}[kind]
        return [FoundFace((0, 0, 60, 60), points, 0.9)]


def test_a_detector_that_finds_nonsense_loses_nothing(photos, out):
    crop(photos, out, detector=Odd())
    assert faces_in(out) == []
    told = {row["photograph"]: (row["status"], row["note"]) for row in table(out)}
    assert told["Ann Lee/0.png"] == ("landmarks in one point", "")
    assert told["Ann Lee/1.png"] == ("landmarks outside of any picture", "")
    assert told["Ann Lee/2.png"] == ("not read", "the detector failed (RuntimeError)")
    assert told["夏子/0.png"] == ("none found", "")


class Crashing(Counting):
    """Kills its process on photographs of two faces."""

    def find(self, picture: Image.Image) -> list[FoundFace]:
        found = super().find(picture)
        if len(found) == 2:
            os._exit(1)
        return found


def test_a_photograph_that_kills_its_reader_is_listed_and_tried_again(photos, out):
    crop(photos, out, workers=2, detector=Crashing())
    (row,) = [row for row in table(out) if row["photograph"] == "Ann Lee/1.png"]
    assert (row["status"], row["note"]) == ("not read", "the reader crashed on it")
    assert len(faces_in(out)) == 3
    result = crop(photos, out)
    assert (result.looked_at, len(faces_in(out))) == (1, 4)


# Names


def test_names_that_differ_in_the_ending_only_get_faces_of_their_own(tmp_path, out):
    place = tmp_path / "photos" / "Ann"
    place.mkdir(parents=True)
    for name in ("a.png", "a.bmp", "A.tif", "a", "a_0.png", "b.png"):
        photograph(1, len(name)).save(place / name, "PNG")
    crop(tmp_path / "photos", out)
    names = faces_in(out)
    assert len(names) == len({name.casefold() for name in names}) == 6
    assert {"Ann/b_0.png", "Ann/a_0_0.png"} <= set(names)


def test_files_of_others_are_never_written_over(photos, out):
    (out / "Ann Lee").mkdir(parents=True)
    (out / "Ann Lee" / "0_0.png").write_bytes(b"mine")
    (out / "Ann Lee" / "1_0.jpg").symlink_to(out / "away")
    (out / "other.txt").write_text("mine")
    result = crop(photos, out, faces="all")
    assert (out / "Ann Lee" / "0_0.png").read_bytes() == b"mine"
    assert not (out / "away").exists()
    assert (out / "other.txt").read_text() == "mine"
    assert (out / "Ann Lee" / "0.png_0.png").is_file()
    assert (out / "Ann Lee" / "1.png_1.png").is_file()
    assert result.faces() == 7


def test_a_file_that_comes_meanwhile_is_not_written_over(photos, out, monkeypatch):
    class Late(Counting):
        def find(self, picture):
            (out / "Ann Lee").mkdir(exist_ok=True)
            (out / "Ann Lee" / "0_0.png").write_bytes(b"mine")
            return super().find(picture)

    crop(photos, out, detector=Late())
    assert (out / "Ann Lee" / "0_0.png").read_bytes() == b"mine"
    assert ("Ann Lee/0.png", "its place is taken") in statuses(out)
    assert [name for name in os.listdir(out) if name.endswith(".tmp")] == []


def test_a_disk_without_hard_links(photos, out, monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert crop(photos, out).faces() == 4
    assert len(faces_in(out)) == 4


@given(
    st.lists(st.tuples(raw_names(), raw_names(), st.integers(0, 2)), min_size=1, max_size=6),
    st.sampled_from(["png", "jpeg"]),
)
@hypothesis_settings(max_examples=25, deadline=None)
def test_names_of_any_bytes_stay_in_the_folder(tmp_path_factory, made, kind):
    base = tmp_path_factory.mktemp("names")
    root = os.fsencode(base / "photos")
    wanted = 0
    os.makedirs(root)
    for person, name, faces in made:
        place = os.path.join(root, person)
        os.makedirs(place, exist_ok=True)
        path = os.path.join(place, name)
        if not os.path.exists(path):
            with open(path, "wb") as file:
                photograph(faces).save(file, "PNG")
            hidden = person.startswith(b".") or name.startswith(b".")
            wanted += 0 if hidden else min(faces, 1)
    photographs = [
        name
        for person in os.listdir(root)
        for name in os.listdir(os.path.join(root, person))
        if not (person.startswith(b".") or name.startswith(b"."))
    ]
    if not photographs:
        with pytest.raises(UserError, match="no photograph in it"):
            crop(base / "photos", base / "out", format=kind)
        return
    result = crop(base / "photos", base / "out", format=kind)
    assert result.faces() == wanted == len(faces_in(base / "out"))
    assert sorted(os.listdir(base)) == ["out", "photos"]
    assert len(table(base / "out")) >= len(result.entries)
    assert crop(base / "photos", base / "out", format=kind).looked_at == 0


def test_a_name_that_is_too_long_is_listed(tmp_path, out):
    place = tmp_path / "photos" / "Ann"
    place.mkdir(parents=True)
    photograph(1).save(place / f"{'a' * 251}.png")
    crop(tmp_path / "photos", out)
    (row,) = table(out)
    assert "its name is not possible there" in row["status"]


def test_a_name_that_a_spreadsheet_would_calculate_is_quoted(tmp_path, out):
    (tmp_path / "photos").mkdir()
    photograph(0).save(tmp_path / "photos" / "=1+1.png")
    crop(tmp_path / "photos", out)
    assert table(out)[0]["photograph"] == "'=1+1.png"


# Folders and settings


def test_links_in_the_results_lead_nowhere_else(photos, out, tmp_path):
    (tmp_path / "victim").mkdir()
    out.mkdir()
    (out / "Ann Lee").symlink_to(tmp_path / "victim")
    with pytest.raises(UserError, match="a link leads out of"):
        crop(photos, out)
    assert list((tmp_path / "victim").iterdir()) == []


@pytest.mark.parametrize("where", [".", "inside", ".."])
def test_the_folders_lie_apart(photos, where):
    with pytest.raises(UserError, match="name a folder beside it"):
        crop(photos, photos / where)
    assert not list(photos.rglob("crop.csv"))


def test_folders_that_cannot_be_used(photos, out, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file; name a folder"):
        crop(photos, tmp_path / "file")
    with pytest.raises(UserError, match="no such folder"):
        crop(tmp_path / "missing", out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no photograph in it"):
        crop(tmp_path / "empty", out)


def test_a_list_of_somebody_else_stays(photos, out):
    out.mkdir()
    (out / "crop.csv").write_text("mine")
    with pytest.raises(UserError, match=r"crop\.csv: is no list of these faces"):
        crop(photos, out)
    assert (out / "crop.csv").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "value"),
    [("size", 48), ("margin", 0.1), ("faces", "all"), ("score", 0.5), ("min_side", 20),
     ("detect_at", 320), ("format", "jpeg")],
)  # fmt: skip
def test_other_settings_are_refused_in_one_line(photos, out, name, value):
    crop(photos, out)
    before = contents(out)
    with pytest.raises(UserError, match=rf"^`{name}` {value}: the faces in .* name another `out`$"):
        crop(photos, out, **{name: value})
    assert contents(out) == before


def test_another_folder_of_photographs_is_refused(photos, out, tmp_path):
    crop(photos, out)
    shutil.copytree(photos, tmp_path / "others")
    with pytest.raises(UserError, match=r"^`data`"):
        crop(tmp_path / "others", out)


def test_the_size_is_that_of_a_checkpoint(photos, out, tmp_path):
    from tests.runs import write_random_model  # torch is loaded where it is needed

    write_random_model(tmp_path / "best.pt", size=40)
    crop(photos, out, size=None, checkpoint=str(tmp_path / "best.pt"))
    with Image.open(out / "Ann Lee" / "0_0.png") as image:
        assert image.size == (40, 40)
    crop(photos, tmp_path / "usual", size=None)
    with Image.open(tmp_path / "usual" / "Ann Lee" / "0_0.png") as image:
        assert image.size == (112, 112)


def test_size_and_checkpoint_are_not_given_both(run_here: Run, photos, out, tmp_path):
    (tmp_path / "x").write_bytes(b"")
    done = run_here(
        "data", "crop", photos, "--out", out, "--size", 112, "--checkpoint", tmp_path / "x",
        "--detector", tmp_path / "x",
    )  # fmt: skip
    assert done.returncode == 2
    assert "--size: give it without --checkpoint" in done.stderr


# Going on


def test_a_second_call_does_nothing_and_a_grown_folder_only_what_is_new(photos, out):
    crop(photos, out)
    before = {path: (out / path).stat().st_mtime_ns for path in faces_in(out)}
    assert crop(photos, out).looked_at == 0
    (photos / "Neu").mkdir()
    photograph(1, 9).save(photos / "Neu" / "n.png")
    photograph(1, 8).save(photos / "Ann Lee" / "0.bmp")  # collides with 0.png
    result = crop(photos, out)
    assert (result.looked_at, result.faces()) == (2, 6)
    assert {path: (out / path).stat().st_mtime_ns for path in before} == before
    assert "7 photographs (5 of them were done)" in result.text()
    assert {"Ann Lee/0.bmp_0.png", "Neu/n_0.png"} <= set(faces_in(out))


def test_faces_that_somebody_took_away_stay_away(photos, out):
    crop(photos, out)
    (out / "Ann Lee" / "1_0.png").unlink()
    result = crop(photos, out)
    assert result.looked_at == 0
    assert result.gone == ("Ann Lee/1_0.png",)
    assert not (out / "Ann Lee" / "1_0.png").exists()


def test_a_changed_photograph_is_looked_at_where_nothing_was_written(photos, out):
    crop(photos, out)
    before = contents(out)
    photograph(1, 70, (200, 160)).save(photos / "Ann Lee" / "0.png")
    result = crop(photos, out)
    assert (result.looked_at, result.changed) == (0, ("Ann Lee/0.png",))
    assert contents(out) == before
    photograph(1, 71, (200, 160)).save(photos / "Ann Lee" / "2.png")  # had none
    assert crop(photos, out).looked_at == 1
    assert (out / "Ann Lee" / "2_0.png").is_file()


class Slow(Counting):
    def find(self, picture: Image.Image) -> list[FoundFace]:
        time.sleep(0.03)
        return super().find(picture)


@dataclass
class Signing(Slow):
    """Leaves the number of the process that it runs in."""

    place: Path

    def find(self, picture: Image.Image) -> list[FoundFace]:
        (self.place / str(os.getpid())).touch()
        return super().find(picture)


def test_several_processes_share_few_photographs(photos, out, tmp_path):
    for at in range(3, 12):
        photograph(1, at).save(photos / "Ann Lee" / f"{at}.png")
    (tmp_path / "signed").mkdir()
    result = crop(photos, out, workers=2, detector=Signing(tmp_path / "signed"))
    assert len(os.listdir(tmp_path / "signed")) == 2
    assert result.faces() == 13


def test_check_and_training_do_not_mind_what_crop_keeps(photos, out):
    crop(photos, out)
    found = walk_folder(out)
    assert (found.hidden, found.outside, found.special) == ([], [], [])
    assert {crop_run._RECORD, crop_run._LOCK, crop_run.TABLE} <= OWN_FILES
    assert {convert._RECORD, convert._LOCK, convert._LIST} <= OWN_FILES
    assert len(scan_folder(out, progress=False).paths) == 4


def _crop_slowly(data: Path, out: Path, workers: int, told: Any) -> None:
    sys.stderr = io.StringIO()
    try:
        crop(data, out, faces="all", workers=workers, detector=Slow())
    except KeyboardInterrupt as stop:
        told.put(stop.args)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_call_goes_on_and_ends_with_the_same_files(
    tmp_path, out, workers, number, monkeypatch
):
    photos = tmp_path / "photos"
    for person in range(4):
        (photos / f"p{person}").mkdir(parents=True)
        for at in range(8):
            photograph(at % 4, at).save(photos / f"p{person}" / f"{at}.png")
        photograph(2, 9).save(photos / f"p{person}" / "1.bmp")
    crop(photos, tmp_path / "whole", faces="all")
    context = multiprocessing.get_context("fork")
    told = context.SimpleQueue()
    process = context.Process(target=_crop_slowly, args=(photos, out, workers, told))
    process.start()
    until = time.monotonic() + 60
    while len(faces_in(out) if out.is_dir() else ()) < 9 and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(process.pid or 0, number)
    process.join(60)
    assert 9 <= len(faces_in(out)) < len(faces_in(tmp_path / "whole"))
    if number == signal.SIGINT:
        assert told.get() == ("the same command goes on with what is left",)
        assert "not yet" in {row["status"] for row in table(out)}
    result = crop(photos, out, faces="all")
    assert 0 < result.looked_at < 36
    assert contents(out) == contents(tmp_path / "whole")
    assert [name for name in os.listdir(out) if name.endswith(".tmp")] == []


def _killed_at(step: int, data: Path, out: Path) -> bool:
    """Crop in a child that ends itself at the k-th step to the disk; whether it was ended."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    left = [step]

    def ending(work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                os._exit(9)
            return work(*given, **named)

        return run

    sys.stderr = io.StringIO()
    for name in ("link", "unlink", "replace", "mkdir"):
        setattr(os, name, ending(getattr(os, name)))
    crop_run.Record.add = ending(crop_run.Record.add)  # type: ignore[method-assign]
    crop(data, out, faces="all")
    os._exit(0)


def test_killed_at_any_step_it_ends_with_the_same_files(tmp_path):
    photos = tmp_path / "photos"
    (photos / "Ann").mkdir(parents=True)
    photograph(2, 1).save(photos / "Ann" / "a.png")
    photograph(1, 2).save(photos / "Ann" / "a.bmp")
    crop(photos, tmp_path / "whole", faces="all")
    expected, step = contents(tmp_path / "whole"), 1
    while _killed_at(step, photos, tmp_path / f"out{step}"):
        out = tmp_path / f"out{step}"
        result = crop(photos, out, faces="all")
        assert contents(out) == expected, step
        assert result.gone == result.changed == ()
        shutil.rmtree(out)
        step += 1
    assert step > 20


def test_a_record_that_ends_within_a_line_goes_on(photos, out, tmp_path):
    crop(photos, tmp_path / "whole", faces="all")
    record = (tmp_path / "whole" / ".crop.jsonl").read_bytes()
    first = record.index(b"\n") + 1
    for end in (0, 5, first, first + 9, record.index(b"\n", first) - 1):
        out.mkdir()
        (out / ".crop.jsonl").write_bytes(record[:end])
        way = json.loads(record[:first])
        assert way["size"] == 32
        crop(photos, out, faces="all")
        assert contents(out) == contents(tmp_path / "whole")
        assert crop(photos, out, faces="all").looked_at == 0
        shutil.rmtree(out)


@pytest.mark.parametrize("line", ["[]", "null", "{}", '{"photograph": 1}', "[" * 9000, "\0", "é"])
def test_damaged_lines_of_the_record_count_for_nothing(photos, out, line):
    crop(photos, out)
    with open(out / ".crop.jsonl", "a", encoding="utf-8") as file:
        file.write(line + "\n")
    assert crop(photos, out).looked_at == 0


def test_a_record_that_names_other_places_leads_nowhere(photos, out, tmp_path):
    crop(photos, out)
    before = contents(out)
    record = out / ".crop.jsonl"
    head, *lines = record.read_text().splitlines()
    for base in ("../../victim/x", "..", ".hidden", ""):
        away = [json.dumps({**json.loads(line), "base": base, "placed": False}) for line in lines]
        record.write_text("\n".join([head, *away]) + "\n")
        shutil.rmtree(out / "Ann Lee")
        crop(photos, out)
        assert sorted(os.listdir(tmp_path)) == ["faces", "photos"]
    assert {name for name in before if name.startswith("Ann")} <= set(contents(out))


def test_two_calls_at_once(photos, out, monkeypatch):
    monkeypatch.setattr(crop_run, "_LOCK_PATIENCE", 0.1)

    class Second(Counting):
        def find(self, picture):
            with pytest.raises(UserError, match="another crop is writing it"):
                crop(photos, out)
            return super().find(picture)

    assert crop(photos, out, detector=Second()).faces() == 4


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(photos, out, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full)
        with pytest.raises(UserError, match=r"No space left on device.*the same command goes on"):
            crop(photos, out)
    assert [name for name in os.listdir(out) if name.endswith(".tmp")] == []
    assert crop(photos, out).faces() == 4


# As a user runs it, with OpenCV and a network of YuNet's form


@pytest.fixture
def command(tmp_path: Path) -> list[object]:
    """Photographs of 1280 x 960 pixels with a blue square of 64 that marks a face below it."""
    (tmp_path / "net.onnx").write_bytes(network_of_squares())
    for person in ("Ann", "夏子"):
        (tmp_path / "photos" / person).mkdir(parents=True)
        for at in range(3):
            picture, _ = photograph_with_square(64 * (3 + at), 128)
            picture.save(tmp_path / "photos" / person / f"{at}.png")
    return ["data", "crop", "photos", "--out", "faces", "--detector", "net.onnx"]


def test_the_command(command, tmp_path, run_here: Run, run_cli: Run):
    done = run_cli(*command, "--format", "png", "--size", 128, "--workers", 2, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "6 faces of 2 people from 6 photographs" in done.stdout
    assert "note: net.onnx is not face_detection_yunet_2023mar.onnx" in done.stderr
    assert done.stdout.endswith("next: siamese-train --data ./faces\n")
    with Image.open(tmp_path / "faces" / "Ann" / "1_0.png") as image:
        assert np.abs(dots(image) - template(128)).max() < 1
    assert "WARN" not in done.stderr  # OpenCV's own words
    again = run_here(*command, "--format", "png", "--size", 128, cwd=tmp_path)
    assert "(6 of them were done)" in again.stdout
    other = run_here(*command, "--format", "png", cwd=tmp_path)
    assert other.returncode == 2
    assert "--size 112: the faces in faces were made with 128" in other.stderr


def test_ctrl_c_ends_with_one_line(command, tmp_path):
    for at in range(3, 60):
        shutil.copy(
            tmp_path / "photos" / "Ann" / "0.png", tmp_path / "photos" / "Ann" / f"{at}.png"
        )
    code = "from siamese.cli.data import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, command[1:]), "--workers", "1"],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until = time.monotonic() + 120
    while not list(tmp_path.glob("faces/*/*.jpg")) and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    line = "siamese-data: interrupted; the same command goes on with what is left"
    assert told.splitlines()[-1] == line
    assert "Traceback" not in told
    assert {"written", "not yet"} <= {row["status"] for row in table(tmp_path / "faces")}


def test_another_detector_is_refused(command, tmp_path, run_here: Run):
    assert run_here(*command, "--workers", 0, cwd=tmp_path).returncode == 0
    (tmp_path / "net.onnx").write_bytes(yunet_like([(0, 1), (1, 1), (0.5, 2), (0, 3), (1, 3)]))
    done = run_here(*command, "--workers", 0, cwd=tmp_path)
    assert done.returncode == 2
    assert "--detector" in done.stderr
    assert "were made with" in done.stderr


def test_without_a_detector_it_says_where_one_is(command, tmp_path, run_here: Run):
    done = run_here(*command[:-2], cwd=tmp_path)
    assert done.returncode == 2
    assert "siamese-data fetch yunet --out yunet.onnx" in done.stderr


def test_photographs_have_the_shape_that_the_stub_expects():
    assert photograph(1).size == SHAPE
