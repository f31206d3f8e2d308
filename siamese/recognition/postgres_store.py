"""A gallery in PostgreSQL with pgvector, which many processes and machines share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from siamese.errors import UserError
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

# One who makes or switches a gallery is alone; any number will do.
_LOCK = 0x5349414D
_TABLES = """
    CREATE EXTENSION IF NOT EXISTS vector;
    CREATE SCHEMA siamese;
    CREATE TABLE siamese.head (
        one boolean PRIMARY KEY DEFAULT true CHECK (one), version integer NOT NULL,
        fingerprint text NOT NULL, dimensions integer NOT NULL, flip boolean NOT NULL,
        checkpoint text NOT NULL, made text NOT NULL, recall double precision
    );
    CREATE TABLE siamese.person (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE
    );
    CREATE TABLE siamese.picture (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        person bigint NOT NULL REFERENCES siamese.person ON DELETE CASCADE,
        path text NOT NULL, digest text NOT NULL, enrolled text NOT NULL, embedding vector NOT NULL,
        UNIQUE (person, digest)
    );
    ALTER TABLE siamese.picture ALTER COLUMN embedding SET STORAGE MAIN;
    CREATE INDEX picture_digest ON siamese.picture (digest);
    CREATE TABLE siamese.renewed (
        picture bigint PRIMARY KEY REFERENCES siamese.picture ON DELETE CASCADE,
        fingerprint text NOT NULL, embedding vector NOT NULL
    );
