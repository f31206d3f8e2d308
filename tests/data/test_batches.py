"""P x K draws that depend on seed and epoch alone, and any sampler's."""

from collections import Counter

import numpy as np
import pytest
from pytorch_metric_learning.utils import common_functions

from siamese.data.batches import PKBatches, SampledBatches, derive_seed
from siamese.errors import UserError


def labels_of(*counts: int) -> list[int]:
    return [label for label, count in enumerate(counts) for _ in range(count)]


def pictures_drawn(batches: PKBatches) -> list[list[int]]:
    return [[draw.picture for draw in batch] for batch in batches]


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


# PML draws with replacement where a person has fewer than K pictures: all K could be the same
# one, and the person would have no genuine pair of different pictures in that batch.
def test_everybody_in_a_batch_has_two_different_pictures():
    labels = np.array(labels_of(2, 2, 3, 9))
    for batch in pictures_drawn(PKBatches(labels.tolist(), 4, 4, images_per_epoch=1600)):
        for label in range(4):
            assert len({at for at in batch if labels[at] == label}) >= 2


@pytest.mark.parametrize("counts", [[6] * 9, [2, 9, 1, 5, 3, 12, 4]])
@pytest.mark.parametrize(("people", "images"), [(3, 2), (4, 5), (30, 3)])
def test_people_are_drawn_as_pml_draws_them(counts, people, images, monkeypatch):
    from pytorch_metric_learning.samplers import MPerClassSampler

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
