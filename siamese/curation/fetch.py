"""Fetch public face sets, through scikit-learn's own downloaders, into one folder per person.

torchvision's downloader of LFW has been switched off (its server is gone); scikit-learn's mirror
serves the funneled pictures as JPEG files, and the pairs files. Its arrays are cropped and resized,
so the files that it leaves on the disk are taken.
"""

from __future__ import annotations

import filecmp
import gzip
import io
import os
import shutil
import socket
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image
from tqdm import tqdm

from siamese.config import FetchSettings
from siamese.curation.shell import command_line, path_word
from siamese.errors import UserError
from siamese.files.online import why_unreachable
from siamese.files.writing import drafting, replacing, writing

PAIRS = ("pairs.txt", "pairsDevTrain.txt", "pairsDevTest.txt")
_LFW_SIZE = (5_749, 13_233)  # people, pictures
_SERVER = "https://ndownloader.figshare.com/files"
# What scikit-learn would download, to be put in its place by hand.
_LFW_FILES = {
    "lfw-funneled.tgz": 5976015,
    "pairs.txt": 5976006,
    "pairsDevTrain.txt": 5976012,
    "pairsDevTest.txt": 5976009,
}
_OLIVETTI_FILES = {"olivettifaces.mat": 5976027}
_OLIVETTI_KEPT = "olivetti_py3.pkz"  # what scikit-learn makes of it
_SILENCE = 20.0  # seconds without a byte after which a server counts as gone
_RETRY_AFTER = 0.5  # seconds
_MORE_THAN_ANYBODY_HAS = 10**9  # pictures

Picture: TypeAlias = "Path | np.ndarray"  # a file that is copied, or grey pixels


@dataclass(frozen=True)
class Fetched:
    """A face set in ``out``, one folder per person; ``pairs`` are lists of pairs beside it."""

    out: Path
    people: int
    written: int
    kept: int  # pictures that were there
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


def fetch(settings: FetchSettings) -> Fetched:
    """Download a face set where it is not there yet, and write it as one folder per person.

    The pictures of ``lfw`` are copied as they are. Its lists of pairs come to lie in
    ``OUT-pairs``, beside ``OUT``, which holds nothing but people. ``OUT`` is there whole or not
    at all.

    Raises:
        UserError: no network, with the place for files that were loaded by hand; a damaged
            download; something else in ``out``.
    """
    out = Path(str(settings.out))
    if os.path.lexists(out) and not out.is_dir():
        raise UserError(f"`out` {out}: is a file; choose a folder")
    from sklearn.datasets import get_data_home

    home = Path(get_data_home(settings.downloads))
    pictures = _olivetti(home) if settings.name == "olivetti" else _lfw(home)
    lists = [] if settings.name == "olivetti" else [home / "lfw_home" / name for name in PAIRS]
    people = {path.split("/")[0] for path in pictures}
    notes = []
    if settings.name == "lfw" and (len(people), len(pictures)) != _LFW_SIZE:
        notes.append(
            f"{home / 'lfw_home' / 'lfw_funneled'} has {len(people)} people and {len(pictures)} "
            f"pictures, LFW {_LFW_SIZE[0]} and {_LFW_SIZE[1]}: move that folder away to have it "
            "downloaded anew"
        )
    there = _is_there(out, pictures)
    place = out if out.name not in ("", "..") else out.resolve()
    place = place.with_name(f"{place.name}-pairs")
    pairs = tuple(_copy(file, place / file.name) for file in lists)
    if not there:
        _write(out.resolve(), pictures)
    written, kept = (0, len(pictures)) if there else (len(pictures), 0)
    return Fetched(out, len(people), written, kept, pairs, tuple(notes))


def _is_there(out: Path, pictures: Mapping[str, Picture]) -> bool:
    """Whether the folder holds all these pictures; refused where it holds others, or only some."""
    files = {
        path.relative_to(out).as_posix()
        for path in out.rglob("*")
        if not path.name.startswith(".") and not path.is_dir()
    }
    if others := sorted(files - pictures.keys()):
        raise UserError(f"{out / others[0]}: is no part of what is fetched; choose a new `out`")
    if files and len(files) < len(pictures):
        raise UserError(
            f"`out` {out}: lacks {len(pictures) - len(files)} of {len(pictures)} pictures; move it "
            "away, or choose a new `out`"
        )
    return bool(files)


