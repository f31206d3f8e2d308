"""Moves worked out down to single files, refused where one of them cannot be made."""

from __future__ import annotations

import os
import posixpath
import stat
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from siamese.curation.moves.manifests import Emptied, Made, is_inside, restore_command
from siamese.curation.moves.plans import Move
from siamese.curation.moves.transfer import is_same_entry
from siamese.errors import UserError, first_few
from siamese.files.shown import shown

_LONGEST_NAME, _LONGEST_PATH = 255, 4096  # bytes, where the system does not say
_ROOM = len(".manifest-20260131-235959-1-1000000")  # bytes of a name that an unfinished copy has


@dataclass(frozen=True)
class Leaf:
    """A single file or link: from the root to a new place.

    Only where the file system takes both names for one, it is a folder, which is renamed.
    """

    old: str
    new: str
    quarantined: bool


@dataclass(frozen=True)
class PlannedMoves:
    """Files that move, folders that this empties (deeper first), folders that it needs."""

    leaves: tuple[Leaf, ...]
    emptied: tuple[Emptied, ...]
    made: tuple[Made, ...]


def plan_moves(root: str, moves: Sequence[Move], quarantine: str) -> PlannedMoves:
    """Check every move before any is made, and take whole folders apart.

    Args:
        root: real absolute path of the folder that is mended.
        moves: what goes where.
        quarantine: real absolute path; may be missing.

    Raises:
        UserError: something is not there, in the way, outside the root, twice in the plan, or may
            not be written.
    """
    tree = _Tree(root)
    wanted = [_wanted(tree, move) for move in moves]
    _check_sources(tree, [leaf.old for leaf in wanted], quarantine)
    _check_targets(tree, wanted, quarantine)
    leaves: list[Leaf] = []
    folders: set[str] = set()  # that are moved whole, and all below them
    modes: dict[tuple[bool, str], int] = {}  # of the folders that this needs
    for leaf in wanted:
        if not tree.is_folder(leaf.old) or _is_renamed_only(root, leaf):
            leaves.append(leaf)
            continue
        for old, is_folder in tree.below(leaf.old):
            inner = Leaf(old, leaf.new + old[len(leaf.old) :], leaf.quarantined)
            place = os.path.join(quarantine if leaf.quarantined else root, inner.new)
            if not is_folder:
                leaves.append(inner)
            else:
                folders.add(old)
                modes[leaf.quarantined, inner.new] = tree.mode(old)
            if not (is_folder and _is_folder(place)):
                _check_free(root, inner, place)
    _check_places(root, quarantine, [*wanted, *leaves])
    needed = {folder for leaf in wanted if not leaf.quarantined for folder in _above(leaf.new)}
    emptied = _emptied(tree, [leaf.old for leaf in leaves], folders, needed)
    _check_access(root, leaves, emptied)
    return PlannedMoves(tuple(leaves), emptied, _made(tree, wanted, modes, quarantine))


