"""A cache of decoded pictures, so that second epochs and second runs need not decode.

One file per folder and preprocessing, shared by everything that reads pictures of that folder: a
picture is decoded once, when it is first asked for, and again only when its file changes.
"""

from __future__ import annotations

import hashlib
import inspect
import itertools
import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL
import torch
from PIL import features
from tqdm import tqdm

from siamese.data import decode as decoding
from siamese.data.batches import Batch, evaluation_loader
from siamese.data.cache_files import (
    CacheFiles,
    Entry,
    Index,
    alone,
    checksum_of,
    opened_index,
    say,
    stamp_of,
    told_plainly,
)
from siamese.data.decode import DecodeError, decode
from siamese.data.folder import FaceFolder
from siamese.data.transforms import Preprocess
from siamese.errors import UserError
from siamese.libraries import torchvision
from siamese.processors import processors

_FORMAT = 1  # of the files; raised when what is in them changes
_BATCH = 32  # pictures that a process hands over at a time
_PATIENCE = 1.0  # seconds of work that an interruption may cost
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)  # it might lead to somebody's file
_INDEX_BYTES = 300  # room that the index takes per picture, generously


@dataclass
class _Kept:
    """The decoded pictures of one root, as a run found or made them."""

    files: CacheFiles
    rows: dict[str, tuple[int, int]]
    failed: dict[str, str]
    _map: npt.NDArray[np.uint8] | None = field(default=None, repr=False)

    def pixels(self, path: str) -> npt.NDArray[np.uint8] | None:
        """A copy of a picture's row, uint8 (side, side, 3); None where it is not there any more."""
        row, checksum = self.rows.get(path, (-1, 0))
        if row < 0:
            return None
        if self._map is None:  # in each loader process anew
            try:
                self._map = self.files.map_rows()
            except OSError:
                self._map = np.empty((0, self.files.side, self.files.side, 3), np.uint8)
        if row >= len(self._map):
            return None
        pixels = np.array(self._map[row])
        # Another run may give the row to another picture meanwhile; disks fail, too.
        return pixels if checksum_of(pixels) == checksum else None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_map": None}


class PictureCache:
    """Pictures as :class:`Preprocess` makes them, from the cache where it has them.

    Can be pickled; each process maps the file for itself.

    Args:
        kept: what there is, by root.
        preprocess: as in :func:`open_cache`.
        size: as in :func:`open_cache`.
    """

    def __init__(self, kept: dict[Path, _Kept], preprocess: Preprocess, size: int | None):
        self._kept, self.preprocess, self.size = kept, preprocess, size

    def read(self, root: Path, path: str) -> torch.Tensor:
        """A picture, uint8 (3, size, size), as decoding it would give it to the last bit.

        Args:
            root: the root of one of the folders that the cache was opened for.
            path: relative to it; what the cache does not have is decoded.

        Raises:
            DecodeError: it cannot be decoded.
        """
        kept = self._kept.get(root)
        if kept is not None:
            if path in kept.failed:
                raise DecodeError(kept.failed[path])
            pixels = kept.pixels(path)
            if pixels is not None:
                return torch.from_numpy(pixels).permute(2, 0, 1)  # laid out as Preprocess does
        return self.preprocess(decode(root / path, self.size))


def open_cache(
    place: Path,
    folders: Sequence[FaceFolder],
    preprocess: Preprocess,
    size: int | None,
    *,
    workers: int | None = None,
    progress: bool = True,
) -> PictureCache:
    """The cache of some folders' pictures; what it does not have yet is decoded now.

    Other pictures of the same roots that are in the cache stay. Several processes may open one
    cache at a time: one builds, the others wait. A build that is interrupted goes on the next time.

    Args:
        place: folder of all caches.
        folders: the pictures that will be read; parts of one root share a file.
        preprocess: makes the rows.
        size: pictures may be decoded reduced for this side (see
            :func:`siamese.data.decode.decode`); None: not reduced.
        workers: processes that decode; None: one per processor; 0: this one.
        progress: show progress bars.

    Raises:
        UserError: the place cannot be used, or has no room.
    """
    wanted: dict[Path, list[str]] = {}
    for folder in folders:
        wanted.setdefault(folder.root, []).extend(folder.paths)
    kept = {}
    with told_plainly(place):
        for root, paths in wanted.items():
            _make_place(place, root)
            files = CacheFiles(place / _name(root, preprocess, size), preprocess.size)
            with alone(files):
                build = _Build(files, place, root, preprocess, size, workers, progress)
                kept[root] = build.run(list(dict.fromkeys(paths)))
    return PictureCache(kept, preprocess, size)


