"""A gallery of enrolled people: who is on a picture, among those who are known."""

from __future__ import annotations

import hashlib
import os
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from tqdm import tqdm

from siamese.data.decode import decode_bytes
from siamese.data.folder import FaceFolder, scan_folder
from siamese.data.in_memory import Picture
from siamese.errors import UserError, first_few
from siamese.files.places import open_regular
from siamese.models.inference import Embedder, Vectors
from siamese.recognition.stores import (
    Head,
    Person,
    StoredPicture,
    now,
    open_store,
    other_model,
)
from siamese.verification.calibration import require_prior
from siamese.verification.scores import listed_scores, normalise

_PICTURES = 256  # that are embedded and enrolled at a time
_SLACK = 10  # people that a search looks at beyond those who are asked for
_LONGEST = 500  # characters of a name
UPLOADED = "upload://"  # begins what stands in the place of a path where there is no file
_NEEDS_MODEL = "a model is needed: Gallery(place, model)"


@dataclass(frozen=True)
class Candidate:
    """Somebody whom a picture may show.

    Attributes:
        name: the person's.
        score: the best cosine similarity with their enrolled pictures, in [-1, 1].
        probability: that the picture shows them, in [0, 1], at the prior; None where the scores
            were not calibrated.
        path: the enrolled picture with that score.
    """

    name: str
    score: float
    probability: float | None
    path: str


@dataclass(frozen=True)
class Identity:
    """Whom a picture shows.

    Attributes:
        name: the person with the best score, if it reaches the threshold; else None: nobody known.
        candidates: the best people, the best first.
        threshold: from which score on somebody is known; None where none was chosen.
        chosen_for: what the threshold was chosen for, in words.
    """

    name: str | None
    candidates: tuple[Candidate, ...]
    threshold: float | None
    chosen_for: str | None


@dataclass(frozen=True)
class Enrolment:
    """What enrolling has done.

    Attributes:
        people: how many were looked at.
        added: pictures that are new in the gallery.
        present: pictures that were there already.
        notes: pictures left out, and people who seem to be there under another name.
    """

    people: int
    added: int
    present: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Upload:
    """A picture that is no file here, embedded.

    Attributes:
        name: what whoever sent it calls the file.
        digest: SHA-256 of the file, hex.
        embedding: float32 (D,), of the gallery's model, as its head says (``flip``), of any length
            above 0.
    """

    name: str
    digest: str
    embedding: Vectors

    @property
    def path(self) -> str:
        """What is recorded in a path's place: that there is none, and the file's name."""
        last = self.name.replace("\\", "/").rpartition("/")[2]
        plain = "".join(c if _is_unicode(c) and c != "\0" else "\ufffd" for c in last)
        return UPLOADED + plain[-_LONGEST:]


