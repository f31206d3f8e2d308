"""Leaks between two folders: the same person, or the same picture, in both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from siamese.auditing.same_person import FolderPairs, mean_cosines, same_people_across
from siamese.auditing.suspects import Suspicion
from siamese.auditing.two_covariance import Labels
from siamese.config import CheckSettings
from siamese.curation.audits.audited import Leak
from siamese.curation.checking.check import usable_shots
from siamese.curation.checking.copies import Copies, Shot, exact_copies, near_copies
from siamese.curation.checking.facts import open_store
from siamese.curation.checking.gathering import gather_facts
from siamese.curation.checking.picture_findings import walk_folder
from siamese.data.folder import shared_names
from siamese.report.embedding_sources import Embeddings

_HERE, _THERE = "here", "there"


def picture_leaks(root: Path, other: Path, facts: Path, *, workers: int) -> list[Leak]:
    """Files and near-duplicates that are in both folders, without a model.

    Args:
        root: the audited folder.
        other: the folder that it is held against.
        facts: the cache of facts about files.
        workers: processes; 0: this one.
    """
    shots = [
        *_marked(root, _HERE, facts, workers=workers),
        *_marked(other, _THERE, facts, workers=workers),
    ]
    same = exact_copies(shots)[1]
    alike = near_copies(shots, CheckSettings().near)[1]
    leaks = [Leak("file", first, second, 1.0) for first, second in _pairs(same)]
    known = {(leak.first, leak.second) for leak in leaks}
    for first, second in _pairs(alike):
        if (first, second) not in known:
            leaks.append(Leak("picture", first, second, float("nan")))
    return leaks


def person_leaks(
    here: Embeddings,
    labels: Labels,
    names: Sequence[str],
    suspicion: Suspicion,
    there: Embeddings,
    other_labels: Labels,
    other_names: Sequence[str],
) -> list[Leak]:
    """People who are in both folders: by the model, and by their names.

    Args:
        here: the audited pictures; ``labels`` (N,) are positions in ``names``.
        labels: see ``here``.
        names: of the audited people.
        suspicion: what was found here.
        there: the other folder's pictures; ``other_labels`` are positions in ``other_names``.
        other_labels: see ``there``.
        other_names: of the other folder's people.
    """
    found = same_people_across(
        here.embeddings, there.embeddings, (labels, other_labels), 1 - suspicion.probability
    )
    told: list[tuple[Literal["person", "name"], int, int]] = [
        ("person", a, b) for a, b in zip(found.first.tolist(), found.second.tolist(), strict=True)
    ]
    known = {(a, b) for _, a, b in told}
    for name in shared_names(names, other_names):
        same = names.index(name), other_names.index(shared_names(other_names, [name])[0])
        if same not in known:
            told.append(("name", *same))
    first, second = (np.array([one[side] for one in told], np.int64) for side in (1, 2))
    scores = mean_cosines(
        (here.embeddings, there.embeddings),
        (labels, other_labels),
        FolderPairs(first, second, np.ones(len(told))),
    )
    return [
        Leak(kind, names[a], other_names[b], float(score))
        for (kind, a, b), score in zip(told, scores, strict=True)
    ]


def _marked(root: Path, mark: str, facts: Path, *, workers: int) -> list[Shot]:
    """A folder's usable pictures, each said to be of the folder's one person."""
    contents = walk_folder(root)
    with open_store(facts) as store:
        known = gather_facts(root, contents.files(), store, workers=workers)
    return [replace(shot, person=mark) for shot in usable_shots(contents, known)]


def _pairs(groups: Sequence[Copies]) -> list[tuple[str, str]]:
    """Of each group every picture here with the best one there."""
    pairs = []
    for group in groups:
        there = [shot.path for shot in group.shots if shot.person == _THERE]
        pairs += [(shot.path, there[0]) for shot in group.shots if shot.person == _HERE]
    return sorted(pairs)
