"""Judge embeddings by 1:1 verification: exact figures, their intervals, curves and files."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from siamese.config import CurveSettings, EmbedSettings, JudgeSettings, ResampledSettings
from siamese.drawing.figure import save_figure
from siamese.errors import UserError
from siamese.files.writing import write_json
from siamese.models.checkpoint import package_versions
from siamese.models.device import scoring_device
from siamese.report.doubts import doubts, few, few_of
from siamese.report.embedding_files import given_embeddings, save_embeddings
from siamese.report.listed import Listed, judge_list
from siamese.report.sources import (
    Embeddings,
    checkpoint_path,
    embed_people,
    find_person,
    naming,
)
from siamese.report.verification_plots import det_figure, pr_figure, roc_figure
from siamese.verification.bootstrap import (
    ROUGH_BELOW,
    Bootstrap,
    Interval,
    count_and_resample,
    share_interval,
)
from siamese.verification.counts import PairCounts, count_pairs, count_target
from siamese.verification.decision import Decision
from siamese.verification.enough import FEWEST_PEOPLE
from siamese.verification.metrics import curve, error_rates, summarise, too_coarse
from siamese.verification.per_identity import mislabelled_share

Kind = Literal["roc", "pr", "det", "pairs"]
_JSON_POINTS = 500


@dataclass(frozen=True)
class Verified:
    """All pairs of some people, judged.

    Attributes:
        counts: the pairs by score.
        figures: see :func:`siamese.verification.metrics.summarise`.
        intervals: 95 % intervals of the figures, by name; empty without a bootstrap.
        bootstrap: the resamples; None where none were drawn.
        notes: what the reader of the intervals must know.
    """

    counts: PairCounts
    figures: dict[str, float]
    intervals: dict[str, Interval]
    bootstrap: Bootstrap | None
    notes: tuple[str, ...]

    def supports(self, fmr: float) -> bool:
        """Whether there are enough people for figures at this FMR."""
        return fmr >= self.figures["lowest_supported_fmr"]


@dataclass(frozen=True)
class FoldFigures:
    """One fold of several, judged by a model of its own.

    Attributes:
        checkpoint: the model's file.
        figures: of its pairs; see :func:`siamese.verification.metrics.summarise`.
    """

    checkpoint: str
    figures: dict[str, float]


@dataclass(frozen=True)
class Judgement:
    """What was found, and where it was written.

    Attributes:
        verified: figures and intervals.
        decision: the model's own threshold, if it has one.
        at_decision: FMR and FNMR there.
        at_decision_intervals: their 95 % intervals.
        listed: what a list of pairs gives besides; None without one.
        origin: what was judged, in words.
        notes: what the reader of the figures must know.
        files: the files written.
        folds: of cross-validation, one by one; empty without.
    """

    verified: Verified
    decision: Decision | None
    at_decision: tuple[float, float] | None
    at_decision_intervals: tuple[Interval, Interval] | None
    listed: Listed | None
    origin: str
    notes: tuple[str, ...]
    files: tuple[Path, ...]
    folds: tuple[FoldFigures, ...] = ()


def judge(settings: CurveSettings, kind: Kind) -> Judgement:
    """Verify all pairs (or one target's, or a list's) and write the pictures and JSON.

    The files are named after the kind; ``pairs`` draws the ROC and writes ``pairs.csv`` besides.

    Raises:
        UserError: unusable input; see the sources of embeddings and the scores.
    """
    listed: Listed | None = None
    if settings.pairs is not None:
        listed = judge_list(settings, settings.pairs)
        people = listed.people
        verified = with_figures(listed.counts, listed.bootstrap, doubts(people, all_pairs=False))
        title = f"{len(listed.scores)} listed pairs"
    else:
        people = judged_people(settings, settings.target)
        verified = verify(
            people,
            device=settings.device,
            resamples=settings.resamples,
            seed=settings.seed,
            target=settings.target,
        )
        others = f"{verified.counts.identities - 1} others"
        everybody = f"{verified.counts.identities} people, all pairs"
        title = everybody if settings.target is None else f"{settings.target} against {others}"
    out = output_folder(settings, _ending(settings))
    return write_judgement(settings, kind, out, people, verified, title, listed=listed)


def write_judgement(
    settings: CurveSettings,
    kind: Kind,
    out: Path,
    people: Embeddings,
    verified: Verified,
    title: str,
    *,
    listed: Listed | None = None,
    folds: tuple[FoldFigures, ...] = (),
) -> Judgement:
    """Write the picture and the JSON of what was verified.

    Args:
        settings: of the command.
        kind: which picture.
        out: the folder.
        people: who was judged.
        verified: figures and intervals.
        title: of the picture.
        listed: what a list of pairs gives besides.
        folds: figures of each fold.
    """
    decision = people.decision
    rates = None if decision is None else error_rates(verified.counts, decision.threshold)
    at_decision = None if rates is None else (float(rates[0]), float(rates[1]))
    limits = None if decision is None else intervals_at(verified, decision.threshold)
    draw = {"roc": roc_figure, "pr": pr_figure, "det": det_figure, "pairs": roc_figure}[kind]
    files = save_figure(
        draw(curve(verified.counts), verified.figures, (people.origin, title)), out / kind
    )
    content: dict[str, Any] = {
        **verification_json(verified),
        "decision": None if decision is None else decision.as_dict(),
        "at_decision": None
        if at_decision is None or limits is None
        else dict(zip(_RATES, (*at_decision, *limits), strict=True)),
        "curve": _curve_json(verified.counts),
    }
    if listed is not None:
        content["list"] = listed.as_dict()
        files.append(listed.write_csv(out / "pairs.csv"))
    if folds:
        content["folds"] = [asdict(fold) for fold in folds]
    notes = (*people.notes, *verified.notes)
    noted = replace(people, notes=notes)
    files.append(write_results(out / f"{kind}.json", content, noted, settings))
    return Judgement(
        verified, decision, at_decision, limits, listed, people.origin, notes, tuple(files), folds
    )


_RATES = ("fmr", "fnmr", "fmr_interval", "fnmr_interval")


def intervals_at(verified: Verified, threshold: float) -> tuple[Interval, Interval]:
    """95 % intervals of FMR and FNMR at a threshold; None without a bootstrap."""
    if verified.bootstrap is None:
        return None, None
    fmr, fnmr = verified.bootstrap.rates_at(threshold)
    own = [float(rate) for rate in error_rates(verified.counts, threshold)]
    return (
        share_interval(own[0], fmr, verified.bootstrap.impostor_effective),
        share_interval(own[1], fnmr, verified.bootstrap.genuine_effective),
    )


def judged_people(settings: JudgeSettings, target: str | None = None) -> Embeddings:
    """Embeddings from a file, or from a checkpoint and a folder, as the settings say.

    Raises:
        UserError: unusable input.
    """
    if settings.embeddings is None:
        return embed_people(settings, target)
    return given_embeddings(settings, settings.embeddings)


def verify(
    people: Embeddings,
    *,
    device: str,
    resamples: int = 0,
    seed: int = 0,
    target: str | None = None,
) -> Verified:
    """Figures of all pairs, or of one target's pairs, with intervals where they are wanted.

    One target alone gets no intervals: they would have to resample people, and it is one.

    Args:
        people: who is judged.
        device: setting that says where scores are computed.
        resamples: bootstrap resamples of the people; 0: no intervals.
        seed: of the resamples.
        target: one person against everybody; None: all pairs.

    Raises:
        UserError: unusable embeddings; nobody is the target.
    """
    place = scoring_device(device)
    vectors, labels = people.embeddings, people.labels
    with naming(people):
        if target is not None:
            counts = count_target(vectors, labels, _label_of(target, people))
            return with_figures(counts, None, doubts(people, all_pairs=False))
        if resamples == 0:
            counts = count_pairs(vectors, labels, device=place, progress=True)
            return with_figures(counts, None, doubts(people))
        counts, bootstrap = count_and_resample(
            vectors,
            labels,
            resamples=resamples,
            seed=seed,
            device=place,
            progress=True,
        )
    return with_figures(counts, bootstrap, doubts(people))


def verify_resampled(people: Embeddings, settings: ResampledSettings) -> Verified:
    """:func:`verify` all pairs with the resamples that the settings want."""
    return verify(people, device=settings.device, resamples=settings.resamples, seed=settings.seed)


def _label_of(target: str, people: Embeddings) -> int:
    """The label of a person's name, or the label itself where names are unknown."""
    if people.names is not None:
        return find_person(target, people.names)
    known = np.unique(people.labels)
    return int(known[find_person(target, [str(label) for label in known])])


