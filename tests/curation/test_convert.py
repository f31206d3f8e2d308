"""siamese-data convert: pictures upright, RGB and resized; names kept, nothing written over."""

import csv
import errno
import hashlib
import io
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torchvision.datasets import ImageFolder

from siamese.config import ConvertSettings
from siamese.curation import convert as convert_module
from siamese.curation.convert import Converted, convert_folder, target_names
from siamese.data.decode import decode
from siamese.data.folder import scan_folder
from siamese.data.transforms import Preprocess
from siamese.errors import UserError
from siamese.files.writing import CannotWrite
from tests.file_names import raw_names

Run = Callable[..., CompletedProcess[str]]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where the results go; it does not exist."""
    return tmp_path / "of 24 px"


def convert(data: Path, out: Path, **given: Any) -> Converted:
    given = {"size": 24, "workers": 0, "format": "png", **given}
    return convert_folder(ConvertSettings(data=str(data), out=str(out), **given))


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "RGB"
        return np.asarray(image)


def results(out: Path) -> list[str]:
    """The pictures that are there; nothing else is, but what begins with a dot on top."""
    paths = [path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()]
    return sorted(path for path in paths if "/" in path or not path.startswith("."))


def listed(result: Converted) -> dict[str, str]:
    assert result.listed is not None
    with open(result.listed, encoding="utf-8", newline="") as file:
        return {row["path"]: row["reason"] for row in csv.DictReader(file)}


def fingerprint(folder: Path) -> dict[str, tuple[str, int]]:
    """Content and time of every file."""
    return {
        str(path): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


# The pictures


@pytest.mark.parametrize(("shape", "expected"), [((40, 48), (24, 29)), ((90, 30), (72, 24))])
def test_the_shorter_side_gets_the_size(tmp_path, out, shape, expected):
    (tmp_path / "faces" / "Ann").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 255, (*shape[::-1], 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "faces" / "Ann" / "a.bmp")
    convert(tmp_path / "faces", out)
    oracle = Image.fromarray(noise).resize(expected, Image.Resampling.LANCZOS)
    assert np.array_equal(pixels(out / "Ann" / "a.png"), np.asarray(oracle))


def test_shorter_never_enlarges(face_folder, out):
    convert(face_folder, out, size=41)
    source = pixels(face_folder / "Ann" / "0.png")
    assert np.array_equal(pixels(out / "Ann" / "0.png"), source)


@pytest.mark.parametrize("fit", ["squash", "crop"])
@pytest.mark.parametrize("size", [24, 64])
def test_squares_are_what_training_sees(face_folder, out, fit, size):
    convert(face_folder, out, fit=fit, size=size)
    prepare = Preprocess(size, fit)
    for path in scan_folder(face_folder, progress=False).paths:
        once = prepare(decode(face_folder / path, size))
        again = prepare(decode(out / path, size))
        assert once.shape == (3, size, size)
        assert torch.equal(once, again)


@pytest.mark.parametrize("size", [24, 160])
def test_crop_and_squash_equal_pillow(face_folder, out, size):
    picture = Image.open(face_folder / "Ann" / "0.png")
    convert(face_folder, out / "s", fit="squash", size=size)
    convert(face_folder, out / "c", fit="crop", size=size)
    square = picture.crop((0, 4, 40, 44))
    for name, source in (("s", picture), ("c", square)):
        oracle = source.resize((size, size), Image.Resampling.BILINEAR)
        assert np.array_equal(pixels(out / name / "Ann" / "0.png"), np.asarray(oracle))


def test_pictures_come_upright_rgb_and_without_what_is_personal(tmp_path, out):
    folder = tmp_path / "faces" / "Ann"
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "secret"
    picture = Image.fromarray(noise)
    extras = {"exif": exif, "icc_profile": b"secret" * 30}
    picture.save(folder / "turned.jpg", quality=95, comment=b"secret", **extras)
    picture.save(folder / "turned.png", **extras)
    picture.convert("CMYK").save(folder / "ink.tiff")
    picture.convert("L").save(folder / "grey.png")
    picture.convert("P").save(folder / "palette.gif")
    Image.fromarray(np.arange(0, 65536, 65536 // 1600, np.uint16)[:1600].reshape(40, 40)).save(
        folder / "deep.png"
    )
    layers = Image.fromarray(np.dstack([noise, np.full((40, 60), 128, np.uint8)]))
    layers.save(folder / "veil.webp", lossless=True)
    for file_type, ending in (("png", "png"), ("jpeg", "jpg"), ("webp", "webp")):
        convert(tmp_path / "faces", out / file_type, format=file_type, size=30)
        made = results(out / file_type)
        assert len(made) == 7
        for path in made:
            with Image.open(out / file_type / path) as image:
                assert image.format == file_type.upper()
                assert image.mode == "RGB"
                assert image.getexif() == {}
                assert min(image.size) == 30
            assert b"secret" not in (out / file_type / path).read_bytes()
        with Image.open(out / file_type / f"Ann/ink.{ending}") as image:
            assert image.size == (45, 30)
        with Image.open(out / file_type / f"Ann/turned.{ending}") as image:
            assert image.size == (30, 45)
    upright = ImageOps.exif_transpose(Image.open(folder / "turned.png"))
    oracle = upright.resize((30, 45), Image.Resampling.LANCZOS)
    turned = target_names(["Ann/turned.jpg", "Ann/turned.png"], "png", {})["Ann/turned.png"]
    assert np.array_equal(pixels(out / "png" / turned), np.asarray(oracle))


def test_quality_counts(face_folder, out):
    sizes = []
    for quality in (20, 60, 95):
        convert(face_folder, out / str(quality), format="jpeg", quality=quality)
        sizes.append(sum(path.stat().st_size for path in (out / str(quality)).rglob("*.jpg")))
        close = pixels(out / str(quality) / "Ann" / "0.jpg")
    assert sizes[0] < sizes[1] < sizes[2]
    oracle = Image.open(face_folder / "Ann" / "0.png").resize((24, 29), Image.Resampling.LANCZOS)
    assert np.abs(close.astype(int) - np.asarray(oracle).astype(int)).mean() < 12


def test_processes_make_the_same_files(face_folder, out):
    convert(face_folder, out / "0", format="webp")
    convert(face_folder, out / "2", format="webp", workers=2)
    assert results(out / "0") == results(out / "2")
    for path in results(out / "0"):
        assert (out / "0" / path).read_bytes() == (out / "2" / path).read_bytes()


# Names


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["a/b.png"], ["a/b.jpg"]),
        (["a/b.PNG", "a/c.JPEG"], ["a/b.jpg", "a/c.jpg"]),
        (["a/b.jpg", "a/b.png"], ["a/b.jpg", "a/b.png.jpg"]),
        (["a/b.gif", "a/b.jpg"], ["a/b.gif.jpg", "a/b.jpg"]),
        (["a/b.gif", "a/b.png"], ["a/b.jpg", "a/b.png.jpg"]),
        (["a/b.gif", "a/b.jpg", "a/b.gif.jpg"], ["a/b.gif-2.jpg", "a/b.jpg", "a/b.gif.jpg"]),
        (["a/b", "a/b.jpg"], ["a/b-2.jpg", "a/b.jpg"]),
        (["a/photo.1", "a/photo.2", "a/Mr. X"], ["a/photo.1.jpg", "a/photo.2.jpg", "a/Mr. X.jpg"]),
        (["a.png/b", "a.png/b.x.png"], ["a.png/b.jpg", "a.png/b.x.jpg"]),
    ],
)
def test_target_names(paths, expected):
    found = target_names(paths, "jpeg", {})
    assert list(found.values()) == expected
    assert list(found) == paths


def test_target_names_of_earlier_calls_stay():
    first = target_names(["a/b.png"], "jpeg", {})
    known = {**first, "a/gone.png": "a/gone.jpg"}
    found = target_names(["a/b.jpg", "a/b.png", "a/gone.jpg"], "jpeg", known)
    assert found == {
        "a/b.jpg": "a/b.jpg.jpg",
        "a/b.png": "a/b.jpg",
        "a/gone.jpg": "a/gone.jpg.jpg",
    }


part = st.text("ab.-", min_size=1, max_size=4)
ending = st.sampled_from(["", ".png", ".jpg", ".JPG", ".gif", ".jpg.jpg", ".png.jpg"])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(part, ending).map("".join), unique=True, min_size=1, max_size=12),
    st.integers(0, 12),
    st.sampled_from(["jpeg", "png", "webp"]),
)
def test_no_two_pictures_get_one_name(names, earlier, file_type):
    paths = sorted(f"p/{name}" for name in names)
    known = target_names(paths[:earlier], file_type, {})
    found = target_names(paths, file_type, known)
    assert list(found) == paths
    assert len(set(found.values())) == len(paths)
    assert known.items() <= found.items()
    new = {"jpeg": ".jpg", "png": ".png", "webp": ".webp"}[file_type]
    assert all(target.endswith(new) for target in found.values())


raw_name = raw_names(30, hidden=False)


@settings(max_examples=20, deadline=None)
@given(st.dictionaries(raw_name, st.sets(raw_name, min_size=1, max_size=4), min_size=1, max_size=3))
def test_names_of_any_bytes_are_kept(layout):
    with tempfile.TemporaryDirectory() as home:
        root, out = Path(home) / "in", Path(home) / "out"
        colours = {}
        for person, names in layout.items():
            folder = root / os.fsdecode(person)
            folder.mkdir(parents=True)
            for name in names:
                colour = (len(colours) * 9, 100, 7)
                colours[os.fsdecode(person), os.fsdecode(name)] = colour
                with open(folder / os.fsdecode(name), "wb") as file:
                    Image.new("RGB", (30, 40), colour).save(file, "png")
        try:
            expected = len(scan_folder(root, progress=False).paths)
        except UserError:  # one name in two Unicode forms
            with pytest.raises(UserError, match="Unicode"):
                convert(root, out)
            return
        for written in (len(colours), 0):
            result = convert(root, out)
            assert (result.written, result.kept) == (written, expected - written)
            assert result.foreign == result.orphaned == ()
            assert result.text()
        assert expected == len(colours) == len(results(out))
        paths = [f"{person}/{name}" for person, name in colours]
        for source, target in target_names(sorted(paths), "png", {}).items():
            person, _, name = source.partition("/")
            assert target.startswith(f"{person}/")
            assert Path(target).name.startswith(os.path.splitext(name)[0])
            assert (pixels(out / target) == colours[person, name]).all()


# A second call


def test_a_second_call_does_what_is_missing_or_changed(face_folder, out):
    first = convert(face_folder, out)
    assert (first.written, first.kept, first.people) == (36, 0, 6)
    before = fingerprint(out)
    assert convert(face_folder, out).written == 0
    assert fingerprint(out) == before
    Image.new("RGB", (30, 40), "red").save(face_folder / "Ann" / "0.png")  # changed
    os.utime(face_folder / "Ann" / "0.png", ns=(10**18, 10**18))  # older than the result
    Image.new("RGB", (30, 40), "blue").save(face_folder / "Ann" / "new.png")
    (out / "dora" / "2.png").unlink()
    (face_folder / "eve" / "5.png").unlink()
    result = convert(face_folder, out)
    assert (result.written, result.kept) == (3, 33)
    assert result.orphaned == ("eve/5.png",)
    assert result.foreign == ()
    assert (pixels(out / "Ann" / "0.png") == (255, 0, 0)).all()
    assert (pixels(out / "Ann" / "new.png") == (0, 0, 255)).all()
    after = fingerprint(out)
    mine = {str(out / p) for p in ("Ann/0.png", "Ann/new.png", "dora/2.png")}
    mine.add(str(out / ".convert.jsonl"))
    assert {path for path in after if after[path] != before.get(path)} == mine


def test_files_of_somebody_else_are_kept_and_told(face_folder, out):
    (out / "Ann").mkdir(parents=True)
    (out / "notes.txt").write_text("mine")
    (out / "Ann" / "0.png").write_text("mine, too")
    (out / "Ann" / "1.png").symlink_to(face_folder / "dora" / "1.png")
    before, source = fingerprint(out), fingerprint(face_folder)
    for _ in range(2):
        result = convert(face_folder, out)
        assert result.written + result.kept == 34
        assert result.foreign == ("Ann/0.png", "Ann/1.png", "notes.txt")
        assert {"Ann/0.png", "Ann/1.png"} == listed(result).keys()
        assert "taken" in listed(result)["Ann/0.png"]
        assert "3 files are not of this conversion" in result.text()
    now = fingerprint(out)
    assert {path: now[path] for path in before} == before
    assert fingerprint(face_folder) == source


def test_a_result_that_was_changed_is_kept(face_folder, out):
    convert(face_folder, out)
    Image.new("RGB", (9, 9)).save(out / "Ann" / "0.png")
    os.utime(face_folder / "Ann" / "0.png")  # its source changed, too
    result = convert(face_folder, out)
    assert result.foreign == ("Ann/0.png",)
    assert pixels(out / "Ann" / "0.png").shape == (9, 9, 3)


@pytest.mark.parametrize(
    ("changed", "name"),
    [({"size": 30}, "size"), ({"fit": "crop"}, "fit"), ({"format": "webp"}, "format")],
)
def test_another_way_needs_another_folder(face_folder, out, changed, name):
    convert(face_folder, out)
    before = fingerprint(out)
    with pytest.raises(UserError, match=rf"^`{name}` .* was converted with .*another `out`"):
        convert(face_folder, out, **changed)
    assert fingerprint(out) == before
    assert convert(face_folder, out, quality=3).written == 0  # no matter for PNG


def test_another_source_needs_another_folder(face_folder, draw_people, tmp_path, out):
    convert(face_folder, out)
    with pytest.raises(UserError, match=r"`data` .* was converted with"):
        convert(draw_people(tmp_path / "other", ["x"]), out)
    link = tmp_path / "link"
    link.symlink_to(face_folder)
    assert convert(link, out).kept == 36  # the same one


@pytest.mark.parametrize("cut", [1, 5, 70, 200])
def test_a_record_that_was_cut_off_is_read_up_to_there(face_folder, out, cut):
    convert(face_folder, out)
    record = out / ".convert.jsonl"
    record.write_bytes(record.read_bytes()[:-cut])
    lost = 36 - (record.read_text().count("\n") - 1)
    result = convert(face_folder, out)
    # What the record does not know might be somebody's: it stays.
    assert (result.kept, len(result.foreign)) == (36 - lost, lost)
    (out / result.foreign[0]).unlink()
    assert convert(face_folder, out).written == 1
    assert convert(face_folder, out).kept == 36 - lost + 1


@pytest.mark.parametrize("content", [b"\x00\xff\n", b"[1]\n", b"{}\n", b"7\n{}\n"])
def test_a_foreign_record_is_refused(face_folder, out, content):
    out.mkdir()
    (out / ".convert.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=r"\.convert\.jsonl: is damaged|was converted with None"):
        convert(face_folder, out)
    assert (out / ".convert.jsonl").read_bytes() == content


def test_a_record_whose_first_line_was_cut_off_begins_anew(face_folder, out):
    out.mkdir()
    (out / ".convert.jsonl").write_bytes(b'{"data": "/so')
    assert convert(face_folder, out).written == 36
    assert convert(face_folder, out).kept == 36


def _convert_slowly(data: Path, out: Path, workers: int) -> None:
    def slow(path: Path, size: int | None = None) -> Image.Image:
        time.sleep(0.03)
        return decode(path, size)

    convert_module.decode = slow  # type: ignore[attr-defined]
    convert_module._BATCH = 2  # type: ignore[misc]
    sys.stderr = io.StringIO()
    convert(data, out, workers=workers)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_call_goes_on(face_folder, out, workers, number):
    process = multiprocessing.get_context("fork").Process(
        target=_convert_slowly, args=(face_folder, out, workers)
    )
    process.start()
    until = time.monotonic() + 60
    while len(list(out.glob("*/[0-9]*.png"))) < 8 and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(process.pid or 0, number)
    process.join(60)
    done = sorted(out.glob("*/[0-9]*.png"))
    assert 8 <= len(done) < 36
    for path in done:
        assert pixels(path).shape == (29, 24, 3)
    result = convert(face_folder, out)
    assert result.kept >= len(done) - 1
    assert result.kept + result.written == 36
    assert result.foreign == ()
    assert results(out) == sorted(scan_folder(face_folder, progress=False).paths)


def test_two_calls_at_once(face_folder, out, monkeypatch):
    monkeypatch.setattr(convert_module, "_PATIENCE", 0.1)
    process = multiprocessing.get_context("fork").Process(
        target=_convert_slowly, args=(face_folder, out, 0)
    )
    process.start()
    while not list(out.glob("*/[0-9]*.png")):
        time.sleep(0.01)
    with pytest.raises(UserError, match="another conversion is writing it"):
        convert(face_folder, out)
    process.join(60)
    assert process.exitcode == 0
    assert convert(face_folder, out).kept == 36


# What is left out


def test_what_is_left_out_is_listed(face_folder, tmp_path, out):
    (face_folder / "Ann" / "0.png").write_bytes((face_folder / "Ann" / "0.png").read_bytes()[:900])
    for picture in (face_folder / "eve").iterdir():
        picture.write_bytes(picture.read_bytes()[:900])
    (face_folder / "Ann" / "notes.txt").write_text("x")
    (face_folder / "outside.png").write_bytes(b"x")
    (face_folder / "dora" / "deeper").mkdir()
    source = fingerprint(face_folder)
    result = convert(face_folder, out)
    assert (result.written, result.people) == (29, 5)
    expected = {f"eve/{n}.png" for n in range(6)} | {"Ann/0.png", "Ann/notes.txt"}
    expected |= {"outside.png", "dora/deeper"}
    assert result.listed == tmp_path / "of 24 px-left-out.csv"
    assert listed(result).keys() == {item.path for item in result.left_out} == expected
    assert listed(result)["Ann/0.png"].startswith("cannot be decoded (")
    told = result.text()
    assert "29 pictures of 5 people" in told
    assert "10 left out (7 cannot be decoded, 1 not an image" in told
    assert str(result.listed) in told
    assert ImageFolder(out).classes == ["Ann", "Bob Lee", "Chloé", "dora", "夏子"]
    assert fingerprint(face_folder) == source
    shutil.rmtree(face_folder / "eve")
    for path in expected - {f"eve/{n}.png" for n in range(6)}:
        (face_folder / path).rmdir() if path == "dora/deeper" else (face_folder / path).unlink()
    again = convert(face_folder, out)
    assert (again.listed, again.kept) == (None, 29)
    assert result.listed.read_text().splitlines() == ["path,reason"]


def test_the_list_lies_in_the_folder_where_nothing_can_lie_beside_it(face_folder, out, monkeypatch):
    (face_folder / "Ann" / "notes.txt").write_text("x")
    write = convert_module.write_csv

    def only_inside(path, *given):
        if path.parent != out:
            raise CannotWrite(f"{path}: cannot be written")
        return write(path, *given)

    monkeypatch.setattr(convert_module, "write_csv", only_inside)
    result = convert(face_folder, out)
    assert result.listed == out / ".convert-left-out.csv"
    assert listed(result).keys() == {"Ann/notes.txt"}
    assert convert(face_folder, out).foreign == ()


def test_a_picture_that_the_file_type_cannot_hold(face_folder, out):
    Image.new("RGB", (17000, 20)).save(face_folder / "Ann" / "long.png")
    result = convert(face_folder, out, format="webp")
    assert result.written == 36
    assert listed(result)["Ann/long.png"].startswith("cannot be saved as webp (")
    assert not list(out.rglob("*.tmp"))


def test_a_name_that_becomes_too_long(face_folder, out):
    name = "x" * 251 + ".png"
    shutil.copy(face_folder / "Ann" / "0.png", face_folder / "Ann" / name)
    result = convert(face_folder, out, format="webp")
    assert result.written == 36
    assert "File name too long" in listed(result)[f"Ann/{name}"]
    assert not list(out.rglob("*.tmp"))


def test_nothing_but_broken_pictures(tmp_path, out):
    (tmp_path / "faces" / "Ann").mkdir(parents=True)
    Image.new("RGB", (300, 300)).save(tmp_path / "faces" / "Ann" / "a.png")
    content = (tmp_path / "faces" / "Ann" / "a.png").read_bytes()
    (tmp_path / "faces" / "Ann" / "a.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"not one of its 1 pictures .* Ann/a\.png: cannot be"):
        convert(tmp_path / "faces", out)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_full_disk_keeps_what_is_done(face_folder, out, monkeypatch, workers):
    save = Image.Image.save

    def full(self: Image.Image, file: Path, *given: Any, **more: Any) -> None:
        save(self, file, *given, **more)
        if "-20" in file.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(UserError, match=r"^`out` .*No space left on device"):
        convert(face_folder, out, workers=workers)
    monkeypatch.undo()
    done = len(results(out))
    assert 0 < done < 36
    result = convert(face_folder, out)
    assert (result.kept, result.written) == (done, 36 - done)


# Places that cannot be used


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("faces", "lies in"),
        ("faces/out", "lies in"),
        ("link/out", "lies in"),
        (".", "lies in"),
        ("file", "is a file"),
        ("file/below", "cannot be written"),
        ("/proc/none", "cannot be written"),
        ("linked", "a link leads out of"),
        ("with file", "is a file"),
    ],
)
def test_a_place_that_cannot_be_used_is_one_line(
    face_folder: Path, tmp_path: Path, run_here: Run, where: str, message: str
) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(face_folder)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "Ann").symlink_to(face_folder / "Ann")
    (tmp_path / "with file").mkdir()
    (tmp_path / "with file" / "Ann").write_text("x")
    before = fingerprint(face_folder)
    result = run_here(
        "data", "convert", face_folder, "--out", where, "--workers", 0, "--size", 24, cwd=tmp_path
    )
    assert result.returncode == 2
    (line,) = [line for line in result.stderr.splitlines() if "error:" in line]
    assert message in line
    assert fingerprint(face_folder) == before


def test_the_command(face_folder: Path, tmp_path: Path, run_here: Run) -> None:
    given = ("data", "convert", face_folder, "--out", "small", "--size", 20, "--format", "webp")
    for words in ("36 pictures of 6 people in small\n", "(36 of them were there)"):
        result = run_here(*given, "--workers", 2, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert words in result.stdout
    assert len(list((tmp_path / "small").glob("*/*.webp"))) == 36
    assert len(scan_folder(tmp_path / "small", progress=False).paths) == 36
