"""Pictures to the network's input: the fixed preprocessing, and augmentation for training."""

from __future__ import annotations

from typing import Any

from torchvision.transforms import v2

from siamese.config import AugmentSettings, FitName


def preprocess(size: int, fit: FitName) -> v2.Compose:
    """The transform that training and evaluation share, deterministic.

    Args:
        size: side of the result in pixels.
        fit: ``squash`` resizes the whole picture to a square; ``crop`` resizes the short side and
            takes the centre.

    Returns:
        a transform from an RGB PIL image to a uint8 tensor (3, size, size).
    """
    resize: list[Any] = (
        [v2.Resize((size, size), antialias=True)]
        if fit == "squash"
        else [v2.Resize(size, antialias=True), v2.CenterCrop(size)]
    )
    return v2.Compose([*resize, v2.PILToTensor()])


def augmentation(settings: AugmentSettings, size: int) -> v2.Transform:
    """Random changes of one training picture, uint8 (3, size, size) to the same.

    Every part can be switched off in the settings; with all of them off it is the identity. All
    randomness comes from torch's global generator.
    """
    steps: list[v2.Transform] = []
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
    if settings.color_jitter > 0:
        j = settings.color_jitter
        steps.append(v2.ColorJitter(brightness=j, contrast=j, saturation=j, hue=j / 10))
    if settings.grayscale > 0:
        steps.append(v2.RandomGrayscale(settings.grayscale))
    if settings.blur > 0:
        kernel = 2 * (size // 20) + 1  # SimCLR: a tenth of the side
        steps.append(v2.RandomApply([v2.GaussianBlur(kernel, (0.1, 2.0))], settings.blur))
    if settings.erasing > 0:
        steps.append(v2.RandomErasing(settings.erasing))
    return v2.Compose(steps) if steps else v2.Identity()
