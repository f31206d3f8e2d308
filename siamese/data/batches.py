"""Batches: P x K draws for training, plain order for evaluation, from loader processes."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Sampler

from siamese.data.decode import DecodeError, decode
from siamese.data.folder import FaceFolder
from siamese.errors import UserError
from siamese.processors import processors

Transform = Callable[[Any], torch.Tensor]


class PictureReader(Protocol):
    """What gives preprocessed pictures without decoding them; see :mod:`siamese.data.cache`."""

    def read(self, root: Path, path: str) -> torch.Tensor:
        """The picture ``root / path``, uint8 (3, H, W).

        Raises:
            DecodeError: it cannot be decoded.
        """


def _read(
    folder: FaceFolder,
    index: int,
    preprocess: Transform,
    size: int | None,
    cache: PictureReader | None,
) -> torch.Tensor:
    path = folder.paths[index]
    if cache is not None:
        return cache.read(folder.root, path)
    return preprocess(decode(folder.root / path, size))


# Purposes of random streams: each has batches and augmentation of its own.
_TRAINING, _RECALIBRATION = 0, 1


class Draw(NamedTuple):
    """One picture drawn for training (its position), and the key of its random stream."""

    picture: int
    key: tuple[int, ...]


@dataclass
class Batch:
    """A batch as the loaders give it.

    Attributes:
        images: uint8 (N, 3, H, W), RGB.
        labels: int64 (N,).
        indices: int64 (N,), positions in the folder's list of pictures.
        failed: (path, reason) of each picture that could not be decoded.
    """

    images: torch.Tensor
    labels: torch.Tensor
    indices: torch.Tensor
    failed: list[tuple[str, str]]

    def pin_memory(self) -> Batch:
        """Called by the DataLoader, so that copies to a GPU can overlap with its work."""
        return Batch(self.images.pin_memory(), self.labels.pin_memory(), self.indices, self.failed)


class _Sample(NamedTuple):
    image: torch.Tensor | None
    label: int
    picture: int
    failed: tuple[tuple[str, str], ...]


class TrainingPictures(Dataset[_Sample]):
    """Augmented pictures by :class:`Draw`.

    The augmentation's randomness derives from the draw's key alone (seed, purpose, epoch,
    position), so it is the same with any number of loader processes and after a resume. A
    picture that fails to decode is replaced by the same person's next one and reported.

    Args:
        folder: the pictures.
        preprocess: a decoded picture to uint8 (3, H, W).
        augment: changes that at random.
        size: side for which large JPEGs may be decoded reduced.
        cache: gives the preprocessed pictures instead; None: they are decoded.
    """

    def __init__(
        self,
        folder: FaceFolder,
        preprocess: Transform,
        augment: Transform,
        size: int,
        cache: PictureReader | None = None,
    ):
        self.folder, self.preprocess, self.augment, self.size = folder, preprocess, augment, size
        self.cache = cache
        labels = np.asarray(folder.labels)
        self._first = np.searchsorted(labels, labels, side="left")
        self._after = np.searchsorted(labels, labels, side="right")

    def __getitem__(self, draw: Draw) -> _Sample:
        failed: list[tuple[str, str]] = []
        image, index = self._decode(draw.picture, failed)
        if image is not None:
            # torch.manual_seed and fork_rng ask every backend and cost as much as the decoding.
            state = torch.get_rng_state()
            torch.default_generator.manual_seed(derive_seed(*draw.key))
            try:
                image = self.augment(image)
            finally:
                torch.set_rng_state(state)
        return _Sample(image, self.folder.labels[draw.picture], index, tuple(failed))

    def _decode(self, index: int, failed: list[tuple[str, str]]) -> tuple[torch.Tensor | None, int]:
        first, after = int(self._first[index]), int(self._after[index])
        for step in range(after - first):
            candidate = first + (index - first + step) % (after - first)
            try:
                image = _read(self.folder, candidate, self.preprocess, self.size, self.cache)
                return image, candidate
            except DecodeError as error:
                failed.append((self.folder.paths[candidate], str(error)))
        return None, index


class EvaluationPictures(Dataset[_Sample]):
    """Pictures in folder order, preprocessed and never augmented; broken ones come as failed."""

    def __init__(
        self,
        folder: FaceFolder,
        preprocess: Transform,
        size: int | None,
        cache: PictureReader | None = None,
    ):
        self.folder, self.preprocess, self.size, self.cache = folder, preprocess, size, cache

    def __len__(self) -> int:
        return len(self.folder.paths)

    def __getitem__(self, index: int) -> _Sample:
        path, label = self.folder.paths[index], self.folder.labels[index]
        try:
            image = _read(self.folder, index, self.preprocess, self.size, self.cache)
        except DecodeError as error:
            return _Sample(None, label, index, ((path, str(error)),))
        return _Sample(image, label, index, ())


class PKBatches(Sampler[list[Draw]]):
    """Batches of P people with K pictures each, drawn by PML's ``MPerClassSampler``.

    People with fewer than K pictures give each of theirs, some of them again; people with a single
    picture are never drawn, as they have no genuine pair. With fewer than P people a batch holds
    all of them. The order depends on (seed, epoch) alone.

    Args:
        labels: one label per picture.
        people: P.
        images: K.
        images_per_epoch: pictures drawn per epoch, rounded down to whole batches, at least one
            batch; None: as many as there are.
        seed: seed of the draws.

    Raises:
        UserError: fewer than two people with two pictures.
    """

    def __init__(
        self,
        labels: Sequence[int],
        people: int,
        images: int,
        images_per_epoch: int | None = None,
        seed: int = 0,
    ):
        values = np.asarray(labels)
        counts = np.bincount(values)
        self._usable = np.flatnonzero(counts[values] >= 2)
        self._labels = values[self._usable]
        self.people_available = len(np.unique(self._labels))
        if self.people_available < 2:
            raise UserError(
                "training needs at least two people with two pictures each; "
                f"{self.people_available} found: add pictures or lower --split.validation"
            )
        self.people = min(people, self.people_available)
        self.images = images
        self.batch_size = self.people * images
        drawn = images_per_epoch or len(values)
        self.batches_per_epoch = max(1, drawn // self.batch_size)
        self.seed = seed
        self.start_epoch(0)

    def start_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Let the next iteration draw this epoch, from some batch on (for a resume)."""
        self._key = (self.seed, _TRAINING, epoch)
        self._range = range(first_batch, self.batches_per_epoch)

    def start_recalibration(self, batches: int) -> None:
        """Let the next iteration draw the fixed batches of batch-norm recalibration."""
        self._key = (self.seed, _RECALIBRATION, 0)
        self._range = range(batches)

    def __len__(self) -> int:
        return len(self._range)

    def __iter__(self) -> Iterator[list[Draw]]:
        key, size = self._key, self.batch_size
        order = self._draw_order(key, self._range.stop)
        for batch in self._range:
            positions = range(batch * size, (batch + 1) * size)
            yield [Draw(int(self._usable[order[at]]), (*key, at)) for at in positions]

    def _draw_order(self, key: tuple[int, ...], batches: int) -> list[int]:
        # Here: it imports half of scikit-learn, which no evaluation needs.
        from pytorch_metric_learning.samplers import MPerClassSampler
        from pytorch_metric_learning.utils import common_functions

        # PML draws from one module-wide generator and keeps its shuffled labels: a sampler and a
        # generator of the epoch's own make the order a function of the key.
        sampler = MPerClassSampler(
            self._labels,
            m=self.images,
            batch_size=self.batch_size,
            length_before_new_iter=batches * self.batch_size,
        )
        generator = np.random.RandomState(derive_seed(*key) % 2**32)
        outer, common_functions.NUMPY_RANDOM = common_functions.NUMPY_RANDOM, generator
        try:
            order = list(sampler)
        finally:
            common_functions.NUMPY_RANDOM = outer
        # Where a person has fewer than K pictures PML may draw K times the same one.
        for first in range(0, len(order), self.images):
            own = sampler.labels_to_indices[self._labels[order[first]]]
            if len(own) < self.images:
                shares = np.resize(generator.permutation(own), self.images)
                order[first : first + self.images] = shares.tolist()
        return order


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
    pictures: TrainingPictures, batches: PKBatches, *, workers: int, pin_memory: bool
) -> DataLoader[Any]:
    """Loader of :class:`Batch` objects, one per P x K draw, in the sampler's order."""
    return DataLoader(
        pictures,
        batch_sampler=batches,
        **loader_options(workers, pin_memory, persistent=True, collate=_collate),
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
) -> DataLoader[Any]:
    """Loader of :class:`Batch` objects over every picture of a folder, in order.

    ``size`` lets large JPEGs be decoded reduced (see :func:`siamese.data.decode.decode`); None
    where the preprocessing counts their pixels. ``cache`` gives the preprocessed pictures instead.
    """
    return DataLoader(
        EvaluationPictures(folder, preprocess, size, cache),
        batch_size=batch_size,
        **loader_options(workers, pin_memory, persistent=False, collate=_collate),
    )


