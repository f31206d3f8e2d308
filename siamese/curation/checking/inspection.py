"""What a check knows about one file: read once, whole, in a process of its own."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from PIL import Image, UnidentifiedImageError

from siamese.curation.checking.fingerprints import fingerprint_of
from siamese.data.decode import check_header, open_picture, to_rgb, upright
from siamese.files.places import open_regular

Status = Literal["usable", "unreadable", "not a picture", "bomb", "zero bytes", "closed", "failed"]

_ORIENTATION = 0x0112
# Phones append a second picture to a JPEG, drawings have layers: neither moves.
_STILL = {"MPO", "PSD"}
_WHOLE = 1 << 24  # bytes; larger files are not held in memory


@dataclass(frozen=True)
class FileFacts:
    """Everything that a check asks of a file's content.

    Attributes:
        status: ``usable`` exactly when training could decode it; ``closed``: the file cannot be
            opened; ``failed``: reading it crashed or never ended.
        detail: the reader's words where it is not usable.
        content: BLAKE2b of the bytes, 64 hexadecimal digits; empty where it was not read.
        format: Pillow's name of the file type, such as ``JPEG``; empty when unknown.
        mode: Pillow's mode as stored, such as ``RGB``, ``L``, ``CMYK``, ``I;16``.
        width: in pixels, as stored.
        height: in pixels, as stored.
        orientation: EXIF orientation, 1 (upright) to 8.
        frames: 1 for a still picture.
        fingerprint: see :mod:`siamese.curation.checking.fingerprints`; empty where not usable.
        contrast: standard deviation of the grey values, 0 to 127.5.
    """

    status: Status
    detail: str = ""
    content: str = ""
    format: str = ""
    mode: str = ""
    width: int = 0
    height: int = 0
    orientation: int = 1
    frames: int = 1
    fingerprint: str = ""
    contrast: float = 0.0

    @property
    def lasting(self) -> bool:
        """Whether the same bytes give the same facts again; permissions and crashes may change."""
        return self.status not in ("closed", "failed")


def inspect_file(path: str) -> FileFacts:
    """Read, hash and decode a file; nothing that is in a file raises an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's notes on odd metadata; errors still raise
        return _inspected(path)


def _inspected(path: str) -> FileFacts:
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            data = io.BytesIO(file.read()) if size <= _WHOLE else file
            content = hashlib.file_digest(data, _digest).hexdigest()
            data.seek(0)
            if data.read(1) == b"":
                return FileFacts("zero bytes", content=content)
            data.seek(0)
            return _picture_facts(path, data, content)
    except OSError as error:
        return FileFacts("closed", error.strerror or type(error).__name__)


def _digest() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=32)


def _picture_facts(path: str, data: IO[bytes], content: str) -> FileFacts:
    try:
        with open_picture(data) as image:
            return _decoded(image, content)
    except MemoryError:
        return FileFacts("failed", "not enough memory to decode it")
    except Exception as error:  # Pillow's readers raise whatever broken bytes lead them to
        return _refused(path, error, content)


def _decoded(image: Image.Image, content: str) -> FileFacts:
    """Facts of an opened picture, decoded as siamese.data.decode does it."""
    kind, mode = image.format or "", image.mode
    width, height = image.size
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        detail = f"{width} x {height} pixels"
        return FileFacts("bomb", detail, content, kind, mode, width, height)
    # Reading a PNG's EXIF decodes it, so that comes later; a TIFF is turned while it is decoded.
    orientation = _orientation(image) if kind == "TIFF" else None
    image.load()
    pixels = to_rgb(upright(image))
    seen = fingerprint_of(pixels)
    return FileFacts(
        "usable",
        content=content,
        format=kind,
        mode=mode,
        width=width,
        height=height,
        orientation=orientation or _orientation(image),
        frames=_frames(image),
        fingerprint=seen.code,
        contrast=seen.contrast,
    )


def _refused(path: str, error: Exception, content: str) -> FileFacts:
    if isinstance(error, Image.DecompressionBombError):
        return FileFacts("bomb", "too many pixels", content)
    if check_header(Path(path)) == "not an image":
        return FileFacts("not a picture", "", content)
    if isinstance(error, UnidentifiedImageError):
        return FileFacts("unreadable", "no file type that Pillow knows", content)
    detail = f"{type(error).__name__}: {error}"
    return FileFacts("unreadable", detail.encode("utf-8", "backslashreplace").decode(), content)


def _orientation(image: Image.Image) -> int:
    try:
        value = int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # broken metadata: training ignores it, too
        return 1
    return value if 1 <= value <= 8 else 1


def _frames(image: Image.Image) -> int:
    if image.format in _STILL:
        return 1
    try:
        return max(1, int(getattr(image, "n_frames", 1)))
    except Exception:  # the first frame is whole, a later one is not
        return 2
