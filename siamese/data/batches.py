"""Batches: P x K draws for training, plain order for evaluation, from loader processes."""

from __future__ import annotations

import signal
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler

from siamese.data.batch_augmentation import BatchAugmentation
from siamese.data.decode import DecodeError, decode
from siamese.data.folder import FaceFolder
from siamese.errors import UserError
from siamese.processors import processors

Transform = Callable[[Any], torch.Tensor]

_AT_A_TIME = 16  # pictures that a loader reads before it changes them
_BESIDE_PIXELS = 1300  # bytes that a tensor and its place take
_GRACE = 30  # seconds that a loader of training outlives a SIGTERM


class PictureReader(Protocol):
    """What gives preprocessed pictures without decoding them; see :mod:`siamese.data.cache`."""

    def read(self, root: Path, path: str) -> torch.Tensor:
        """The picture ``root / path``, uint8 (3, H, W).

        Raises:
            DecodeError: it cannot be decoded.
        """


# Purposes of random streams: each has draws of its own.
TRAINING, RECALIBRATION, MIXING = 0, 1, 2


class Draw(NamedTuple):
    """One picture drawn for training (its position), and the seed of its augmentation."""

    picture: int
    seed: int


@dataclass
class Batch:
    """A batch as the loaders give it.

    Attributes:
        images: uint8 (N, 3, H, W), RGB.
        labels: int64 (N,).
        indices: int64 (N,), positions in the list of pictures.
        wanted: how many pictures were asked for; N is less where some could not be replaced.
        numbers: float32 (N, M), uniform random numbers in [0, 1) of each picture, for augmentation
            of the whole batch; None where it needs none.
    """

    images: torch.Tensor
    labels: torch.Tensor
    indices: torch.Tensor
    failed: list[tuple[str, str]]
    wanted: int
    numbers: torch.Tensor | None = None

    def pin_memory(self) -> Batch:
        """Called by the DataLoader, so that copies to a GPU can overlap with its work."""
        images, labels = self.images.pin_memory(), self.labels.pin_memory()
        numbers = None if self.numbers is None else self.numbers.pin_memory()
        return replace(self, images=images, labels=labels, numbers=numbers)


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
    keep: int = 0,
) -> Pictures:
    """The pictures of a face folder, augmented for training or as they are for evaluation.

    Args:
        preprocess: a decoded picture to uint8 (3, H, W).
        size: side for which large JPEGs may be decoded reduced (see
            :func:`siamese.data.decode.decode`); None where the preprocessing counts their pixels.
        cache: gives the preprocessed pictures instead; None: they are decoded.
        augment: changes each picture, or is to change whole batches later; None: not for training.
        keep: bytes that a loading process may use for preprocessed pictures, which it decodes once
            then.
    """
    read: Callable[[int], torch.Tensor]
    read = _Reader(folder.root, folder.paths, preprocess, size, cache)
    if keep > 0:
        read = _KeptPictures(read, keep)
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


class _KeptPictures:
    """The first pictures that are read stay in memory, as many as there is room for."""

    def __init__(self, read: Callable[[int], torch.Tensor], room: int):
        self._read, self._room = read, room
        self._kept: dict[int, torch.Tensor] = {}

    def __call__(self, position: int) -> torch.Tensor:
        kept = self._kept.get(position)
        if kept is None:
            kept = self._read(position)
            size = kept.nbytes + _BESIDE_PIXELS
            if size > self._room:
                return kept
            self._room -= size
            self._kept[position] = kept
        return kept.clone()  # a program's own augmentation may write into it


