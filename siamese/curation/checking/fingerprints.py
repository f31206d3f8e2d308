"""The perceptual fingerprint of a picture: what stays after recompressing and resizing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.fft import dct

Words = npt.NDArray[np.uint64]

_SIDE = 32  # pixels of the grey square whose frequencies are looked at


@dataclass(frozen=True)
class Fingerprint:
    """What a picture looks like, in few bits.

    Attributes:
        code: 80 hexadecimal digits: 64 coarse bits, then 256 fine ones.
        contrast: standard deviation of the grey values, 0 (one colour) to 127.5.
    """

    code: str
    contrast: float


def fingerprint_of(image: Image.Image) -> Fingerprint:
    """The DCT fingerprint of an upright picture.

    After Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions" (2010):
    the picture as 32 x 32 grey values, their cosine transform without its first row and column,
    and of each of the lowest 8 x 8 frequencies whether it is above their median. The fine bits
    are the same of the lowest 16 x 16: they tell two aligned faces of different people apart
    that agree in the coarse ones.
    """
    small = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    grey = np.asarray(small, np.float64)
    basis = _basis()
    frequencies = basis @ grey @ basis.T
    bits = [_above_median(frequencies[:side, :side]) for side in (8, 16)]
    return Fingerprint(np.packbits(np.concatenate(bits)).tobytes().hex(), float(grey.std()))


def _above_median(values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    flat = values.ravel()
    return np.asarray(flat > np.median(flat))


@cache
def _basis() -> npt.NDArray[np.float64]:
    """Rows 1 to 16 of the cosine transform: two small products are faster than a call of it."""
    return np.asarray(dct(np.eye(_SIDE), axis=0, norm="ortho")[1:17])


def as_words(codes: list[str]) -> Words:
    """Fingerprint codes as numbers, uint64 (N, 5): the coarse word, then four fine ones."""
    raw = bytearray.fromhex("".join(codes))
    return np.frombuffer(raw, ">u8").astype(np.uint64).reshape(len(codes), 5)
