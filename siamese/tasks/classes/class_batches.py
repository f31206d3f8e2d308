"""Batches of images: their order, the seeds of their augmentation, loaders of picture files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Sampler
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from siamese.config import PictureSettings
from siamese.data.batches import RECALIBRATION, TRAINING, derive_seed
from siamese.data.decode import decode
from siamese.data.labelled_pictures import Draw, Pictures
from siamese.data.loaders import Batch, ordered_loader
from siamese.errors import UserError
from siamese.tasks.classes.augment import (
    rand_augment_of,
    seed_python,
    untouched_random_states,
)
from siamese.tasks.classes.datasets import PictureFolder, fit_square

# Random streams: which images a batch holds, how the batch is augmented, how each picture file is.
_ORDER, _BATCH, _PICTURE = 1, 2, 3


class Draws(NamedTuple):
    """One process's share of a batch.

    ``batch`` is its number in the epoch, ``images`` its positions in the set, int64 (n,), ``first``
    the number of the first of them among all the epoch's draws; numbers count from 0.
    """

    batch: int
    images: Tensor
    first: int


@dataclass(frozen=True)
class EpochOrder:
    """Which of ``images`` images the batches of an epoch hold; (seed, epoch) alone decide.

    ``size`` counts the images of a batch over all processes, which share it equally; a smaller set
    gives one smaller batch. ``repeats`` is repeated augmentation (arXiv 1901.09335): how often each
    image stands in its batch; an epoch draws as many images as ever, so only a part of the set is
    seen. A last batch that is not full is left out, where there is a full one.

    Raises:
        UserError: batches that the processes cannot share equally, or fewer images than processes.
    """

    images: int
    size: int
    seed: int
    repeats: int = 1
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if self.size % self.world_size:
            raise UserError(
                f"`batches.size` {self.size}: must be a multiple of the {self.world_size} processes"
            )
        if self.images < max(self.world_size, 1):
            raise UserError(
                f"{self.images} training images for {self.world_size} processes: use more images "
                "or fewer processes"
            )

    def __len__(self) -> int:
        """Batches per epoch."""
        return max(1, self.images // self.size)

    def batches(
        self, epoch: int, first_batch: int = 0, device: torch.device | str = "cpu"
    ) -> Iterator[Draws]:
        """This process's share of the epoch's batches (counted from 0), from some batch on."""
        order = self._permutation(TRAINING, epoch).to(device)
        for batch in range(first_batch, len(self)):
            yield self._share(order, batch, batch)

    def recalibration(self, batches: int, device: torch.device | str = "cpu") -> Iterator[Draws]:
        """Batches for the statistics of batch norms: an order of its own, the same every time."""
        for number in range(batches):
            lap, batch = divmod(number, len(self))
            if batch == 0:
                order = self._permutation(RECALIBRATION, lap).to(device)
            yield self._share(order, batch, number)

    def _permutation(self, purpose: int, epoch: int) -> Tensor:
        seed = derive_seed(self.seed, _ORDER, purpose, epoch)
        generator = torch.Generator().manual_seed(seed)
        return torch.randperm(self.images, generator=generator)

    def _share(self, order: Tensor, batch: int, number: int) -> Draws:
        size = min(self.size, self.images - batch * self.size)
        size -= size % self.world_size
        distinct = -(-size // self.repeats)
        first = batch * -(-self.size // self.repeats)
        # Copies far apart: other processes and ghost batches get them.
        whole = order[first : first + distinct].repeat(self.repeats)[:size]
        parts = whole.tensor_split(self.world_size)
        before = sum(len(part) for part in parts[: self.rank])
        return Draws(number, parts[self.rank], number * self.size + before)


def batch_generator(
    seed: int,
    epoch: int,
    batch: int,
    device: torch.device | str = "cpu",
    *,
    rank: int = 0,
    purpose: int = TRAINING,
) -> torch.Generator:
    """The generator of a batch's augmentation, on the images' device.

    Its seed is a hash of all arguments: neighbouring batches, epochs and seeds share nothing.
    """
    mixed = derive_seed(seed, _BATCH, purpose, epoch, batch, rank)
    return torch.Generator(device).manual_seed(mixed)


class _Train:
    """The changes of one training picture that are made to the file's own pixels."""

    def __init__(self, settings: PictureSettings, size: int, mean: Sequence[float]):
        steps: list[Any] = []
        if settings.resized_crop is not None:
            steps.append(v2.RandomResizedCrop(size, settings.resized_crop, antialias=True))
        elif settings.crop:
            mode = "constant" if settings.crop_padding == "zero" else "reflect"
            steps.append(v2.Resize(size, antialias=True))
            steps.append(v2.RandomCrop(size, padding=settings.crop, padding_mode=mode))
        else:
            steps += [v2.Resize(size, antialias=True), v2.CenterCrop(size)]
        if settings.flip:
            steps.append(v2.RandomHorizontalFlip(settings.flip))
        if settings.rand_augment is not None:
            steps.append(rand_augment_of(settings.rand_augment, size, tuple(mean)))
        self.steps = steps

    def __call__(self, picture: Image.Image) -> Tensor:
        with untouched_random_states():
            seed_python(torch.initial_seed())
            for step in self.steps:
                picture = step(picture)
        pixels: Tensor = functional.pil_to_tensor(picture)
        return pixels


