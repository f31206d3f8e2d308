"""Image sets: torchvision's small ones and folders of classes, in memory or as a list of files."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import datasets as published
from torchvision.datasets.utils import check_integrity
from torchvision.transforms.v2 import functional
from tqdm import tqdm

from siamese.config import DatasetSettings
from siamese.data.decode import DecodeError, decode
from siamese.errors import UserError, first_few
from siamese.files.online import why_unreachable
from siamese.files.places import is_regular, open_regular
from siamese.processors import processors

Part = Literal["train", "test"]
Report = Callable[[str, str], None]

# Side of a folder's pictures where none is set.
FOLDER_SIZE = 224
# Images of a set that is resized are resized so many at once.
_CHUNK = 2000
# Mean and deviation of a folder's pixels come from at most so many training pictures.
_MEASURED = 1000


@dataclass(frozen=True)
class ImageSet:
    """Images in memory.

    Attributes:
        images: uint8 (N, C, H, W).
        labels: int64 (N,), indices into ``classes``.
        classes: the classes' names.
        mean: of each channel over the training images, in [0, 1].
        std: likewise, the standard deviation.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def only(self, indices: Tensor) -> ImageSet:
        """The images at some positions, int64 (M,), in that order."""
        return replace(self, images=self.images[indices], labels=self.labels[indices])

    def to(self, device: torch.device | str) -> ImageSet:
        """The same set on a device."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))


@dataclass(frozen=True)
class PictureFolder:
    """Picture files with their classes, for sets that do not fit into memory.

    Attributes:
        root: the folder of one part, e.g. ``DATA/train``.
        paths: one path per picture, relative to ``root``, with forward slashes.
        labels: int64 (N,), indices into ``classes``.
        classes: names of the class folders in code-point order.
    """

    root: Path
    paths: tuple[str, ...]
    labels: Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def only(self, indices: Tensor) -> PictureFolder:
        """The pictures at some positions, int64 (M,), in that order."""
        paths = tuple(self.paths[index] for index in indices.tolist())
        return replace(self, paths=paths, labels=self.labels[indices])


Images = TypeVar("Images", ImageSet, PictureFolder)


@dataclass(frozen=True)
class _Known:
    """A set of torchvision's: its class, how it is called, and its training pixels in [0, 1]."""

    build: Any
    title: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def folder(self, root: Path) -> Path:
        """Where torchvision looks for its files."""
        if hasattr(self.build, "base_folder"):
            return root / str(self.build.base_folder)
        return root / str(self.build.__name__) / "raw"

    def files(self) -> dict[str, str | None]:
        """Its files and their MD5 sums, where they are known."""
        if hasattr(self.build, "base_folder"):
            meta = self.build.meta
            listed = [*self.build.train_list, *self.build.test_list]
            return dict([*listed, [meta["filename"], meta["md5"]]])
        names = (Path(str(name)).stem for name, _ in self.build.resources)
        return dict.fromkeys(names)

    def servers(self) -> tuple[str, ...]:
        """Addresses of those that torchvision loads it from; each has all of it."""
        return tuple(getattr(self.build, "mirrors", None) or [self.build.url])


KNOWN = {
    "cifar10": _Known(
        published.CIFAR10, "CIFAR-10", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    ),
    "cifar100": _Known(
        published.CIFAR100, "CIFAR-100", (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
    ),
    "mnist": _Known(published.MNIST, "MNIST", (0.1307,), (0.3081,)),
    "fashion_mnist": _Known(published.FashionMNIST, "FashionMNIST", (0.2860,), (0.3530,)),
    "kmnist": _Known(published.KMNIST, "KMNIST", (0.1918,), (0.3483,)),
}


def load_part(
    settings: DatasetSettings,
    part: Part,
    *,
    as_tested: bool = False,
    report: Report | None = None,
    progress: bool = True,
) -> ImageSet:
    """All images of the training or test part, in memory.

    Args:
        settings: the set, and the side of its images: ``size`` for the training part, ``test_size``
            (else ``size``) for the test part. ``subset``, ``test_subset`` and ``validation`` are
            left to :func:`subset` and :func:`split_validation`.
        part: which.
        as_tested: prepare training images as test images are, e.g. for validation.
        report: called with path and reason for each picture of a folder that cannot be decoded.
        progress: show a bar while pictures are decoded.

    Raises:
        UserError: the set is missing, damaged or cannot be downloaded; a folder without pictures,
            or with other classes in its test part; one line that names the folder or file.
    """
    as_tested = as_tested or part == "test"
    size = settings.test_size or settings.size if as_tested else settings.size
    if settings.name == "folder":
        crop = settings.test_crop if as_tested else 1.0
        side = size or FOLDER_SIZE
        measured = measure(settings.root, side)
        pictures = scan_part(settings.root, part)
        return decode_pictures(
            pictures, side, measured, crop=crop, report=report, progress=progress
        )
    known = KNOWN[settings.name]
    raw = _load_known(known, Path(settings.root).expanduser(), part, settings.download)
    images = torch.as_tensor(np.asarray(raw.data))
    images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2)
    labels = torch.as_tensor(raw.targets, dtype=torch.int64)
    if int(labels.max()) >= len(raw.classes):
        raise UserError(
            f"{known.folder(Path(settings.root))}: a label {int(labels.max())} in the {part} part, "
            f"but {known.title} has {len(raw.classes)} classes; delete the folder and let it be "
            "downloaded again with `data.download` true"
        )
    return ImageSet(
        _resized(images.contiguous(), size), labels, tuple(raw.classes), known.mean, known.std
    )


