"""What a check knows about a file; read once, in crash-proof processes, and remembered."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import multiprocessing
import os
import re
import signal
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import astuple, dataclass
from functools import cache, partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import IO, Any, Generic, Literal, TypeVar, get_args

import numpy as np
import numpy.typing as npt
import PIL
from filelock import FileLock
from PIL import Image, UnidentifiedImageError
from scipy.fft import dct
from tqdm import tqdm

from siamese.curation.contents import FoundFile
from siamese.data.decode import check_header, open_picture, to_rgb, upright
from siamese.errors import UserError
from siamese.files.places import is_regular, open_regular
from siamese.files.writing import replacing, writing

Words = npt.NDArray[np.uint64]
Result = TypeVar("Result")

PATIENCE = 120.0
"""Seconds that reading one file may take."""

Status = Literal["usable", "unreadable", "not a picture", "bomb", "zero bytes", "closed", "failed"]

# Facts of another version are read anew: raise the number when a fact changes its meaning.
_VERSION = f"1, Pillow {PIL.__version__}"
_FACT_TYPES = [str, str, str, str, str, int, int, int, int, str, float]
_CODE = re.compile("[0-9a-f]{80}")
_BATCH, _SECONDS = 2000, 5.0  # what a kill can lose
_WAIT = 60.0  # seconds for another run that is writing
_LONGEST_LINE = 1 << 17
_CHUNK = 32  # files handed to a process together
_LOOK = 0.5  # seconds between two looks at the processes
_ORPHANED = 5.0  # seconds after which a process notices that its parent is gone
_ORIENTATION = 0x0112
# Phones append a second picture to a JPEG, drawings have layers: neither moves.
_STILL = {"MPO", "PSD"}
_WHOLE = 1 << 24  # bytes; larger files are not held in memory
_SIDE = 32  # pixels of the grey square whose frequencies are looked at


@dataclass(frozen=True)
class FileFacts:
    """Everything that a check asks of a file's content.

    Attributes:
        status: ``usable`` exactly when training could decode it; ``closed``: the file cannot be
            opened; ``failed``: reading it crashed or never ended.
        detail: the reader's words where it is not usable.
        content: BLAKE2b of the bytes, 64 hexadecimal digits; empty where it was not read.
        format: Pillow's name of the file type, such as ``JPEG``; empty when unknown.
        mode: Pillow's mode as stored, such as ``RGB``, ``L``, ``CMYK``, ``I;16``.
        width: in pixels, as stored.
        height: in pixels, as stored.
        orientation: EXIF orientation, 1 (upright) to 8.
        frames: 1 for a still picture.
        fingerprint: see :func:`fingerprint_of`; empty where not usable.
        contrast: standard deviation of the grey values, 0 to 127.5.
    """

    status: Status
    detail: str = ""
    content: str = ""
    format: str = ""
    mode: str = ""
    width: int = 0
    height: int = 0
    orientation: int = 1
    frames: int = 1
    fingerprint: str = ""
    contrast: float = 0.0

    @property
    def lasting(self) -> bool:
        """Whether the same bytes give the same facts again; permissions and crashes may change."""
        return self.status not in ("closed", "failed")


@dataclass(frozen=True)
class FileKey:
    """A file as it was when its facts were read: absolute path, nanoseconds, bytes."""

    path: str
    modified: int
    size: int


def inspect_file(path: str) -> FileFacts:
    """Read, hash and decode a file; nothing that is in a file raises an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's notes on odd metadata; errors still raise
        return _inspected(path)


def _inspected(path: str) -> FileFacts:
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            data = io.BytesIO(file.read()) if size <= _WHOLE else file
            content = hashlib.file_digest(data, _digest).hexdigest()
            data.seek(0)
            if data.read(1) == b"":
                return FileFacts("zero bytes", content=content)
            data.seek(0)
            return _picture_facts(path, data, content)
    except OSError as error:
        return FileFacts("closed", error.strerror or type(error).__name__)


def _digest() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=32)


def _picture_facts(path: str, data: IO[bytes], content: str) -> FileFacts:
    try:
        with open_picture(data) as image:
            return _decoded(image, content)
    except MemoryError:
        return FileFacts("failed", "not enough memory to decode it")
    except Exception as error:  # Pillow's readers raise whatever broken bytes lead them to
        return _refused(path, error, content)


def _decoded(image: Image.Image, content: str) -> FileFacts:
    """Facts of an opened picture, decoded as siamese.data.decode does it."""
    kind, mode = image.format or "", image.mode
    width, height = image.size
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        detail = f"{width} x {height} pixels"
        return FileFacts("bomb", detail, content, kind, mode, width, height)
    # Reading a PNG's EXIF decodes it, so that comes later; a TIFF is turned while it is decoded.
    orientation = _orientation(image) if kind == "TIFF" else None
    image.load()
    fingerprint, contrast = fingerprint_of(to_rgb(upright(image)))
    return FileFacts(
        "usable",
        content=content,
        format=kind,
        mode=mode,
        width=width,
        height=height,
        orientation=orientation or _orientation(image),
        frames=_frames(image),
        fingerprint=fingerprint,
        contrast=contrast,
    )


