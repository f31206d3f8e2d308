"""A cache of decoded pictures, so that second epochs and second runs need not decode.

One file per folder and preprocessing, shared by everything that reads pictures of that folder: a
picture is decoded once, when it is first asked for, and again only when its file changes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sqlite3
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import PIL
import torch
from PIL import features
from tqdm import tqdm

from siamese.data.cache_files import (
    Entry,
    PixelReader,
    alone,
    disk_errors_in_one_line,
    opened_store,
    put_picture,
    read_entries,
    remove_pictures,
    say,
    stamp_of,
)
from siamese.data.decode import DecodeError, decode
from siamese.data.folder import FaceFolder
from siamese.data.loaders import evaluation_loader
from siamese.data.transforms import Preprocess
from siamese.errors import UserError
from siamese.libraries import torchvision
from siamese.processors import processors

# Raise it by hand when what is in the files changes, or when `siamese.data.decode` or `Preprocess`
# makes other pixels of a picture: caches of other versions are built anew.
CACHE_VERSION = 2

_BATCH = 32  # pictures that a process hands over at a time
_PATIENCE = 1.0  # seconds of work that an interruption may cost
_INDEX_BYTES = 300  # room that a picture takes beside its pixels, generously


@dataclass(frozen=True)
class _Known:
    """What a cache has of the pictures that it was opened for."""

    reader: PixelReader
    entries: dict[str, Entry]


class PictureCache:
    """Pictures as :class:`Preprocess` makes them, from the cache where it has them.

    Can be pickled; each process opens the file for itself.
    """

    def __init__(self, known: dict[Path, _Known], preprocess: Preprocess, size: int | None):
        self._known, self.preprocess, self.size = known, preprocess, size

    def read(self, root: Path, path: str) -> torch.Tensor:
        """A picture, uint8 (3, size, size), as decoding it would give it to the last bit.

        Raises:
            DecodeError: it cannot be decoded.
        """
        known = self._known.get(root)
        entry = None if known is None else known.entries.get(path)
        if known is not None and entry is not None:
            if entry.failure is not None:
                raise DecodeError(f"{root / path}: {entry.failure}")
            pixels = known.reader.pixels(entry.number, path)
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
        folders: the pictures that will be read; parts of one root share a file.
        preprocess: makes the pixels.
        size: pictures may be decoded reduced for this side (see
            :func:`siamese.data.decode.decode`); None: not reduced.

    Raises:
        UserError: the place cannot be used, or has no room.
    """
    wanted: dict[Path, list[str]] = {}
    for folder in folders:
        wanted.setdefault(folder.root, []).extend(folder.paths)
    known = {}
    with disk_errors_in_one_line(place):
        for root, paths in wanted.items():
            _make_place(place, root)
            reader = PixelReader(place / _name(root, preprocess, size), preprocess.size)
            build = _Build(reader, root, preprocess, size, workers, progress)
            with alone(reader.file), opened_store(reader, _recipe(root)) as (store, entries):
                known[root] = build.run(list(dict.fromkeys(paths)), store, entries)
    return PictureCache(known, preprocess, size)


