"""Batches: P x K draws that depend on seed and epoch alone, pictures that fail, plain order."""

import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_metric_learning.utils import common_functions

from siamese.config import AugmentSettings
from siamese.data.batches import (
    Batch,
    Pictures,
    PKBatches,
    SampledBatches,
    default_workers,
    derive_seed,
    evaluation_loader,
    face_pictures,
    thumbnail,
    training_loader,
)
from siamese.data.folder import FaceFolder, scan_folder
from siamese.data.transforms import Preprocess, augmentation
from siamese.errors import UserError, lack
from tests.runs import full_disk

SIZE = 16


def labels_of(*counts: int) -> list[int]:
    return [label for label, count in enumerate(counts) for _ in range(count)]


def pictures_drawn(batches: PKBatches) -> list[list[int]]:
    return [[draw.picture for draw in batch] for batch in batches]


def scan(root: Path) -> FaceFolder:
    return scan_folder(root, progress=False)


def truncate(path: Path) -> None:
    """Leave the header whole, so that only decoding finds the damage."""
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:6000])


def training_pictures(folder: FaceFolder, **augment) -> Pictures:
    settings = AugmentSettings(**augment)
    return face_pictures(
        folder, Preprocess(SIZE, "squash"), SIZE, augment=augmentation(settings, SIZE)
    )


def train_batches(
    folder: FaceFolder, *, workers: int = 0, people: int = 3, images: int = 2, epoch: int = 0
) -> list[Batch]:
    batches = PKBatches(folder.labels, people, images, seed=7)
    batches.start_epoch(epoch)
    loader = training_loader(training_pictures(folder), batches, workers=workers, pin_memory=False)
    return list(loader)


def evaluation_batches(folder: FaceFolder, *, workers: int = 0, batch_size: int = 5) -> list[Batch]:
    return list(
        evaluation_loader(
            folder, Preprocess(SIZE, "squash"), SIZE, batch_size=batch_size, workers=workers
        )
    )


# What a batch holds


@pytest.mark.parametrize(("people", "images"), [(2, 2), (3, 4), (5, 2), (8, 3)])
def test_every_batch_holds_p_people_with_k_pictures(people, images):
    labels = np.array(labels_of(*range(4, 14)))
    batches = PKBatches(labels.tolist(), people, images)
    drawn = pictures_drawn(batches)
    assert len(drawn) == len(batches) == len(labels) // (people * images)
    for batch in drawn:
        counts = Counter(labels[batch].tolist())
        assert len(counts) == people
        assert set(counts.values()) == {images}


def test_no_picture_stands_twice_in_a_batch_where_people_have_enough():
    for batch in pictures_drawn(PKBatches(labels_of(*[6] * 10), 4, 6)):
        assert len(set(batch)) == len(batch)


def test_people_with_fewer_pictures_fill_their_share():
    labels = np.array(labels_of(2, 3, 9, 9))
    for batch in pictures_drawn(PKBatches(labels.tolist(), 4, 4, images_per_epoch=160)):
        assert Counter(labels[batch].tolist()) == dict.fromkeys(range(4), 4)


def test_people_with_one_picture_are_never_drawn():
    labels = np.array(labels_of(1, 5, 1, 5, 5, 1))
    drawn = pictures_drawn(PKBatches(labels.tolist(), 3, 2, images_per_epoch=600))
    assert {int(label) for batch in drawn for label in labels[batch]} == {1, 3, 4}


def test_with_fewer_people_than_p_a_batch_holds_all_of_them():
    labels = np.array(labels_of(4, 4, 4))
    batches = PKBatches(labels.tolist(), 8, 2)
    assert (batches.people, batches.batch_size) == (3, 6)
    assert all(set(labels[batch].tolist()) == {0, 1, 2} for batch in pictures_drawn(batches))


def test_everybody_is_drawn_about_equally_often():
    labels = np.array(labels_of(3, 30, 12, 5, 7, 90))
    drawn = pictures_drawn(PKBatches(labels.tolist(), 2, 2, images_per_epoch=2400))
    counts = Counter(label for batch in drawn for label in labels[batch].tolist())
    assert min(counts.values()) > 0.7 * 400
    assert len({picture for batch in drawn for picture in batch}) == len(labels)


@pytest.mark.parametrize("counts", [(5,), (5, 1, 1), (1, 1, 1)])
def test_fewer_than_two_people_with_two_pictures_are_refused(counts):
    with pytest.raises(UserError, match="at least two people with two pictures each"):
        PKBatches(labels_of(*counts), 4, 2)


