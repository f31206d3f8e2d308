"""What the faces of each photograph are called: no two alike, whatever disk they lie on."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

from siamese.config import CropFormat
from siamese.data.picture_names import without_suffix

_ENDINGS: dict[CropFormat, str] = {"jpeg": ".jpg", "png": ".png"}
_FACE = re.compile(r"(.+)_[0-9]+\.(?:jpg|png)", re.DOTALL | re.IGNORECASE)


def bases(out: Path, photographs: Sequence[str], known: Mapping[str, str]) -> dict[str, str]:
    """What the names of each photograph's faces begin with: ``b`` for ``a/b.png``.

    Of photographs of a folder that differ in the ending only, or in what some disks take for the
    same (letter case, Unicode form), the first keeps its name, the others keep their ending
    (``b.png``) and are numbered. Names of files that are there count as taken.

    Args:
        out: the folder of results.
        photographs: paths, relative, with forward slashes.
        known: bases of earlier calls by photograph, which stay.

    Returns:
        bases by photograph, different within each folder.
    """
    taken: dict[str, set[str]] = {}
    for photograph in dict.fromkeys([*known, *photographs]):
        folder = photograph.rpartition("/")[0]
        if folder not in taken:
            taken[folder] = _taken(out / folder)
        if photograph in known:
            taken[folder].add(_folded(known[photograph]))
    named = dict(known)
    for photograph in photographs:
        if photograph not in named:
            folder, _, name = photograph.rpartition("/")
            named[photograph] = _free(name, taken[folder])
            taken[folder].add(_folded(named[photograph]))
    return {photograph: named[photograph] for photograph in photographs}


def face_path(photograph: str, base: str, number: int, file_type: CropFormat) -> str:
    """Where a face belongs, relative to the folder of results: ``a/b_0.jpg``."""
    folder, slash, _ = photograph.rpartition("/")
    return f"{folder}{slash}{base}_{number}{_ENDINGS[file_type]}"


def _free(name: str, taken: set[str]) -> str:
    base, number = without_suffix(name), 1
    while _folded(base) in taken:
        base, number = (name if number == 1 else f"{name}-{number}"), number + 1
    return base


def _taken(folder: Path) -> set[str]:
    try:
        names = os.listdir(folder)
    except OSError:  # not there yet
        return set()
    return {_folded(match[1]) for match in map(_FACE.fullmatch, names) if match}


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
