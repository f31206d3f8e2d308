"""Augmentation of whole batches, each image with draws of its own, on the images' device.

Every function comes in two halves: the draws, from a generator of the images' device, and what they
do, which can be checked against a loop over single images; what faces share is in
:mod:`siamese.data.batch_augmentation`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from timm.data.auto_augment import rand_augment_transform
from torch import Tensor
from torchvision.transforms.v2 import functional as pictures

from siamese.config import PictureSettings
from siamese.data.batch_augmentation import (
    ATTEMPTS,
    blank,
    crop_rectangles,
    erased_rectangles,
    flip,
    resized_crop,
    up_to,
)
from siamese.errors import UserError

Padding = Literal["zero", "reflect"]
Edge = Literal["clipped", "inside"]

# Random resized crop's ratios of width to height; random erasing's share of the area (as in the
# paper) and ratio of height to width.
_CROP_RATIO = (3 / 4, 4 / 3)
_ERASED_AREA = (0.02, 0.4)
_ERASED_RATIO = (0.3, 1 / 0.3)
# RandAugment in timm's notation: sections of a key with a number, or t with a name.
_NOTATION = re.compile(r"rand(-((?!t)[a-z]+[0-9.]+|t[a-z0-9]+))*")


def augment_pixels(
    images: Tensor,
    settings: PictureSettings,
    mean: Sequence[float],
    generator: torch.Generator,
    size: int | None = None,
) -> Tensor:
    """The changes made to pixels as they are: crop, flip and RandAugment, in this order.

    uint8 (N, C, H, W) to (N, C, size, size); ``mean`` of each channel in [0, 1] fills what
    RandAugment moves into view.

    Raises:
        UserError: a reflected border as wide as the image; a RandAugment notation unknown to timm.
    """
    side = images.shape[-1] if size is None else size
    if settings.resized_crop is not None:
        images = random_resized_crop(images, side, settings.resized_crop, generator)
    else:
        images = resize(images, side)
        if settings.crop:
            images = random_crop(images, settings.crop, settings.crop_padding, generator)
    if settings.flip:
        images = random_flip(images, settings.flip, generator)
    if settings.rand_augment is not None:
        images = rand_augment(images, settings.rand_augment, mean, generator)
    return images


def resize(images: Tensor, size: int) -> Tensor:
    """Square images of another size, antialiased; uint8 (N, C, S, S) or the images as they are."""
    if images.shape[-2:] == (size, size):
        return images
    resized: Tensor = pictures.resize(images, [size, size], antialias=True)
    return resized


def random_crop(images: Tensor, padding: int, mode: Padding, generator: torch.Generator) -> Tensor:
    """Pad by ``padding`` pixels on each side and cut the old size out anywhere; (N, C, H, W)."""
    offsets = torch.randint(
        2 * padding + 1, (2, len(images)), generator=generator, device=images.device
    )
    return crop_at(images, offsets[0], offsets[1], padding, mode)


def crop_at(images: Tensor, top: Tensor, left: Tensor, padding: int, mode: Padding) -> Tensor:
    """The crop whose upper left corner, int64 (N,) each, lies at (top, left) of the padded image.

    Images are (N, C, H, W) of any type; ``reflect`` mirrors the image, whose edge is not repeated,
    and raises UserError for a border as wide as the image.
    """
    count, channels, height, width = images.shape
    if mode == "reflect" and padding >= min(height, width):
        raise UserError(
            f"`augment.crop` {padding}: an image of {height} x {width} pixels reflects at most "
            f"{min(height, width) - 1}; use less, or `augment.crop_padding` zero"
        )
    kind = "constant" if mode == "zero" else "reflect"
    source: Tensor = pictures.pad(images, [padding], padding_mode=kind)
    rows = top[:, None] + torch.arange(height, device=images.device)
    columns = left[:, None] + torch.arange(width, device=images.device)
    # One index per pixel into the flattened image, the same for all its channels.
    pixels = (rows[:, :, None] * source.shape[3] + columns[:, None, :]).view(count, 1, -1)
    cut = source.reshape(count, channels, -1).gather(2, pixels.expand(-1, channels, -1))
    return cut.view(images.shape)


def random_flip(images: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Mirror each image left to right with some probability; (N, C, H, W)."""
    return flip(images, _numbers((len(images),), generator) < probability)


def random_resized_crop(
    images: Tensor, size: int, scale: tuple[float, float], generator: torch.Generator
) -> Tensor:
    """A rectangle of each image, resized: area (a share in ``scale``) and ratio drawn as
    torchvision does.

    uint8 (N, C, H, W) to (N, C, size, size).
    """
    attempts, place = _for_rectangles(len(images), generator)
    shape = (images.shape[2], images.shape[3])
    found = crop_rectangles(attempts, place, shape, scale, _CROP_RATIO)
    return resized_crop(images, *found, size)


