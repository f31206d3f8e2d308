"""The report of 1:1 verification: figures of all pairs, their intervals, curves and files."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from siamese.config import CurveSettings, EmbedSettings, JudgeSettings
from siamese.drawing.figure import save_figure
from siamese.errors import UserError
from siamese.files.writing import write_json
from siamese.models.checkpoint import package_versions
from siamese.models.device import scoring_device
from siamese.report.embedding_files import given_embeddings, save_embeddings
from siamese.report.embedding_sources import (
    Embeddings,
    checkpoint_path,
    embed_people,
    find_person,
    naming,
)
from siamese.report.pair_list_scores import ListedPairs, listed_people, score_list
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
from siamese.verification.sample_warnings import (
    embedding_warnings,
    label_warnings,
    size_warnings,
)

Kind = Literal["roc", "pr", "det", "pairs"]
_JSON_POINTS = 500


@dataclass(frozen=True)
class Verified:
    """All pairs of some people, judged.

    Attributes:
        intervals: 95 % intervals of the figures, by name; empty without a bootstrap.
        bootstrap: the resamples; None where none were drawn.
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
    """One fold of several, judged by a model of its own."""

    checkpoint: str
    figures: dict[str, float]


@dataclass(frozen=True)
class Judgement:
    """What a verification gave, and where it was written.

    Attributes:
        at_decision_intervals: their 95 % intervals.
        listed: what a list of pairs gives besides; None without one.
        origin: what was judged, in words.
        folds: of cross-validation, one by one; empty without.
    """

    verified: Verified
    decision: Decision | None
    at_decision: tuple[float, float] | None
    at_decision_intervals: tuple[Interval, Interval] | None
    listed: ListedPairs | None
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
    listed: ListedPairs | None = None
    if settings.pairs is not None:
        people, pairs = listed_people(settings, settings.pairs)
        listed = score_list(people, pairs, settings.resamples, settings.seed)
        verified = with_figures(
            listed.counts, listed.bootstrap, warnings_about(people, all_pairs=False)
        )
        title, ending = f"{len(listed.scores)} listed pairs", f"-{Path(settings.pairs).stem}"
    else:
        people = judged_people(settings, settings.target)
        verified = verify(
            people,
            device=settings.device,
            resamples=settings.resamples,
            seed=settings.seed,
            target=settings.target,
        )
        count = verified.counts.identities
        title, ending = f"{count} people, all pairs", ""
        if settings.target is not None:
            title = f"{settings.target} against {count - 1} others"
            ending = f"-{settings.target.replace('/', '_')}"
    out = output_folder(settings, ending)
    return write_judgement(out, kind, people, verified, title, asdict(settings), listed=listed)


def write_judgement(
    out: Path,
    kind: Kind,
    people: Embeddings,
    verified: Verified,
    title: str,
    settings: Mapping[str, Any],
    *,
    listed: ListedPairs | None = None,
    folds: tuple[FoldFigures, ...] = (),
) -> Judgement:
    """Write the picture and the JSON of what was verified."""
    draw = {"roc": roc_figure, "pr": pr_figure, "det": det_figure, "pairs": roc_figure}[kind]
    figure = draw(curve(verified.counts), verified.figures, (people.origin, title))
    files = save_figure(figure, out / kind)
    decision, rates, limits = people.decision, None, None
    content: dict[str, Any] = {**verification_json(verified), "decision": None, "at_decision": None}
    if decision is not None:
        fmr, fnmr = error_rates(verified.counts, decision.threshold)
        rates, limits = (float(fmr), float(fnmr)), intervals_at(verified, decision.threshold)
        content["decision"] = decision.as_dict()
        content["at_decision"] = dict(zip(_RATES, (*rates, *limits), strict=True))
    points = curve(verified.counts, _JSON_POINTS)
    names = ("threshold", "fmr", "fnmr", "recall", "precision")
    content["curve"] = {name: getattr(points, name).tolist() for name in names}
    if listed is not None:
        content["list"] = listed.as_dict()
        files.append(listed.write_csv(out / "pairs.csv"))
    if folds:
        content["folds"] = [asdict(fold) for fold in folds]
    notes = (*people.notes, *verified.notes)
    files.append(write_results(out / f"{kind}.json", content, people.origin, notes, settings))
    return Judgement(
        verified, decision, rates, limits, listed, people.origin, notes, tuple(files), folds
    )


