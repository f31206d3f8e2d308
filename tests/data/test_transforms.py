"""Preprocessing is deterministic and shared; augmentation has a switch for each of its parts."""

import io
import random

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as F

from siamese.config import AugmentSettings, TrainSettings, check_settings
from siamese.data.transforms import Preprocess, augmentation
from siamese.errors import UserError

OFF = {
    "flip": 0.0,
    "crop_scale": None,
    "rotation": 0.0,
    "color_jitter": 0.0,
    "grayscale": 0.0,
    "blur": 0.0,
    "erasing": 0.0,
    "low_resolution": 0.0,
    "jpeg": 0.0,
    "randaugment": 0,
}
SWITCHES = {
    "flip": 1.0,
    "crop_scale": (0.4, 0.8),
    "rotation": 30.0,
    "color_jitter": 0.5,
    "grayscale": 1.0,
    "blur": 1.0,
    "erasing": 1.0,
    "low_resolution": 1.0,
    "jpeg": 1.0,
    "randaugment": 2,
}


def picture(width: int = 50, height: int = 70) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height))


def tensor(size: int) -> torch.Tensor:
    return Preprocess(size, "squash")(picture())


def augment(size: int = 40, seed: int = 0, **settings) -> torch.Tensor:
    torch.manual_seed(seed)
    return augmentation(AugmentSettings(**{**OFF, **settings}), size)(tensor(size))


@pytest.mark.parametrize("fit", ["squash", "crop"])
@pytest.mark.parametrize("shape", [(50, 70), (70, 50), (33, 33), (1, 9), (300, 20)])
@pytest.mark.parametrize("size", [16, 31, 64])
def test_preprocessing_gives_square_uint8(fit, shape, size):
    image = Preprocess(size, fit)(picture(*shape))
    assert image.shape == (3, size, size)
    assert image.dtype == torch.uint8


@pytest.mark.parametrize("fit", ["squash", "crop"])
def test_preprocessing_is_deterministic(fit):
    torch.manual_seed(0)
    first = Preprocess(32, fit)(picture())
    state = torch.get_rng_state()
    assert torch.equal(Preprocess(32, fit)(picture()), first)
    assert torch.equal(torch.get_rng_state(), state)


def test_squash_resizes_the_whole_picture():
    expected = picture().resize((32, 32), Image.Resampling.BILINEAR)
    assert torch.equal(Preprocess(32, "squash")(picture()), F.pil_to_tensor(expected))


def test_crop_takes_the_largest_square_in_the_centre():
    square = picture(50, 70).crop((0, 10, 50, 60)).resize((32, 32), Image.Resampling.BILINEAR)
    assert torch.equal(Preprocess(32, "crop")(picture(50, 70)), F.pil_to_tensor(square))


@pytest.mark.parametrize("fit", ["squash", "crop"])
def test_a_share_is_cut_out_of_the_centre_first(fit):
    square = picture(50, 70).crop((10, 20, 40, 50)).resize((32, 32), Image.Resampling.BILINEAR)
    assert torch.equal(Preprocess(32, fit, 0.6)(picture(50, 70)), F.pil_to_tensor(square))


def test_what_is_left_of_a_picture_that_is_decoded_reduced_is_enough():
    assert Preprocess(32, "squash").decode_size == 32
    assert Preprocess(32, "squash", 0.6).decode_size == 54  # of which 0.6 are 32
    assert Preprocess(32, "squash", 1e-320).decode_size == 32_000_000
    assert Preprocess(32, "squash", 150).decode_size is None  # counted in the file's own pixels


def test_with_everything_off_nothing_changes():
    assert torch.equal(augment(), tensor(40))


@pytest.mark.parametrize("name", SWITCHES)
def test_each_switch_alone_changes_the_picture(name):
    changed = augment(**{name: SWITCHES[name]})
    assert not torch.equal(changed, tensor(40))


@pytest.mark.parametrize("name", SWITCHES)
@pytest.mark.parametrize("size", [16, 33, 50])
def test_shape_and_type_are_kept(name, size):
    changed = augment(size, **{name: SWITCHES[name]})
    assert changed.shape == (3, size, size)
    assert changed.dtype == torch.uint8


@pytest.mark.parametrize(
    "name",
    ["crop_scale", "rotation", "color_jitter", "erasing", "low_resolution", "jpeg", "randaugment"],
)
def test_torchs_seed_decides_alone(name):
    settings = {name: SWITCHES[name]}
    random.seed(1)
    np.random.seed(1)
    assert torch.equal(augment(seed=3, **settings), augment(seed=3, **settings))
    assert not torch.equal(augment(seed=3, **settings), augment(seed=4, **settings))


def test_flip_mirrors():
    assert torch.equal(augment(flip=1.0), tensor(40).flip(-1))


def test_grayscale_makes_the_channels_equal():
    red, green, blue = augment(grayscale=1.0)
    assert torch.equal(red, green)
    assert torch.equal(red, blue)


def test_the_defaults_are_flip_and_crop():
    default = AugmentSettings()
    torch.manual_seed(5)
    expected = augmentation(default, 40)(tensor(40))
    assert torch.equal(augment(seed=5, flip=0.5, crop_scale=(0.8, 1.0)), expected)


