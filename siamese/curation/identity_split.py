"""Draw identity-disjoint train, validation and test lists of a folder."""

from __future__ import annotations

import difflib
import os
import statistics
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from siamese import __version__
from siamese.config import SplitListSettings
from siamese.config.common import plain
from siamese.curation.contents import results_folder
from siamese.curation.copies import groups_of
from siamese.curation.shell import command_line, path_word
from siamese.data.folder import FaceFolder, scan_folder
from siamese.data.split import people_wanted
from siamese.data.split_lists import list_content
from siamese.errors import UserError, first_few
from siamese.files.csv_tables import read_table
from siamese.files.places import read_bytes
from siamese.files.writing import drafting, write_json, writing

if TYPE_CHECKING:
    from siamese.report.embedding_sources import Embeddings

_SAME = 0.5  # folders are one person from this probability on
_SHOWN = 20  # merged people that the text names


@dataclass(frozen=True)
class Pair:
    """Two folders that are one person, with this probability."""

    first: str
    second: str
    probability: float = 1.0


@dataclass(frozen=True)
class WrittenSplit:
    """Lists that lie in a folder.

    Attributes:
        out: the folder.
        root: the face folder that they are about.
        counts: for each part, every person's number of pictures.
        merged: people whose pictures lie in several folders, with the folders.
        new: whether they were written now; False: they were there, the same.
        notes: what the reader must know.
    """

    out: Path
    root: Path
    counts: dict[str, dict[str, int]]
    merged: dict[str, list[str]]
    new: bool
    notes: tuple[str, ...]

    def text(self) -> str:
        """People and pictures of each part, what was merged, and how to train with it."""
        parts = {part: _spread(people) for part, people in self.counts.items()}
        people, pictures = (
            sum(part[what] for part in parts.values()) for what in ("people", "pictures")
        )
        lines = [f"{self.root}: {people} people, {pictures} pictures"]
        for person, folders in list(self.merged.items())[:_SHOWN]:
            lines.append(f"one person, {person}: {', '.join(folders)}")
        if len(self.merged) > _SHOWN:
            lines.append(f"... and {len(self.merged) - _SHOWN} more; all are in split.json")
        form = (
            "{people} people, {pictures} pictures; per person {least} to {most}, median {median:g}"
        )
        lines += [f"{part}: {form.format(**numbers)}" for part, numbers in parts.items()]
        lines += [f"note: {note}" for note in self.notes]
        lines.append(f"{'written to' if self.new else 'unchanged:'} {self.out}")
        words = ("siamese-train", "--data", path_word(self.root), "--split.lists")
        return "\n".join([*lines, f"next: {command_line(*words, path_word(self.out))}"])


def write_split(settings: SplitListSettings) -> WrittenSplit:
    """Draw the parts of a folder and write their lists; nothing is moved.

    Raises:
        UserError: unusable folder, model or merge file; too few people; other files in the way.
    """
    folder, pairs, notes = _folder_and_pairs(settings)
    out = results_folder("split", folder.root, settings.out, settings.runs)
    people = merge_folders(folder.counts(), pairs)
    pictures = _pictures(folder, people)
    counts = {person: len(paths) for person, paths in pictures.items()}
    parts = draw_parts(
        counts,
        people_wanted(len(counts), settings.validation),
        people_wanted(len(counts), settings.test),
        settings.seed,
    )
    _require_genuine(folder.root, counts, parts)
    if pairs and settings.merge is None:
        least = min(pair.probability for pair in pairs)
        notes.append(
            f"a model found who is one person (probability {least:.2f} or more); it may be wrong: "
            "look at them with siamese-data audit, and give the right ones with `merge`"
        )
    if folder.left_out:
        notes = [*notes, folder.summary().partition("; ")[2]]
    merged = {person: folders for person, folders in people.items() if len(folders) > 1}
    numbers = {part: {name: counts[name] for name in names} for part, names in parts.items()}
    lists = {
        f"{part}.csv": list_content({name: pictures[name] for name in names})
        for part, names in parts.items()
    }
    new = not _is_there(out, lists)
    written = WrittenSplit(out, folder.root, numbers, merged, new, tuple(notes))
    if new:
        _write(lists, settings, written, pairs)
    return written