def _load_known(known: _Known, root: Path, part: Part, download: bool) -> Any:
    """A part as torchvision's own data set."""
    folder = known.folder(root)
    there = [name for name in known.files() if is_regular(folder / name)]
    missing = [name for name in known.files() if name not in there]
    if missing and not download:
        what = f"lacks {first_few(missing)}" if there else "no such folder or files"
        raise UserError(
            f"{folder}: {what}; give the folder that holds {known.title} as torchvision keeps it "
            f"({folder.relative_to(root)}/...) with `data.root`, or `data.download` true"
        )
    if missing:  # torchvision would download over a damaged file
        _refuse_damaged(known, folder, there)
    try:
        if missing and (reason := why_unreachable(*known.servers())):
            raise OSError(reason)
        raw = known.build(str(root), train=part == "train", download=bool(missing))
    except Exception as error:  # of a connection, a server, a disk or an unpacker: anything at all
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if missing:
            raise UserError(
                f"{folder}: {known.title} is not there and could not be downloaded ({reason}); "
                "connect to the internet, or give the folder that holds it with `data.root`"
            ) from None
        _refuse_damaged(known, folder, there)
        raise UserError(
            f"{folder}: {known.title} cannot be read ({reason}); delete the folder and let it be "
            "downloaded again with `data.download` true"
        ) from None
    if len(raw.data) != len(raw.targets):
        raise UserError(
            f"{folder}: {len(raw.data)} images but {len(raw.targets)} labels in the {part} part; "
            "delete the folder and let it be downloaded again with `data.download` true"
        )
    return raw


def _refuse_damaged(known: _Known, folder: Path, names: Sequence[str]) -> None:
    """Raise a UserError for the first file that is not what was published, as far as is known."""
    sums = known.files()
    for name in names:
        path, md5 = folder / name, sums[name]
        if md5 is None:  # MNIST's files have no published sum
            what = _idx_damage(path)
        else:
            matches = check_integrity(str(path), md5)
            what = None if matches else "damaged (its MD5 sum is not the published one)"
        if what is not None:
            raise UserError(
                f"{path}: {what}; delete it and let it be downloaded again with "
                "`data.download` true"
            )


def _idx_damage(path: Path) -> str | None:
    """What is wrong with a file of MNIST's format, bytes of one or three dimensions."""
    try:
        with open_regular(path) as file:
            head = file.read(16)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    dimensions = 3 if "images" in path.name else 1
    if head[:4] != bytes([0, 0, 8, dimensions]) or len(head) < 4 + 4 * dimensions:
        return f"damaged (not a file of {'images' if dimensions == 3 else 'labels'})"
    sides = np.frombuffer(head[4 : 4 + 4 * dimensions], ">u4").astype(int)
    expected, size = 4 + 4 * dimensions + int(np.prod(sides)), path.stat().st_size
    return None if size == expected else f"damaged ({size} bytes instead of {expected})"


def _resized(images: Tensor, size: int | None) -> Tensor:
    """Square images of another side, antialiased, a chunk at a time."""
    if size is None or images.shape[-2:] == (size, size):
        return images
    result = torch.empty((*images.shape[:2], size, size), dtype=images.dtype)
    for first in range(0, len(images), _CHUNK):
        chunk = images[first : first + _CHUNK]
        result[first : first + _CHUNK] = functional.resize(chunk, [size, size], antialias=True)
    return result


