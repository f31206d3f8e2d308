"""Embeddings of any number of pictures, written as they are made; a stopped run goes on."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from siamese.data.cache_files import stamp_of
from siamese.data.folder import FaceFolder
from siamese.data.labelled_pictures import PictureReader
from siamese.errors import UserError
from siamese.files.fields import built, parse_json
from siamese.files.places import read_bytes
from siamese.files.writing import held, replacing, write_csv, write_json, writing
from siamese.models.inference import Embedder

_PICTURES = 4096  # between two notes of how far the run is, about
_ROWS = "rows.npy"
_LIMIT = 2**28  # bytes of a note
_ARITHMETIC = 2  # to be raised where the same network gives rows that differ in their last bits


@dataclass(frozen=True)
class _Done:
    """How far a run is: what it is of, the pictures that are done, and those that are broken."""

    key: str
    pictures: int
    rows: int
    paths: tuple[str, ...]
    reasons: tuple[str, ...]


def write_rows(
    embedder: Embedder,
    folder: FaceFolder,
    out: Path,
    *,
    workers: int = 0,
    cache: PictureReader | None = None,
    say: Callable[[str], None] = print,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], list[tuple[str, str]]]:
    """Embed a folder's pictures into an .npy, with who is on each row in a .csv beside it.

    No more than a batch is held in memory. What is done lies in a hidden folder beside ``out``,
    whose rows become ``out`` when all is done. A run that was stopped or killed goes on there, with
    the same batches, so its rows are those of a run that was not; where the model or a picture has
    changed it begins anew.

    Args:
        embedder: the model.
        folder: the pictures.
        out: the .npy, float32 (N, D); the .csv has the columns label and path.
        workers: processes that decode; 0: none.
        cache: gives the prepared pictures; None: they are decoded.
        say: is told where a run goes on, or why it cannot.

    Returns:
        the rows, mapped from the disk; positions int64 (N,) of their pictures in the folder; path
        and reason of each that cannot be decoded. Where that is all of them nothing is written.

    Raises:
        CannotWrite: the system refuses to write.
        UserError: another process writes the same file.
    """
    place = out.with_name(f".{out.name}.part")
    with held(place / "lock", UserError(f"`out` {out}: another process writes it; wait for it")):
        with writing(out):
            done = _embed(embedder, folder, place, workers, cache, say)
            kept = np.fromfile(place / "kept", np.int64)
        if done.rows:
            people = [folder.names[folder.labels[number]] for number in kept]
            table = zip(people, (folder.paths[number] for number in kept), strict=True)
            write_csv(out.with_suffix(".csv"), ("label", "path"), table, exact=True)
            with replacing(out) as temporary:
                with open(place / _ROWS, "r+b") as file:
                    file.write(_header(done.rows, embedder.dimensions))
                    file.flush()
                    os.fsync(file.fileno())
                _second_name(place / _ROWS, temporary)
        shutil.rmtree(place, ignore_errors=True)
    none = np.empty((0, embedder.dimensions), np.float32)
    vectors = np.load(out, mmap_mode="r") if done.rows else none
    return vectors, kept, list(zip(done.paths, done.reasons, strict=True))


def _embed(
    embedder: Embedder,
    folder: FaceFolder,
    place: Path,
    workers: int,
    cache: PictureReader | None,
    say: Callable[[str], None],
) -> _Done:
    """Embed what is not done yet; how far the run is stands in a note, block by block."""
    key, total = _key(embedder, folder), len(folder.paths)
    done = _noted(place, key, embedder, total, say) or _Done(key, 0, 0, (), ())
    if done.pictures:
        say(f"going on at picture {done.pictures} of {total}")
    block = max(1, _PICTURES // embedder.batch) * embedder.batch
    with open(place / _ROWS, "ab") as rows, open(place / "kept", "ab") as kept:
        rows.truncate(_size(done.rows, embedder.dimensions) if done.rows else 0)
        if not done.rows:
            rows.write(_header(0, embedder.dimensions))
        kept.truncate(done.rows * 8)
        pictures, number = done.pictures, done.rows
        failed = list(zip(done.paths, done.reasons, strict=True))
        batches = embedder.embed_in_batches(folder, first=pictures, workers=workers, cache=cache)
        for batch in batches:
            rows.write(batch.vectors.tobytes())
            kept.write(batch.kept.tobytes())
            failed += batch.failed
            number += len(batch.kept)
            pictures = min(pictures + embedder.batch, total)
            if pictures % block == 0 or pictures == total:
                for file in (rows, kept):
                    file.flush()
                    os.fsync(file.fileno())
                paths, reasons = zip(*failed, strict=True) if failed else ((), ())
                done = _Done(key, pictures, number, paths, reasons)
                write_json(place / "done.json", asdict(done))
    return done


def _second_name(file: Path, other: Path) -> None:
    """Let a file have another name, too; where the disk has no such links it is copied."""
    other.unlink()
    try:
        os.link(file, other)
    except OSError:
        shutil.copyfile(file, other)


def _header(rows: int, dimensions: int) -> bytes:
    """What an .npy begins with; NumPy leaves room, so it is as long for any number of rows."""
    file = io.BytesIO()
    content = {"descr": "<f4", "fortran_order": False, "shape": (rows, dimensions)}
    np.lib.format.write_array_header_1_0(file, content)
    return file.getvalue()


def _size(rows: int, dimensions: int) -> int:
    """Bytes of an .npy of so many rows."""
    return len(_header(rows, dimensions)) + rows * dimensions * 4


def _noted(
    place: Path, key: str, embedder: Embedder, total: int, say: Callable[[str], None]
) -> _Done | None:
    """How far an earlier run came; None where there is none that can go on."""
    note = place / "done.json"
    if not note.exists():
        return None
    if (place / "rows").exists():
        say("an earlier version left this half done, in a form of its own: beginning anew")
        for name in ("rows", "done.json"):
            (place / name).unlink(missing_ok=True)
        return None
    try:
        found = parse_json(read_bytes(note, limit=_LIMIT))
        lists = {name: tuple(found[name]) for name in ("paths", "reasons")}
        done = built(_Done, {**found, **lists})
        if done.key != key:
            say("an earlier run was of another model, other settings or pictures: beginning anew")
            return None
        sound = (
            0 <= done.rows <= done.pictures <= total
            and (done.pictures == total or done.pictures % embedder.batch == 0)
            and len(done.paths) == len(done.reasons)
            and os.path.getsize(place / _ROWS) >= _size(done.rows, embedder.dimensions)
            and os.path.getsize(place / "kept") >= done.rows * 8
            and _within(np.fromfile(place / "kept", np.int64, done.rows), total)
        )
    except (ValueError, TypeError, KeyError, OSError):
        sound = False
    if not sound:
        say("what an earlier run left is damaged: beginning anew")
        return None
    return done


def _within(positions: npt.NDArray[np.int64], total: int) -> bool:
    return bool(((positions >= 0) & (positions < total)).all())


def _key(embedder: Embedder, folder: FaceFolder) -> str:
    """What changes when the rows would: model, arithmetic, batches, and the pictures' files."""
    how = (
        embedder.fingerprint, embedder.crop, embedder.flip, embedder.batch,
        str(embedder.precision), embedder.device.type, _ARITHMETIC,
    )  # fmt: skip
    digest = hashlib.sha256(json.dumps(how).encode())
    for path in folder.paths:
        digest.update(json.dumps((path, stamp_of(folder.root / path))).encode())
    return digest.hexdigest()
