"""The gallery of a service: its connections belong to one thread each, for reading and writing."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from siamese.models.inference import Embedder, Vectors
from siamese.recognition.gallery import Enrolment, Gallery, Identity, Upload
from siamese.recognition.stores import POSTGRES, NoGallery, Person

Result = TypeVar("Result")


class _Connection:
    """A gallery that is opened where it is first used, and anew where its file was replaced."""

    def __init__(self, place: str, model: Embedder, name: str):
        self._place, self._model = place, model
        self._gallery: Gallery | None = None
        self._file: tuple[int, int] | None = None
        self._thread = ThreadPoolExecutor(1, name)

    def do(self, work: Callable[[Gallery | None], Result], *, make: bool = False) -> Future[Result]:
        """Work on the gallery in its thread; None: there is none, unless ``make`` makes it."""
        return self._thread.submit(lambda: work(self._opened(make)))

    def close(self) -> None:
        """Finish what was begun, and end the connection."""
        self._thread.submit(self._end).result()
        self._thread.shutdown()

    def _end(self) -> None:
        if self._gallery is not None:
            self._gallery.close()
            self._gallery = None

    def _opened(self, make: bool) -> Gallery | None:
        if self._gallery is not None and self._file != self._present_file():
            self._end()  # what is written to a removed file would be lost
        if self._gallery is None:
            try:
                self._gallery = Gallery(self._place, self._model, create=make)
            except NoGallery:
                return None
            self._file = self._present_file()
        self._gallery.require_own_model()
        return self._gallery

    def _present_file(self) -> tuple[int, int] | None:
        if self._place.startswith(POSTGRES):
            return None
        try:
            status = os.stat(self._place)
        except OSError:
            return None
        return status.st_dev, status.st_ino


class Keeper:
    """Searches, lists and changes a gallery on behalf of requests.

    One connection reads and one writes, so that nobody who searches waits for a disk. Where there
    is no gallery everybody is unknown; the first enrolment makes one.

    Args:
        place: a file, or ``postgresql://...``.
        model: the embedder, whose fingerprint the gallery must have.
    """

    def __init__(self, place: str, model: Embedder):
        self._reader = _Connection(place, model, "siamese-reader")
        self._writer = _Connection(place, model, "siamese-writer")

    def people(self) -> Future[list[Person]]:
        """Everybody, by name."""
        return self._reader.do(lambda gallery: [] if gallery is None else gallery.people())

    def is_flipped(self) -> Future[bool | None]:
        """Whether its embeddings are averaged with mirrored pictures'; None without a gallery."""
        return self._reader.do(lambda gallery: None if gallery is None else gallery.head.flip)

    def identify(self, vector: Vectors, top: int, prior: float) -> Future[Identity | None]:
        """Whom an embedding (1, D) shows; None: there is no gallery."""
        return self._reader.do(
            lambda gallery: (
                None
                if gallery is None
                else gallery.identify_embeddings(vector, top=top, prior=prior)[0]
            )
        )

    def enroll(self, name: str, pictures: Sequence[Upload]) -> Future[Enrolment]:
        """Enrol all of one person's pictures, in one transaction."""

        def work(gallery: Gallery | None) -> Enrolment:
            assert gallery is not None
            return gallery.enroll_uploads(name, pictures)

        return self._writer.do(work, make=True)

    def forget(self, name: str) -> Future[int | None]:
        """Remove a person; the number of their pictures, or None: nobody of that name."""

        def work(gallery: Gallery | None) -> int | None:
            if gallery is None or not gallery.has(name):
                return None
            return gallery.forget([name])

        return self._writer.do(work)

    def close(self) -> None:
        """Finish what was begun."""
        self._writer.close()
        self._reader.close()
