"""One picture file, any type that Pillow reads by itself, to RGB pixels.

Where a change here gives other pixels, raise `siamese.data.cache.CACHE_VERSION`.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from siamese.errors import UserError
from siamese.files.places import open_regular

_BOMB = "too large (decompression bomb)"
_FROM_16_BITS = np.round(np.arange(65536) / 257.0).astype(np.uint8)


# What phones, cameras and browsers make; a reader for each other type is one more to attack.
SENT_TYPES = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")


class DecodeError(UserError):
    """A picture that cannot be decoded; the message names the file."""


def open_picture(file: Path | IO[bytes], types: tuple[str, ...] | None = None) -> Image.Image:
    """Open a picture of any type but EPS; with ``types`` of these, by Pillow's names.

    Those Pillow gives to Ghostscript, where there is one, which runs the program that they are; not
    yet when they are opened, but when they are loaded.

    Raises:
        UnidentifiedImageError: an EPS, or no picture at all.
        Exception: of many kinds; see Pillow.
    """
    if types is not None:
        Image.init()
        types = tuple(name for name in types if name in Image.OPEN)  # a Pillow may lack some
    image = Image.open(file, formats=types)
    if image.format == "EPS":
        with image:  # closes what was opened here
            raise UnidentifiedImageError("an EPS file is a program, and not run")
    return image


def check_header(path: Path) -> str | None:
    """Read a picture's header only.

    Returns:
        None when Pillow knows the file type and the size is sane, else the reason it is left out.
    """
    try:
        with open_regular(path) as file, open_picture(file) as image:
            pixels, limit = image.width * image.height, Image.MAX_IMAGE_PIXELS
    except Image.DecompressionBombError:
        return _BOMB
    except Exception:  # Pillow's readers raise whatever a broken header makes them stumble over
        Image.init()
        known = path.suffix.lower() in Image.registered_extensions()
        return "unreadable image" if known else "not an image"
    return _BOMB if limit is not None and pixels > limit else None


def shorter_side(path: Path) -> int | None:
    """The shorter side in pixels by a picture's header; None where it cannot be read."""
    try:
        with open_picture(path) as image:
            return min(image.size)
    except Exception:  # see check_header
        return None


def decode(path: Path, size: int | None = None) -> Image.Image:
    """Decode a picture to RGB, upright.

    EXIF orientation is applied; greyscale, palette, CMYK and 16-bit pictures are converted,
    transparency is laid over white as viewers show it, of an animation the first frame is taken.

    Args:
        size: side in pixels that is needed later; large JPEGs are then decoded reduced, to no
            less than twice that (the same in training and evaluation).

    Raises:
        DecodeError: the file is missing, truncated or broken.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's notes on odd metadata; errors still raise
            # As an open file: Pillow maps a path into memory and then garbles turned grey TIFFs.
            with open_regular(path) as file, open_picture(file) as image:
                return _pixels(image, size)
    except Exception as error:  # see check_header: anything at all may be raised
        raise DecodeError(f"{path}: cannot be decoded ({type(error).__name__}: {error})") from None


def decode_bytes(content: bytes, name: str, size: int | None, most_pixels: int) -> Image.Image:
    """Decode a picture that a stranger has sent; see :func:`decode`.

    Args:
        content: the file, one of :data:`SENT_TYPES`.
        name: what messages call it.
        size: see :func:`decode`.
        most_pixels: width times height at which it is still decoded.

    Raises:
        DecodeError: of another type, truncated, broken, or of more pixels.
    """
    try:
        with open_picture(io.BytesIO(content), SENT_TYPES) as image:
            if image.width * image.height <= most_pixels:
                return _pixels(image, size)
            sides = f"{image.width} x {image.height}"
    except Image.DecompressionBombError:
        sides = "far too many"
    except UnidentifiedImageError:
        raise DecodeError(f"{name}: is no picture of the types {', '.join(SENT_TYPES)}") from None
    except Exception as error:  # see check_header: anything at all may be raised
        # Not Pillow's own words, which may hold an address in memory.
        raise DecodeError(f"{name}: cannot be decoded ({type(error).__name__})") from None
    raise DecodeError(f"{name}: {sides} pixels; at most {most_pixels / 1e6:g} million are taken")


def _pixels(image: Image.Image, size: int | None) -> Image.Image:
    """An opened picture, loaded; see :func:`decode`."""
    if size is not None:
        image.draft(None, (2 * size, 2 * size))
    image.load()
    return to_rgb(upright(image))


def upright(image: Image.Image) -> Image.Image:
    """A picture turned as its EXIF orientation says."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # broken metadata is no reason to lose the picture
        return image


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode to 8-bit RGB; see :func:`decode`."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return _deep_grey(np.asarray(image))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _deep_grey(values: np.ndarray) -> Image.Image:
    """16-bit integers and floats to 8 bits; Pillow's own conversion clips them at 255."""
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        # Looked up: calculating takes many times the picture's memory.
        return Image.fromarray(_FROM_16_BITS[values]).convert("RGB")
    pixels = np.nan_to_num(values.astype(np.float64))
    low, high = pixels.min(), pixels.max()
    if np.issubdtype(values.dtype, np.integer) and low >= 0 and high <= 65535:
        pixels = pixels / 257.0
    elif low >= 0 and high <= 1:
        pixels = pixels * 255.0
    elif low < 0 or high > 255:  # no range is agreed on: stretch to what the picture uses
        pixels = (pixels - low) * (255.0 / max(high - low, 1e-12))
    grey = Image.fromarray(np.round(pixels).astype(np.uint8))
    return grey.convert("RGB")