@dataclass(frozen=True)
class _Build:
    """Brings one root's cache up to date; see :func:`open_cache`."""

    reader: PixelReader
    root: Path
    preprocess: Preprocess
    size: int | None
    workers: int | None
    progress: bool

    def run(self, paths: list[str], store: sqlite3.Connection, entries: dict[str, Entry]) -> _Known:
        """Decode what is missing or has changed."""
        # Before the decoding: a file that changes meanwhile is then decoded again next time.
        hidden = None if self.progress else True
        compared = tqdm(paths, "comparing", unit="img", disable=hidden, delay=1, leave=False)
        read = ((path, stamp_of(self.root / path)) for path in compared)
        stamps = {path: stamp for path, stamp in read if stamp is not None}
        stale = [  # changed, or gone; what is not wanted now stays
            path
            for path, entry in entries.items()
            if stamps.get(path, entry.stamp) != entry.stamp
            or (path not in stamps and not os.path.exists(self.root / path))
        ]
        remove_pictures(store, [entries.pop(path) for path in stale])
        missing = {path: stamp for path, stamp in stamps.items() if path not in entries}
        if missing:
            self._announce(len(stamps), len(missing))
            self._decode(missing, store)
            entries = read_entries(store)
        return _Known(self.reader, {path: entries[path] for path in stamps if path in entries})

    def _announce(self, wanted: int, missing: int) -> None:
        """Print how large it will be."""
        each = 3 * self.preprocess.size**2
        there = f"; {wanted - missing} of them are there" if missing < wanted else ""
        say(
            f"cache: {wanted} pictures x {each} bytes = {_amount(wanted * each)} in "
            f"{self.reader.file}{there}"
        )
        place = self.reader.file.parent
        needed = missing * (each + _INDEX_BYTES)
        free = shutil.disk_usage(place).free
        if needed > free:
            raise UserError(
                f"`cache` {place}: {_amount(needed)} are needed and {_amount(free)} are "
                "free; name a folder on a larger disk, or leave `cache` out"
            )

    def _decode(self, missing: dict[str, str], store: sqlite3.Connection) -> None:
        """Decode the pictures, whose stamps are given."""
        paths = tuple(missing)
        workers = processors() if self.workers is None else self.workers
        loader = evaluation_loader(
            FaceFolder(self.root, ("",), paths, (0,) * len(paths), ()),
            self.preprocess,
            self.size,
            batch_size=_BATCH,
            workers=min(workers, -(-len(paths) // _BATCH)),
        )
        hidden = None if self.progress else True
        try:
            with tqdm(total=len(paths), desc="decoding once", unit="img", disable=hidden) as bar:
                saved = time.monotonic()
                for batch in loader:
                    pictures = batch.images.permute(0, 2, 3, 1).contiguous().numpy()
                    for index, pixels in zip(batch.indices.tolist(), pictures, strict=True):
                        path = paths[index]
                        put_picture(store, path, missing[path], pixels.tobytes())
                    for path, reason in batch.failed:
                        # A disk's or the memory's trouble is not the picture's: it is tried again.
                        if "[Errno " not in reason and "(MemoryError" not in reason:
                            failure = reason.removeprefix(f"{self.root / path}: ")
                            put_picture(store, path, missing[path], None, failure)
                    if time.monotonic() - saved > _PATIENCE:
                        store.commit()
                        saved = time.monotonic()
                    bar.update(len(batch.images) + len(batch.failed))
        finally:
            store.commit()


def _make_place(place: Path, root: Path) -> None:
    """Make the caches' folder."""
    if os.path.exists(place) and not os.path.isdir(place):
        raise UserError(f"`cache` {place}: is a file; name a folder")
    pictures = Path(os.path.realpath(root))
    if Path(os.path.realpath(place)).is_relative_to(pictures):
        raise UserError(f"`cache` {place}: lies within the pictures' folder; name one beside it")
    place.mkdir(parents=True, exist_ok=True)


def _name(root: Path, preprocess: Preprocess, size: int | None) -> str:
    """The file's name: of the folder and of everything in the settings that changes the pixels."""
    folder = os.path.realpath(root)
    content = [folder, preprocess.size, preprocess.fit, preprocess.crop, size]
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]
    readable = re.sub(r"[^\w.-]+", "_", Path(folder).name)[:40].strip(".")
    return f"{readable}-{preprocess.size}px-{digest}.sqlite"


def _recipe(root: Path) -> int:
    """A number that changes with what else makes the pixels: this code and the libraries."""
    parts = (
        CACHE_VERSION,
        os.path.realpath(root),
        PIL.__version__,
        features.version("jpg"),
        features.version("webp"),
        torchvision.__version__,
    )
    return zlib.crc32(json.dumps(parts).encode()) & 0x7FFFFFFF | 1  # SQLite keeps 31 bits; not 0


def _amount(number: int) -> str:
    return f"{number / 1e9:.2f} GB" if number >= 1e8 else f"{number / 1e6:.1f} MB"