@pytest.mark.parametrize(
    ("images_per_epoch", "batches"), [(None, 5), (8, 1), (15, 1), (16, 2), (3, 1), (4000, 500)]
)
def test_the_length_of_an_epoch_is_rounded_down_to_batches(images_per_epoch, batches):
    found = PKBatches(labels_of(*[7] * 6), 4, 2, images_per_epoch)
    assert found.batches_per_epoch == len(pictures_drawn(found)) == batches


# Order


def sampler(seed: int = 1, epoch: int = 0, first_batch: int = 0) -> PKBatches:
    batches = PKBatches(labels_of(*[8] * 9), 3, 2, seed=seed)
    batches.start_epoch(epoch, first_batch)
    return batches


def test_the_order_depends_on_seed_and_epoch():
    orders = {(s, e): pictures_drawn(sampler(s, e)) for s in (0, 1, 2) for e in (0, 1, 2)}
    assert len({str(order) for order in orders.values()}) == 9
    assert pictures_drawn(sampler(2, 1)) == orders[2, 1]


def test_the_order_does_not_depend_on_what_was_drawn_before():
    used = sampler(epoch=0)
    list(used)
    used.start_recalibration(4)
    list(used)
    used.start_epoch(3)
    assert list(used) == list(sampler(epoch=3))
    assert list(used) == list(sampler(epoch=3))


def set_random_states(seed: int) -> None:
    np.random.seed(seed)
    torch.manual_seed(seed)
    common_functions.NUMPY_RANDOM = np.random.RandomState(seed)


def random_states() -> list[object]:
    pml = common_functions.NUMPY_RANDOM.get_state()
    return [str(np.random.get_state()), str(pml), torch.get_rng_state().tolist()]


@pytest.fixture
def _pml_generator(monkeypatch):
    monkeypatch.setattr(common_functions, "NUMPY_RANDOM", common_functions.NUMPY_RANDOM)


@pytest.mark.usefixtures("_pml_generator")
def test_global_random_states_neither_matter_nor_move():
    orders = []
    for seed in (1, 2):
        set_random_states(seed)
        before = random_states()
        orders.append(list(sampler()))
        assert random_states() == before
    assert orders[0] == orders[1]


@pytest.mark.usefixtures("_pml_generator")
@pytest.mark.parametrize("workers", [0, 1])
def test_loading_moves_no_random_state(face_folder, workers):
    set_random_states(5)
    before = random_states()
    train_batches(scan(face_folder), workers=workers)
    evaluation_batches(scan(face_folder), workers=workers)
    assert random_states() == before


@pytest.mark.parametrize("first", [0, 1, 4, 12])
def test_a_later_first_batch_gives_the_tail_of_the_epoch(first):
    assert list(sampler(epoch=2, first_batch=first)) == list(sampler(epoch=2))[first:]


def test_each_draw_has_a_random_stream_of_its_own():
    seeds = [draw.seed for e in (0, 1) for batch in sampler(epoch=e) for draw in batch]
    assert len(set(seeds)) == len(seeds)


def test_recalibration_draws_are_fixed_and_unlike_the_training_draws():
    training, batches = list(sampler()), sampler()
    batches.start_recalibration(5)
    drawn = list(batches)
    assert len(drawn) == 5
    batches.start_epoch(4)
    batches.start_recalibration(5)
    assert list(batches) == drawn
    assert [[d.picture for d in b] for b in drawn] != [[d.picture for d in b] for b in training[:5]]
    keys = [{draw.seed for batch in part for draw in batch} for part in (drawn, training)]
    assert not keys[0] & keys[1]


def test_derived_seeds_of_nearby_parts_differ():
    seeds = [derive_seed(a, b, c) for a in range(6) for b in range(6) for c in range(6)]
    assert len(set(seeds)) == 216
    assert all(0 <= seed < 2**63 for seed in seeds)


# Pixels


def assert_equal_batches(one: list[Batch], other: list[Batch]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.labels, b.labels)
        assert torch.equal(a.indices, b.indices)
        assert a.failed == b.failed


def test_pixels_do_not_depend_on_the_number_of_workers(face_folder):
    truncate(face_folder / "Ann" / "1.png")
    folder = scan(face_folder)
    assert_equal_batches(train_batches(folder, workers=0), train_batches(folder, workers=2))
    assert_equal_batches(
        evaluation_batches(folder, workers=0), evaluation_batches(folder, workers=2)
    )


def test_a_training_batch(face_folder):
    folder = scan(face_folder)
    first = train_batches(folder)[0]
    assert first.images.shape == (6, 3, SIZE, SIZE)
    assert first.images.dtype == torch.uint8
    assert first.labels.tolist() == [folder.labels[at] for at in first.indices]
    assert first.failed == []


def test_a_picture_drawn_again_is_augmented_differently(face_folder):
    pictures = training_pictures(scan(face_folder))
    batches = PKBatches(pictures.labels, 2, 2, seed=7)
    first, second = next(iter(batches))[:2]
    again = first._replace(seed=second.seed)
    assert torch.equal(pictures[first].image, pictures[first].image)
    assert not torch.equal(pictures[first].image, pictures[again].image)


