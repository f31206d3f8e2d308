"""Embeddings in files of any system: which arrays are taken, as what, and what is refused."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from siamese.config import EmbeddingFileSettings
from siamese.errors import UserError
from siamese.files.arrays import ArrayFile, Declared, open_arrays
from siamese.files.places import read_bytes
from siamese.files.writing import replacing
from siamese.report.embedding_sources import Embeddings

# What other systems call the arrays; the first name is ours, and wins. In any case of letters.
KEYS = {
    "embeddings": (
        "embeddings", "embedding", "embs", "emb", "features", "feature", "feats", "feat",
        "vectors", "encodings", "x",
    ),
    "labels": (
        "labels", "label", "targets", "target", "y", "ids", "id", "identities", "identity",
        "people", "persons", "person",
    ),
    "names": ("names", "class_names"),
    "paths": (
        "paths", "path", "files", "file", "filenames", "filename", "file_names", "image_paths",
    ),
    "root": ("root",),
}  # fmt: skip
GIB = 2**30
_DIMENSIONS = {"embeddings": 2, "labels": 1, "names": 1, "paths": 1, "root": 0}
_POSITIONAL = re.compile(r"arr_[0-9]+")  # of np.savez(file, a, b)
_TEXT = 64  # bytes that a text takes besides its letters
_LONGEST = 4096  # letters of a label in a text file
_WHOLE = 2.0**53  # beyond, floats no longer tell whole numbers apart


def save_embeddings(path: Path, people: Embeddings) -> None:
    """Write an .npz that :func:`load_embeddings` reads, whole or not at all."""
    arrays: dict[str, Any] = {"embeddings": people.embeddings, "labels": people.labels}
    if people.names is not None:
        arrays["names"] = np.asarray(people.names, dtype=np.str_)
    if people.paths is not None:
        arrays["paths"] = np.asarray(people.paths, dtype=np.str_)
    if people.root is not None:
        arrays["root"] = np.asarray(str(people.root.resolve()), dtype=np.str_)
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def is_embeddings(given: str) -> bool:
    """Whether a file is one of embeddings, by its name; else it is a checkpoint."""
    return given.lower().endswith((".npz", ".npy"))


def given_embeddings(
    settings: EmbeddingFileSettings, file: str, *, folders: bool = False, spare: bool = False
) -> Embeddings:
    """:func:`load_embeddings` with a command's settings."""
    labels = None if settings.labels is None else Path(settings.labels)
    limit = settings.embeddings_limit
    return load_embeddings(Path(file), labels, limit=limit, folders=folders, spare=spare)


def load_embeddings(
    path: Path,
    labels: Path | None = None,
    *,
    limit: float = 1.0,
    folders: bool = False,
    spare: bool = False,
) -> Embeddings:
    """Read embeddings (N, D) and the labels (N,) of who is on each picture.

    An .npz has both under one of the names in :data:`KEYS`, or as the only array of two and of one
    dimension of ``arr_0``, ``arr_1``, ...; an .npy has embeddings. Labels may be whole numbers,
    also as floats, or texts, which become names. Optional are ``names`` (one per label value;
    without labels one per picture), ``paths`` (one per picture) and ``root`` (a text, the folder of
    the paths, for pictures in the report). What was taken under another name than ours is noted.
    Other arrays are not read, nothing is unpickled.

    Args:
        path: the .npz or .npy.
        labels: a file of the labels, where ``path`` has none: .npy or .npz, .csv or .tsv with a
            header (a column for the labels and, if there is one, for the paths, by the same
            names), or any other text with one label per line.
        limit: GiB that the arrays may take in memory; told from their headers before one is read.
        folders: where there are no labels, the folder that a path lies in is the person.
        spare: ``labels`` are for a file that has none; another one keeps its own.

    Raises:
        UserError: missing, damaged or too large; pickled content; arrays that are missing,
            misshapen, or of which several could be meant.
    """
    with open_arrays(path) as file:
        found = _found(file, path)
        reader = _Reader(path, file, found, limit)
        if spare and reader.has_labels:
            labels = None
        return reader.embeddings(labels, folders=folders)