class Gallery:
    """Enrolled people on a database, searched exactly.

    Scores are cosines of embeddings on the same grid as those of evaluation. A person's score is
    the best of their pictures'. A gallery belongs to one model.

    Args:
        place: a file (SQLite), or ``postgresql://USER@HOST/DATABASE``.
        model: the embedder; None: people can be listed, exported and removed, not searched.
        create: make the gallery where there is none; needs a model.

    Raises:
        UserError: no such gallery; it is damaged or something else; it is of another model.
    """

    def __init__(
        self, place: str | os.PathLike[str], model: Embedder | None = None, *, create: bool = True
    ):
        self.model: Embedder | None = None
        head = head_of(model) if create and model is not None else None
        self._store = open_store(os.fspath(place), head)
        self.head = self._store.head()
        if model is not None:
            self.use(model)

    def use(self, model: Embedder) -> None:
        """Embed and search with a model from now on.

        Raises:
            UserError: the gallery is of another model.
        """
        if model.fingerprint != self.head.fingerprint:
            raise other_model(self._store.place)
        self.model = model

    def enroll(self, name: str, pictures: Iterable[str | os.PathLike[str]]) -> Enrolment:
        """Enrol pictures of one person, all of them or none.

        Args:
            name: the person's.
            pictures: paths.

        Raises:
            DecodeError: a picture cannot be decoded; names it.
            UserError: no picture; a name or path that cannot be kept.
        """
        paths = [_absolute(path) for path in pictures]
        if not paths:
            raise UserError(f"{name}: no picture of them is given")
        person = require_name(name)
        digests = [_digest(Path(path)) for path in paths]
        return self._enroll(person, paths, digests, self._embed(paths))

    def enroll_uploads(
        self, name: str, pictures: Mapping[str, bytes] | Sequence[Upload]
    ) -> Enrolment:
        """Enrol pictures of one person that are no files here, all of them or none.

        Their pixels are not kept, so another model cannot embed them anew (:meth:`migrate`).

        Args:
            name: the person's.
            pictures: the files' names and contents; or pictures that are embedded already.

        Raises:
            DecodeError: a picture cannot be decoded; names it.
            UserError: no picture; a name that cannot be kept; an embedding that is none.
        """
        person = require_name(name)
        if isinstance(pictures, Mapping):
            pictures = self._embed_contents(pictures)
        if not pictures:
            raise UserError(f"{name}: no picture of them is given")
        vectors = np.stack([one.embedding for one in pictures])
        paths = [one.path for one in pictures]
        return self._enroll(person, paths, [one.digest for one in pictures], vectors)

    def _embed_contents(self, pictures: Mapping[str, bytes]) -> list[Upload]:
        if self.model is None:
            raise UserError(_NEEDS_MODEL)
        limit, size = Image.MAX_IMAGE_PIXELS or sys.maxsize, self.model.prepare.decode_size
        decoded = [decode_bytes(one, name, size, limit) for name, one in pictures.items()]
        vectors = self._embed(decoded)
        return [
            Upload(name, hashlib.sha256(content).hexdigest(), vector)
            for (name, content), vector in zip(pictures.items(), vectors, strict=True)
        ]

    def _enroll(
        self, person: str, paths: Sequence[str], digests: Sequence[str], embeddings: Vectors
    ) -> Enrolment:
        """One person's embedded pictures, in one transaction."""
        unit = normalise(embeddings).numpy()
        time = now()
        stored = [
            StoredPicture(path, digest, time, embedding)
            for path, digest, embedding in zip(paths, digests, unit, strict=True)
        ]
        added = self._store.add({person: stored}, self.head.fingerprint)
        notes = self._twins([person])
        return Enrolment(1, added, len(paths) - added, tuple(notes))

    def enroll_folder(
        self, folder: str | os.PathLike[str], *, duplicates: bool = True
    ) -> Enrolment:
        """Enrol a folder with one folder per person; stopped, it goes on where it was.

        Each person's pictures become part of the gallery together. Pictures that cannot be decoded
        are left out.

        Args:
            folder: where they are.
            duplicates: look for new people who are there under another name.

        Raises:
            UserError: no such folder; no usable picture; a name that cannot be kept.
        """
        found = scan_folder(Path(folder))
        notes = [found.summary()] if found.left_out else []
        people = {name: require_name(name) for name in found.names}
        added = left_out = 0
        new: list[str] = []
        with tqdm(
            total=len(found.paths), desc="enrolling", unit="img", leave=False, disable=None
        ) as bar:
            for part in _parts(found):
                stored, broken = self._read(part, people)
                added += self._store.add(stored, self.head.fingerprint)
                left_out += len(broken)
                notes += broken
                new += stored
                bar.update(len(part.paths))
        if duplicates:
            notes += self._twins(new)
        present = len(found.paths) - added - left_out
        return Enrolment(len(people), added, present, tuple(notes))

    def identify(
        self,
        picture: Picture,
        *,
        top: int = 5,
        threshold: float | None = None,
        prior: float = 0.5,
        approximate: bool = False,
    ) -> Identity:
        """Whom a picture shows: the people with the best scores, and whether the first is known.

        Args:
            picture: one picture of any kind; see :meth:`siamese.Embedder.embed`.
            top: most people that are named, at least 1.
            threshold: from which score on somebody is known; None: the one that was chosen for
                identification, else that of two pictures, else nobody is.
            prior: the probability of each named person before the picture is compared.
            approximate: search an index of PostgreSQL instead of everybody.

        Raises:
            DecodeError: a file cannot be decoded; names it.
            UserError: not one picture; an empty gallery.
        """
        vectors = self._embed(picture)
        if len(vectors) != 1:
            raise UserError(f"{len(vectors)} pictures: one is searched for at a time")
        return self.identify_embeddings(
            vectors, top=top, threshold=threshold, prior=prior, approximate=approximate
        )[0]

    def identify_paths(
        self,
        paths: Sequence[str],
        *,
        top: int = 5,
        threshold: float | None = None,
        prior: float = 0.5,
        approximate: bool = False,
    ) -> list[Identity]:
        """The same for many pictures, by their paths."""
        answers: list[Identity] = []
        with tqdm(total=len(paths), desc="identifying", unit="img", leave=False, disable=None) as b:
            for first in range(0, len(paths), _PICTURES):
                part = paths[first : first + _PICTURES]
                answers += self.identify_embeddings(
                    self._embed(part),
                    top=top,
                    threshold=threshold,
                    prior=prior,
                    approximate=approximate,
                )
                b.update(len(part))
        return answers

    def identify_embeddings(
        self,
        embeddings: npt.ArrayLike,
        *,
        top: int = 5,
        threshold: float | None = None,
        prior: float = 0.5,
        approximate: bool = False,
    ) -> list[Identity]:
        """The same for embeddings (N, D) of the gallery's model, of any length above 0."""
        if top < 1:
            raise UserError(f"`top` {top}: must be at least 1")
        require_prior(prior)
        queries = normalise(embeddings).numpy()
        if queries.shape[1] != self.head.dimensions:
            raise UserError(
                f"embeddings of {queries.shape[1]} dimensions: the gallery's have "
                f"{self.head.dimensions}"
            )
        limit, chosen_for = self._threshold(threshold)
        decision = None if self.model is None else self.model.decision
        answers = []
        near = self._store.nearest(queries, top + _SLACK, approximate=approximate)
        for query, neighbours in zip(queries, near, strict=True):
            # Scored anew: every database has arithmetic of its own.
            vectors = np.stack([query, *(one.embedding for one in neighbours)])
            second = np.arange(1, len(vectors))
            scores = listed_scores(torch.from_numpy(vectors), np.zeros_like(second), second)
            ranked = []
            for one, score in zip(neighbours, scores.tolist(), strict=True):
                probability = None
                if decision is not None:
                    probability = float(decision.calibration.probability(score, prior))
                ranked.append(Candidate(one.name, score, probability, one.path))
            ranked.sort(key=lambda one: (-one.score, one.name))
            known = bool(ranked) and limit is not None and ranked[0].score >= limit
            name = ranked[0].name if known else None
            answers.append(Identity(name, tuple(ranked[:top]), limit, chosen_for))
        return answers

    def people(self) -> list[Person]:
        """Everybody, by name."""
        return self._store.people()

    def person(self, name: str) -> dict[str, Any]:
        """All that is stored about a person: plain values, for JSON.

        Raises:
            UserError: nobody has that name.
        """
        self._require_known([name])
        pictures = self._store.pictures(_same_form(name))
        return {
            "name": _same_form(name),
            "model": self.head.fingerprint,
            "pictures": [
                {
                    "path": one.path,
                    "sha256": one.digest,
                    "enrolled": one.enrolled,
                    "embedding": one.embedding.tolist(),
                }
                for one in pictures
            ],
        }

    def forget(self, names: Sequence[str]) -> int:
        """Remove people and all that is stored about them; returns the number of pictures.

        Raises:
            UserError: somebody is not there; then nobody is removed.
        """
        self._require_known(names)
        return self._store.remove([_same_form(name) for name in names])

    def migrate(self, model: Embedder) -> tuple[int, tuple[str, ...]]:
        """Embed every enrolled picture anew with another model; stopped, it goes on where it was.

        The old embeddings are in force until the last picture has a new one; then all change
        together.

        Returns:
            number of pictures; and notes on those whose file has changed since it was enrolled.

        Raises:
            DecodeError: a picture cannot be decoded; names it.
            UserError: a picture is not where it was, or was uploaded and has no file.
        """
        self._require_files()
        notes: list[str] = []
        total = sum(person.pictures for person in self.people())
        new = head_of(model)
        with tqdm(total=total, desc="migrating", unit="img", leave=False, disable=None) as bar:
            while True:
                pictures = self._store.outdated(new.fingerprint, _PICTURES)
                if not pictures:
                    if self._store.switch(replace(new, made=self.head.made)):
                        break
                    continue  # somebody was enrolled meanwhile
                missing = [one.path for _, one in pictures if not os.path.isfile(one.path)]
                if missing:
                    raise UserError(
                        f"{missing[0]}: {len(missing)} enrolled pictures are not there any more "
                        f"({first_few(missing)}); put them back, or forget those people"
                    )
                changed = [one.path for _, one in pictures if _digest(Path(one.path)) != one.digest]
                notes += [f"{path}: has changed since it was enrolled" for path in changed]
                vectors = model.embed([one.path for _, one in pictures], flip=new.flip)
                unit = normalise(vectors).numpy()
                numbers = [number for number, _ in pictures]
                self._store.renew(dict(zip(numbers, unit, strict=True)), new.fingerprint)
                bar.update(len(pictures))
        self.model, self.head = model, self._store.head()
        return total, tuple(notes)

    def _require_files(self) -> None:
        """Refuse to embed anew, before any work, where pictures were uploaded and not kept."""
        uploaded = self._store.people_with(UPLOADED)
        if uploaded:
            raise UserError(
                f"{self._store.place}: pictures of {len(uploaded)} people ({first_few(uploaded)}) "
                "were uploaded and not kept, so they cannot be embedded anew; forget those people "
                "and enroll them again with the new model"
            )

    def require_own_model(self) -> None:
        """Refuse where somebody has embedded the gallery anew since it was opened.

        Raises:
            UserError: it is of another model by now.
        """
        if self._store.head().fingerprint != self.head.fingerprint:
            raise other_model(self._store.place)

    def copy_to(self, place: str | os.PathLike[str]) -> int:
        """Copy everybody into another gallery, e.g. from a file to PostgreSQL; can be repeated.

        Returns the number of pictures that are new there.

        Raises:
            UserError: the other one is of another model.
        """
        target = open_store(os.fspath(place), self.head)
        if target.head().fingerprint != self.head.fingerprint:
            raise other_model(target.place)
        copied = 0
        for person in tqdm(self.people(), desc="copying", unit="person", disable=None):
            pictures = self._store.pictures(person.name)
            copied += target.add({person.name: pictures}, self.head.fingerprint)
        target.close()
        return copied

    def make_index(self) -> float | None:
        """Make PostgreSQL's approximate index unless it is there.

        Returns its recall@1: how often the person next to an enrolled picture is found, over up to
        200 pictures; None for an empty gallery.

        Raises:
            UserError: the gallery is a file, which has none.
        """
        return self._store.index()

    def close(self) -> None:
        """End the connection."""
        self._store.close()

    def __enter__(self) -> Gallery:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _embed(self, pictures: Picture | Sequence[Picture]) -> Vectors:
        if self.model is None:
            raise UserError(_NEEDS_MODEL)
        return self.model.embed(pictures, flip=self.head.flip)

    def _read(
        self, part: FaceFolder, people: Mapping[str, str]
    ) -> tuple[dict[str, list[StoredPicture]], list[str]]:
        """Embeddings of some people's new pictures, and what cannot be decoded."""
        digests = {path: _digest(part.root / path) for path in part.paths}
        there = self._store.names_of(list(digests.values()))
        new = [
            (path, label)
            for path, label in zip(part.paths, part.labels, strict=True)
            if people[part.names[label]] not in there.get(digests[path], [])
        ]
        if not new:
            return {}, []
        paths, labels = zip(*new, strict=True)
        assert self.model is not None
        found = FaceFolder(part.root, part.names, paths, labels, ())
        vectors, kept, failed = self.model.embed_listed(found, flip=self.head.flip)
        stored: dict[str, list[StoredPicture]] = {}
        time = now()
        unit = normalise(vectors).numpy() if len(vectors) else vectors
        for position, vector in zip(kept.tolist(), unit, strict=True):
            path, name = paths[position], people[part.names[labels[position]]]
            one = StoredPicture(_absolute(part.root / path), digests[path], time, vector)
            stored.setdefault(name, []).append(one)
        broken = [f"{path}: left out ({reason})" for path, reason in failed]
        return stored, broken

    def _twins(self, names: Sequence[str]) -> list[str]:
        """Notes on people who seem to be enrolled under another name, too."""
        notes = []
        limit, _ = self._threshold(None)
        for name in tqdm(names, desc="looking for duplicates", leave=False, disable=None, delay=1):
            pictures = self._store.pictures(name)
            same = self._store.names_of([one.digest for one in pictures])
            others = sorted({other for names in same.values() for other in names} - {name})
            if others:
                notes.append(f"{name}: a picture is also enrolled as {first_few(others)}")
                continue
            if limit is None:
                continue
            embeddings = np.stack([one.embedding for one in pictures])
            best = max(
                (
                    one
                    for answer in self.identify_embeddings(embeddings, top=2)
                    for one in answer.candidates
                    if one.name != name
                ),
                key=lambda one: one.score,
                default=None,
            )
            if best is not None and best.score >= limit:
                notes.append(
                    f"{name}: looks like {best.name} (score {best.score:.4f}, threshold "
                    f"{limit:.4f}); one person under two names?"
                )
        return notes

    def _threshold(self, given: float | None) -> tuple[float | None, str | None]:
        """From which score on somebody is known, and what it was chosen for."""
        decision = None if self.model is None else self.model.decision
        if given is not None:
            return given, "given"
        if decision is None:
            return None, None
        if decision.identification:
            one = decision.identification
            return float(one["threshold"]), f"FPIR {one['target_fpir']:g} of identification"
        return decision.threshold, f"FMR {decision.target_fmr:g} of two pictures"

    def has(self, name: str) -> bool:
        """Whether somebody of that name is enrolled."""
        return bool(self._store.pictures(_same_form(name)))

    def _require_known(self, names: Sequence[str]) -> None:
        known = {person.name for person in self.people()}
        unknown = [name for name in names if _same_form(name) not in known]
        if unknown:
            raise UserError(
                f"{unknown[0]}: nobody of that name in {self._store.place}; siamese-use people "
                "lists them"
            )


