"""Where training batches come from: images in memory, or picture files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from tqdm import tqdm

from siamese.config import PictureSettings
from siamese.data.batches import RECALIBRATION, TRAINING
from siamese.data.loaders import training_loader
from siamese.errors import UserError
from siamese.tasks.classes.augment import augment_pixels
from siamese.tasks.classes.class_batches import (
    Draws,
    EpochOrder,
    FileBatches,
    batch_generator,
    training_pictures,
)
from siamese.tasks.classes.datasets import ImageSet, PictureFolder
from siamese.tasks.classes.mixing import Mixed, mix_batch
from siamese.tasks.classes.parts import Images


class TrainingSource:
    """The augmented training batches of a run, on the device that trains.

    Images in memory, on ``device``, are augmented there in batches; of picture files each is
    augmented by a loader process. Both are mixed on the device.
    """

    def __init__(
        self,
        images: Images,
        order: EpochOrder,
        settings: PictureSettings,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        size: int,
        device: torch.device,
        workers: int,
    ):
        self.images, self.order, self.settings = images, order, settings
        self.mean, self.std, self.size, self.device = mean, std, size, device
        if isinstance(images, PictureFolder):
            self._reported: set[str] = set()
            self._draws = FileBatches(order)
            self._loader = training_loader(
                training_pictures(images, settings, size, mean),
                self._draws,
                workers=workers,
                pin_memory=device.type == "cuda",
            )

    def batches(self, epoch: int, first_batch: int) -> Iterator[Mixed]:
        """An epoch's batches, from some batch on; (seed, epoch) alone decide."""
        if isinstance(self.images, ImageSet):
            draws = self.order.batches(epoch, first_batch, self.device)
            return self._resident(self.images, draws, TRAINING, epoch)
        self._draws.start_epoch(epoch, first_batch)
        return self._loaded(self.images, first_batch, TRAINING, epoch)

    def recalibration(self, batches: int) -> Iterator[Mixed]:
        """The same training batches every time."""
        if isinstance(self.images, ImageSet):
            draws = self.order.recalibration(batches, self.device)
            return self._resident(self.images, draws, RECALIBRATION, 0)
        self._draws.start_recalibration(batches)
        return self._loaded(self.images, 0, RECALIBRATION, 0)

    def _resident(
        self, images: ImageSet, draws: Iterator[Draws], purpose: int, epoch: int
    ) -> Iterator[Mixed]:
        for draw in draws:
            pixels, labels = images.images[draw.images], images.labels[draw.images]
            generator = self._generator(purpose, epoch, draw.batch)
            pixels = augment_pixels(pixels, self.settings, self.mean, generator, self.size)
            yield self._mixed(pixels, labels, generator)

    def _loaded(
        self, folder: PictureFolder, first: int, purpose: int, epoch: int
    ) -> Iterator[Mixed]:
        for number, batch in enumerate(self._loader, first):
            for path, reason in batch.failed:
                if path not in self._reported:
                    self._reported.add(path)
                    tqdm.write(f"left out from now on: {reason}")
            images, labels = batch.images, batch.labels
            if len(labels) == 0:
                raise UserError(
                    f"{folder.root}: not one picture of a batch can be decoded; is the folder "
                    "still there?"
                )
            # Where no other of a picture's class can be decoded one of the batch stands twice.
            if batch.wanted > len(labels):
                filled = torch.arange(batch.wanted) % len(labels)
                images, labels = images[filled], labels[filled]
            images = images.to(self.device, non_blocking=True)
            labels = labels.to(self.device, non_blocking=True)
            yield self._mixed(images, labels, self._generator(purpose, epoch, number))

    def _generator(self, purpose: int, epoch: int, number: int) -> torch.Generator:
        order = self.order
        return batch_generator(
            order.seed, epoch, number, self.device, rank=order.rank, purpose=purpose
        )

    def _mixed(
        self, images: torch.Tensor, labels: torch.Tensor, generator: torch.Generator
    ) -> Mixed:
        classes = len(self.images.classes)
        return mix_batch(images, labels, classes, self.settings, self.mean, self.std, generator)
