"""Pictures that a program holds: paths, Pillow's pictures, arrays and tensors, one or many."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from siamese.data.decode import DecodeError, decode, to_rgb, upright
from siamese.errors import UserError

# One picture, or a batch of them where an array or tensor has four dimensions.
Picture = str | os.PathLike[str] | Image.Image | npt.NDArray[Any] | torch.Tensor

_WANTED = "a path, a PIL picture, an array (H, W, C) or a tensor (C, H, W)"
_CHANNELS = (1, 3, 4)
_ROUNDING = 1e-4  # by how much resizing and float16 may leave the range


def rgb_pictures(given: Picture | Iterable[Picture], size: int | None) -> Iterator[Image.Image]:
    """Pictures of any kind and size as upright RGB ones, one at a time and in order.

    What each kind means:

    - a path: the file, as :func:`siamese.data.decode.decode` reads it;
    - a PIL picture of any mode: upright as its EXIF orientation says, transparency over white;
    - a NumPy array (H, W), (H, W, C) or (N, H, W, C), C = 1 (grey), 3 (RGB) or 4 (RGB, alpha);
    - a tensor (H, W), (C, H, W) or (N, C, H, W), on any device, with the same channels;
    - an iterable of these, a generator, too: it is read as the pictures are needed.

    Arrays and tensors hold uint8 from 0 to 255, or floats from 0 (black) to 1, which are rounded
    to 8 bits, as files hold them.

    Args:
        size: side for which large JPEG files may be decoded reduced; None: never.

    Raises:
        DecodeError: a file or PIL picture that cannot be decoded; names it.
        UserError: no picture; an array of another shape, type or range. Of an iterable the message
            gives the position, counted from 0.
    """
    if isinstance(given, str | os.PathLike | Image.Image | np.ndarray | torch.Tensor):
        yield from _one(given, size)
        return
    if not isinstance(given, Iterable) or isinstance(given, bytes | bytearray | dict):
        raise UserError(f"{type(given).__name__}: no picture; give {_WANTED}, or a list of them")
    for index, picture in enumerate(given):
        try:
            yield from _one(picture, size)
        except DecodeError:  # it names the file
            raise
        except UserError as error:
            raise UserError(f"picture {index}: {error}") from None


def _one(given: object, size: int | None) -> Iterator[Image.Image]:
    if isinstance(given, str | os.PathLike):
        yield decode(Path(given), size)
    elif isinstance(given, Image.Image):
        try:
            given.load()  # Pillow may have read no more than the header yet
            picture = to_rgb(upright(given))
        except Exception as error:  # see decode: anything at all may be raised
            name = getattr(given, "filename", "") or "a PIL picture"
            raise DecodeError(f"{name}: cannot be decoded ({error})") from None
        yield picture
    elif isinstance(given, np.ndarray | torch.Tensor):
        yield from _of_pixels(given)
    else:
        raise UserError(f"{type(given).__name__}: no picture; give {_WANTED}")


def _of_pixels(given: npt.NDArray[Any] | torch.Tensor) -> Iterator[Image.Image]:
    is_tensor = isinstance(given, torch.Tensor)
    kind, layouts, axis, other = "array", "(H, W), (H, W, C) or (N, H, W, C)", -1, -3
    if is_tensor:
        kind, layouts, axis, other = "tensor", "(H, W), (C, H, W) or (N, C, H, W)", -3, -1
    grey, stacked = given.ndim == 2, given.ndim in (3, 4)
    if not grey and not (stacked and given.shape[axis] in _CHANNELS):
        turned = stacked and given.shape[other] in _CHANNELS
        hint = "; the channels stand at the other end: transpose it" if turned else ""
        raise UserError(f"{kind} {'x'.join(map(str, given.shape))}: must be {layouts}{hint}")
    for one in given if given.ndim == 4 else [given]:
        if isinstance(one, torch.Tensor):
            one = one.detach().cpu()
            one = one.float() if one.dtype == torch.bfloat16 else one  # which NumPy lacks
            one = (one if grey else one.permute(1, 2, 0)).numpy()
        yield _to_rgb(one)


def _to_rgb(pixels: npt.NDArray[Any]) -> Image.Image:
    """(H, W) or (H, W, C) to RGB."""
    if 0 in pixels.shape:
        raise UserError("a picture without pixels")
    if pixels.dtype.kind == "f":
        low, high = float(pixels.min()), float(pixels.max())
        if not -_ROUNDING <= low <= high <= 1 + _ROUNDING:  # also where they are NaN
            raise UserError(
                f"floats from {low:g} to {high:g}: must lie in 0 to 1 (0 to 255 is for uint8; "
                "nothing need be normalised, the embedder does it)"
            )
        pixels = np.rint(np.clip(pixels, 0, 1).astype(np.float32) * 255).astype(np.uint8)
    elif pixels.dtype != np.uint8:
        raise UserError(f"values of type {pixels.dtype}: must be uint8, or floats in 0 to 1")
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    return to_rgb(Image.fromarray(np.ascontiguousarray(pixels)))
