"""The record of a conversion: which files of the folder it wrote, from what and how."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO, TypeGuard

from siamese.config import ConvertFit, PictureFormat
from siamese.errors import UserError
from siamese.files.fields import parse_json
from siamese.files.places import is_regular, open_regular


@dataclass(frozen=True)
class Way:
    """How a folder is converted; one folder of results has one.

    Attributes:
        data: the source, as an absolute path without links.
        size: side in pixels.
        fit: what becomes of the aspect.
        format: file type.
        quality: of JPEG and WebP; None for PNG.
    """

    data: str
    size: int
    fit: ConvertFit
    format: PictureFormat
    quality: int | None


class Conversions:
    """What was written, in a text file with one JSON line each that only ever grows.

    Stamps are those of :func:`siamese.data.cache_files.stamp_of`: of the source when it was read,
    and of the result.
    """

    def __init__(self, file: TextIO, lines: list[list[str]]):
        self._file = file
        self._newest: dict[str, tuple[str, str, str]] = {}
        self._written: set[tuple[str, str]] = set()
        for line in lines:
            self._note(*line)

    def _note(self, target: str, source: str, source_stamp: str, stamp: str) -> None:
        self._newest[target] = (source, source_stamp, stamp)
        self._written.add((target, stamp))

    def add(self, target: str, source: str, source_stamp: str, stamp: str) -> None:
        """Note a result that is about to get its place."""
        line = [target, source, source_stamp, stamp]
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        self._note(*line)

    def wrote(self, target: str, stamp: str) -> bool:
        """Whether a file of this name and stamp is a result, of now or of earlier."""
        return (target, stamp) in self._written

    def newest(self, target: str) -> tuple[str, str, str] | None:
        """Source, its stamp and the result's stamp, of the newest result of a name."""
        return self._newest.get(target)

    def targets(self) -> dict[str, str]:
        """The results' names by source."""
        return {source: target for target, (source, _, _) in self._newest.items()}


@contextmanager
def open_conversions(path: Path, way: Way) -> Iterator[Conversions]:
    """Read a folder's record, or begin one.

    Raises:
        UserError: the folder was converted in another way; the record is damaged.
    """
    lines = _read(path)
    if lines:
        _refuse_other_way(path, lines[0], way)
    with open(path, "a" if lines else "w", encoding="utf-8") as file:
        if not lines:
            file.write(json.dumps(asdict(way)) + "\n")
            file.flush()
        elif not _ends_whole(path):
            file.write("\n")  # the last line was cut off
        yield Conversions(file, [line for line in lines[1:] if _is_result(line)])


def _read(path: Path) -> list[object]:
    """The record's lines; a line that was cut off is none.

    Raises:
        UserError: it does not begin as a record does.
    """
    if not os.path.lexists(path):
        return []
    if os.path.islink(path) or not is_regular(path):
        raise UserError(f"{path}: is no file of its own; remove it, or name another --out")
    lines: list[object] = []
    with open(path, encoding="utf-8", errors="replace") as file:
        for text in file:
            try:
                line = parse_json(text)
            except ValueError:
                line = None
            if not lines and text.endswith("\n") and not isinstance(line, dict):
                raise UserError(
                    f"{path}: is damaged; remove it (the files that are there then stay as they "
                    "are), or name another --out"
                )
            if line is not None and text.endswith("\n"):
                lines.append(line)
    return lines


def _ends_whole(path: Path) -> bool:
    with open_regular(path) as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _is_result(line: object) -> TypeGuard[list[str]]:
    return (
        isinstance(line, list)
        and len(line) == 4
        and all(isinstance(x, str) for x in line)
        and all(_is_picture(path) for path in line[:2])
    )


def _is_picture(path: str) -> bool:
    """Whether this is a picture in a person's folder, as all sources and results are."""
    parts = path.split("/")
    return len(parts) == 2 and not {"", ".", ".."} & {*parts} and "\0" not in path


def _refuse_other_way(path: Path, line: object, way: Way) -> None:
    before = line if isinstance(line, dict) else {}
    for name, value in asdict(way).items():
        if before.get(name) != value:
            raise UserError(
                f"--{name} {value}: {path.parent} was converted with {before.get(name)}; name "
                "another --out"
            )
