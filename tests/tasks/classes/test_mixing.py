"""Mixed batches against the libraries and against loops over single images."""

import inspect
from itertools import pairwise
from unittest import mock

import numpy as np
import pytest
import torch
from scipy import stats
from timm.data import mixup as timms
from torchvision.transforms import v2

from siamese.config import PictureSettings
from siamese.tasks.classes import mixing
from siamese.tasks.classes.mixing import Mixed, augment_batch

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
CLASSES = 5


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(
    count: int = 10, height: int = 8, width: int = 8, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    source = generator(seed)
    shape = (count, 3, height, width)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=source)
    return images, torch.randint(0, CLASSES, (count,), generator=source)


def of(settings: PictureSettings, seed: int = 0, count: int = 10) -> Mixed:
    images, labels = batch(count)
    return augment_batch(images, labels, CLASSES, settings, MEAN, STD, generator(seed))


def alone(**options: object) -> PictureSettings:
    return PictureSettings(**{"crop": 0, "flip": 0.0, **options})


METHODS = {
    "none": alone(),
    "all but mixing": PictureSettings(cutout=4, erasing=0.5, crop=2),
    "mixup": alone(mixup=1.0),
    "cutmix": alone(cutmix=1.0),
    "alternated": alone(mixup=0.2, cutmix=1.0, cutmix_share=0.5),
    "ricap": alone(ricap=0.3),
    "ricap, crop": alone(ricap=0.3, crop=2),
    "dual cutout": alone(dual_cutout=0.1, cutout=4),
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_gives_a_proper_batch(name: str) -> None:
    for seed in range(20):
        mixed = of(METHODS[name], seed)
        assert mixed.images.dtype == mixed.targets.dtype == torch.float32
        assert mixed.images.shape == (10 * mixed.views, 3, 8, 8)
        assert mixed.targets.shape == (10, CLASSES)
        assert mixed.targets.min() >= 0
        sums = mixed.targets.double().sum(dim=1)
        torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-6)
        top = mixed.targets.max(dim=1).values
        assert torch.equal(mixed.targets.gather(1, mixed.labels[:, None]).squeeze(1), top)
        assert bool(mixed.images.isfinite().all())


@pytest.mark.parametrize("name", METHODS)
def test_the_generator_alone_decides(name: str) -> None:
    first = of(METHODS[name], 3)
    torch.manual_seed(11)
    np.random.seed(11)
    state = torch.get_rng_state()
    again, other = of(METHODS[name], 3), of(METHODS[name], 4)
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.targets, again.targets)
    assert torch.equal(torch.get_rng_state(), state)
    if name != "none":
        assert not torch.equal(first.images, other.images)


@pytest.mark.parametrize("alpha", [0.2, 0.5, 1.0, 2.0, 10.0])
def test_lambda_is_beta_distributed(alpha: float) -> None:
    drawn = mixing.symmetric_beta(alpha, 5000, generator())
    assert stats.kstest(drawn.numpy(), stats.beta(alpha, alpha).cdf).pvalue > 1e-3
    # Far from it, the test sees a difference.
    assert stats.kstest(drawn.numpy(), stats.beta(2 * alpha, alpha).cdf).pvalue < 1e-6


def test_extreme_alphas_give_numbers() -> None:
    for alpha in (1e-3, 0.05, 1e4):
        drawn = mixing.symmetric_beta(alpha, 2000, generator())
        assert bool(drawn.isfinite().all())
        assert drawn.min() >= 0
        assert drawn.max() <= 1
    assert abs(float(drawn.mean()) - 0.5) < 0.01


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_mixup_equals_the_libraries(share: float) -> None:
    images, labels = batch()
    pixels, targets = images.float(), mixing.one_hot(labels, CLASSES)
    own = torch.full((8, 8), share)
    mixed = mixing.blend(pixels, targets, own, torch.arange(9, -1, -1))
    theirs = timms.Mixup(mixup_alpha=1.0, label_smoothing=0, num_classes=CLASSES)
    with mock.patch.object(theirs, "_params_per_batch", return_value=(share, False)):
        for result, expected in zip(mixed, theirs(pixels.clone(), labels), strict=True):
            torch.testing.assert_close(result, expected)
    mixed = mixing.blend(pixels, targets, own, torch.arange(10).roll(1))
    torchvisions = v2.MixUp(num_classes=CLASSES)
    with mock.patch.object(torchvisions, "make_params", return_value={"lam": share}):
        for result, expected in zip(mixed, torchvisions(pixels, labels), strict=True):
            torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("shape", [(8, 8), (7, 12)])
