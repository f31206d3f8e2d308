"""Pictures to the network's input: the fixed preprocessing, and augmentation for training."""

from __future__ import annotations

import math

import torch
from PIL import Image
from torch import nn

from siamese.config import AugmentSettings, FitName
from siamese.libraries import functional, v2

_LEAST_SHARE = 1 / 4  # of a side that low resolution leaves
_QUALITY = (20, 90)  # of JPEG; both may be drawn


class Preprocess:
    """The deterministic transform that training and evaluation share.

    Args:
        size: side of the result in pixels.
        crop: take the centre square first: its side in pixels (at most the shorter side), or below
            1 as a share of the shorter side.
    """

    def __init__(self, size: int, fit: FitName, crop: float | None = None):
        self.size, self.fit, self.crop = size, fit, crop

    @property
    def decode_size(self) -> int | None:
        """Side in pixels that is needed of a whole picture, see :func:`siamese.data.decode.decode`.

        None where pixels are counted: a picture that was decoded reduced has fewer.
        """
        if self.crop is None:
            return self.size
        share = max(self.crop, 1e-6)  # smaller ones are one pixel of any picture
        return math.ceil(self.size / share) if share < 1 else None

    def __call__(self, picture: Image.Image) -> torch.Tensor:
        """An RGB picture to uint8 (3, size, size)."""
        if self.crop is not None:
            shorter = min(picture.size)
            side = round(self.crop * shorter) if self.crop < 1 else min(int(self.crop), shorter)
            picture = functional.center_crop(picture, [max(1, side)])
        if self.fit == "crop":
            picture = functional.center_crop(picture, [min(picture.size)])
        picture = functional.resize(picture, [self.size, self.size], antialias=True)
        pixels: torch.Tensor = functional.pil_to_tensor(picture)
        return pixels


class LowResolution(nn.Module):
    """Shrinks a picture, uint8 (3, S, S), antialiased, and enlarges it again, both bilinear.

    The share of its side that is left is log-uniform between a quarter and 1: a halving is as
    likely from large pictures as from small ones.
    """

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """A picture with fewer details, uint8 (3, S, S)."""
        size = pixels.shape[-1]
        left = max(1, round(size * _LEAST_SHARE ** float(torch.rand(()))))
        small = functional.resize(pixels, [left, left], antialias=True)
        enlarged: torch.Tensor = functional.resize(small, [size, size], antialias=True)
        return enlarged


def augmentation(settings: AugmentSettings, size: int) -> nn.Module:
    """Random changes of one training picture, uint8 (3, size, size) to the same.

    Every part can be switched off in the settings; with all of them off it is the identity. All
    randomness comes from torch's global generator. The order is that of a picture's life: a face
    in its place, the light, the camera's blur, what a messenger does to the file. Erasing, which is
    no part of it, comes last.
    """
    steps: list[nn.Module] = []
    if settings.rotation > 0:
        steps.append(
            v2.RandomRotation(settings.rotation, interpolation=v2.InterpolationMode.BILINEAR)
        )
    if settings.crop_scale is not None:
        steps.append(
            v2.RandomResizedCrop(
                size, scale=settings.crop_scale, ratio=settings.crop_ratio, antialias=True
            )
        )
    if settings.flip > 0:
        steps.append(v2.RandomHorizontalFlip(settings.flip))
    if settings.randaugment > 0:
        steps.append(
            v2.RandAugment(
                settings.randaugment,
                settings.randaugment_magnitude,
                interpolation=v2.InterpolationMode.BILINEAR,
            )
        )
    if settings.color_jitter > 0:
        j = settings.color_jitter
        steps.append(v2.ColorJitter(brightness=j, contrast=j, saturation=j, hue=j / 10))
    if settings.grayscale > 0:
        steps.append(v2.RandomGrayscale(settings.grayscale))
    if settings.blur > 0:
        kernel = 2 * max(1, size // 20) + 1  # SimCLR: a tenth of the side
        steps.append(v2.RandomApply([v2.GaussianBlur(kernel, (0.1, 2.0))], settings.blur))
    if settings.low_resolution > 0:
        steps.append(v2.RandomApply([LowResolution()], settings.low_resolution))
    if settings.jpeg > 0:
        steps.append(v2.RandomApply([v2.JPEG(_QUALITY)], settings.jpeg))
    if settings.erasing > 0:
        steps.append(v2.RandomErasing(settings.erasing))
    composed: nn.Module = v2.Compose(steps) if steps else v2.Identity()
    return composed
