"""A picture of every augmentation, to look at before trusting it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from siamese.config import DatasetName, DatasetSettings, PictureSettings
from siamese.config.ranges import require
from siamese.drawing.figure import write_text
from siamese.files.writing import replacing
from siamese.tasks.classes.class_batches import batch_generator
from siamese.tasks.classes.datasets import (
    FOLDER_SIZE,
    ImageSet,
    decode_pictures,
    load_part,
    measure,
    scan_part,
)
from siamese.tasks.classes.mixing import augment_batch

_COLUMNS = 8
_CELL, _LEFT = 1.2, 1.4  # inches of a picture with the room around it, of the titles


@dataclass(frozen=True)
class _Row:
    """One augmentation: its title, its settings, and the view to show of dual cutout's two."""

    title: str
    settings: PictureSettings
    view: int = 0


def _alone(**options: Any) -> PictureSettings:
    """Settings with nothing on but what is named."""
    return PictureSettings(**{"crop": 0, "flip": 0.0, **options})


def _rows(side: int) -> list[_Row]:
    """Every augmentation; sizes in pixels grow with the image."""
    crop, hole = max(1, side // 8), max(1, side // 2)
    dual = _alone(cutout=hole, dual_cutout=0.1)
    reflected = _alone(crop=crop, crop_padding="reflect")
    return [
        _Row("original", _alone()),
        _Row(f"crop {crop}\nzero padding", _alone(crop=crop)),
        _Row(f"crop {crop}\nreflect padding", reflected),
        _Row("flip 0.5", _alone(flip=0.5)),
        _Row("resized crop\n0.25 to 1", _alone(resized_crop=(0.25, 1.0))),
        _Row("RandAugment\nm9-mstd0.5-inc1", _alone(rand_augment="rand-m9-mstd0.5-inc1")),
        _Row(f"cutout {hole}\nclipped", _alone(cutout=hole)),
        _Row(f"cutout {hole}\ninside", _alone(cutout=hole, cutout_edge="inside")),
        _Row("random erasing\nprobability 0.5", _alone(erasing=0.5)),
        _Row("mixup\nalpha 1", _alone(mixup=1.0)),
        _Row("CutMix\nalpha 1", _alone(cutmix=1.0)),
        _Row("mixup or CutMix\nshare 0.5", _alone(mixup=1.0, cutmix=1.0, cutmix_share=0.5)),
        _Row("RICAP\nbeta 0.3", _alone(ricap=0.3)),
        _Row(f"RICAP, crop {crop}\nbeta 0.3", _alone(ricap=0.3, crop=crop)),
        _Row(f"dual cutout {hole}\nfirst view", dual),
        _Row(f"dual cutout {hole}\nsecond view", dual, view=1),
    ]


def write_augmentations(
    out: Path, name: str, root: str, download: bool = True, seed: int = 0
) -> Path:
    """Draw every augmentation of a few training images of a set into the PNG ``out``."""
    names = get_args(DatasetName)
    require(name in names, "name", name, f"one of {', '.join(names)}")
    if name == "folder":
        pictures = scan_part(root, "train")
        few = pictures.only(_one_of_each(pictures.labels, seed))
        images = decode_pictures(few, FOLDER_SIZE, measure(root, FOLDER_SIZE), progress=False)
    else:
        part = load_part(DatasetSettings(cast(DatasetName, name), root, download), "train")
        images = part.only(_one_of_each(part.labels, seed))
    return augmentation_grid(out, images, seed)


def _one_of_each(labels: Tensor, seed: int) -> Tensor:
    """Positions of a few images, of as many classes as there are, int64."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    seen: dict[int, list[int]] = {}
    for at, label in zip(order.tolist(), labels[order].tolist(), strict=True):
        seen.setdefault(label, []).append(at)
    turns = [at for turn in range(_COLUMNS) for own in seen.values() for at in own[turn : turn + 1]]
    return torch.tensor(turns[:_COLUMNS])


def augmentation_grid(out: Path, images: ImageSet, seed: int = 0) -> Path:
    """Draw every augmentation, a labelled row each, of the same images into the PNG ``out``.

    Each picture comes from a draw of its own, so a row shows how an augmentation varies. Below it
    stand its target's classes with their shares where there is more than one.
    """
    rows = _rows(images.images.shape[-1])
    width, height = _LEFT + _CELL * len(images), 1.2 * _CELL * len(rows)
    figure = Figure(figsize=(width, height), dpi=120)
    FigureCanvasAgg(figure)
    room = {"left": _LEFT / width, "right": 1, "bottom": 0.02, "top": 0.995}
    panels = figure.subplots(
        len(rows), len(images), squeeze=False, gridspec_kw={**room, "wspace": 0.08, "hspace": 0.3}
    )
    for number, (row, axes) in enumerate(zip(rows, panels, strict=True)):
        for column, axis in enumerate(axes):
            pixels, target = _example(row, images, column, seed)
            _show(axis, pixels, _caption(target, images.classes, always=number == 0))
        axes[0].set_ylabel(row.title, rotation=0, ha="right", va="center", fontsize=9)
    with replacing(out) as temporary:
        figure.savefig(temporary, format="png")
    return out


def _example(row: _Row, images: ImageSet, column: int, seed: int) -> tuple[Tensor, Tensor]:
    """One augmented image in [0, 1], float (H, W, C), and its target (classes,)."""
    # The same draws in both rows of dual cutout, which are two views of one batch.
    mixed = augment_batch(
        images.images,
        images.labels,
        len(images.classes),
        row.settings,
        images.mean,
        images.std,
        batch_generator(seed, 0, column),
    )
    image = mixed.images[row.view * len(images) + column]
    pixels = image * torch.tensor(images.std)[:, None, None]
    pixels = pixels + torch.tensor(images.mean)[:, None, None]
    return pixels.clamp(0, 1).permute(1, 2, 0), mixed.targets[column]


def _caption(target: Tensor, classes: Sequence[str], always: bool) -> list[str]:
    """Lines below a picture: the target's classes with their shares, two a line."""
    shares = sorted(enumerate(target.tolist()), key=lambda item: -item[1])
    shown = [(label, share) for label, share in shares if share > 0]
    if len(shown) == 1:
        return [classes[shown[0][0]]] if always else []
    parts = [f"{_short(classes[label])} {share:.2f}" for label, share in shown]
    return [" + ".join(parts[at : at + 2]) for at in range(0, len(parts), 2)]


def _short(name: str) -> str:
    if len(name) <= 6:
        return name
    word = name.split()[0]
    return word if len(word) <= 6 else word[:5] + "."


def _show(axis: Any, pixels: Tensor, caption: list[str]) -> None:
    grey = pixels.shape[2] == 1
    shown = pixels[:, :, 0] if grey else pixels
    axis.imshow(shown.numpy(), cmap="gray" if grey else None, vmin=0, vmax=1)
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)
    if caption:
        write_text(axis.set_xlabel("", fontsize=6, labelpad=2), *caption)
