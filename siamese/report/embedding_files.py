"""Embeddings in files of any system: which arrays are taken, as what, and what is refused."""

from __future__ import annotations

import io
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from siamese.config import EmbeddingFileSettings
from siamese.data.csv_rows import numbered_rows
from siamese.errors import UserError, first_few
from siamese.files.arrays import ArrayFile, Declared, open_arrays
from siamese.files.places import read_bytes
from siamese.files.writing import replacing
from siamese.report.embedding_sources import Embeddings
from siamese.verification.evaluate_embeddings import number_names

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
# Labels of N pictures as whole numbers, their names where they were texts, a note on how.
_Labels = tuple[npt.NDArray[np.int64], tuple[str, ...] | None, str | None]
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
        labels: a file of the labels, where ``path`` has none: .npy, .csv or .tsv with a
            header (a column for the labels and, if there is one, for the paths, by the same
            names), or any other text with one label per line.
        limit: GiB that the arrays may take in memory; told from their headers before one is read.
        folders: where there are no labels, the folder that a path lies in is the person.

    Raises:
        UserError: missing, damaged or too large; pickled content; arrays that are missing,
            misshapen, or of which several could be meant.
    """
    with open_arrays(path) as file:
        arrays = _arrays_by_role(file, path)
        notes = [_naming_note(role, array.name, file.names) for role, array in arrays.items()]
        images = _check_headers(arrays, path, limit)
        if "labels" not in arrays and "names" in arrays and arrays["names"].shape == (images,):
            arrays["labels"] = arrays.pop("names")  # as some systems save their known faces
        if labels is not None and "labels" in arrays:
            if not spare:
                raise UserError(f"`labels` {labels}: {path} has labels; leave one of them out")
            labels = None
        names, paths = (
            _texts(str(path), role, file.read(arrays[role].name)) if role in arrays else None
            for role in ("names", "paths")
        )
        if labels is not None:
            people, paths = _labels_of_file(labels, paths, path, images, limit)
        elif "labels" in arrays:
            people = _labels(str(path), arrays["labels"].name, file.read(arrays["labels"].name))
        else:
            people = _labels_of_folders(path, paths, folders=folders)
        numbers, own_names, note = people
        if names is not None:
            _require_names(path, numbers, own_names, names)
        if paths is not None and len(set(paths)) < len(paths):
            twice = Counter(paths).most_common(1)[0][0]
            raise UserError(f"{path}: the path {twice} is there twice; embed every picture once")
        vectors, root = file.read(arrays["embeddings"].name), _root(file, arrays, path)
    taken = "; ".join(line for line in dict.fromkeys([*notes, note]) if line)
    shown = (f"{path}: {taken}",) if taken else ()
    return Embeddings(vectors, numbers, names or own_names, paths, str(path), shown, root)


def _labels_of_folders(path: Path, paths: tuple[str, ...] | None, *, folders: bool) -> _Labels:
    """The folders that the paths lie in as labels, where they may be taken."""
    if not folders or paths is None:
        raise UserError(
            f"{path}: has no array 'labels'; needed: labels (N,), who is on each picture; give a "
            "file of them with `labels`, or save them as 'labels'"
        )
    parents = [path.replace("\\", "/").rpartition("/")[0] for path in paths]
    numbers, names, _ = _labels(str(path), "paths", np.array(parents))
    return numbers, names, "no labels: the folders of the paths taken as the people"


def _arrays_by_role(file: ArrayFile, path: Path) -> dict[str, Declared]:
    """The arrays by what they are taken for."""
    if file.names == ("",):
        return {"embeddings": file.declared("")}
    positional = {n: file.declared(n) for n in file.names if _POSITIONAL.fullmatch(n)}
    arrays: dict[str, Declared] = {}
    for role, keys in KEYS.items():
        named = [name for name in file.names if name.lower() in keys]
        if not named and role in ("embeddings", "labels"):
            wanted = _DIMENSIONS[role]
            named = [name for name, one in positional.items() if len(one.shape) == wanted]
        if (chosen := _the_one(path, role, named)) is not None:
            arrays[role] = file.declared(chosen)
    if "embeddings" not in arrays:
        there = first_few([repr(name) for name in file.names]) or "no array at all"
        raise UserError(
            f"{path}: has no array 'embeddings'; needed: embeddings (N, D), labels (N,); it holds "
            f"{there}"
        )
    return arrays


def _the_one(path: Path, role: str, names: Sequence[str]) -> str | None:
    """The name that is meant; refused where several could be."""
    if role in names or len(names) <= 1:
        return role if role in names else next(iter(names), None)
    raise UserError(
        f"{path}: {' and '.join(map(repr, names))} may each be the {role}; save the one that is "
        f"meant as {role!r}"
    )


def _naming_note(role: str, name: str, names: Sequence[str]) -> str | None:
    """What was taken for what, where our name does not say it alone."""
    others = [other for other in names if other != name and other.lower() in KEYS[role]]
    also = f" (not {', '.join(others)})" if others else ""
    return f"{name} taken as the {role}{also}" if name and (name != role or others) else None


def _check_headers(arrays: Mapping[str, Declared], path: Path, limit: float) -> int:
    """Refuse arrays by their headers, before one is read; returns the number of embeddings."""
    array = arrays["embeddings"]
    if len(array.shape) != 2 or array.dtype.kind not in "iuf" or not array.shape[1]:
        raise UserError(
            f"{path}: {array.name or 'embeddings'} must be numbers of shape (N, D), not "
            f"{array.dtype} {array.shape}"
        )
    images, cost = array.shape[0], 0.0
    for role, array in arrays.items():
        if role == "root":
            continue  # looked at where it is read
        if len(array.shape) != _DIMENSIONS[role]:
            raise UserError(f"{path}: {array.name} must have shape (N,), not {array.shape}")
        is_text = array.dtype.kind in "US"
        if role in ("names", "paths") and not is_text and array.shape[0]:
            raise UserError(
                f"{path}: {array.name} must be texts, not {array.dtype}; save them with "
                f"{array.name}.astype(str)"
            )
        if role in ("labels", "paths") and array.shape[0] != images:
            raise UserError(
                f"{path}: {array.shape[0]} {array.name} for {images} embeddings: one "
                "per image is needed"
            )
        cost += math.prod(array.shape) * max(array.dtype.itemsize + (_TEXT if is_text else 0), 4)
        _require_room(str(path), cost, limit)
    return images


def _require_room(source: str, cost: float, limit: float) -> None:
    if cost > limit * GIB:
        raise UserError(
            f"{source}: its arrays take {cost / GIB:.3g} GiB, the limit is {limit:g} GiB; if "
            "the file is sound and the memory is there, raise `embeddings_limit`"
        )


def _require_names(
    path: Path,
    labels: npt.NDArray[np.int64],
    own_names: tuple[str, ...] | None,
    names: tuple[str, ...],
) -> None:
    """One name per label value."""
    if own_names is not None:
        raise UserError(
            f"{path}: the labels are texts, which are names, and it has names besides; "
            "leave one of them out"
        )
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(names):
        raise UserError(
            f"{path}: labels run from {labels.min()} to {labels.max()}, but it has {len(names)} "
            "names: one per label value is needed"
        )


def _root(file: ArrayFile, arrays: Mapping[str, Declared], path: Path) -> Path | None:
    root = arrays.get("root")
    if root is None or root.shape != () or root.dtype.kind != "U":
        return None
    if root.dtype.itemsize > 4 * _LONGEST:
        return None
    text = _texts(str(path), "root", file.read(root.name)[None])[0]
    return Path(text) if text else None


def _labels(source: str, name: str, array: npt.NDArray[Any]) -> _Labels:
    """Labels of any honest kind as whole numbers, texts with their names."""
    kind = array.dtype.kind
    if kind in "US":
        return *number_names(_texts(source, name, array)), f"{name} (texts) taken as names"
    if kind not in "iuf":
        raise UserError(
            f"{source}: the labels must be whole numbers or texts of shape (N,), not {array.dtype}"
        )
    if kind == "f":
        numbers = array.astype(np.float64)
        whole = (np.abs(numbers) <= _WHOLE) & (np.rint(numbers) == numbers)  # False for NaN, Inf
        if not whole.all():
            position = int(np.argmin(whole))
            raise UserError(
                f"{source}: the labels must be whole numbers or texts, and {name} holds "
                f"{numbers[position]!s} at position {position}"
            )
        return numbers.astype(np.int64), None, f"{name} (whole numbers as {array.dtype})"
    if array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise UserError(f"{source}: the label {array.max()} is above 2**63 - 1; number from 0")
    return array.astype(np.int64), None, None


def _texts(source: str, name: str, array: npt.NDArray[Any]) -> tuple[str, ...]:
    if array.dtype.kind == "S":  # as other systems write them
        array = np.char.decode(array, "utf-8", "backslashreplace")
    try:
        texts = tuple(str(text) for text in array)
    except ValueError:  # beyond Unicode
        raise UserError(f"{source}: {name} holds what is no text; the file is damaged") from None
    if any("\0" in text for text in texts):
        raise UserError(f"{source}: {name} holds zero bytes; the file is damaged")
    return texts


def _labels_of_file(
    file: Path, paths: tuple[str, ...] | None, path: Path, images: int, limit: float
) -> tuple[_Labels, tuple[str, ...] | None]:
    """Labels from a file beside the embeddings, and the paths: those of either file."""
    source = f"`labels` {file}"
    if file.suffix.lower() == ".npy":
        with open_arrays(file) as arrays:
            array = arrays.declared("")
            _require_number(source, array.shape[0] if len(array.shape) == 1 else 0, images)
            _require_room(source, images * (array.dtype.itemsize + _TEXT), limit)
            return _labels(source, "labels", arrays.read("")), paths
    content = read_bytes(file, source, limit=(images + 2) * _LONGEST)
    try:
        text = content.decode("utf-8-sig").rstrip()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{source}, line {line}: is not UTF-8; save it as UTF-8") from None
    mark = {".csv": ",", ".tsv": "\t"}.get(file.suffix.lower())
    labels, listed = text.split("\n") if text else [], None
    if mark is not None:
        labels, listed = _columns(source, text, mark)
    labels = [label.strip() for label in labels]
    _require_number(source, len(labels), images)
    if "" in labels:
        raise UserError(f"{source}: the label at position {labels.index('')} is empty")
    # A folder 01 is another person than a folder 1.
    whole = all(re.fullmatch(r"0|-?[1-9][0-9]{0,17}", label) for label in labels)
    values = np.array([int(label) for label in labels]) if whole else np.array(labels, np.str_)
    if listed is not None and paths is not None:
        raise UserError(f"{source}: has paths, and so has {path}; leave one of them out")
    name = "its lines" if listed is None else "its column"
    return _labels(source, name, values), paths if listed is None else listed


def _require_number(source: str, labels: int, images: int) -> None:
    if labels != images:
        raise UserError(
            f"{source}: {labels} labels for {images} embeddings: one per embedding is needed"
        )


def _columns(source: str, text: str, mark: str) -> tuple[list[str], tuple[str, ...] | None]:
    """Labels and paths of a table; a table of one column needs no header."""
    rows = numbered_rows(source, io.StringIO(text, newline=""), mark)
    header = [name.strip() for name in rows[0][1]] if rows else []
    chosen = {
        role: _the_one(Path(source), role, [name for name in header if name.lower() in KEYS[role]])
        for role in ("labels", "paths")
    }
    for line, row in rows:
        if len(row) != len(header):
            raise UserError(f"{source}, line {line}: {len(row)} fields, wanted are {len(header)}")
    if chosen["labels"] is None and len(header) == 1:
        return [row[0] for _, row in rows], None
    if chosen["labels"] is None:
        raise UserError(
            f"{source}, line 1: no column is called like labels; wanted is one of "
            f"{', '.join(KEYS['labels'])}"
        )
    columns = {name: [row[place] for _, row in rows[1:]] for place, name in enumerate(header)}
    paths = None if chosen["paths"] is None else tuple(columns[chosen["paths"]])
    return columns[chosen["labels"]], paths
