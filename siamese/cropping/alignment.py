"""A face turned, scaled and shifted: its five landmarks come to lie where models expect them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

Points = npt.NDArray[np.float64]

# ArcFace's places of the eyes, the nose's tip and the corners of the mouth in 112 x 112 pixels
# (Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", 2019, and the
# code with it); the left one in the picture first, as YuNet has them.
_ARCFACE: Points = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655],
     [70.7299, 92.2041]]
)  # fmt: skip
_ARCFACE_SIDE = 112
_FAR = 2.0**20  # pixels; no landmark of a picture lies farther out


class Unalignable(ValueError):  # noqa: N818 - what is wrong with the landmarks
    """Landmarks that fix no similarity transform."""


@dataclass(frozen=True)
class Similarity:
    """Rotation, scaling and shift of the plane: z to ``turn * z + shift``, with x + iy for a point.

    Never a reflection. ``abs(turn)`` is the scale, its argument the angle.
    """

    turn: complex
    shift: complex

    @property
    def scale(self) -> float:
        """Pixels of the result per pixel of the source."""
        return abs(self.turn)

    def matrix(self) -> Points:
        """The same as a matrix (2, 3) for column vectors (x, y, 1)."""
        cos, sin = self.turn.real, self.turn.imag
        return np.array([[cos, -sin, self.shift.real], [sin, cos, self.shift.imag]])

    def inverse(self) -> Similarity:
        """The way back."""
        return Similarity(1 / self.turn, -self.shift / self.turn)

    def __call__(self, points: Points) -> Points:
        """Points (N, 2) where they come to lie (N, 2)."""
        moved = self.turn * _complex(points) + self.shift
        return np.stack([moved.real, moved.imag], axis=1)


def template(size: int, margin: float = 0.0) -> Points:
    """Where the five landmarks belong in a square of ``size`` pixels: (5, 2), x and y.

    Args:
        size: side in pixels.
        margin: room around the usual crop, as a share of its side, half of it on each side: 0.25
            shows a square that is 25 % wider and higher, in which the face is smaller.
    """
    centre = size / 2
    return centre + (_ARCFACE * (size / _ARCFACE_SIDE) - centre) / (1 + margin)


def fit_similarity(source: Points, target: Points) -> Similarity:
    """The similarity transform that brings points nearest to others: the least sum of squares.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns",
    IEEE PAMI 13 (1991). In the plane its rotation and scale are one complex number, and the
    solution is that of a regression; a reflection cannot come out.

    Args:
        source: points (N, 2).
        target: where they belong (N, 2).

    Raises:
        Unalignable: the points are one point, not finite, or of no direction, as mirrored ones can
            be.
    """
    if not (np.isfinite(source).all() and np.abs(source).max() < _FAR):
        raise Unalignable("landmarks outside of any picture")
    start, goal = _complex(source), _complex(target)
    spread, wanted = start - start.mean(), goal - goal.mean()
    total = float((np.abs(spread) ** 2).sum())
    if total < 1e-6:
        raise Unalignable("landmarks in one point")
    turn = complex((spread.conj() * wanted).sum() / total)
    if abs(turn) ** 2 * total < 1e-6 * float((np.abs(wanted) ** 2).sum()):
        raise Unalignable("landmarks that show no face's direction")
    return Similarity(turn, complex(goal.mean() - turn * start.mean()))


def align(picture: Image.Image, landmarks: Points, size: int, margin: float = 0.0) -> Image.Image:
    """The face with these landmarks as size x size RGB pixels; what lies outside is black.

    Large faces are averaged before they are resampled, so that nothing finer than the result's
    pixels shows as a pattern.

    Args:
        picture: RGB.
        landmarks: (5, 2), x and y in pixels; (0, 0) is the middle of the first pixel.
        size: side of the result.
        margin: see :func:`template`.

    Raises:
        Unalignable: see :func:`fit_similarity`.
    """
    back = fit_similarity(landmarks, template(size, margin)).inverse()
    corners = back(np.array([[-1, -1], [size, -1], [-1, size], [size, size]], np.float64))
    factor = max(1, math.floor(back.scale))
    rim = 3 * factor  # what resampling looks at around a pixel
    low = np.maximum(np.floor(corners.min(axis=0)) - rim, 0)
    high = np.minimum(np.ceil(corners.max(axis=0)) + rim, picture.size)
    if (high <= low).any():
        return Image.new("RGB", (size, size))
    part = picture.crop((*map(int, low), *map(int, high)))  # type: ignore[arg-type]
    if factor > 1:
        part = part.reduce(factor)
    # From middles of the result's pixels to corners of the part's: Pillow counts from corners.
    turn = back.turn / factor
    shift = (back.shift + complex(0.5, 0.5) - complex(*low)) / factor - turn * complex(0.5, 0.5)
    rows = Similarity(turn, shift).matrix().ravel().tolist()
    return part.transform((size, size), Image.Transform.AFFINE, rows, Image.Resampling.BICUBIC)


def _complex(points: Points) -> npt.NDArray[np.complex128]:
    return np.asarray(points[:, 0] + 1j * points[:, 1], np.complex128)
