"""Fetch public face sets, through scikit-learn's own downloaders, into one folder per person.

torchvision's downloader of LFW has been switched off (its server is gone); scikit-learn's mirror
serves the funneled pictures as JPEG files, and the pairs files.
"""

from __future__ import annotations

import filecmp
import gzip
import io
import os
import shutil
import socket
import tarfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from siamese.config import FetchSettings
from siamese.curation.shell import command_line, path_word
from siamese.data.decode import DecodeError, decode
from siamese.errors import UserError
from siamese.files.online import why_unreachable
from siamese.files.places import is_inside
from siamese.files.writing import replacing

PAIRS = ("pairs.txt", "pairsDevTrain.txt", "pairsDevTest.txt")
_LFW_SIZE = (5_749, 13_233)  # people, pictures
_ARCHIVE, _UNPACKED = "lfw-funneled.tgz", "lfw_funneled"
_SERVER = "https://ndownloader.figshare.com/files"
# What scikit-learn would download, to be put in its place by hand.
_LFW_FILES = {
    _ARCHIVE: 5976015,
    "pairs.txt": 5976006,
    "pairsDevTrain.txt": 5976012,
    "pairsDevTest.txt": 5976009,
}
_OLIVETTI_FILE = ("olivettifaces.mat", 5976027)
_OLIVETTI_KEPT = "olivetti_py3.pkz"  # what scikit-learn makes of it
# Python 3.11.4 and later refuse members outside the folder when asked to.
_SAFE: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
_SILENCE = 20.0  # seconds without a byte after which a server counts as gone
_RETRY_AFTER = 0.5  # seconds
_MORE_THAN_ANYBODY_HAS = 10**9  # pictures


@dataclass(frozen=True)
class Fetched:
    """A face set on disk.

    Attributes:
        out: the folder, one folder per person.
        people: number of people in it.
        written: pictures written now.
        kept: pictures that were there.
        pairs: lists of pairs for ``siamese-eval pairs``, beside ``out``.
        notes: what the reader must know.
    """

    out: Path
    people: int
    written: int
    kept: int
    pairs: tuple[Path, ...]
    notes: tuple[str, ...]

    def text(self) -> str:
        """What there is now, and what to do with it."""
        were = f" ({self.kept} of them were there)" if self.kept else ""
        lines = [f"{self.out}: {self.people} people, {self.written + self.kept} pictures{were}"]
        out = path_word(self.out)
        if self.pairs:
            lines.append(f"lists of pairs: {', '.join(map(str, self.pairs))}")
            judge = ("siamese-eval", "pairs", "--data", out, "--pairs", path_word(self.pairs[0]))
            lines.append(f"judge a model on them: {command_line(*judge, '--crop', '150')}")
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join([*lines, f"next: {command_line('siamese-data', 'check', out)}"])


@dataclass(frozen=True)
class _Picture:
    """One picture of a set: its place, how it is written, whether a file is that picture."""

    path: str
    write: Callable[[Path], object]
    is_it: Callable[[Path], bool]


def fetch(settings: FetchSettings) -> Fetched:
    """Download a face set where it is not there yet, and write it as one folder per person.

    The pictures of ``lfw`` are copied as they are. Its lists of pairs come to lie in
    ``OUT-pairs``, beside ``OUT``, which holds nothing but people. An interrupted command goes on
    where it was; a download begins anew.

    Raises:
        UserError: no network, with the place for files that were loaded by hand; a damaged
            download; something else in ``out``.
    """
    out = Path(str(settings.out))
    if os.path.lexists(out) and not out.is_dir():
        raise UserError(f"--out {out}: is a file; choose a folder")
    from sklearn.datasets import get_data_home

    home = Path(get_data_home(settings.downloads))
    notes: list[str] = []
    if settings.name == "olivetti":
        pictures, lists = _olivetti(home), []
    else:
        source = _lfw(home)
        pictures = list(_lfw_pictures(source))
        lists = [home / "lfw_home" / name for name in PAIRS]
        found = (len({picture.path.split("/")[0] for picture in pictures}), len(pictures))
        if found != _LFW_SIZE:
            notes.append(
                f"{source} has {found[0]} people and {found[1]} pictures, LFW {_LFW_SIZE[0]} and "
                f"{_LFW_SIZE[1]}: move that folder away to have it downloaded anew"
            )
    _refuse_others(out, {picture.path for picture in pictures})
    place = out if out.name not in ("", "..") else out.resolve()
    place = place.with_name(f"{place.name}-pairs")
    pairs = tuple(_copy(file, place / file.name) for file in lists)
    kept = 0
    for picture in tqdm(pictures, desc="writing", unit="img", leave=False, disable=None):
        file = out / picture.path
        if not is_inside(file, out):
            raise UserError(f"{file}: a link leads out of {out}; remove the link")
        if not os.path.lexists(file):
            with replacing(file) as temporary:
                picture.write(temporary)
        elif picture.is_it(file):
            kept += 1
        else:
            raise UserError(f"{file}: is another picture than the one fetched; move it away")
    people = {picture.path.split("/")[0] for picture in pictures}
    return Fetched(out, len(people), len(pictures) - kept, kept, pairs, tuple(notes))


