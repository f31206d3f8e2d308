"""The face of one photograph after the other, as ``siamese-data crop`` would cut it out."""

from __future__ import annotations

import copy
import threading
from pathlib import Path

from PIL import Image

from siamese.config import CropSettings
from siamese.cropping.alignment import Unalignable, align
from siamese.cropping.detection import Detector, DetectorFailed, find_faces
from siamese.cropping.detector_file import read_detector
from siamese.errors import UserError


class NoFace(UserError):  # noqa: N818 - a state of the photograph
    """A photograph of which no face can be cut out."""


class FaceCutter:
    """Cuts the largest face out of photographs, for any number of threads.

    Score, least side and the pixels that are looked at are the defaults of
    :class:`siamese.config.CropSettings`.

    Args:
        detector: finds the faces; each thread works with a copy.
        size: side of the result in pixels.
        margin: see :func:`siamese.cropping.alignment.template`.
    """

    def __init__(self, detector: Detector, size: int, margin: float = 0.0):
        self.size, self.margin = size, margin
        self._detector, self._own = detector, threading.local()

    def __call__(self, photograph: Image.Image, name: str) -> Image.Image:
        """The largest face, aligned, size x size.

        Args:
            photograph: RGB, upright, in all its pixels.
            name: what a message calls it.

        Raises:
            NoFace: none was found, or it is too small, or cannot be aligned.
        """
        if not hasattr(self._own, "detector"):
            self._own.detector = copy.copy(self._detector)
        try:
            found = find_faces(photograph, self._own.detector, CropSettings.detect_at)
        except DetectorFailed as error:
            raise NoFace(f"{name}: {error}") from None
        if not found:
            raise NoFace(f"{name}: no face was found in it")
        side, least = found[0].shorter_side, CropSettings.min_side
        if side < least:
            raise NoFace(f"{name}: its largest face has {side:.0f} pixels, {least} are needed")
        try:
            return align(photograph, found[0].points(), self.size, self.margin)
        except Unalignable:
            raise NoFace(f"{name}: its face shows no direction") from None


def read_cutter(path: str, size: int, margin: float) -> tuple[FaceCutter, str | None]:
    """A cutter with the detector in a file, and a note where it is not the usual one.

    Raises:
        UserError: see :func:`siamese.cropping.detector_file.read_detector`.
    """
    detector, note = read_detector(
        Path(path), CropSettings.detect_at, CropSettings.score, workers=1
    )
    return FaceCutter(detector, size, margin), note