class _Tree:
    """The folder as it is listed; each of its folders is read once."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._names: dict[str, frozenset[str]] = {}
        self._real: dict[str, str] = {}

    def at(self, path: str) -> str:
        return os.path.join(self.root, path)

    def names(self, folder: str) -> frozenset[str]:
        if folder not in self._names:
            try:
                self._names[folder] = frozenset(os.listdir(self.at(folder)))
            except (FileNotFoundError, NotADirectoryError):
                self._names[folder] = frozenset()
            except OSError as error:
                raise UserError(f"{self.at(folder)}: cannot be read ({error.strerror})") from None
        return self._names[folder]

    def holds(self, path: str) -> bool:
        """Whether it is there under just this name; systems that fold letters accept others."""
        names = path.split("/")
        return all(name in self.names("/".join(names[:at])) for at, name in enumerate(names))

    def is_folder(self, path: str) -> bool:
        return stat.S_ISDIR(os.lstat(self.at(path)).st_mode)

    def mode(self, path: str) -> int:
        return stat.S_IMODE(os.lstat(self.at(path)).st_mode)

    def below(self, path: str) -> Iterator[tuple[str, bool]]:
        """A folder and all that it holds, as (path, whether it is a folder); links are files."""
        yield path, True
        for name in sorted(self.names(path)):
            inner = f"{path}/{name}"
            if self.is_folder(inner):
                yield from self.below(inner)
            else:
                yield inner, False

    def inside(self, path: str) -> str:
        """A given path without links, ``.`` or doubled slashes, relative to the root."""
        head, name = posixpath.split(posixpath.normpath(path))
        if not is_inside(path) or name in ("", "."):
            raise UserError(f"{path or 'an empty path'}: must lie inside {self.root}")
        if head not in self._real:
            self._real[head] = os.path.realpath(self.at(head))
        real = self._real[head]
        if os.path.commonpath([real, self.root]) != self.root:
            raise UserError(f"{path}: a link leads out of {self.root}; mend {real} by itself")
        return posixpath.normpath(posixpath.join(os.path.relpath(real, self.root), name))


def _wanted(tree: _Tree, move: Move) -> Leaf:
    old = tree.inside(move.path)
    return Leaf(old, old if move.to is None else tree.inside(move.to), move.to is None)


def _above(path: str) -> Iterator[str]:
    """The folders that a path leads through, the highest first; without the root."""
    parts = path.split("/")
    for depth in range(1, len(parts)):
        yield "/".join(parts[:depth])


def _check_sources(tree: _Tree, paths: Sequence[str], quarantine: str) -> None:
    missing = [path for path in paths if not tree.holds(path)]
    if missing:
        hint = "was something moved since the plan was written? Write it anew"
        if earlier := _manifests(tree.root, quarantine):
            hint += f"; if an earlier run was interrupted, undo it first: {earlier[-1]}"
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


def _manifests(root: str, quarantine: str) -> list[str]:
    """The commands that undo what was moved there, the last one last."""
    if not os.path.isdir(quarantine):
        return []
    names = sorted(os.listdir(quarantine), key=lambda name: (len(name), name))
    return [
        restore_command(os.path.join(quarantine, name), root)
        for name in names
        if name.startswith("manifest-") and name.endswith(".jsonl")
    ]


def _check_targets(tree: _Tree, wanted: Sequence[Leaf], quarantine: str) -> None:
    moved = {leaf.old for leaf in wanted}
    targets: set[tuple[bool, str]] = set()
    for leaf in wanted:
        place = os.path.join(quarantine if leaf.quarantined else tree.root, leaf.new)
        # What comes from the same folder joins what is in the quarantine; see _check_free.
        joins = leaf.quarantined and tree.is_folder(leaf.old) and _is_folder(place)
        if not joins:
            _check_free(tree.root, leaf, place)
        if (leaf.quarantined, leaf.new) in targets:
            raise UserError(f"{place}: the plan moves two things there")
        targets.add((leaf.quarantined, leaf.new))
    for leaf in wanted:
        for folder in _above(leaf.new):
            place = os.path.join(quarantine if leaf.quarantined else tree.root, folder)
            if os.path.lexists(place) and not os.path.isdir(place):
                raise UserError(f"{leaf.old}: cannot be moved, {place} is no folder")
            leaves = not leaf.quarantined and folder in moved
            if leaves or (leaf.quarantined, folder) in targets:
                raise UserError(f"{leaf.old}: cannot be moved into {place}, which moves itself")


def _check_places(root: str, quarantine: str, leaves: Sequence[Leaf]) -> None:
    """Refuse places that a link leads away from, and names that their disk does not take."""
    looked: set[str] = set()
    for leaf in leaves:
        top = quarantine if leaf.quarantined else root
        place = os.path.join(top, leaf.new)
        folder = os.path.dirname(place)
        if folder not in looked:
            looked.add(folder)
            if (real := os.path.realpath(folder)) != folder:
                raise UserError(
                    f"{leaf.old}: cannot be moved, a link leads from {folder} to {real}; move the "
                    "link away, or give another --quarantine"
                )
        _check_length(leaf.old, place)


def _check_length(old: str, place: str) -> None:
    above = os.path.dirname(place)
    while not os.path.isdir(above):
        above = os.path.dirname(above)
    name_limit = _limit(above, "PC_NAME_MAX", _LONGEST_NAME)
    for name in place[len(above) :].split("/"):
        if (size := len(os.fsencode(name))) > name_limit:
            raise UserError(
                f"{shown(old)}: cannot be moved, its new name {shown(name)} has {size} bytes and "
                f"{above} takes {name_limit}; give it a shorter one"
            )
    path_limit = _limit(above, "PC_PATH_MAX", _LONGEST_PATH) - 1  # with the zero byte at its end
    size = max(len(os.fsencode(place)), len(os.fsencode(os.path.dirname(place))) + 1 + _ROOM)
    if size > path_limit:
        raise UserError(
            f"{shown(old)}: cannot be moved, its new path {shown(place)} has {size} bytes and the "
            f"system takes {path_limit}; give another --quarantine"
        )


def _limit(folder: str, name: str, otherwise: int) -> int:
    """What the folder's file system says of itself."""
    try:
        found = os.pathconf(folder, name)
    except (OSError, ValueError, AttributeError):
        return otherwise
    return found if found > 0 else otherwise


