"""What an audit found, as plain data: pages, tables and moves are made of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Suspect:
    """A picture that seems to show somebody else than its folder's person.

    Attributes:
        path: relative to the audited folder.
        person: the folder's name.
        suspicion: probability in [0, 1] that it is somebody else.
        owner: the person whom it looks most like; None: like nobody in the folder.
        own_score: cosine to the typical face of its folder, in [-1, 1].
        owner_score: cosine to the typical face of the person whom it looks most like.
    """

    path: str
    person: str
    suspicion: float
    owner: str | None
    own_score: float
    owner_score: float


@dataclass(frozen=True)
class SamePerson:
    """Two folders that seem to hold one person.

    Attributes:
        first, second: the folders' names.
        probability: in [0, 1].
        score: mean cosine between pictures of the two, in [-1, 1].
        examples: a picture of each, the pairs that are most alike first.
    """

    first: str
    second: str
    probability: float
    score: float
    examples: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class MixedFolder:
    """A folder that seems to hold two people.

    Attributes:
        person: the folder's name.
        probability: in [0, 1].
        main: its larger cluster's pictures, the most typical first.
        other: its smaller cluster's pictures, the most typical first.
    """

    person: str
    probability: float
    main: tuple[str, ...]
    other: tuple[str, ...]


@dataclass(frozen=True)
class Leak:
    """A person or a picture that is in both folders.

    Attributes:
        kind: ``file`` (same bytes), ``picture`` (nearly the same pixels), ``person``, or ``name``.
        first: picture (person, for the kinds person and name) of the audited folder.
        second: the same of the other folder.
        score: cosine, in [-1, 1]; 1 for the same bytes.
    """

    kind: Literal["file", "picture", "person", "name"]
    first: str
    second: str
    score: float


@dataclass(frozen=True)
class Audit:
    """Everything that an audit found, the most probable first.

    Attributes:
        origin: what was audited, with what, in words.
        root: the audited folder; None when only embeddings are known.
        other_root: the folder it was held against; None without one.
        people: number of people.
        pictures: number of pictures.
        suspects: pictures at or above the suspicion that was set.
        typical: per person the paths of a few typical pictures.
        same: folder pairs that seem to be one person.
        mixed: folders that seem to hold two people.
        leaks: what is in both folders.
        notes: what the reader must know.
        weak: why nothing should be moved by what the model says; None: it may.
    """

    origin: str
    root: Path | None
    other_root: Path | None
    people: int
    pictures: int
    suspects: tuple[Suspect, ...]
    typical: dict[str, tuple[str, ...]]
    same: tuple[SamePerson, ...]
    mixed: tuple[MixedFolder, ...]
    leaks: tuple[Leak, ...]
    notes: tuple[str, ...]
    weak: str | None = None
