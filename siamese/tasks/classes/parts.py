"""A run's images: those that train, those that select, those that are tested once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from siamese.config import DatasetSettings
from siamese.tasks.classes.datasets import (
    FOLDER_SIZE,
    ImageSet,
    Part,
    PictureFolder,
    Report,
    load_part,
    measure,
    scan_part,
    split_validation,
    subset,
)

Images = ImageSet | PictureFolder
One = TypeVar("One", ImageSet, PictureFolder)


@dataclass(frozen=True)
class Parts:
    """The parts of a set; no image is in two of them. ``validation`` is prepared as the test images
    are.
    """

    train: Images
    validation: Images | None
    test: Images
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return self.train.classes

    @property
    def channels(self) -> int:
        """Channels of the images; picture files are decoded as RGB."""
        return self.train.images.shape[1] if isinstance(self.train, ImageSet) else 3

    def named(self) -> dict[str, Images]:
        """The parts that there are, by name."""
        found = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: part for name, part in found.items() if part is not None}

    def counts(self) -> dict[str, int]:
        """Number of images by part."""
        return {name: len(part) for name, part in self.named().items()}


def load_parts(
    data: DatasetSettings, seed: int, report: Report | None = None, progress: bool = True
) -> Parts:
    """Load, or list, the images of a run; parameters and errors as of the functions of datasets."""
    resident = data.name != "folder" if data.resident is None else data.resident
    if not resident:
        files, side = scan_part(data.root, "train"), data.size or FOLDER_SIZE
        learnt, judged = _split(files, files, data, seed)
        tested = _some(scan_part(data.root, "test"), data.test_subset, seed)
        return Parts(learnt, judged, tested, *measure(str(data.root), side), side)

    def load(part: Part) -> ImageSet:
        return load_part(data, part, report=report, progress=progress)

    train = load("train")
    as_tested = train
    cropped = data.name == "folder" and data.test_crop < 1
    if data.validation and (data.test_size not in (None, data.size) or cropped):
        as_tested = load_part(data, "train", as_tested=True, progress=progress)
    in_memory, aside = _split(train, as_tested, data, seed)
    test = _some(load("test"), data.test_subset, seed)
    return Parts(in_memory, aside, test, train.mean, train.std, train.images.shape[-1])


def _split(train: One, as_tested: One, data: DatasetSettings, seed: int) -> tuple[One, One | None]:
    """Images that are learnt, and those of them that are kept aside, prepared as test images."""
    learnt, aside = split_validation(_some(train, data.subset, seed), data.validation, seed)
    kept = _some(as_tested, data.subset, seed).only(aside) if data.validation else None
    return _some(train, data.subset, seed).only(learnt), kept


def _some(part: One, number: int | None, seed: int) -> One:
    return part if number is None else subset(part, number, seed)
