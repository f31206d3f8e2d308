"""What moves are about to be made, as a file that outlives an interruption."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from siamese.curation.shell import command_line, path_word
from siamese.errors import UserError
from siamese.files.writing import replacing

_VERSION = 1
Kind = Literal["file", "link", "folder", "other"]


@dataclass(frozen=True)
class Moved:
    """A file that is moved, as it was before.

    Attributes:
        old: its place, relative to the root.
        new: its new place, relative to the quarantine or to the root.
        quarantined: whether ``new`` is relative to the quarantine.
        kind: ``folder`` only where the file system takes both names for one.
        size: bytes.
        mode: permission bits.
        mtime_ns: time of the last change.
        content: SHA-256 of a file, target of a link; None when it cannot be read.
    """

    old: str
    new: str
    quarantined: bool
    kind: Kind
    size: int
    mode: int
    mtime_ns: int
    content: str | None


@dataclass(frozen=True)
class Emptied:
    """A folder, relative to the root, of which the moves leave nothing; as it was before."""

    path: str
    mode: int
    mtime_ns: int


@dataclass(frozen=True)
class Made:
    """A folder that is made for what is moved, relative to the quarantine or to the root."""

    path: str
    quarantined: bool
    mode: int | None


@dataclass(frozen=True)
class Manifest:
    """Everything that is needed to undo some moves.

    Attributes:
        root: the absolute folder out of which files are moved.
        quarantine: the absolute folder into which they are moved.
        reason: why, in words.
        name: of these moves; no other moves into this quarantine have it.
        moved: files.
        emptied: folders that are removed, those deeper down first.
        made: folders that are made, those higher up first.
    """

    root: str
    quarantine: str
    reason: str
    name: str
    moved: tuple[Moved, ...]
    emptied: tuple[Emptied, ...]
    made: tuple[Made, ...]


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write JSON lines to a new file; when this returns, they are on the disk."""
    with (
        replacing(path) as temporary,
        open(temporary, "w", encoding="ascii") as file,  # JSON escapes what is no ASCII
    ):
        file.writelines(json.dumps(line) + "\n" for line in _lines(manifest))
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


def _lines(manifest: Manifest) -> Iterator[dict[str, Any]]:
    head = {"root": manifest.root, "quarantine": manifest.quarantine}
    yield {"siamese-moves": _VERSION, **head, "reason": manifest.reason, "name": manifest.name}
    yield from ({"moved": asdict(moved)} for moved in manifest.moved)
    yield from ({"emptied": asdict(emptied)} for emptied in manifest.emptied)
    yield from ({"made": asdict(made)} for made in manifest.made)


def read_manifest(path: Path) -> Manifest:
    """Read what :func:`write_manifest` wrote.

    Raises:
        UserError: no such file, or not a manifest; names the line.
    """
    if path.is_dir():
        inside = sorted(path.glob("manifest-*.jsonl"))
        hint = f"; did you mean {inside[-1]}?" if inside else ""
        raise UserError(f"{path}: is a folder, a manifest (.jsonl) is needed{hint}")
    number = 1
    found: dict[str, Any] = {"moved": [], "emptied": [], "made": []}
    kinds = {"moved": Moved, "emptied": Emptied, "made": Made}
    try:
        with open(path, encoding="utf-8") as file:
            head = json.loads(file.readline())
            if head.pop("siamese-moves") != _VERSION:
                raise UserError(f"{path}: written by another version of siamese")
            for line in file:
                number += 1
                ((name, values),) = json.loads(line).items()
                entry = kinds[name](**values)
                places = (entry.old, entry.new) if isinstance(entry, Moved) else (entry.path,)
                if not all(map(is_inside, places)):
                    raise ValueError("a path that leads out of the folder")
                found[name].append(entry)
        entries: dict[str, Any] = {name: tuple(values) for name, values in found.items()}
        return Manifest(**head, **entries)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"{path}, line {number}: not a manifest that siamese-data mend or audit wrote"
        ) from None


def is_inside(path: str) -> bool:
    """Whether a relative path stays below where it starts, and names something there."""
    parts = path.split("/")
    return bool(path) and not os.path.isabs(path) and ".." not in parts and "\0" not in path


def kind_of(mode: int) -> Kind:
    """The kind of what has this ``st_mode``."""
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISLNK(mode):
        return "link"
    return "folder" if stat.S_ISDIR(mode) else "other"


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Wait until the folder's own list of names is on the disk."""
    if os.name == "posix":  # elsewhere a folder cannot be opened
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def restore_command(manifest: str | os.PathLike[str]) -> str:
    """The command that undoes a manifest's moves, quoted for a shell."""
    return command_line("siamese-data", "restore", path_word(manifest))