def _for_rectangles(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The numbers that rectangles are made of; see :func:`crop_rectangles`."""
    attempts = _numbers((2, count, ATTEMPTS), generator)
    return attempts, _numbers((2, count), generator)


def _numbers(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device)


def rand_augment(
    images: Tensor, notation: str, mean: Sequence[float], generator: torch.Generator
) -> Tensor:
    """RandAugment (arXiv 1909.13719) by timm, picture by picture; uint8 (N, C, H, W), C 1 or 3."""
    transform = rand_augment_of(notation, images.shape[-1], tuple(mean))
    seeds = torch.randint(2**62, (len(images),), generator=generator, device=images.device)
    changed = []
    with untouched_random_states():
        for image, seed in zip(images.cpu(), seeds.tolist(), strict=True):
            seed_python(seed)
            picture = transform(pictures.to_pil_image(image))
            changed.append(pictures.pil_to_tensor(picture))
    return torch.stack(changed).to(images.device)


@lru_cache(maxsize=16)
def rand_augment_of(notation: str, size: int, mean: tuple[float, ...]) -> Any:
    """RandAugment with the constants of timm's own recipes; UserError for an unknown notation."""
    fill = tuple(min(255, round(255 * value)) for value in mean)
    options: dict[str, Any] = {
        "translate_const": int(size * 0.45),
        "img_mean": fill if len(fill) == 3 else fill[0],
    }
    try:
        if _NOTATION.fullmatch(notation) is None:  # timm passes over what it cannot split
            raise ValueError(notation)
        return rand_augment_transform(notation, options)
    except (AssertionError, ValueError, KeyError, TypeError):
        raise UserError(
            f"`augment.rand_augment` {notation}: not in timm's notation, e.g. rand-m9-mstd0.5-inc1"
        ) from None


@contextmanager
def untouched_random_states() -> Iterator[None]:
    """Whatever is drawn inside, Python's and NumPy's global generators stay where they were."""
    own, numpys = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(own)
        np.random.set_state(numpys)


def seed_python(seed: int) -> None:
    """Seed the global generators of Python and NumPy, which timm draws from."""
    random.seed(seed)
    np.random.seed(seed % 2**32)


@lru_cache(maxsize=64)
def _columns(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Factor and addend, float32 (1, C, 1, 1), that normalise pixels in [0, 255]."""
    centre = torch.tensor(mean, dtype=torch.float64).view(1, -1, 1, 1)
    spread = torch.tensor(std, dtype=torch.float64).view(1, -1, 1, 1)
    factor, addend = 1 / (255 * spread), -centre / spread
    return factor.float().to(device), addend.float().to(device)


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(pixel / 255 - mean) / std of each channel; uint8 (N, C, H, W) to float32."""
    factor, addend = _columns(tuple(mean), tuple(std), images.device)
    return images.float().mul_(factor).add_(addend)


def cutout(images: Tensor, size: int, edge: Edge, generator: torch.Generator) -> Tensor:
    """Blank one square of each normalised image (arXiv 1708.04552), float (N, C, H, W).

    ``clipped``: any pixel may be the centre, and what lies outside the image is lost, as in the
    paper; ``inside``: the whole square lies in the image, a UserError where it is too large.
    """
    height, width = images.shape[2:]
    room = torch.empty((2, len(images)), dtype=torch.int64, device=images.device)
    if edge == "clipped":
        room[0], room[1] = height - 1, width - 1
        top, left = up_to(room, _numbers((2, len(images)), generator)) - size // 2
    else:
        if size > min(height, width):
            raise UserError(
                f"`augment.cutout` {size}: no such square lies inside an image of {height} x "
                f"{width} pixels; use less, or `augment.cutout_edge` clipped"
            )
        room[0], room[1] = height - size, width - size
        top, left = up_to(room, _numbers((2, len(images)), generator))
    return blank(images, top, left, top + size, left + size)


def random_erasing(images: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Blank one rectangle of some images (arXiv 1708.04896); normalised, float (N, C, H, W).

    timm's and torchvision's versions draw from global generators, image by image. The erased share
    of the area is the paper's, the ratio is drawn as both libraries draw it (uniform in its
    logarithm).
    """
    chosen = _numbers((len(images),), generator) < probability
    shape = (images.shape[2], images.shape[3])
    numbers = _for_rectangles(len(images), generator)
    hole = erased_rectangles(chosen, *numbers, shape, _ERASED_AREA, _ERASED_RATIO)
    return blank(images, hole.top, hole.left, hole.top + hole.height, hole.left + hole.width)
