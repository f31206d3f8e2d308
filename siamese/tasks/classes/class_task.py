"""The classification task: augmented images, a loss over classes, errors on unseen images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm.layers
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import record_function

from siamese.config import ClassificationSettings
from siamese.data.loaders import default_workers
from siamese.errors import UserError
from siamese.models.checkpoint import package_versions
from siamese.models.device import autocast, choose_precision
from siamese.tasks.classes.class_batches import EpochOrder
from siamese.tasks.classes.class_losses import ClassLoss
from siamese.tasks.classes.class_sources import TrainingSource
from siamese.tasks.classes.classifier import ClassifierSpec, judge_images
from siamese.tasks.classes.datasets import ImageSet
from siamese.tasks.classes.judging import summarise_logits
from siamese.tasks.classes.mixing import Mixed, part_edges
from siamese.tasks.classes.parts import Parts
from siamese.training.compiling import compiled, is_compiled
from siamese.training.distribution import Distribution
from siamese.training.loop import Figures, StepLoss
from siamese.training.optimizers import PairedOptimizer
from siamese.training.probing import PlannedRun
from siamese.training.tuning import tuned

SMALLER = "`batches.size` and `data.size`, in a new run"


class ClassificationTask:
    """What the loop learns; see :class:`siamese.training.loop.Task`.

    Raises:
        UserError: a precision, or batch norms over all GPUs, that the device does not have; batches
            that cannot be shared.
    """

    def __init__(
        self,
        settings: ClassificationSettings,
        parts: Parts,
        network: nn.Module,
        spec: ClassifierSpec,
        device: torch.device,
        distribution: Distribution,
    ):
        self.settings, self.spec = settings, spec
        self.device, self.distribution = device, distribution
        self.parts = {
            name: part.to(device) if isinstance(part, ImageSet) else part
            for name, part in parts.named().items()
        }
        precision = choose_precision(settings.trainer.precision, device)
        pure = settings.trainer.precision.startswith("pure_")
        kind = "weights in " if pure else "mixed " if precision != torch.float32 else ""
        self.precision_name = kind + str(precision).removeprefix("torch.")
        self._autocast_to = torch.float32 if pure else precision
        self._weights = precision if pure else torch.float32
        self.scales_loss = precision == torch.float16 and not pure
        if settings.trainer.sync_bn:
            if device.type != "cuda":
                raise UserError("`trainer.sync_bn` true: batch norms are shared by GPUs only")
            # torch's own conversion loses the activation that many of timm's batch norms hold.
            network = timm.layers.convert_sync_batchnorm(network)
        self._layout = _layout(settings)
        self.model = network.to(device, self._weights, memory_format=self._layout)  # type: ignore[call-overload]
        self._forward: nn.Module = self.model
        if distribution.world > 1:
            own = [device] if device.type == "cuda" else None
            self._forward = DistributedDataParallel(self.model, device_ids=own)
        self.loss = ClassLoss(settings.loss, settings.augment.dual_cutout)
        order = EpochOrder(
            images=len(parts.train),
            size=settings.batches.size,
            seed=settings.seed,
            repeats=settings.batches.repeats,
            rank=distribution.rank,
            world_size=distribution.world,
        )
        share = min(order.size, order.images) // distribution.world
        self.micro_batch = min(settings.batches.ghost or share, share)
        self.accumulate = len(part_edges(share, self.micro_batch)) - 1
        self._share, self._batches = share, len(order)
        self._source = TrainingSource(
            self.parts["train"],
            order,
            settings.augment,
            mean=spec.mean,
            std=spec.std,
            size=spec.size,
            device=device,
            workers=self._workers(),
        )

    def _planned(self, place: Path, say: Callable[[str], None]) -> PlannedRun:
        """What is measured before the run begins; see :class:`PlannedRun`."""
        spec, images = self.spec, len(self.parts["train"])

        def batch() -> torch.Tensor:
            shape = (self.micro_batch, spec.channels, spec.size, spec.size)
            return torch.zeros(shape, dtype=self._weights, device=self.device)

        pictures = self.settings.trainer.epochs * images
        return PlannedRun(self.model.train(), batch, pictures, spec.network, place, say)

    def tune(self, place: Path, say: Callable[[str], None], *, new: bool) -> ClassificationSettings:
        """Let a few steps decide about memory layout and compiling; the settings that say so.

        Raises:
            UserError: a compiled network is wanted and cannot be had.
        """
        trainer, _ = tuned(
            self.settings.trainer,
            self._planned(place, say),
            self._autocast_to,
            self.device,
            processes=self.distribution.world,
            new=new,
            may_round=False,
            smaller=SMALLER,
        )
        self.settings = replace(self.settings, trainer=trainer)
        self._layout = _layout(self.settings)
        if is_compiled(trainer.compile):
            self._forward = compiled(self.model, trainer.compile)
        return self.settings

    def _workers(self) -> int:
        workers = self.settings.data.workers
        return default_workers(self.device.type) if workers is None else workers

    @torch.inference_mode()
    def refuse_sizes(self) -> None:
        """Try the network on an image of each size, lest one stops it after an epoch; UserError."""
        self.model.eval()
        for name in ("size", "test_size"):
            size = getattr(self.spec, name)
            image = torch.zeros(1, self.spec.channels, size, size, device=self.device)
            try:
                with autocast(self.device, self._autocast_to):
                    self.model(self._laid_out(image.to(self._weights)))
            except torch.OutOfMemoryError:
                raise
            except (RuntimeError, ValueError, AssertionError) as error:
                raise UserError(
                    f"`data.{name}` {size}: {self.spec.network} cannot take images of {size} x "
                    f"{size} pixels ({' '.join(str(error).split())[:200]}); choose another size"
                ) from None

    def start_epoch(self, epoch: int, optimizer: PairedOptimizer) -> None:
        """Nothing changes from epoch to epoch."""

    def batches(self, epoch: int, first_batch: int) -> Iterator[Mixed]:
        """The epoch's micro-batches, from some micro-batch on, which begins a step."""
        for batch in self._source.batches(epoch, first_batch // self.accumulate):
            yield from batch.split(self.micro_batch)

    def batches_per_epoch(self) -> int:
        """Micro-batches of a whole epoch."""
        return self._batches * self.accumulate

    def step_loss(self, batch: Mixed, details: bool) -> StepLoss:
        """Loss of one micro-batch, and its share of wrong answers in per cent.

        What counts as right in a mixed image is the class with the greatest share.
        """
        views = batch.images.to(self._weights).chunk(batch.views)
        with record_function("forward"), autocast(self.device, self._autocast_to):
            # One after the other: batch norms measure each view alone.
            logits = torch.cat([self._forward(self._laid_out(view)) for view in views])
        with record_function("loss"):
            value = self.loss(logits, batch)
        with torch.no_grad():
            wrong = logits[: len(batch.labels)].argmax(dim=1) != batch.labels
            error = 100 * wrong.float().mean()
        return StepLoss(
            value,
            images=len(batch.labels) * self.distribution.world,
            details={"error": error},
            weight=len(batch.labels) * self.accumulate / self._share,
        )

    def recalibration_inputs(self, batches: int) -> Iterator[torch.Tensor]:
        """The same augmented training images each time, drawn by a generator of their own."""
        for batch in self._source.recalibration(batches):
            for part in batch.split(self.micro_batch):
                yield self._laid_out(part.images[: len(part.labels)].to(self._weights))

    def training_examples(self) -> torch.Tensor:
        """Some augmented training images as pictures: float32 (N, C, H, W) in [0, 1]."""
        images = next(self._source.recalibration(1)).images[:64].cpu().contiguous()
        mean, std = (torch.tensor(v)[:, None, None] for v in (self.spec.mean, self.spec.std))
        return (images * std + mean).clamp(0, 1)

    def validate(self) -> Figures:
        """Errors and losses of the validation images and, for a curve, of the test images."""
        judged = ["validation"] if "validation" in self.parts else []
        judged += ["test"] if self.settings.trainer.test_curve else []
        figures: Figures = {}
        for name in judged:
            logits, labels = self.judge(name, self.distribution)
            found = summarise_logits(logits, labels)
            figures |= {f"{name}_{figure}": found[figure] for figure in ("error", "loss")}
        return figures

    def judge(self, part: str, distribution: Distribution) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits, float32 (N, classes), and labels, int64 (N,), of a part, shared by processes."""
        return judge_images(
            self.model,
            self.spec,
            self.parts[part],
            self.device,
            self._autocast_to,
            batch=self.settings.batches.test_size,
            workers=self._workers(),
            channels_last=self._layout is torch.channels_last,
            distribution=distribution,
        )

    def describe(self) -> Mapping[str, Any]:
        """Classifier, settings, parts and versions, for the checkpoint."""
        return {
            "classifier": self.spec.as_dict(),
            "settings": self.settings.as_dict(),
            "split": {
                name: {
                    "folder": self.settings.data.root,
                    "identities": list(part.classes),
                    "pictures": len(part),
                }
                for name, part in self.parts.items()
            },
            "versions": package_versions(),
        }

    def _laid_out(self, images: torch.Tensor) -> torch.Tensor:
        return images.contiguous(memory_format=self._layout)


def _layout(settings: ClassificationSettings) -> torch.memory_format:
    contiguous = settings.trainer.channels_last is False
    return torch.contiguous_format if contiguous else torch.channels_last
