"""Files moved out of a folder, with a manifest that undoes it; nothing is deleted."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm import tqdm

from siamese.config import MendSettings
from siamese.curation.manifests import (
    Emptied,
    Manifest,
    Moved,
    kind_of,
    read_manifest,
    restore_command,
    sync_folder,
    write_manifest,
)
from siamese.curation.plans import Move, plan_moves, read_plan
from siamese.curation.shell import command_line, path_word
from siamese.data.folder import require_folder
from siamese.errors import UserError
from siamese.files.places import open_regular
from siamese.files.shown import counted, shown

_LOCK = ".siamese-lock"
_PERMISSIONS = 0o777  # without setuid, setgid and sticky: those are nobody's to bring back


@dataclass(frozen=True)
class Mended:
    """A plan that was carried out.

    Attributes:
        root: the folder.
        quarantine: where what was taken out is.
        taken_out: files that went into the quarantine.
        renamed: files that got another place in the folder.
        emptied: folders of which nothing was left; they are gone until they are restored.
        manifest: undoes it; None: the plan was empty.
    """

    root: Path
    quarantine: Path
    taken_out: int
    renamed: int
    emptied: int
    manifest: Path | None

    def text(self) -> str:
        """What was moved, and the command that undoes it."""
        if self.manifest is None:
            return f"{self.root}: the plan is empty, nothing to move"
        parts = (
            (self.taken_out, "file", f"moved to {self.quarantine}"),
            (self.renamed, "file", "moved within it"),
            (self.emptied, "emptied folder", "removed"),
        )
        done = "; ".join(f"{counted(number, what)} {end}" for number, what, end in parts if number)
        return f"{self.root}: {done}\nundo: {restore_command(self.manifest, self.root)}"


@dataclass(frozen=True)
class Restored:
    """Moves that were undone: files moved back, files that were there, folders made again."""

    root: Path
    moved: int
    already: int
    folders: int

    def text(self) -> str:
        """What was moved back."""
        if not self.moved and not self.folders:
            return f"{self.root}: nothing to do, all of it is back already"
        line = f"{self.root}: {counted(self.moved, 'file')} moved back to where they were"
        return line + (f", {self.already} were there already" if self.already else "")


def mend_folder(settings: MendSettings) -> Mended:
    """Carry out a plan of check or audit.

    Raises:
        UserError: the plan cannot be read, or carried out as a whole.
    """
    given, plan = Path(str(settings.data)), Path(str(settings.plan))
    require_folder(given)
    root = Path(os.path.realpath(given))
    moves = read_plan(plan)
    quarantine = _beside(root) if settings.quarantine is None else Path(settings.quarantine)
    if not moves:
        return Mended(root, quarantine, 0, 0, 0, None)
    path = carry_out(root, moves, quarantine, reason=f"mend by {plan}")
    done = read_manifest(path)
    taken_out = sum(moved.quarantined for moved in done.moved)
    renamed = len(done.moved) - taken_out
    return Mended(root, Path(done.quarantine), taken_out, renamed, len(done.emptied), path)


def _beside(root: Path) -> Path:
    """The quarantine that nobody has named; a link of its name leads elsewhere and is refused."""
    if not root.name:
        raise UserError(f"{root}: nothing lies beside it; give a folder with `quarantine`")
    quarantine = root.with_name(f"{root.name}-quarantine")
    if os.path.islink(quarantine):
        raise UserError(
            f"{quarantine}: is a link to {os.path.realpath(quarantine)}; if that is meant, give it "
            "with `quarantine`"
        )
    return quarantine


def carry_out(root: Path, moves: Sequence[Move], quarantine: Path, *, reason: str) -> Path:
    """Move files and whole folders, into the quarantine or to other places inside the root.

    Nothing is overwritten: all is checked before anything is moved, and a manifest is on the disk
    by then, from which :func:`restore` undoes the moves whenever they were interrupted. Folders
    that become empty are removed; the manifest knows them, too.

    Args:
        root: the folder.
        moves: what goes where; no path may be, or lie inside, another one's.
        quarantine: a folder outside the root; made where it is missing.
        reason: for the manifest.

    Returns:
        The manifest, which lies in the quarantine.

    Raises:
        UserError: a move that cannot be made (nothing has been moved); another process is moving
            files there; the disk failed on the way (names the command that undoes what was moved).
    """
    require_folder(root)
    if not moves:
        raise UserError(f"{root}: no moves were given")
    check_quarantine(root, quarantine)
    real, target = os.path.realpath(root), os.path.realpath(quarantine)
    plan_moves(real, moves, target)  # refused before as much as the quarantine is made
    os.makedirs(target, exist_ok=True)
    with _alone(target):
        planned = plan_moves(real, moves, target)
        name = _new_name(target, planned)
        moved = _with_contents(real, planned.moved)
        manifest = replace(planned, reason=reason, name=name, moved=moved)
        path = Path(target) / f"{name}.jsonl"
        write_manifest(path, manifest)
        _move_all(manifest, path)
    return path


def check_quarantine(folder: Path, place: Path) -> None:
    """Refuse a quarantine that is a file, or not apart from the folder."""
    root, quarantine = os.path.realpath(folder), os.path.realpath(place)
    if os.path.lexists(quarantine) and not os.path.isdir(quarantine):
        raise UserError(f"`quarantine` {quarantine}: is a file, a folder is needed")
    common = os.path.commonpath([root, quarantine])
    if common in (root, quarantine):
        how = "lies inside" if common == root else "holds"
        raise UserError(f"`quarantine` {quarantine}: {how} {root}; give a folder outside of it")


@contextlib.contextmanager
def _alone(quarantine: str) -> Iterator[None]:
    """Only one process moves files into or out of a quarantine."""
    try:
        with FileLock(os.path.join(quarantine, _LOCK), timeout=0):
            yield
    except Timeout:
        raise UserError(
            f"{quarantine}: another process is moving files into or out of it; wait for its end"
        ) from None


def _new_name(quarantine: str, planned: Manifest) -> str:
    taken = {moved.new for moved in planned.moved} | {made.path for made in planned.made}
    taken.update(os.listdir(quarantine))
    now, number = time.strftime("%Y%m%d-%H%M%S"), 1
    while f"manifest-{now}-{number}.jsonl" in taken:
        number += 1
    return f"manifest-{now}-{number}"


def _with_contents(root: str, files: Sequence[Moved]) -> tuple[Moved, ...]:
    read = []
    for file in tqdm(files, "reading", unit="file", disable=None, leave=False, delay=1):
        content = None
        with contextlib.suppress(OSError):  # may be moved all the same
            content = _content_of(os.path.join(root, file.old))
        read.append(replace(file, content=content))
    return tuple(read)


@dataclass(frozen=True)
class _Places:
    """Where a manifest's files are and belong."""

    manifest: Manifest
    root: str
    quarantine: str

    def old(self, path: str) -> str:
        return os.path.join(self.root, path)

    def new(self, path: str, quarantined: bool) -> str:
        return os.path.join(self.quarantine if quarantined else self.root, path)

    def require_plain(self, *places: str) -> None:
        """Looked at right before each step: no link leads elsewhere on the way (OSError)."""
        for place in places:
            folder = os.path.dirname(place)
            if os.path.realpath(folder) != folder:
                words = f"is not touched: a link leads from there to {os.path.realpath(folder)}"
                raise OSError(errno.ELOOP, words, folder)

    def unfinished(self, place: str, number: int) -> str:
        """Name of a copy beside ``place`` that is not whole yet."""
        return os.path.join(os.path.dirname(place), f".{self.manifest.name}-{number}")