@dataclass(frozen=True)
class _Build:
    """Brings one root's cache up to date; see :func:`open_cache`."""

    files: CacheFiles
    place: Path
    root: Path
    preprocess: Preprocess
    size: int | None
    workers: int | None
    progress: bool

    def run(self, paths: list[str]) -> _Kept:
        with opened_index(self.files, _recipe(self.root)) as (index, entries):
            # Before the decoding: a file that changes meanwhile is then decoded again next time.
            stamps = self._stamps(paths)
            stale = [path for path, entry in entries.items() if self._is_stale(path, entry, stamps)]
            index.remove(stale)  # before their rows are given to others
            for path in stale:
                del entries[path]
            missing = [path for path in stamps if path not in entries]
            if missing:
                used = {entry.row for entry in entries.values() if entry.row is not None}
                end = 1 + max(used, default=-1)
                holes = sorted(set(range(end)) - used)
                self._announce(len(stamps), len(missing), len(holes))
                rows = itertools.chain(holes, itertools.count(end))
                self._decode(missing, stamps, rows, index, entries)
            return self._kept(stamps, entries)

    def _stamps(self, paths: list[str]) -> dict[str, str]:
        stamps = {}
        off = None if self.progress else True
        for path in tqdm(paths, "comparing", unit="img", disable=off, delay=1, leave=False):
            stamp = stamp_of(self.root / path)
            if stamp is not None:
                stamps[path] = stamp
        return stamps

    def _is_stale(self, path: str, entry: Entry, stamps: dict[str, str]) -> bool:
        """Whether a picture that the index knows has changed or is gone."""
        if path not in stamps:  # not wanted now, or not there
            return not os.path.exists(self.root / path)
        # The reason of a failure holds the path as it was given.
        told = entry.row is not None or entry.reason.startswith(f"{self.root / path}: ")
        return entry.stamp != stamps[path] or not told

    def _announce(self, wanted: int, missing: int, holes: int) -> None:
        """Tell how large it will be.

        Raises:
            UserError: the disk has no room for it.
        """
        row = self.files.row_bytes
        there = f"; {wanted - missing} of them are there" if missing < wanted else ""
        say(
            f"cache: {wanted} pictures x {row} bytes = {_amount(wanted * row)} in "
            f"{self.files.pixels}{there}"
        )
        needed = max(0, missing - holes) * row + missing * _INDEX_BYTES
        free = shutil.disk_usage(self.place).free
        if needed > free:
            raise UserError(
                f"--cache {self.place}: {_amount(needed)} are needed and {_amount(free)} are "
                "free; name a folder on a larger disk, or leave --cache out"
            )

    def _decode(
        self,
        missing: list[str],
        stamps: dict[str, str],
        rows: Iterator[int],
        index: Index,
        entries: dict[str, Entry],
    ) -> None:
        part = FaceFolder(self.root, ("",), tuple(missing), (0,) * len(missing), ())
        workers = processors() if self.workers is None else self.workers
        loader = evaluation_loader(
            part,
            self.preprocess,
            self.size,
            batch_size=_BATCH,
            workers=min(workers, -(-len(missing) // _BATCH)),
        )
        off = None if self.progress else True
        file = os.open(self.files.pixels, os.O_RDWR | os.O_CREAT | _NO_LINK, 0o666)
        try:
            with tqdm(total=len(missing), desc="decoding once", unit="img", disable=off) as bar:
                saved = time.monotonic()
                for batch in loader:
                    for path, entry in self._written(batch, missing, stamps, rows, file):
                        index.put(path, entry)
                        entries[path] = entry
                    if time.monotonic() - saved > _PATIENCE:
                        index.commit()
                        saved = time.monotonic()
                    bar.update(len(batch.images) + len(batch.failed))
        finally:
            os.close(file)
            index.commit()

    def _written(
        self,
        batch: Batch,
        missing: list[str],
        stamps: dict[str, str],
        rows: Iterator[int],
        file: int,
    ) -> Iterator[tuple[str, Entry]]:
        pictures = batch.images.permute(0, 2, 3, 1).contiguous().numpy()
        for at, pixels in zip(batch.indices.tolist(), pictures, strict=True):
            row, path = next(rows), missing[at]
            yield path, Entry(stamps[path], row, self.files.write_row(file, row, pixels))
        for path, reason in batch.failed:
            # A disk's or the memory's trouble is not the picture's: it is tried again each time.
            if "[Errno " not in reason and "(MemoryError" not in reason:
                yield path, Entry(stamps[path], None, 0, reason)

    def _kept(self, paths: Iterable[str], entries: dict[str, Entry]) -> _Kept:
        known = {path: entries[path] for path in paths if path in entries}
        return _Kept(
            self.files,
            {path: (e.row, e.checksum) for path, e in known.items() if e.row is not None},
            {path: e.reason for path, e in known.items() if e.row is None},
        )


def _make_place(place: Path, root: Path) -> None:
    """Make the caches' folder.

    Raises:
        UserError: it is a file, or within the pictures' own folder.
    """
    if os.path.exists(place) and not os.path.isdir(place):
        raise UserError(f"--cache {place}: is a file; name a folder")
    own = Path(os.path.realpath(root))
    if Path(os.path.realpath(place)).is_relative_to(own):
        raise UserError(f"--cache {place}: lies within the pictures' folder; name one beside it")
    place.mkdir(parents=True, exist_ok=True)


def _name(root: Path, preprocess: Preprocess, size: int | None) -> str:
    """The files' name: of the folder and of everything in the settings that changes the pixels."""
    own = os.path.realpath(root)
    content = [own, preprocess.size, preprocess.fit, preprocess.crop, size]
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]
    readable = re.sub(r"[^\w.-]+", "_", Path(own).name)[:40].strip(".")
    return f"{readable}-{preprocess.size}px-{digest}"


def _recipe(root: Path) -> str:
    """What else changes the pixels: the libraries' versions, and the code that decodes."""
    code = inspect.getsource(decoding) + inspect.getsource(Preprocess)
    return json.dumps(
        {
            "format": _FORMAT,
            "root": os.path.realpath(root),
            "pillow": PIL.__version__,
            "jpeg": features.version("jpg"),
            "webp": features.version("webp"),
            "torchvision": torchvision.__version__,
            "code": hashlib.sha256(code.encode()).hexdigest(),
        }
    )


def _amount(number: int) -> str:
    return f"{number / 1e9:.2f} GB" if number >= 1e8 else f"{number / 1e6:.1f} MB"
