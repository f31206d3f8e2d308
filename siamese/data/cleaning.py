"""Training without the pictures that an audit calls wrong.

Validation and test people keep all of theirs. A model's doubts fall on what is hard, too, and
figures without it would look better than they are.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path, PurePath

from siamese.data.folder import FaceFolder, LeftOut
from siamese.data.split import Split
from siamese.errors import UserError, first_few
from siamese.files.csv_tables import read_table
from siamese.files.places import read_bytes
from siamese.files.shown import table_cell


def read_suspects(file: Path) -> list[str]:
    """The paths of an audit's suspects, as ``suspects.csv`` or ``plans/suspects.csv`` has them.

    Raises:
        UserError: unreadable; not the table of an audit.
    """
    content = read_bytes(file)
    begin = content[:4096].decode("utf-8-sig", "replace").partition("\n")[0]
    header = [name.strip().lower() for name in next(csv.reader([begin]), [])]
    if b"\0" in content:
        raise UserError(f"`clean` {file}: holds a NUL byte, as no path does; save it as text")
    second = next((name for name in ("suspicion", "to") if name in header), None)
    if second is None or "path" not in header:
        raise UserError(
            f"`clean` {file}: has no columns path and suspicion; give the suspects.csv that "
            "siamese-data audit wrote"
        )
    return [path for _, (path, _) in read_table(file, ("path", second))]


def cleaned(split: Split, file: Path) -> tuple[Split, list[str]]:
    """The split without an audit's suspects among the training pictures, and lines that say so.

    Every suspect of the table counts: those are above the audit's own ``--suspicion``. Paths are
    relative to the folder of the training pictures, or absolute.

    Raises:
        UserError: not the table of an audit; not one of its pictures is in the folder; fewer than
            two training people with two pictures are left.
    """
    root = split.train.root
    parts = split.parts()
    # Names that a spreadsheet would calculate are written otherwise in a table.
    written = {table_cell(path): path for part in parts.values() for path in part.paths}
    suspects = {
        written.get(path, path) for path in (_inside(path, root) for path in read_suspects(file))
    }
    own = {name: part for name, part in parts.items() if part.root == root}
    held = {name: suspects & set(part.paths) for name, part in own.items()}
    known = {item.path for item in split.train.left_out}.union(*held.values())
    unknown = sorted(suspects - known)
    if suspects and not suspects & known:
        raise UserError(
            f"`clean` {file}: not one of its {len(suspects)} pictures takes part in {root} "
            f"({first_few(unknown)}); give the audit of that folder"
        )
    wrong, train = held["train"], split.train
    counts = _without(train, wrong).counts()
    if sum(count >= 2 for count in counts.values()) < 2:
        raise UserError(
            f"`clean` {file}: leaves fewer than 2 training people with two pictures of {root}; "
            "take lines out of it, or audit with a higher --suspicion"
        )
    reason = f"suspect of {file}"
    people = {
        train.names[label]
        for path, label in zip(train.paths, train.labels, strict=True)
        if path in wrong
    }
    lines = [
        f"{file}: {len(wrong)} pictures of {len(people)} people are left out of training, "
        f"{len(train.names) - len(counts)} people have none left"
    ]
    if others := sum(len(paths) for name, paths in held.items() if name != "train"):
        lines.append(f"{others} others are of validation or test people, who stay whole")
    if unknown:
        lines.append(f"note: {len(unknown)} others take no part in {root}: {first_few(unknown)}")
    left_out = [*train.left_out, *(LeftOut(path, reason) for path in sorted(wrong))]
    everything = tuple(sorted(left_out, key=lambda item: item.path))
    own["train"] = _without(train, wrong)
    parts |= {name: replace(part, left_out=everything) for name, part in own.items()}
    found = Split(
        parts["train"], parts["validation"], parts.get("test"), split.listed, cleaned=True
    )
    return found, lines


def kept_only(folder: FaceFolder, paths: Collection[str]) -> FaceFolder:
    """A folder's pictures of some paths, and the people who have any."""
    return _without(folder, set(folder.paths) - set(paths))


def _without(folder: FaceFolder, paths: Collection[str]) -> FaceFolder:
    pairs = [
        (path, label)
        for path, label in zip(folder.paths, folder.labels, strict=True)
        if path not in paths
    ]
    with_pictures = {label for _, label in pairs}
    left = replace(
        folder,
        paths=tuple(path for path, _ in pairs),
        labels=tuple(label for _, label in pairs),
    )
    return left.only([folder.names[label] for label in sorted(with_pictures)])


def _inside(path: str, root: Path) -> str:
    """A path relative to the root, with forward slashes, in its plainest form."""
    if PurePath(path).is_absolute():
        path = os.path.relpath(os.path.realpath(path), os.path.realpath(root))
    return PurePath(os.path.normpath(path)).as_posix()
