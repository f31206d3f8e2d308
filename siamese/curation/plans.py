"""Plans of moves: CSV files that a person may edit, checked as a whole before anything moves."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from siamese.curation.manifests import (
    Emptied,
    Made,
    Manifest,
    Moved,
    kind_of,
    restore_command,
    stays_inside,
)
from siamese.curation.shell import command_line, path_word
from siamese.errors import UserError, first_few
from siamese.files.csv_tables import read_table
from siamese.files.shown import shown
from siamese.files.writing import write_csv

_COLUMNS = ("path", "to")


@dataclass(frozen=True)
class Move:
    """A file, link or whole folder, and its new place; both relative to the root, with ``/``.

    Without a new place it goes into the quarantine, at the same path.
    """

    path: str
    to: str | None


def write_plan(path: Path, moves: Sequence[Move]) -> None:
    """Write a plan as UTF-8 CSV with the columns ``path,to``; an empty ``to`` is the quarantine.

    Bytes of names that are no UTF-8 are written as they are.
    """
    rows = ((move.path, move.to or "") for move in moves)
    write_csv(path, _COLUMNS, rows, errors="surrogateescape", exact=True)


def read_plan(path: Path) -> list[Move]:
    """Read a plan, also one that a spreadsheet has saved (byte-order mark, either line end).

    More columns are allowed and ignored.

    Raises:
        UserError: not a plan; names the file and the line.
    """
    moves = []
    for where, (source, target) in read_table(path, _COLUMNS):
        if not source:
            raise UserError(f"{where}: the path is empty")
        for place in (source, target):
            if place and not stays_inside(place):
                raise UserError(
                    f"{where}: '{shown(place)}' leads out of the folder; name a path inside it"
                )
        moves.append(Move(source, target or None))
    return moves


def mend_command(
    root: str | os.PathLike[str],
    plan: str | os.PathLike[str],
    quarantine: str | os.PathLike[str] | None = None,
) -> str:
    """The command that carries out a plan, quoted for a shell."""
    chosen = () if quarantine is None else ("--quarantine", path_word(quarantine))
    return command_line("siamese-data", "mend", path_word(root), "--plan", path_word(plan), *chosen)


def plan_moves(root: str, moves: Sequence[Move], quarantine: str) -> Manifest:
    """Check every move before any is made, and take whole folders apart.

    ``root`` and ``quarantine`` are real absolute paths; the quarantine may be missing.

    Returns:
        A manifest that still lacks its name and reason, and the files' contents.

    Raises:
        UserError: something is not there, in the way, outside the root, twice in the plan, or may
            not be written.
    """
    tree = _Tree(root, quarantine)
    resolved = []  # old place, new place, whether that is in the quarantine
    for move in moves:
        old = tree.inside(move.path)
        resolved.append((old, old if move.to is None else tree.inside(move.to), move.to is None))
    _check_sources(tree, [old for old, _, _ in resolved])
    wanted = [tree.entry(*places) for places in resolved]
    _check_targets(tree, wanted)
    files: list[Moved] = []
    folders: dict[str, Moved] = {}  # that are moved whole, and all below them
    for top in wanted:
        for entry in tree.below(top):
            _check_free(tree, entry)
            if entry.kind == "folder":
                folders[entry.old] = entry
            else:
                files.append(entry)
    _check_places(tree, [*wanted, *files])
    needed = {folder for entry in wanted if not entry.quarantined for folder in _above(entry.new)}
    emptied = _emptied(tree, [file.old for file in files], folders, needed)
    _check_access(tree, files, emptied)
    made = _made(tree, wanted, folders.values())
    return Manifest(root, quarantine, "", "", tuple(files), emptied, made)


class _Tree:
    """The folder as it is listed, each of its folders read once, and the quarantine."""

    def __init__(self, root: str, quarantine: str) -> None:
        self.root, self.quarantine = root, quarantine
        self.names = cache(self._names)
        self.real = cache(lambda folder: os.path.realpath(self.old(folder)))

    def old(self, path: str) -> str:
        return os.path.join(self.root, path)

    def new(self, entry: Moved, path: str | None = None) -> str:
        """The place that something goes to, or another path on the same side."""
        top = self.quarantine if entry.quarantined else self.root
        return os.path.join(top, entry.new if path is None else path)

    def _names(self, folder: str) -> frozenset[str]:
        try:
            return frozenset(os.listdir(self.old(folder)))
        except (FileNotFoundError, NotADirectoryError):
            return frozenset()
        except OSError as error:
            raise UserError(f"{self.old(folder)}: cannot be read ({error.strerror})") from None

    def entry(self, old: str, new: str, quarantined: bool) -> Moved:
        """What is to be moved, as it is now; its content is not read."""
        now = os.lstat(self.old(old))
        kind, mode = kind_of(now.st_mode), stat.S_IMODE(now.st_mode)
        return Moved(old, new, quarantined, kind, now.st_size, mode, now.st_mtime_ns, None)

    def mode(self, path: str) -> int:
        return stat.S_IMODE(os.lstat(self.old(path)).st_mode)

    def below(self, entry: Moved) -> Iterator[Moved]:
        """An entry and, where it is a folder, all that it holds; links are not followed."""
        yield entry
        if entry.kind == "folder":
            for name in sorted(self.names(entry.old)):
                old, new = f"{entry.old}/{name}", f"{entry.new}/{name}"
                yield from self.below(self.entry(old, new, entry.quarantined))

    def inside(self, path: str) -> str:
        """A given path without links, ``.`` or doubled slashes, relative to the root."""
        head, name = posixpath.split(posixpath.normpath(path))
        if not stays_inside(path) or name in ("", "."):
            raise UserError(f"{path or 'an empty path'}: must lie inside {self.root}")
        real = self.real(head)
        if os.path.commonpath([real, self.root]) != self.root:
            raise UserError(f"{path}: a link leads out of {self.root}; mend {real} by itself")
        return posixpath.normpath(posixpath.join(os.path.relpath(real, self.root), name))


def _above(path: str) -> Iterator[str]:
    """The folders that a path leads through, the highest first; without the root."""
    parts = path.split("/")
    for depth in range(1, len(parts)):
        yield "/".join(parts[:depth])


def _check_sources(tree: _Tree, paths: Sequence[str]) -> None:
    missing = [path for path in paths if not os.path.lexists(tree.old(path))]
    if missing:
        hint = "was something moved since the plan was written? Write it anew"
        if earlier := list(Path(tree.quarantine).glob("manifest-*.jsonl")):
            latest = max(earlier, key=lambda path: (len(path.name), path.name))
            undo = restore_command(latest, tree.root)
            hint += f"; if an earlier run was interrupted, undo it first: {undo}"
        raise UserError(
            f"{tree.root}: {len(missing)} of the plan's {len(paths)} paths are not there: "
            f"{first_few(missing)} ({hint})"
        )
    known: set[str] = set()
    for path in paths:
        if path in known:
            raise UserError(f"{path}: is in the plan twice")
        known.add(path)
    for path in paths:
        for folder in _above(path):
            if folder in known:
                raise UserError(f"{path}: is in the plan, and so is the folder {folder} around it")


def _check_targets(tree: _Tree, wanted: Sequence[Moved]) -> None:
    """Refuse targets that are in each other's way."""
    moved = {entry.old for entry in wanted}
    targets: set[tuple[bool, str]] = set()
    for entry in wanted:
        if (entry.quarantined, entry.new) in targets:
            raise UserError(f"{tree.new(entry)}: the plan moves two things there")
        targets.add((entry.quarantined, entry.new))
    for entry in wanted:
        for folder in _above(entry.new):
            place = tree.new(entry, folder)
            if os.path.lexists(place) and not os.path.isdir(place):
                raise UserError(f"{entry.old}: cannot be moved, {place} is no folder")
            leaves = not entry.quarantined and folder in moved
            if leaves or (entry.quarantined, folder) in targets:
                raise UserError(f"{entry.old}: cannot be moved into {place}, which moves itself")