def test_cutmix_equals_timms(shape: tuple[int, int]) -> None:
    images, labels = batch(10, *shape)
    pixels, targets = images.float(), mixing.one_hot(labels, CLASSES)
    theirs = timms.Mixup(mixup_alpha=0, cutmix_alpha=1.0, label_smoothing=0, num_classes=CLASSES)
    shares = set()
    for seed in range(60):
        numbers = np.random.default_rng(seed)
        share = float(numbers.beta(0.7, 0.7))
        centre = numbers.integers(0, shape)
        with (
            mock.patch.object(theirs, "_params_per_batch", return_value=(share, True)),
            mock.patch.object(np.random, "randint", side_effect=list(centre)),
        ):
            expected_images, expected_targets = theirs(pixels.clone(), labels)
        at = (torch.as_tensor(centre) + 0.5) / torch.tensor(shape)
        kept = mixing.cutmix_mask(torch.tensor([share], dtype=torch.float64), at, shape)
        mixed, mixed_targets = mixing.blend(pixels, targets, kept, torch.arange(9, -1, -1))
        assert torch.equal(mixed, expected_images)
        torch.testing.assert_close(mixed_targets, expected_targets)
        shares.add(round(float(kept.mean()), 3))
    assert len(shares) > 10


def _taken_from(mixed: torch.Tensor) -> list[np.ndarray]:
    """Of images that hold their own number everywhere: the numbers, image by image."""
    return [image[0].round().int().numpy() for image in mixed]


@pytest.mark.parametrize("method", ["cutmix", "ricap"])
def test_targets_are_the_shares_of_the_pixels(method: str) -> None:
    count = 7
    images = torch.arange(count, dtype=torch.float32)[:, None, None, None].expand(count, 3, 9, 11)
    targets = torch.eye(count)  # every image a class of its own
    clipped = 0
    for seed in range(40):
        if method == "ricap":
            mixed, shares = mixing.ricap(images, targets, 0.5, generator(seed))
        else:
            mixed, shares = mixing.mixup_or_cutmix(images, targets, 0, 1.0, None, generator(seed))
        for numbers, own in zip(_taken_from(mixed), shares, strict=True):
            expected = np.bincount(numbers.ravel(), minlength=count) / 99
            np.testing.assert_allclose(own.numpy(), expected, atol=1e-6)
            clipped += int(0 < expected.max() < 1)
    assert clipped > 50


def test_cutmix_without_mixup_never_blends_pixels() -> None:
    mixed = of(alone(cutmix=1.0), 1)
    plain = of(alone(), 1)
    values = plain.images.flatten(2).permute(2, 1, 0)  # (pixels, channels, images)
    for image in mixed.images:
        for at, pixel in enumerate(image.flatten(1).T):
            assert bool((values[at] == pixel[:, None]).all(dim=0).any())


@pytest.mark.parametrize("share", [0.25, 0.75])
def test_cutmix_share_is_the_share_of_the_batches(share: float) -> None:
    images, targets = torch.eye(4).view(4, 1, 2, 2).repeat(1, 1, 4, 4), torch.eye(4)
    cut = 0
    for seed in range(400):
        mixed, _ = mixing.mixup_or_cutmix(images, targets, 5.0, 1.0, share, generator(seed))
        cut += bool(((mixed == 0) | (mixed == 1)).all())  # alpha 5 blends visibly
    assert abs(cut / 400 - share) < 0.09


def test_ricap_equals_a_loop_over_images() -> None:
    numbers = np.random.default_rng(0)
    images = numbers.normal(size=(6, 3, 9, 7)).astype(np.float32)
    targets = np.eye(6, CLASSES, dtype=np.float32) + np.eye(6, CLASSES, k=-5, dtype=np.float32)
    for row, column in ((0, 0), (9, 7), (4, 3), (1, 7), (0, 5), (8, 6)):
        heights, widths = [row, row, 9 - row, 9 - row], [column, 7 - column, column, 7 - column]
        corners = [
            [numbers.integers(0, 9 - h + 1), numbers.integers(0, 7 - w + 1)]
            for h, w in zip(heights, widths, strict=True)
        ]
        partners = np.stack([numbers.permutation(6) for _ in range(4)])
        expected = np.zeros_like(images)
        expected_targets = np.zeros((6, CLASSES))
        for image in range(6):
            pieces = []
            for part in range(4):
                source = images[partners[part, image]]
                y, x = corners[part]
                pieces.append(source[:, y : y + heights[part], x : x + widths[part]])
                area = heights[part] * widths[part] / 63
                expected_targets[image] += area * targets[partners[part, image]]
            upper = np.concatenate(pieces[:2], axis=2)
            lower = np.concatenate(pieces[2:], axis=2)
            expected[image] = np.concatenate([upper, lower], axis=1)
        mixed, mixed_targets = mixing.patch(
            torch.from_numpy(images),
            torch.from_numpy(targets),
            torch.tensor([row, column]),
            torch.tensor(corners),
            torch.from_numpy(partners),
        )
        np.testing.assert_array_equal(mixed.numpy(), expected)
        np.testing.assert_allclose(mixed_targets.numpy(), expected_targets, atol=1e-6)


