"""Where training batches come from: images in memory, or picture files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from tqdm import tqdm

from siamese.config import PictureSettings
from siamese.errors import UserError
from siamese.tasks.classes.class_batches import (
    Draws,
    EpochOrder,
    PictureBatch,
    Purpose,
    TrainingPictures,
    batch_generator,
)
from siamese.tasks.classes.datasets import ImageSet
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
    files = TrainingPictures(
        images, order, settings, size, mean, workers=workers, pin_memory=device.type == "cuda"
    )
    return _Files(files, len(images.classes), settings, mean, std, device)


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
            yield self._augmented(draws, "training", epoch)

    def recalibration(self, batches: int) -> Iterator[Mixed]:
        for draws in self.order.recalibration(batches, self.device):
            yield self._augmented(draws, "recalibration", 0)

    def _augmented(self, draws: Draws, purpose: Purpose, epoch: int) -> Mixed:
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
        files: TrainingPictures,
        classes: int,
        settings: PictureSettings,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
    ):
        self.files, self.classes, self.settings = files, classes, settings
        self.mean, self.std, self.device = mean, std, device
        self._told: set[str] = set()

    def batches(self, epoch: int, first_batch: int) -> Iterator[Mixed]:
        for batch in self.files.batches(epoch, first_batch):
            yield self._mixed(batch, "training", epoch)

    def recalibration(self, batches: int) -> Iterator[Mixed]:
        for batch in self.files.recalibration(batches):
            yield self._mixed(batch, "recalibration", 0)

    def _mixed(self, batch: PictureBatch, purpose: Purpose, epoch: int) -> Mixed:
        for path, reason in batch.failed:
            if path not in self._told:
                self._told.add(path)
                tqdm.write(f"left out from now on: {reason}")
        if len(batch.labels) == 0:
            raise UserError(
                f"{self.files.root}: not one picture of a batch can be decoded; is the folder "
                "still there?"
            )
        # For a picture whose class has no other that can be decoded one of the batch stands twice.
        images, labels = batch.images, batch.labels
        if batch.wanted > len(labels):
            filled = torch.arange(batch.wanted) % len(labels)
            images, labels = images[filled], labels[filled]
        order = self.files.order
        generator = batch_generator(
            order.seed, epoch, batch.batch, self.device, rank=order.rank, purpose=purpose
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