"""
_NO_ACCESS_FOR_OTHERS = "REVOKE ALL ON SCHEMA siamese FROM PUBLIC"
_MOST_INDEXED = 2000  # dimensions that pgvector's index takes
_PROBES = 200  # enrolled pictures that the index's recall is measured with
_BUILDING = 4096  # MB that building the index may take
_WIDE = 200  # candidates that a search of the index keeps (hnsw.ef_search)


class PostgresStore:
    """See :class:`siamese.recognition.stores.Store`.

    Tables lie in the schema ``siamese`` of the database. Exact search is the database's own scan;
    an approximate one goes through pgvector's HNSW (Malkov & Yashunin 2016).

    Args:
        place: ``postgresql://USER@HOST/DATABASE``; a password is better kept in ``~/.pgpass``.
        head: with one a gallery that is not there is made.

    Raises:
        NoGallery: there is none in the database.
        UserError: no connection; psycopg or pgvector are missing.
    """

    def __init__(self, place: str, head: Head | None = None):
        try:
            import psycopg
            from pgvector.psycopg import register_vector
        except ImportError:
            raise UserError(
                "`gallery` postgresql: needs a library: pip install 'siamese[postgres]'"
            ) from None
        self.place = _without_password(place)
        self._error = psycopg.Error
        with self._errors():
            self._connection = psycopg.connect(place, autocommit=True, connect_timeout=10)
            if not self._is_there():
                if head is None:
                    raise no_gallery(self.place)
                self._make(head)
            if self._one("SELECT version FROM siamese.head") > VERSION:
                raise UserError(f"`gallery` {self.place}: written by a newer siamese; update it")
            register_vector(self._connection)

    def head(self) -> Head:
        """What the gallery knows of its model."""
        rows = self._rows(f"SELECT {HEAD} FROM siamese.head")
        if not rows:
            raise UserError(f"`gallery` {self.place}: is damaged, its table head is empty")
        return Head(*rows[0])

    def people(self) -> list[Person]:
        """Everybody, by name."""
        query = (
            f"SELECT name, count(*), min(enrolled), max(enrolled) FROM {_JOINED} "
            'GROUP BY person.id ORDER BY name COLLATE "C"'
        )
        return [Person(*row) for row in self._rows(query)]

    def pictures(self, name: str) -> list[StoredPicture]:
        """A person's pictures in the order of enrolment."""
        query = f"SELECT {PICTURE} FROM {_JOINED} WHERE name = %s ORDER BY picture.id"
        return [self._picture(row) for row in self._rows(query, (name,))]

    def names_of(self, digests: Sequence[str]) -> dict[str, list[str]]:
        """Digest -> names under which that picture is enrolled."""
        query = f"SELECT DISTINCT digest, name FROM {_JOINED} WHERE digest = ANY(%s) ORDER BY name"
        names: dict[str, list[str]] = {}
        for digest, name in self._rows(query, (list(digests),)):
            names.setdefault(digest, []).append(name)
        return names

    def people_with(self, beginning: str) -> list[str]:
        """Names of those who have a picture whose path begins so, in order."""
        query = (
            f"SELECT name FROM {_JOINED} WHERE starts_with(path, %s) "
            'GROUP BY name ORDER BY name COLLATE "C"'
        )
        return [name for (name,) in self._rows(query, (beginning,))]

    def add(self, people: Mapping[str, Sequence[StoredPicture]], fingerprint: str) -> int:
        """Enrol pictures; returns how many are new."""
        new = 0
        with self._changing(fingerprint):
            for name in sorted(people):  # in one order, or two writers might wait for each other
                self._connection.execute(
                    "INSERT INTO siamese.person (name) VALUES (%s) ON CONFLICT DO NOTHING", (name,)
                )
                number = self._one(
                    "SELECT id FROM siamese.person WHERE name = %s FOR UPDATE", (name,)
                )
                rows = [
                    (number, one.path, one.digest, one.enrolled, one.embedding)
                    for one in people[name]
                ]
                cursor = self._connection.cursor()
                cursor.executemany(
                    "INSERT INTO siamese.picture (person, path, digest, enrolled, embedding) "
                    "VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
                    rows,
                )
                new += cursor.rowcount
        return new

    def remove(self, names: Sequence[str]) -> int:
        """Remove people; the tables are written anew without them (backups are yours to clean)."""
        with self._changing():
            query = f"SELECT count(*) FROM {_JOINED} WHERE name = ANY(%s)"
            removed = int(self._one(query, (list(names),)))
            query = "DELETE FROM siamese.person WHERE name = ANY(%s)"
            self._connection.execute(query, (list(names),))
        with self._errors():
            self._connection.execute("VACUUM FULL siamese.person, siamese.picture, siamese.renewed")
        return removed

    def nearest(self, queries: Vectors, people: int, *, approximate: bool) -> list[list[Neighbour]]:
        """The nearest people of each unit vector, exactly or by the index."""
        query = (
            f"WITH near AS ({_BY_INDEX if approximate else _EXACT}) "
            "SELECT DISTINCT ON (near.person) name, path, embedding FROM near "
            "JOIN siamese.person ON person.id = near.person "
            "JOIN siamese.picture ON picture.person = near.person "
            "ORDER BY near.person, embedding <#> %(query)s"
        )
        if approximate:
            query = query.format(dimensions=self.head().dimensions)
        answers = []
        with self._errors(), self._connection.transaction():
            if approximate:
                self._connection.execute(f"SET LOCAL hnsw.ef_search = {_WIDE}")
                self._connection.execute("SET LOCAL hnsw.iterative_scan = strict_order")
            for vector in queries:
                rows = self._connection.execute(query, {"query": vector, "most": people}).fetchall()
                answers.append([Neighbour(n, p, self._vector(vector)) for n, p, vector in rows])
        return answers

    def index(self) -> float | None:
        """Make the index unless it is there; its recall over some of the enrolled pictures.

        A picture finds itself, so what counts is the person next to it: the hardest search, as one
        for a stranger is. Pictures of enrolled people are found more surely.

        Raises:
            UserError: embeddings that are too long for it.
        """
        head = self.head()
        if head.dimensions > _MOST_INDEXED:
            raise UserError(
                f"`search` hnsw: the index takes {_MOST_INDEXED} dimensions, these are "
                f"{head.dimensions}; search exactly"
            )
        number = self._one("SELECT count(*) FROM siamese.picture")
        # Building is many times faster where the whole graph fits into this memory.
        megabytes = min(64 + number * head.dimensions * 6 // 2**20, _BUILDING)
        with self._errors(), self._connection.transaction():
            self._connection.execute(f"SET LOCAL maintenance_work_mem = '{megabytes}MB'")
            self._connection.execute(
                "CREATE INDEX IF NOT EXISTS picture_near ON siamese.picture USING hnsw "
                f"((embedding::vector({head.dimensions})) vector_ip_ops)"
            )
        query = "SELECT embedding FROM siamese.picture ORDER BY md5(digest) LIMIT %s"
        probes = self._rows(query, (_PROBES,))
        if not probes:
            return None
        vectors = np.stack([self._vector(one) for (one,) in probes])
        exact = self.nearest(vectors, 2, approximate=False)
        near = self.nearest(vectors, 2, approximate=True)
        found = [
            {one.name for one in true} <= {one.name for one in answer}
            for true, answer in zip(exact, near, strict=True)
        ]
        return float(np.mean(found))

    def outdated(self, fingerprint: str, most: int) -> list[tuple[int, StoredPicture]]:
        """Some pictures that have no embedding of a new model yet."""
        query = (
            f"SELECT picture.id, {PICTURE} FROM siamese.picture LEFT JOIN siamese.renewed "
            "ON renewed.picture = picture.id AND renewed.fingerprint = %s "
            "WHERE renewed.picture IS NULL ORDER BY picture.id LIMIT %s"
        )
        rows = self._rows(query, (fingerprint, most))
        return [(row[0], self._picture(row[1:])) for row in rows]

    def renew(self, embeddings: Mapping[int, Vectors], fingerprint: str) -> None:
        """Keep embeddings of a new model beside the old ones."""
        rows = [(fingerprint, vector, number) for number, vector in embeddings.items()]
        with self._changing():
            self._connection.cursor().executemany(
                "INSERT INTO siamese.renewed (picture, fingerprint, embedding) "
                "SELECT id, %s, %s FROM siamese.picture WHERE id = %s ON CONFLICT (picture) "
                "DO UPDATE SET fingerprint = excluded.fingerprint, embedding = excluded.embedding",
                rows,
            )

    def switch(self, head: Head) -> bool:
        """Replace all embeddings by the new ones; False where a picture has none yet."""
        with self._changing():
            self._connection.execute(
                "LOCK TABLE siamese.head, siamese.picture IN ACCESS EXCLUSIVE MODE"
            )
            of_new = "renewed.picture = picture.id AND renewed.fingerprint = %s"
            mark = (head.fingerprint,)
            if self._one(
                "SELECT count(*) FROM siamese.picture WHERE NOT EXISTS "
                f"(SELECT 1 FROM siamese.renewed WHERE {of_new})",
                mark,
            ):
                return False
            self._connection.execute("DROP INDEX IF EXISTS siamese.picture_near")
            self._connection.execute(
                "UPDATE siamese.picture SET embedding = renewed.embedding FROM siamese.renewed "
                f"WHERE {of_new}",
                mark,
            )
            self._connection.execute("DELETE FROM siamese.renewed")
            self._connection.execute(
                f"UPDATE siamese.head SET ({HEAD}) = (%s, %s, %s, %s, %s)", head_values(head)
            )
        return True

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def _is_there(self) -> bool:
        return self._one("SELECT to_regclass('siamese.head') IS NOT NULL") is True

    def _make(self, head: Head) -> None:
        with self._connection.transaction():
            self._connection.execute(f"SELECT pg_advisory_xact_lock({_LOCK})")
            if self._is_there():  # another process was quicker
                return
            self._connection.execute(_TABLES)
            self._connection.execute(_NO_ACCESS_FOR_OTHERS)
            self._connection.execute(
                f"INSERT INTO siamese.head (version, {HEAD}) VALUES (%s, %s, %s, %s, %s, %s)",
                (VERSION, *head_values(head)),
            )

    def _picture(self, row: Sequence[Any]) -> StoredPicture:
        return StoredPicture(row[0], row[1], row[2], self._vector(row[3]))

    def _vector(self, value: Any) -> Vectors:
        vector: Vectors = checked(value.to_numpy()[None].astype(np.float32), self.place)[0]
        return vector

    @contextmanager
    def _changing(self, fingerprint: str | None = None) -> Iterator[None]:
        """A transaction, which ends in all of it or nothing."""
        with self._errors(), self._connection.transaction():
            if fingerprint is not None:
                query = "SELECT fingerprint FROM siamese.head FOR SHARE"  # no switch meanwhile
                if self._one(query) != fingerprint:
                    raise other_model(self.place)
            yield

    def _rows(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with self._errors():
            return self._connection.execute(query, values).fetchall()

    def _one(self, query: str, values: Sequence[object] = ()) -> Any:
        return self._rows(query, values)[0][0]

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """What the database refuses becomes one line that names it."""
        try:
            yield
        except self._error as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"`gallery` {self.place}: {reason}") from None


_JOINED = "siamese.picture JOIN siamese.person ON picture.person = person.id"
_EXACT = (
    "SELECT person, min(embedding <#> %(query)s) AS far FROM siamese.picture "
    "GROUP BY person ORDER BY far LIMIT %(most)s"
)
# The nearest pictures may be one person's, so several times as many are looked through.
_BY_INDEX = (
    "SELECT DISTINCT person FROM (SELECT person FROM siamese.picture "
    "ORDER BY embedding::vector({dimensions}) <#> %(query)s::vector({dimensions}) "
    "LIMIT 10 * %(most)s) AS found"
)


def _without_password(place: str) -> str:
    """The address as it may be printed."""
    parts = urlsplit(place)
    if parts.password is None:
        return place
    return parts._replace(netloc=parts.netloc.replace(f":{parts.password}@", "@")).geturl()