def scan_part(root: str | Path, part: Part) -> PictureFolder:
    """The pictures of a folder's training part, or of its test part (``test``, else ``val``).

    Files count whose ending is a picture's and that lie directly in a class's folder; hidden files
    and folders do not. Nothing is decoded.

    Raises:
        UserError: a part or its pictures are missing, or both parts hold different classes.
    """
    root = Path(root).expanduser()
    folder, classes = _class_folders(root, part)
    other_folder, others = _class_folders(root, "test" if part == "train" else "train")
    if classes != others:
        sides = sorted([(folder.name, classes, others), (other_folder.name, others, classes)])
        only = [
            f"{name!a} only in {where}"
            for where, own, more in sides[::-1]
            for name in sorted(set(own) - set(more))
        ]
        raise UserError(
            f"{root}: {folder.name} and {other_folder.name} hold different classes ("
            f"{first_few(only)}); both need the same folders"
        )
    found = [
        (f"{name}/{file}", label)
        for label, name in enumerate(classes)
        for file in _pictures_in(folder / name)
    ]
    if not found:
        raise UserError(
            f"{folder}: no picture in it; put each class's pictures into a folder of their own, "
            f"e.g. {folder.name}/CLASS/picture.jpg"
        )
    counts = Counter(label for _, label in found)
    empty = [name for label, name in enumerate(classes) if label not in counts]
    if empty and part == "train":
        raise UserError(
            f"{folder}: no picture of {first_few(empty)}; add some or take the folder away in "
            "both parts"
        )
    paths, labels = zip(*found, strict=True)
    return PictureFolder(folder, paths, torch.tensor(labels, dtype=torch.int64), classes)


def _class_folders(root: Path, part: Part) -> tuple[Path, tuple[str, ...]]:
    """A part's folder and the names of its classes, sorted."""
    names = ("train",) if part == "train" else ("test", "val")
    for name in names:
        folder = root / name
        if folder.is_dir():
            classes = sorted(
                entry.name
                for entry in _entries(folder)
                if not entry.name.startswith(".") and os.path.isdir(entry)
            )
            if len(classes) < 2:
                raise UserError(
                    f"{folder}: {len(classes)} folders of classes; at least two are needed, e.g. "
                    f"{folder.name}/CLASS/picture.jpg"
                )
            return folder, tuple(classes)
    raise UserError(
        f"{root}: has no folder {' or '.join(names)}; `data.name` folder needs train/ and test/ "
        "(or val/) with one folder per class in each"
    )


@lru_cache(maxsize=1)
def _endings() -> frozenset[str]:
    Image.init()
    return frozenset(Image.registered_extensions()) - {".pdf", ".mpg", ".mpeg"}


def _pictures_in(folder: Path) -> Iterator[str]:
    for entry in _entries(folder):
        ending = os.path.splitext(entry.name)[1].lower()
        if not entry.name.startswith(".") and ending in _endings() and is_regular(entry):
            yield entry.name


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            # One name in two Unicode forms sorts alike on every system.
            return sorted(entries, key=lambda entry: unicodedata.normalize("NFC", entry.name))
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from None


def fit_square(picture: Image.Image, size: int, crop: float = 1.0) -> Image.Image:
    """The square in a picture's centre whose side is ``crop`` of the shorter side, resized.

    Args:
        picture: any size.
        size: side of the result in pixels.
        crop: in (0, 1].
    """
    side = max(1, round(crop * min(picture.size)))
    square: Image.Image = functional.resize(
        functional.center_crop(picture, [side]), [size, size], antialias=True
    )
    return square


def _decoded(folder: PictureFolder, path: str, size: int, crop: float) -> Tensor:
    """A picture as uint8 (3, size, size)."""
    picture = decode(folder.root / path, round(size / crop))
    pixels: Tensor = functional.pil_to_tensor(fit_square(picture, size, crop))
    return pixels


def decode_pictures(
    folder: PictureFolder,
    size: int,
    measured: tuple[tuple[float, ...], tuple[float, ...]],
    *,
    crop: float = 1.0,
    report: Report | None = None,
    progress: bool = True,
) -> ImageSet:
    """Picture files as an image set; those that cannot be decoded are left out.

    Args:
        folder: the pictures.
        size: side in pixels.
        measured: mean and standard deviation, see :func:`measure`.
        crop: share of the shorter side that the central square keeps, in (0, 1].
        report: called with path and reason for each picture that is left out.
        progress: show a bar.

    Raises:
        UserError: none of them can be decoded.
    """
    images = torch.empty((len(folder), 3, size, size), dtype=torch.uint8)

    def fill(at: int) -> str | None:
        try:
            images[at] = _decoded(folder, folder.paths[at], size, crop)
        except DecodeError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(max_workers=_threads()) as pool:
        reasons = list(
            tqdm(
                pool.map(fill, range(len(folder))),
                total=len(folder),
                desc=f"decoding {folder.root.name}",
                unit="img",
                disable=None if progress else True,
                leave=False,
            )
        )
    good = torch.tensor([at for at, reason in enumerate(reasons) if reason is None])
    for path, reason in zip(folder.paths, reasons, strict=True):
        if reason is not None and report is not None:
            report(path, reason)
    if len(good) == 0:
        raise UserError(f"{folder.root}: none of its {len(folder)} pictures can be decoded")
    mean, std = measured
    if len(good) == len(folder):
        return ImageSet(images, folder.labels, folder.classes, mean, std)
    return ImageSet(images[good], folder.labels[good], folder.classes, mean, std)


