"""The work on one photograph: decoded, looked at, its faces written beside their places."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from siamese.config import CropFaces, CropFormat
from siamese.cropping.alignment import Unalignable, align
from siamese.cropping.detection import Detector, DetectorFailed, FoundFace, find_faces
from siamese.data.cache_files import stamp_of
from siamese.data.decode import check_header, decode
from siamese.errors import UserError
from siamese.files.places import open_regular

PREFIX, SUFFIX = ".crop-", ".tmp"  # of faces that have no place yet

WRITTEN, NONE_FOUND, NOT_READ = "written", "none found", "not read"
"""Of a face or photograph: it is there; nothing was found; the photograph could not be opened, or
reading it failed in a way that need not last."""
SMALLER, TOO_SMALL = "not the largest", "too small"


@dataclass(frozen=True)
class CroppedFace:
    """A face of a photograph, and what became of it.

    Attributes:
        status: :data:`WRITTEN`, or why it is not.
        score: the detector's, 0 to 1.
        box: x, y, width, height in pixels of the upright photograph.
        landmarks: x and y of the five, one after the other.
        temporary: name of the file that waits in the folder of results; empty: none.
        stamp: of that file, see :func:`siamese.data.cache_files.stamp_of`.
        path: where it belongs, relative to the folder of results.
    """

    status: str
    score: float
    box: tuple[float, ...]
    landmarks: tuple[float, ...]
    temporary: str = ""
    stamp: str = ""
    path: str = ""


@dataclass(frozen=True)
class Looked:
    """What was found in a photograph.

    Attributes:
        stamp: of the photograph, from before it was read.
        status: :data:`WRITTEN` where a face was, else the worst that can be said of it.
        detail: the reason, where there is one.
        faces: all that were found, largest first.
        trouble: of the disk that the faces are written to; ends the whole call.
    """

    stamp: str
    status: str
    detail: str = ""
    faces: tuple[CroppedFace, ...] = ()
    trouble: str = ""


@dataclass(frozen=True)
class CropWork:
    """Looks at photographs, called with their paths relative to ``root``; pickled into processes.

    Attributes:
        root: the folder of the photographs.
        out: the folder of results, in which the faces wait.
        side: at which a photograph is looked at, see :func:`find_faces`.
        faces: which are written; None: the largest in a person's folder, else all.
    """

    root: Path
    out: Path
    detector: Detector
    size: int
    margin: float
    side: int
    faces: CropFaces | None
    min_side: int
    format: CropFormat
    quality: int

    def __call__(self, path: str) -> Looked:
        """Never raises what is wrong with a photograph."""
        stamp = stamp_of(self.root / path) or ""
        try:
            open_regular(self.root / path).close()
        except (OSError, ValueError) as error:
            return Looked(stamp, NOT_READ, getattr(error, "strerror", None) or str(error))
        if reason := check_header(self.root / path):
            return Looked(stamp, reason)
        try:
            picture = decode(self.root / path)
        except UserError as error:
            reason = str(error).removeprefix(f"{self.root / path}: ")
            return Looked(stamp, "unreadable image", reason)
        except MemoryError:
            return Looked(stamp, NOT_READ, "not enough memory to decode it")
        try:
            found = find_faces(picture, self.detector, self.side)
        except DetectorFailed as error:
            return Looked(stamp, NOT_READ, str(error))
        return self._cropped(picture, stamp, found, path)

    def _cropped(
        self, picture: Image.Image, stamp: str, found: list[FoundFace], path: str
    ) -> Looked:
        wanted = self.faces or ("largest" if "/" in path else "all")
        faces: list[CroppedFace] = []
        try:
            for number, face in enumerate(found):
                only_largest = wanted == "largest" and number > 0
                faces.append(
                    _described(face, SMALLER) if only_largest else self._one(picture, face)
                )
        except OSError as error:
            remove(self.out, faces)
            return Looked(stamp, NOT_READ, trouble=error.strerror or str(error))
        statuses = [face.status for face in faces]
        status = statuses[0] if statuses else NONE_FOUND
        return Looked(stamp, WRITTEN if WRITTEN in statuses else status, faces=tuple(faces))

    def _one(self, picture: Image.Image, face: FoundFace) -> CroppedFace:
        if face.shorter_side < self.min_side:
            return _described(face, TOO_SMALL)
        try:
            aligned = align(picture, face.points(), self.size, self.margin)
        except Unalignable as error:
            return _described(face, str(error))
        name = f"{PREFIX}{secrets.token_hex(8)}{SUFFIX}"
        options = {"quality": self.quality} if self.format == "jpeg" else {}
        try:
            with open(self.out / name, "xb") as file:
                aligned.save(file, self.format, **options)
        except BaseException:
            with suppress(OSError):
                (self.out / name).unlink()
            raise
        stamp = stamp_of(self.out / name) or ""
        return replace(_described(face, WRITTEN), temporary=name, stamp=stamp)


def _described(face: FoundFace, status: str) -> CroppedFace:
    places = [round(value, 2) for point in face.landmarks for value in point]
    box = tuple(round(value, 2) for value in face.box)
    return CroppedFace(status, round(face.score, 4), box, tuple(places))


def remove(out: Path, faces: list[CroppedFace]) -> None:
    """Remove the files of faces that get no place."""
    for face in faces:
        if face.temporary:
            with suppress(FileNotFoundError):
                (out / face.temporary).unlink()


def sweep(out: Path) -> None:
    """Remove what a stopped call left."""
    for name in _waiting(out):
        with suppress(FileNotFoundError):
            (out / name).unlink()


def _waiting(out: Path) -> Iterator[str]:
    yield from (n for n in os.listdir(out) if n.startswith(PREFIX) and n.endswith(SUFFIX))


def settings_of(work: CropWork) -> Mapping[str, object]:
    """What decides how the faces look, for the record of a folder."""
    return {
        "size": work.size,
        "margin": work.margin,
        "faces": work.faces,
        "min_side": work.min_side,
        "detect_at": work.side,
        "format": work.format,
        "quality": work.quality if work.format == "jpeg" else None,
    }
