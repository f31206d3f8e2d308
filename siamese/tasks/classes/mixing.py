"""From images and labels to what the network and the loss see: augmented, normalised, mixed.

A method that mixes is drawn once per batch, as its paper's code does it. Everything stays on the
images' device: no value is read back, so a GPU is never waited for (RandAugment, which is Pillow's,
excepted).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from siamese.config import PictureSettings
from siamese.tasks.classes.augment import (
    augment_pixels,
    cutout,
    normalise,
    random_erasing,
    resize,
)


@dataclass(frozen=True)
class Mixed:
    """A batch for the network.

    ``images`` float32 (views * N, C, H, W), normalised; of two views (dual cutout) all first ones
    come first. ``targets`` float32 (N, classes), rows sum to 1; ``labels`` int64 (N,), the greatest
    share.
    """

    images: Tensor
    targets: Tensor
    labels: Tensor
    views: int = 1

    def split(self, size: int) -> list[Mixed]:
        """Parts of ``size`` images, each with its views (ghost batches); the last may be smaller.

        A single image that is left over joins the part before it: it has no statistics of its own.
        """
        count = len(self.labels)
        views = self.images.view(self.views, count, *self.images.shape[1:])
        return [
            Mixed(
                views[:, first:end].flatten(0, 1),
                self.targets[first:end],
                self.labels[first:end],
                self.views,
            )
            for first, end in pairwise(part_edges(count, size))
        ]


def part_edges(count: int, size: int) -> list[int]:
    """Where :meth:`Mixed.split` cuts: 0, ..., count."""
    edges = list(range(0, count, size))
    if len(edges) > 1 and count - edges[-1] == 1:
        edges.pop()
    return [*edges, count]


def augment_batch(
    images: Tensor,
    labels: Tensor,
    num_classes: int,
    settings: PictureSettings,
    mean: Sequence[float],
    std: Sequence[float],
    generator: torch.Generator,
    size: int | None = None,
) -> Mixed:
    """All of a batch's augmentation: crop, flip, RandAugment, normalisation, cutout, erasing, mix.

    Images are uint8 (N, C, H, W), labels int64 (N,), mean and std in [0, 1]; all randomness comes
    from the generator, which is of the images' device. UserError: settings that do not fit the
    size.
    """
    images = augment_pixels(images, settings, mean, generator, size)
    return mix_batch(images, labels, num_classes, settings, mean, std, generator)


def mix_batch(
    images: Tensor,
    labels: Tensor,
    num_classes: int,
    settings: PictureSettings,
    mean: Sequence[float],
    std: Sequence[float],
    generator: torch.Generator,
) -> Mixed:
    """The second half of :func:`augment_batch`, for images whose pixels are augmented already.

    Normalisation, cutout, random erasing, then the method that mixes.
    """
    pixels = normalise(images, mean, std)
    targets = one_hot(labels, num_classes)
    if settings.dual_cutout:
        views = [
            _blanked(pixels, settings, generator),
            _blanked(pixels, settings, generator),
        ]
        return Mixed(torch.cat(views), targets, labels, views=2)
    pixels = _blanked(pixels, settings, generator)
    if settings.ricap:
        pixels, targets = ricap(pixels, targets, settings.ricap, generator)
    elif settings.mixup or settings.cutmix:
        pixels, targets = mixup_or_cutmix(
            pixels, targets, settings.mixup, settings.cutmix, settings.cutmix_share, generator
        )
    else:
        return Mixed(pixels, targets, labels)
    return Mixed(pixels, targets, targets.argmax(dim=1))


def _blanked(pixels: Tensor, settings: PictureSettings, generator: torch.Generator) -> Tensor:
    if settings.cutout:
        pixels = cutout(pixels, settings.cutout, settings.cutout_edge, generator)
    if settings.erasing:
        pixels = random_erasing(pixels, settings.erasing, generator)
    return pixels


def prepare_test(
    images: Tensor, mean: Sequence[float], std: Sequence[float], size: int | None = None
) -> Tensor:
    """Images, uint8 (N, C, H, W), for validation and test: normalised, and resized to ``size``."""
    return normalise(images if size is None else resize(images, size), mean, std)


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """Labels int64 (N,) as float32 (N, num_classes)."""
    targets = torch.zeros((len(labels), num_classes), device=labels.device)
    return targets.scatter_(1, labels[:, None], 1.0)


def symmetric_beta(alpha: float, count: int, generator: torch.Generator) -> Tensor:
    """Draws from Beta(alpha, alpha), float64 (count,), in [0, 1].

    torch's own Beta takes no generator. For equal parameters there is an exact formula of two
    uniform numbers (Devroye, "Random variate generation in one line of code", 1996): Student's t by
    the polar method, carried over to [0, 1].
    """
    kind = torch.float32 if generator.device.type == "mps" else torch.float64
    drawn = torch.rand((2, count), dtype=kind, generator=generator, device=generator.device)
    cosine = torch.cos(2 * torch.pi * drawn[1])
    squared = torch.expm1(-torch.log(drawn[0]) / alpha) * cosine.square()  # t^2 / (2 alpha)
    return 0.5 + 0.5 * cosine.sign() / torch.sqrt(1 + 1 / squared)


def mixup_or_cutmix(
    images: Tensor,
    targets: Tensor,
    mixup: float,
    cutmix: float,
    cutmix_share: float | None,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Mix by mixup (arXiv 1710.09412), CutMix (arXiv 1905.04899), or one of them by chance.

    ``mixup`` and ``cutmix`` are alphas, 0 is off; with both on ``cutmix_share`` of the batches take
    CutMix. torchvision's and timm's versions draw from global generators and pair an image with its
    neighbour or with the one opposite, which repeated augmentation fills with copies of it; the
    partners here are a random permutation, as in the papers' code.
    """
    shape = images.shape[2], images.shape[3]
    own = torch.ones(shape, device=images.device)
    if mixup:
        own = symmetric_beta(mixup, 1, generator).float().expand(shape)
    if cutmix:
        share = symmetric_beta(cutmix, 1, generator)
        centre = torch.rand(2, generator=generator, device=images.device)
        kept = cutmix_mask(share, centre, shape)
        if mixup:
            chance = 1.0 if cutmix_share is None else cutmix_share
            cut = torch.rand(1, generator=generator, device=images.device) < chance
            kept = torch.where(cut, kept, own)
        own = kept
    partner = torch.randperm(len(images), generator=generator, device=images.device)
    return blend(images, targets, own, partner)