def _move_all(manifest: Manifest, path: Path) -> None:
    places = _Places(manifest, manifest.root, manifest.quarantine)
    done, undo = 0, restore_command(path, manifest.root)
    try:
        for made in manifest.made:
            folder = places.new(made.path, made.quarantined)
            places.require_plain(folder)
            with contextlib.suppress(FileExistsError):  # then it is somebody else's
                os.mkdir(folder)
                sync_folder(os.path.dirname(folder))
                if made.mode is not None:
                    _set_permissions(folder, made.mode | stat.S_IRWXU)
        bar = tqdm(manifest.moved, "moving", unit="file", disable=None, leave=False, delay=1)
        for moved in bar:
            old, new = places.old(moved.old), places.new(moved.new, moved.quarantined)
            places.require_plain(old, new)
            _move_file(old, new, places.unfinished(new, done), moved)
            done += 1
        for emptied in manifest.emptied:
            with contextlib.suppress(OSError):  # something new is in it
                places.require_plain(places.old(emptied.path))
                os.rmdir(places.old(emptied.path))
    except OSError as error:
        raise UserError(
            f"{error.filename}: {error.strerror}; {done} of {len(manifest.moved)} files are moved, "
            f"undo: {undo}"
        ) from None
    except KeyboardInterrupt:
        print(f"{done} of {len(manifest.moved)} files are moved, undo: {undo}", file=sys.stderr)
        raise