class FileBatches(Sampler[list[Draw]]):
    """The draws of an :class:`EpochOrder`, with the seeds of each picture's changes.

    They are the same with any number of loader processes, and of training processes.
    """

    def __init__(self, order: EpochOrder):
        self.order = order
        self.start_epoch(0, 0)

    def start_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Let the next iteration draw this epoch, from some batch on."""
        self.purpose, self.epoch, self.first = TRAINING, epoch, first_batch
        self.count = len(self.order) - first_batch

    def start_recalibration(self, batches: int) -> None:
        """Let the next iteration draw the fixed batches of batch-norm recalibration."""
        self.purpose, self.epoch, self.first, self.count = RECALIBRATION, 0, 0, batches

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[list[Draw]]:
        stream = (self.order.seed, _PICTURE, self.purpose, self.epoch)
        if self.purpose == TRAINING:
            draws = self.order.batches(self.epoch, self.first)
        else:
            draws = self.order.recalibration(self.count)
        for batch in draws:
            yield [
                Draw(picture, derive_seed(*stream, batch.first + at))
                for at, picture in enumerate(batch.images.tolist())
            ]


def training_pictures(
    folder: PictureFolder, settings: PictureSettings, size: int, mean: Sequence[float]
) -> Pictures:
    """Picture files with the changes that are made to each alone: crop, flip, RandAugment.

    What is left is :func:`siamese.tasks.classes.mixing.mix_batch`'s.
    """
    # A crop may take a small part of a large picture: then it is decoded in full.
    read = _Reader(folder.root, folder.paths, size if settings.resized_crop is None else None)
    change = _Train(settings, size, mean)
    return Pictures(folder.paths, folder.labels.tolist(), read, change, replace_broken=True)


def judged_pictures(
    folder: PictureFolder,
    size: int,
    crop: float,
    *,
    batch_size: int,
    workers: int,
    pin_memory: bool = False,
) -> Iterable[Batch]:
    """Every picture in its order, prepared for validation or test; broken ones are left out.

    ``crop`` in (0, 1]: share of the shorter side that the central square keeps.
    """
    read = _Reader(folder.root, folder.paths, round(size / crop), (size, crop))
    pictures = Pictures(folder.paths, folder.labels.tolist(), read)
    return ordered_loader(
        pictures, batch_size=batch_size, workers=workers, pin_memory=pin_memory, patient=True
    )


@dataclass(frozen=True)
class _Reader:
    """Decodes files; with ``fit`` (side, crop) to the central square of that side, else as PIL."""

    root: Path
    paths: Sequence[str]
    decode_size: int | None
    fit: tuple[int, float] | None = None

    def __call__(self, position: int) -> Any:
        picture = decode(self.root / self.paths[position], self.decode_size)
        return (
            picture
            if self.fit is None
            else functional.pil_to_tensor(fit_square(picture, *self.fit))
        )
