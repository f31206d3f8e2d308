"""Augmentation in batches against loops over single images, and against the libraries."""

import math
import random

import numpy as np
import pytest
import torch
from timm.data.auto_augment import rand_augment_transform
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from siamese.config import PictureSettings
from siamese.errors import UserError
from siamese.tasks.classes import augment

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(
    count: int = 12, channels: int = 3, height: int = 10, width: int = 14, seed: int = 0
) -> torch.Tensor:
    shape = (count, channels, height, width)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator(seed))


@pytest.mark.parametrize(("mode", "numpys"), [("zero", "constant"), ("reflect", "reflect")])
@pytest.mark.parametrize("channels", [1, 3])
def test_crop_is_a_window_of_the_padded_image(mode: str, numpys: str, channels: int) -> None:
    images, padding = pictures(60, channels), 3
    top = torch.randint(0, 2 * padding + 1, (60,), generator=generator(1))
    left = torch.randint(0, 2 * padding + 1, (60,), generator=generator(2))
    result = augment.crop_at(images, top, left, padding, mode)
    for image, y, x, own in zip(images.numpy(), top, left, result.numpy(), strict=True):
        padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)), mode=numpys)
        np.testing.assert_array_equal(own, padded[:, y : y + 10, x : x + 14])


def test_random_crop_draws_every_offset_of_each_image_alike() -> None:
    marked = torch.zeros(4000, 1, 5, 5, dtype=torch.uint8)
    marked[:, 0, 2, 2] = 1  # the one pixel tells the offset
    moved = augment.random_crop(marked, 2, "zero", generator()).flatten(1)
    assert moved.sum(dim=1).eq(1).all()
    counts = torch.bincount(moved.argmax(dim=1), minlength=25)
    assert counts.min() > 100  # 160 expected, deviation 12.4
    assert counts.max() < 220


def test_wide_reflection_is_refused() -> None:
    with pytest.raises(UserError, match=r"augment\.crop` 10: .*reflects at most 9"):
        augment.random_crop(pictures(), 10, "reflect", generator())


def test_flip_mirrors_the_share_asked_for() -> None:
    images = pictures(2000, height=3, width=4)
    flipped = augment.random_flip(images, 0.25, generator())
    mirrored = (flipped == images.flip(3)).flatten(1).all(dim=1)
    kept = (flipped == images).flatten(1).all(dim=1)
    assert (mirrored ^ kept).all()
    assert 0.2 < mirrored.float().mean() < 0.3
    assert torch.equal(augment.random_flip(images, 1.0, generator()), images.flip(3))


@pytest.mark.parametrize("size", [5, 10, 23])
def test_resized_crop_equals_torchvisions(size: int) -> None:
    images = pictures(40, height=17, width=20)
    random_numbers = np.random.default_rng(0)
    height, width = random_numbers.integers(1, 18, 40), random_numbers.integers(1, 21, 40)
    top, left = random_numbers.integers(0, 18 - height), random_numbers.integers(0, 21 - width)
    boxes = [torch.as_tensor(values) for values in (top, left, height, width)]
    result = augment.resized_crop(images, *boxes, size)
    for image, own, *box in zip(images, result, *boxes, strict=True):
        y, x, h, w = map(int, box)
        theirs = functional.resized_crop(image.float(), y, x, h, w, [size, size], antialias=True)
        assert (own.float() - theirs).abs().max() <= 0.501  # rounded to whole values