def with_figures(
    counts: PairCounts, bootstrap: Bootstrap | None, told: Sequence[str] = ()
) -> Verified:
    """Counted pairs with all that follows from them, after what is told of the embeddings."""
    notes = [*told, *few(counts.identities, counts.genuine_pairs, counts.impostor_pairs)]
    if (wrong := mislabelled_share(counts)) is not None:
        notes.append(
            "the curve has the signature of mislabelled folders: about "
            f"{wrong:.0%} of the pictures look like someone else's; siamese-eval people names them"
        )
    if bootstrap is not None and FEWEST_PEOPLE <= counts.identities < ROUGH_BELOW:
        notes.append(
            f"{counts.identities} people are few: the intervals are rough below {ROUGH_BELOW}"
        )
    elif bootstrap is not None and bootstrap.genuine_people < ROUGH_BELOW <= counts.identities:
        notes.append(
            f"only {bootstrap.genuine_people} of {counts.identities} people have a pair of "
            f"pictures: the intervals are rough below {ROUGH_BELOW} such people"
        )
    if too_coarse(counts):
        notes.append(
            "most scores differ by less than a ten-thousandth, which rounding to a millionth "
            "blurs: the network hardly tells pictures apart, or one picture is far from all others"
        )
    intervals = {} if bootstrap is None else bootstrap.intervals()
    return Verified(counts, summarise(counts), intervals, bootstrap, tuple(notes))


