"""Labelled pictures that loaders read, and change at random in training."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from PIL import Image
from torch.utils.data import Dataset

from siamese.data.batch_augmentation import BatchAugmentation
from siamese.data.decode import DecodeError, decode
from siamese.data.folder import FaceFolder
from siamese.data.kept_pictures import KeptPictures

Transform = Callable[[Any], torch.Tensor]
_AT_A_TIME = 16  # pictures that a loader reads before it changes them


class PictureReader(Protocol):
    """What gives preprocessed pictures without decoding them; see :mod:`siamese.data.cache`."""

    def read(self, root: Path, path: str) -> torch.Tensor:
        """The picture ``root / path``, uint8 (3, H, W).

        Raises:
            DecodeError: it cannot be decoded.
        """


class Draw(NamedTuple):
    """One picture drawn for training (its position), and the seed of its augmentation."""

    picture: int
    seed: int


class Sample(NamedTuple):
    """One picture of a batch; its image is None where it could not be decoded."""

    image: torch.Tensor | None
    label: int
    picture: int
    failed: tuple[tuple[str, str], ...]
    numbers: torch.Tensor | None = None


class Pictures(Dataset[Sample]):
    """Labelled pictures, for every task: read, and changed at random in training.

    The randomness derives from a draw's seed alone, so it is the same with any number of loader
    processes and after a resume.

    Args:
        labels: one per picture.
        read: the picture at a position; raises ``DecodeError`` where it cannot be decoded.
        change: makes the network's input of a read picture, at random with torch's global
            generator, which is seeded for each draw; None: what was read is the input.
        numbers: how many uniform random numbers go with each picture, for a change that is made to
            whole batches.
    """

    def __init__(
        self,
        paths: Sequence[str],
        labels: Sequence[int],
        read: Callable[[int], Any],
        change: Transform | None = None,
        *,
        numbers: int = 0,
        replace_broken: bool = False,
    ):
        self.paths, self.labels, self.read, self.change = paths, labels, read, change
        self._numbers = numbers
        self._replacements: dict[int, list[int]] = {}
        if replace_broken:
            for position, label in enumerate(labels):
                self._replacements.setdefault(label, []).append(position)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, draw: Draw | int) -> Sample:
        return self.__getitems__([draw])[0]

    def __getitems__(self, draws: Sequence[Draw | int]) -> list[Sample]:
        """A batch's samples; some are read, then changed, at a time.

        One after the other, each of the two would find the processor's caches full of the other's
        code, and takes a sixth more time. All of a batch may be too large for memory as they are
        read.
        """
        samples = []
        for first in range(0, len(draws), _AT_A_TIME):
            some = draws[first : first + _AT_A_TIME]
            read = [self._read(draw) for draw in some]
            seeds = [draw.seed if isinstance(draw, Draw) else 0 for draw in some]
            samples += [self._changed(*one) for one in zip(read, seeds, strict=True)]
        return samples

    def _read(self, draw: Draw | int) -> Sample:
        position = draw.picture if isinstance(draw, Draw) else draw
        label, failed = self.labels[position], list[tuple[str, str]]()
        for candidate in self._candidates(position, label):
            try:
                return Sample(self.read(candidate), label, candidate, tuple(failed))
            except DecodeError as error:
                failed.append((self.paths[candidate], str(error)))
        return Sample(None, label, position, tuple(failed))

    def _candidates(self, position: int, label: int) -> Iterator[int]:
        yield position
        alike = self._replacements.get(label)
        if alike is not None:
            place = bisect_left(alike, position)
            yield from alike[place + 1 :]
            yield from alike[:place]

    def _changed(self, sample: Sample, seed: int) -> Sample:
        if sample.image is None or (self.change is None and self._numbers == 0):
            return sample
        # torch.manual_seed and fork_rng ask every backend and cost as much as the decoding.
        state = torch.get_rng_state()
        torch.default_generator.manual_seed(seed)
        try:
            image = sample.image if self.change is None else self.change(sample.image)
            numbers = torch.rand(self._numbers) if self._numbers > 0 else None
            return sample._replace(image=image, numbers=numbers)
        finally:
            torch.set_rng_state(state)


def face_pictures(
    folder: FaceFolder,
    preprocess: Transform,
    size: int | None,
    cache: PictureReader | None = None,
    *,
    augment: Transform | BatchAugmentation | None = None,
    kept: KeptPictures | None = None,
) -> Pictures:
    """The pictures of a face folder, augmented for training or as they are for evaluation.

    Args:
        preprocess: a decoded picture to uint8 (3, H, W).
        size: side for which large JPEGs may be decoded reduced (see
            :func:`siamese.data.decode.decode`); None where the preprocessing counts their pixels.
        cache: gives the preprocessed pictures instead; None: they are decoded.
        augment: changes each picture, or is to change whole batches later; None: not for training.
        kept: where preprocessed pictures stay when they are decoded; None: nowhere.
    """
    read: Callable[[int], torch.Tensor]
    read = _Reader(folder.root, folder.paths, preprocess, size, cache)
    if kept is not None:
        read = partial(kept.read, read)
    replaced, numbers = augment is not None, 0
    if isinstance(augment, BatchAugmentation):  # for which loaders only draw
        numbers, augment = augment.numbers, None
    return Pictures(
        folder.paths, folder.labels, read, augment, numbers=numbers, replace_broken=replaced
    )


@dataclass(frozen=True)
class _Reader:
    root: Path
    paths: Sequence[str]
    preprocess: Transform
    size: int | None
    cache: PictureReader | None

    def __call__(self, position: int) -> torch.Tensor:
        path = self.paths[position]
        if self.cache is not None:
            return self.cache.read(self.root, path)
        return self.preprocess(decode(self.root / path, self.size))


def thumbnail(path: Path, size: int) -> Image.Image:
    """A small square copy of a picture, for contact sheets and TensorBoard's sprites."""
    return decode(path, size).resize((size, size), Image.Resampling.BILINEAR)