def test_evaluation_gives_every_picture_in_order_unaugmented(face_folder):
    folder = scan(face_folder)
    batches = evaluation_batches(folder)
    assert [len(batch.labels) for batch in batches] == [5] * 7 + [1]
    assert torch.cat([batch.indices for batch in batches]).tolist() == list(range(36))
    assert torch.cat([batch.labels for batch in batches]).tolist() == list(folder.labels)
    prepare = Preprocess(SIZE, "squash")
    with Image.open(face_folder / folder.paths[7]) as image:
        assert torch.equal(batches[1].images[2], prepare(image))


# Pictures that fail to decode


def test_in_training_another_picture_of_the_person_takes_the_place(face_folder):
    truncate(face_folder / "Ann" / "1.png")
    folder = scan(face_folder)
    broken = folder.paths.index("Ann/1.png")
    pictures = training_pictures(folder, flip=0.0, crop_scale=None)
    batches = PKBatches(folder.labels, 6, 6)
    loaded = list(training_loader(pictures, batches, workers=0, pin_memory=False))
    for drawn, batch in zip(pictures_drawn(batches), loaded, strict=True):
        assert len(batch.labels) == 36
        assert broken in drawn
        assert broken not in batch.indices
        assert [folder.labels[at] for at in batch.indices] == batch.labels.tolist()
        assert batch.labels.tolist() == [folder.labels[at] for at in drawn]
        assert len(batch.failed) == 1
        path, reason = batch.failed[0]
        assert path == "Ann/1.png"
        assert "cannot be decoded" in reason
        clean = evaluation_batches(folder, batch_size=36)[0]
        shown = dict(zip(clean.indices.tolist(), clean.images, strict=True))
        for at, image in zip(batch.indices.tolist(), batch.images, strict=True):
            assert torch.equal(image, shown[at])


def test_a_person_without_a_whole_picture_is_not_in_the_batch(face_folder):
    for picture in (face_folder / "Ann").iterdir():
        truncate(picture)
    folder = scan(face_folder)
    batch = train_batches(folder, people=6, images=2)[0]
    assert len(batch.labels) == len(batch.images) == 10
    assert folder.names.index("Ann") not in batch.labels
    assert {path for path, _ in batch.failed} == {f"Ann/{i}.png" for i in range(6)}


def test_in_evaluation_a_broken_picture_is_left_out_and_reported(face_folder):
    truncate(face_folder / "Ann" / "1.png")
    folder = scan(face_folder)
    broken = folder.paths.index("Ann/1.png")
    batches = evaluation_batches(folder)
    indices = torch.cat([batch.indices for batch in batches]).tolist()
    assert indices == [at for at in range(36) if at != broken]
    assert [path for batch in batches for path, _ in batch.failed] == ["Ann/1.png"]


def test_a_batch_may_be_empty(face_folder):
    for person in face_folder.iterdir():
        for picture in person.iterdir():
            truncate(picture)
    folder = scan(face_folder)
    for batch in (*train_batches(folder), *evaluation_batches(folder)):
        assert len(batch.images) == len(batch.labels) == len(batch.indices) == 0
        assert batch.images.shape[1] == 3
        assert batch.failed


# Odds and ends


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_default_workers_fit_the_machine(device):
    assert 1 <= default_workers(device) <= 8


def test_a_thumbnail_is_small_and_square(face_folder):
    assert thumbnail(face_folder / "Ann" / "0.png", 12).size == (12, 12)


# PML draws with replacement where a person has fewer than K pictures: all K could be the same
# one, and the person would have no genuine pair of different pictures in that batch.


def test_everybody_in_a_batch_has_two_different_pictures():
    labels = np.array(labels_of(2, 2, 3, 9))
    for batch in pictures_drawn(PKBatches(labels.tolist(), 4, 4, images_per_epoch=1600)):
        for label in range(4):
            assert len({at for at in batch if labels[at] == label}) >= 2


# The oracle of the draws, several processes, other samplers


