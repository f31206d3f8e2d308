"""Scan a face folder: one sub-folder per identity, the pictures directly inside it."""

from __future__ import annotations

import os
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from siamese.data.decode import check_header, shorter_side
from siamese.errors import UserError, first_few
from siamese.files.places import is_regular

Value = TypeVar("Value")

# Headers that are asked for at once: a pool keeps a note of 2 kB of each.
_AT_ONCE = 10_000


@dataclass(frozen=True)
class LeftOut:
    """A file or folder that does not take part, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class FaceFolder:
    """The usable pictures of a face folder.

    Attributes:
        paths: one path per picture, relative to ``root``, with forward slashes.
        labels: one label per picture, non-decreasing.
    """

    root: Path
    names: tuple[str, ...]
    paths: tuple[str, ...]
    labels: tuple[int, ...]
    left_out: tuple[LeftOut, ...]

    def only(self, names: list[str]) -> FaceFolder:
        """The same folder reduced to some identities, relabelled 0, 1, ... in name order."""
        kept = {name: label for label, name in enumerate(sorted(names))}
        pairs = [
            (path, kept[self.names[label]])
            for path, label in zip(self.paths, self.labels, strict=True)
            if self.names[label] in kept
        ]
        paths, labels = zip(*pairs, strict=True) if pairs else ((), ())
        return FaceFolder(self.root, tuple(kept), paths, labels, self.left_out)

    def counts(self) -> dict[str, int]:
        """Pictures per identity, every identity named."""
        counts = Counter(self.labels)
        return {name: counts[label] for label, name in enumerate(self.names)}

    def summary(self) -> str:
        """One line: how many people and pictures, how many left out, why, and the first of them."""
        line = f"{self.root}: {len(self.names)} people, {len(self.paths)} pictures"
        if self.left_out:
            reasons = Counter(item.reason for item in self.left_out)
            details = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
            some = first_few([item.path for item in self.left_out])
            line += f"; {len(self.left_out)} left out ({details}): {some}"
            line = line.encode("utf-8", "backslashreplace").decode()  # names of any bytes
        return line


def require_folder(root: Path) -> None:
    """Refuse what is no folder.

    Raises:
        UserError: missing, or a file.
    """
    if not os.path.exists(root):  # unlike Path.exists never an OSError
        raise UserError(f"{root}: no such folder")
    if not root.is_dir():
        raise UserError(f"{root}: is a file; a folder with one folder per person is needed")


def scan_folder(root: Path, *, progress: bool = True) -> FaceFolder:
    """Find the identities and pictures of a face folder, reading every picture's header.

    Only pictures directly inside an identity's folder count. Deeper folders, hidden files and
    folders, files outside any identity's folder, non-images and unreadable images are left out
    and listed. An identity without a usable picture is left out, too.

    Raises:
        UserError: the folder is missing, is not a folder, or holds no usable picture.
    """
    root = Path(root)
    require_folder(root)
    left_out: list[LeftOut] = []
    candidates = list(_candidates(root, left_out))
    reasons = check_headers(root, [path for _, path in candidates], progress=progress)
    usable: list[tuple[str, str]] = []
    for (name, path), reason in zip(candidates, reasons, strict=True):
        if reason is None:
            usable.append((name, path))
        else:
            left_out.append(LeftOut(path, reason))
    with_pictures = {name for name, _ in usable}
    for name in dict.fromkeys(name for name, _ in candidates):
        if name not in with_pictures:
            left_out.append(LeftOut(name, "person without a usable picture"))
    if not usable:
        reasons_of = Counter(item.reason for item in left_out)
        details = ", ".join(f"{count} {reason}" for reason, count in reasons_of.most_common())
        raise UserError(
            f"{root}: no usable picture in it ({details or 'it is empty'}); "
            "put each person's pictures into a folder of their own, e.g. "
            f"{root.resolve().name}/NAME/picture.jpg"
        )
    names = sorted(with_pictures)
    _refuse_one_name_twice(root, names)
    label_of = {name: label for label, name in enumerate(names)}
    usable.sort()
    return FaceFolder(
        root=root,
        names=tuple(names),
        paths=tuple(path for _, path in usable),
        labels=tuple(label_of[name] for name, _ in usable),
        left_out=tuple(sorted(left_out, key=lambda item: item.path)),
    )


def check_headers(root: Path, paths: Sequence[str], *, progress: bool = True) -> list[str | None]:
    """For each picture None, or the reason why it is left out; only headers are read."""
    return _of_headers(check_header, root, paths, progress)


def shorter_sides(root: Path, paths: Sequence[str]) -> list[int | None]:
    """The shorter side of each picture in pixels, from its header; None where it has none."""
    return _of_headers(shorter_side, root, paths, False)


def _of_headers(
    read: Callable[[Path], Value], root: Path, paths: Sequence[str], progress: bool
) -> list[Value]:
    # The filters of warnings belong to the whole process: the threads must not set them.
    with warnings.catch_warnings(), ThreadPoolExecutor(max_workers=8) as pool:
        warnings.simplefilter("ignore")  # Pillow's notes on odd metadata and large pictures
        parts = (paths[first : first + _AT_ONCE] for first in range(0, len(paths), _AT_ONCE))
        headers = chain.from_iterable(
            pool.map(lambda path: read(root / path), part) for part in parts
        )
        hidden = None if progress else True
        return list(
            tqdm(headers, "checking pictures", len(paths), unit="img", disable=hidden, leave=False)
        )


def _candidates(root: Path, left_out: list[LeftOut]) -> Iterator[tuple[str, str]]:
    """(identity, relative path) of every file that might be a picture."""
    for person in _entries(root, left_out, root):
        if person.name.startswith("."):
            left_out.append(LeftOut(person.name, "hidden"))
        elif not os.path.isdir(person):  # unlike DirEntry.is_dir no OSError for a looping link
            left_out.append(LeftOut(person.name, "outside any person's folder"))
        else:
            yield from _person_candidates(root, person, left_out)


def _person_candidates(
    root: Path, person: os.DirEntry[str], left_out: list[LeftOut]
) -> Iterator[tuple[str, str]]:
    found = False
    for entry in _entries(Path(person.path), left_out, root):
        path = f"{person.name}/{entry.name}"
        if entry.name.startswith("."):
            left_out.append(LeftOut(path, "hidden"))
        elif os.path.isdir(entry):
            left_out.append(LeftOut(path, "deeper folder"))
        elif not is_regular(entry):
            left_out.append(LeftOut(path, "not a file"))
        else:
            found = True
            yield person.name, path
    if not found:
        left_out.append(LeftOut(person.name, "person without a usable picture"))


def shared_names(names: Iterable[str], others: Iterable[str]) -> list[str]:
    """Those of the names that are among the others, too.

    Systems write the same name in different Unicode forms; it is one person all the same.
    """
    known = {unicodedata.normalize("NFC", name) for name in others}
    return [name for name in names if unicodedata.normalize("NFC", name) in known]


def _refuse_one_name_twice(root: Path, names: list[str]) -> None:
    """One name in two Unicode forms is one person, who could end up on both sides of the split."""
    known: dict[str, str] = {}
    for name in names:
        other = known.setdefault(unicodedata.normalize("NFC", name), name)
        if other != name:
            raise UserError(
                f"{root}: {other!a} and {name!a} are one name in two Unicode forms; "
                "put the pictures into one folder; siamese-data check gives the command"
            )


def _entries(folder: Path, left_out: list[LeftOut], root: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        if folder == root:
            raise UserError(f"{root}: cannot be read ({error.strerror})") from None
        left_out.append(LeftOut(folder.relative_to(root).as_posix(), "unreadable folder"))
        return []