def cutmix_mask(share: Tensor, centre: Tensor, shape: tuple[int, int]) -> Tensor:
    """What an image keeps of itself in CutMix, float32 ``shape`` (H, W): 1 outside a box, 0 inside.

    The box has the image's ratio of sides and the area 1 - ``share`` (1,) before its clipping at
    the edges; its ``centre`` (2,) is given as shares of height and width, in [0, 1).
    """
    inside = torch.ones(shape, dtype=torch.bool, device=share.device)
    for axis, length in enumerate(shape):
        side = (length * torch.sqrt(1 - share)).long()
        start = (centre[axis] * length).long() - side // 2
        at = torch.arange(length, device=share.device)
        within = (at >= start) & (at < start + side)
        inside &= within[:, None] if axis == 0 else within[None, :]
    return (~inside).float()


def blend(images: Tensor, targets: Tensor, own: Tensor, partner: Tensor) -> tuple[Tensor, Tensor]:
    """Mix each image, pixel by pixel, with a partner's; the targets by the mean over the pixels.

    ``own`` (H, W) in [0, 1] weighs the image itself; its mean is lambda, so a box that was clipped
    counts as what is left of it. ``partner`` int64 (N,) is a permutation.
    """
    share = own.double().mean().float() if own.device.type != "mps" else own.mean()
    mixed = torch.lerp(images[partner], images, own)  # exact where the weight is 0 or 1
    return mixed, targets * share + targets[partner] * (1 - share)


def ricap(
    images: Tensor, targets: Tensor, beta: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Random image cropping and patching (arXiv 1811.09030).

    Four crops of four images, which meet in a point drawn from Beta(beta, beta) on both axes, make
    a new one; the target is the four by their areas. As in the paper's listing the point and the
    crops' places are drawn once per batch, the images by four permutations.
    """
    count, sides = len(images), images.shape[2:]
    device = images.device
    share = symmetric_beta(beta, 2, generator)
    drawn = torch.rand((4, 2), generator=generator, device=device)
    partners = torch.stack(
        [torch.randperm(count, generator=generator, device=device) for _ in range(4)]
    )
    meeting = torch.stack([(share[axis] * sides[axis]).round().long() for axis in range(2)])
    # Upper left, upper right, lower left, lower right: (4,) heights and widths.
    high = torch.stack([meeting[0], meeting[0], sides[0] - meeting[0], sides[0] - meeting[0]])
    wide = torch.stack([meeting[1], sides[1] - meeting[1], meeting[1], sides[1] - meeting[1]])
    room = torch.stack([sides[0] - high, sides[1] - wide], dim=1)
    corners = torch.minimum((drawn * (room + 1)).long(), room)
    return patch(images, targets, meeting, corners, partners)


def patch(
    images: Tensor, targets: Tensor, meeting: Tensor, corners: Tensor, partners: Tensor
) -> tuple[Tensor, Tensor]:
    """RICAP's composition of upper left, upper right, lower left and lower right patches.

    They meet at row and column ``meeting`` (2,); each is cut at ``corners`` (4, 2) from the images
    ``partners`` (4, N).
    """
    count, channels, height, width = images.shape
    rows = torch.arange(height, device=images.device)[:, None]
    columns = torch.arange(width, device=images.device)[None, :]
    lower, right = rows >= meeting[0], columns >= meeting[1]
    quarter = 2 * lower.long() + right.long()  # (H, W): which patch a pixel belongs to
    from_rows = rows - torch.where(lower, meeting[0], 0) + corners[quarter, 0]
    from_columns = columns - torch.where(right, meeting[1], 0) + corners[quarter, 1]
    pixels = (from_rows * width + from_columns).flatten()
    # The places are the batch's, so each image is cut once and the partners take their quarters.
    cut = images.reshape(count * channels, -1).index_select(1, pixels).view(images.shape)
    patched = cut[partners[0]]
    mixed = torch.zeros_like(targets)
    for part in range(4):
        inside = quarter == part
        if part:
            patched = torch.where(inside, cut[partners[part]], patched)
        share = inside.sum().to(targets.dtype) / (height * width)
        mixed += targets[partners[part]] * share
    return patched, mixed
