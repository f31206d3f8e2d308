"""Where training batches come from: images in memory, or picture files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from tqdm import tqdm

from siamese.config import PictureSettings
from siamese.data.batches import RECALIBRATION, TRAINING, Batch, training_loader
from siamese.errors import UserError
from siamese.tasks.classes.class_batches import (
    Draws,
    EpochOrder,
    FileBatches,
    batch_generator,
    training_pictures,
)
from siamese.tasks.classes.datasets import ImageSet, PictureFolder
from siamese.tasks.classes.mixing import Mixed, augment_batch, mix_batch
from siamese.tasks.classes.parts import Images


class Source(Protocol):
    """Augmented batches, on the device that trains."""

    def batches(self, epoch: int, first_batch: int) -> Iterator[Mixed]:
        """An epoch's batches, from some batch on; (seed, epoch) alone decide."""

    def recalibration(self, batches: int) -> Iterator[Mixed]:
        """The same training batches every time."""


def training_source(
    images: Images,
    order: EpochOrder,
    settings: PictureSettings,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    size: int,
    device: torch.device,
    workers: int,
) -> Source:
    """The training batches of a run.

    Args:
        images: in memory, on ``device``; or files.
        order: which of them a batch holds.
        settings: augmentation.
        mean: of each channel in [0, 1].
        std: likewise.
        size: side of the network's input in pixels.
        device: where to train.
        workers: loader processes for files.
    """
    if isinstance(images, ImageSet):
        return _Resident(images, order, settings, mean, std, size)
    return _Files(images, order, settings, mean, std, size, device, workers)


class _Resident:
    """Images in memory, augmented in batches where they lie."""

    def __init__(
        self,
        images: ImageSet,
        order: EpochOrder,
        settings: PictureSettings,
        mean: Sequence[float],
        std: Sequence[float],
        size: int,
    ):
        self.images, self.order, self.settings = images, order, settings
        self.mean, self.std = mean, std
        self.size = size if images.images.shape[-1] != size or settings.resized_crop else None
        self.device = images.images.device

    def batches(self, epoch: int, first_batch: int) -> Iterator[Mixed]:
        for draws in self.order.batches(epoch, first_batch, self.device):
            yield self._augmented(draws, TRAINING, epoch)

    def recalibration(self, batches: int) -> Iterator[Mixed]:
        for draws in self.order.recalibration(batches, self.device):
            yield self._augmented(draws, RECALIBRATION, 0)

    def _augmented(self, draws: Draws, purpose: int, epoch: int) -> Mixed:
        order = self.order
        generator = batch_generator(
            order.seed, epoch, draws.batch, self.device, rank=order.rank, purpose=purpose
        )
        return augment_batch(
            self.images.images[draws.images],
            self.images.labels[draws.images],
            len(self.images.classes),
            self.settings,
            self.mean,
            self.std,
            generator,
            self.size,
        )


class _Files:
    """Picture files: each is augmented by a loader process, the batch is mixed on the device."""

    def __init__(
        self,
        images: PictureFolder,
        order: EpochOrder,
        settings: PictureSettings,
        mean: Sequence[float],
        std: Sequence[float],
        size: int,
        device: torch.device,
        workers: int,
    ):
        self.root, self.classes, self.order = images.root, len(images.classes), order
        self.settings, self.mean, self.std, self.device = settings, mean, std, device
        self._draws = FileBatches(order)
        self._loader = training_loader(
            training_pictures(images, settings, size, mean),
            self._draws,
            workers=workers,
            pin_memory=device.type == "cuda",
        )
        self._reported: set[str] = set()

    def batches(self, epoch: int, first_batch: int) -> Iterator[Mixed]:
        self._draws.start_epoch(epoch, first_batch)
        for number, batch in enumerate(self._loader, first_batch):
            yield self._mixed(batch, number, TRAINING, epoch)

    def recalibration(self, batches: int) -> Iterator[Mixed]:
        self._draws.start_recalibration(batches)
        for number, batch in enumerate(self._loader):
            yield self._mixed(batch, number, RECALIBRATION, 0)

    def _mixed(self, batch: Batch, number: int, purpose: int, epoch: int) -> Mixed:
        for path, reason in batch.failed:
            if path not in self._reported:
                self._reported.add(path)
                tqdm.write(f"left out from now on: {reason}")
        if len(batch.labels) == 0:
            raise UserError(
                f"{self.root}: not one picture of a batch can be decoded; is the folder still "
                "there?"
            )
        # For a picture whose class has no other that can be decoded one of the batch stands twice.
        images, labels = batch.images, batch.labels
        if batch.wanted > len(labels):
            filled = torch.arange(batch.wanted) % len(labels)
            images, labels = images[filled], labels[filled]
        order = self.order
        generator = batch_generator(
            order.seed, epoch, number, self.device, rank=order.rank, purpose=purpose
        )
        return mix_batch(
            images.to(self.device, non_blocking=True),
            labels.to(self.device, non_blocking=True),
            self.classes,
            self.settings,
            self.mean,
            self.std,
            generator,
        )
