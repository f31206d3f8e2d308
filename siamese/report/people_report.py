"""The report of people: who makes the errors at the threshold."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from siamese.config import PeopleSettings
from siamese.files.writing import write_csv
from siamese.models.device import scoring_device
from siamese.report.embedding_sources import Embeddings
from siamese.report.verification_report import (
    Verified,
    intervals_at,
    judged_people,
    output_folder,
    verify,
)
from siamese.verification.bootstrap import Interval
from siamese.verification.metrics import error_rates
from siamese.verification.per_identity import Examination, examine


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
        chosen_by: where the threshold comes from, in words.
        intervals: 95 % intervals of these two; None without resamples.
        origin: what was judged, in words.
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
    table = people_table(
        people, verified, threshold=settings.threshold, device=settings.device, worst=1
    )
    columns = [field.name for field in fields(Person)]
    write_csv(path, columns, ([_cell(getattr(row, c)) for c in columns] for row in table.rows))
    return replace(table, files=(path,))


def _cell(value: object) -> object:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return value


def people_table(
    people: Embeddings, verified: Verified, *, threshold: float | None, device: str, worst: int
) -> PeopleTable:
    """Attribute the errors at the threshold to people, and find the worst pairs.

    Args:
        threshold: score from which a pair is accepted; None: see :func:`operating_point`.
    """
    threshold, chosen_by = operating_point(people, verified, threshold)
    examination = examine(
        people.embeddings,
        people.labels,
        verified.counts,
        threshold,
        worst=worst,
        device=scoring_device(device),
        progress=True,
    )
    each = examination.people
    names = [person_name(people, label) for label in each.label.tolist()]
    name_of = dict(zip(each.label.tolist(), names, strict=True))
    columns = {
        "person": names,
        "nearest_other": [name_of[label] for label in each.nearest.tolist()],
    }
    for field in fields(Person):
        if field.name not in columns:
            columns[field.name] = getattr(each, field.name).tolist()
    rows = [
        Person(**dict(zip(columns, row, strict=True)))
        for row in zip(*columns.values(), strict=True)
    ]
    fmr, fnmr = (float(rate) for rate in error_rates(verified.counts, threshold))
    return PeopleTable(
        tuple(rows[row] for row in np.argsort(-each.harm, kind="stable")),
        examination,
        threshold,
        chosen_by,
        fmr,
        fnmr,
        intervals_at(verified, threshold),
        people.origin,
        (*people.notes, *verified.notes),
        (),
    )


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
