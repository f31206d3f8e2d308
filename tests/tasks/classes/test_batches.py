"""The order of batches and its seeds, and batches of picture files from loader processes."""

import gc
import weakref
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from siamese.config import PictureSettings
from siamese.data.batches import RECALIBRATION, TRAINING
from siamese.data.loaders import Batch, training_loader
from siamese.errors import UserError
from siamese.tasks.classes.class_batches import (
    EpochOrder,
    FileBatches,
    batch_generator,
    judged_pictures,
    training_pictures,
)
from siamese.tasks.classes.class_sources import TrainingSource
from siamese.tasks.classes.datasets import PictureFolder, fit_square, scan_part

MEAN = (0.5, 0.5, 0.5)


def drawn(order: EpochOrder, epoch: int, first: int = 0) -> list[list[int]]:
    return [draws.images.tolist() for draws in order.batches(epoch, first)]


def test_an_epoch_sees_each_image_once() -> None:
    batches = drawn(EpochOrder(96, 8, seed=3), 0)
    assert [len(batch) for batch in batches] == [8] * 12
    assert sorted(chain.from_iterable(batches)) == list(range(96))


def test_the_last_batch_is_dropped_unless_it_is_the_only_one() -> None:
    assert [len(batch) for batch in drawn(EpochOrder(100, 8, seed=0), 0)] == [8] * 12
    assert [len(batch) for batch in drawn(EpochOrder(5, 8, seed=0), 0)] == [5]


def test_order_derives_from_seed_and_epoch_alone() -> None:
    order = EpochOrder(60, 10, seed=1)
    first = drawn(order, 4)
    torch.manual_seed(9)
    assert drawn(EpochOrder(60, 10, seed=1), 4) == first
    assert drawn(order, 4, first=2) == first[2:]
    assert [d.batch for d in order.batches(4, 2)] == [2, 3, 4, 5]
    others = [drawn(order, 3), drawn(order, 5), drawn(EpochOrder(60, 10, seed=2), 4)]
    # seed + epoch would make these two the same
    others += [drawn(EpochOrder(60, 10, seed=0), 5)]
    assert all(other != first for other in others)
    assert others[2] != others[1]


def test_repeated_augmentation() -> None:
    order = EpochOrder(100, 12, seed=0, repeats=3)
    batches = drawn(order, 0)
    assert len(order) == len(batches) == 8  # as many draws as images
    for batch in batches:
        assert len(batch) == 12
        assert set(Counter(batch).values()) == {3}
    everything = [set(batch) for batch in batches]
    assert len(set.union(*everything)) == 8 * 4  # no image in two batches
    # 2048 is no multiple of 3, yet the recipes want both.
    odd = drawn(EpochOrder(40, 8, seed=0, repeats=3), 0)
    assert [sorted(Counter(batch).values()) for batch in odd] == [[2, 3, 3]] * 5
    small = drawn(EpochOrder(7, 8, seed=0, repeats=3), 0)
    assert [sorted(Counter(batch).values()) for batch in small] == [[2, 2, 3]]


@pytest.mark.parametrize("repeats", [1, 2, 3])
def test_processes_share_the_batches_of_one(repeats: int) -> None:
    alone = EpochOrder(50, 12, seed=5, repeats=repeats)
    ranks = [
        EpochOrder(50, 12, seed=5, repeats=repeats, rank=rank, world_size=4) for rank in range(4)
    ]
    for whole, *parts in zip(alone.batches(2), *(order.batches(2) for order in ranks), strict=True):
        assert torch.cat([part.images for part in parts]).tolist() == whole.images.tolist()
        assert [len(part.images) for part in parts] == [3] * 4
        assert [part.first - whole.first for part in parts] == [0, 3, 6, 9]
    small = [EpochOrder(6, 8, seed=5, rank=rank, world_size=4) for rank in range(4)]
    shares = [next(order.batches(0)) for order in small]
    assert [len(share.images) for share in shares] == [1] * 4  # two images are left over
    assert len(set(torch.cat([share.images for share in shares]).tolist())) == 4
    assert [share.first for share in shares] == [0, 1, 2, 3]


def test_what_processes_cannot_share_is_refused() -> None:
    with pytest.raises(UserError, match=r"batches\.size` 10: must be a multiple of the 4"):
        EpochOrder(50, 10, seed=0, world_size=4)
    with pytest.raises(UserError, match="3 training images for 4 processes"):
        EpochOrder(3, 8, seed=0, world_size=4)


