"""P, K and the epochs of a run whose settings leave them open."""

import pytest

from siamese.config import TrainSettings
from siamese.tasks.faces.from_data import epochs_for, with_choices


def _chosen(counts: list[int], **batches: int | None) -> tuple[int, int, int]:
    settings = TrainSettings()
    for name, value in batches.items():
        setattr(settings.batches, name, value)
    chosen = with_choices(settings, counts)
    return chosen.batches.people_drawn, chosen.batches.images_drawn, chosen.trainer.epochs_run


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([100] * 12, (12, 4, 50)),  # all twelve people: 1,200 pictures an epoch
        ([145] * 44, (16, 4, 10)),
        ([17] * 2000, (16, 4, 10)),
        ([2] * 3000 + [1] * 500, (32, 2, 10)),  # most people have two
        ([3] * 400, (21, 3, 50)),
        ([6] * 4, (4, 4, 100)),
        ([1, 1, 2], (2, 2, 100)),  # refused later, with a reason
    ],
)
def test_they_follow_from_people_and_pictures(
    counts: list[int], expected: tuple[int, int, int]
) -> None:
    assert _chosen(counts) == expected


def test_what_is_set_stays() -> None:
    assert _chosen([145] * 44, people=8, images=3, images_per_epoch=1000) == (8, 3, 60)
    settings = TrainSettings()
    settings.trainer.epochs, settings.batches.people = 3, "auto"
    chosen = with_choices(settings, [145] * 44)
    assert (chosen.trainer.epochs, chosen.batches.people) == (3, "auto")


def test_what_was_chosen_is_told() -> None:
    told: list[str] = []
    with_choices(TrainSettings(), [100] * 12, told.append)
    assert any("batches.people: 12" in line for line in told)
    assert any("batches.images: 4" in line for line in told)
    assert any("trainer.epochs: 50" in line for line in told)


@pytest.mark.parametrize(("pictures", "epochs"), [(0, 100), (600, 100), (6400, 10), (10**6, 10)])
def test_epochs_have_bounds(pictures: int, epochs: int) -> None:
    assert epochs_for(pictures) == epochs