def _write(out: Path, pictures: Mapping[str, Picture]) -> None:
    with writing(out), drafting(out) as draft:
        for path, picture in tqdm(pictures.items(), "writing", unit="img", disable=None):
            (draft / path).parent.mkdir(exist_ok=True)
            if isinstance(picture, Path):
                shutil.copyfile(picture, draft / path)
            else:
                Image.fromarray(picture).save(draft / path, "PNG")


def _copy(source: Path, target: Path) -> Path:
    """Copy a list unless it is there; another file in its place is refused."""
    if os.path.lexists(target):
        if not (target.is_file() and filecmp.cmp(source, target, shallow=False)):
            raise UserError(f"{target}: is another file than the one fetched; move it away")
        return target
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)
    return target


def _lfw(home: Path) -> dict[str, Picture]:
    """Have scikit-learn download LFW; returns its JPEG files, 250 x 250 px."""
    from sklearn.datasets import fetch_lfw_people

    place = home / "lfw_home"
    source, archive = place / "lfw_funneled", place / "lfw-funneled.tgz"
    there = (source.exists() or archive.exists()) and all((place / n).exists() for n in PAIRS)
    with _downloading("lfw", "240 MB", place, _LFW_FILES, there):
        if source.exists() and archive.exists():  # unpacking was interrupted
            shutil.rmtree(source)
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
    return {f"{file.parent.name}/{file.name}": file for file in sorted(source.glob("*/*.jpg"))}


def _olivetti(home: Path) -> dict[str, Picture]:
    """Have scikit-learn download the Olivetti faces; 40 people, 10 grey pictures of 64 px each."""
    from sklearn.datasets import fetch_olivetti_faces

    there = any((home / name).exists() for name in (*_OLIVETTI_FILES, _OLIVETTI_KEPT))
    with _downloading("olivetti", "4 MB", home, _OLIVETTI_FILES, there):
        faces = fetch_olivetti_faces(data_home=home, n_retries=1, delay=_RETRY_AFTER)
    numbers: dict[int, int] = {}
    pictures: dict[str, Picture] = {}
    for label, face in zip(faces.target.tolist(), faces.images, strict=True):
        numbers[label] = numbers.get(label, 0) + 1
        path = f"person_{label + 1:02d}/{numbers[label]:02d}.png"
        pictures[path] = np.round(face * 255).astype(np.uint8)
    return pictures


@contextmanager
def _downloading(
    name: str, size: str, place: Path, files: Mapping[str, int], there: bool
) -> Iterator[None]:
    """Whatever goes wrong with a download becomes one line; a silent server is not waited for.

    ``files`` are names and numbers on the server; where they are ``there`` none is needed.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SILENCE)
    try:
        # The library reports its tries and places in its own way.
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            if not there and (unreachable := why_unreachable(_SERVER)):
                raise OSError(unreachable)
            if not there:
                print(f"downloading {name} ({size}) to {place}", file=sys.stderr)
            yield
    except Exception as error:  # a damaged archive or pickle: anything at all
        if not isinstance(error, OSError) or isinstance(error, gzip.BadGzipFile):
            raise UserError(
                f"{name}: the download in {place} is damaged ({type(error).__name__}: {error}); "
                "move it away and run this again"
            ) from None
        # No network, a refusal of the server, a checksum, a full disk.
        reason = getattr(error, "reason", None) or error.strerror or error
        wanted = "; ".join(f"{_SERVER}/{number} as {file}" for file, number in files.items())
        raise UserError(
            f"{name}: cannot be downloaded ({reason}); go on when there is network, or put into "
            f"{place} what a browser loads: {wanted}; then run this again"
        ) from None
    finally:
        socket.setdefaulttimeout(before)