def draw_parts(
    counts: Mapping[str, int], validation: int, test: int, seed: int
) -> dict[str, list[str]]:
    """Draw who goes where so that all parts have people with few and with many pictures.

    People stand in the order of their pictures (ties by lot). For 10 validation people that line
    is cut into 10 stretches of equal length, and one person is drawn from each; then the same for
    test among the others.

    Args:
        counts: pictures of every person.
        validation: number of people.
        test: number of people.
        seed: the same people and seed give the same parts.

    Returns:
        ``{"train": [...], "validation": [...], "test": [...]}``, each sorted; no test for 0.

    Raises:
        UserError: fewer than 2 people are left to train on.
    """
    if len(counts) - validation - test < 2:
        raise UserError(
            f"{len(counts)} people cannot give {validation} for validation, {test} for test and at "
            "least 2 for training: add people, or lower `validation` or `test`"
        )
    draw = np.random.default_rng(seed)
    names = sorted(counts)
    lot = draw.permutation(len(names))
    line = [names[index] for index in sorted(lot, key=lambda index: counts[names[index]])]
    parts: dict[str, list[str]] = {}
    for part, number in (("validation", validation), ("test", test)):
        if number:
            edges = [index * len(line) // number for index in range(number + 1)]
            chosen = {line[draw.integers(*stretch)] for stretch in pairwise(edges)}
            parts[part] = sorted(chosen)
            line = [name for name in line if name not in chosen]
    return {"train": sorted(line), **parts}


def _folder_and_pairs(
    settings: SplitListSettings,
) -> tuple[FaceFolder, list[Pair], list[str]]:
    """The folder, which of its people's folders are one person, and notes."""
    if settings.embeddings is not None:
        from siamese.report.embedding_files import given_embeddings

        root = None if settings.data is None else Path(settings.data)
        given = given_embeddings(settings, settings.embeddings)
        return _by_embeddings(given, Path(settings.embeddings), root)
    folder = scan_folder(Path(str(settings.data)))
    if settings.merge is not None:
        return folder, read_pairs_to_merge(Path(settings.merge), folder.names), []
    if settings.checkpoint is None:
        return folder, [], []
    from siamese.report.embedding_sources import embed_folder, load_model

    model = load_model(settings)
    people = embed_folder(model, folder, settings, f"{model.path} on {folder.root}", [])
    return folder, _same_people(people.embeddings, people.labels, folder.names), [*people.notes]


def _by_embeddings(
    given: Embeddings, file: Path, root: Path | None
) -> tuple[FaceFolder, list[Pair], list[str]]:
    from siamese.report.embedding_sources import naming
    from siamese.verification.scores import normalise

    with naming(given):
        embeddings = normalise(given.embeddings).numpy()
    root = root or given.root
    if given.paths is None or root is None:
        what = "paths" if given.paths is None else "folder of its pictures"
        raise UserError(
            f"{file}: has no {what}, which lists need; write it with siamese-eval embed, or give "
            "`data` and `checkpoint`"
        )
    folder = scan_folder(root)
    label_of = dict(zip(folder.paths, folder.labels, strict=True))
    there = [index for index, path in enumerate(given.paths) if path in label_of]
    if not there:
        raise UserError(f"{file}: not one of its pictures is in {folder.root}")
    labels = np.asarray([label_of[given.paths[index]] for index in there], np.int64)
    notes = [*given.notes]
    if lacking := len(folder.paths) - len(there):
        notes.append(f"{lacking} pictures of {folder.root} have no embedding; they are listed, too")
    return folder, _same_people(embeddings[there], labels, folder.names), notes


def _same_people(embeddings: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> list[Pair]:
    from siamese.auditing.same_person import find_same_people

    return [
        Pair(names[first], names[second], float(probability))
        for first, second, probability, _ in find_same_people(embeddings, labels)
        if probability >= _SAME
    ]


def _pictures(folder: FaceFolder, people: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Person to paths."""
    person_of = {name: person for person, folders in people.items() for name in folders}
    pictures: dict[str, list[str]] = {person: [] for person in people}
    for path, label in zip(folder.paths, folder.labels, strict=True):
        pictures[person_of[folder.names[label]]].append(path)
    return {person: sorted(paths) for person, paths in pictures.items()}


def _require_genuine(
    root: Path, counts: Mapping[str, int], parts: Mapping[str, Sequence[str]]
) -> None:
    """Refuse parts that training would refuse."""
    for part, names in parts.items():
        if max(counts[name] for name in names) < 2:
            raise UserError(
                f"{root}: nobody among the {len(names)} {part} people has two pictures, so there "
                "is no genuine pair; add pictures, or take another `seed`"
            )
        if len(names) < 2:
            raise UserError(
                f"{root}: one {part} person only, so there is no impostor pair; set `{part}` 2 or "
                "more"
            )


def _is_there(out: Path, lists: Mapping[str, bytes]) -> bool:
    """Whether the very same lists are there already.

    Raises:
        UserError: something else is.
    """
    if not os.path.lexists(out):
        return False
    present = {file.name for file in out.iterdir()} if out.is_dir() else {out.name}
    if not present:
        return False
    same = {name for name in present if name.endswith(".csv")} == set(lists) and all(
        read_bytes(out / name) == content for name, content in lists.items()
    )
    if not same:
        raise UserError(
            f"{out} holds other files already ({first_few(sorted(present))}): choose another "
            "`out`, or move it away"
        )
    return True


def _write(
    lists: Mapping[str, bytes],
    settings: SplitListSettings,
    written: WrittenSplit,
    pairs: Sequence[Pair],
) -> None:
    """All files or none: they are made beside ``out``, which they then become."""
    content = {
        "folder": str(written.root.resolve()),
        "seed": settings.seed,
        "parts": {
            part: {**_spread(people), "names": list(people)}
            for part, people in written.counts.items()
        },
        "merged": written.merged,
        "merged_by": [asdict(pair) for pair in pairs],
        "settings": {key: plain(value) for key, value in asdict(settings).items()},
        "version": __version__,
    }
    with writing(written.out), drafting(written.out) as draft:
        for name, data in lists.items():
            (draft / name).write_bytes(data)
        write_json(draft / "split.json", content)


def _spread(people: Mapping[str, int]) -> dict[str, float]:
    numbers = list(people.values())
    return {
        "people": len(numbers),
        "pictures": sum(numbers),
        "least": min(numbers),
        "median": statistics.median(numbers),
        "most": max(numbers),
    }


def merge_folders(counts: Mapping[str, int], pairs: Iterable[Pair]) -> dict[str, list[str]]:
    """People from folders: what pairs link, also through others, is one person.

    Returns:
        Every person's folders, sorted. A person has the name of the folder with most pictures
        (``counts``), the first of several by name.
    """
    group = groups_of((pair.first, pair.second) for pair in pairs)
    members: dict[str, list[str]] = {}
    for name in sorted(counts):
        members.setdefault(group.get(name, name), []).append(name)
    people = {max(some, key=lambda name: counts[name]): some for some in members.values()}
    return dict(sorted(people.items()))


def read_pairs_to_merge(file: Path, names: Iterable[str]) -> list[Pair]:
    """Read a CSV with the columns ``first`` and ``second``, such as audit's ``same_person.csv``.

    Its names are found among the folders' ``names`` in any Unicode form.

    Raises:
        UserError: unreadable; no such columns; a name that no folder has. Names file and line.
    """
    known = {_plain(name): name for name in names}
    pairs: list[Pair] = []
    for where, cells in read_table(file, ("first", "second")):
        for cell in cells:
            if _plain(cell) not in known:
                near = difflib.get_close_matches(_plain(cell), known, n=1, cutoff=0.5)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise UserError(f"{where}: no folder with pictures has the name {cell!r}{hint}")
        first, second = (known[_plain(cell)] for cell in cells)
        if first == second:
            raise UserError(f"{where}: {first!r} twice; name two folders")
        pairs.append(Pair(first, second))
    return pairs


def _plain(name: str) -> str:
    """One form for all spellings: tables escape the bytes of a name that are no valid text."""
    return unicodedata.normalize("NFC", name.encode("utf-8", "backslashreplace").decode())