def _found(file: ArrayFile, path: Path) -> dict[str, Declared]:
    """The arrays by what they are taken for."""
    if file.names == ("",):
        return {"embeddings": file.declared("")}
    found: dict[str, Declared] = {}
    for role, keys in KEYS.items():
        name = _one(path, role, [name for name in file.names if name.lower() in keys])
        if name is not None:
            found[role] = file.declared(name)
    positional = [name for name in file.names if _POSITIONAL.fullmatch(name)]
    for role in ("embeddings", "labels"):
        if role not in found and positional:
            shaped = [file.declared(name) for name in positional]
            fits = [one.name for one in shaped if len(one.shape) == _DIMENSIONS[role]]
            name = _one(path, role, fits)
            if name is not None:
                found[role] = next(one for one in shaped if one.name == name)
    if "embeddings" not in found:
        there = ", ".join(map(repr, file.names[:5])) or "no array at all"
        raise UserError(
            f"{path}: has no array 'embeddings'; needed: embeddings (N, D), labels (N,); it holds "
            f"{there}" + (", ..." if len(file.names) > 5 else "")
        )
    return found


def _one(path: Path, role: str, names: Sequence[str]) -> str | None:
    """The name that is meant.

    Raises:
        UserError: several could be.
    """
    if role in names or len(names) <= 1:
        return role if role in names else next(iter(names), None)
    raise UserError(
        f"{path}: {' and '.join(map(repr, names))} may each be the {role}; save the one that is "
        f"meant as {role!r}"
    )


@dataclass(frozen=True)
class _Who:
    """Labels of N pictures as they were found, with what was taken as what."""

    labels: npt.NDArray[np.int64]
    names: tuple[str, ...] | None
    taken: str | None


class _Reader:
    """Reads the arrays that are needed, each once."""

    def __init__(self, path: Path, file: ArrayFile, found: dict[str, Declared], limit: float):
        self.path, self.file, self.found, self.limit = path, file, found, limit
        vectors = found["embeddings"]
        _require_numbers(path, vectors)
        self.images = vectors.shape[0]
        self.cost = 0.0

    def embeddings(self, labels: Path | None, *, folders: bool) -> Embeddings:
        """Everything, read and checked."""
        for role in self.found:
            self._check(role)
        if labels is not None and self.has_labels:
            raise UserError(f"--labels {labels}: {self.path} has labels; leave one of them out")
        if not (labels or folders or self.has_labels):
            wanted = "give a file of them with --labels, or save them as 'labels'"
            raise UserError(f"{self.path}: has no array 'labels'; needed: labels (N,); {wanted}")
        paths = self._texts("paths")
        who, names, taken = None, None, [self._taken(r) for r in KEYS if r in self.found]
        if labels is not None:
            who, listed = _labels_of_file(labels, self.images, self.limit)
            taken.append(who.taken)
            if listed is not None and paths is not None:
                raise UserError(
                    f"--labels {labels}: has paths, and so has {self.path}; leave one of them out"
                )
            paths = paths if listed is None else listed
        elif "labels" in self.found:
            name = self.found["labels"].name
            who = _labels(str(self.path), name, self.file.read(name))
            taken.append(who.taken)
        elif self._names_are_labels():
            who = _labels(str(self.path), "names", np.array(self._texts("names")))
            taken.append("names (one per picture) taken as the labels")
        elif folders and paths is not None:
            people = np.array([path.replace("\\", "/").rpartition("/")[0] for path in paths])
            who = _labels(str(self.path), "paths", people)
            taken.append("no labels: the folders of the paths taken as the people")
        if who is None:
            raise UserError(f"{self.path}: has neither labels nor paths: who is on the pictures?")
        names = who.names
        if "names" in self.found and not self._names_are_labels():
            names = self._names(who)
        if paths is not None:
            _require_paths(self.path, paths, self.images)
        vectors = self.file.read(self.found["embeddings"].name)
        told = [line for line in dict.fromkeys(taken) if line]
        notes = (f"{self.path}: {'; '.join(told)}",) if told else ()
        return Embeddings(vectors, who.labels, names, paths, str(self.path), notes, self._root())

    def _check(self, role: str) -> None:
        """Refuse an array by its header, before it is read."""
        array = self.found[role]
        if role == "root":
            return  # looked at again where it is read
        if len(array.shape) != _DIMENSIONS[role]:
            raise UserError(
                f"{self.path}: {array.name or role} must have shape "
                f"{'(N, D)' if role == 'embeddings' else '(N,)'}, not {array.shape}"
            )
        if role in ("names", "paths") and array.dtype.kind not in "US" and array.shape[0]:
            raise UserError(
                f"{self.path}: {array.name} must be texts, not {array.dtype}; save them with "
                f"{array.name}.astype(str)"
            )
        if role in ("labels", "paths") and array.shape[0] != self.images:
            raise UserError(
                f"{self.path}: {array.shape[0]} {array.name} for {self.images} embeddings: one "
                "per image is needed"
            )
        each = array.dtype.itemsize + (_TEXT if array.dtype.kind in "US" else 0)
        count = array.shape[0] if role != "embeddings" else array.shape[0] * array.shape[1]
        self.cost += count * max(each, 4)
        if self.cost > self.limit * GIB:
            raise UserError(
                f"{self.path}: its arrays take {self.cost / GIB:.3g} GiB, the limit is "
                f"{self.limit:g} GiB; if the file is sound and the memory is there, raise "
                "--embeddings_limit"
            )

    @property
    def has_labels(self) -> bool:
        """Whether the file itself says who is on the pictures."""
        return "labels" in self.found or self._names_are_labels()

    def _names_are_labels(self) -> bool:
        """One name per picture and no labels, as some systems save their known faces."""
        names = self.found.get("names")
        return "labels" not in self.found and names is not None and names.shape == (self.images,)

    def _taken(self, role: str) -> str | None:
        name = self.found[role].name
        others = [n for n in self.file.names if n != name and n.lower() in KEYS[role]]
        also = f" (not {', '.join(others)})" if others else ""
        return f"{name} taken as the {role}{also}" if name and (name != role or others) else None

    def _texts(self, role: str) -> tuple[str, ...] | None:
        if role not in self.found:
            return None
        return _texts(str(self.path), role, self.file.read(self.found[role].name))

    def _names(self, who: _Who) -> tuple[str, ...]:
        """One name per label value."""
        if who.names is not None:
            raise UserError(
                f"{self.path}: the labels are texts, which are names, and it has names besides; "
                "leave one of them out"
            )
        count = self.found["names"].shape[0]
        if self.images and not 0 <= who.labels.min() <= who.labels.max() < count:
            raise UserError(
                f"{self.path}: labels run from {who.labels.min()} to {who.labels.max()}, but it "
                f"has {count} names: one per label value is needed"
            )
        return self._texts("names") or ()

    def _root(self) -> Path | None:
        root = self.found.get("root")
        if root is None or root.shape != () or root.dtype.kind != "U":
            return None
        if root.dtype.itemsize > 4 * _LONGEST:
            return None
        text = _texts(str(self.path), "root", self.file.read(root.name)[None])[0]
        return Path(text) if text else None


