"""Facts of one file: what is in it, and exactly what training would refuse."""

import io
import os
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from siamese.curation import inspection
from siamese.curation.inspection import FileFacts, inspect_file
from siamese.data.decode import DecodeError, check_header, decode
from tests.conftest import draw_person


def saved(tmp_path, name, image=None, **options):
    path = tmp_path / name
    (image or draw_person(0, 0)).save(path, **options)
    return path


def facts(path) -> FileFacts:
    return inspect_file(os.fspath(path))


@pytest.mark.parametrize(
    ("mode", "name"),
    [("RGB", "a.jpg"), ("L", "a.png"), ("CMYK", "a.jpg"), ("I;16", "a.png"), ("1", "a.png"),
     ("RGBA", "a.webp"), ("P", "a.gif"), ("LA", "a.png"), ("F", "a.tif")],
)  # fmt: skip
def test_modes_and_formats(tmp_path, mode, name):
    if mode == "I;16":
        image = Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50)
    else:
        image = draw_person(0, 0).resize((40, 30)).convert(mode)
    path = saved(tmp_path, name, image)
    seen = facts(path)
    with Image.open(path) as opened:
        assert (seen.format, seen.mode) == (opened.format, opened.mode)
    assert (seen.status, seen.width, seen.height, seen.frames) == ("usable", 40, 30, 1)
    assert len(seen.content) == 64
    assert len(seen.fingerprint) == 80


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
def test_orientation(tmp_path, name):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = facts(saved(tmp_path, name, exif=exif.tobytes()))
    assert turned.orientation == 6
    assert facts(saved(tmp_path, f"b{name}")).orientation == 1
    upright = facts(saved(tmp_path, "c.png", decode(tmp_path / name)))
    assert (bytes.fromhex(upright.fingerprint)[:8]) == bytes.fromhex(turned.fingerprint)[:8]


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tif"])
def test_animated_files(tmp_path, name):
    frames = [draw_person(person, 0) for person in range(3)]
    path = saved(tmp_path, name, frames[0], save_all=True, append_images=frames[1:])
    assert facts(path).frames == 3


def test_a_phone_s_second_picture_is_no_animation(tmp_path):
    frames = [draw_person(person, 0) for person in range(2)]
    path = saved(tmp_path, "a.mpo", frames[0], save_all=True, append_images=frames[1:])
    seen = facts(path.rename(tmp_path / "a.jpg"))
    assert (seen.format, seen.frames) == ("MPO", 1)


def png_that_claims(width, height):
    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    end = chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"x" * 50) + end


@pytest.mark.parametrize(("width", "height"), [(10_000, 10_000), (60_000, 60_000)])
def test_bombs_are_not_decoded(tmp_path, monkeypatch, width, height):
    def load(*_):
        raise AssertionError("decoded")

    path = tmp_path / "bomb.png"
    path.write_bytes(png_that_claims(width, height))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    assert facts(path).status == "bomb"


@pytest.mark.parametrize(
    ("name", "content", "status"),
    [
        ("a.jpg", b"", "zero bytes"),
        ("a.jpg", b"no picture at all", "unreadable"),
        ("a.txt", b"no picture at all", "not a picture"),
        ("Thumbs.db", b"\0" * 600, "not a picture"),
    ],
)
def test_no_pictures(tmp_path, name, content, status):
    path = tmp_path / name
    path.write_bytes(content)
    assert facts(path).status == status


def test_what_cannot_be_opened_is_asked_again(tmp_path):
    seen = facts(tmp_path / "gone.jpg")
    assert seen.status == "closed"
    assert not seen.lasting
    assert facts(saved(tmp_path, "a.jpg")).lasting


def test_a_reader_that_runs_out_of_memory_does_not_condemn_the_file(tmp_path, monkeypatch):
    def load(*_):
        raise MemoryError

    path = saved(tmp_path, "a.png")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    assert (facts(path).status, facts(path).lasting) == ("failed", False)


def test_large_files_are_read_in_parts(tmp_path, monkeypatch):
    path = saved(tmp_path, "a.png")
    whole = facts(path)
    monkeypatch.setattr(inspection, "_WHOLE", 10)
    assert facts(path) == whole


def refused_by_training(path) -> bool:
    try:
        decode(path)
    except DecodeError:
        return True
    return check_header(path) is not None


@pytest.mark.filterwarnings("ignore")  # Pillow's, on odd metadata
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.gif", "a.webp", "a.bmp", "a.tif"])
def test_broken_bytes_are_judged_as_training_does(tmp_path, name):
    draw = random.Random(name)
    good = saved(tmp_path, name).read_bytes()
    refused = 0
    for number in range(120):
        data = bytearray(good)
        for _ in range(draw.choice((1, 1, 4, 30))):
            data[draw.randrange(min(len(data), draw.choice((30, len(data)))))] = draw.randrange(256)
        path = tmp_path / f"{number}{name}"
        path.write_bytes(data[: draw.choice((len(data), draw.randrange(len(data))))])
        seen = facts(path)
        assert (seen.status != "usable") == refused_by_training(path), (path, seen)
        refused += seen.status != "usable"
    assert 10 < refused < 120


def test_the_fingerprint_is_of_the_upright_picture_as_training_sees_it(tmp_path):
    path = saved(tmp_path, "a.jpg")
    file = io.BytesIO()
    decode(path).save(file, "PNG")
    again = tmp_path / "again.png"
    again.write_bytes(file.getvalue())
    assert facts(again).fingerprint == facts(path).fingerprint
