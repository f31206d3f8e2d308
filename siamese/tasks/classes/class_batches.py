"""Batches of images: their order, the seeds of their augmentation, loaders of picture files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from siamese.config import PictureSettings
from siamese.data.batches import derive_seed, loader_options
from siamese.data.decode import DecodeError, decode
from siamese.errors import UserError
from siamese.tasks.classes.augment import (
    rand_augment_of,
    seed_python,
    untouched_random_states,
)
from siamese.tasks.classes.datasets import PictureFolder, fit_square

Purpose = Literal["training", "recalibration"]

# Random streams: which images a batch holds, how the batch is augmented, how each picture file is.
_ORDER, _BATCH, _PICTURE = 1, 2, 3
_PURPOSES: dict[Purpose, int] = {"training": 0, "recalibration": 1}


class Draws(NamedTuple):
    """One process's share of a batch.

    Attributes:
        batch: the batch's number in its epoch, from 0.
        images: positions in the set, int64 (n,).
        first: the number of the first of them among all the epoch's draws, from 0.
    """

    batch: int
    images: Tensor
    first: int


@dataclass(frozen=True)
class EpochOrder:
    """Which images the batches of an epoch hold; (seed, epoch) alone decide.

    Attributes:
        images: number of images in the set.
        size: images per batch, over all processes; a smaller set gives one smaller batch.
        seed: seed of the order.
        repeats: repeated augmentation (arXiv 1901.09335): how often each image stands in its batch
            (some once less where the size is no multiple); an epoch draws as many images as ever,
            so only a part of the set is seen.
        drop_last: leave out a last batch that is not full, where there is a full one.
        rank: number of this process.
        world_size: number of processes; each gets an equal part of every batch, for which a batch
            that is not full gives up what is left over.

    Raises:
        UserError: batches that the processes cannot share equally, or fewer images than processes.
    """

    images: int
    size: int
    seed: int
    repeats: int = 1
    drop_last: bool = True
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if self.size % self.world_size:
            raise UserError(
                f"--batches.size {self.size}: must be a multiple of the {self.world_size} processes"
            )
        if self.images < max(self.world_size, 1):
            raise UserError(
                f"{self.images} training images for {self.world_size} processes: use more images "
                "or fewer processes"
            )

    def __len__(self) -> int:
        """Batches per epoch."""
        full, rest = divmod(self.images, self.size)
        return full + (rest > 0 and (full == 0 or not self.drop_last))

    def batches(
        self, epoch: int, first_batch: int = 0, device: torch.device | str = "cpu"
    ) -> Iterator[Draws]:
        """An epoch's batches (counted from 0), from some batch on.

        Args:
            epoch: from 0.
            first_batch: where to start; the batches are those of the whole epoch all the same.
            device: where the positions shall lie.
        """
        order = self._permutation("training", epoch).to(device)
        for batch in range(first_batch, len(self)):
            yield self._share(order, batch, batch)

    def recalibration(self, batches: int, device: torch.device | str = "cpu") -> Iterator[Draws]:
        """Batches for the statistics of batch norms: an order of its own, the same every time."""
        for number in range(batches):
            lap, batch = divmod(number, len(self))
            if batch == 0:
                order = self._permutation("recalibration", lap).to(device)
            yield self._share(order, batch, number)

    def _permutation(self, purpose: Purpose, epoch: int) -> Tensor:
        seed = derive_seed(self.seed, _ORDER, _PURPOSES[purpose], epoch)
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
    purpose: Purpose = "training",
) -> torch.Generator:
    """The generator of a batch's augmentation, on the images' device.

    Its seed is a hash of all arguments: neighbouring batches, epochs and seeds share nothing.
    """
    mixed = derive_seed(seed, _BATCH, _PURPOSES[purpose], epoch, batch, rank)
    return torch.Generator(device).manual_seed(mixed)


@dataclass
class PictureBatch:
    """A batch that loader processes made of picture files.

    Attributes:
        batch: its number in the epoch, from 0.
        images: uint8 (N, 3, S, S).
        labels: int64 (N,).
        failed: (path, reason) of each picture that could not be decoded.
        wanted: number of pictures asked for; fewer where a class has none that can be decoded.
    """

    batch: int
    images: Tensor
    labels: Tensor
    failed: list[tuple[str, str]]
    wanted: int

    def pin_memory(self) -> PictureBatch:
        """Called by the DataLoader, so that copies to a GPU can overlap with its work."""
        images, labels = self.images.pin_memory(), self.labels.pin_memory()
        return replace(self, images=images, labels=labels)


class _Key(NamedTuple):
    """What a loader process is asked for: a picture, its batch, and the seed of its changes."""

    batch: int
    picture: int
    seed: int


class _Sample(NamedTuple):
    batch: int
    image: Tensor | None
    label: int
    failed: list[tuple[str, str]]


_Change = Callable[[Image.Image], Tensor]


class _Pictures(Dataset[_Sample]):
    """Pictures by key, changed by draws that come from the key alone.

    Where ``replaced`` is set a picture that cannot be decoded gives way to the next of its class.
    """

    def __init__(
        self, folder: PictureFolder, change: _Change, decode_size: int | None, replaced: bool
    ):
        self.folder, self.change, self.decode_size = folder, change, decode_size
        self.labels = folder.labels.tolist()
        self.of_class: dict[int, list[int]] = {}
        for at, label in enumerate(self.labels):
            self.of_class.setdefault(label, []).append(at)
        self.replaced = replaced

    def __getitem__(self, key: _Key) -> _Sample:
        label, failed = self.labels[key.picture], list[tuple[str, str]]()
        for candidate in self._candidates(key.picture):
            path = self.folder.paths[candidate]
            try:
                picture = decode(self.folder.root / path, self.decode_size)
            except DecodeError as error:
                failed.append((path, str(error)))
                continue
            return _Sample(key.batch, self._changed(picture, key.seed), label, failed)
        return _Sample(key.batch, None, label, failed)

    def _candidates(self, picture: int) -> Iterator[int]:
        yield picture
        if self.replaced:
            own = self.of_class[self.labels[picture]]
            at = own.index(picture)
            yield from own[at + 1 :] + own[:at]

    def _changed(self, picture: Image.Image, seed: int) -> Tensor:
        # torch.manual_seed and fork_rng ask every backend and cost as much as the decoding.
        state = torch.get_rng_state()
        with untouched_random_states():
            torch.default_generator.manual_seed(seed)
            seed_python(seed)
            try:
                return self.change(picture)
            finally:
                torch.set_rng_state(state)


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
        for step in self.steps:
            picture = step(picture)
        pixels: Tensor = functional.pil_to_tensor(picture)
        return pixels


class _Fit:
    """The preparation of validation and test pictures: the central square, resized."""

    def __init__(self, size: int, crop: float):
        self.size, self.crop = size, crop

    def __call__(self, picture: Image.Image) -> Tensor:
        pixels: Tensor = functional.pil_to_tensor(fit_square(picture, self.size, self.crop))
        return pixels


class _Keys(Sampler[list[_Key]]):
    """The batches of keys that the loader's next iteration asks for."""

    def __init__(self, order: EpochOrder):
        self.order = order
        self.start_epoch(0, 0)

    def start_epoch(self, epoch: int, first_batch: int) -> None:
        self.purpose: Purpose = "training"
        self.epoch, self.first, self.count = epoch, first_batch, len(self.order) - first_batch

    def start_recalibration(self, batches: int) -> None:
        self.purpose = "recalibration"
        self.epoch, self.first, self.count = 0, 0, batches

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[list[_Key]]:
        stream = (self.order.seed, _PICTURE, _PURPOSES[self.purpose], self.epoch)
        if self.purpose == "training":
            draws = self.order.batches(self.epoch, self.first)
        else:
            draws = self.order.recalibration(self.count)
        for batch in draws:
            yield [
                _Key(batch.batch, picture, derive_seed(*stream, batch.first + at))
                for at, picture in enumerate(batch.images.tolist())
            ]


