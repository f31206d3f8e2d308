"""What lies where in a face folder: people, their files, and all that is in no place."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from siamese.data.folder import require_folder
from siamese.errors import UserError
from siamese.files.places import is_inside, is_regular

if TYPE_CHECKING:
    from siamese.curation.inspection import FileFacts

OWN_FILES = frozenset(
    (".convert.jsonl", ".convert.lock", ".convert-left-out.csv",
     ".crop.jsonl", ".crop.lock", "crop.csv")
)  # fmt: skip
"""What convert and crop keep in a folder that they write, to go on with it: in its place there."""


@dataclass(frozen=True)
class FoundFile:
    """A regular file: path relative to the root, size in bytes, time of change in nanoseconds."""

    path: str
    size: int
    modified: int
    is_link: bool = False


@dataclass(frozen=True)
class Odd:
    """Something in no place, and what it is."""

    path: str
    detail: str


@dataclass(frozen=True)
class Nested:
    """A folder inside a person's folder, with the regular files anywhere below it."""

    path: str
    files: tuple[str, ...]


@dataclass
class Contents:
    """Everything in a face folder, by name; all paths are relative with forward slashes.

    Attributes:
        people: per person's folder its files, hidden ones left out.
        names: per folder that is looked into, every name in it.
        linked: links to a folder that is here under another name already.
        outside: files beside the people's folders.
        nested: deeper folders.
        special: broken links, pipes, devices and the like.
        closed: folders that cannot be read.
    """

    root: Path
    people: dict[str, tuple[FoundFile, ...]] = field(default_factory=dict)
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    linked: list[Odd] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    nested: list[Nested] = field(default_factory=list)
    special: list[Odd] = field(default_factory=list)
    closed: list[Odd] = field(default_factory=list)

    def files(self) -> list[FoundFile]:
        """All people's files, person by person."""
        return [file for files in self.people.values() for file in files]

    def usable(self, facts: Mapping[str, FileFacts]) -> dict[str, int]:
        """Number of usable pictures by person."""
        return {
            person: sum(facts[file.path].status == "usable" for file in files)
            for person, files in self.people.items()
        }


def results_folder(
    kind: str, root: Path | None, out: str | None, runs: str, name: str = ""
) -> Path:
    """The folder of results about a face folder: ``out``, or ``RUNS/KIND-NAME``.

    Raises:
        UserError: it lies in the face folder, where it would be a person.
    """
    if root is not None:
        name = root.resolve().name or "root"
    place = Path(runs) / f"{kind}-{name}" if out is None else Path(out)
    if root is not None and is_inside(place, root):
        raise UserError(f"`out` {place}: lies inside {root}; give a folder outside of it")
    return place


def walk_folder(root: Path) -> Contents:
    """Look through a folder as training does, and further down, without a step in a circle.

    A link to a folder elsewhere is a person as any other; one that leads back into the root, or
    to a folder that is here already, is only reported. Deeper links are not followed.

    Raises:
        UserError: the root is missing, a file, or cannot be read.
    """
    require_folder(root)
    contents = Contents(root)
    folders: list[os.DirEntry[str]] = []
    for entry in _entries(contents, ""):
        if entry.name in OWN_FILES and _is_file(entry):
            continue
        if entry.name.startswith("."):
            contents.hidden.append(entry.name)
        elif _is_folder(entry):
            folders.append(entry)
        elif _is_file(entry):
            contents.outside.append(entry.name)
        else:
            contents.special.append(Odd(entry.name, _what(entry)))
    people = _without_repetitions(contents, folders)
    shown = tqdm(people, desc="listing folders", unit="folder", disable=None, leave=False)
    deeper = [path for name in shown for path in _list_person(contents, name)]
    visited = {_identity(root), *(_identity(root / name) for name in people)}
    for path in deeper:
        contents.nested.append(Nested(path, tuple(_files_below(contents, path, visited))))
    return contents


def _without_repetitions(contents: Contents, folders: list[os.DirEntry[str]]) -> list[str]:
    root = os.path.realpath(contents.root)
    known: dict[str, str] = {}
    people = []
    for entry in folders:
        if entry.is_symlink():
            real = os.path.realpath(entry.path)
            if _overlap(root, real):
                inside = os.path.relpath(real, root)
                contents.linked.append(Odd(entry.name, f"a link to {inside}"))
                continue
            other = known.setdefault(real, entry.name)
            if other != entry.name:
                contents.linked.append(Odd(entry.name, f"leads to the same folder as {other}"))
                continue
        people.append(entry.name)
    return people


def _overlap(path: str, other: str) -> bool:
    try:
        return os.path.commonpath([path, other]) in (path, other)
    except ValueError:  # two drives
        return False


def _list_person(contents: Contents, name: str) -> list[str]:
    """Enter a person's files; returns the folders among them."""
    deeper, files = [], []
    for entry in _entries(contents, name):
        path = f"{name}/{entry.name}"
        if entry.name.startswith("."):
            contents.hidden.append(path)
        elif _is_folder(entry):
            deeper.append(path)
        elif not _is_file(entry):
            contents.special.append(Odd(path, _what(entry)))
        else:
            try:
                seen = entry.stat()
            except OSError as error:  # gone since the folder was listed
                contents.special.append(Odd(path, error.strerror or "gone"))
            else:
                link = entry.is_symlink()
                files.append(FoundFile(path, seen.st_size, seen.st_mtime_ns, link))
    contents.people[name] = tuple(files)
    return deeper


def _files_below(contents: Contents, top: str, visited: set[tuple[int, int]]) -> Iterator[str]:
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        place = contents.root / folder
        identity = _identity(place)
        if os.path.islink(place):
            contents.special.append(Odd(folder, "a link to a folder"))
            continue
        if identity in visited:
            continue
        visited.add(identity)
        for entry in _entries(contents, folder):
            path = f"{folder}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                waiting.append(path)
            elif _is_file(entry):
                yield path


def _entries(contents: Contents, folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(contents.root / folder) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        if not folder:
            raise UserError(f"{contents.root}: cannot be read ({error.strerror})") from None
        contents.closed.append(Odd(folder, error.strerror or type(error).__name__))
        listed = []
    contents.names[folder] = tuple(entry.name for entry in listed)
    return listed


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """As os.path.isdir, but without a call of the system where the listing knows it."""
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in a circle
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    """As is_regular, but without a call of the system where the listing knows it."""
    return is_regular(entry.path) if entry.is_symlink() else entry.is_file()


def _identity(path: Path) -> tuple[int, int]:
    try:
        seen = os.stat(path)
    except OSError:
        return (-1, -1)
    return seen.st_dev, seen.st_ino


_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def _what(entry: os.DirEntry[str]) -> str:
    link = "a link to " if entry.is_symlink() else ""
    try:
        mode = entry.stat().st_mode
    except OSError as error:
        return "a link that leads nowhere" if link else error.strerror or "cannot be looked at"
    return link + next((words for holds, words in _KINDS if holds(mode)), "no regular file")
