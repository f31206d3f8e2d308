"""Faces in a picture, by YuNet through OpenCV's ``FaceDetectorYN``.

OpenCV and not ``uniface``: it is one maintained wheel that needs nothing but numpy, its network
takes 0.2 MB under the MIT licence from one address with a known checksum, runs on any CPU, and
gives the five landmarks that alignment needs. ``uniface`` brings larger detectors, but needs
onnxruntime beside OpenCV, and looks after its downloads by itself.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from siamese.errors import UserError

_STRIDES = (8, 16, 32)
_WIDTHS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}  # values of YuNet per cell, in OpenCV's order
_OVERLAP = 0.3  # of two boxes from which on they are one face; OpenCV's own, as the next
_MOST = 5000  # boxes before that


@dataclass(frozen=True)
class FoundFace:
    """A face in a picture; all places in its pixels, (0, 0) is the middle of the first.

    Attributes:
        box: x and y of its upper left corner, width, height.
        landmarks: x and y of the eyes, the nose's tip and the corners of the mouth; of the eyes
            and of the corners the left one in the picture first (of an upright face).
        score: 0 to 1, the detector's.
    """

    box: tuple[float, float, float, float]
    landmarks: tuple[tuple[float, float], ...]
    score: float

    @property
    def area(self) -> float:
        """Of the box, in square pixels."""
        return self.box[2] * self.box[3]

    @property
    def shorter_side(self) -> float:
        """Of the box, in pixels."""
        return min(self.box[2:])

    def points(self) -> npt.NDArray[np.float64]:
        """The landmarks as an array (5, 2)."""
        return np.array(self.landmarks, np.float64)

    def enlarged(self, factor: float) -> FoundFace:
        """The same face in a picture that is so many times as wide and high."""

        def moved(value: float) -> float:
            return (value + 0.5) * factor - 0.5  # of a pixel's middle

        x, y, width, height = self.box
        return FoundFace(
            (moved(x), moved(y), width * factor, height * factor),
            tuple((moved(x), moved(y)) for x, y in self.landmarks),
            self.score,
        )


class DetectorFailed(Exception):  # noqa: N818 - of one picture
    """A detector that fails on a picture; says so in a few words."""


class Detector(Protocol):
    """What finds faces; it is pickled into the processes that share the work."""

    def find(self, picture: Image.Image) -> list[FoundFace]:
        """The faces in an RGB picture, in any order."""
        ...


def find_faces(picture: Image.Image, detector: Detector, side: int) -> list[FoundFace]:
    """The faces in a picture of any size, largest first, in that picture's pixels.

    It is looked at with its longer side reduced to ``side`` pixels (never enlarged); where nothing
    is found, once more at half of that: YuNet is made for faces of 10 to 300 pixels, and a portrait
    has larger ones.

    Raises:
        DetectorFailed: of this picture.
        UserError: of the detector, and of all pictures.
    """
    longer = max(picture.size)
    for longest in (side, side // 2):
        small = picture
        if longer > longest:
            width, height = (max(1, round(edge * longest / longer)) for edge in picture.size)
            small = picture.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=3.0)
        found = [face for face in _found(small, detector) if _is_whole(face)]
        if found or longer <= side // 2:
            faces = [face.enlarged(longer / max(small.size)) for face in found]
            return sorted(faces, key=lambda face: (-face.area, -face.score, face.box))
    return []


def _found(picture: Image.Image, detector: Detector) -> list[FoundFace]:
    try:
        return detector.find(picture)
    except UserError:
        raise
    except Exception as error:  # OpenCV's
        raise DetectorFailed(f"the detector failed ({type(error).__name__})") from error


def _is_whole(face: FoundFace) -> bool:
    values = (*face.box, *(value for point in face.landmarks for value in point), face.score)
    return all(map(math.isfinite, values)) and min(face.box[2:]) > 0 and len(face.landmarks) == 5


@dataclass
class YuNet:
    """OpenCV's detector with a network in YuNet's form.

    A picture is laid into a black square of ``side`` pixels, so that the network only ever sees
    the one size whose outputs were looked at: OpenCV does not check them, and would read past
    their end.

    Attributes:
        network: content of the ONNX file.
        side: of the square, a multiple of 32; no picture may be larger.
        score: least score of a face, 0 to 1.
    """

    network: bytes
    side: int = 640
    score: float = 0.9
    _made: Any = field(default=None, init=False, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": None}

    def find(self, picture: Image.Image) -> list[FoundFace]:
        """Faces with at least the score.

        Raises:
            UserError: the network is none of YuNet's form.
        """
        square = np.zeros((self.side, self.side, 3), np.uint8)
        pixels = np.asarray(picture)
        square[: picture.height, : picture.width] = pixels[:, :, ::-1]  # OpenCV's order is BGR
        _, rows = self._detector().detect(square)
        return [_face(row) for row in (() if rows is None else rows.tolist())]

    def _detector(self) -> Any:
        if self._made is None:
            cv2 = require_opencv()
            cv2.setNumThreads(1)  # each of the processes takes one core
            if reason := network_fault(self.network, self.side):
                raise UserError(reason)
            self._made = cv2.FaceDetectorYN.create(
                "onnx",
                np.frombuffer(self.network, np.uint8),
                np.empty(0, np.uint8),
                (self.side, self.side),
                self.score,
                _OVERLAP,
                _MOST,
            )
        return self._made


def _face(row: list[float]) -> FoundFace:
    x, y, width, height, *points, score = row
    return FoundFace(
        (x, y, width, height), tuple(zip(points[::2], points[1::2], strict=True)), score
    )


def network_fault(network: bytes, side: int) -> str | None:
    """Why a file cannot be YuNet's network at this size of input; None where it can.

    The network is run on a black square, and on one of noise. A file can be made to crash OpenCV:
    look at an unknown one in a process of its own.
    """
    cv2 = require_opencv()
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    try:
        net = cv2.dnn.readNetFromONNX(np.frombuffer(network, np.uint8))
    except Exception as error:  # OpenCV's, or SystemError where it gives up without one
        return f"is no ONNX network that OpenCV can read ({_first_line(error)})"
    names = [f"{head}_{stride}" for head in _WIDTHS for stride in _STRIDES]
    for square in (np.zeros_like(noise), noise):
        try:
            net.setInput(cv2.dnn.blobFromImage(square))
            outputs = net.forward(names)
        except Exception as error:
            return (
                f"is no network of YuNet's form for {side} x {side} pixels, which has the outputs "
                f"{names[0]}, ..., {names[-1]} ({_first_line(error)})"
            )
        for name, output, (cells, width) in zip(names, outputs, _shapes(side), strict=True):
            right = output.size == cells * width and output.shape[-1] == width
            if not right or output.dtype != np.float32:
                return (
                    f"is no network of YuNet's form: {name} has the shape {output.shape} of "
                    f"{output.dtype}, for {side} x {side} pixels (1, {cells}, {width}) of float32 "
                    "is needed"
                )
    return None


def _shapes(side: int) -> Iterator[tuple[int, int]]:
    """Cells and values per cell of each output."""
    for width in _WIDTHS.values():
        yield from (((side // stride) ** 2, width) for stride in _STRIDES)


def _first_line(error: Exception) -> str:
    """The reason in an error of OpenCV, without the place in its source."""
    text = " ".join(str(error).split())
    told = text.partition("error: ")[2].partition(" in function")[0]
    return told[:120] or f"{type(error).__name__} {text[:120]}"


def require_opencv() -> Any:
    """OpenCV's module ``cv2``, silent about what is told here in one line.

    Raises:
        UserError: it is not installed, or lacks the detector; says how to install it.
    """
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    try:
        import cv2
    except ImportError as error:
        raise UserError(
            f"faces are found by OpenCV, which cannot be loaded ({error}): pip install "
            "'siamese[crop]'"
        ) from None
    if not hasattr(cv2, "FaceDetectorYN"):
        raise UserError(
            f"faces are found by OpenCV's FaceDetectorYN, which {cv2.__version__} lacks: pip "
            "install 'siamese[crop]'"
        )
    return cv2