def test_recalibration_has_a_fixed_order_of_its_own() -> None:
    order = EpochOrder(20, 8, seed=0)
    first = [draws.images.tolist() for draws in order.recalibration(5)]
    assert first == [draws.images.tolist() for draws in order.recalibration(5)]
    assert [len(batch) for batch in first] == [8] * 5
    assert first[:2] not in (drawn(order, 0), drawn(order, 1))
    assert first[2:4] != first[:2]  # a second lap is another order
    assert [draws.batch for draws in order.recalibration(5)] == list(range(5))


def test_each_batch_has_a_generator_of_its_own() -> None:
    keys = [(s, e, b, r) for s in range(3) for e in range(3) for b in range(3) for r in range(2)]
    values = {
        float(torch.rand(1, generator=batch_generator(s, e, b, rank=r, purpose=purpose)))
        for s, e, b, r in keys
        for purpose in (TRAINING, RECALIBRATION)
    }
    assert len(values) == 2 * len(keys)
    again = batch_generator(2, 1, 0), batch_generator(2, 1, 0, "cpu")
    assert torch.equal(*(torch.rand(5, generator=generator) for generator in again))
    # Well mixed: uniform numbers of neighbouring batches are uniform, too.
    first = [float(torch.rand(1, generator=batch_generator(0, 0, batch))) for batch in range(400)]
    assert abs(np.mean(first) - 0.5) < 0.06
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.2
    state = torch.get_rng_state()
    batch_generator(1, 2, 3)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two parts of three classes; pictures of many sizes, one of them broken in each part."""
    root = tmp_path_factory.mktemp("pictures")
    numbers = np.random.default_rng(0)
    for part in ("train", "val"):
        for label, name in enumerate(("ant", "bee", "あり")):
            home = root / part / name
            home.mkdir(parents=True)
            for number in range(6):
                height, width = numbers.integers(20, 60, 2)
                pixels = numbers.integers(0, 80, (height, width, 3), dtype=np.uint8)
                pixels[..., label] += 150
                Image.fromarray(pixels).save(home / f"{number}.png")
        (root / part / "bee" / "2.png").write_bytes(b"no picture")
    return root


class Loaded:
    """Augmented batches of picture files in an order, as the task's source loads them."""

    def __init__(
        self, pictures: PictureFolder, order: EpochOrder, settings: PictureSettings, size: int,
        workers: int = 0,
    ):  # fmt: skip
        self.draws = FileBatches(order)
        made = training_pictures(pictures, settings, size, MEAN)
        self.loader = training_loader(made, self.draws, workers=workers, pin_memory=False)

    def batches(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        self.draws.start_epoch(epoch, first_batch)
        yield from self.loader

    def recalibration(self, batches: int) -> Iterator[Batch]:
        self.draws.start_recalibration(batches)
        yield from self.loader


def loaded(folder: Path, workers: int, rank: int = 0, world: int = 1) -> Loaded:
    pictures = scan_part(folder, "train")
    order = EpochOrder(len(pictures), 8, seed=1, rank=rank, world_size=world)
    settings = PictureSettings(crop=0, resized_crop=(0.3, 1.0), rand_augment="rand-m7-mstd0.5-inc1")
    return Loaded(pictures, order, settings, 16, workers)


def together(batches: list[Batch]) -> torch.Tensor:
    return torch.cat([batch.images for batch in batches])


def test_training_pictures_do_not_depend_on_the_number_of_workers(folder: Path) -> None:
    alone, two = loaded(folder, 0), loaded(folder, 2)
    state = torch.get_rng_state()
    for epoch in range(2):
        one, other = list(alone.batches(epoch)), list(two.batches(epoch))
        assert len(one) == len(other) == 2
        assert torch.equal(together(one), together(other))
        assert one[0].images.shape == (8, 3, 16, 16)
        assert one[0].images.dtype == torch.uint8
        for batch in one:
            # What is brightest tells the class; RandAugment may hide it here and there.
            seen = batch.images.float().mean(dim=(2, 3)).argmax(dim=1)
            assert (seen == batch.labels).float().mean() > 0.6
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(together(list(alone.batches(0))), together(list(alone.batches(1))))
    later = list(two.batches(0, first_batch=1))
    assert len(later) == 1
    assert torch.equal(later[0].images, list(alone.batches(0))[1].images)


def test_training_pictures_do_not_depend_on_the_number_of_processes(folder: Path) -> None:
    whole = list(loaded(folder, 0).batches(0))
    halves = [list(loaded(folder, 0, rank, 2).batches(0)) for rank in range(2)]
    for batch, first, second in zip(whole, *halves, strict=True):
        assert torch.equal(batch.images, torch.cat([first.images, second.images]))
        assert torch.equal(batch.labels, torch.cat([first.labels, second.labels]))


def test_a_broken_training_picture_gives_way_to_its_class(folder: Path) -> None:
    failed: list[tuple[str, str]] = []
    count = 0
    for epoch in range(3):
        for batch in loaded(folder, 0).batches(epoch):
            failed += batch.failed
            count += len(batch.labels)
    assert count == 3 * 16
    assert failed
    assert {path for path, _ in failed} == {"bee/2.png"}
    assert all("bee/2.png: cannot be decoded" in reason for _, reason in failed)


def test_a_batch_is_full_where_a_class_has_no_good_picture(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for name in ("a", "b", "c"):
            (tmp_path / part / name).mkdir(parents=True)
            Image.new("RGB", (20, 20), (9, 9, 9)).save(tmp_path / part / name / "1.png")
    (tmp_path / "train" / "c" / "1.png").write_bytes(b"broken")
    pictures = scan_part(tmp_path, "train")
    order, settings = EpochOrder(3, 3, seed=0), PictureSettings()

    def source() -> TrainingSource:
        return TrainingSource(
            pictures, order, settings, mean=MEAN, std=MEAN, size=20,
            device=torch.device("cpu"), workers=0,
        )  # fmt: skip

    for batch in chain(source().batches(0, 0), source().recalibration(2)):
        assert len(batch.images) == len(batch.labels) == 3
        assert set(batch.labels.tolist()) == {0, 1}
    for name in ("a", "b"):
        (tmp_path / "train" / name / "1.png").unlink()
    with pytest.raises(UserError, match="not one picture of a batch can be decoded"):
        next(source().batches(0, 0))


def test_recalibration_pictures_are_the_same_every_time(folder: Path) -> None:
    pictures = loaded(folder, 0)
    first = together(list(pictures.recalibration(3)))
    list(pictures.batches(2))
    assert torch.equal(first, together(list(pictures.recalibration(3))))
    assert len(first) == 24
    assert not torch.equal(first[:16], together(list(pictures.batches(0))))


@pytest.mark.parametrize("padding", ["zero", "reflect"])
def test_padded_crop_of_picture_files(folder: Path, padding: str) -> None:
    pictures = scan_part(folder, "train")
    order = EpochOrder(len(pictures), 18, seed=1)
    settings = PictureSettings(crop=4, crop_padding=padding)
    batch = next(Loaded(pictures, order, settings, 20).batches(0))
    assert batch.images.shape == (18, 3, 20, 20)
    dark = (batch.images.sum(dim=1) == 0).flatten(1).any(dim=1)
    assert bool(dark.any()) == (padding == "zero")


def test_judged_pictures_come_in_order_without_the_broken(folder: Path) -> None:
    pictures: PictureFolder = scan_part(folder, "test")
    for workers in (0, 2):
        batches = list(judged_pictures(pictures, 12, 0.8, batch_size=7, workers=workers))
        assert [len(batch.labels) for batch in batches] == [7, 6, 4]
        assert [path for batch in batches for path, _ in batch.failed] == ["bee/2.png"]
        good = [at for at, path in enumerate(pictures.paths) if path != "bee/2.png"]
        labels = torch.cat([batch.labels for batch in batches])
        assert torch.equal(labels, pictures.labels[good])
        for own, at in zip(together(batches), good, strict=True):
            picture = Image.open(pictures.root / pictures.paths[at])
            expected = np.asarray(fit_square(picture, 12, 0.8)).transpose(2, 0, 1)
            np.testing.assert_array_equal(own.numpy(), expected)


def test_loader_processes_end_with_their_owner(folder: Path) -> None:
    # In a circle of references the pipes may be closed first, and ending takes ten seconds.
    pictures = loaded(folder, 0)
    list(pictures.batches(0))
    owner, loader = weakref.ref(pictures), weakref.ref(pictures.loader)
    gc.disable()
    try:
        del pictures
        assert owner() is None
        assert loader() is None
    finally:
        gc.enable()