def _refuse_others(out: Path, paths: set[str]) -> None:
    """Refuse a folder that holds more than these; hidden files do not matter.

    Raises:
        UserError: names what it holds.
    """
    people = {path.split("/")[0] for path in paths}
    for entry in sorted(out.iterdir()) if out.exists() else ():
        files = sorted(entry.iterdir()) if entry.name in people and entry.is_dir() else [entry]
        for file in files:
            if not file.name.startswith(".") and file.relative_to(out).as_posix() not in paths:
                raise UserError(
                    f"{file}: is no part of what is fetched; choose a new --out, or one that an "
                    "earlier fetch began"
                )


def _copy(source: Path, target: Path) -> Path:
    """Copy a list unless it is there.

    Raises:
        UserError: another file is.
    """
    if os.path.lexists(target):
        if not (target.is_file() and filecmp.cmp(source, target, shallow=False)):
            raise UserError(f"{target}: is another file than the one fetched; move it away")
        return target
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)
    return target


def _lfw(home: Path) -> Path:
    """Have scikit-learn download LFW; returns its folder of people.

    Raises:
        UserError: it cannot be had.
    """
    from sklearn.datasets import fetch_lfw_people

    place = home / "lfw_home"
    source, archive = place / _UNPACKED, place / _ARCHIVE
    wanted = "; ".join(f"{_SERVER}/{number} as {name}" for name, number in _LFW_FILES.items())
    there = (source.exists() or archive.exists()) and all((place / n).exists() for n in PAIRS)
    words = f"downloading LFW (240 MB) to {place}"
    with _telling("lfw", place, wanted, there), _watching(place, words):
        if source.exists() and archive.exists():  # unpacking was interrupted
            with tarfile.open(archive) as file:
                file.extractall(place, **_SAFE)
            archive.unlink()
        try:
            # Nobody has so many pictures: nothing is decoded, what counts is what it leaves.
            fetch_lfw_people(
                data_home=home,
                min_faces_per_person=_MORE_THAN_ANYBODY_HAS,
                n_retries=1,
                delay=_RETRY_AFTER,
            )
        except ValueError:
            if not source.is_dir():
                raise
    return source


def _lfw_pictures(source: Path) -> Iterator[_Picture]:
    for person in sorted(source.iterdir()):
        if person.is_dir():
            for file in sorted(person.glob("*.jpg")):
                yield _copied(file, f"{person.name}/{file.name}")


def _copied(file: Path, path: str) -> _Picture:
    return _Picture(
        path,
        lambda target: shutil.copyfile(file, target),
        lambda there: filecmp.cmp(file, there, shallow=False),
    )


def _olivetti(home: Path) -> list[_Picture]:
    """Have scikit-learn download the Olivetti faces; 40 people, 10 grey pictures of 64 px each.

    Raises:
        UserError: they cannot be had.
    """
    from sklearn.datasets import fetch_olivetti_faces

    name, number = _OLIVETTI_FILE
    wanted = f"{_SERVER}/{number} as {name}"
    there = any((home / file).exists() for file in (name, _OLIVETTI_KEPT))
    words = f"downloading olivetti to {home}"
    with _telling("olivetti", home, wanted, there), _watching(home, words):
        faces = fetch_olivetti_faces(data_home=home, n_retries=1, delay=_RETRY_AFTER)
    pixels = np.round(faces.images * 255).astype(np.uint8)
    seen: dict[int, int] = {}
    pictures = []
    for label, face in zip(faces.target.tolist(), pixels, strict=True):
        seen[label] = seen.get(label, 0) + 1
        pictures.append(_drawn(face, f"person_{label + 1:02d}/{seen[label]:02d}.png"))
    return pictures


def _drawn(face: np.ndarray, path: str) -> _Picture:
    def write(target: Path) -> None:
        buffer = io.BytesIO()
        Image.fromarray(face).save(buffer, "PNG")
        target.write_bytes(buffer.getvalue())

    def is_it(there: Path) -> bool:
        try:
            return np.array_equal(np.asarray(decode(there).convert("L")), face)
        except DecodeError:
            return False

    return _Picture(path, write, is_it)


@contextmanager
def _telling(name: str, place: Path, wanted: str, there: bool) -> Iterator[None]:
    """Whatever goes wrong with a download becomes one line; a silent server is not waited for.

    Args:
        name: the set.
        place: where its files are put.
        wanted: which files, in words.
        there: whether they lie there, so that no server is needed.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SILENCE)
    try:
        # The library tells of its tries and places in its own way.
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            if not there and (unreachable := why_unreachable(_SERVER)):
                raise OSError(unreachable)
            yield
    except Exception as error:  # a damaged archive or pickle: anything at all
        if not isinstance(error, OSError) or isinstance(error, gzip.BadGzipFile):
            raise UserError(
                f"{name}: the download in {place} is damaged ({type(error).__name__}: {error}); "
                "move it away and run this again"
            ) from None
        # No network, a refusal of the server, a checksum, a full disk.
        reason = getattr(error, "reason", None) or error.strerror or error
        raise UserError(
            f"{name}: cannot be downloaded ({reason}); go on when there is network, or put into "
            f"{place} what a browser loads: {wanted}; then run this again"
        ) from None
    finally:
        socket.setdefaulttimeout(before)


@contextmanager
def _watching(place: Path, words: str) -> Iterator[None]:
    """Show how a download grows: the library shows nothing."""
    over = threading.Event()

    def look() -> None:
        with tqdm(desc=words, unit="B", unit_scale=True, leave=False, disable=None) as bar:
            while not over.wait(0.5):
                bar.n = sum(_size(file) for file in place.glob("*.part_*"))
                bar.refresh()

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:  # just renamed
        return 0