def loader_options(
    workers: int, pin_memory: bool, *, persistent: bool, collate: Callable[[list[Any]], Any]
) -> dict[str, Any]:
    """What every DataLoader here is made with.

    Args:
        workers: loader processes; 0: none.
        pin_memory: prepare the copies to a GPU.
        persistent: keep the processes from one pass to the next.
        collate: makes a batch of samples.
    """
    options: dict[str, Any] = {
        "num_workers": workers,
        "pin_memory": pin_memory,
        "collate_fn": _Shared(collate) if workers > 0 else collate,
        "worker_init_fn": start_worker,
        # A generator of the loader's own: its draws must not move the training's random state.
        "generator": torch.Generator().manual_seed(0),
    }
    if workers > 0:
        options |= {"persistent_workers": persistent, "prefetch_factor": 4}
    return options


class _Shared:
    """A batch's tensors are put into shared memory as they are collated.

    Done later, by the queue that sends them, a failure (a full ``/dev/shm``) would be told by a
    thread that nobody listens to, and the training process would wait for the batch for ever.
    """

    def __init__(self, collate: Callable[[list[Any]], Any]):
        self._collate = collate

    def __call__(self, samples: list[Any]) -> Any:
        batch = self._collate(samples)
        for value in getattr(batch, "__dict__", {}).values():
            if isinstance(value, torch.Tensor):
                value.share_memory_()  # type: ignore[no-untyped-call]
        return batch


def start_worker(worker: int) -> None:
    """Prepare a loader process: one thread, and it leaves Ctrl-C to the training process."""
    # Ctrl-C reaches the whole process group; the training process alone decides what follows.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)


def _collate(samples: list[_Sample]) -> Batch:
    good = [sample for sample in samples if sample.image is not None]
    images = [sample.image for sample in good if sample.image is not None]
    return Batch(
        images=torch.stack(images) if images else torch.empty(0, 3, 1, 1, dtype=torch.uint8),
        labels=torch.tensor([sample.label for sample in good], dtype=torch.int64),
        indices=torch.tensor([sample.picture for sample in good], dtype=torch.int64),
        failed=[item for sample in samples for item in sample.failed],
    )


def thumbnail(path: Path, size: int) -> Image.Image:
    """A small square copy of a picture, for contact sheets and TensorBoard's sprites."""
    return decode(path, size).resize((size, size), Image.Resampling.BILINEAR)