def _require_numbers(path: Path, array: Declared) -> None:
    if len(array.shape) != 2 or array.dtype.kind not in "iuf" or not array.shape[1]:
        raise UserError(
            f"{path}: {array.name or 'embeddings'} must be numbers of shape (N, D), not "
            f"{array.dtype} {array.shape}"
        )


def _labels(told: str, name: str, array: npt.NDArray[Any]) -> _Who:
    """Labels of any honest kind as whole numbers, texts with their names.

    Raises:
        UserError: of another kind; numbers that are not whole.
    """
    if array.ndim != 1:
        raise UserError(f"{told}: {name} must have shape (N,), not {array.shape}")
    if array.dtype.kind in "US":
        # One name in two Unicode forms is one person.
        texts = [unicodedata.normalize("NFC", text) for text in _texts(told, name, array)]
        names, labels = np.unique(np.array(texts, dtype=object), return_inverse=True)
        return _Who(labels.astype(np.int64), tuple(names), f"{name} (texts) taken as names")
    if array.dtype.kind == "f":
        kind, array = array.dtype, array.astype(np.float64)
        wrong = ~(np.isfinite(array) & (np.abs(array) <= _WHOLE) & (np.rint(array) == array))
        if wrong.any():
            at = int(np.argmax(wrong))
            raise UserError(
                f"{told}: the labels must be whole numbers or texts, and {name} holds "
                f"{array[at]!s} at position {at}"
            )
        return _Who(array.astype(np.int64), None, f"{name} (whole numbers as {kind})")
    if array.dtype.kind not in "iu":
        raise UserError(
            f"{told}: the labels must be whole numbers or texts of shape (N,), not {array.dtype}"
        )
    if array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise UserError(f"{told}: the label {array.max()} is above 2**63 - 1; number from 0")
    return _Who(array.astype(np.int64), None, None)


def _texts(told: str, name: str, array: npt.NDArray[Any]) -> tuple[str, ...]:
    if array.dtype.kind == "S":  # as other systems write them
        array = np.char.decode(array, "utf-8", "backslashreplace")
    try:
        texts = tuple(str(text) for text in array)
    except ValueError:  # beyond Unicode
        raise UserError(f"{told}: {name} holds what is no text; the file is damaged") from None
    if any("\0" in text for text in texts):
        raise UserError(f"{told}: {name} holds zero bytes; the file is damaged")
    return texts