class _Batches(Sampler[list[Draw]]):
    """What all draws of training batches share: the key of an epoch's randomness, its batches."""

    seed: int
    batches_per_epoch: int

    def start_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Let the next iteration draw this epoch, from some batch on (for a resume)."""
        self._key = (self.seed, TRAINING, epoch)
        self._range = range(first_batch, self.batches_per_epoch)

    def start_recalibration(self, batches: int, first_batch: int = 0) -> None:
        """Let the next iteration draw the fixed batches of batch-norm recalibration."""
        self._key = (self.seed, RECALIBRATION, 0)
        self._range = range(first_batch, batches)

    def __len__(self) -> int:
        return len(self._range)


class PKBatches(_Batches):
    """Batches of P people with K pictures each, drawn as PML's ``MPerClassSampler`` draws them.

    People with fewer than K pictures give each of theirs, some of them again; people with a single
    picture are never drawn, as they have no genuine pair. With fewer than P people a batch holds
    all of them. The order depends on (seed, epoch) alone. Of several training processes each gets
    some of a batch's people; together they draw what one alone would.

    Args:
        labels: one label per picture.
        images_per_epoch: pictures drawn per epoch, rounded down to whole batches, at least one
            batch; None: as many as there are.

    Raises:
        UserError: fewer than two people with two pictures; more processes than people in a batch.
    """

    def __init__(
        self,
        labels: Sequence[int],
        people: int,
        images: int,
        images_per_epoch: int | None = None,
        seed: int = 0,
        *,
        rank: int = 0,
        world: int = 1,
    ):
        values = np.asarray(labels)
        counts = np.bincount(values)
        self._usable = np.flatnonzero(counts[values] >= 2)
        self._labels = values[self._usable]
        found, begins = np.unique(self._labels, return_index=True)
        if len(found) < 2:
            raise UserError(
                "training needs at least two people with two pictures each; "
                f"{len(found)} found: add pictures or lower `split.validation`"
            )
        # Per person, in the order of their first pictures: positions among the usable ones.
        places = np.split(np.argsort(self._labels, kind="stable"), np.cumsum(counts[found])[:-1])
        self._pictures = {int(found[at]): places[at] for at in np.argsort(begins)}
        self.people = min(people, len(found))
        self.images = images
        if self.people < world:
            raise UserError(
                f"`batches.people`: {self.people} people cannot be shared by {world} processes"
            )
        self._share = range(self.people * images)
        if world > 1:
            first, after = (self.people * at // world * images for at in (rank, rank + 1))
            self._share = range(first, after)
        self.batch_size = self.people * images
        drawn = images_per_epoch or len(values)
        self.batches_per_epoch = max(1, drawn // self.batch_size)
        self.seed = seed
        self.start_epoch(0)

    @property
    def drawn(self) -> str:
        """What a batch holds, in words."""
        return f"{self.people} people x {self.images} pictures"

    def __iter__(self) -> Iterator[list[Draw]]:
        order = self._draw_order(self._range.stop)
        for batch in self._range:
            positions = [batch * self.batch_size + place for place in self._share]
            yield [
                Draw(int(self._usable[order[at]]), derive_seed(*self._key, at)) for at in positions
            ]

    def _draw_order(self, batches: int) -> list[int]:
        """Positions among the usable pictures, batch after batch."""
        generator = np.random.RandomState(derive_seed(*self._key) % 2**32)
        shuffled = list(self._pictures)
        order: list[int] = []
        for _ in range(batches):
            generator.shuffle(shuffled)
            for person in shuffled[: self.people]:
                own = self._pictures[person]
                few = len(own) < self.images
                drawn = generator.choice(own, size=self.images, replace=few)
                order += drawn.tolist()
        # Where a person has fewer than K pictures PML may draw K times the same one.
        for first in range(0, len(order), self.images):
            own = self._pictures[int(self._labels[order[first]])]
            if len(own) < self.images:
                shares = np.resize(generator.permutation(own), self.images)
                order[first : first + self.images] = shares.tolist()
        return order


class SampledBatches(_Batches):
    """Batches of any torch sampler over the training pictures.

    The order is the sampler's own affair: where it is not a function of its ``set_epoch``, a
    resumed run draws other batches than the uninterrupted one would have.

    Args:
        batch_size: pictures per batch, where it gives single positions.

    Raises:
        UserError: the sampler has no length, or less than one batch.
    """

    def __init__(self, sampler: Iterable[Any], batch_size: int, seed: int = 0):
        first = next(iter(sampler), None)
        single = not isinstance(first, list | tuple)
        self._sampler = BatchSampler(sampler, batch_size, drop_last=True) if single else sampler
        self._inner, self.seed, self.batch_size = sampler, seed, batch_size
        try:
            self.batches_per_epoch = len(self._sampler)  # type: ignore[arg-type]
        except TypeError:
            raise UserError("`sampler`: has no length; give it a __len__") from None
        if self.batches_per_epoch < 1:
            raise UserError(f"`sampler`: gives less than one batch of {batch_size}")
        self.start_epoch(0)

    @property
    def drawn(self) -> str:
        """What a batch holds, in words."""
        return f"pictures that {type(self._inner).__name__} chooses"

    def start_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Let the next iteration draw this epoch, from some batch on (for a resume)."""
        set_epoch = getattr(self._inner, "set_epoch", None)
        if callable(set_epoch):
            set_epoch(epoch)
        super().start_epoch(epoch, first_batch)

    def start_recalibration(self, batches: int, first_batch: int = 0) -> None:
        """Let the next iteration draw an epoch's first batches, for batch-norm recalibration."""
        self.start_epoch(0)
        super().start_recalibration(min(batches, self.batches_per_epoch), first_batch)

    def __iter__(self) -> Iterator[list[Draw]]:
        drawn = islice(self._sampler, self._range.start, self._range.stop)
        for batch, positions in zip(self._range, drawn, strict=False):
            stream = (*self._key, batch)
            yield [Draw(int(p), derive_seed(*stream, at)) for at, p in enumerate(positions)]


def derive_seed(*parts: int) -> int:
    """A 63-bit seed from a few non-negative integers; nearby parts give unrelated seeds."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def default_workers(device_type: str) -> int:
    """Loader processes for this machine.

    A GPU is fed by all processors but one, eight at most. On a CPU the network itself uses every
    processor and the loader only has to run ahead: one process.
    """
    return 1 if device_type == "cpu" else max(1, min(8, processors() - 1))


def training_loader(
    pictures: Pictures, batches: Sampler[list[Draw]], *, workers: int, pin_memory: bool
) -> DataLoader[Any]:
    """Loader of :class:`Batch` objects, one per batch of draws, in the sampler's order."""
    return DataLoader(
        pictures,
        batch_sampler=batches,
        **loader_options(workers, pin_memory, persistent=True, collate=collate),
    )


