"""The one rule for too few to say."""

import pytest

from siamese.verification.enough import (
    too_few_images,
    too_few_pairs,
    too_few_people,
    too_few_seeds,
)


@pytest.mark.parametrize("people", [0, 2, 9])
def test_few_people_are_told_with_their_number_and_who_they_are(people: int) -> None:
    assert f"{people} validation people are too few" in (
        too_few_people(people, "validation people") or ""
    )


def test_ten_people_are_enough() -> None:
    assert too_few_people(10) is None


@pytest.mark.parametrize(
    ("genuine", "impostor", "told"),
    [(99, 5000, "99 genuine"), (5000, 99, "99 impostor"), (1, 1, "1 genuine")],
)
def test_few_pairs_are_told_by_kind(genuine: int, impostor: int, told: str) -> None:
    assert (too_few_pairs(genuine, impostor) or "").startswith(told)


def test_a_hundred_pairs_of_each_kind_are_enough() -> None:
    assert too_few_pairs(100, 100) is None


@pytest.mark.parametrize("seeds", [0, 1, 2])
def test_two_seeds_are_too_few(seeds: int) -> None:
    assert too_few_seeds(seeds) == f"too few seeds ({seeds}): a verdict needs at least 3"


def test_three_seeds_are_enough() -> None:
    assert too_few_seeds(3) is None


@pytest.mark.parametrize(
    ("images", "classes", "needed"), [(99, 10, 100), (0, 2, 100), (999, 1000, 1000)]
)
def test_few_images_are_told_with_how_many_are_needed(
    images: int, classes: int, needed: int
) -> None:
    told = too_few_images(images, classes, "validation images") or ""
    assert told.startswith(f"{images} validation images of {classes} classes are too few")
    assert told.endswith(f"at least {needed} are needed")


@pytest.mark.parametrize(("images", "classes"), [(100, 2), (100, 100), (1000, 1000)])
def test_a_hundred_images_and_one_of_each_class_are_enough(images: int, classes: int) -> None:
    assert too_few_images(images, classes) is None


def test_few_pairs_are_told_with_where_they_are() -> None:
    assert "3 genuine pairs in validation are" in (too_few_pairs(3, 500, "in validation") or "")
