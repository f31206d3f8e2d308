"""What a program hands over instead of naming it in the settings: network, loss, sampler, data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from siamese.config import LossSettings, TrainSettings
from siamese.data.decode import DecodeError
from siamese.data.folder import FaceFolder
from siamese.data.labelled_pictures import Transform
from siamese.errors import UserError
from siamese.libraries import functional
from siamese.tasks.faces.metric_losses import MetricLoss, active_share

_VERSION = "own_"  # before the kind of a part, in what a checkpoint lists as versions


@dataclass(frozen=True)
class OwnParts:
    """Parts of a face run; None: what the settings say.

    Attributes:
        backbone: float (N, 3, H, W), normalised, to features (N, F).
        loss: (embeddings (N, D), labels int64 (N,)) to a scalar, e.g. any loss of PML.
        sampler: a torch sampler or batch sampler over the training pictures, or what makes one of
            their labels.
        augment: uint8 (3, H, W) to the same, at random with torch's global generator.
        dataset: (picture, label) by position, with ``labels``, instead of a folder.
    """

    backbone: nn.Module | None = None
    loss: Callable[..., torch.Tensor] | None = None
    sampler: Any = None
    augment: Transform | None = None
    dataset: Any = None

    def names(self) -> dict[str, str]:
        """What a checkpoint keeps of them: the names of their classes or functions."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            f"{_VERSION}{kind}": name_of(part) for kind, part in given.items() if part is not None
        }

    def check(self, settings: TrainSettings) -> None:
        """UserError where settings of a loss stand beside the program's own, or mix its people."""
        if self.loss is None:
            return
        usual = LossSettings(lr_factor=settings.loss.lr_factor)
        for one in fields(usual):
            value = getattr(settings.loss, one.name)
            if value != getattr(usual, one.name):
                raise UserError(
                    f"`loss.{one.name}` {value}: does nothing beside a loss of your own"
                )
        if settings.augment.mixup > 0:
            raise UserError("`augment.mixup`: must be 0 beside a loss of your own")

    def require_same(self, versions: dict[str, str], source: str) -> None:
        """UserError where the parts are others than those whose names a checkpoint's ``versions``
        keep.
        """
        saved = {kind: name for kind, name in versions.items() if kind.startswith(_VERSION)}
        given = self.names()
        for kind in sorted(saved.keys() | given.keys()):
            if saved.get(kind) != given.get(kind):
                part = kind.removeprefix(_VERSION)
                raise UserError(
                    f"{source}: its {part} was {saved.get(kind, 'named in the settings')}, not "
                    f"{given.get(kind, 'one named in the settings')}; go on in Python with the "
                    f"same one: siamese.train(resume=..., {part}=...)"
                )


def name_of(part: Any) -> str:
    """The qualified name of a function, or of an object's class."""
    named = part if hasattr(part, "__qualname__") else type(part)
    return f"{named.__module__}.{named.__qualname__}"


class OwnLoss(nn.Module):
    """A program's loss, seen as :class:`siamese.tasks.faces.metric_losses.MetricLoss`."""

    knows_training_only = True  # nobody knows better
    triplet_margin = None
    name = "own"
    shared = None

    def __init__(self, loss: Callable[..., torch.Tensor]):
        super().__init__()
        self.loss = loss

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Loss of a batch: embeddings (N, D) of any float type, labels int64 (N,)."""
        with torch.autocast(embeddings.device.type, enabled=False):
            return self.loss(embeddings.float(), labels)

    def start_epoch(self, epoch: int, batch: int) -> None:
        """Nothing depends on it."""

    def active_share(self, embeddings: torch.Tensor, labels: torch.Tensor) -> float:
        """See :func:`siamese.tasks.faces.metric_losses.active_share`."""
        return active_share(embeddings, labels)


FaceLoss = MetricLoss | OwnLoss


class DatasetReader:
    """Reads the pictures of a data set as a cache does; see :func:`dataset_folder`."""

    def __init__(self, dataset: Any, prepare: Callable[[Image.Image], torch.Tensor]):
        self._dataset, self._prepare = dataset, prepare

    def read(self, root: Path, path: str) -> torch.Tensor:
        """The picture at the position that a path spells, uint8 (3, H, W); DecodeError."""
        try:
            picture = self._dataset[int(path)][0]
            if not isinstance(picture, Image.Image):
                picture = functional.to_pil_image(picture)
            return self._prepare(picture.convert("RGB"))
        except Exception as error:  # whatever the data set raises
            reason = " ".join(str(error).split())
            raise DecodeError(f"{root}[{path}]: cannot be decoded ({reason})") from None


def dataset_folder(dataset: Any) -> FaceFolder:
    """A data set's pictures as those of a face folder; each path spells a position.

    UserError: no ``labels`` (or torchvision's ``targets``), or another number than pictures.
    """
    name = type(dataset).__name__
    labels = getattr(dataset, "labels", getattr(dataset, "targets", None))
    if labels is None:
        raise UserError(f"`data`: {name} has no `labels`; give it one label per picture")
    values = np.asarray(labels)
    if values.ndim != 1 or len(values) != len(dataset):
        raise UserError(f"`data`: {name} has {len(values)} labels for {len(dataset)} pictures")
    classes: Sequence[str] | None = getattr(dataset, "classes", None)
    spelled = [str(v) if classes is None else str(classes[int(v)]) for v in values.tolist()]
    names = sorted(set(spelled))
    label_of = {person: label for label, person in enumerate(names)}
    order = sorted(range(len(spelled)), key=lambda at: (label_of[spelled[at]], at))
    return FaceFolder(
        root=Path(name),
        names=tuple(names),
        paths=tuple(str(at) for at in order),
        labels=tuple(label_of[spelled[at]] for at in order),
        left_out=(),
    )
