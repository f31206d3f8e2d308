"""P of P x K batches where it is auto: as many people as fit the GPU."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from siamese.config import TrainSettings
from siamese.data.folder import FaceFolder
from siamese.errors import UserError
from siamese.models.device import autocast, choose_precision
from siamese.models.embedder import SiameseEmbedder
from siamese.tasks.faces.metric_losses import MetricLoss, sharing_classes
from siamese.tasks.faces.own_parts import FaceLoss, OwnLoss
from siamese.training.fitting import kept_bytes, largest_fitting, require_gpu, spare_bytes
from siamese.training.launch import RunContext
from siamese.training.probing import Arithmetic

# Each loader process holds several batches in main memory, however small the network is.
_MOST = 1024


@dataclass
class TrialStep:
    """A training step with black pictures of some people, such as one of ``world`` processes makes.

    It waits for no other process: where one runs out of memory the others would wait for ever. The
    rows that they would send are zeros, and ``loss`` has ``classes`` class weights, this process's.
    """

    model: nn.Module
    loss: FaceLoss
    classes: int
    world: int
    images: int  # K
    size: int
    device: torch.device
    arithmetic: Arithmetic

    def __call__(self, people: int) -> None:
        """Forward and backward pass of P people; RuntimeError where they do not fit."""
        labels = torch.arange(people, device=self.device).repeat_interleave(self.images)
        own = math.ceil(people / self.world) * self.images
        pictures = torch.zeros(
            own, 3, self.size, self.size, dtype=torch.uint8, device=self.device
        ).contiguous(memory_format=self.arithmetic.layout)
        with autocast(self.device, self.arithmetic.precision):
            embeddings = self.model(pictures)
        others = embeddings.new_zeros(max(0, len(labels) - own), embeddings.shape[1])
        rows = torch.cat([embeddings, others])[: len(labels)]
        value = self.loss(rows, labels % self.classes)
        value.backward()


def with_fitting_people(
    settings: TrainSettings,
    context: RunContext,
    model: SiameseEmbedder,
    train: FaceFolder,
    own_loss: Callable[..., torch.Tensor] | None,
) -> TrainSettings:
    """The settings with the number of people per batch that was found, which is printed.

    Raises:
        UserError: there is no GPU, or not even the smallest batch fits it.
    """
    device, distribution, batches = context.device, context.distribution, settings.batches
    require_gpu(device)
    usable = sum(count >= 2 for count in train.counts().values())
    least, most = max(2, distribution.world), min(usable, _MOST)
    if most < least:  # refused where batches are drawn
        return replace(settings, batches=replace(batches, people=least))
    sharing = sharing_classes(settings.optimizer.name, settings.loss.name, distribution)
    classes = math.ceil(len(train.names) / sharing.world)
    loss = _trial_loss(settings, classes, own_loss).to(device)
    trainer = settings.trainer
    usual = Arithmetic(
        choose_precision(trainer.precision, device), trainer.channels_last is not False
    )
    model.to(memory_format=usual.layout)
    step = TrialStep(
        model,
        loss,
        classes,
        distribution.world,
        batches.images_drawn,
        settings.images.size,
        device,
        usual,
    )
    people = largest_fitting(
        step,
        least,
        most,
        modules=[model, loss],
        kept=kept_bytes([model, loss], settings.optimizer, distribution) + spare_bytes(device),
        device=device,
        distribution=distribution,
    )
    name = torch.cuda.get_device_name(device)
    if people is None:
        raise UserError(
            f"`batches.people` auto: not even {least} people x {batches.images_drawn} pictures fit "
            f"the {name}; lower `batches.images` or `images.size`, set `model.grad_checkpointing` "
            "true, or `batches.chunk` beside a number of people"
        )
    pictures = batches.images_per_epoch or len(train.paths)
    steps = max(1, pictures // (people * batches.images_drawn))
    why = f"as many as fit the {name}" if people < most else f"all that may be drawn fit the {name}"
    context.say(f"batches.people auto: {people} ({why}), {steps} batches per epoch")
    return replace(settings, batches=replace(batches, people=people))


def _trial_loss(
    settings: TrainSettings, classes: int, own_loss: Callable[..., torch.Tensor] | None
) -> FaceLoss:
    """A loss of the run's kind, whose state nobody needs afterwards."""
    if own_loss is not None:
        return OwnLoss(copy.deepcopy(own_loss))
    with torch.random.fork_rng(devices=[]):
        return MetricLoss(settings.loss, classes, settings.model.embedding_dim)
