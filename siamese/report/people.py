"""The table of people: who makes the errors at the threshold."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from siamese.config import PeopleSettings
from siamese.files.writing import write_csv
from siamese.models.device import scoring_device
from siamese.report.judge import (
    Verified,
    intervals_at,
    judged_people,
    output_folder,
    verify,
)
from siamese.report.sources import Embeddings
from siamese.verification.bootstrap import Interval
from siamese.verification.metrics import error_rates
from siamese.verification.per_identity import Examination, examine

COLUMNS = (
    "person",
    "images",
    "genuine_mean",
    "fnmr",
    "fmr",
    "false_non_match_share",
    "false_match_share",
    "nearest_other",
    "nearest_mean",
    "mislabelled",
    "harm",
)


@dataclass(frozen=True)
class Person:
    """One row; NaN where a figure does not exist. See ``per_identity.People``."""

    person: str
    images: int
    genuine_mean: float
    fnmr: float
    fmr: float
    false_non_match_share: float
    false_match_share: float
    nearest_other: str
    nearest_mean: float
    mislabelled: float
    harm: float


@dataclass(frozen=True)
class PeopleTable:
    """Everybody, the most harmful first.

    Attributes:
        rows: one per person.
        examination: what the rows come from, with the worst pairs.
        threshold: score from which a pair is accepted.
        chosen_by: where the threshold comes from, in words.
        fmr: false-match rate there, over all pairs.
        fnmr: false-non-match rate there, over all pairs.
        intervals: 95 % intervals of these two; None without resamples.
        origin: what was judged, in words.
        notes: what the reader must know.
        files: the files written.
    """

    rows: tuple[Person, ...]
    examination: Examination
    threshold: float
    chosen_by: str
    fmr: float
    fnmr: float
    intervals: tuple[Interval, Interval]
    origin: str
    notes: tuple[str, ...]
    files: tuple[Path, ...]


def write_people(settings: PeopleSettings) -> PeopleTable:
    """Judge everybody and write ``people.csv``.

    Raises:
        UserError: unusable input; see the sources of embeddings and the scores.
    """
    people = judged_people(settings)
    verified = verify(people, device=settings.device)
    path = output_folder(settings) / "people.csv"
    table = people_table(people, verified, settings, worst=1)
    write_csv(path, COLUMNS, ([_cell(getattr(row, c)) for c in COLUMNS] for row in table.rows))
    return PeopleTable(**{**vars(table), "files": (path,)})


def _cell(value: object) -> object:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return value


def people_table(
    people: Embeddings, verified: Verified, settings: PeopleSettings, worst: int
) -> PeopleTable:
    """Attribute the errors at the threshold to people, and find the worst pairs."""
    threshold, chosen_by = operating_point(people, verified, settings.threshold)
    examination = examine(
        people.embeddings,
        people.labels,
        verified.counts,
        threshold,
        worst=worst,
        device=scoring_device(settings.device),
        progress=True,
    )
    found = examination.people
    names = [person_name(people, int(label)) for label in found.label]
    name_of = dict(zip(found.label.tolist(), names, strict=True))
    rows = [
        Person(
            names[at],
            int(found.images[at]),
            float(found.genuine_mean[at]),
            float(found.fnmr[at]),
            float(found.fmr[at]),
            float(found.false_non_match_share[at]),
            float(found.false_match_share[at]),
            name_of[int(found.nearest[at])],
            float(found.nearest_mean[at]),
            float(found.mislabelled[at]),
            float(found.harm[at]),
        )
        for at in np.argsort(-found.harm, kind="stable")
    ]
    fmr, fnmr = (float(rate) for rate in error_rates(verified.counts, threshold))
    notes = (*people.notes, *verified.notes)
    return PeopleTable(
        tuple(rows), examination, threshold, chosen_by, fmr, fnmr,
        intervals_at(verified, threshold), people.origin, notes, (),
    )  # fmt: skip


def person_name(people: Embeddings, label: int) -> str:
    """A person's name, or the label where names are unknown."""
    return str(label) if people.names is None else people.names[label]


def operating_point(
    people: Embeddings, verified: Verified, given: float | None
) -> tuple[float, str]:
    """The threshold to judge people by, and where it comes from in words."""
    if given is not None:
        return given, "given"
    if people.decision is not None:
        rate = people.decision.target_fmr
        return people.decision.threshold, f"the checkpoint's own, for FMR {rate:g}"
    if verified.supports(1e-2):
        return verified.figures["threshold_at_far_1e-2"], "FMR 1e-2 on these people"
    return verified.figures["eer_threshold"], "EER on these people; too few for FMR 1e-2"
