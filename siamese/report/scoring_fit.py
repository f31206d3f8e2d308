"""Fit a scoring on people, hold it against the cosine on others, keep it in the checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from siamese.config import FittedName, ScoringFitSettings, scoring_title
from siamese.config.common import plain
from siamese.data.folder import FaceFolder, scan_folder, shared_names
from siamese.data.split_lists import names_of
from siamese.errors import UserError, first_few
from siamese.files.writing import write_json
from siamese.models.checkpoint import package_versions, update_checkpoint
from siamese.models.exported import is_exported
from siamese.models.scoring import FittedOn, Scoring, ScoringMap
from siamese.report.embedding_sources import (
    Embeddings,
    Model,
    checkpoint_path,
    embed_folder,
    load_model,
    own_people,
)
from siamese.report.model_comparison import Difference, differences_of
from siamese.report.scoring_maps import fit_map
from siamese.report.verification_report import make_folder, verify
from siamese.verification.sample_warnings import is_collapsed

# The figure that a scoring is to raise. WCCN gains at small FMR: its AUC is about the cosine's.
_AIM: dict[FittedName, str] = {"plda": "auc", "wccn": "tar_at_far_1e-2"}


@dataclass(frozen=True)
class FittedScoring:
    """A fitted scoring.

    Attributes:
        fitted_on: whose pictures, in words.
        judged_on: on whom it is held against the cosine, in words; None where nobody is.
        differences: figures of the cosine (a) and of the fitted scoring (b) there.
        path: the checkpoint.
        written: whether the map was written into it.
    """

    map: ScoringMap
    fitted_on: str
    judged_on: str | None
    differences: tuple[Difference, ...]
    path: Path
    written: bool
    notes: tuple[str, ...]
    files: tuple[Path, ...]


def fit_scoring(settings: ScoringFitSettings, kind: FittedName) -> FittedScoring:
    """Fit a scoring on the training people, judge it on the validation people, write it.

    Raises:
        UserError: too few people or pictures; unusable checkpoint or folder.
    """
    path = checkpoint_path(settings)
    if settings.write and is_exported(path):
        raise UserError(
            f"{path}: {scoring_title(kind)} is not written into an exported model; fit it for the "
            "checkpoint and export again (`write` false only shows it)"
        )
    model = load_model(settings)
    cosine = replace(settings, scoring="cosine")
    folder, own, notes = _fitting_people(model, settings)
    others, more = _validation_people(model, settings)
    if own and settings.crop is not None:
        raise UserError(
            f"`crop` {settings.crop}: the checkpoint's own people are taken as they were trained; "
            "give it with `data`"
        )
    whose = "training" if own else "other"
    origin = f"{model.path} on {len(folder.names)} {whose} people of {folder.root}"
    people = embed_folder(_undecided(model), folder, cosine, origin, [*notes, *more])
    crop = model.spec.crop if settings.crop is None else settings.crop
    crop = None if crop is None or crop == "whole" else float(crop)
    count, pictures = len(np.unique(people.labels)), len(people.labels)
    flip = _undecided(model).mirrors(cosine)
    fitted = FittedOn(count, pictures, flip, crop, _now())
    if fitted.people > 1 and is_collapsed(people.embeddings):
        raise UserError(
            f"{model.path}: has collapsed, all {len(people.labels)} pictures get one and the same "
            "embedding: no scoring can tell them apart; train anew"
        )
    try:
        found = fit_map(kind, people.embeddings, people.labels, fitted)
    except UserError as error:
        raise UserError(f"{people.origin}: {error}") from None
    judged, differences, said = _against_cosine(model, others, found, cosine)
    notes = [*people.notes, *said]
    return _written(settings, model, found, people.origin, judged, differences, notes)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _undecided(model: Model) -> Model:
    """The model without its threshold, which says nothing here, even where it is damaged."""
    return replace(model, content={k: v for k, v in model.content.items() if k != "decision"})


def _fitting_people(
    model: Model, settings: ScoringFitSettings
) -> tuple[FaceFolder, bool, list[str]]:
    """Whom it is fitted on, whether they are the checkpoint's own, and notes.

    Raises:
        UserError: they are not there; some of them judge the checkpoint.
    """
    if settings.data is None or settings.part is not None:
        return own_people(model, "train", settings.data), True, []
    folder = scan_folder(Path(settings.data))
    notes = [folder.summary()] if folder.left_out else []
    split = model.content["split"]
    if not split:
        notes.append(
            f"{model.path} does not say who judges it: whoever does must not be in {folder.root}"
        )
    judging = [name for part in ("validation", "test") if part in split
               for name in names_of(split[part])]  # fmt: skip
    if shared := shared_names(folder.names, judging):
        raise UserError(
            f"`data` {folder.root}: {len(shared)} of its people validate or test {model.path} "
            f"({first_few(shared)}), and figures on them would flatter; take them out of it"
        )
    return folder, False, notes


def _validation_people(
    model: Model, settings: ScoringFitSettings
) -> tuple[FaceFolder | None, list[str]]:
    """On whom it is judged; None, and why, where they are not there."""
    try:
        place = settings.data if settings.part is not None else None
        return own_people(model, "validation", place), []
    except UserError as error:
        return None, [f"not held against the cosine: {error}"]


def _against_cosine(
    model: Model, folder: FaceFolder | None, found: ScoringMap, settings: ScoringFitSettings
) -> tuple[str | None, tuple[Difference, ...], list[str]]:
    """On whom it is judged, its figures beside those of the cosine, and notes."""
    if folder is None:
        return None, (), []
    origin = f"{model.path} on validation people of {folder.root}"
    options = replace(settings, crop=None)
    plain_people = embed_folder(_undecided(model), folder, options, origin, [])
    mapped: Embeddings = replace(
        plain_people, embeddings=Scoring(found).apply(plain_people.embeddings)
    )
    judged = [
        verify(one, device=settings.device, resamples=settings.resamples, seed=settings.seed)
        for one in (plain_people, mapped)
    ]
    differences = differences_of(*judged)
    notes = [f"validation people: {note}" for note in (*plain_people.notes, *judged[0].notes)]
    aim = next(one for one in differences if one.name == _AIM[found.kind])
    if not aim.difference > 0:  # nor NaN
        notes.append(
            f"{scoring_title(found.kind)} is not better than the cosine on these people "
            f"({aim.title} {aim.difference:+.4f}): stay with the cosine"
        )
    return origin, differences, notes


def _written(
    settings: ScoringFitSettings,
    model: Model,
    found: ScoringMap,
    fitted_on: str,
    judged_on: str | None,
    differences: tuple[Difference, ...],
    notes: Sequence[str],
) -> FittedScoring:
    """Write the JSON and, where it is wanted, the map; a threshold of another map goes with it."""
    gone = _outdated(model, found)
    if gone is not None and settings.write:
        notes = [
            *notes,
            f"the threshold of this checkpoint was chosen with the {gone} that is replaced, so it "
            f"was removed: choose it anew with siamese-eval threshold --scoring {found.kind}",
        ]
    out = make_folder(Path(settings.out or Path(settings.runs) / model.path.resolve().parent.name))
    content = {
        "fitted": asdict(found.fitted),
        "fitted_on": fitted_on,
        "dimensions": found.dimensions,
        "digest": found.digest,
        "judged_on": judged_on,
        "figures": {one.name: asdict(one) for one in differences},
        "notes": list(notes),
        "settings": asdict(settings),
        "versions": package_versions(),
    }
    if settings.write:
        update_checkpoint(
            model.path,
            "scoring",
            found.as_dict(),
            model=model.content["model"],
            without=None if gone is None else "decision",
            limits=settings.limits,
        )
    files = (write_json(out / f"{found.kind}.json", plain(content)),)
    return FittedScoring(
        found, fitted_on, judged_on, differences, model.path, settings.write, tuple(notes), files
    )


def _outdated(model: Model, found: ScoringMap) -> str | None:
    """The fitted scoring of the checkpoint's threshold, where it is not the one written now."""
    try:
        decision = model.decision
    except UserError:  # damaged: it says so wherever it is read
        return None
    if decision is None or decision.map in ("", found.digest):
        return None
    return scoring_title(decision.scoring)
