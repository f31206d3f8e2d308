"""Judge one checkpoint per fold on the people whom it never saw, and pool what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import get_args

import numpy as np

from siamese.config import ComparedName, CurveSettings, ThresholdSettings
from siamese.errors import UserError, first_few
from siamese.models.device import scoring_device
from siamese.report.embedding_sources import (
    Embeddings,
    checkpoint_path,
    embed_folder,
    load_model,
    own_people,
)
from siamese.report.threshold_choice import (
    Choice,
    rates_of,
    require_writable,
    scoring_to_choose_for,
    write_choice,
)
from siamese.report.verification_report import (
    FoldFigures,
    Judgement,
    Kind,
    make_folder,
    with_figures,
    write_judgement,
)
from siamese.verification.bootstrap import Interval, share_interval
from siamese.verification.calibration import fit_calibration
from siamese.verification.counts import Floats
from siamese.verification.decision import Decision
from siamese.verification.histogram import ScoreHistogram
from siamese.verification.metrics import summarise, threshold_at_fmr
from siamese.verification.pooled_folds import Folds, count_folds


def judge_folds(settings: CurveSettings, kind: Kind, checkpoints: Sequence[Path]) -> Judgement:
    """Verify the pairs within every fold, pool them, and write the pictures and JSON.

    Raises:
        UserError: unusable checkpoints; a person in two folds; fewer than two people in one.
    """
    people, folds, figures = _embed_folds(settings, checkpoints)
    verified = with_figures(folds.pooled, folds.bootstrap)
    title = f"{verified.counts.identities} people in {len(checkpoints)} folds"
    of_run = checkpoints[0] if settings.fold_checkpoints else checkpoint_path(settings)
    run = Path(settings.runs) / of_run.resolve().parent.name
    out = make_folder(Path(settings.out or run / f"eval-{len(checkpoints)}-folds"))
    return write_judgement(out, kind, people, verified, title, asdict(settings), folds=figures)


def choose_threshold_by_folds(settings: ThresholdSettings, checkpoints: Sequence[Path]) -> Choice:
    """Choose the threshold for an FMR on the pooled pairs of all folds.

    It is checked as LFW's folds are: each by the threshold that the others choose.

    Raises:
        UserError: as :func:`judge_folds`; too few people for that FMR.
    """
    require_writable(settings)
    model = load_model(settings)
    scoring = scoring_to_choose_for(model, settings.scoring)
    settings = replace(settings, scoring=scoring, flip=_mirrors(settings))
    people, folds, _ = _embed_folds(settings, checkpoints)
    verified = with_figures(folds.pooled, folds.bootstrap)
    counts = folds.pooled
    threshold = threshold_at_fmr(counts, settings.target_fmr)
    calibration = fit_calibration(counts)
    chosen = rates_of(people.origin, verified, threshold, calibration)
    crossed = folds.crossed_rates(settings.target_fmr)
    checked = replace(
        chosen,
        origin=f"{len(checkpoints)} folds, each at the threshold that the others choose",
        fmr=crossed.fmr,
        fmr_interval=_interval(crossed.fmr, crossed.fmr_resampled, folds, "impostor_effective"),
        fnmr=crossed.fnmr,
        fnmr_interval=_interval(crossed.fnmr, crossed.fnmr_resampled, folds, "genuine_effective"),
    )
    note = (
        f"chosen on {len(checkpoints)} models of {model.path}'s recipe, each on people whom it "
        "never saw; the checkpoint itself is one more such model: check the threshold on people "
        "of your own when there are some"
    )
    decision = Decision(
        threshold, settings.target_fmr, calibration, histogram=ScoreHistogram.of(counts)
    )
    notes = [*people.notes, note]
    return write_choice(settings, model, counts, decision, chosen, checked, notes)


def _interval(share: float, resampled: Floats, folds: Folds, people: str) -> Interval:
    if folds.bootstrap is None:
        return None
    return share_interval(share, resampled, getattr(folds.bootstrap, people))


def _mirrors(settings: CurveSettings | ThresholdSettings) -> bool:
    """Whether embeddings are averaged with those of the mirrored pictures: for all folds alike."""
    return settings.flip is not False


def _embed_folds(
    settings: CurveSettings | ThresholdSettings, checkpoints: Sequence[Path]
) -> tuple[Embeddings, Folds, tuple[FoldFigures, ...]]:
    """Everybody's embeddings, each by the model of their fold, and the pairs within the folds."""
    settings = replace(settings, flip=_mirrors(settings))
    embedded: list[Embeddings] = []
    judged: dict[str, Path] = {}
    scorings: dict[str, Path] = {}
    for path in checkpoints:
        model = load_model(replace(settings, checkpoint=str(path)))
        scorings.setdefault(model.scoring(settings.scoring).name, path)
        if len(scorings) > 1:
            raise UserError(
                f"`scoring` auto: is {', '.join(f'{n} for {p}' for n, p in scorings.items())}; "
                f"give `scoring` {' or '.join(get_args(ComparedName))}"
            )
        notes = []
        part = "test"
        if part not in model.content["split"]:
            part = "validation"
            notes.append(f"{path} has no test people: figures on those who selected it flatter")
        folder = own_people(model, part, settings.data)
        twice = [name for name in folder.names if name in judged]
        if twice:
            raise UserError(
                f"{path}: {len(twice)} of its {part} people are judged by {judged[twice[0]]}, too "
                f"({first_few(twice)}); give one checkpoint for each fold"
            )
        judged |= dict.fromkeys(folder.names, path)
        origin = f"{part} people of {path}"
        embedded.append(embed_folder(model, folder, settings, origin, notes))
    folds = count_folds(
        [(one.embeddings, one.labels) for one in embedded],
        resamples=settings.resamples,
        seed=settings.seed,
        device=scoring_device(settings.device),
        progress=True,
    )
    figures = tuple(
        FoldFigures(str(path), summarise(counts))
        for path, counts in zip(checkpoints, folds.counts, strict=True)
    )
    notes = list(dict.fromkeys(note for one in embedded for note in one.notes))
    first = np.cumsum([0, *(len(one.names or ()) for one in embedded)])
    people = Embeddings(
        np.concatenate([one.embeddings for one in embedded]),
        np.concatenate([one.labels + start for one, start in zip(embedded, first, strict=False)]),
        tuple(name for one in embedded for name in one.names or ()),
        None,
        f"{len(judged)} people in {len(checkpoints)} folds, each by a model that never saw them",
        tuple(notes),
    )
    return people, folds, figures