def restore(manifest: Path, root: Path | None = None, quarantine: Path | None = None) -> Restored:
    """Undo :func:`carry_out`, however far it came; may itself be interrupted and run again.

    Every file goes back to its old place with its old time and permissions, folders that were
    emptied are made again, folders that were made are removed when nothing is in them. Of several
    manifests the last is undone first.

    A manifest may come from anywhere: nothing outside of the two folders is made, moved or
    removed, whatever it says, no link is followed on the way, and of the modes in it the
    permissions count alone.

    Args:
        manifest: the file.
        root: the folder that the files go back to. None: the one that the manifest names, where
            it is the neighbour of the quarantine.
        quarantine: the folder that they are in. None: the one that the manifest lies in.

    Raises:
        UserError: not a manifest; a folder that must be named, or is gone; another process is
            moving files. Files whose place is taken, that have changed, or that are gone are named
            after the rest went back.
    """
    known = read_manifest(manifest)
    if quarantine is None:
        held = os.path.realpath(manifest.parent)
    else:
        require_folder(quarantine)
        held = os.path.realpath(quarantine)
    home = _home(known, manifest, held) if root is None else os.path.realpath(root)
    if not os.path.isdir(home):
        raise UserError(f"{home}: is gone; make that folder again, or name it with `root`")
    if os.path.commonpath([home, held]) in (home, held):
        raise UserError(
            f"{home} and {held}: one lies in the other; name the folder that the files go back to "
            "with `root`, and that they are in with `quarantine`"
        )
    with _alone(held):
        return _restore(_Places(known, home, held), manifest)


def _home(known: Manifest, manifest: Path, held: str) -> str:
    """The folder that files go back to, where the manifest may say so: beside the quarantine."""
    home = os.path.realpath(known.root)
    if os.path.dirname(home) == os.path.dirname(held):
        return home
    words = ("restore", path_word(manifest), "--root", path_word(known.root))
    raise UserError(
        f"{manifest}: its files belong to {shown(known.root)}, it says, which does not lie beside "
        f"{held}; if that is right: {command_line('siamese-data', *words)}"
    )


def _restore(places: _Places, path: Path) -> Restored:
    manifest = places.manifest
    folders = moved = 0
    for emptied in reversed(manifest.emptied):
        with contextlib.suppress(OSError):  # it is there; or reported with the files in it
            places.require_plain(places.old(emptied.path))
            os.mkdir(places.old(emptied.path))
            folders += 1
            sync_folder(os.path.dirname(places.old(emptied.path)))
    left: list[str] = []
    bar = tqdm(manifest.moved, "moving back", unit="file", disable=None, leave=False, delay=1)
    for number, before in enumerate(bar):
        try:
            moved += _put_back(places, number, before)
        except OSError as error:
            left.append(f"{before.old} ({error.strerror})")
    _finish_folders(places)
    for made in reversed(manifest.made):
        with contextlib.suppress(OSError):  # in use, or gone
            places.require_plain(places.new(made.path, made.quarantined))
            os.rmdir(places.new(made.path, made.quarantined))
    if left:
        some = "; ".join(left[:3]) + ("; ..." if len(left) > 3 else "")
        raise UserError(
            f"{path}: {moved} files moved back, {len(left)} not: {some}. Clear these up and run "
            "it again"
        )
    return Restored(Path(places.root), moved, len(manifest.moved) - moved, folders)


def _put_back(places: _Places, number: int, before: Moved) -> bool:
    """Bring one file back; False when it is at its place already; OSError when it cannot be."""
    old, new = places.old(before.old), places.new(before.new, before.quarantined)
    places.require_plain(old, new)
    has_old, has_new = os.path.lexists(old), os.path.lexists(new)
    if not has_old and not has_new:
        raise OSError(0, f"is neither there nor at {new}; undo later moves first")
    for place in (old, new):  # a copy that was interrupted; the whole file is known to be there
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(places.unfinished(place, number))
    if not has_new:
        return False
    if has_old and os.path.samestat(os.lstat(old), os.lstat(new)):
        return False  # one file; to some disks both names are one entry, which must stay
    if has_old:
        _remove_copy(old, new, before)
        return True
    if not _is_unchanged(new, before):
        raise OSError(0, f"has changed since; it stays at {new}")
    os.makedirs(os.path.dirname(old), exist_ok=True)
    places.require_plain(old, new)
    with contextlib.suppress(OSError):  # on a disk that cannot keep it the copy gets it
        _bring_back_status(new, before)
    _move_file(new, old, places.unfinished(old, number), before)
    return True


