"""Image sets: what is loaded, how it is cut, and what is told when it is missing or damaged."""

import hashlib
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets as published
from torchvision.transforms.v2 import functional

from siamese.config import DatasetSettings
from siamese.errors import UserError
from siamese.tasks.classes import datasets
from siamese.tasks.classes.class_batches import judged_pictures
from siamese.tasks.classes.datasets import (
    ImageSet,
    PictureFolder,
    class_counts,
    load_part,
    scan_part,
    split_validation,
    subset,
)
from siamese.tasks.classes.parts import load_parts

SHARED = Path(__file__).resolve().parents[4] / "shared"


def write_mnist(root: Path, name: str = "MNIST") -> Path:
    """A tiny set in torchvision's layout: 30 training and 10 test images of 28 x 28 pixels."""
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    numbers = np.random.default_rng(0)
    for part, count in (("train", 30), ("t10k", 10)):
        pixels = numbers.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        for kind, values in (("images-idx3", pixels), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
            (raw / f"{part}-{kind}-ubyte").write_bytes(head + values.tobytes())
    return raw


@pytest.fixture
def tiny_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Batches of 4 images in torchvision's layout, with their MD5 sums for the published ones."""
    home = tmp_path / "cifar-10-batches-py"
    home.mkdir()
    numbers = np.random.default_rng(0)
    sums = {}
    for name in [f"data_batch_{n}" for n in range(1, 6)] + ["test_batch", "batches.meta"]:
        data = numbers.integers(0, 256, (4, 3072), dtype=np.uint8)
        content: dict[str, Any] = {"data": data, "labels": [0, 1, 2, 9]}
        if name == "batches.meta":
            content = {"label_names": list("abcdefghij")}
        (home / name).write_bytes(pickle.dumps(content))
        sums[name] = hashlib.md5((home / name).read_bytes()).hexdigest()
    kind = published.CIFAR10
    monkeypatch.setattr(kind, "train_list", [[n, sums[n]] for n, _ in kind.train_list])
    monkeypatch.setattr(kind, "test_list", [[n, sums[n]] for n, _ in kind.test_list])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": sums["batches.meta"]})
    return tmp_path


def cifar(root: Path, **options: Any) -> DatasetSettings:
    return DatasetSettings(name="cifar10", root=str(root), **options)


def no_network(*args: object, **options: object) -> None:
    raise URLError("no route to host")


def is_reachable(*_: str) -> None:
    return None


def test_cifar_in_torchvisions_layout(tiny_cifar: Path) -> None:
    train = load_part(cifar(tiny_cifar, download=False), "train")
    assert train.images.shape == (20, 3, 32, 32)
    assert train.images.dtype == torch.uint8
    assert train.images.is_contiguous()
    assert train.labels.tolist() == [0, 1, 2, 9] * 5
    assert train.classes == tuple("abcdefghij")
    raw = published.CIFAR10(str(tiny_cifar), train=True)
    for at in (0, 7, 19):
        expected = np.asarray(raw[at][0]).transpose(2, 0, 1)
        np.testing.assert_array_equal(train.images[at].numpy(), expected)
    assert load_part(cifar(tiny_cifar), "test").images.shape == (4, 3, 32, 32)


def test_images_are_resized_once_and_for_each_part(tiny_cifar: Path) -> None:
    settings = cifar(tiny_cifar, size=16, test_size=24)
    train, test = load_part(settings, "train"), load_part(settings, "test")
    assert train.images.shape[2:] == (16, 16)
    assert test.images.shape[2:] == (24, 24)
    whole = load_part(cifar(tiny_cifar), "train").images
    expected = functional.resize(whole, [16, 16], antialias=True)
    assert torch.equal(train.images, expected)
    assert load_part(replace(settings, test_size=None), "test").images.shape[2:] == (16, 16)


@pytest.mark.parametrize("download", [True, False])
@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_a_damaged_cifar_batch_is_named(
    tiny_cifar: Path, name: str, download: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", no_network)
    path = tiny_cifar / "cifar-10-batches-py" / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError) as error:
        load_part(cifar(tiny_cifar, download=download), "train")
    assert str(error.value).startswith(f"{path}: damaged (its MD5 sum")
    assert "delete it" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_cifar_batch(tiny_cifar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", no_network)
    monkeypatch.setattr("siamese.tasks.classes.datasets.why_unreachable", is_reachable)
    (tiny_cifar / "cifar-10-batches-py" / "data_batch_2").unlink()
    with pytest.raises(UserError, match="lacks data_batch_2; give the folder that holds CIFAR-10"):
        load_part(cifar(tiny_cifar, download=False), "train")
    with pytest.raises(UserError, match=r"could not be downloaded \(.*no route to host"):
        load_part(cifar(tiny_cifar), "train")


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist", "fashion_mnist", "kmnist"])
def test_a_wrong_root_is_told_where_the_files_belong(
    tmp_path: Path, name: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("cifar", "mnist"):
        path = f"torchvision.datasets.{module}.download_and_extract_archive"
        monkeypatch.setattr(path, no_network)
    monkeypatch.setattr("siamese.tasks.classes.datasets.why_unreachable", is_reachable)
    settings = DatasetSettings(name=name, root=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"no such folder or files; .*`data.root`") as error:
        load_part(replace(settings, download=False), "train")
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"could not be downloaded .*no route to host") as error:
        load_part(settings, "test")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600
    asked: list[str] = []

    def unreachable(*urls: str) -> str:
        asked.extend(urls)
        return "no connection to it"

    monkeypatch.setattr("siamese.tasks.classes.datasets.why_unreachable", unreachable)
    with pytest.raises(UserError, match=r"could not be downloaded \(no connection to it\)"):
        load_part(settings, "test")
    assert asked
    assert all(url.startswith("http") for url in asked)


@pytest.mark.parametrize(
    ("name", "folder"),
    [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST"), ("kmnist", "KMNIST")],
)
def test_mnist_and_its_kin_have_one_channel(tmp_path: Path, name: Any, folder: str) -> None:
    write_mnist(tmp_path, folder)
    settings = DatasetSettings(name=name, root=str(tmp_path), download=False)
    train, test = load_part(settings, "train"), load_part(settings, "test")
    assert train.images.shape == (30, 1, 28, 28)
    assert test.labels.tolist() == list(range(10))
    assert len(train.classes) == 10
    assert len(train.mean) == len(train.std) == 1


@pytest.mark.parametrize(
    ("name", "keep", "told"),
    [
        ("train-images-idx3-ubyte", -100, r"damaged \(23436 bytes instead of 23536\)"),
        ("train-images-idx3-ubyte", 10, r"damaged \(not a file of images\)"),
        ("train-labels-idx1-ubyte", -1, r"damaged \(37 bytes instead of 38\)"),
        ("train-labels-idx1-ubyte", 0, r"damaged \(not a file of labels\)"),
    ],
)
def test_a_truncated_mnist_file_is_named(tmp_path: Path, name: str, keep: int, told: str) -> None:
    path = write_mnist(tmp_path) / name
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=told) as error:
        load_part(DatasetSettings(name="mnist", root=str(tmp_path)), "train")
    assert str(error.value).startswith(f"{path}: ")


def test_images_without_labels_are_refused(tmp_path: Path) -> None:
    raw = write_mnist(tmp_path)
    (raw / "train-labels-idx1-ubyte").write_bytes((raw / "t10k-labels-idx1-ubyte").read_bytes())
    with pytest.raises(UserError, match="30 images but 10 labels in the train part"):
        load_part(DatasetSettings(name="mnist", root=str(tmp_path)), "train")


def test_labels_without_a_class_are_refused(tmp_path: Path) -> None:
    path = write_mnist(tmp_path) / "train-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + bytes([77]))
    with pytest.raises(UserError, match="a label 77 in the train part, but MNIST has 10 classes"):
        load_part(DatasetSettings(name="mnist", root=str(tmp_path)), "train")


def made(counts: list[int]) -> ImageSet:
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    images = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1)
    classes = tuple(f"c{number}" for number in range(len(counts)))
    return ImageSet(images, labels, classes, (0.5,), (0.5,))


def test_subset_keeps_each_classs_share() -> None:
    whole = made([100, 60, 40])
    part = subset(whole, 50, seed=0)
    assert class_counts(part.labels, part.classes) == {"c0": 25, "c1": 15, "c2": 10}
    positions = part.images.flatten().tolist()
    assert positions == sorted(set(positions))
    assert torch.equal(part.labels, whole.labels[positions])
    assert torch.equal(part.images, subset(whole, 50, seed=0).images)
    assert not torch.equal(part.images, subset(whole, 50, seed=1).images)
    assert len(subset(whole, 200, seed=0)) == 200
    with pytest.raises(UserError, match=r"data\.subset` 201: there are 200 images only"):
        subset(whole, 201, seed=0)


def test_subset_rounds_to_the_exact_number() -> None:
    for number in range(1, 30):
        part = subset(made([10, 10, 10]), number, seed=number)
        counts = class_counts(part.labels, part.classes).values()
        assert sum(counts) == number
        assert max(counts) - min(counts) <= 1
    # What is left over is not always the first class's.
    given = {int(subset(made([10, 10, 10]), 1, seed=seed).labels[0]) for seed in range(30)}
    assert given == {0, 1, 2}


@pytest.mark.parametrize(("share", "number"), [(0.1, 20), (0.25, 50), (7, 7), (20.0, 20), (0, 0)])
def test_validation_is_drawn_class_by_class(share: float, number: int) -> None:
    whole = made([100, 60, 40])
    train, kept = split_validation(whole, share, seed=4)
    assert len(kept) == number
    assert sorted(train.tolist() + kept.tolist()) == list(range(200))
    assert train.tolist() == sorted(train.tolist())
    counts = torch.bincount(whole.labels[kept], minlength=3)
    exact = torch.tensor([0.5, 0.3, 0.2]) * number
    assert (counts - exact).abs().max() < 1
    again = split_validation(whole, share, seed=4)
    assert torch.equal(again[0], train)
    assert torch.equal(again[1], kept)
    if number > 10:
        assert not torch.equal(split_validation(whole, share, seed=5)[1], kept)


@pytest.mark.parametrize("share", [200, 500, 0.001, 0.999])
def test_validation_of_all_or_nothing_is_refused(share: float) -> None:
    with pytest.raises(UserError, match=r"data\.validation` .* of 200 images for training"):
        split_validation(made([100, 100]), share, seed=0)


def write_folder(root: Path, parts: tuple[str, ...] = ("train", "test")) -> Path:
    numbers = np.random.default_rng(0)
    for part in parts:
        for label, name in enumerate(("b", "a", "名")):
            home = root / part / name
            home.mkdir(parents=True)
            for number in range(3):
                pixels = numbers.integers(0, 256, (20 + 4 * label, 30, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(home / f"{number}.png")
    return root


def test_a_folder_of_classes(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "train" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "train" / "a" / "notes.txt").write_text("no picture")
    (tmp_path / "train" / "a" / ".hidden.png").write_bytes(b"")
    listed = scan_part(tmp_path, "train")
    assert listed.classes == ("a", "b", "名")
    assert listed.paths[:2] == ("a/0.png", "a/1.png")
    assert listed.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    some = listed.only(torch.tensor([8, 0]))
    assert some.paths == ("名/2.png", "a/0.png")
    assert some.labels.tolist() == [2, 0]
    settings = DatasetSettings(name="folder", root=str(tmp_path), size=16)
    train = load_part(settings, "train", progress=False)
    assert train.images.shape == (9, 3, 16, 16)
    picture = Image.open(tmp_path / "train" / "a" / "1.png")
    width, height = picture.size
    square = picture.crop(
        ((width - height) // 2, 0, (width - height) // 2 + height, height)
    ).resize((16, 16), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(train.images[1].numpy(), np.asarray(square).transpose(2, 0, 1))
    pixels = train.images.double() / 255
    assert train.mean == pytest.approx(pixels.mean(dim=(0, 2, 3)).tolist())
    assert train.std == pytest.approx(pixels.std(dim=(0, 2, 3), correction=0).tolist())
    test = load_part(settings, "test", progress=False)
    assert (test.mean, test.std) == (train.mean, train.std)  # the training images'


def test_a_val_folder_is_the_test_part(tmp_path: Path) -> None:
    write_folder(tmp_path, ("train", "val"))
    assert scan_part(tmp_path, "test").root == tmp_path / "val"


def test_broken_pictures_are_left_out_and_reported(tmp_path: Path) -> None:
    write_folder(tmp_path)
    whole = (tmp_path / "train" / "b" / "0.png").read_bytes()
    (tmp_path / "train" / "b" / "0.png").write_bytes(whole[: len(whole) // 2])
    told: list[tuple[str, str]] = []
    settings = DatasetSettings(name="folder", root=str(tmp_path), size=16)
    train = load_part(
        settings, "train", report=lambda path, reason: told.append((path, reason)), progress=False
    )
    assert train.labels.tolist() == [0] * 3 + [1] * 2 + [2] * 3
    assert [path for path, _ in told] == ["b/0.png"]
    assert "cannot be decoded" in told[0][1]
    for path in (tmp_path / "test").rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"none of its 9 pictures can be decoded"):
        load_part(settings, "test", progress=False)


def test_validation_pictures_are_prepared_as_the_test_is(tmp_path: Path) -> None:
    """Whether in memory or not: here with the test's central crop."""
    write_folder(tmp_path)
    settings = DatasetSettings(
        name="folder", root=str(tmp_path), size=8, validation=0.5, test_crop=0.5, resident=True
    )
    inside = load_parts(settings, seed=0, progress=False).validation
    files = load_parts(replace(settings, resident=False), seed=0).validation
    assert isinstance(inside, ImageSet)
    assert isinstance(files, PictureFolder)
    judged = list(judged_pictures(files, 8, 0.5, batch_size=50, workers=0))
    assert torch.equal(inside.images, judged[0].images)


def test_unusable_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no folder train; .*one folder per class"):
        scan_part(tmp_path / "nowhere", "train")
    write_folder(tmp_path / "one", ("train",))
    with pytest.raises(UserError, match="has no folder test or val"):
        scan_part(tmp_path / "one", "train")
    write_folder(tmp_path / "two")
    (tmp_path / "two" / "test" / "a").rename(tmp_path / "two" / "test" / "z")
    for part in ("train", "test"):
        told = r"different classes \('a' only in train, 'z' only in test\)"
        with pytest.raises(UserError, match=told):
            scan_part(tmp_path / "two", part)
    write_folder(tmp_path / "three")
    for path in (tmp_path / "three" / "train" / "b").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="no picture of b"):
        scan_part(tmp_path / "three", "train")
    (tmp_path / "four" / "train" / "a").mkdir(parents=True)
    with pytest.raises(UserError, match="1 folders of classes; at least two"):
        scan_part(tmp_path / "four", "train")


def test_moments_are_those_of_the_pixels() -> None:
    pixels = torch.randint(0, 256, (3, 1000), generator=torch.Generator().manual_seed(0))
    counts = torch.stack([torch.bincount(row, minlength=256) for row in pixels])
    mean, std = datasets.moments(counts)
    values = pixels.numpy() / 255
    np.testing.assert_allclose(mean, values.mean(axis=1))
    np.testing.assert_allclose(std, values.std(axis=1))


def measured(images: torch.Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    channels = images.transpose(0, 1).flatten(1)
    return datasets.moments(torch.stack([torch.bincount(c, minlength=256) for c in channels]))


@pytest.mark.real_faces
def test_real_mnist() -> None:
    root = SHARED / "data" / "mnist"
    if not root.exists():
        pytest.skip(f"{root} does not exist: no MNIST on this machine")
    settings = DatasetSettings(name="mnist", root=str(root), download=False)
    train = load_part(settings, "train")
    assert train.images.shape == (60000, 1, 28, 28)
    mean, std = measured(train.images)
    assert train.mean == pytest.approx(mean, abs=1e-4)
    assert train.std == pytest.approx(std, abs=1e-4)
    assert len(load_part(settings, "test")) == 10000


@pytest.mark.real_faces
def test_real_cifar10(tmp_path: Path) -> None:
    tool = SHARED / "tools" / "unpack_cifar10.py"
    if not tool.exists():
        pytest.skip(f"{tool} does not exist: no CIFAR-10 on this machine")
    subprocess.run([sys.executable, tool, tmp_path], check=True, capture_output=True)
    train = load_part(cifar(tmp_path, download=False), "train")
    assert train.images.shape == (50000, 3, 32, 32)
    assert set(class_counts(train.labels, train.classes).values()) == {5000}
    mean, std = measured(train.images)
    assert train.mean == pytest.approx(mean, abs=1e-4)
    assert train.std == pytest.approx(std, abs=1e-4)