def _refused(path: str, error: Exception, content: str) -> FileFacts:
    if isinstance(error, Image.DecompressionBombError):
        return FileFacts("bomb", "too many pixels", content)
    if check_header(Path(path)) == "not an image":
        return FileFacts("not a picture", "", content)
    if isinstance(error, UnidentifiedImageError):
        return FileFacts("unreadable", "no file type that Pillow knows", content)
    detail = f"{type(error).__name__}: {error}"
    return FileFacts("unreadable", detail.encode("utf-8", "backslashreplace").decode(), content)


def _orientation(image: Image.Image) -> int:
    try:
        value = int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # broken metadata: training ignores it, too
        return 1
    return value if 1 <= value <= 8 else 1


def _frames(image: Image.Image) -> int:
    if image.format in _STILL:
        return 1
    try:
        return max(1, int(getattr(image, "n_frames", 1)))
    except Exception:  # the first frame is whole, a later one is not
        return 2


def fingerprint_of(image: Image.Image) -> tuple[str, float]:
    """The DCT fingerprint of an upright picture: 80 hexadecimal digits; and its contrast.

    After Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions" (2010):
    the picture as 32 x 32 grey values, their cosine transform without its first row and column,
    and of each of the lowest 8 x 8 frequencies whether it is above their median. 256 fine bits
    follow the 64 coarse ones, the same of the lowest 16 x 16: they tell two aligned faces of
    different people apart that agree in the coarse ones. The contrast is the standard deviation of
    the grey values, 0 (one colour) to 127.5.
    """
    small = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    grey = np.asarray(small, np.float64)
    basis = _basis()
    frequencies = basis @ grey @ basis.T
    lowest = [frequencies[:side, :side].ravel() for side in (8, 16)]
    bits = np.concatenate([values > np.median(values) for values in lowest])
    return np.packbits(bits).tobytes().hex(), float(grey.std())


@cache
def _basis() -> npt.NDArray[np.float64]:
    """Rows 1 to 16 of the cosine transform: two small products are faster than a call of it."""
    return np.asarray(dct(np.eye(_SIDE), axis=0, norm="ortho")[1:17])


def as_words(codes: list[str]) -> Words:
    """Fingerprint codes as numbers, uint64 (N, 5): the coarse word, then four fine ones."""
    raw = bytearray.fromhex("".join(codes))
    return np.frombuffer(raw, ">u8").astype(np.uint64).reshape(len(codes), 5)


class FactCache:
    """Facts of files as lines of JSON, which are only appended.

    Several runs may use one file at once. A line that is damaged, or of another version, counts
    for nothing: its file is read again. A killed run loses the last few seconds.
    """

    def __init__(self, path: Path) -> None:
        """Make the file where there is none.

        Raises:
            CannotWrite: it is no regular file, or may not be written.
        """
        self.path = path
        self.notes: list[str] = []
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if os.path.lexists(path) and not is_regular(path):
                raise OSError(0, "is not a regular file")
            path.open("ab").close()
        self._lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=_WAIT)
        self._pending: list[str] = []
        self._written = time.monotonic()

    def known(self, keys: Iterable[FileKey]) -> dict[FileKey, FileFacts]:
        """Facts of those files that have not changed since they were read."""
        wanted = set(keys)
        known: dict[FileKey, FileFacts] = {}
        latest: dict[str, bytes] = {}
        lines = 0
        try:
            with self._lock, open_regular(self.path) as file:
                for line in iter(lambda: file.readline(_LONGEST_LINE), b""):
                    lines += 1
                    remembered = _remembered(line)
                    if remembered is None:
                        continue
                    key, facts = remembered
                    latest[key.path] = line
                    if key in wanted:
                        known[key] = facts
            if lines > 2 * len(latest) + _BATCH:  # most of the file is out of date
                with self._lock, replacing(self.path) as temporary:
                    temporary.write_bytes(b"\n".join(latest.values()))
        except (OSError, UserError) as error:
            self._give_up(error)
        return known

    def add(self, key: FileKey, facts: FileFacts) -> None:
        """Remember facts; they are written with the next batch."""
        self._pending.append(json.dumps([_VERSION, *astuple(key), *astuple(facts)]))
        full = len(self._pending) >= _BATCH
        if full or time.monotonic() - self._written > _SECONDS:
            self.write()

    def write(self) -> None:
        """Write what was added since the last batch."""
        if self._pending:
            # The first line end closes a line that a killed run left half written.
            batch = "\n" + "\n".join(self._pending) + "\n"
            try:
                with self._lock, self.path.open("ab") as file:
                    file.write(batch.encode("ascii"))
            except OSError as error:
                self._give_up(error)
        self._pending.clear()
        self._written = time.monotonic()

    def _give_up(self, error: Exception) -> None:
        """A cache that fails is no reason to lose the run."""
        if not self.notes:
            self.notes.append(f"{self.path}: facts are not kept ({error}); the next run reads anew")


