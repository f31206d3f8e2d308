"""``siamese.train``: a face run from Python, with a program's own parts where it has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from siamese.config import TrainSettings, demo_settings
from siamese.config.common import plain
from siamese.config.reading import build_settings, flat_settings, read_yaml
from siamese.config.starting import starting_point
from siamese.data.folder import require_folder
from siamese.data.labelled_pictures import Transform
from siamese.models.checkpoint import read_checkpoint
from siamese.models.embedder import backbone_name
from siamese.tasks.faces.face_runs import FaceRuns
from siamese.tasks.faces.own_parts import OwnParts
from siamese.training.launch import resume_run, start_run

# Short names of settings, as the command line has them.
_SHORT = {
    "epochs": "trainer.epochs",
    "lr": "optimizer.lr",
    "size": "images.size",
    "workers": "batches.workers",
    "precision": "trainer.precision",
}
_NAMED = {"backbone": "model.backbone", "loss": "loss.name", "optimizer": "optimizer.name"}
_WHERE = "siamese.train"


@dataclass(frozen=True)
class TrainedRun:
    """A run that is over.

    ``best`` is the checkpoint of its best epoch, which ``siamese.Embedder.load`` takes, ``folder``
    has its log, settings, metrics and data report, ``figures`` are of the best epoch on the
    validation people: ``auc``, ``ap``, ``eer``, ``epoch`` ...
    """

    name: str
    best: Path
    folder: Path
    figures: dict[str, float]


def train(
    data: str | Path | Any | None = None,
    *,
    backbone: str | nn.Module | None = None,
    loss: str | Callable[..., torch.Tensor] | Mapping[str, Any] | None = None,
    sampler: Any = None,
    augment: Transform | Mapping[str, Any] | None = None,
    config: str | Path | None = None,
    resume: str | Path | None = None,
    **settings: Any,
) -> TrainedRun:
    """Train an embedder, as ``siamese-train`` does.

    Args:
        data: a folder with one folder per person; or a data set whose items are (picture, label)
            with ``labels``, pictures being PIL images, arrays (H, W, 3) or tensors (3, H, W); None:
            the demo faces.
        backbone: a network of timm or of the zoo by name; or a module that maps normalised pictures
            (N, 3, H, W) to features (N, F). A checkpoint keeps a module's name only:
            ``Embedder.load(path, backbone=module)`` needs it again. Its learning rate defaults to
            that of random weights.
        loss: by name; its settings as a mapping; or a callable (embeddings (N, D), labels (N,)) to
            a scalar, e.g. any loss of pytorch-metric-learning. What a module learns of its own is
            trained and saved with the run.
        sampler: a torch sampler or batch sampler over the training pictures, or a function that
            makes one of their labels; None: P x K batches. With a sampler that has no ``set_epoch``
            a resumed run is not the run it would have been.
        augment: settings as a mapping; or a callable, uint8 (3, H, W) to the same, whose chance
            comes from torch's global generator.
        config: a YAML file, or the name of a starting point such as ``face/from_scratch``, below
            the other settings.
        resume: a run's name, its folder, or a checkpoint: goes on with it instead.
        settings: any other setting of ``siamese-train`` by name: a group as a mapping or as its
            dataclass (``images={"size": 112}``), the short names (``epochs``, ``lr``, ``size``,
            ``workers``, ``precision``), or dotted names in ``**{"optimizer.lr": 1e-3}``.

    Returns:
        The run: where its best checkpoint lies, and the figures of that epoch.

    Raises:
        UserError: unusable data or settings.
        Diverged: the loss became NaN or infinite.
        KeyboardInterrupt: stopped by Ctrl-C after the state was saved.
    """
    own, given = _own_and_named(data, backbone, loss, sampler, augment, settings)
    if resume is not None:
        checkpoints = str(given.get("checkpoints", TrainSettings.checkpoints))
        best = resume_run(
            FaceRuns(own), str(resume), checkpoints, lambda saved: _laid_over(saved, given)
        )
    else:
        below: Mapping[str, Any] = demo_settings() if data is None else {}
        if config is not None:
            below = read_yaml(starting_point(str(config), "config"), _WHERE)
        runs = FaceRuns(own)
        best = start_run(runs, _checked(runs, _laid_over(below, given)))
    return _trained(best)


def _own_and_named(
    data: Any, backbone: Any, loss: Any, sampler: Any, augment: Any, settings: dict[str, Any]
) -> tuple[OwnParts, dict[str, Any]]:
    """What a program made itself, and the settings by dotted name."""
    is_folder = data is None or isinstance(data, str | Path)
    own = OwnParts(
        backbone=backbone if isinstance(backbone, nn.Module) else None,
        loss=loss if callable(loss) else None,
        sampler=sampler,
        augment=augment if callable(augment) else None,
        dataset=None if is_folder else data,
    )
    named = {"backbone": backbone, "loss": loss, "augment": augment}
    for part, value in named.items():
        if value is not None and getattr(own, part) is None:
            settings[part] = value
    if is_folder and data is not None:
        settings["data"] = str(data)
    given = _flat(settings)
    if own.backbone is not None:
        given = {"model.pretrained": False, **given, "model.backbone": backbone_name(own.backbone)}
    return own, given


def _checked(runs: FaceRuns, settings: TrainSettings) -> TrainSettings:
    """The settings, unless they cannot work; UserError."""
    runs.check(settings)
    if settings.data is not None:
        require_folder(Path(settings.data))
    return settings


def _flat(given: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments as settings by dotted name; UserError for unknown ones."""
    values: dict[str, Any] = {}
    for name, value in given.items():
        if is_dataclass(value) and not isinstance(value, type):
            value = asdict(value)
        key = _SHORT.get(name, name)
        if name in _NAMED and isinstance(value, str):
            key = _NAMED[name]
        values[key] = dict(value) if isinstance(value, Mapping) else plain(value)
    return flat_settings(TrainSettings, values, _WHERE)


def _laid_over(below: Mapping[str, Any], given: Mapping[str, Any]) -> TrainSettings:
    """Settings with those that were given over others; None unsets."""
    flat = {**flat_settings(TrainSettings, below, _WHERE), **given}
    return build_settings(TrainSettings, flat, _WHERE)


def _trained(best: Path) -> TrainedRun:
    content = read_checkpoint(best, keys=["settings", "figures"])
    name = best.parent.name
    return TrainedRun(name, best, Path(content["settings"]["runs"]) / name, content["figures"])