def test_ricaps_meeting_point_follows_beta() -> None:
    images, targets = torch.zeros(4, 1, 20, 20), torch.eye(4)
    points = []
    with mock.patch.object(mixing, "patch", side_effect=lambda *given: points.append(given[2:4])):
        for seed in range(400):
            mixing.ricap(images, targets, 0.3, generator(seed))
    meeting = np.stack([point.numpy() for point, _ in points])
    corners = np.stack([corner.numpy() for _, corner in points])
    for axis in range(2):
        expected = np.round(20 * stats.beta(0.3, 0.3).rvs(4000, random_state=axis))
        for value in (0, 5, 10, 15, 19):
            own, theirs = (meeting[:, axis] <= value).mean(), (expected <= value).mean()
            assert abs(own - theirs) < 0.09
    high = np.stack([meeting[:, 0]] * 2 + [20 - meeting[:, 0]] * 2, axis=1)
    assert (corners[:, :, 0] <= 20 - high).all()
    assert (corners[:, :, 0] == 20 - high).any()
    assert corners.min() == 0


def test_dual_cutout_is_two_cutouts_of_the_same_crops() -> None:
    images, labels = batch(40, 16, 16)
    images = images.clamp(min=1)  # so that only a hole is 0 after the mean below
    settings = PictureSettings(crop=0, cutout=6, dual_cutout=0.1)
    mixed = augment_batch(images, labels, CLASSES, settings, (0.0,) * 3, STD, generator())
    assert mixed.views == 2
    assert torch.equal(mixed.labels, labels)
    first, second = mixed.images.chunk(2)
    holes = (first == 0), (second == 0)
    seen = ~holes[0] & ~holes[1]
    assert torch.equal(first[seen], second[seen])
    assert (holes[0] != holes[1]).flatten(1).any(dim=1).float().mean() > 0.9


def test_cutout_and_erasing_come_after_normalisation() -> None:
    images, labels = batch(200, 16, 16)
    settings = alone(cutout=8, cutout_edge="inside")
    mixed = augment_batch(images, labels, CLASSES, settings, (0.31,) * 3, STD, generator())
    # 0 is the mean, which no pixel of 8 bits normalises to here.
    assert ((mixed.images == 0).flatten(1).sum(dim=1) == 3 * 64).all()


def test_parts_for_ghost_batches_keep_views_together() -> None:
    images = torch.arange(14, dtype=torch.float32).view(14, 1, 1, 1)
    mixed = Mixed(images, torch.eye(7), torch.arange(7), views=2)
    parts = mixed.split(3)
    assert [len(part.labels) for part in parts] == [3, 4]  # not 3, 3, 1
    assert parts[0].images.flatten().tolist() == [0, 1, 2, 7, 8, 9]
    assert parts[1].images.flatten().tolist() == [3, 4, 5, 6, 10, 11, 12, 13]
    assert parts[1].labels.tolist() == [3, 4, 5, 6]
    assert all(part.views == 2 for part in parts)
    single = of(alone(), count=10)
    sizes = [len(part.labels) for part in single.split(4)]
    assert sizes == [4, 4, 2]
    assert len(single.split(10)) == len(single.split(99)) == 1
    rejoined = torch.cat([part.images for part in single.split(4)])
    assert torch.equal(rejoined, single.images)


def test_test_images_are_only_normalised() -> None:
    images, _ = batch()
    plain = mixing.prepare_test(images, MEAN, STD)
    torch.testing.assert_close(plain * 0.25 + 0.5, images / 255, rtol=0, atol=1e-6)
    assert mixing.prepare_test(images, MEAN, STD, 5).shape == (10, 3, 5, 5)
    assert torch.equal(mixing.prepare_test(images, MEAN, STD, 8), plain)


def test_halves_make_the_whole() -> None:
    # What loader processes leave to the device is mix_batch's, with the same arguments.
    settings = alone(cutout=4, cutmix=1.0)
    images, labels = batch()
    whole = augment_batch(images, labels, CLASSES, settings, MEAN, STD, generator(5))
    half = mixing.mix_batch(images, labels, CLASSES, settings, MEAN, STD, generator(5))
    assert torch.equal(whole.images, half.images)
    names = list(inspect.signature(mixing.mix_batch).parameters)
    assert all(a != b for a, b in pairwise(names))
    assert list(inspect.signature(augment_batch).parameters)[: len(names)] == names