def _check_free(root: str, leaf: Leaf, place: str) -> None:
    if os.path.lexists(place) and not _is_renamed_only(root, leaf):
        fix = "give another --quarantine" if leaf.quarantined else "give it another name"
        raise UserError(f"{leaf.old}: cannot be moved, {place} exists already; {fix}")


def _is_folder(place: str) -> bool:
    return os.path.isdir(place) and not os.path.islink(place)


def _is_renamed_only(root: str, leaf: Leaf) -> bool:
    """Whether old and new name are one entry, on a file system that folds letter case."""
    old, new = os.path.join(root, leaf.old), os.path.join(root, leaf.new)
    if leaf.quarantined or leaf.old == leaf.new or not os.path.lexists(new):
        return False
    return is_same_entry(old, new)


def _emptied(
    tree: _Tree, leaves: Sequence[str], folders: set[str], needed: set[str]
) -> tuple[Emptied, ...]:
    """The folders of which nothing is left, those deeper down first."""
    leaving: dict[str, set[str]] = defaultdict(set)
    for path in leaves:
        leaving[posixpath.dirname(path)].add(posixpath.basename(path))
    candidates = folders | {above for path in (*leaves, *folders) for above in _above(path)}
    found = []
    for folder in sorted(candidates, key=lambda path: (-path.count("/"), path)):
        if leaving[folder] == tree.names(folder) and folder not in needed:
            status = os.lstat(tree.at(folder))
            found.append(Emptied(folder, stat.S_IMODE(status.st_mode), status.st_mtime_ns))
            leaving[posixpath.dirname(folder)].add(posixpath.basename(folder))
    return tuple(found)


def _made(
    tree: _Tree, wanted: Sequence[Leaf], known: dict[tuple[bool, str], int], quarantine: str
) -> tuple[Made, ...]:
    """The folders that are missing at the new places, those higher up first."""
    modes: dict[tuple[bool, str], int | None] = dict(known)
    for leaf in wanted:
        for folder in _above(leaf.new):
            # What lay in a private folder stays in one.
            mode = tree.mode(folder) if leaf.quarantined else None
            modes.setdefault((leaf.quarantined, folder), mode)
    return tuple(
        Made(folder, quarantined, mode)
        for (quarantined, folder), mode in sorted(modes.items(), key=lambda item: item[0])
        if not os.path.lexists(os.path.join(quarantine if quarantined else tree.root, folder))
    )


def _check_access(root: str, leaves: Sequence[Leaf], emptied: Sequence[Emptied]) -> None:
    folders = {os.path.dirname(os.path.join(root, folder.path)) for folder in emptied}
    for leaf in leaves:
        folders.add(os.path.dirname(os.path.join(root, leaf.old)))
        if not leaf.quarantined:
            place = os.path.dirname(os.path.join(root, leaf.new))
            while not os.path.lexists(place):
                place = os.path.dirname(place)
            folders.add(place)
    for folder in sorted(folders):
        if not os.access(folder, os.W_OK | os.X_OK):
            raise UserError(f"{folder}: may not be written; its files cannot be moved")
