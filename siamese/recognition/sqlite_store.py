"""A gallery in one SQLite file, searched exactly by a matrix product in memory."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from siamese.errors import UserError
from siamese.files.places import is_regular
from siamese.recognition.stores import (
    HEAD,
    PICTURE,
    VERSION,
    Head,
    Neighbour,
    Person,
    StoredPicture,
    Vectors,
    checked,
    head_values,
    no_gallery,
    other_model,
)

_APPLICATION = 0x5349414D  # "SIAM", in the file's header
_WAIT = 60.0  # seconds that one who writes waits for another
_TABLES = """
    CREATE TABLE head (
        fingerprint TEXT NOT NULL, dimensions INTEGER NOT NULL, flip INTEGER NOT NULL,
        checkpoint TEXT NOT NULL, made TEXT NOT NULL
    );
    CREATE TABLE person (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
    CREATE TABLE picture (
        id INTEGER PRIMARY KEY, person INTEGER NOT NULL REFERENCES person ON DELETE CASCADE,
        path TEXT NOT NULL, digest TEXT NOT NULL, enrolled TEXT NOT NULL, embedding BLOB NOT NULL,
        UNIQUE (person, digest)
    );
    CREATE INDEX picture_digest ON picture (digest);
    CREATE TABLE renewed (
        picture INTEGER PRIMARY KEY REFERENCES picture ON DELETE CASCADE,
        fingerprint TEXT NOT NULL, embedding BLOB NOT NULL
    );
"""
_BLOCK = 16_384  # rows that are read at a time
_SCORES = 2**24  # scores that are held at a time
_MOST_DIMENSIONS = 2**16


@dataclass(frozen=True)
class _Matrix:
    """All embeddings in memory, each person's side by side.

    Attributes:
        vectors: float32 (N, D).
        pictures: int64 (N,), numbers of the pictures.
        starts: int64 (P,), each person's first row.
        names: of the people.
    """

    vectors: Vectors
    pictures: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    names: tuple[str, ...]

    @cached_property
    def ends(self) -> npt.NDArray[np.int64]:
        """int64 (P,), the row after each person's last."""
        return np.append(self.starts[1:], len(self.vectors))

    def nearest(self, queries: Vectors, most: int) -> Iterator[list[tuple[int, int]]]:
        """For each query its nearest people: their positions and their nearest pictures' rows."""
        most = min(most, len(self.names))
        at_once = max(1, _SCORES // len(self.names))
        for first in range(0, len(queries), at_once):
            part = queries[first : first + at_once]
            people = np.argpartition(-self._best(part), most - 1, axis=1)[:, :most]
            for query, positions in zip(part, people, strict=True):
                rows = [slice(self.starts[i], self.ends[i]) for i in positions]
                yield [
                    (int(i), row.start + int((self.vectors[row] @ query).argmax()))
                    for i, row in zip(positions, rows, strict=True)
                ]

    def _best(self, queries: Vectors) -> Vectors:
        """Each query's best score with each person, (Q, P)."""
        best = np.empty((len(queries), len(self.names)), np.float32)
        rows, person = max(1, _SCORES // len(queries)), 0
        while person < len(self.names):
            start = self.starts[person]
            stop = max(person + 1, int(np.searchsorted(self.ends, start + rows, side="right")))
            scores = queries @ self.vectors[start : self.ends[stop - 1]].T
            best[:, person:stop] = np.maximum.reduceat(
                scores, self.starts[person:stop] - start, axis=1
            )
            person = stop
        return best


class SqliteStore:
    """See :class:`siamese.recognition.stores.Store`.

    The file has mode 0600; what is removed from it is overwritten. Reading needs no more than the
    file; searching holds all embeddings in memory, 4 bytes for each of N x D values.

    Args:
        place: the file.
        head: with one a file that is not there is made.

    Raises:
        NoGallery: no such file.
        UserError: it is damaged, or something else.
    """

    def __init__(self, place: str, head: Head | None = None):
        self.place = place
        path = Path(place)
        if head is not None and not os.path.lexists(path):
            _make(path, head)
        if not os.path.lexists(path):
            raise no_gallery(place)
        if not is_regular(path):
            raise UserError(f"`gallery` {place}: is no file")
        with self._errors():
            self._connection = sqlite3.connect(path, timeout=_WAIT, isolation_level=None)
            self._connection.executescript(
                "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;"
                "PRAGMA foreign_keys = ON; PRAGMA secure_delete = ON;"
            )
            numbers = [self._one(f"PRAGMA {name}") for name in ("application_id", "user_version")]
            if numbers[0] != _APPLICATION:
                raise UserError(f"`gallery` {place}: is no gallery, but another database")
            if numbers[1] > VERSION:
                raise UserError(f"`gallery` {place}: written by a newer siamese; update siamese")
            self._dimensions = self.head().dimensions
        self._matrix: tuple[int, _Matrix] | None = None

    def head(self) -> Head:
        """What the gallery knows of its model."""
        with self._errors():
            row = self._connection.execute(f"SELECT {HEAD} FROM head").fetchone()
            kinds = [str, int, int, str, str]
            if row is None or [type(value) for value in row] != kinds:
                raise self._damage()
            if not 0 < row[1] <= _MOST_DIMENSIONS:
                raise self._damage()
            return Head(row[0], row[1], bool(row[2]), row[3], row[4])

    def people(self) -> list[Person]:
        """Everybody, by name."""
        query = (
            "SELECT name, count(*), min(enrolled), max(enrolled) FROM person "
            "JOIN picture ON person = person.id GROUP BY person.id ORDER BY name"
        )
        return [Person(str(n), int(c), str(a), str(b)) for n, c, a, b in self._rows(query)]

    def pictures(self, name: str) -> list[StoredPicture]:
        """A person's pictures in the order of enrolment."""
        query = f"SELECT {PICTURE} FROM picture JOIN person ON person = person.id WHERE name = ?"
        rows = self._rows(f"{query} ORDER BY picture.id", (name,))
        return [self._picture(row) for row in rows]

    def names_of(self, digests: Sequence[str]) -> dict[str, list[str]]:
        """Digest -> names under which that picture is enrolled."""
        names: dict[str, list[str]] = {}
        query = "SELECT name FROM picture JOIN person ON person = person.id WHERE digest = ?"
        for digest in digests:
            if rows := self._rows(query, (digest,)):
                names[digest] = sorted({str(name) for (name,) in rows})
        return names

    def people_with(self, beginning: str) -> list[str]:
        """Names of those who have a picture whose path begins so, in order."""
        query = (
            "SELECT DISTINCT name FROM picture JOIN person ON person = person.id "
            "WHERE substr(path, 1, ?) = ? ORDER BY name"
        )
        return [str(name) for (name,) in self._rows(query, (len(beginning), beginning))]

    def add(self, people: Mapping[str, Sequence[StoredPicture]], fingerprint: str) -> int:
        """Enrol pictures; returns how many are new."""
        new = 0
        with self._changing(fingerprint) as connection:
            for name, pictures in people.items():
                connection.execute("INSERT OR IGNORE INTO person (name) VALUES (?)", (name,))
                number = self._one("SELECT id FROM person WHERE name = ?", (name,))
                for one in pictures:
                    row = (number, one.path, one.digest, one.enrolled, one.embedding.tobytes())
                    query = (
                        "INSERT OR IGNORE INTO picture (person, path, digest, enrolled, embedding) "
                        "VALUES (?, ?, ?, ?, ?)"
                    )
                    new += connection.execute(query, row).rowcount
        return new

    def remove(self, names: Sequence[str]) -> int:
        """Remove people; the freed pages are overwritten and given back to the disk."""
        removed = 0
        with self._changing() as connection:
            for name in names:
                query = "SELECT count(*) FROM picture JOIN person ON person = person.id"
                removed += self._one(f"{query} WHERE name = ?", (name,))
                connection.execute("DELETE FROM person WHERE name = ?", (name,))
        with self._errors():
            self._connection.execute("VACUUM")
        return removed

    def nearest(self, queries: Vectors, people: int, *, approximate: bool) -> list[list[Neighbour]]:
        """The nearest people of each unit vector, exactly."""
        if approximate:
            raise _no_index()
        matrix = self._loaded()
        if not len(matrix.names):
            return [[] for _ in queries]
        answers = []
        for found in matrix.nearest(queries, people):
            numbers = [int(matrix.pictures[row]) for _, row in found]
            marks = ", ".join("?" * len(numbers))
            paths = dict(self._rows(f"SELECT id, path FROM picture WHERE id IN ({marks})", numbers))
            answers.append(
                [
                    Neighbour(matrix.names[person], str(paths.get(number)), matrix.vectors[row])
                    for (person, row), number in zip(found, numbers, strict=True)
                ]
            )
        return answers

    def index(self) -> float | None:
        """There is none: every search is exact."""
        raise _no_index()

    def outdated(self, fingerprint: str, most: int) -> list[tuple[int, StoredPicture]]:
        """Some pictures that have no embedding of a new model yet."""
        query = (
            f"SELECT picture.id, {PICTURE} FROM picture LEFT JOIN renewed "
            "ON renewed.picture = picture.id AND renewed.fingerprint = ? "
            "WHERE renewed.picture IS NULL ORDER BY picture.id LIMIT ?"
        )
        rows = self._rows(query, (fingerprint, most))
        return [(int(row[0]), self._picture(row[1:])) for row in rows]

    def renew(self, embeddings: Mapping[int, Vectors], fingerprint: str) -> None:
        """Keep embeddings of a new model beside the old ones."""
        rows = [(number, fingerprint, vector.tobytes()) for number, vector in embeddings.items()]
        with self._changing() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO renewed SELECT ?1, ?2, ?3 "
                "WHERE EXISTS (SELECT 1 FROM picture WHERE id = ?1)",
                rows,
            )

    def switch(self, head: Head) -> bool:
        """Replace all embeddings by the new ones; False where a picture has none yet."""
        with self._changing() as connection:
            of_new = "renewed.picture = picture.id AND renewed.fingerprint = ?"
            exists = f"EXISTS (SELECT 1 FROM renewed WHERE {of_new})"
            mark = (head.fingerprint,)
            if self._one(f"SELECT count(*) FROM picture WHERE NOT {exists}", mark):
                return False
            embedding = f"(SELECT renewed.embedding FROM renewed WHERE {of_new})"
            connection.execute(f"UPDATE picture SET embedding = {embedding}", mark)
            connection.execute("DELETE FROM renewed")
            connection.execute(f"UPDATE head SET ({HEAD}) = (?, ?, ?, ?, ?)", head_values(head))
        self._dimensions = head.dimensions
        return True

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def _loaded(self) -> _Matrix:
        """The embeddings as they are now; read again only where the file has changed."""
        version = int(self._one("PRAGMA data_version"))
        if self._matrix is None or self._matrix[0] != version:
            with self._errors():
                self._connection.execute("BEGIN")  # one state, whoever writes meanwhile
                try:
                    self._matrix = version, self._read_matrix()
                finally:
                    self._connection.execute("COMMIT")
        return self._matrix[1]

    def _read_matrix(self) -> _Matrix:
        pairs = self._connection.execute("SELECT person, id FROM picture ORDER BY person, id")
        try:
            numbers = np.fromiter((n for pair in pairs for n in pair), np.int64).reshape(-1, 2)
        except (TypeError, ValueError):
            raise self._damage() from None
        row_of = np.argsort(numbers[:, 1], kind="stable")  # the row of the i-th picture by number
        vectors = np.empty((len(numbers), self._dimensions), np.float32)
        cursor = self._connection.execute("SELECT embedding FROM picture ORDER BY id")
        for first in range(0, len(numbers), _BLOCK):
            blobs = [blob for (blob,) in cursor.fetchmany(_BLOCK)]
            vectors[row_of[first : first + len(blobs)]] = self._vectors(blobs)
        people, starts = np.unique(numbers[:, 0], return_index=True)
        name_of = dict(self._connection.execute("SELECT id, name FROM person"))
        if not set(people.tolist()) <= name_of.keys():
            raise self._damage()
        names = tuple(str(name_of[number]) for number in people.tolist())
        return _Matrix(vectors, numbers[:, 1], starts, names)

    def _vectors(self, blobs: Sequence[object]) -> Vectors:
        """Embeddings of one length; anything may stand in a file."""
        size = 4 * self._dimensions
        whole = [blob for blob in blobs if isinstance(blob, bytes) and len(blob) == size]
        if len(whole) < len(blobs):
            raise self._damage()
        joined = np.frombuffer(b"".join(whole), "<f4").reshape(-1, self._dimensions)
        return checked(joined.astype(np.float32, copy=False), self.place)

    def _picture(self, row: Sequence[Any]) -> StoredPicture:
        path, digest, enrolled = map(str, row[:3])
        return StoredPicture(path, digest, enrolled, self._vectors(row[3:])[0])

    @contextmanager
    def _changing(self, fingerprint: str | None = None) -> Iterator[sqlite3.Connection]:
        """A transaction that waits for others who write, and ends in all of it or nothing."""
        with self._errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                if fingerprint is not None and self.head().fingerprint != fingerprint:
                    raise other_model(self.place)
                yield self._connection
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                self._matrix = None

    def _rows(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with self._errors():
            return self._connection.execute(query, values).fetchall()

    def _one(self, query: str, values: Sequence[object] = ()) -> Any:
        rows = self._rows(query, values)
        if not rows:
            raise self._damage()
        return rows[0][0]

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """What SQLite refuses becomes one line that names the file."""
        try:
            yield
        except (sqlite3.Error, UnicodeError, OverflowError) as error:
            raise UserError(f"`gallery` {self.place}: cannot be used ({error})") from None

    def _damage(self) -> UserError:
        return UserError(f"`gallery` {self.place}: is damaged; restore it from a copy")


def _no_index() -> UserError:
    return UserError("`search` hnsw: needs a gallery in PostgreSQL; this one is exact")


def _make(path: Path, head: Head) -> None:
    """A new, empty gallery that only its owner may read; under its name only when it is whole.

    Raises:
        UserError: it cannot be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        connection = sqlite3.connect(draft)
        connection.executescript(
            f"PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {VERSION}; {_TABLES}"
        )
        connection.execute(f"INSERT INTO head ({HEAD}) VALUES (?, ?, ?, ?, ?)", head_values(head))
        connection.commit()
        connection.close()
        with suppress(FileExistsError):  # another process was quicker
            os.link(draft, path)
    except (OSError, sqlite3.Error) as error:
        raise UserError(f"`gallery` {path}: cannot be made ({error})") from None
    finally:
        draft.unlink(missing_ok=True)
