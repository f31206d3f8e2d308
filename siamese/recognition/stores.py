"""What a gallery's database must do, whichever it is, and which one an address names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Protocol

import numpy as np
import numpy.typing as npt

from siamese.errors import UserError

Vectors = npt.NDArray[np.float32]

VERSION = 1
POSTGRES = ("postgresql://", "postgres://")
# An embedding is of unit length but for float32's rounding; what is stored is checked.
_ROUNDING = 1e-3


@dataclass(frozen=True)
class Head:
    """What a gallery knows of the model whose embeddings it holds.

    Attributes:
        fingerprint: see :func:`siamese.models.fingerprint.fingerprint`.
        dimensions: length D of an embedding (mapped, where the scoring of the model maps it).
        flip: whether each embedding is the average with the mirrored picture's.
        checkpoint: the model's file when the gallery was made.
        made: when, ISO 8601 in UTC.
    """

    fingerprint: str
    dimensions: int
    flip: bool
    checkpoint: str
    made: str


# Both databases name their columns like the fields.
HEAD = ", ".join(field.name for field in fields(Head))
PICTURE = "path, digest, enrolled, picture.embedding"


def head_values(head: Head) -> tuple[object, ...]:
    """The fields in the order of :data:`HEAD`."""
    return tuple(getattr(head, field.name) for field in fields(Head))


@dataclass(frozen=True)
class StoredPicture:
    """An enrolled picture.

    Attributes:
        path: absolute; ``upload://NAME`` where it never was a file of this machine.
        digest: SHA-256 of the file, hex.
        enrolled: when, ISO 8601 in UTC.
        embedding: float32 (D,) of unit length.
    """

    path: str
    digest: str
    enrolled: str
    embedding: Vectors


@dataclass(frozen=True)
class Person:
    """An enrolled person.

    Attributes:
        name: in Unicode's form NFC.
        pictures: how many.
        first: when the first of them was enrolled, ISO 8601 in UTC.
        last: when the last was.
    """

    name: str
    pictures: int
    first: str
    last: str


@dataclass(frozen=True)
class Neighbour:
    """A person near a searched picture.

    Attributes:
        name: the person's.
        path: of their enrolled picture that is nearest to it.
        embedding: float32 (D,), of that picture, of unit length.
    """

    name: str
    path: str
    embedding: Vectors


class Store(Protocol):
    """A database of enrolled pictures. Each change is one transaction: all of it or nothing."""

    place: str

    def head(self) -> Head:
        """What the gallery knows of its model."""

    def people(self) -> list[Person]:
        """Everybody, by name."""

    def pictures(self, name: str) -> list[StoredPicture]:
        """A person's pictures in the order of enrolment; empty for unknown people."""

    def names_of(self, digests: Sequence[str]) -> dict[str, list[str]]:
        """Digest -> names under which that picture is enrolled; unknown ones are left out."""

    def people_with(self, beginning: str) -> list[str]:
        """Names of those who have a picture whose path begins so, in order."""

    def add(self, people: Mapping[str, Sequence[StoredPicture]], fingerprint: str) -> int:
        """Enrol pictures; returns how many are new.

        A picture that the person has already is passed over.

        Raises:
            UserError: the gallery is of another model by now.
        """

    def remove(self, names: Sequence[str]) -> int:
        """Remove people and what is stored of them, beyond recovery from the file.

        Returns the number of pictures.
        """

    def nearest(self, queries: Vectors, people: int, *, approximate: bool) -> list[list[Neighbour]]:
        """The nearest people of each of some unit vectors (Q, D), by their best picture.

        In no order. A database may give a few more than asked for, and orders by arithmetic of its
        own: whoever asks scores them anew.
        """

    def index(self) -> float | None:
        """Make the approximate index unless it is there; recall@1 as it was measured, if it can."""

    def outdated(self, fingerprint: str, most: int) -> list[tuple[int, StoredPicture]]:
        """Some pictures, with their numbers, that have no embedding of a new model yet."""

    def renew(self, embeddings: Mapping[int, Vectors], fingerprint: str) -> None:
        """Keep embeddings of a new model beside the old ones, by the pictures' numbers."""

    def switch(self, head: Head) -> bool:
        """Replace all embeddings by the new ones; False where a picture has none yet."""

    def close(self) -> None:
        """End the connection."""


def open_store(place: str, head: Head | None = None) -> Store:
    """Open a gallery.

    Args:
        place: a file, or ``postgresql://...``.
        head: with one a gallery that is not there is made.

    Raises:
        NoGallery: there is none.
        UserError: it cannot be opened, is damaged or something else; a library is missing.
    """
    if place.startswith(POSTGRES):
        from siamese.recognition.postgres_store import PostgresStore

        return PostgresStore(place, head)
    if "://" in place:
        raise UserError(f"`gallery` {place}: give a file, or postgresql://USER@HOST/DATABASE")
    from siamese.recognition.sqlite_store import SqliteStore

    return SqliteStore(place, head)


def now() -> str:
    """The time, ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def checked(vectors: Vectors, place: str) -> Vectors:
    """Stored embeddings (N, D), which must be of unit length.

    Raises:
        UserError: they are not: the gallery is damaged.
    """
    lengths = np.einsum("nd,nd->n", vectors, vectors)
    if not (np.abs(lengths - 1) < _ROUNDING).all():  # also where one is NaN
        raise UserError(f"`gallery` {place}: is damaged, an embedding is not of unit length")
    return vectors


class NoGallery(UserError):  # noqa: N818 - a state of the database
    """There is none yet."""


def no_gallery(place: str) -> NoGallery:
    """The error of a place without a gallery."""
    return NoGallery(f"`gallery` {place}: no such gallery; make one with siamese-use enroll FOLDER")


def other_model(place: str) -> UserError:
    """The error of a gallery whose embeddings are another model's."""
    return UserError(
        f"`gallery` {place}: holds embeddings of another model or scoring, which cannot be "
        "compared; give that model with `checkpoint`, or embed everybody anew: siamese-use migrate"
    )