def evaluation_loader(
    folder: FaceFolder,
    preprocess: Transform,
    size: int | None,
    *,
    batch_size: int,
    workers: int,
    pin_memory: bool = False,
    cache: PictureReader | None = None,
    positions: Sequence[int] | None = None,
    then: Callable[[Batch], Any] | None = None,
) -> DataLoader[Any]:
    """Loader of :class:`Batch` objects over a folder's pictures in their order.

    Args:
        positions: of the pictures that are wanted; None: all.
        then: what loaders make of each batch, and give instead; None: nothing.
    """
    return ordered_loader(
        face_pictures(folder, preprocess, size, cache),
        batch_size=batch_size,
        workers=workers,
        pin_memory=pin_memory,
        positions=positions,
        then=then,
    )


def ordered_loader(
    pictures: Pictures,
    *,
    batch_size: int,
    workers: int,
    pin_memory: bool,
    positions: Sequence[int] | None = None,
    then: Callable[[Batch], Any] | None = None,
) -> DataLoader[Any]:
    """Loader of :class:`Batch` objects over pictures in their order; see above."""
    made = collate if then is None else _Then(then)
    return DataLoader(
        pictures,
        batch_size=batch_size,
        sampler=positions,
        **loader_options(workers, pin_memory, persistent=False, collate=made),
    )


def through_loaders(
    batches: Sequence[Batch], make: Callable[[Batch], Any], workers: int
) -> DataLoader[Any]:
    """What loader processes make of batches that are in memory, in their order."""
    options = loader_options(workers, False, persistent=False, collate=make)
    return DataLoader(_Held(batches), batch_size=None, **options)


def loader_options(
    workers: int, pin_memory: bool, *, persistent: bool, collate: Callable[[Any], Any]
) -> dict[str, Any]:
    """What every DataLoader here is made with."""
    options: dict[str, Any] = {
        "num_workers": workers,
        "pin_memory": pin_memory,
        "collate_fn": _Shared(collate) if workers > 0 else collate,
        "worker_init_fn": start_training_worker if persistent else start_worker,
        # A generator of the loader's own: its draws must not move the training's random state.
        "generator": torch.Generator().manual_seed(0),
    }
    if workers > 0:
        options |= {"persistent_workers": persistent, "prefetch_factor": 4}
    return options


@dataclass(frozen=True)
class _Held(Dataset[Batch]):
    batches: Sequence[Batch]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, at: int) -> Batch:
        return self.batches[at]


@dataclass(frozen=True)
class _Then:
    """What is made of a collated batch."""

    make: Callable[[Batch], Any]

    def __call__(self, samples: list[Sample]) -> Any:
        return self.make(collate(samples))


class _Shared:
    """A batch's tensors are put into shared memory as they are collated.

    Done later, by the queue that sends them, a failure (a full ``/dev/shm``) would be raised in a
    thread that nobody listens to, and the training process would wait for the batch for ever.
    """

    def __init__(self, collate: Callable[[Any], Any]):
        self._collate = collate

    def __call__(self, samples: Any) -> Any:
        batch = self._collate(samples)
        for value in getattr(batch, "__dict__", {}).values():
            if isinstance(value, torch.Tensor):
                value.share_memory_()  # type: ignore[no-untyped-call]
        return batch


def start_worker(worker: int) -> None:
    """Prepare a loader process: one thread, and it leaves Ctrl-C to the process that it serves."""
    # Ctrl-C reaches the whole process group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)


def start_training_worker(worker: int) -> None:
    """The same for training, which finishes its step when it is stopped.

    SIGTERM reaches the whole process group, too, where a service manager sends it: it ends a loader
    after the first Ctrl-C, when it comes twice, or after a while.
    """

    def final(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if number == signal.SIGTERM:
            signal.alarm(_GRACE)

    start_worker(worker)
    signal.signal(signal.SIGINT, final)
    signal.signal(signal.SIGTERM, final)


def collate(samples: list[Sample]) -> Batch:
    """A batch of what could be decoded."""
    good = [sample for sample in samples if sample.image is not None]
    images = [sample.image for sample in good if sample.image is not None]
    numbers = [sample.numbers for sample in good if sample.numbers is not None]
    return Batch(
        images=torch.stack(images) if images else torch.empty(0, 3, 1, 1, dtype=torch.uint8),
        labels=torch.tensor([sample.label for sample in good], dtype=torch.int64),
        indices=torch.tensor([sample.picture for sample in good], dtype=torch.int64),
        failed=[item for sample in samples for item in sample.failed],
        wanted=len(samples),
        numbers=torch.stack(numbers) if numbers else None,
    )


def thumbnail(path: Path, size: int) -> Image.Image:
    """A small square copy of a picture, for contact sheets and TensorBoard's sprites."""
    return decode(path, size).resize((size, size), Image.Resampling.BILINEAR)
