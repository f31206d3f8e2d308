"""One file moved, also to another file system: at every moment it is whole in one place."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat

from siamese.curation.moves.manifests import Moved, kind_of, sync_folder
from siamese.files.places import open_regular

_PERMISSIONS = 0o777  # without setuid, setgid and sticky: those are nobody's to bring back
_BLOCK = 1 << 20


def move_file(source: str, target: str, temporary: str, before: Moved) -> None:
    """Rename a file or link; between file systems copy it whole, then remove the source.

    Args:
        source: the file.
        target: its new place.
        temporary: name in the target's folder for an unfinished copy.
        before: what it was at first; a copy gets its time and permissions.

    Raises:
        FileExistsError: there is something at the target.
        OSError: whatever the file system says; the source is untouched then.
    """
    if os.path.lexists(target) and not is_same_entry(source, target):
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
    found = os.lstat(source)
    kind = kind_of(found.st_mode)
    if kind not in ("file", "link"):
        raise OSError(errno.EXDEV, f"is a {kind} that cannot go to another disk", source)
    copy_content(source, copy)
    with contextlib.suppress(OSError):  # simpler file systems know no permissions
        shutil.copystat(source, copy, follow_symlinks=False)
        if kind == "file":
            set_permissions(copy, found.st_mode)
        bring_back_status(copy, before)
    if kind == "file":
        with open_regular(copy, follow=False) as file:
            os.fsync(file.fileno())
    if content_of(source) != content_of(copy):
        raise OSError(errno.EIO, "its copy differs: the disk may be failing", source)


def copy_content(source: str, copy: str) -> None:
    """Copy a file's bytes, or a link, to a place where nothing is.

    Raises:
        FileExistsError: something is there; a link is not followed.
    """
    if os.path.islink(source):
        os.symlink(os.readlink(source), copy)
        return
    with open_regular(source, follow=False) as given:
        # Private until it has the permissions of the source.
        handle = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(handle, "wb") as written:
            shutil.copyfileobj(given, written, _BLOCK)


def content_of(path: str) -> str:
    """SHA-256 of a file's bytes; a link's target; empty for what is neither."""
    kind = kind_of(os.lstat(path).st_mode)
    if kind == "link":
        return os.readlink(path)
    if kind != "file":
        return ""
    with open_regular(path, follow=False) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_unchanged(path: str, before: Moved) -> bool:
    """Whether this is the file that was moved, at whichever place."""
    found = os.lstat(path)
    if kind_of(found.st_mode) != before.kind:
        return False
    if before.kind in ("folder", "other"):
        return True
    if found.st_size != before.size:
        return False
    return found.st_mtime_ns == before.mtime_ns or content_of(path) == before.content


def bring_back_status(path: str, before: Moved) -> None:
    """Give a file the time and permissions that it had, where a simpler disk has lost them."""
    found = os.lstat(path)
    if before.kind == "file" and kind_of(found.st_mode) == "file":
        set_permissions(path, before.mode)
    if before.kind in ("file", "link") and found.st_mtime_ns != before.mtime_ns:
        at = (found.st_atime_ns, before.mtime_ns)
        if before.kind == "file":
            os.utime(path, ns=at)
        elif os.utime in os.supports_follow_symlinks:
            os.utime(path, ns=at, follow_symlinks=False)


def set_permissions(path: str, mode: int) -> None:
    """Give a file or folder, never what a link leads to, the permissions of a mode.

    Of setuid, setgid and sticky a folder keeps what the system gave it; a file whose permissions
    change gets none.
    """
    found = os.lstat(path).st_mode
    special = stat.S_IMODE(found) & ~_PERMISSIONS if stat.S_ISDIR(found) else 0
    wanted = special | (mode & _PERMISSIONS)
    if not stat.S_ISLNK(found) and wanted != stat.S_IMODE(found):
        os.chmod(path, wanted)


def is_same_entry(first: str, second: str) -> bool:
    """Whether two names are one entry of a folder, on a file system that folds letter case."""
    if not os.path.samestat(os.lstat(first), os.lstat(second)):
        return False
    parents = os.path.dirname(first), os.path.dirname(second)
    if not os.path.samefile(*parents):
        return False
    return not (is_spelled_so(first) and is_spelled_so(second))


def is_spelled_so(path: str) -> bool:
    """Whether the folder lists the name in just these letters."""
    return os.path.basename(path) in os.listdir(os.path.dirname(path))