_RATES = ("fmr", "fnmr", "fmr_interval", "fnmr_interval")


def intervals_at(verified: Verified, threshold: float) -> tuple[Interval, Interval]:
    """95 % intervals of FMR and FNMR at a threshold; None without a bootstrap."""
    if verified.bootstrap is None:
        return None, None
    fmr, fnmr = verified.bootstrap.rates_at(threshold)
    exact_fmr, exact_fnmr = (float(rate) for rate in error_rates(verified.counts, threshold))
    return (
        share_interval(exact_fmr, fmr, verified.bootstrap.impostor_effective),
        share_interval(exact_fnmr, fnmr, verified.bootstrap.genuine_effective),
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
        target: one person against everybody; None: all pairs.

    Raises:
        UserError: unusable embeddings; nobody is the target.
    """
    place = scoring_device(device)
    vectors, labels = people.embeddings, people.labels
    bootstrap = None
    with naming(people):
        if target is not None:
            counts = count_target(vectors, labels, _label_of(target, people))
        elif resamples == 0:
            counts = count_pairs(vectors, labels, device=place, progress=True)
        else:
            counts, bootstrap = count_and_resample(
                vectors, labels, resamples=resamples, seed=seed, device=place, progress=True
            )
    return with_figures(counts, bootstrap, warnings_about(people, all_pairs=target is None))


def warnings_about(people: Embeddings, *, all_pairs: bool = True) -> list[str]:
    """:func:`siamese.verification.sample_warnings.embedding_warnings` of embedded people."""
    return embedding_warnings(people.embeddings, people.labels, people.names, all_pairs=all_pairs)


def _label_of(target: str, people: Embeddings) -> int:
    """The label of a person's name, or the label itself where names are unknown."""
    if people.names is not None:
        return find_person(target, people.names)
    known = np.unique(people.labels)
    return int(known[find_person(target, [str(label) for label in known])])


def with_figures(
    counts: PairCounts, bootstrap: Bootstrap | None, warnings: Sequence[str] = ()
) -> Verified:
    """Counted pairs with all that follows from them, after warnings about the embeddings."""
    notes = [
        *warnings,
        *size_warnings(counts.identities, counts.genuine_pairs, counts.impostor_pairs),
    ]
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


def write_results(
    path: Path,
    content: Mapping[str, Any],
    origin: str,
    notes: Sequence[str],
    settings: Mapping[str, Any],
) -> Path:
    """Write results with where they come from: origin, notes, settings, versions, time."""
    whole = {
        **content,
        "origin": origin,
        "notes": list(notes),
        "settings": dict(settings),
        "versions": package_versions(),
        "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    return write_json(path, whole)


def write_embeddings(settings: EmbedSettings) -> tuple[Path, Embeddings]:
    """Embed and write the .npz, or the rows of an .npy; returns its path and what is in it."""
    out = Path(settings.out) if settings.out else results_folder(settings) / "embeddings.npz"
    if out.suffix == ".npy":
        people = embed_people(settings, rows=out)
        return out, replace(people, notes=(*people.notes, *label_warnings(people.labels)))
    people = embed_people(settings)
    save_embeddings(out, people)
    notes = (*people.notes, *warnings_about(people), *label_warnings(people.labels))
    return out, replace(people, notes=notes)


def output_folder(settings: EmbedSettings, ending: str = "") -> Path:
    """The folder that results go to, made if need be.

    Raises:
        UserError: it cannot be made.
    """
    return make_folder(Path(settings.out or results_folder(settings, ending)))


def make_folder(out: Path) -> Path:
    """The folder itself, made if need be.

    Raises:
        UserError: it cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"`out` {out}: cannot be made ({error.strerror})") from None
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
