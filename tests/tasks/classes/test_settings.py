"""Classification settings: what is refused, and that the message names the setting and the fix."""

import math
from dataclasses import replace
from typing import Any

import pytest

from siamese.config import (
    ClassificationSettings,
    ClassifierSettings,
    ClassLossSettings,
    DatasetSettings,
    ImageBatchSettings,
    PictureSettings,
    check_classification,
)
from siamese.errors import UserError


def checked(**parts: Any) -> None:
    check_classification(replace(ClassificationSettings(), **parts))


MIXING = {
    "mixup": {"mixup": 1.0},
    "cutmix": {"cutmix": 1.0},
    "ricap": {"ricap": 0.3},
    "dual_cutout": {"dual_cutout": 0.1, "cutout": 16},
}


@pytest.mark.parametrize("name", MIXING)
def test_one_mixing_method_is_fine(name: str) -> None:
    checked(augment=PictureSettings(**MIXING[name]))


@pytest.mark.parametrize(
    ("one", "other"),
    [(a, b) for at, a in enumerate(MIXING) for b in list(MIXING)[at + 1 :]],
)
def test_two_mixing_methods_exclude_each_other(one: str, other: str) -> None:
    both = PictureSettings(**MIXING[one], **MIXING[other])
    with pytest.raises(UserError, match=f"`augment.{one}` and `augment.{other}` exclude") as error:
        checked(augment=both)
    assert "\n" not in str(error.value)
    assert ("cutmix_share" in str(error.value)) == ({one, other} == {"mixup", "cutmix"})


def test_mixup_and_cutmix_may_alternate() -> None:
    checked(augment=PictureSettings(mixup=0.2, cutmix=1.0, cutmix_share=0.5))


@pytest.mark.parametrize(
    ("augment", "named"),
    [
        ({"mixup": 0.2, "cutmix_share": 0.5}, "augment.cutmix_share"),
        ({"mixup": 0.2, "cutmix": 1.0, "cutmix_share": 1.0}, "augment.cutmix_share"),
        ({"mixup": 0.2, "cutmix": 1.0, "cutmix_share": 0.5, "ricap": 0.3}, "exclude each other"),
        ({"dual_cutout": 0.1}, "augment.dual_cutout"),
        ({"crop": 4, "resized_crop": (0.1, 1.0)}, "augment.crop"),
        ({"crop": 0, "resized_crop": (0.9, 0.1)}, "augment.resized_crop"),
        ({"crop": 0, "resized_crop": (0.0, 1.0)}, "augment.resized_crop"),
        ({"crop": -1}, "augment.crop"),
        ({"flip": 1.5}, "augment.flip"),
        ({"erasing": -0.1}, "augment.erasing"),
        ({"mixup": -1.0}, "augment.mixup"),
    ],
)
def test_contradictions_of_the_augmentation(augment: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        checked(augment=PictureSettings(**augment))


def test_what_truly_goes_together_is_let_through() -> None:
    checked(
        augment=PictureSettings(
            cutout=8, erasing=0.5, rand_augment="rand-m7-mstd0.5-inc1", ricap=0.3, crop=4
        )
    )
    checked(augment=PictureSettings(crop=0, resized_crop=(0.08, 1.0), cutmix=1.0))


def test_dual_cutout_is_a_cross_entropys() -> None:
    with pytest.raises(UserError, match="cross_entropy only"):
        checked(augment=PictureSettings(cutout=16, dual_cutout=0.1), loss=ClassLossSettings("bce"))


@pytest.mark.parametrize(
    ("parts", "named"),
    [
        ({"loss": ClassLossSettings(target_threshold=0.0)}, "loss.target_threshold"),
        ({"loss": ClassLossSettings(smoothing=1.0)}, "loss.smoothing"),
        ({"batches": ImageBatchSettings(size=128, ghost=48)}, "batches.ghost"),
        ({"batches": ImageBatchSettings(size=128, ghost=1)}, "batches.ghost"),
        ({"batches": ImageBatchSettings(size=128, repeats=0)}, "batches.repeats"),
        ({"batches": ImageBatchSettings(size=1)}, "batches.size"),
        ({"batches": ImageBatchSettings(test_size=0)}, "batches.test_size"),
        ({"data": DatasetSettings(validation=1.5)}, "data.validation"),
        ({"data": DatasetSettings(validation=-0.1)}, "data.validation"),
        ({"data": DatasetSettings(test_crop=0.0)}, "data.test_crop"),
        ({"data": DatasetSettings(subset=0)}, "data.subset"),
        ({"data": DatasetSettings(workers=-1)}, "data.workers"),
        ({"model": ClassifierSettings(pretrained=True)}, "model.pretrained"),
        ({"model": ClassifierSettings(drop_path=1.0)}, "model.drop_path"),
        ({"seed": -1}, "seed"),
        ({"name": "a/b"}, "name"),
    ],
)
def test_other_contradictions(parts: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        checked(**parts)


def test_defaults_and_a_whole_number_of_validation_images_are_fine() -> None:
    checked()
    checked(data=DatasetSettings(validation=5000.0))
    checked(loss=ClassLossSettings("bce", 0.1, 0.0))
    checked(batches=ImageBatchSettings(size=2048, ghost=32, repeats=3))


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_number_without_end_is_no_number_of_images(value: float) -> None:
    settings = ClassificationSettings()
    settings.data.validation = value
    with pytest.raises(UserError, match=r"data\.validation"):
        check_classification(settings)
