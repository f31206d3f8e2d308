"""Where a name that comes from a file may lead, and what may be opened there."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from functools import cache
from io import BufferedReader
from pathlib import Path

from siamese.errors import UserError
from siamese.files.shown import shown

# No list, plan, manifest or study of people's pictures comes near this.
TEXT_LIMIT = 256 * 2**20
# What the kernel shows as regular files; reading one may wait for ever (/proc/kmsg).
_KERNEL = {"proc", "sysfs", "debugfs", "tracefs", "securityfs", "configfs", "cgroup", "cgroup2"}


def is_inside(path: str | os.PathLike[str], *roots: str | os.PathLike[str]) -> bool:
    """Whether a path, with every link in it followed, lies in one of the folders or is one.

    What is not there yet counts by the folders above it that are.
    """
    real = os.path.realpath(path)
    return any(
        real == top or real.startswith(top.rstrip(os.sep) + os.sep)
        for top in map(os.path.realpath, roots)
    )


def require_inside(root: Path, name: str, source: str) -> Path:
    """A path below a folder from a name that a file holds; ``source`` names the file and line.

    Raises:
        UserError: the name is absolute, climbs out with ``..``, holds a zero byte, or leads
            outside through a link.
    """
    climbs = ".." in name.replace("\\", "/").split("/")
    if "\0" in name or os.path.isabs(name) or climbs or not is_inside(root / name, root):
        raise UserError(
            f"{source}: '{shown(name)}' leads outside {shown(str(root))}; name a path in it"
        )
    return root / name


def require_apart(data: Path, out: Path) -> None:
    """Refuse folders that lie in each other: a source is never changed.

    Raises:
        UserError: names both.
    """
    source, target = (Path(os.path.realpath(path)) for path in (data, out))
    if source.is_relative_to(target) or target.is_relative_to(source):
        raise UserError(f"`out` {out}: lies in {data} or around it; name a folder beside it")


def require_no_way_out(out: Path, people: Iterable[str]) -> None:
    """Refuse links in the results that lead out of them, such as into the source.

    Raises:
        UserError: names the link, or the file in the place of a person's folder.
    """
    for person in people:
        place = out / person
        if os.path.lexists(place) and not os.path.isdir(place):
            raise UserError(f"{place}: is a file; a folder of that name is needed: move it away")
        if not is_inside(place, out):
            raise UserError(
                f"{place}: a link leads out of {out}, where nothing is written; remove the link"
            )


def is_near(place: str | os.PathLike[str], checkpoint: Path) -> bool:
    """Whether a run may be written to a folder that only its checkpoint names.

    It may where the folder lies in the working folder, or beside the folder that holds the run's
    folder of checkpoints (``CHECKPOINTS/RUN/last.pt``).
    """
    beside = os.path.dirname(os.path.realpath(checkpoint.parent.parent))
    return is_inside(place, os.curdir) or os.path.dirname(os.path.realpath(place)) == beside


def is_regular(path: str | os.PathLike[str]) -> bool:
    """Whether this is a file of a disk, or a link to one. Never raises.

    No device, pipe, socket or folder, and nothing that the kernel shows below ``/proc`` or
    ``/sys``.
    """
    try:
        return _is_file(os.stat(path))
    except (OSError, ValueError):
        return False


def _is_file(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) and status.st_dev not in _kernel_devices()


@cache
def _kernel_devices() -> frozenset[int]:
    """The device numbers of the kernel's own file systems, wherever they are mounted."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:  # no Linux
        return frozenset()
    devices = set()
    for line in lines:  # proc(5): ID, parent, major:minor, ... - type, source, options
        before, _, after = line.partition(" - ")
        if after.split(" ")[0] in _KERNEL:
            major, minor = before.split(" ")[2].split(":")
            devices.add(os.makedev(int(major), int(minor)))
    return frozenset(devices)


def open_regular(path: str | os.PathLike[str], *, follow: bool = True) -> BufferedReader:
    """Open a regular file, or with ``follow`` a link to one; nothing else is opened or waited for.

    Raises:
        OSError: it is something else, or cannot be opened.
        ValueError: no system has such a name.
    """
    if not _is_file(os.stat(path, follow_symlinks=follow)):  # some devices act when opened
        raise OSError(0, "is not a regular file", os.fspath(path))
    # O_NONBLOCK: a pipe that takes the file's place between the look and the opening.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(path, flags if follow else flags | getattr(os, "O_NOFOLLOW", 0))
    try:
        if not _is_file(os.fstat(handle)):
            raise OSError(0, "is not a regular file", os.fspath(path))
        return open(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_bytes(path: Path, source: str | None = None, limit: int = TEXT_LIMIT) -> bytes:
    """The content of a regular file of ``limit`` bytes at most; messages call it ``source``.

    Raises:
        UserError: missing, no regular file, larger than the limit, unreadable.
    """
    source = source or str(path)
    if not os.path.exists(path):  # unlike Path.exists never an OSError
        raise UserError(f"{source}: no such file")
    if not is_regular(path):
        kind = "a folder" if os.path.isdir(path) else "a device or pipe"
        raise UserError(f"{source}: is {kind}; a file is needed")
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            content = file.read(limit + 1) if size <= limit else b""
    except OSError as error:
        raise UserError(f"{source}: cannot be read ({error.strerror})") from None
    if size > limit or len(content) > limit:
        raise UserError(f"{source}: is larger than {limit / 2**20:g} MiB; is it the right file?")
    return content