def verification_json(verified: Verified) -> dict[str, Any]:
    """Figures, intervals and which of them are supported, under their plain names."""
    rates = {"1e-2": 1e-2, "1e-3": 1e-3}
    return {
        **verified.figures,
        "intervals": {name: list(v) if v else None for name, v in verified.intervals.items()},
        "supported": {
            f"{figure}_at_far_{name}": verified.supports(rate)
            for figure in ("tar", "threshold")
            for name, rate in rates.items()
        },
    }


def _curve_json(counts: PairCounts) -> dict[str, list[float]]:
    thin = curve(counts, _JSON_POINTS)
    return {
        "threshold": thin.threshold.tolist(),
        "fmr": thin.fmr.tolist(),
        "fnmr": thin.fnmr.tolist(),
        "recall": thin.recall.tolist(),
        "precision": thin.precision.tolist(),
    }


def write_results(
    path: Path, content: Mapping[str, Any], people: Embeddings, settings: EmbedSettings
) -> Path:
    """Write results with where they come from: origin, notes, settings, versions, time."""
    whole = {
        **content,
        "origin": people.origin,
        "notes": list(people.notes),
        "settings": asdict(settings),
        "versions": package_versions(),
        "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    return write_json(path, whole)


def write_embeddings(settings: EmbedSettings) -> tuple[Path, Embeddings]:
    """Embed and write the .npz; returns its path and what is in it."""
    out = Path(settings.out) if settings.out else results_folder(settings) / "embeddings.npz"
    people = embed_people(settings)
    save_embeddings(out, people)
    return out, replace(people, notes=(*people.notes, *doubts(people), *few_of(people.labels)))


def output_folder(settings: EmbedSettings, ending: str = "") -> Path:
    """The folder that results go to, made if need be.

    Raises:
        UserError: it cannot be made.
    """
    out = Path(settings.out) if settings.out is not None else results_folder(settings, ending)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be made ({error.strerror})") from None
    return out


def results_folder(settings: EmbedSettings, ending: str = "") -> Path:
    """``runs/<run>/eval-<people>``; ``runs/eval-<file>`` for a file of embeddings."""
    embeddings = getattr(settings, "embeddings", None)
    if embeddings is not None:
        return Path(settings.runs) / f"eval-{Path(embeddings).stem}{ending}"
    part = settings.part or "validation"
    people = part if settings.data is None else Path(settings.data).resolve().name
    if settings.data is not None and settings.part is not None:
        people += f"-{part}"
    run = checkpoint_path(settings).resolve().parent.name
    return Path(settings.runs) / run / f"eval-{people}{ending}"


def _ending(settings: CurveSettings) -> str:
    """A target or a list has a folder of its own."""
    if settings.target is not None:
        return f"-{settings.target.replace('/', '_')}"
    return "" if settings.pairs is None else f"-{Path(settings.pairs).stem}"
