"""Preprocessing is deterministic and shared; augmentation has a switch for each of its parts."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as F

from siamese.config import AugmentSettings
from siamese.data.transforms import Preprocess, augmentation

OFF = {
    "flip": 0.0,
    "crop_scale": None,
    "rotation": 0.0,
    "color_jitter": 0.0,
    "grayscale": 0.0,
    "blur": 0.0,
    "erasing": 0.0,
}
SWITCHES = {
    "flip": 1.0,
    "crop_scale": (0.4, 0.8),
    "rotation": 30.0,
    "color_jitter": 0.5,
    "grayscale": 1.0,
    "blur": 1.0,
    "erasing": 1.0,
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


@pytest.mark.parametrize("name", ["crop_scale", "rotation", "color_jitter", "erasing"])
def test_torchs_seed_decides_alone(name):
    settings = {name: SWITCHES[name]}
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


@pytest.mark.parametrize("name", ["flip", "grayscale", "blur", "erasing"])
def test_a_probability_is_how_often_it_happens(name):
    before = tensor(24)
    change = augmentation(AugmentSettings(**{**OFF, name: 0.5}), 24)
    torch.manual_seed(0)
    changed = sum(not torch.equal(change(before), before) for _ in range(60))
    assert 15 < changed < 45


# A tenth of a small side is less than the three pixels that a blur needs.


def test_blur_blurs_small_pictures():
    assert not torch.equal(augment(16, blur=1.0), tensor(16))