class TrainingPictures:
    """Augmented batches of picture files, in an :class:`EpochOrder`.

    Crop, flip and RandAugment are made to each picture by loader processes; what is left is
    :func:`siamese.tasks.classes.mixing.mix_batch`'s. A picture's draws derive from (seed, epoch,
    draw) and are the same with any number of loader processes, and of training processes.

    Args:
        folder: the pictures.
        order: their order.
        settings: which changes are on.
        size: side of the result in pixels.
        mean: of each channel in [0, 1], for RandAugment.
        workers: loader processes; 0: none.
        pin_memory: prepare the copies to a GPU.
    """

    def __init__(
        self,
        folder: PictureFolder,
        order: EpochOrder,
        settings: PictureSettings,
        size: int,
        mean: Sequence[float],
        *,
        workers: int,
        pin_memory: bool = False,
    ):
        # No circle of references: a garbage collector that breaks one closes the processes' pipes
        # before they are told to end, and then waits for them.
        self.root, self.order, self._keys = folder.root, order, _Keys(order)
        # A crop may take a small part of a large picture: then it is decoded in full.
        decode_size = size if settings.resized_crop is None else None
        pictures = _Pictures(folder, _Train(settings, size, mean), decode_size, replaced=True)
        self._loader = DataLoader(
            pictures,
            batch_sampler=self._keys,
            **loader_options(workers, pin_memory, persistent=True, collate=_collate),
        )

    def batches(self, epoch: int, first_batch: int = 0) -> Iterator[PictureBatch]:
        """An epoch's batches, from some batch on; see :meth:`EpochOrder.batches`."""
        self._keys.start_epoch(epoch, first_batch)
        yield from self._loader

    def recalibration(self, batches: int) -> Iterator[PictureBatch]:
        """See :meth:`EpochOrder.recalibration`."""
        self._keys.start_recalibration(batches)
        yield from self._loader


def judged_pictures(
    folder: PictureFolder,
    size: int,
    crop: float,
    *,
    batch_size: int,
    workers: int,
    pin_memory: bool = False,
) -> Iterator[PictureBatch]:
    """Every picture in its order, prepared for validation or test; broken ones are left out.

    Args:
        folder: the pictures.
        size: side of the result in pixels.
        crop: share of the shorter side that the central square keeps, in (0, 1].
        batch_size: pictures per batch, before broken ones are left out.
        workers: loader processes; 0: none.
        pin_memory: prepare the copies to a GPU.
    """
    pictures = _Pictures(folder, _Fit(size, crop), round(size / crop), replaced=False)
    keys = [
        [_Key(batch, at, 0) for at in range(first, min(first + batch_size, len(folder)))]
        for batch, first in enumerate(range(0, len(folder), batch_size))
    ]
    options = loader_options(workers, pin_memory, persistent=False, collate=_collate)
    yield from DataLoader(pictures, batch_sampler=keys, **options)


def _collate(samples: list[_Sample]) -> PictureBatch:
    good = [(sample.image, sample.label) for sample in samples if sample.image is not None]
    images = [image for image, _ in good]
    return PictureBatch(
        batch=samples[0].batch,
        images=torch.stack(images) if images else torch.empty(0, 3, 1, 1, dtype=torch.uint8),
        labels=torch.tensor([label for _, label in good], dtype=torch.int64),
        failed=[item for sample in samples for item in sample.failed],
        wanted=len(samples),
    )
