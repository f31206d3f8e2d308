"""The picture of all augmentations: every one is in it, and each row shows its own."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from siamese.config import ClassificationSettings, PictureSettings, check_classification
from siamese.errors import UserError
from siamese.tasks.classes import class_pictures as pictures
from siamese.tasks.classes.datasets import ImageSet

from .test_datasets import write_folder, write_mnist


def few(channels: int = 3, side: int = 16) -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(
        1, 256, (4, channels, side, side), dtype=torch.uint8, generator=generator
    )
    mean = (0.5,) * channels
    return ImageSet(images, torch.arange(4), ("cat", "dog", "Flugzeug", "船"), mean, mean)


def test_every_setting_has_a_row() -> None:
    rows = pictures._rows(32)
    shown = {
        field.name
        for row in rows
        for field in fields(PictureSettings)
        if getattr(row.settings, field.name) != getattr(pictures._alone(), field.name)
    }
    assert shown == {field.name for field in fields(PictureSettings)}
    for row in rows:
        check_classification(replace(ClassificationSettings(), augment=row.settings))


@pytest.mark.parametrize("channels", [1, 3])
def test_rows_show_what_they_say(channels: int) -> None:
    images = few(channels)
    original, dual = None, []
    for row in pictures._rows(16):
        examples = [pictures._example(row, images, column, 0) for column in range(4)]
        shown = torch.stack([pixels for pixels, _ in examples])
        assert shown.shape == (4, 16, 16, channels)
        if row.title == "original":
            original = shown
            np.testing.assert_allclose(shown.permute(0, 3, 1, 2), images.images / 255, atol=1e-6)
        else:
            assert not torch.equal(shown, original), row.title
        if row.title.startswith("dual"):
            dual.append(shown)
        again = pictures._example(row, images, 1, 0)[0]
        assert torch.equal(shown[1], again)
    assert len(dual) == 2
    assert not torch.equal(*dual)


def test_grid_is_written(tmp_path: Path) -> None:
    path = pictures.augmentation_grid(tmp_path / "deep" / "grid.png", few())
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.height > image.width > 400
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.std() > 20
    assert [entry.name for entry in path.parent.iterdir()] == ["grid.png"]


def test_captions_name_classes_and_shares() -> None:
    classes = ("cat", "automobile", "dog", "9 - nine")
    target = torch.tensor([0.25, 0.0, 0.7, 0.05])
    assert pictures._caption(target, classes, always=False) == ["dog 0.70 + cat 0.25", "9 0.05"]
    alone = torch.tensor([0.0, 1.0, 0.0, 0.0])
    assert pictures._caption(alone, classes, always=False) == []
    assert pictures._caption(alone, classes, always=True) == ["automobile"]


def test_images_of_a_set_are_of_different_classes(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    out = pictures.write_augmentations(tmp_path / "grid.png", "mnist", str(tmp_path), False)
    assert out.exists()
    labels = torch.arange(30) % 10
    assert len(set(labels[pictures._one_of_each(labels, 0)].tolist())) == 8
    two = torch.tensor([0] * 20 + [1])
    assert sorted(two[pictures._one_of_each(two, 0)].tolist()) == [0] * 7 + [1]


def test_images_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "FOLDER_SIZE", 24)
    out = pictures.write_augmentations(tmp_path / "g.png", "folder", str(write_folder(tmp_path)))
    assert out.exists()


def test_an_unknown_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="`name` cifar: must be one of cifar10, cifar100"):
        pictures.write_augmentations(tmp_path / "grid.png", "cifar", str(tmp_path))
