"""Batches that are the same each time: what is kept, what is loaded again."""

from collections.abc import Iterator

import pytest
import torch

from siamese.data.kept_batches import KeptBatches
from siamese.data.loaders import Batch

SIZE = 2 * 3 * 4 * 4  # bytes of a batch's pictures


def batch(number: int) -> Batch:
    images = torch.full((2, 3, 4, 4), number, dtype=torch.uint8)
    return Batch(images, torch.tensor([0, 1]), torch.tensor([number, number]), [], 2)


class Loader:
    """Gives batches and remembers which it was asked for."""

    def __init__(self, number: int):
        self.number, self.loaded = number, list[int]()

    def __call__(self, first: int) -> Iterator[Batch]:
        for at in range(first, self.number):
            self.loaded.append(at)
            yield batch(at)


def numbers(kept: KeptBatches, name: str, number: int, load: Loader) -> list[int]:
    return [int(one.images[0, 0, 0, 0]) for one in kept.read(name, number, load)]


@pytest.mark.parametrize(
    ("room", "kept"), [(0, 0), (2 * SIZE, 2), (5 * SIZE - 1, 4), (9 * SIZE, 5)]
)
def test_what_fits_is_loaded_once_and_the_rest_each_time(room: int, kept: int) -> None:
    batches, load = KeptBatches(room), Loader(5)
    for _ in range(3):
        assert numbers(batches, "a", 5, load) == [0, 1, 2, 3, 4]
    assert load.loaded == [0, 1, 2, 3, 4] + 2 * list(range(kept, 5))


def test_lists_share_the_room_and_a_gap_is_never_kept() -> None:
    batches, first, second = KeptBatches(3 * SIZE), Loader(2), Loader(3)
    for _ in range(2):
        assert numbers(batches, "a", 2, first) == [0, 1]
        assert numbers(batches, "b", 3, second) == [0, 1, 2]
    assert first.loaded == [0, 1]
    assert second.loaded == [0, 1, 2, 1, 2]


def test_an_empty_batch_behind_one_that_does_not_fit_is_not_kept() -> None:
    """Of a batch in which not one picture can be decoded there is nothing that needs room."""
    batches, load, empty = KeptBatches(2 * SIZE), Loader(4), Loader(1)
    sizes = [2, 2, 2, 0]

    def some(first: int) -> Iterator[Batch]:
        for one in load(first):
            size = sizes[int(one.images[0, 0, 0, 0])]
            yield Batch(one.images[:size], one.labels[:size], one.indices[:size], [], 2)

    for _ in range(3):
        assert [len(one.images) for one in batches.read("a", 4, some)] == sizes
        assert [int(one.images[0, 0, 0, 0]) for one in batches.read("b", 1, empty)] == [0]
    assert load.loaded == [0, 1, 2, 3, 2, 3, 2, 3]
    assert empty.loaded == [0, 0, 0]


def test_fewer_and_then_more_batches_of_a_list() -> None:
    batches = KeptBatches(9 * SIZE)
    assert numbers(batches, "a", 1, Loader(1)) == [0]
    longer = Loader(3)
    assert numbers(batches, "a", 3, longer) == [0, 1, 2]
    assert longer.loaded == [1, 2]
    assert numbers(batches, "a", 2, longer) == [0, 1]
    assert longer.loaded == [1, 2]


def test_a_reader_that_stops_early_leaves_no_gap() -> None:
    batches, load = KeptBatches(9 * SIZE), Loader(3)
    next(batches.read("a", 3, load))
    assert numbers(batches, "a", 3, load) == [0, 1, 2]
    assert load.loaded == [0, 1, 2]


def test_what_loaders_share_becomes_the_process_s_own() -> None:
    shared = batch(7)
    for tensor in (shared.images, shared.labels, shared.indices):
        tensor.share_memory_()
    kept = KeptBatches(9 * SIZE)
    list(kept.read("a", 1, lambda first: [shared]))
    (own,) = kept.read("a", 1, lambda first: [])
    for name in ("images", "labels", "indices"):
        assert not getattr(own, name).is_shared()
        assert torch.equal(getattr(own, name), getattr(shared, name))
