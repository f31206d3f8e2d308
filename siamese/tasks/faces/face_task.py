"""The face task: P x K batches of people, a metric-learning loss, verification of unseen people."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import record_function
from torch.utils.data import DataLoader

from siamese.config import TrainSettings
from siamese.data.batch_augmentation import BatchAugmentation
from siamese.data.batches import PKBatches, SampledBatches
from siamese.data.folder import FaceFolder
from siamese.data.kept_batches import KeptBatches
from siamese.data.kept_pictures import KeptPictures
from siamese.data.labelled_pictures import PictureReader, Transform, face_pictures, thumbnail
from siamese.data.loaders import Batch, evaluation_loader, training_loader
from siamese.data.split import Split
from siamese.data.split_lists import pictures_by_person
from siamese.data.transforms import Preprocess, augmentation
from siamese.errors import UserError
from siamese.libraries import functional
from siamese.models.checkpoint import package_versions
from siamese.models.chunked import Chunked, parts
from siamese.models.device import autocast
from siamese.models.embedder import EmbedderSpec, SiameseEmbedder
from siamese.models.embedding import embed, pictures_together
from siamese.models.folding import folded
from siamese.processors import forks
from siamese.tasks.faces.input_mixup import InputMixup
from siamese.tasks.faces.own_parts import FaceLoss, OwnParts
from siamese.training.compiling import compiled
from siamese.training.distribution import SINGLE, Distribution
from siamese.training.loop import Figures, StepLoss
from siamese.training.optimizers import PairedOptimizer
from siamese.training.synchronising import synchronise_batch_norms
from siamese.verification.counts import PairCounts, count_pairs
from siamese.verification.metrics import summarise

# Batches of the validation loss: enough for a steady mean, cheap as they reuse the embeddings.
_VALIDATION_LOSS_BATCHES = 50
_OF_TEST_PEOPLE = ("auc", "ap", "eer", "tar_at_far_1e-2")
# Bytes of pictures that each epoch judges and measures batch norms on: 7,000 of 112 px.
_KEPT = 256 * 2**20
# Bytes of decoded training pictures, of all training processes of a machine: 13,000 of 112 px.
_KEPT_DECODED = 512 * 2**20


@dataclass
class Validation:
    """The latest validation: embeddings (N, D), their positions in the folder (N,), counts,
    figures.
    """

    embeddings: torch.Tensor
    indices: torch.Tensor
    counts: PairCounts
    figures: Figures


class FaceTask:
    """What the loop learns; see :class:`siamese.training.loop.Task`.

    Each process takes some people of a batch, and the loss is that of the whole batch.
    ``report_failed`` is called with (path, reason) of each picture that fails to decode; without a
    ``cache`` pictures are decoded, and training pictures kept where there is room and at most one
    loader process.

    Raises:
        UserError: too few people; fewer of them in a batch than processes.
    """

    def __init__(
        self,
        settings: TrainSettings,
        split: Split,
        model: SiameseEmbedder,
        spec: EmbedderSpec,
        loss: FaceLoss,
        device: torch.device,
        precision: torch.dtype,
        workers: int,
        report_failed: Callable[[str, str], None],
        cache: PictureReader | None = None,
        distribution: Distribution = SINGLE,
        own: OwnParts | None = None,
    ):
        self.own = OwnParts() if own is None else own
        self.distribution = distribution
        self.settings, self.split, self.model, self.spec = settings, split, model, spec
        self.loss, self.device, self.precision, self.workers = loss, device, precision, workers
        self._report_failed, self._cache = report_failed, cache
        self._prepare = Preprocess(spec.size, settings.images.fit, spec.crop)
        self._least = 1 if spec.neck == "none" else 2  # a neck cannot normalise a single embedding
        chunk = settings.batches.chunk
        synchronise_batch_norms(model, device, distribution.world, chunk)
        self._forward: nn.Module = (
            compiled(model, settings.trainer.compile) if chunk is None else Chunked(model, chunk)
        )
        if distribution.world > 1:
            self._forward = DistributedDataParallel(
                self._forward,
                device_ids=[device] if device.type == "cuda" else None,
                find_unused_parameters=settings.model.freeze_backbone > 0,
            )
        self._augment = self._augmentation()
        pictures = face_pictures(
            split.train,
            self._prepare,
            self._prepare.decode_size,
            cache,
            augment=self._augment,
            kept=self._kept_pictures() if cache is None else None,
        )
        self.draws = self._draws()
        self._loader = training_loader(
            pictures, self.draws, workers=workers, pin_memory=device.type == "cuda"
        )
        mixup = settings.augment.mixup
        self._mixup = InputMixup(mixup, settings.seed, distribution.rank) if mixup > 0 else None
        self._kept = KeptBatches(_KEPT)
        self.latest: Validation | None = None

    def _augmentation(self) -> Transform | BatchAugmentation:
        """What changes training pictures: each one where it is loaded, or a batch on the device."""
        settings = self.settings.augment
        if settings.in_batches is True:
            return BatchAugmentation(settings)
        return self.own.augment or augmentation(settings, self.spec.size)

    def _kept_pictures(self) -> KeptPictures | None:
        """Where training pictures stay when they are decoded; None where loaders share no memory.

        Each would decode, and keep, most of them.
        """
        shared = self.workers > 1
        if shared and not forks():
            return None
        number, room = len(self.split.train.paths), _KEPT_DECODED // self.distribution.world
        return KeptPictures(number, self.spec.size, room, shared=shared)

    def _draws(self) -> PKBatches | SampledBatches:
        """The batches of pictures to draw: P x K, or what the program's own sampler gives."""
        labels, batches, seed = self.split.train.labels, self.settings.batches, self.settings.seed
        rank, world = self.distribution.rank, self.distribution.world
        sampler = self.own.sampler
        if sampler is not None:
            if world > 1:
                raise UserError("`sampler`: an own sampler cannot be shared by several processes")
            if not hasattr(sampler, "__iter__"):
                sampler = sampler(labels)
            return SampledBatches(sampler, batches.people_drawn * batches.images_drawn, seed)
        return PKBatches(
            labels,
            batches.people_drawn,
            batches.images_drawn,
            batches.images_per_epoch,
            seed,
            rank=rank,
            world=world,
        )

    def start_epoch(self, epoch: int, optimizer: PairedOptimizer) -> None:
        """Freeze the backbone for the first epochs where that is set, then thaw it."""
        frozen = epoch < self.settings.model.freeze_backbone
        self.model.freeze_backbone(frozen)
        if epoch == self.settings.model.freeze_backbone > 0:
            optimizer.restart_average("backbone")

    def batches(self, epoch: int, first_batch: int) -> DataLoader[Any]:
        """The epoch's batches; see the sampler."""
        self.draws.start_epoch(epoch, first_batch)
        self.loss.start_epoch(epoch, first_batch)
        if self._mixup is not None:
            self._mixup.start_epoch(epoch, first_batch)
        return self._loader

    def batches_per_epoch(self) -> int:
        """Batches of a whole epoch."""
        return self.draws.batches_per_epoch

    def step_loss(self, batch: Batch, details: bool) -> StepLoss:
        """Loss of one P x K batch; the details are the share of active triplets.

        A picture that shows two people counts there as the one who has the greater share.
        """
        self._note_failed(batch)
        if self.distribution.any(len(batch.labels) < self._least):
            found = "not one picture" if self._least == 1 else "not two pictures"
            raise UserError(
                f"{self.split.train.root}: {found} of a batch can be decoded; see the data report "
                "in the run's folder"
            )
        with record_function("copy"):
            labels = batch.labels.to(self.device, non_blocking=True)
        images = self._training_pictures(batch)
        with record_function("augment"):
            mixed = None if self._mixup is None else self._mixup.mix(images, labels)
            images = images if mixed is None else mixed.images
        with record_function("forward"), autocast(self.device, self.precision):
            mine = self._forward(images)
        with record_function("loss"):
            embeddings = self.distribution.gather_rows(mine)
            labels = self.distribution.gather_rows(labels)
            if self._mixup is None or mixed is None:
                value = self.loss(embeddings, labels)
            else:
                mixed = mixed._replace(partners=self.distribution.gather_rows(mixed.partners))
                value = self._mixup.loss(self.loss, embeddings, labels, mixed)
                labels = labels if mixed.share >= 0.5 else mixed.partners
        logged = {"active_triplets": self.loss.active_share(embeddings, labels)} if details else {}
        return StepLoss(value, len(labels), logged)

    def recalibration_inputs(self, batches: int) -> Iterator[torch.Tensor]:
        """The same training pictures each time, in the parts that batch norms see in training.

        Where a process can decode not one picture of a batch, all of them leave it out: batch norms
        that see every process's pictures would wait for the missing ones for ever.
        """
        for images in self.fixed_batches(batches):
            if not self.distribution.any(len(images) < self._least):
                yield from parts(images, self.settings.batches.chunk or len(images))

    def fixed_batches(self, batches: int) -> Iterator[torch.Tensor]:
        """The same augmented training pictures each time, drawn by a generator of their own.

        A batch of which nothing can be decoded is empty. No process waits here for another: the
        first one alone shows examples.
        """

        def load(first: int) -> DataLoader[Any]:
            self.draws.start_recalibration(batches, first)
            return self._loader

        # Which pictures the first ones are depends on how many batches are drawn.
        name = f"{batches} for batch norms"
        for batch in self._noting(self._kept.read(name, batches, load)):
            yield self._training_pictures(batch)

    def validate(self) -> Figures:
        """Embed all validation pictures once; figures over all their pairs.

        With ``trainer.test_curve`` the test people, too, under names that begin with ``test_``.
        """
        self.latest = self._judge("validation", self.split.validation)
        figures = self.latest.figures
        if not self.loss.knows_training_only:
            labels = np.asarray(self.split.validation.labels)[self.latest.indices.numpy()]
            figures["validation_loss"] = self._validation_loss(self.latest.embeddings, labels)
        if self.settings.trainer.test_curve and self.split.test is not None:
            tested = self._judge("test", self.split.test).figures
            figures |= {f"test_{name}": tested[name] for name in _OF_TEST_PEOPLE}
        return figures

    def _judge(self, part: str, folder: FaceFolder) -> Validation:
        """Embed a part's pictures and count all their pairs."""
        size = pictures_together(self.settings.trainer.embed_batch, self.spec.size, self.device)
        shared = self.distribution.positions(len(folder.paths))
        mine = range(len(folder.paths)) if shared is None else shared

        def load(first: int) -> DataLoader[Any]:
            return evaluation_loader(
                folder,
                self._prepare,
                self._prepare.decode_size,
                batch_size=size,
                workers=self.workers,
                pin_memory=self.device.type == "cuda",
                cache=self._cache,
                positions=mine[first * size :],
                patient=True,
            )

        batches = self._kept.read(part, math.ceil(len(mine) / size), load)
        embeddings, indices = embed(
            folded(self.model.eval(), len(folder.paths), self.precision),
            self._noting(batches),
            device=self.device,
            precision=self.precision,
        )
        embeddings, indices = self.distribution.gather_shares(embeddings, indices)
        labels = np.asarray(folder.labels)[indices.numpy()]
        counts = count_pairs(embeddings, labels, device=self.device)
        return Validation(embeddings, indices, counts, summarise(counts))

    @torch.no_grad()
    def _validation_loss(self, embeddings: torch.Tensor, labels: np.ndarray) -> float:
        """Mean loss over fixed P x K batches of validation people."""
        batches = self.settings.batches
        if np.sum(np.bincount(labels) >= 2) < 2:
            return math.nan
        draws = PKBatches(labels.tolist(), batches.people_drawn, batches.images_drawn, None, seed=0)
        draws.start_recalibration(_VALIDATION_LOSS_BATCHES)
        values = []
        for batch in draws:
            chosen = torch.tensor([draw.picture for draw in batch])
            batch_labels = torch.from_numpy(labels)[chosen].to(self.device)
            values.append(float(self.loss(embeddings[chosen].to(self.device), batch_labels)))
        return float(np.mean(values))

    def describe(self) -> Mapping[str, Any]:
        """Embedder, settings, split and versions, for the checkpoint."""
        return {
            "embedder": self.spec.as_dict(),
            "settings": self.settings.as_dict(),
            "split": {
                name: {
                    "folder": str(part.root.resolve()),
                    "identities": list(part.names),
                    "pictures": len(part.paths),
                    **(
                        {"listed": pictures_by_person(part)}
                        if self.split.listed or (self.split.cleaned and name == "train")
                        else {}
                    ),
                }
                for name, part in self.split.parts().items()
            },
            "versions": {**package_versions(), **self.own.names()},
        }

    def thumbnail(self, folder: FaceFolder, position: int, side: int) -> np.ndarray:
        """A small square copy of a part's picture, uint8 (side, side, 3)."""
        path = folder.paths[position]
        if self._cache is None:
            return np.asarray(thumbnail(folder.root / path, side))
        pixels = self._cache.read(folder.root, path)
        small: torch.Tensor = functional.resize(pixels, [side, side], antialias=True)
        return small.permute(1, 2, 0).numpy()

    def _training_pictures(self, batch: Batch) -> torch.Tensor:
        """A batch's pictures on the device, augmented, uint8 (N, 3, S, S)."""
        with record_function("copy"):
            images = batch.images.to(self.device, non_blocking=True)
            numbers = batch.numbers
            if numbers is not None:
                numbers = numbers.to(self.device, non_blocking=True)
        with record_function("augment"):
            if numbers is not None and isinstance(self._augment, BatchAugmentation):
                images = self._augment(images, numbers)
        if self.settings.trainer.channels_last is not False:
            images = images.contiguous(memory_format=torch.channels_last)
        return images

    def _note_failed(self, batch: Batch) -> None:
        for path, reason in batch.failed:
            self._report_failed(path, reason)

    def _noting(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        for batch in batches:
            self._note_failed(batch)
            yield batch
