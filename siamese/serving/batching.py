"""Pictures of many requests go through the network together, in one thread that owns it."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import numpy as np
import torch

from siamese.models.inference import Embedder, Vectors

# Nothing is put off for longer, whatever the settings say: a stuck decoder must not stop others.
_LONGEST_WAIT = 1.0


@dataclass
class _Job:
    """Prepared pictures of one request, uint8 (n, 3, size, size), and who waits for them."""

    images: torch.Tensor
    flip: bool
    answer: Future[Vectors] = field(default_factory=Future)


class Batcher:
    """Embeds what requests bring, as much of it at once as is there.

    A pass begins as soon as the network is free. While it runs the next pictures gather, so the
    batches grow with the load by themselves. Where other requests are being decoded at that moment
    (:meth:`coming`) a pass waits for them for a short time; a sole request never waits.

    Args:
        model: used by this object's thread only.
        most: pictures in a pass; one request's stay together and may be more.
        wait: seconds that a pass waits at most.

    Attributes:
        passes: how many there were.
        pictures: in all of them together.
    """

    def __init__(self, model: Embedder, most: int, wait: float):
        self._model, self._most, self._wait = model, most, min(wait, _LONGEST_WAIT)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._coming, self._lock = 0, threading.Lock()
        self.passes = self.pictures = 0
        self._thread = threading.Thread(target=self._work, name="siamese-network", daemon=True)
        self._thread.start()

    def embed(self, images: torch.Tensor, *, flip: bool) -> Future[Vectors]:
        """Embeddings float32 (n, D), some time later, of prepared pictures (n, 3, size, size)."""
        job = _Job(images, flip)
        self._jobs.put(job)
        return job.answer

    @contextmanager
    def coming(self) -> Iterator[None]:
        """Inside, pictures are on their way here that a pass may wait for."""
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def close(self) -> None:
        """Embed what is there already, then end."""
        self._jobs.put(None)
        self._thread.join()

    def _count(self, change: int) -> None:
        with self._lock:
            self._coming += change

    def _work(self) -> None:
        open_ = True
        while open_:
            jobs, open_ = self._gathered()
            for flip in (False, True):
                if some := [job for job in jobs if job.flip is flip]:
                    self._pass(some, flip)

    def _gathered(self) -> tuple[list[_Job], bool]:
        """What the next pass takes, and whether there may be more after it."""
        jobs: list[_Job] = []
        pictures, deadline = 0, 0.0
        while pictures < self._most:
            try:
                job = self._jobs.get(timeout=self._patience(deadline) if jobs else None)
            except queue.Empty:
                if self._patience(deadline) > 0:
                    continue
                break
            if job is None:
                return jobs, False
            if not jobs:
                deadline = time.monotonic() + self._wait
            jobs.append(job)
            pictures += len(job.images)
        return jobs, True

    def _patience(self, deadline: float) -> float:
        """Seconds to look at the queue; what is decoding may fail, so not all of them at once."""
        if self._coming <= 0:
            return 0.0
        return min(0.001, max(0.0, deadline - time.monotonic()))

    def _pass(self, jobs: Sequence[_Job], flip: bool) -> None:
        """One pass for some requests; what goes wrong is told to each of them."""
        waiting = [job for job in jobs if job.answer.set_running_or_notify_cancel()]
        if not waiting:
            return
        try:
            images = torch.cat([job.images for job in waiting])
            self.passes, self.pictures = self.passes + 1, self.pictures + len(images)
            vectors = self._model.embed_prepared(images, flip=flip)
            ends = np.cumsum([len(job.images) for job in waiting])[:-1]
            parts = np.split(vectors, ends)
        except BaseException as error:
            for job in waiting:
                job.answer.set_exception(error)
            return
        for job, part in zip(waiting, parts, strict=True):
            with suppress(Exception):  # whoever asked is gone
                job.answer.set_result(part)
