"""Random crops, flips and erasing of whole batches, on the device of their images.

Every function is given its uniform random numbers in [0, 1), of any shape that broadcasts, so what
it does can be checked against a loop over single images, and it does the same on every device.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from siamese.config import AugmentSettings

# A rectangle that does not fit is drawn anew, so often, as torchvision and timm do.
ATTEMPTS = 10
# torchvision's RandomErasing: shares of the area, and ratios of width to height.
_ERASED_AREA = (0.02, 0.33)
_ERASED_RATIO = (1 / 3.3, 1 / 0.3)


class Rectangles(NamedTuple):
    """One rectangle in each image, in pixels, int64 (N,) each."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


def crop_rectangles(
    attempts: Tensor,
    place: Tensor,
    shape: tuple[int, int],
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> Rectangles:
    """What random resized crop (arXiv 1409.4842) cuts out, as torchvision draws it.

    Args:
        attempts: numbers (2, N, :data:`ATTEMPTS`), for areas and ratios.
        place: numbers (2, N).
        shape: height and width of the images.
        scale: least and greatest share of the area.
        ratio: least and greatest ratio of width to height.
    """
    height, width = shape
    high, wide, fits = _sides(attempts, shape, scale, ratio)
    # Where nothing fitted: the largest central rectangle of an allowed ratio.
    kept = min(max(width / height, ratio[0]), ratio[1])
    high = torch.where(fits, high, min(height, round(width / kept)))
    wide = torch.where(fits, wide, min(width, round(height * kept)))
    room = torch.stack([height - high, width - wide])
    top, left = torch.where(fits, up_to(room, place), room // 2)
    return Rectangles(top, left, high, wide)


def erased_rectangles(
    chosen: Tensor,
    attempts: Tensor,
    place: Tensor,
    shape: tuple[int, int],
    area: tuple[float, float],
    ratio: tuple[float, float],
) -> Rectangles:
    """What random erasing (arXiv 1708.04896) blanks in the images ``chosen``, bool (N,).

    In the others, and where nothing fitted, the height is 0. The rest as for
    :func:`crop_rectangles`.
    """
    height, width = shape
    high, wide, fits = _sides(attempts, shape, area, ratio)
    room = torch.stack([height - high, width - wide]).clamp(min=0)
    top, left = up_to(room, place)
    return Rectangles(top, left, torch.where(chosen & fits, high, 0), wide)


def _sides(
    attempts: Tensor,
    shape: tuple[int, int],
    area: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[Tensor, Tensor, Tensor]:
    """Heights and widths, int64 (N,), of which each fits into an image, and whether one did.

    The area is uniform, the ratio uniform in its logarithm; the first attempt counts that fits.
    """
    areas = (area[0] + (area[1] - area[0]) * attempts[0]) * (shape[0] * shape[1])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    ratios = torch.exp(low + (high - low) * attempts[1])
    heights = (areas / ratios).sqrt().round().long()
    widths = (areas * ratios).sqrt().round().long()
    fitting = (heights > 0) & (heights <= shape[0]) & (widths > 0) & (widths <= shape[1])
    first = fitting.long().argmax(dim=1, keepdim=True)
    return (
        heights.gather(1, first).squeeze(1),
        widths.gather(1, first).squeeze(1),
        fitting.any(dim=1),
    )


def up_to(greatest: Tensor, numbers: Tensor) -> Tensor:
    """Integers from 0 to ``greatest`` (0 or more), one for each number."""
    return torch.minimum((numbers * (greatest + 1)).long(), greatest)


def resized_crop(
    images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor, size: int
) -> Tensor:
    """Cut a rectangle of each image, int64 (N,) each, and resize it: bilinear, antialiased.

    torchvision resizes one rectangle a call. Resampling is linear in rows and in columns, so a
    batch of different rectangles is two products with matrices of weights. uint8 (N, C, H, W) to
    (N, C, size, size).
    """
    rows = _resampling(top, height, size, images.shape[2])
    columns = _resampling(left, width, size, images.shape[3])
    resized = rows[:, None] @ images.float() @ columns[:, None].mT
    return resized.round_().clamp_(0, 255).to(torch.uint8)


def _resampling(start: Tensor, length: Tensor, size: int, pixels: int) -> Tensor:
    """Weights float32 (N, size, pixels) that resample [start, start + length) to ``size``."""
    factor = (length / size)[:, None, None]
    target = torch.arange(size, device=start.device)[None, :, None]
    source = torch.arange(pixels, device=start.device)[None, None, :]
    within = source - start[:, None, None]
    distance = (within + 0.5 - (target + 0.5) * factor).abs()
    weights = (1 - distance / factor.clamp(min=1)).clamp(min=0)
    weights = weights * ((within >= 0) & (within < length[:, None, None]))
    return weights / weights.sum(dim=2, keepdim=True)


def flip(images: Tensor, flipped: Tensor) -> Tensor:
    """Mirror the images ``flipped``, bool (N,), left to right; (N, C, H, W)."""
    return torch.where(flipped[:, None, None, None], images.flip(3), images)


def blank(images: Tensor, top: Tensor, left: Tensor, bottom: Tensor, right: Tensor) -> Tensor:
    """Zeros in rows [top, bottom) and columns [left, right), int64 (N,), of each image."""
    rows = torch.arange(images.shape[2], device=images.device)
    columns = torch.arange(images.shape[3], device=images.device)
    inside_rows = (rows >= top[:, None]) & (rows < bottom[:, None])
    inside_columns = (columns >= left[:, None]) & (columns < right[:, None])
    inside = inside_rows[:, None, :, None] & inside_columns[:, None, None, :]
    return images.masked_fill(inside, 0)


class BatchAugmentation:
    """The parts of :func:`siamese.data.transforms.augmentation` that are made of a whole batch.

    They draw from the same distributions as there, but that a hole may be as high or as wide as the
    picture.

    Attributes:
        numbers: how many uniform random numbers each picture needs.
    """

    def __init__(self, settings: AugmentSettings):
        self._settings = settings
        rectangle = 2 * ATTEMPTS + 2
        self._of_crop = rectangle if settings.crop_scale is not None else 0
        self._of_flip = 1 if settings.flip > 0 else 0
        self._of_erasing = 1 + rectangle if settings.erasing > 0 else 0
        self.numbers = self._of_crop + self._of_flip + self._of_erasing

    def __call__(self, images: Tensor, numbers: Tensor) -> Tensor:
        """Change pictures uint8 (N, 3, S, S) by numbers float32 (N, ``self.numbers``)."""
        settings, shape = self._settings, (images.shape[2], images.shape[3])
        crop, mirror, erasing = torch.split(
            numbers, [self._of_crop, self._of_flip, self._of_erasing], dim=1
        )
        if settings.crop_scale is not None:
            attempts, place = _of_rectangles(crop)
            found = crop_rectangles(
                attempts, place, shape, settings.crop_scale, settings.crop_ratio
            )
            images = resized_crop(images, *found, size=shape[0])
        if settings.flip > 0:
            images = flip(images, mirror[:, 0] < settings.flip)
        if settings.erasing > 0:
            attempts, place = _of_rectangles(erasing[:, 1:])
            chosen = erasing[:, 0] < settings.erasing
            hole = erased_rectangles(chosen, attempts, place, shape, _ERASED_AREA, _ERASED_RATIO)
            bottom, right = hole.top + hole.height, hole.left + hole.width
            images = blank(images, hole.top, hole.left, bottom, right)
        return images


def _of_rectangles(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers (N, 2 * ATTEMPTS + 2) as (2, N, ATTEMPTS) and (2, N)."""
    attempts, place = numbers[:, :-2], numbers[:, -2:]
    return attempts.reshape(-1, 2, ATTEMPTS).transpose(0, 1), place.T
