"""Loader processes: batches of pictures for training, in plain order for evaluation."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from siamese.data.folder import FaceFolder
from siamese.data.labelled_pictures import (
    Draw,
    PictureReader,
    Pictures,
    Sample,
    Transform,
    face_pictures,
)
from siamese.processors import processors

_GRACE = 30  # seconds that a loader of training outlives a SIGTERM


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
        **loader_options(workers, pin_memory, persistent=True, patient=True, collate=collate),
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
    patient: bool = False,
) -> DataLoader[Any]:
    """Loader of :class:`Batch` objects over a folder's pictures in their order.

    Args:
        positions: of the pictures that are wanted; None: all.
        then: what loaders make of each batch, and give instead; None: nothing.
        patient: for training; see :func:`loader_options`.
    """
    return ordered_loader(
        face_pictures(folder, preprocess, size, cache),
        batch_size=batch_size,
        workers=workers,
        pin_memory=pin_memory,
        positions=positions,
        then=then,
        patient=patient,
    )


def ordered_loader(
    pictures: Pictures,
    *,
    batch_size: int,
    workers: int,
    pin_memory: bool,
    positions: Sequence[int] | None = None,
    then: Callable[[Batch], Any] | None = None,
    patient: bool = False,
) -> DataLoader[Any]:
    """Loader of :class:`Batch` objects over pictures in their order; see above."""
    made = collate if then is None else _Then(then)
    return DataLoader(
        pictures,
        batch_size=batch_size,
        sampler=positions,
        **loader_options(workers, pin_memory, patient=patient, collate=made),
    )


def loader_options(
    workers: int,
    pin_memory: bool,
    *,
    collate: Callable[[Any], Any],
    persistent: bool = False,
    patient: bool = False,
) -> dict[str, Any]:
    """What every DataLoader here is made with.

    Args:
        persistent: whether its processes outlive an iteration.
        patient: whether they outlive a first SIGTERM, as the training does that they serve.
    """
    options: dict[str, Any] = {
        "num_workers": workers,
        "pin_memory": pin_memory,
        "collate_fn": _Shared(collate) if workers > 0 else collate,
        "worker_init_fn": start_training_worker if patient else start_worker,
        # A generator of the loader's own: its draws must not move the training's random state.
        "generator": torch.Generator().manual_seed(0),
    }
    if workers > 0:
        options |= {"persistent_workers": persistent, "prefetch_factor": 4}
    return options


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
