"""What moves are about to be made, as a file that outlives an interruption."""

from __future__ import annotations

import json
import os
import re
import stat
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from siamese.curation.shell import command_line, path_word
from siamese.errors import UserError
from siamese.files.fields import built, parse_json
from siamese.files.places import open_regular
from siamese.files.writing import remove_leftovers, replacing

_NAME = r"manifest-[0-9]{8}-[0-9]{6}-[0-9]+"
_LONGEST_LINE = 2**17  # characters; two paths of 4,096 bytes, each byte escaped, are half of it
_LARGEST = 2**53  # of sizes
Kind = Literal["file", "link", "folder", "other"]  # folder: earlier versions renamed some whole


@dataclass(frozen=True)
class Moved:
    """A file that is moved, as it was before.

    ``old`` is relative to the root; ``new`` to the quarantine where it is ``quarantined``, else to
    the root, too. ``content`` is the SHA-256 of a file or the target of a link; None when it cannot
    be read.
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
        name: no other moves into this quarantine have it.
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


_ENTRIES: dict[str, type[Any]] = {"moved": Moved, "emptied": Emptied, "made": Made}


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write JSON lines to a new file; when this returns, they are on the disk."""
    head = {key: getattr(manifest, key) for key in ("root", "quarantine", "reason", "name")}
    lines: list[dict[str, Any]] = [{"siamese-moves": 1, **head}]
    for key in _ENTRIES:
        lines += [{key: asdict(entry)} for entry in getattr(manifest, key)]
    # Every manifest has another name: what was left of others goes, too.
    remove_leftovers(path.parent, rf"{_NAME}\.jsonl")
    with (
        replacing(path) as temporary,
        open(temporary, "w", encoding="ascii") as file,  # JSON escapes what is no ASCII
    ):
        file.writelines(json.dumps(line) + "\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


def read_manifest(path: Path) -> Manifest:
    """Read what :func:`write_manifest` wrote.

    All paths in it stay below where they start; that no link leads them elsewhere is left to who
    uses them.

    Raises:
        UserError: no such file, or not a manifest; names the line.
    """
    number = 0
    head: dict[str, Any] = {}
    entries: dict[str, list[Any]] = {key: [] for key in _ENTRIES}
    try:
        with open_regular(path) as file:
            for line in iter(lambda: file.readline(_LONGEST_LINE), b""):
                number += 1
                values = parse_json(line)
                if number == 1:
                    head = _head(values)
                else:
                    ((name, fields),) = values.items()
                    entry: Any = built(_ENTRIES[name], fields)
                    _check_entry(entry)
                    entries[name].append(entry)
        return built(Manifest, {**head, **{key: tuple(some) for key, some in entries.items()}})
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); a manifest (.jsonl) is needed"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = f" ({error})" if type(error) is ValueError else ""
        raise UserError(
            f"{path}, line {max(number, 1)}: not a manifest that this siamese-data wrote{why}"
        ) from None


def _head(values: Any) -> dict[str, Any]:
    head = dict(values)
    version = head.pop("siamese-moves")
    if type(version) is not int or version != 1 or head.keys() & _ENTRIES.keys():
        raise ValueError("its first line is that of another version or file")
    for key in ("root", "quarantine"):
        if not os.path.isabs(head[key]) or not _is_possible(head[key]):
            raise ValueError(f"{key} is no absolute path")
    if not re.fullmatch(_NAME, head["name"]):
        raise ValueError("name is not as manifest-20260131-235959-1")
    return head


def _check_entry(entry: Moved | Emptied | Made) -> None:
    """Refuse what no file has (ValueError)."""
    places = (entry.old, entry.new) if isinstance(entry, Moved) else (entry.path,)
    if not all(map(stays_inside, places)):
        raise ValueError("a path that leads out of the folder")
    if entry.mode is not None and not 0 <= entry.mode <= 0o7777:
        raise ValueError(f"mode {entry.mode} is none")
    if isinstance(entry, Moved) and not 0 <= entry.size <= _LARGEST:
        raise ValueError(f"size {entry.size} is none")
    if not isinstance(entry, Made) and not -(2**63) <= entry.mtime_ns < 2**63:
        raise ValueError(f"mtime_ns {entry.mtime_ns} is none")


def stays_inside(path: str) -> bool:
    """Whether a relative path stays below where it starts, and names something there."""
    parts = path.split("/")
    plain = bool(path) and not os.path.isabs(path) and ".." not in parts
    return plain and _is_possible(path)


def _is_possible(path: str) -> bool:
    """Whether a system may have such a path at all."""
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:  # halves of characters
        return False


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


def restore_command(manifest: str | os.PathLike[str], root: str | os.PathLike[str]) -> str:
    """The command that undoes a manifest's moves, quoted for a shell.

    It names the root where that is not the neighbour of the manifest's folder, as
    :func:`siamese.curation.moves.restore` asks for.
    """
    folder = os.path.dirname(os.path.realpath(manifest))
    beside = os.path.dirname(os.path.realpath(root)) == os.path.dirname(folder)
    named = () if beside else ("--root", path_word(root))
    return command_line("siamese-data", "restore", path_word(manifest), *named)