def head_of(model: Embedder) -> Head:
    """What a gallery notes of its model."""
    flip = model.flip if model.decision is None else model.decision.flip
    return Head(model.fingerprint, model.dimensions, flip, model.origin, now())


def require_name(name: str) -> str:
    """A person's name in the form that is stored.

    Raises:
        UserError: empty, too long, or no text in Unicode.
    """
    text = _same_form(name)
    if not text or len(text) > _LONGEST or "\0" in text or not _is_unicode(text):
        raise UserError(
            f"the name {name!r}: cannot be kept; give 1 to {_LONGEST} characters of Unicode"
        )
    return text


def _same_form(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _absolute(path: str | os.PathLike[str]) -> str:
    text = os.path.abspath(path)
    if not _is_unicode(text):
        raise UserError(f"{text}: its name is not UTF-8, so it cannot be kept; rename it")
    return text


def _digest(path: Path) -> str:
    """SHA-256 of a file.

    Raises:
        UserError: it is not there, or no regular file.
    """
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read ({reason})") from None


def _parts(folder: FaceFolder) -> Iterator[FaceFolder]:
    """A folder in parts of whole people, of about some number of pictures."""
    start = 0
    for stop in range(1, len(folder.paths) + 1):
        ends = stop == len(folder.paths)
        if not ends and folder.labels[stop] == folder.labels[stop - 1]:
            continue
        if ends or stop - start >= _PICTURES:
            paths, labels = folder.paths[start:stop], folder.labels[start:stop]
            yield FaceFolder(folder.root, folder.names, paths, labels, ())
            start = stop