def _remove_copy(old: str, new: str, before: Moved) -> None:
    """Finish an interrupted move between disks: both files are whole, the second goes."""
    kinds = {kind_of(os.lstat(place).st_mode) for place in (old, new)}
    if kinds not in ({"file"}, {"link"}) or _content_of(old) != _content_of(new):
        raise OSError(0, f"something new is at its place; it stays at {new}")
    _bring_back_status(old, before)
    os.unlink(new)


def _finish_folders(places: _Places) -> None:
    """Give folders that were emptied their permissions and time, where they are as they were."""
    held: dict[str, set[str]] = defaultdict(set)
    entries: list[Moved | Emptied] = [*places.manifest.moved, *places.manifest.emptied]
    for entry in entries:
        path = entry.old if isinstance(entry, Moved) else entry.path
        held[os.path.dirname(path)].add(os.path.basename(path))
    for emptied in places.manifest.emptied:
        folder = places.old(emptied.path)
        with contextlib.suppress(OSError):  # gone, or another's
            places.require_plain(os.path.join(folder, "what is in it"))
            if set(os.listdir(folder)) == held[emptied.path]:
                _set_permissions(folder, emptied.mode)
                os.utime(folder, ns=(emptied.mtime_ns, emptied.mtime_ns))


def _move_file(source: str, target: str, temporary: str, before: Moved) -> None:
    """Rename a file or link; between file systems copy it whole, then remove the source.

    At every moment it is whole in one place; after an OSError the source is untouched. An
    unfinished copy is called ``temporary``, in the target's folder; a copy gets the time and
    permissions that the file had ``before``.
    """
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, "is there already", target)
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    else:
        return
    try:
        _copy(source, temporary, before)
        os.rename(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder(os.path.dirname(target))
    os.unlink(source)


def _copy(source: str, copy: str, before: Moved) -> None:
    """Copy with times and permissions, wait for the disk, compare."""
    kind = kind_of(os.lstat(source).st_mode)
    if kind not in ("file", "link"):
        raise OSError(errno.EXDEV, f"is a {kind} that cannot go to another disk", source)
    copy_content(source, copy)
    with contextlib.suppress(OSError):  # simpler file systems know no permissions
        shutil.copystat(source, copy, follow_symlinks=False)
        _bring_back_status(copy, before)
    if kind == "file":
        with open_regular(copy, follow=False) as file:
            os.fsync(file.fileno())
    if _content_of(source) != _content_of(copy):
        raise OSError(errno.EIO, "its copy differs: the disk may be failing", source)


def copy_content(source: str, copy: str) -> None:
    """Copy a file's bytes, or a link, to a place where nothing is; no link is followed there."""
    if os.path.islink(source):
        os.symlink(os.readlink(source), copy)
        return
    with open_regular(source, follow=False) as given:
        # Private until it has the permissions of the source.
        handle = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(handle, "wb") as written:
            shutil.copyfileobj(given, written)


def _content_of(path: str) -> str:
    """SHA-256 of a file's bytes; a link's target; empty for what is neither."""
    kind = kind_of(os.lstat(path).st_mode)
    if kind == "link":
        return os.readlink(path)
    if kind != "file":
        return ""
    with open_regular(path, follow=False) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_unchanged(path: str, before: Moved) -> bool:
    """Whether this is the file that was moved, at whichever place."""
    now = os.lstat(path)
    if kind_of(now.st_mode) != before.kind:
        return False
    if before.kind in ("folder", "other"):
        return True
    if now.st_size != before.size:
        return False
    return now.st_mtime_ns == before.mtime_ns or _content_of(path) == before.content


def _bring_back_status(path: str, before: Moved) -> None:
    """Give a file the time and permissions that it had, where a simpler disk has lost them."""
    now = os.lstat(path)
    if before.kind == "file" and kind_of(now.st_mode) == "file":
        _set_permissions(path, before.mode)
    if before.kind in ("file", "link") and now.st_mtime_ns != before.mtime_ns:
        times = (now.st_atime_ns, before.mtime_ns)
        if before.kind == "file":
            os.utime(path, ns=times)
        elif os.utime in os.supports_follow_symlinks:
            os.utime(path, ns=times, follow_symlinks=False)


def _set_permissions(path: str, mode: int) -> None:
    """Give a file or folder the permissions of a mode; never what a link leads to.

    Of setuid, setgid and sticky a folder keeps what the system gave it; a file loses them.
    """
    now = os.lstat(path).st_mode
    special = stat.S_IMODE(now) & ~_PERMISSIONS if stat.S_ISDIR(now) else 0
    wanted = special | (mode & _PERMISSIONS)
    if not stat.S_ISLNK(now) and wanted != stat.S_IMODE(now):
        os.chmod(path, wanted)