def _threads() -> int:
    return min(8, processors())


@lru_cache(maxsize=8)
def measure(root: str, size: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of a folder's training pixels, per channel, in [0, 1].

    Measured on all training pictures, or on 1,000 of them, evenly spaced; broken ones do not count.

    Raises:
        UserError: see :func:`scan_part`; or none of them can be decoded.
    """
    folder = scan_part(root, "train")
    chosen = np.linspace(0, len(folder) - 1, min(len(folder), _MEASURED)).round().astype(int)
    counts = torch.zeros(3, 256, dtype=torch.int64)
    for at in chosen:
        try:
            image = _decoded(folder, folder.paths[at], size, 1.0)
        except DecodeError:
            continue
        counts += torch.stack([torch.bincount(c.flatten(), minlength=256) for c in image])
    if not counts.any():
        raise UserError(f"{folder.root}: none of its pictures can be decoded")
    return moments(counts)


def moments(counts: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation, in [0, 1], of pixels counted by value: int64 (C, 256)."""
    values = torch.arange(256, dtype=torch.float64) / 255
    shares = counts.double() / counts.sum(dim=1, keepdim=True)
    mean = shares @ values
    variance = (shares * (values - mean[:, None]).square()).sum(dim=1)
    # An image set of one colour has none; 1 leaves it as it is.
    std = [float(value) if value > 0 else 1.0 for value in variance.sqrt()]
    return tuple(mean.tolist()), tuple(std)


def subset(images: Images, number: int, seed: int) -> Images:
    """Some of the images, drawn so that each class keeps its share; in their order.

    Args:
        images: the set.
        number: how many.
        seed: of the draw.

    Raises:
        UserError: more than there are.
    """
    if number > len(images):
        raise UserError(
            f"`data.subset` {number}: there are {len(images)} images only; use fewer, or null for "
            "all (likewise `data.test_subset`)"
        )
    return images.only(_stratified(images.labels, number, seed))


def split_validation(
    images: ImageSet | PictureFolder, share: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Keep images aside, drawn so that each class gives its share.

    Args:
        images: the training images.
        share: share of them (below 1) or number (1 or more); 0: none.
        seed: of the draw; the same seed and images give the same split.

    Returns:
        Positions for training and for validation, int64, each rising, without a common one.

    Raises:
        UserError: fewer than one image would be left for training or validation.
    """
    total = len(images)
    number = round(share * total) if share < 1 else int(share)
    if share and not 0 < number < total:
        raise UserError(
            f"`data.validation` {share:g}: leaves {max(total - number, 0)} of {total} images for "
            f"training and {min(number, total)} for validation; choose another share or number"
        )
    kept = _stratified(images.labels, number, seed)
    others = torch.ones(total, dtype=torch.bool)
    others[kept] = False
    return others.nonzero().squeeze(1), kept


def _stratified(labels: Tensor, number: int, seed: int) -> Tensor:
    """Rising positions of ``number`` labels with each class in proportion, int64 (number,)."""
    values = labels.cpu().numpy()
    draws = np.random.default_rng([seed, len(values)])
    counts = np.bincount(values)
    exact = counts * number / max(len(values), 1)
    given = np.floor(exact).astype(int)
    # What rounding down left over goes to the largest remainders; equal ones by chance.
    order = np.lexsort((draws.random(len(counts)), -(exact - given)))
    given[order[: number - given.sum()]] += 1
    chosen = [
        draws.permutation(np.flatnonzero(values == label))[:count]
        for label, count in enumerate(given)
    ]
    return torch.from_numpy(np.sort(np.concatenate(chosen)).astype(np.int64))


def class_counts(labels: Tensor, classes: Sequence[str]) -> dict[str, int]:
    """Images per class, every class named."""
    counts = torch.bincount(labels.cpu(), minlength=len(classes)).tolist()
    return dict(zip(classes, counts, strict=True))