def _remembered(line: bytes) -> tuple[FileKey, FileFacts] | None:
    """A line of the cache; None when it is damaged or of another version."""
    try:
        version, path, modified, size, *values = json.loads(line)
    except (ValueError, TypeError, RecursionError):
        return None
    if version != _VERSION or [*map(type, (path, modified, size))] != [str, int, int]:
        return None
    if [*map(type, values)] != _FACT_TYPES:
        return None
    facts = FileFacts(*values)
    if facts.status not in get_args(Status) or not facts.lasting:
        return None
    if facts.status == "usable" and _CODE.fullmatch(facts.fingerprint) is None:
        return None
    return FileKey(path, modified, size), facts


def gather_facts(
    root: Path,
    files: Sequence[FoundFile],
    cache: FactCache,
    *,
    workers: int,
    inspect: Callable[[str], FileFacts] = inspect_file,
    patience: float = PATIENCE,
) -> dict[str, FileFacts]:
    """Facts by path relative to the root, in the order of the files.

    What is known of unchanged files is not read again; facts are written as they come, so an
    interrupted run has kept them. ``inspect`` may take ``patience`` seconds for a file, in so many
    processes (0: in this one).
    """
    base = os.path.abspath(root)
    keys = [FileKey(os.path.join(base, file.path), file.modified, file.size) for file in files]
    known = cache.known(keys)
    missing = [key for key in keys if key not in known]
    work = work_watched(
        [key.path for key in missing],
        inspect,
        partial(FileFacts, "failed"),
        workers=workers,
        patience=patience,
    )
    shown = tqdm(
        work, "reading pictures", len(missing), unit="img", disable=None, leave=False
    )  # fmt: skip
    try:
        for position, facts in shown:
            known[missing[position]] = facts
            if facts.lasting:
                cache.add(missing[position], facts)
    finally:
        work.close()
        shown.close()
        cache.write()
    return {file.path: known[key] for file, key in zip(files, keys, strict=True)}


def work_watched(
    paths: Sequence[str],
    work: Callable[[str], Result],
    failed: Callable[[str], Result],
    *,
    workers: int,
    patience: float,
    chunk: int = _CHUNK,
) -> Generator[tuple[int, Result]]:
    """Do ``work``, a module's function, on each path, in processes (0: this one, unwatched).

    A process that dies, or that spends over ``patience`` seconds on one file, is replaced; that
    file's result is what ``failed`` makes of the reason, the others are done all the same. Stopping
    the iteration (Ctrl-C, too) ends the processes at once. A process is handed ``chunk`` files
    together.

    Yields:
        Position in ``paths`` and result, in no particular order.
    """
    if workers == 0:
        for position, path in enumerate(paths):
            yield position, work(path)
        return
    chunks = deque(
        deque(range(start, min(start + chunk, len(paths)))) for start in range(0, len(paths), chunk)
    )
    team: list[_Worker[Result]] = []
    try:
        team = [_Worker(work) for _ in range(min(workers, len(chunks)))]
        while chunks or any(worker.chunk for worker in team):
            for worker in team:
                if not worker.chunk and chunks:
                    worker.start(chunks.popleft(), paths)
            wait([worker.connection for worker in team if worker.chunk], _LOOK)
            for place, worker in enumerate(team):
                reason = None
                try:
                    while worker.chunk and worker.connection.poll():
                        result = worker.connection.recv()
                        worker.since = time.monotonic()
                        yield worker.chunk.popleft(), result
                    if worker.chunk and time.monotonic() - worker.since > patience:
                        reason = f"reading it took more than {patience:g} seconds"
                except (EOFError, OSError):
                    reason = "the reader crashed on it"
                if reason is not None:
                    yield worker.chunk.popleft(), failed(reason)
                    chunks.appendleft(worker.chunk)
                    worker.end()
                    team[place] = _Worker(work)
    finally:
        for worker in team:
            worker.end()


class _Worker(Generic[Result]):
    """A process, and the positions whose results it still owes, in their order."""

    def __init__(self, work: Callable[[str], Result]) -> None:
        self.chunk: deque[int] = deque()
        self.since = 0.0  # when it began with the first of them
        self.connection, other = multiprocessing.Pipe()
        self._process = multiprocessing.Process(
            target=_serve, args=(work, other, os.getpid()), daemon=True
        )
        self._process.start()
        other.close()  # or its end would go unnoticed

    def start(self, chunk: deque[int], paths: Sequence[str]) -> None:
        self.chunk, self.since = chunk, time.monotonic()
        self.connection.send([paths[position] for position in chunk])

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self.connection.close()


def _serve(work: Callable[[str], Any], connection: Connection, parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    with contextlib.suppress(EOFError, OSError):  # the parent is gone
        while os.getppid() == parent:
            if connection.poll(_ORPHANED):
                for path in connection.recv():
                    connection.send(work(path))