def _check_free(tree: _Tree, entry: Moved) -> None:
    """Refuse a place where something is; a folder joins what came from it before."""
    place = tree.new(entry)
    joins = entry.kind == "folder" and entry.quarantined and os.path.isdir(place)
    if os.path.lexists(place) and (os.path.islink(place) or not joins):
        fix = "give another `quarantine`" if entry.quarantined else "give it another name"
        raise UserError(f"{entry.old}: cannot be moved, {place} exists already; {fix}")


def _check_places(tree: _Tree, entries: Sequence[Moved]) -> None:
    """Refuse places that a link leads away from, and names that their disk does not take."""
    seen: set[str] = set()
    for entry in entries:
        folder = os.path.dirname(tree.new(entry))
        if folder not in seen:
            seen.add(folder)
            if (real := os.path.realpath(folder)) != folder:
                raise UserError(
                    f"{entry.old}: cannot be moved, a link leads from {folder} to {real}; move the "
                    "link away, or give another `quarantine`"
                )
        tried = [tree.new(entry)]
        while not os.path.isdir(folder):
            tried.append(folder)
            folder = os.path.dirname(folder)
        for place in tried:
            _check_length(entry.old, place, os.path.join(folder, os.path.basename(place)))


def _check_length(old: str, place: str, there: str) -> None:
    """Ask the disk itself whether it takes a path, and its last name in a folder that is there."""
    for path in (place, there):
        try:
            os.lstat(path)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                size, whole = (len(os.fsencode(part)) for part in (os.path.basename(path), path))
                raise UserError(
                    f"{shown(old)}: cannot be moved, its new place {shown(place)} is too long for "
                    f"the disk (a name of {size} bytes, a path of {whole}); give it a shorter one, "
                    "or another `quarantine`"
                ) from None