@pytest.mark.parametrize("counts", [[6] * 9, [2, 9, 1, 5, 3, 12, 4]])
@pytest.mark.parametrize(("people", "images"), [(3, 2), (4, 5), (30, 3)])
def test_people_are_drawn_as_pml_draws_them(counts, people, images, monkeypatch):
    from pytorch_metric_learning.samplers import MPerClassSampler
    from pytorch_metric_learning.utils import common_functions

    labels = labels_of(*counts)
    batches = PKBatches(labels, people, images, images_per_epoch=5 * people * images, seed=4)
    usable = [at for at, label in enumerate(labels) if counts[label] > 1]
    monkeypatch.setattr(
        common_functions, "NUMPY_RANDOM", np.random.RandomState(derive_seed(4, 0, 0) % 2**32)
    )
    theirs = MPerClassSampler(
        [labels[at] for at in usable],
        m=images,
        batch_size=batches.batch_size,
        length_before_new_iter=len(batches) * batches.batch_size,
    )
    expected = [usable[at] for at in theirs]
    drawn = [picture for batch in pictures_drawn(batches) for picture in batch]
    assert len(drawn) == len(expected)
    for own, pml in zip(drawn, expected, strict=True):
        assert labels[own] == labels[pml]
        # People with fewer than K pictures give each of theirs, which PML leaves to chance.
        assert own == pml or counts[labels[own]] < images


@pytest.mark.parametrize("world", [2, 3, 5])
def test_processes_share_the_people_of_a_batch(world):
    labels = labels_of(*[5] * 9)
    alone = list(PKBatches(labels, 5, 3, seed=2))
    shares = [list(PKBatches(labels, 5, 3, seed=2, rank=r, world=world)) for r in range(world)]
    for batch, parts in zip(alone, zip(*shares, strict=True), strict=True):
        assert [draw for part in parts for draw in part] == batch
        assert all(len(part) % 3 == 0 and part for part in parts)
    with pytest.raises(UserError, match="5 people cannot be shared by 6 processes"):
        PKBatches(labels, 5, 3, rank=0, world=6)


def test_any_sampler_gives_batches():
    from torch.utils.data import BatchSampler, SequentialSampler

    for sampler in (SequentialSampler(range(20)), BatchSampler(range(20), 6, drop_last=True)):
        batches = SampledBatches(sampler, 6, seed=3)
        first = list(batches)
        assert [[draw.picture for draw in b] for b in first] == [
            list(range(at, at + 6)) for at in (0, 6, 12)
        ]
        assert len({draw.seed for batch in first for draw in batch}) == 18
        batches.start_epoch(0, first_batch=2)
        assert list(batches) == first[2:]
        batches.start_epoch(1)
        assert not {d.seed for b in batches for d in b} & {d.seed for b in first for d in b}
        batches.start_recalibration(2)
        assert len(list(batches)) == 2
    with pytest.raises(UserError, match="has no length"):
        SampledBatches((at for at in range(20)), 6)
    with pytest.raises(UserError, match="less than one batch of 6"):
        SampledBatches(SequentialSampler(range(5)), 6)


# Batches of loader processes lie in shared memory, and its end is an error in the training process.


@pytest.mark.parametrize(("workers", "shared"), [(0, False), (2, True)])
def test_batches_of_loader_processes_are_shared_as_they_are_collated(face_folder, workers, shared):
    pictures = training_pictures(scan(face_folder))
    batches = PKBatches(pictures.labels, 2, 2, seed=7)
    loader = training_loader(pictures, batches, workers=workers, pin_memory=False)
    batch = loader.collate_fn([pictures[draw] for draw in next(iter(batches))])
    assert [t.is_shared() for t in (batch.images, batch.labels, batch.indices)] == [shared] * 3


@pytest.mark.parametrize("part", ["training", "evaluation"])
def test_a_full_shared_memory_is_an_error(face_folder, part):
    """On a real limit of the system; an endless wait ends here, too."""
    folder = scan(face_folder)

    def give_up(number, frame):
        raise TimeoutError("waited for a batch that never comes")

    before = signal.signal(signal.SIGALRM, give_up)
    load = train_batches if part == "training" else evaluation_batches
    signal.alarm(60)
    try:
        with full_disk(2**11), pytest.raises(RuntimeError) as caught:  # a batch has over 3 KB
            load(folder, workers=1)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert "shared memory" in (lack(caught.value) or "")


@pytest.mark.parametrize(("room", "kept"), [(3, 3), (100, 36)])
def test_pictures_are_kept_as_far_as_there_is_room(face_folder, room, kept, monkeypatch):
    read = []
    monkeypatch.setattr(
        "siamese.data.batches.decode",
        lambda path, size: read.append(path) or Image.new("RGB", (SIZE, SIZE), (len(read), 0, 0)),
    )
    folder = scan(face_folder)
    each = 3 * SIZE * SIZE + 1300
    pictures = face_pictures(
        folder, Preprocess(SIZE, "squash"), SIZE, augment=torch.nn.Identity(), keep=room * each
    )
    everything = list(range(len(folder.paths)))
    first = pictures.__getitems__(everything)
    first[0].image.zero_()  # as a program's own augmentation might
    second = pictures.__getitems__(everything)
    assert len(read) == 36 + 36 - kept
    assert [int(one.image[0, 0, 0]) for one in second[:kept]] == list(range(1, kept + 1))