@pytest.mark.parametrize("name", ["flip", "grayscale", "blur", "erasing", "low_resolution", "jpeg"])
def test_a_probability_is_how_often_it_happens(name):
    before = tensor(24)
    change = augmentation(AugmentSettings(**{**OFF, name: 0.5}), 24)
    torch.manual_seed(0)
    changed = sum(not torch.equal(change(before), before) for _ in range(60))
    assert 15 < changed < 45


# A tenth of a small side is less than the three pixels that a blur needs.


def test_blur_blurs_small_pictures():
    assert not torch.equal(augment(16, blur=1.0), tensor(16))


# What small pictures and messengers do


def pillow(pixels: torch.Tensor) -> Image.Image:
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def compressed(pixels: torch.Tensor, quality: int) -> torch.Tensor:
    """Pillow's JPEG of a picture."""
    file = io.BytesIO()
    pillow(pixels).save(file, "JPEG", quality=quality)
    return F.pil_to_tensor(Image.open(file))


def shrunk(pixels: torch.Tensor, side: int) -> torch.Tensor:
    """Pillow's smaller picture, enlarged again."""
    size, bilinear = pixels.shape[-1], Image.Resampling.BILINEAR
    small = pillow(pixels).resize((side, side), bilinear)
    return F.pil_to_tensor(small.resize((size, size), bilinear))


def nearest(changed: torch.Tensor, candidates: dict[int, torch.Tensor]) -> tuple[int, float]:
    """Which of some pictures is nearest, and by how many grey levels it differs in the mean."""
    distances = {
        key: float((changed.float() - other.float()).abs().mean())
        for key, other in candidates.items()
    }
    return min(distances.items(), key=lambda item: item[1])


def test_jpeg_is_pillows_at_every_quality_from_20_to_90():
    before = tensor(40)
    candidates = {quality: compressed(before, quality) for quality in range(1, 101)}
    change = augmentation(AugmentSettings(**{**OFF, "jpeg": 1.0}), 40)
    torch.manual_seed(0)
    found = [nearest(change(before), candidates) for _ in range(700)]
    assert max(distance for _, distance in found) < 0.5
    qualities = [quality for quality, _ in found]
    assert (min(qualities), max(qualities)) == (20, 90)
    assert len(set(qualities)) > 60


def test_low_resolution_leaves_a_quarter_to_all_of_the_side():
    before = tensor(64)
    candidates = {side: shrunk(before, side) for side in range(1, 65)}
    change = augmentation(AugmentSettings(**{**OFF, "low_resolution": 1.0}), 64)
    torch.manual_seed(0)
    found = [nearest(change(before), candidates) for _ in range(300)]
    assert max(distance for _, distance in found) < 1
    sides = np.array([side for side, _ in found])
    assert (sides.min(), sides.max()) == (16, 64)
    assert 0.4 < np.mean(sides < 32) < 0.6  # log-uniform: halves are as likely as quarters of them


def test_a_picture_is_compressed_after_it_lost_its_details():
    settings = {"blur": 1.0, "low_resolution": 1.0}
    before, changed = augment(seed=2, **settings), augment(seed=2, jpeg=1.0, **settings)
    _, distance = nearest(changed, {q: compressed(before, q) for q in range(20, 91)})
    assert distance < 0.5


def test_nothing_changes_an_erased_rectangle():
    settings = {"low_resolution": 1.0, "jpeg": 1.0}
    before, changed = augment(seed=1, **settings), augment(seed=1, erasing=1.0, **settings)
    erased = (changed != before).any(dim=0)
    rows, columns = erased.any(dim=1), erased.any(dim=0)
    assert erased.any()
    assert not changed[:, erased].any()
    assert (changed[:, rows][:, :, columns] == 0).all()


# RandAugment


def test_two_operations_are_one_after_the_other():
    one = augmentation(AugmentSettings(**{**OFF, "randaugment": 1}), 40)
    for seed in range(20):
        torch.manual_seed(seed)
        twice = one(one(tensor(40)))
        assert torch.equal(augment(seed=seed, randaugment=2), twice)


def test_randaugments_magnitude_is_the_strength():
    def change(magnitude):
        pictures = [
            augment(seed=seed, randaugment=1, randaugment_magnitude=magnitude).float()
            for seed in range(40)
        ]
        return np.mean([float((one - tensor(40)).abs().mean()) for one in pictures])

    assert change(0) < change(9) < change(30)
    default = [augment(seed=seed, randaugment=1) for seed in range(10)]
    nine = [augment(seed=seed, randaugment=1, randaugment_magnitude=9) for seed in range(10)]
    assert all(torch.equal(a, b) for a, b in zip(default, nine, strict=True))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("low_resolution", 1.5),
        ("jpeg", -0.1),
        ("randaugment", -1),
        ("randaugment_magnitude", 31),
        ("mixup", -0.2),
    ],
)
def test_impossible_values_are_refused(name, value):
    settings = TrainSettings(augment=AugmentSettings(**{name: value}))
    with pytest.raises(UserError, match=rf"^`augment\.{name}` {value}: must be "):
        check_settings(settings)