def test_random_resized_crop_draws_as_torchvision_does(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes: list[torch.Tensor] = []
    monkeypatch.setattr(augment, "resized_crop", lambda images, *given: boxes.extend(given[:4]))
    images = pictures(1, height=64, width=48).expand(4000, 3, 64, 48)
    augment.random_resized_crop(images, 2, (0.2, 0.8), generator())
    top, left, high, wide = (box.double() for box in boxes)
    torch.manual_seed(0)
    theirs = v2.RandomResizedCrop(2, (0.2, 0.8))
    drawn = [theirs.make_params([images[0]]) for _ in range(4000)]
    names = ("top", "left", "height", "width")
    y, x, h, w = (torch.tensor([p[name] for p in drawn]).double() for name in names)
    for own, other in ((top, y), (left, x), (high * wide, h * w), (wide / high, w / h)):
        spread = float(other.max() - other.min())
        for share in (0.05, 0.25, 0.5, 0.75, 0.95):
            assert abs(own.quantile(share) - other.quantile(share)) < 0.05 * spread
        assert abs(own.min() - other.min()) < 0.05 * spread
        assert abs(own.max() - other.max()) < 0.05 * spread


def test_narrow_images_fall_back_to_the_centre() -> None:
    images = pictures(6, height=4, width=64)  # no rectangle of this area and ratio fits
    cut = augment.random_resized_crop(images, 4, (0.9, 1.0), generator())
    assert cut.shape == (6, 3, 4, 4)
    left = (64 - round(4 * 4 / 3)) // 2
    for image, own in zip(images, cut, strict=True):
        theirs = functional.resized_crop(image.float(), 0, left, 4, 5, [4, 4], antialias=True)
        assert (own.float() - theirs).abs().max() <= 0.501


@pytest.mark.parametrize("channels", [1, 3])
def test_rand_augment_is_timms(channels: int) -> None:
    images, notation = pictures(20, channels, 24, 24), "rand-m9-mstd0.5-inc1"
    mean = MEAN[:channels]
    result = augment.rand_augment(images, notation, mean, generator(3))
    seeds = torch.randint(2**62, (20,), generator=generator(3)).tolist()
    fill = tuple(round(255 * value) for value in mean)
    options = {"translate_const": int(24 * 0.45), "img_mean": fill if channels == 3 else fill[0]}
    theirs = rand_augment_transform(notation, options)
    for image, own, seed in zip(images, result, seeds, strict=True):
        random.seed(seed)
        np.random.seed(seed % 2**32)
        expected = functional.pil_to_tensor(theirs(functional.to_pil_image(image)))
        assert torch.equal(own, expected)
    assert not torch.equal(result, images)


def test_rand_augment_leaves_the_global_generators_alone() -> None:
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    augment.rand_augment(pictures(4), "rand-m9-mstd0.5-inc1", MEAN, generator())
    assert random.getstate() == before[0]
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])
    assert torch.equal(torch.get_rng_state(), before[2])


@pytest.mark.parametrize("notation", ["randm9", "rand-x9", "augmix-m3", "rand-mnine"])
def test_unknown_rand_augment_is_refused(notation: str) -> None:
    with pytest.raises(UserError, match=f"augment.rand_augment` {notation}: "):
        augment.rand_augment(pictures(2), notation, MEAN, generator())


def test_normalise() -> None:
    images = pictures()
    expected = (images.double() / 255 - torch.tensor(MEAN, dtype=torch.float64).view(3, 1, 1)) / (
        torch.tensor(STD, dtype=torch.float64).view(3, 1, 1)
    )
    result = augment.normalise(images, MEAN, STD)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=1e-6)


def _holes(result: torch.Tensor) -> list[tuple[int, int, int, int]]:
    """Top, bottom, left, right of each image's zeros, which must be one rectangle in all channels.

    An image without zeros gives (0, 0, 0, 0).
    """
    found = []
    for image in result:
        zero = (image == 0).numpy()
        assert (zero == zero[:1]).all()
        rows, columns = zero[0].any(axis=1).nonzero()[0], zero[0].any(axis=0).nonzero()[0]
        if len(rows) == 0:
            found.append((0, 0, 0, 0))
            continue
        box = (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1)
        assert zero[0][box[0] : box[1], box[2] : box[3]].all()
        found.append(tuple(int(value) for value in box))
    return found