def _emptied(
    tree: _Tree, files: Sequence[str], folders: Collection[str], needed: set[str]
) -> tuple[Emptied, ...]:
    """The folders of which nothing is left, those deeper down first."""
    leaving: dict[str, set[str]] = defaultdict(set)
    for path in files:
        leaving[posixpath.dirname(path)].add(posixpath.basename(path))
    candidates = {*folders} | {above for path in (*files, *folders) for above in _above(path)}
    emptied = []
    for folder in sorted(candidates, key=lambda path: (-path.count("/"), path)):
        if leaving[folder] == tree.names(folder) and folder not in needed:
            changed = os.lstat(tree.old(folder)).st_mtime_ns
            emptied.append(Emptied(folder, tree.mode(folder), changed))
            leaving[posixpath.dirname(folder)].add(posixpath.basename(folder))
    return tuple(emptied)


def _made(tree: _Tree, wanted: Sequence[Moved], folders: Iterable[Moved]) -> tuple[Made, ...]:
    """The folders that are missing at the new places, those higher up first."""
    made: dict[tuple[bool, str], Made] = {}
    places: dict[tuple[bool, str], str] = {}
    for entry in wanted:
        for folder in _above(entry.new):
            # What lay in a private folder stays in one.
            mode = tree.mode(folder) if entry.quarantined else None
            made[entry.quarantined, folder] = Made(folder, entry.quarantined, mode)
            places[entry.quarantined, folder] = tree.new(entry, folder)
    for entry in folders:
        made[entry.quarantined, entry.new] = Made(entry.new, entry.quarantined, entry.mode)
        places[entry.quarantined, entry.new] = tree.new(entry)
    return tuple(made[key] for key in sorted(made) if not os.path.lexists(places[key]))


def _check_access(tree: _Tree, files: Sequence[Moved], emptied: Sequence[Emptied]) -> None:
    folders = {os.path.dirname(tree.old(folder.path)) for folder in emptied}
    for file in files:
        folders.add(os.path.dirname(tree.old(file.old)))
        if not file.quarantined:
            place = os.path.dirname(tree.new(file))
            while not os.path.lexists(place):
                place = os.path.dirname(place)
            folders.add(place)
    for folder in sorted(folders):
        if not os.access(folder, os.W_OK | os.X_OK):
            raise UserError(f"{folder}: may not be written; its files cannot be moved")
