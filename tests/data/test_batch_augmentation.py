"""Augmentation of whole batches: each picture as torchvision changes it alone."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from siamese.config import AugmentSettings, TrainSettings, check_settings
from siamese.data.batch_augmentation import ATTEMPTS, BatchAugmentation
from siamese.data.batches import PKBatches
from siamese.data.folder import scan_folder
from siamese.data.labelled_pictures import face_pictures
from siamese.data.loaders import training_loader
from siamese.data.transforms import Preprocess, augmentation
from siamese.errors import UserError
from siamese.tasks.faces.face_runs import FaceRuns
from siamese.tasks.faces.own_parts import OwnParts

SIZE, COUNT = 24, 64


@pytest.fixture
def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (COUNT, 3, SIZE, SIZE)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def _numbers(augment: BatchAugmentation, count: int = COUNT) -> torch.Tensor:
    return torch.rand(count, augment.numbers, generator=torch.Generator().manual_seed(1))


def _rectangle(
    numbers: list[float], area: tuple[float, float], ratio: tuple[float, float]
) -> tuple[int, int, int, int] | None:
    """Top, left, height, width as torchvision finds them, one picture at a time."""
    for attempt in range(ATTEMPTS):
        share = area[0] + (area[1] - area[0]) * numbers[attempt]
        span = math.log(ratio[1]) - math.log(ratio[0])
        aspect = math.exp(math.log(ratio[0]) + span * numbers[ATTEMPTS + attempt])
        width = round(math.sqrt(share * SIZE * SIZE * aspect))
        height = round(math.sqrt(share * SIZE * SIZE / aspect))
        if 0 < width <= SIZE and 0 < height <= SIZE:
            top = int(numbers[2 * ATTEMPTS] * (SIZE - height + 1))
            left = int(numbers[2 * ATTEMPTS + 1] * (SIZE - width + 1))
            return top, left, height, width
    return None


def test_each_picture_is_changed_as_torchvision_changes_it_alone(images: torch.Tensor) -> None:
    settings = AugmentSettings(crop_scale=(0.3, 1.0), crop_ratio=(0.6, 1.5), erasing=0.6)
    augment = BatchAugmentation(settings)
    numbers = _numbers(augment)
    result = augment(images, numbers)
    assert result.dtype == torch.uint8
    assert augment.numbers == 2 * (2 * ATTEMPTS + 2) + 2
    flips = holes = 0
    for image, row, own in zip(images, numbers.double().tolist(), result, strict=True):
        crop, mirror, chosen = row[: 2 * ATTEMPTS + 2], *row[2 * ATTEMPTS + 2 :][:2]
        box = _rectangle(crop, (0.3, 1.0), (0.6, 1.5))
        assert box is not None
        wanted = functional.resized_crop(image.float(), *box, [SIZE, SIZE], antialias=True)
        wanted = wanted.flip(2) if mirror < 0.5 else wanted
        if chosen < 0.6:
            hole = _rectangle(row[-(2 * ATTEMPTS + 2) :], (0.02, 0.33), (1 / 3.3, 1 / 0.3))
            assert hole is not None
            wanted = functional.erase(wanted, *hole, v=torch.zeros(1))
            holes += 1
        flips += mirror < 0.5
        assert (own.float() - wanted).abs().max() <= 0.501  # rounded to whole values
    assert 20 < flips < 44
    assert 25 < holes < 52


def test_erasing_draws_as_torchvision_does() -> None:
    augment = BatchAugmentation(AugmentSettings(crop_scale=None, flip=0.0, erasing=1.0))
    white = torch.full((3000, 1, 48, 48), 255, dtype=torch.uint8)
    erased = augment(white, _numbers(augment, 3000)) == 0
    high = erased.any(dim=3).sum(dim=(1, 2)).double()
    wide = erased.any(dim=2).sum(dim=(1, 2)).double()
    torch.manual_seed(0)
    theirs = [v2.RandomErasing(1.0).make_params([white[0]]) for _ in range(3000)]
    h, w = (torch.tensor([one[name] for one in theirs]).double() for name in ("h", "w"))
    for own, other in ((high * wide, h * w), ((high / wide).log(), (h / w).log())):
        spread = float(other.max() - other.min())
        for share in (0.05, 0.25, 0.5, 0.75, 0.95):
            assert abs(own.quantile(share) - other.quantile(share)) < 0.05 * spread


@pytest.mark.parametrize(
    "parts",
    [
        {"crop_scale": None, "flip": 0.0},
        {"crop_scale": None, "flip": 1.0},
        {"crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0), "flip": 0.0},
    ],
)
def test_what_leaves_nothing_to_chance_is_that_of_single_pictures(
    images: torch.Tensor, parts: dict[str, object]
) -> None:
    settings = AugmentSettings(**parts)  # type: ignore[arg-type]
    augment = BatchAugmentation(settings)
    alone = augmentation(settings, SIZE)
    result = augment(images, _numbers(augment))
    assert torch.equal(result, torch.stack([alone(image) for image in images]))


@pytest.mark.parametrize("workers", [0, 2])
def test_loaders_give_each_picture_numbers_of_its_draw(face_folder: Path, workers: int) -> None:
    folder = scan_folder(face_folder, progress=False)
    augment = BatchAugmentation(AugmentSettings())
    pictures = face_pictures(folder, Preprocess(SIZE, "squash"), SIZE, augment=augment)
    draws = PKBatches(folder.labels, 3, 2, seed=7)
    batches = list(training_loader(pictures, draws, workers=workers, pin_memory=False))
    seeds = [draw.seed for batch in draws for draw in batch]
    wanted = [
        torch.rand(augment.numbers, generator=torch.Generator().manual_seed(seed)) for seed in seeds
    ]
    found = [one.numbers for one in batches]
    assert all(one is not None for one in found)
    assert torch.equal(torch.cat([one for one in found if one is not None]), torch.stack(wanted))
    plain = face_pictures(folder, Preprocess(SIZE, "squash"), SIZE)
    index = int(batches[0].indices[0])
    assert torch.equal(batches[0].images[0], plain[index].image)  # not changed yet
    assert plain[index].numbers is None


def test_parts_that_single_pictures_alone_have_are_refused() -> None:
    settings = TrainSettings(data="faces")
    settings.augment = AugmentSettings(in_batches=True, erasing=0.2)
    check_settings(settings)
    settings.augment.blur, settings.augment.randaugment = 0.1, 2
    message = r"`augment\.in_batches` true: .* beside `augment\.blur`, `augment\.randaugment`"
    with pytest.raises(UserError, match=message):
        check_settings(settings)
    settings.augment.in_batches = "auto"
    check_settings(settings)


@pytest.mark.parametrize(
    ("settings", "device", "new", "expected"),
    [
        (AugmentSettings(), "cpu", True, False),
        (AugmentSettings(), "cuda", True, True),
        (AugmentSettings(blur=0.1), "cuda", True, False),
        (AugmentSettings(), "cuda", False, False),  # of a run that has not stored it
        (AugmentSettings(in_batches=True), "cpu", False, True),
        (AugmentSettings(in_batches=False), "cuda", True, False),
    ],
)
def test_a_run_decides_when_it_begins(
    settings: AugmentSettings, device: str, new: bool, expected: bool
) -> None:
    context: Any = SimpleNamespace(device=torch.device(device), content=None if new else {})
    assert FaceRuns()._augments_in_batches(settings, context) is expected


def test_what_a_program_brings_changes_single_pictures() -> None:
    runs = FaceRuns(OwnParts(augment=lambda image: image))
    context: Any = SimpleNamespace(device=torch.device("cuda"), content=None)
    assert runs._augments_in_batches(AugmentSettings(), context) is False
    with pytest.raises(UserError, match=r"`augment\.in_batches` true: an own `augment`"):
        runs._augments_in_batches(AugmentSettings(in_batches=True), context)


def test_the_numbers_reach_every_corner() -> None:
    """Crops of half the side begin at each of their places."""
    augment = BatchAugmentation(
        AugmentSettings(crop_scale=(0.25, 0.25), crop_ratio=(1.0, 1.0), flip=0.0)
    )
    ramp = torch.arange(8, dtype=torch.uint8).repeat(4000, 3, 8, 1) * 20
    cut = augment(ramp, _numbers(augment, 4000))
    lefts = np.unique(cut[:, 0, 0, 0].numpy(), return_counts=True)[1]
    assert len(lefts) == 5  # 8 - 4 + 1 columns to begin at
    assert lefts.min() > 600  # 800 expected


def test_nothing_is_computed_on_another_device() -> None:
    """Tensors without values stand in for those of a GPU: they mix with no others."""
    augment = BatchAugmentation(AugmentSettings(erasing=0.5))
    images = torch.empty(COUNT, 3, SIZE, SIZE, dtype=torch.uint8, device="meta")
    result = augment(images, torch.empty(COUNT, augment.numbers, device="meta"))
    assert (result.device.type, result.dtype, result.shape) == ("meta", torch.uint8, images.shape)