@pytest.mark.parametrize("size", [3, 4])
def test_clipped_cutout_equals_the_papers_rule(size: int) -> None:
    # The paper's code: a pixel of the image is the centre, the square's sides are clipped.
    images = torch.ones(3000, 2, 6, 7)
    result = augment.cutout(images, size, "clipped", generator())
    holes = _holes(result)
    allowed = {
        (
            max(y - size // 2, 0),
            min(y - size // 2 + size, 6),
            max(x - size // 2, 0),
            min(x - size // 2 + size, 7),
        ): 0
        for y in range(6)
        for x in range(7)
    }
    assert set(holes) == set(allowed)  # each of the 42 centres occurs
    counts = [holes.count(box) for box in allowed]
    assert min(counts) > 30  # 71 expected
    assert max(counts) < 120
    kept = torch.ones_like(images)
    for own, (top, bottom, left, right) in zip(kept, holes, strict=True):
        own[:, top:bottom, left:right] = 0
    assert torch.equal(result, kept)
    assert images.min() == 1  # not in place


def test_inside_cutout_is_always_whole() -> None:
    holes = _holes(augment.cutout(torch.ones(2000, 3, 6, 8), 4, "inside", generator()))
    assert {(b - t, r - le) for t, b, le, r in holes} == {(4, 4)}
    assert {(t, le) for t, _, le, _ in holes} == {(y, x) for y in range(3) for x in range(5)}
    with pytest.raises(UserError, match=r"augment\.cutout` 7: no such square"):
        augment.cutout(torch.ones(2, 3, 6, 8), 7, "inside", generator())


def test_cutout_as_large_as_it_gets_blanks_all() -> None:
    assert augment.cutout(torch.ones(20, 3, 6, 6), 12, "clipped", generator()).sum() == 0


def test_random_erasing_draws_as_the_libraries_do() -> None:
    side = 32
    images = torch.ones(4000, 1, side, side)
    holes = _holes(augment.random_erasing(images, 0.5, generator()))
    erased = [(b - t, r - le) for t, b, le, r in holes if b]
    assert 0.45 < len(erased) / 4000 < 0.55
    torch.manual_seed(0)
    theirs = v2.RandomErasing(1.0, scale=(0.02, 0.4), ratio=(0.3, 1 / 0.3))
    expected = [theirs.make_params([images[0]]) for _ in range(2000)]
    for own, other in (
        (np.array([h * w for h, w in erased]), np.array([p["h"] * p["w"] for p in expected])),
        (
            np.log([h / w for h, w in erased]),
            np.log([p["h"] / p["w"] for p in expected]),
        ),
    ):
        spread = np.ptp(other)
        for share in (0.1, 0.3, 0.5, 0.7, 0.9):
            assert abs(np.quantile(own, share) - np.quantile(other, share)) < 0.06 * spread
    assert min(h * w for h, w in erased) >= 0.01 * side**2
    assert max(h * w for h, w in erased) <= 0.42 * side**2
    tops = {t for t, b, _, _ in holes if b}
    assert max(tops) > side // 2  # they lie anywhere


def test_random_erasing_fills_the_libraries_rectangle() -> None:
    images = torch.randn(5, 3, 9, 9, generator=generator())
    box = {"i": 2, "j": 3, "h": 4, "w": 5}
    theirs = functional.erase(images, **box, v=torch.zeros(1))
    ends = [torch.full((5,), value) for value in (2, 3, 6, 8)]
    assert torch.equal(augment.blank(images, *ends), theirs)


def test_everything_at_once_is_a_function_of_the_generator() -> None:
    settings = PictureSettings(rand_augment="rand-m5-n1", crop=2, crop_padding="reflect")
    images = pictures(8, height=16, width=16)
    first = augment.augment_pixels(images, settings, MEAN, generator(7))
    torch.manual_seed(1)
    random.seed(2)
    again = augment.augment_pixels(images, settings, MEAN, generator(7))
    other = augment.augment_pixels(images, settings, MEAN, generator(8))
    assert first.dtype == torch.uint8
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_nothing_on_changes_nothing() -> None:
    images = pictures(8, height=16, width=16)
    settings = PictureSettings(crop=0, flip=0)
    assert torch.equal(augment.augment_pixels(images, settings, MEAN, generator()), images)


@pytest.mark.parametrize("scale", [None, (0.5, 1.0)])
def test_size_is_the_results_side(scale: tuple[float, float] | None) -> None:
    settings = PictureSettings(crop=0 if scale else 2, resized_crop=scale)
    result = augment.augment_pixels(
        pictures(4, height=16, width=16), settings, MEAN, generator(), size=11
    )
    assert result.shape == (4, 3, 11, 11)
    assert math.isfinite(float(result.float().mean()))