def _require_paths(path: Path, paths: tuple[str, ...], images: int) -> None:
    if len(paths) != images:
        raise UserError(f"{path}: {len(paths)} paths for {images} embeddings")
    if len(set(paths)) < len(paths):
        twice = next(name for name, count in Counter(paths).items() if count > 1)
        raise UserError(f"{path}: the path {twice} is there twice; embed every picture once")


def _labels_of_file(file: Path, images: int, limit: float) -> tuple[_Who, tuple[str, ...] | None]:
    """Labels from a file of their own, and the paths where it has them."""
    told = f"--labels {file}"
    if file.suffix.lower() in (".npy", ".npz"):
        with open_arrays(file) as arrays:
            name = _one(file, "labels", _label_arrays(arrays))
            if name is None:
                raise UserError(f"{told}: has no array 'labels'")
            array = arrays.declared(name)
            if array.shape != (images,):
                raise UserError(
                    f"{told}: has shape {array.shape} for {images} embeddings: one label per "
                    "embedding is needed"
                )
            if images * (array.dtype.itemsize + _TEXT) > limit * GIB:
                raise UserError(f"{told}: is beyond --embeddings_limit {limit:g} GiB")
            return _labels(told, name or "labels", arrays.read(name)), None
    content = read_bytes(file, told, limit=(images + 2) * _LONGEST)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{told}, line {line}: is not UTF-8; save it as UTF-8") from None
    marks = {".csv": ",", ".tsv": "\t"}
    mark = marks.get(file.suffix.lower())
    if mark is None:
        labels, paths = [line.strip() for line in _lines(text, images)], None
    else:
        labels, paths = _columns(told, text, mark, images)
    if len(labels) != images:
        more = "more than " if len(labels) > images else ""
        raise UserError(
            f"{told}: {more}{min(len(labels), images)} labels for {images} embeddings: one per "
            "embedding is needed"
        )
    if "" in labels:
        raise UserError(f"{told}: the label at position {labels.index('')} is empty")
    whole = all(re.fullmatch(r"-?[0-9]{1,18}", label) for label in labels)
    array_ = np.array([int(label) for label in labels]) if whole else np.array(labels, np.str_)
    return _labels(told, "its lines" if paths is None else "its column", array_), paths


def _label_arrays(arrays: ArrayFile) -> list[str]:
    if arrays.names == ("",) or len(arrays.names) == 1:
        return list(arrays.names)
    return [name for name in arrays.names if name.lower() in KEYS["labels"]]


def _lines(text: str, images: int) -> Iterator[str]:
    """The lines without empty ones at the end, one more than wanted at the most."""
    for count, line in enumerate(io.StringIO(text.rstrip())):
        if count > images:
            return
        yield line


def _columns(
    told: str, text: str, mark: str, images: int
) -> tuple[list[str], tuple[str, ...] | None]:
    """Labels and paths of a table; a table of one column needs no header."""
    rows: list[list[str]] = []
    try:
        for row in csv.reader(io.StringIO(text.rstrip(), newline=""), delimiter=mark, strict=True):
            rows.append(row)
            if len(rows) > images + 1:
                break
    except csv.Error as error:
        raise UserError(f"{told}, line {len(rows) + 1}: is no table ({error})") from None
    header = [name.strip() for name in rows[0]] if rows else []
    at = {role: [i for i, name in enumerate(header) if name.lower() in KEYS[role]]
          for role in ("labels", "paths")}  # fmt: skip
    if not at["labels"] and len(header) == 1:
        return [row[0].strip() if len(row) == 1 else "" for row in rows], None
    name = _one(Path(told), "labels", [header[i] for i in at["labels"]])
    if name is None:
        raise UserError(
            f"{told}, line 1: no column is called like labels; wanted is one of "
            f"{', '.join(KEYS['labels'])}"
        )
    path_name = _one(Path(told), "paths", [header[i] for i in at["paths"]])
    for line, row in enumerate(rows[1:], 2):
        if len(row) != len(header):
            raise UserError(f"{told}, line {line}: {len(row)} fields, wanted are {len(header)}")
    labels = [row[header.index(name)].strip() for row in rows[1:]]
    if path_name is None:
        return labels, None
    return labels, tuple(row[header.index(path_name)] for row in rows[1:])
