"""Decoding: every kind of picture becomes upright RGB, a broken one an error that names it."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageOps

from siamese.curation.inspection import inspect_file
from siamese.data.decode import DecodeError, check_header, decode, to_rgb
from siamese.errors import UserError

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def pixels(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def corners() -> Image.Image:
    """A 3 x 2 picture whose six pixels all differ."""
    values = np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 14
    return Image.fromarray(values)


def smooth(width: int, height: int) -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 6, width), np.linspace(0, 5, height))
    waves = [np.sin(x + y), np.cos(x - y), np.sin(2 * x)]
    return Image.fromarray(np.stack([120 + 100 * w for w in waves], -1).astype(np.uint8))


# How each EXIF orientation turns an array, written down from the standard's table.
TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", TURNS)
def test_exif_orientation_is_applied(tmp_path, orientation):
    path = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = orientation
    corners().save(path, exif=exif)
    found = pixels(decode(path))
    assert np.array_equal(found, TURNS[orientation](np.asarray(corners())))
    with Image.open(path) as image:
        assert np.array_equal(found, np.asarray(ImageOps.exif_transpose(image)))


@pytest.mark.parametrize("orientation", TURNS)
def test_a_jpeg_decoded_reduced_is_upright(tmp_path, orientation):
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (320, 200), RED).save(path, exif=exif)
    width, height = decode(path, 20).size
    assert (height > width) == (orientation >= 5)


def test_broken_metadata_does_not_lose_the_picture(tmp_path):
    path = tmp_path / "broken_exif.jpg"
    Image.new("RGB", (8, 8), GREEN).save(path, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0")
    assert np.allclose(pixels(decode(path)), GREEN, atol=3)


def save_mode(path: Path, mode: str) -> Path:
    Image.new("RGB", (4, 4), (200, 100, 50)).convert(mode).save(path)
    return path


@pytest.mark.parametrize(
    ("mode", "name", "expected"),
    [
        ("RGB", "a.png", (200, 100, 50)),
        ("L", "a.png", (124, 124, 124)),
        ("1", "a.png", None),
        ("P", "a.png", None),
        ("LA", "a.png", (124, 124, 124)),
        ("RGBA", "a.png", (200, 100, 50)),
        ("CMYK", "a.tiff", (200, 100, 50)),
        ("CMYK", "a.jpg", (200, 100, 50)),
        ("YCbCr", "a.tiff", (200, 100, 50)),
    ],
)
def test_modes_become_rgb(tmp_path, mode, name, expected):
    path = save_mode(tmp_path / name, mode)
    found = pixels(decode(path))
    assert found.shape == (4, 4, 3)
    if expected is not None:
        assert np.allclose(found, expected, atol=4)
    with Image.open(path) as image:
        assert image.mode == mode or mode == "YCbCr"
        assert np.array_equal(found, np.asarray(image.convert("RGB")))


def test_one_bit_pictures_are_black_and_white(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[True, False], [False, True]])).save(path)
    assert pixels(decode(path))[..., 0].tolist() == [[255, 0], [0, 255]]


def test_transparency_lies_over_white(tmp_path):
    path = tmp_path / "a.png"
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 3] = (0, 51, 255)  # black: unseen, a fifth, whole
    Image.fromarray(rgba).save(path)
    assert pixels(decode(path))[0, :, 0].tolist() == [255, 204, 0]


def test_grey_with_transparency_lies_over_white(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[[0, 0], [0, 255]]], np.uint8), mode="LA").save(path)
    assert pixels(decode(path))[0].tolist() == [[255] * 3, [0] * 3]


@pytest.mark.parametrize("name", ["a.png", "a.gif"])
def test_a_transparent_palette_colour_becomes_white(tmp_path, name):
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *GREEN, *BLUE])
    image.putdata([0, 1, 2])
    image.save(tmp_path / name, transparency=1)
    assert pixels(decode(tmp_path / name))[0].tolist() == [list(RED), [255] * 3, list(BLUE)]


def test_a_transparent_colour_of_an_rgb_picture_becomes_white(tmp_path):
    image = Image.new("RGB", (2, 1), RED)
    image.putpixel((1, 0), BLUE)
    image.save(tmp_path / "a.png", transparency=RED)
    assert pixels(decode(tmp_path / "a.png"))[0].tolist() == [[255] * 3, list(BLUE)]


def test_the_first_frame_of_an_animation_is_taken(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, GREEN)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert np.allclose(pixels(decode(tmp_path / "a.gif")), RED, atol=4)


@pytest.mark.parametrize("ending", ["png", "tiff"])
def test_sixteen_bit_greys_are_scaled_and_not_clipped(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    eight = np.arange(256).reshape(16, 16)
    Image.fromarray((eight * 257).astype(np.uint16)).save(path)
    found = pixels(decode(path))
    assert np.array_equal(found, np.stack([eight] * 3, -1))


# Pillow garbles an uncompressed grey TIFF that is turned, when it is opened by its path.


def test_a_sixteen_bit_picture_is_turned_upright(tmp_path):
    path = tmp_path / "a.tiff"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray((np.arange(6).reshape(2, 3) * 257).astype(np.uint16)).save(path, exif=exif)
    assert pixels(decode(path))[..., 0].tolist() == [[3, 0], [4, 1], [5, 2]]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[0.0, 0.2, 1.0]], [0, 51, 255]),
        ([[0.0, 20.0, 250.0]], [0, 20, 250]),
        ([[-1.0, 0.0, 1.0]], [0, 128, 255]),
        ([[0.0, 500.0, 1000.0]], [0, 128, 255]),
        ([[0.0, float("nan"), 1.0]], [0, 0, 255]),
    ],
)
def test_float_pictures_use_the_range_of_their_values(tmp_path, values, expected):
    Image.fromarray(np.array(values, np.float32)).save(tmp_path / "a.tiff")
    assert pixels(decode(tmp_path / "a.tiff"))[0, :, 0].tolist() == expected


@pytest.mark.parametrize(
    "name", ["cut.jpg", "cut.png", "cut.webp", "cut.gif", "cut.bmp", "cut.tiff"]
)
def test_a_truncated_picture_is_an_error_that_names_it(tmp_path, name):
    whole = tmp_path / f"whole{Path(name).suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(whole)
    (tmp_path / name).write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    decode(whole)
    with pytest.raises(DecodeError, match=name):
        decode(tmp_path / name)


def test_a_missing_picture_is_an_error_that_names_it(tmp_path):
    with pytest.raises(UserError, match=r"gone\.jpg: cannot be decoded"):
        decode(tmp_path / "gone.jpg")


def test_a_large_jpeg_decoded_reduced_looks_the_same_after_resizing(tmp_path):
    path = tmp_path / "large.jpg"
    smooth(1600, 1200).save(path, quality=95)
    whole, reduced = decode(path), decode(path, 64)
    assert whole.size == (1600, 1200)
    assert min(reduced.size) >= 128
    assert reduced.width < whole.width
    small = [pixels(image.resize((64, 64), Image.Resampling.BICUBIC)) for image in (whole, reduced)]
    assert np.abs(small[0] - small[1]).mean() < 1
    assert np.abs(small[0] - small[1]).max() <= 8


def test_a_small_jpeg_is_decoded_whole(tmp_path):
    smooth(130, 130).save(tmp_path / "small.jpg")
    assert decode(tmp_path / "small.jpg", 64).size == (130, 130)


def test_headers_of_pictures_pass(face_folder):
    assert check_header(face_folder / "Ann" / "0.png") is None


@pytest.mark.parametrize("name", ["a.eps", "a.jpg"])
def test_a_program_in_postscript_is_never_run(tmp_path, monkeypatch, name):
    smooth(30, 30).save(tmp_path / name, "eps")
    ran = []

    def run(*given):
        ran.append(given)
        raise OSError("it ran")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", run)
    assert check_header(tmp_path / name) == "unreadable image"
    assert inspect_file(str(tmp_path / name)).status == "unreadable"
    with pytest.raises(DecodeError, match=name):
        decode(tmp_path / name)
    assert not ran
    with Image.open(tmp_path / name) as image, pytest.raises(OSError, match="it ran"):
        image.load()  # what would have happened
    assert ran


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("factor", [1, 3])
def test_a_decompression_bomb_is_left_out(face_folder, monkeypatch, factor):
    """Pillow warns above its limit and raises above twice that: both are left out."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 48 // factor - 1)
    reason = check_header(face_folder / "Ann" / "0.png")
    assert reason == "too large (decompression bomb)"


def test_a_large_16_bit_picture_takes_little_memory() -> None:
    values = np.arange(1000 * 1000).reshape(1000, 1000).astype(np.uint16)
    picture = Image.fromarray(values)
    tracemalloc.start()
    try:
        rgb = to_rgb(picture)
        assert tracemalloc.get_traced_memory()[1] < 8 * values.size  # bytes
    finally:
        tracemalloc.stop()
    assert np.array_equal(pixels(rgb)[..., 1], np.round(values / 257))
