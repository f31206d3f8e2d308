"""A classifier's description, which travels in its checkpoint, and what builds it again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from siamese.config.common import LimitSettings, plain
from siamese.errors import UserError
from siamese.models.building import DoesNotFit, build_fitting
from siamese.models.checkpoint import JUDGED, read_checkpoint
from siamese.models.device import autocast
from siamese.tasks.classes.class_batches import judged_pictures
from siamese.tasks.classes.datasets import PictureFolder
from siamese.tasks.classes.mixing import prepare_test
from siamese.tasks.classes.parts import Images
from siamese.training.distribution import SINGLE, Distribution
from siamese.zoo import create_network, require_network


@dataclass(frozen=True)
class ClassifierSpec:
    """What is needed to build a classifier again, and to feed it.

    ``network`` is a preset of the zoo or ``timm/NAME``, ``options`` lie over the preset's. ``size``
    is the side of the square input in training, ``test_size`` in validation and test, in pixels;
    ``test_crop`` the share of the side that the central crop keeps there. ``mean`` and ``std`` are
    of each channel, pixels in [0, 1].
    """

    network: str
    options: dict[str, Any]
    drop_path: float
    classes: tuple[str, ...]
    channels: int
    size: int
    test_size: int
    test_crop: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {key: plain(value) for key, value in asdict(self).items()}

    def build(self, pretrained: bool = False) -> nn.Module:
        """The network, with random or timm's pretrained weights."""
        require_network(self.network, self.options)
        return create_network(
            self.network,
            num_classes=len(self.classes),
            in_channels=self.channels,
            image_size=self.size,
            pretrained=pretrained,
            drop_path=self.drop_path,
            **self.options,
        )


def load_classifier(
    path: Path, limits: LimitSettings | None = None
) -> tuple[nn.Module, ClassifierSpec, dict[str, Any]]:
    """The network of a checkpoint on the CPU in eval mode, its description, its content."""
    content = read_checkpoint(path, "classifier", keys=JUDGED, limits=limits)
    spec = spec_of(content)
    try:
        network = build_fitting(spec.build, content["model"])
    except DoesNotFit:
        raise UserError(f"{path}: its weights do not fit {spec.network}") from None
    return network.eval(), spec, content


def spec_of(content: Mapping[str, Any]) -> ClassifierSpec:
    """The classifier's description in a checkpoint's content, checked when it was read."""
    fields = content["classifier"]
    lists = {name: tuple(fields[name]) for name in ("classes", "mean", "std")}
    return ClassifierSpec(**{**fields, **lists})


@torch.inference_mode()
def judge_images(
    network: nn.Module,
    spec: ClassifierSpec,
    images: Images,
    device: torch.device,
    precision: torch.dtype,
    *,
    batch: int,
    workers: int,
    channels_last: bool = True,
    distribution: Distribution = SINGLE,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Classify images as they are prepared for validation and test; the network goes to eval mode.

    Processes share images in memory, and each must call this; broken files are left out.

    Returns:
        logits float32 (N, classes) and labels int64 (N,), on ``device``, in every process.
    """
    network.eval()
    weights = next(network.parameters()).dtype
    logits, labels = [], []
    pinned = device.type == "cuda"
    for pixels, truth in _test_batches(images, spec, batch, workers, pinned, distribution):
        prepared = prepare_test(pixels.to(device, non_blocking=True), spec.mean, spec.std)
        prepared = prepared.to(weights)
        if channels_last:
            prepared = prepared.contiguous(memory_format=torch.channels_last)
        with autocast(device, precision):
            logits.append(network(prepared).float())
        labels.append(truth.to(device))
    if isinstance(images, PictureFolder):
        return torch.cat(logits), torch.cat(labels)
    positions = torch.arange(distribution.rank, len(images), distribution.world)
    gathered, _ = distribution.gather_shares(torch.cat(logits).cpu(), positions)
    return gathered.to(device), images.labels.to(device)


def _test_batches(
    images: Images,
    spec: ClassifierSpec,
    batch: int,
    workers: int,
    pin_memory: bool,
    distribution: Distribution,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    if isinstance(images, PictureFolder):
        loader = judged_pictures(
            images,
            spec.test_size,
            spec.test_crop,
            batch_size=batch,
            workers=workers,
            pin_memory=pin_memory,
        )
        good = 0
        for pictures in loader:
            good += len(pictures.labels)
            if len(pictures.labels):
                yield pictures.images, pictures.labels
        if not good:
            raise UserError(f"{images.root}: none of its {len(images)} pictures can be decoded")
        return
    rank, world = distribution.rank, distribution.world
    positions = torch.arange(rank, len(images), world, device=images.labels.device)
    for chosen in torch.split(positions, batch):
        yield images.images[chosen], images.labels[chosen]
