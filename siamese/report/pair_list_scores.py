"""Scores of a list of picture pairs: LFW's protocols, or any other list."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from siamese.config import CurveSettings
from siamese.data.folder import FaceFolder
from siamese.data.pair_lists import PairList, read_known_pairs, read_pairs
from siamese.errors import UserError, first_few
from siamese.files.writing import write_csv
from siamese.report.embedding_files import given_embeddings
from siamese.report.embedding_sources import Embeddings, embed_folder, load_model, naming
from siamese.verification.bootstrap import Bootstrap, Interval, resample_listed, share_interval
from siamese.verification.counts import PairCounts, counts_of
from siamese.verification.decision import Decision
from siamese.verification.protocols import FoldAccuracy, accuracy_at, fold_accuracy
from siamese.verification.scores import exact_unit, listed_scores, prepare


@dataclass(frozen=True)
class ListedPairs:
    """The pairs of a list whose pictures could be embedded.

    Attributes:
        scores: float64 (M,).
        same: bool (M,).
        bootstrap: the resamples of the people; None where none were drawn.
        folds: accuracy of a list with folds; None for lists without.
        accuracy: accuracy at the model's own threshold; None where it has none.
        accuracy_interval: its 95 % interval; None without resamples.
    """

    people: Embeddings
    paths: tuple[tuple[str, str], ...]
    scores: npt.NDArray[np.float64]
    same: npt.NDArray[np.bool_]
    counts: PairCounts
    bootstrap: Bootstrap | None
    folds: FoldAccuracy | None
    accuracy: float | None
    accuracy_interval: Interval
    decision: Decision | None
    missing: tuple[str, ...]
    skipped: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        folds = self.folds
        return {
            "pairs": len(self.scores),
            "skipped": self.skipped,
            "missing": list(self.missing),
            "accuracy_at_own_threshold": self.accuracy,
            "accuracy_at_own_threshold_interval": self.accuracy_interval,
            "fold_accuracy": None
            if folds is None
            else {
                "mean": folds.mean,
                "standard_error": folds.standard_error,
                "interval": folds.interval,
                "accuracies": folds.accuracies.tolist(),
                "thresholds": folds.thresholds.tolist(),
            },
        }

    def write_csv(self, path: Path) -> Path:
        """One line per pair: paths, truth, score; with a calibration its log-likelihood ratio."""
        columns = ["path_a", "path_b", "same", "score"]
        rows: list[list[object]] = [
            [*paths, int(same), f"{score:.6f}"]
            for paths, same, score in zip(self.paths, self.same, self.scores, strict=True)
        ]
        if self.decision is not None:
            columns.append("llr")
            for row, llr in zip(rows, self.decision.calibration.llr(self.scores), strict=True):
                row.append(f"{llr:.4f}")
        write_csv(path, columns, rows, exact=True)  # it is a list of pairs, too
        return path


def listed_people(settings: CurveSettings, file: str) -> tuple[Embeddings, PairList]:
    """A list of pairs, and the embeddings of its pictures: from a file, or made of a folder.

    Raises:
        UserError: no folder; unusable list, checkpoint or pictures.
    """
    if settings.embeddings is not None:
        people = given_embeddings(settings, settings.embeddings, folders=True)
        return _listed_rows(people, settings.embeddings, file)
    assert settings.data is not None, "check_evaluation asks for it"
    root = Path(settings.data)
    pairs = read_pairs(Path(file), root)
    model = load_model(settings)
    origin = f"{model.path} on the pairs of {file} in {root}"
    notes = _list_notes(pairs, str(root))
    return embed_folder(model, _pictures(root, pairs), settings, origin, notes), pairs


def score_list(people: Embeddings, pairs: PairList, resamples: int, seed: int) -> ListedPairs:
    """Score the pairs of a list.

    Raises:
        UserError: embeddings that cannot be scored; pairs of one kind only.
    """
    assert people.paths is not None, "both name their pictures"
    position = {path: number for number, path in enumerate(people.paths)}
    places = np.array(
        [[position.get(path, -1) for path in side] for side in (pairs.first, pairs.second)]
    )
    kept = (places >= 0).all(0)
    first, second = places[:, kept]
    same = np.array(pairs.same)[kept]
    with naming(people):
        prepared = prepare(people.embeddings)
        unit = exact_unit(people.embeddings) if prepared.zoom else prepared.unit
        scores = listed_scores(unit, first, second, prepared.zoom)
    person = _persons(people.labels, first, second, same)
    persons = person[first], person[second]
    impostors = np.stack(persons)[:, ~same]
    counts = counts_of(
        scores,
        same,
        identities=len(np.unique(np.concatenate(persons))),
        images=len(people.paths),
        identity_pairs=len({frozenset(pair) for pair in impostors.T.tolist()}),
    )
    bootstrap = None
    if resamples:
        bootstrap = resample_listed(counts, scores, same, persons, resamples=resamples, seed=seed)
    decision, accuracy, limits = people.decision, None, None
    if decision is not None:
        accuracy = accuracy_at(scores, same, decision.threshold)
        if bootstrap is not None:
            resampled = bootstrap.accuracy_at(decision.threshold)
            limits = share_interval(accuracy, resampled, bootstrap.genuine_effective)
    return ListedPairs(
        people,
        tuple(
            (people.paths[one], people.paths[other])
            for one, other in zip(first, second, strict=True)
        ),
        scores,
        same,
        counts,
        bootstrap,
        None if pairs.fold is None else fold_accuracy(scores, same, np.array(pairs.fold)[kept]),
        accuracy,
        limits,
        decision,
        pairs.missing,
        pairs.skipped + len(pairs.same) - int(kept.sum()),
    )


def _listed_rows(people: Embeddings, source: str, file: str) -> tuple[Embeddings, PairList]:
    """The listed pictures among those that are embedded in the file ``source``."""
    if people.paths is None:
        raise UserError(
            f"{source}: has no paths, so nobody knows which embedding is of which listed picture; "
            "save them as 'paths' (one text per embedding), or give `labels` a CSV with the "
            "columns label and path"
        )
    pairs = read_known_pairs(Path(file), people.paths, source)
    listed = {*pairs.first, *pairs.second}
    kept = [row for row, path in enumerate(people.paths) if path in listed]
    subset = replace(
        people,
        embeddings=people.embeddings[kept],
        labels=people.labels[kept],
        paths=tuple(people.paths[row] for row in kept),
        origin=f"{source} on the pairs of {file}",
        notes=(*people.notes, *_list_notes(pairs, source)),
    )
    return subset, pairs


def _list_notes(pairs: PairList, origin: str) -> list[str]:
    notes = [] if pairs.taken is None else [pairs.taken]
    if pairs.missing:
        notes.append(
            f"{len(pairs.missing)} pictures of the list are missing in {origin}, {pairs.skipped} "
            f"pairs left out: {first_few(pairs.missing)}"
        )
    return notes


def _pictures(root: Path, pairs: PairList) -> FaceFolder:
    """The listed pictures as a folder; who is on one, the folder it lies in tells."""
    paths = sorted({*pairs.first, *pairs.second})
    names = sorted({_person(path) for path in paths})
    label = {name: number for number, name in enumerate(names)}
    labels = tuple(label[_person(path)] for path in paths)
    return FaceFolder(root, tuple(names), tuple(paths), labels, ())


def _person(path: str) -> str:
    return path.rpartition("/")[0] or path


def _persons(
    labels: npt.NDArray[np.int64],
    first: npt.NDArray[np.int64],
    second: npt.NDArray[np.int64],
    same: npt.NDArray[np.bool_],
) -> npt.NDArray[np.int64]:
    """Who is on each picture: their folders say, unless the list contradicts them.

    Then pictures that genuine pairs connect are of one person, and all others of one each.
    """
    # Here: most lists agree with the folders, and no other command needs it.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if ((labels[first] == labels[second]) == same).all():
        return labels
    size = len(labels)
    joined = coo_array((np.ones(int(same.sum())), (first[same], second[same])), (size, size))
    return np.asarray(connected_components(joined, directed=False)[1], np.int64)
