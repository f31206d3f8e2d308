"""Choose a threshold that may be deployed, check it on other people, keep it in the checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from math import comb
from pathlib import Path

from siamese.config import ComparedName, ScoringName, ThresholdSettings
from siamese.config.common import plain
from siamese.data.folder import FaceFolder, scan_folder, shared_names
from siamese.data.split_lists import names_of
from siamese.drawing.figure import save_figure
from siamese.errors import UserError, first_few
from siamese.files.writing import write_json
from siamese.models.checkpoint import package_versions, update_checkpoint
from siamese.models.exported import is_exported
from siamese.models.scoring import COSINE
from siamese.report.embedding_sources import (
    Embeddings,
    Model,
    checkpoint_path,
    embed_folder,
    load_model,
    naming,
    own_people,
)
from siamese.report.verification_plots import reliability_figure
from siamese.report.verification_report import Verified, intervals_at, make_folder, verify
from siamese.verification.bootstrap import Interval
from siamese.verification.calibration import (
    Calibration,
    cllr,
    fit_calibration,
    minimum_cllr,
    reliability,
)
from siamese.verification.counts import PairCounts
from siamese.verification.decision import Decision
from siamese.verification.histogram import ScoreHistogram
from siamese.verification.identification import identify
from siamese.verification.metrics import (
    error_rates,
    lowest_supported_fmr,
    supported_fmr,
    threshold_at_fmr,
)
from siamese.verification.sample_warnings import is_collapsed


@dataclass(frozen=True)
class Rates:
    """What a decision rule does on some people.

    Attributes:
        origin: who they are, in words.
        lowest_supported_fmr: below it nothing can be told with so few people.
        fmr: false-match rate at the threshold, and its 95 % interval.
        fnmr: false-non-match rate at the threshold, and its 95 % interval.
    """

    origin: str
    people: int
    images: int
    lowest_supported_fmr: float
    fmr: float
    fmr_interval: Interval
    fnmr: float
    fnmr_interval: Interval
    cllr: float
    minimum_cllr: float


@dataclass(frozen=True)
class Choice:
    """A chosen threshold.

    Attributes:
        checked: what it does on other people; None where there are none.
    """

    decision: Decision
    chosen: Rates
    checked: Rates | None
    path: Path
    written: bool
    probability: float
    notes: tuple[str, ...]
    files: tuple[Path, ...]


def choose_threshold(settings: ThresholdSettings) -> Choice:
    """Choose the threshold for an FMR on the validation people and check it on others.

    Raises:
        UserError: too few validation people for that FMR; unusable checkpoint or folder.
    """
    require_writable(settings)
    model = load_model(settings)
    settings = replace(settings, scoring=scoring_to_choose_for(model, settings.scoring))
    model.content.pop("decision", None)  # it is chosen anew, even where it is damaged
    validation = own_people(
        model, "validation", _validation_place(model, settings.data, settings.part)
    )
    _require_support(len(validation.names), settings.target_fmr)
    others, notes = _others(model, settings.data, settings.part)
    origin = f"{model.path} on validation people of {validation.root}"
    # --crop belongs to --data; the validation people are taken as they were trained.
    people = embed_folder(model, validation, replace(settings, crop=None), origin, [])
    if is_collapsed(people.embeddings):
        raise UserError(
            f"{model.path}: has collapsed, all {len(people.labels)} validation pictures get one "
            "and the same embedding: no threshold can tell them apart; train anew"
        )
    judge = partial(
        verify, device=settings.device, resamples=settings.resamples, seed=settings.seed
    )
    verified = judge(people)
    notes_on_choice = [f"validation people: {note}" for note in (*people.notes, *verified.notes)]
    counts = verified.counts
    # Some of the people may have lost all their pictures.
    _require_support(counts.identities, settings.target_fmr)
    threshold = threshold_at_fmr(counts, settings.target_fmr)
    calibration = fit_calibration(counts)
    decision = Decision(
        threshold, settings.target_fmr, calibration, histogram=ScoreHistogram.of(counts)
    )
    chosen = rates_of(people.origin, verified, threshold, calibration)
    checked = None
    if others is not None:
        origin = f"{model.path} on {len(others.names)} other people of {others.root}"
        judged = embed_folder(model, others, settings, origin, notes)
        verified = judge(judged)
        counts = verified.counts
        checked = rates_of(judged.origin, verified, threshold, calibration)
        notes = [*judged.notes, *(f"checked people: {note}" for note in verified.notes)]
    notes = [*notes_on_choice, *notes]
    if settings.target_fpir is not None:
        searched = _choose_for_searches(people, settings.target_fpir, settings.gallery)
        decision = replace(decision, identification=searched)
    return write_choice(settings, model, counts, decision, chosen, checked, notes)


def _choose_for_searches(
    people: Embeddings, target_fpir: float, gallery: int
) -> dict[str, float | int]:
    """The threshold of searches in galleries of the validation people, and what it does there.

    Raises:
        UserError: nobody has enough pictures; too few searches for that rate.
    """
    with naming(people):
        searches = identify(
            people.embeddings, people.labels, images_per_person=gallery, progress=True
        )
    if target_fpir * searches.probes < 1:
        raise UserError(
            f"`target_fpir` {target_fpir:g}: {searches.probes} searches support FPIR >= "
            f"{1 / searches.probes:.1e}; add pictures or ask for less"
        )
    threshold = searches.threshold_at(target_fpir)
    return {
        "threshold": threshold,
        "target_fpir": target_fpir,
        "fpir": float((searches.non_mated >= threshold).mean()),
        "fnir": float((searches.mated < threshold).mean()),
        "people": searches.people,
        "images_per_person": gallery,
        "searches": searches.probes,
    }


def scoring_to_choose_for(model: Model, asked: ScoringName) -> ComparedName:
    """The scoring that a threshold is chosen for: auto keeps that of the present one, if any.

    Raises:
        UserError: the model does not have it.
    """
    name: ComparedName
    if asked != "auto":
        name = asked
    elif "baked" in model.content:
        name = model.content["baked"].kind
    else:
        try:
            decision = model.decision
        except UserError:  # it is chosen anew
            decision = None
        name = COSINE if decision is None else decision.scoring
    model.scoring(name)
    return name


def require_writable(settings: ThresholdSettings) -> None:
    """Refuse before the work to write into an exported model.

    Raises:
        UserError: the settings' checkpoint is one, and the threshold is to be written.
    """
    path = checkpoint_path(settings)
    if settings.write and is_exported(path):
        raise UserError(
            f"{path}: a threshold is not written into an exported model; choose it for the "
            "checkpoint and export again (`write` false only shows it)"
        )


def write_choice(
    settings: ThresholdSettings,
    model: Model,
    counts: PairCounts,
    decision: Decision,
    chosen: Rates,
    checked: Rates | None,
    notes: Sequence[str],
) -> Choice:
    """Write a chosen threshold: reliability plot, JSON and, where it is wanted, the checkpoint.

    Args:
        settings: their scoring is not ``auto``.
        chosen: what they do where they were chosen.
        checked: what they do on other people; None where there are none.
    """
    calibration, threshold, prior = decision.calibration, decision.threshold, settings.prior
    if calibration.slope <= 0:
        notes = [*notes, "pairs of one person do not score higher here: the model is of no use"]
    scoring = model.scoring(settings.scoring)
    decision = replace(
        decision,
        flip=model.mirrors(settings),
        scoring=scoring.name,
        map=scoring.digest,
        chosen={**asdict(chosen), "chosen_at": datetime.now(UTC).isoformat(timespec="seconds")},
        checked={} if checked is None else asdict(checked),
    )
    probability = float(calibration.probability(threshold, prior))
    out = Path(settings.out or Path(settings.runs) / model.path.resolve().parent.name)
    bars = reliability(counts, calibration, prior)
    title = str(model.path), f"{counts.identities} people, prior {prior:g}"
    figure = reliability_figure(bars.predicted, bars.observed, bars.genuine + bars.impostor, title)
    files = save_figure(figure, make_folder(out) / "reliability")
    content = {
        **plain(decision.as_dict()),
        "prior": prior,
        "probability_at_threshold": probability,
        "notes": list(notes),
        "settings": asdict(settings),
        "versions": package_versions(),
    }
    files.append(write_json(out / "threshold.json", content))
    if settings.write:
        weights = model.content["model"]
        value = plain(decision.as_dict())
        update_checkpoint(model.path, "decision", value, model=weights, limits=settings.limits)
    return Choice(
        decision, chosen, checked, model.path, settings.write, probability, tuple(notes),
        tuple(files),
    )  # fmt: skip


def _validation_place(model: Model, data: str | None, part: str | None) -> str | None:
    """Where the validation people are now: where they were, else in --data with --part.

    Raises:
        UserError: they are not where they were, and no --part says that --data has them.
    """
    if "validation" not in model.content["split"]:
        return data  # own_people says what is missing
    before = Path(model.content["split"]["validation"]["folder"])
    if before.exists() or model.content["settings"].get("data") is None:
        return None
    if data is None or part is None:
        raise UserError(
            f"{before}: the validation people of {model.path} are not here; give the new place of "
            "the folder with `data` DIR `part` test"
        )
    return data


def _require_support(people: int, fmr: float) -> None:
    lowest = f"{supported_fmr(comb(people, 2)):.1e}"
    if fmr >= float(lowest):  # as it is told: whoever types that in is served
        return
    fix = "add people or ask for less"
    if float(lowest) >= _USELESS:
        fix = "add people, or judge everybody with `folds` 5, which trains the recipe five times"
    raise UserError(
        f"`target_fmr` {fmr:g}: {people} validation people support FMR >= {lowest}; {fix}"
    )


_USELESS = 0.3  # FMR: nobody wants a door that opens to every third stranger


def _others(
    model: Model, data: str | None, part: str | None
) -> tuple[FaceFolder | None, list[str]]:
    """The people to check on, who neither chose the threshold nor trained the network."""
    split = model.content["split"]
    if part is not None or data is None:
        if "test" in split:
            return own_people(model, "test", data), []
        return None, [
            "not checked: the checkpoint has no test people; give other people with `data` DIR"
        ]
    folder = scan_folder(Path(data))
    notes = [folder.summary()] if folder.left_out else []
    used = shared_names(folder.names, [*names_of(split["train"]), *names_of(split["validation"])])
    if used:
        notes.append(
            f"{len(used)} people left out whose names trained the network or chose the threshold: "
            f"{first_few(used)}"
        )
        folder = folder.only([name for name in folder.names if name not in set(used)])
    if len(folder.names) < 2:
        raise UserError(
            f"{folder.root}: {len(folder.names)} people in it who neither trained the network nor "
            "chose the threshold; two are needed to check it: add other people"
        )
    return folder, notes


def rates_of(origin: str, verified: Verified, threshold: float, calibration: Calibration) -> Rates:
    """What a threshold and a calibration do on some people, who are named by ``origin``."""
    counts = verified.counts
    fmr, fnmr = (float(rate) for rate in error_rates(counts, threshold))
    intervals = intervals_at(verified, threshold)
    return Rates(
        origin,
        counts.identities,
        counts.images,
        lowest_supported_fmr(counts),
        fmr,
        intervals[0],
        fnmr,
        intervals[1],
        cllr(counts, calibration),
        minimum_cllr(counts),
    )
