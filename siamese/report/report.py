"""The report: everything about a model, or two, on one self-contained page."""

from __future__ import annotations

import base64
import io
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

from siamese.config import ReportSettings
from siamese.data.batches import thumbnail
from siamese.data.decode import DecodeError
from siamese.drawing.figure import svg_of
from siamese.drawing.page import (
    Chart,
    Column,
    Facts,
    Gallery,
    Headline,
    Page,
    Pair,
    Picture,
    Table,
    write_page,
)
from siamese.errors import UserError
from siamese.files.places import is_inside
from siamese.models.checkpoint import package_versions
from siamese.report import verification_plots as figures
from siamese.report.judge import Verified, judged_people, output_folder, verify_resampled
from siamese.report.people import PeopleTable, people_table, person_name
from siamese.report.sources import Embeddings
from siamese.report.two_models import Difference, differences_of, model_people, same_pictures
from siamese.verification import per_identity as errors
from siamese.verification.bootstrap import Interval
from siamese.verification.calibration import (
    Calibration,
    cllr,
    fit_calibration,
    minimum_cllr,
    reliability,
)
from siamese.verification.identification import Identification, identify
from siamese.verification.metrics import curve

_POINTS = 600  # of a curve on the page
_SEARCHED = 40  # pairs looked through for each one shown, so that no picture fills a gallery
_OFTEN = 2  # times that a picture stands in a gallery at most
_THUMBNAIL = 112  # pixels; shown at half of it on fine screens
_GLOSSARY = (
    ("genuine pair, impostor pair", "two pictures of one person, two pictures of two people"),
    ("score", "cosine similarity of two embeddings, from -1 to 1"),
    ("FMR (FAR)", "false-match rate: impostor pairs that are accepted at a threshold"),
    ("FNMR", "false-non-match rate: genuine pairs that are rejected at a threshold"),
    ("TAR@FAR=x", "1 - FNMR at the threshold where FMR is at most x"),
    ("EER", "the error rate at the threshold where FMR and FNMR are equal"),
    ("AUC", "how often a genuine pair scores higher than an impostor pair; 0.5 is chance"),
    ("AP", "mean precision over recall; depends on the share of genuine pairs"),
    ("rank-k", "searches in a gallery of everybody that put the right person among the first k"),
    ("FPIR, FNIR", "unknown people reported as known, known people missed"),
    ("Cllr", "cost of the calibrated evidence in bits: 0 is perfect, 1 tells nothing"),
    (
        "interval",
        "where the figure of all people like these lies with 95 % confidence; people are "
        "resampled, not pairs",
    ),
    ("unsupported", "too few people: with P people no FMR below 3 / C(P, 2) can be told"),
    ("harm", "the mean of a person's shares in all false non-matches and in all false matches"),
)


@dataclass(frozen=True)
class Reported:
    """A written report: its file, its summary in sentences, its warnings."""

    path: Path
    summary: tuple[str, ...]
    hints: tuple[str, ...]


@dataclass(frozen=True)
class _Other:
    """The second model on the same pictures."""

    name: str
    verified: Verified
    identification: Identification | None
    differences: tuple[Difference, ...]


def write_report(settings: ReportSettings) -> Reported:
    """Judge a model (or two) and write ``report.html``.

    Raises:
        UserError: unusable input; the second model cannot be judged on the same pictures.
    """
    people = judged_people(settings)
    against = None
    if settings.against is not None:
        alone = replace(settings, checkpoint=None, embeddings=None)
        against = same_pictures(people, model_people(alone, settings.against))[1]
    verified = verify_resampled(people, settings)
    other = None
    if against is not None and settings.against is not None:
        judged = verify_resampled(against, settings)
        other = _Other(
            _model_name(settings.against),
            judged,
            _identify(against, settings),
            differences_of(verified, judged),
        )
    table = people_table(people, verified, settings, _SEARCHED * settings.shown)
    identification = _identify(people, settings)
    calibration = (
        fit_calibration(verified.counts) if people.decision is None else people.decision.calibration
    )
    given = settings.checkpoint or settings.embeddings
    name = "the model" if given is None else _model_name(given)
    hints = _hints(people, verified, table)
    if against is not None and other is not None:
        told = (*against.notes, *other.verified.notes)
        hints += tuple(f"{other.name} (B): {note}" for note in told if note not in hints)
    if identification is not None and (few := figures.too_few_enrolled(identification.people)):
        hints = (*hints, f"CMC and open set: {few}")
    summary = _summary(verified, table, other)
    page = Page(
        title=f"{verified.counts.identities} people, {verified.counts.images} pictures",
        subtitle=f"{people.origin}, {time.strftime('%Y-%m-%d %H:%M')}",
        summary=summary,
        hints=hints,
        headlines=_headlines(verified, table, identification),
        comparison=None if other is None else _comparison(name, other),
        charts=_charts(people, verified, identification, calibration, settings, name, other),
        people=_people(table),
        galleries=_galleries(people, table, calibration, settings),
        facts=_facts(people, verified, table, settings),
        glossary=_GLOSSARY,
    )
    path = output_folder(settings) / "report.html"
    write_page(path, page)
    return Reported(path, summary, hints)


def _model_name(given: str) -> str:
    """The run of ``checkpoints/<run>/best.pt``, else the file's own name."""
    path = Path(given)
    return path.resolve().parent.name if path.name in ("best.pt", "last.pt") else path.stem


def _identify(people: Embeddings, settings: ReportSettings) -> Identification | None:
    try:
        return identify(people.embeddings, people.labels, seed=settings.seed)
    except UserError:  # nobody has a second picture, or only one person has
        return None


def _hints(people: Embeddings, verified: Verified, table: PeopleTable) -> tuple[str, ...]:
    wrong = sorted(
        (row for row in table.rows if not math.isnan(row.mislabelled)), key=lambda r: -r.mislabelled
    )
    found = [
        # Isolated: a name in a right-to-left script must not turn the sentence round.
        f"about {row.mislabelled:.0%} of \u2068{row.person}\u2069's pictures look like "
        "someone else's"
        for row in wrong[:5]
    ]
    if len(wrong) > 5:
        found.append(f"{len(wrong) - 5} more people have the same sign: see the table")
    return (*people.notes, *verified.notes, *found)


def _summary(verified: Verified, table: PeopleTable, other: _Other | None) -> tuple[str, ...]:
    f, limits = verified.figures, verified.intervals
    lines = [
        f"A pair of one person scores higher than a pair of two people in {f['auc']:.1%} of all "
        f"cases{_percent_interval(limits.get('auc'))}.",
        f"At the threshold {table.threshold:.4f} ({table.chosen_by}) {_percent(table.fmr)} of the "
        f"pairs of two people pass and {_percent(table.fnmr)} of the pairs of one person fail.",
        f"{f['identities']} people support statements about false-match rates down to "
        f"{f['lowest_supported_fmr']:.1e}; beyond that more people are needed.",
    ]
    if other is not None:
        auc = other.differences[0]
        lines.append(
            f"Against {other.name} (B): AUC {auc.difference:+.4f}"
            f"{_interval_text(auc.interval, '+.4f')}, {auc.verdict}."
        )
    return tuple(lines)


def _headlines(
    verified: Verified, table: PeopleTable, identification: Identification | None
) -> tuple[Headline, ...]:
    f, limits = verified.figures, verified.intervals
    found = [
        Headline("AUC", f"{f['auc']:.4f}", _range(limits.get("auc")), "1 is perfect, 0.5 chance"),
        Headline("AP", f"{f['ap']:.4f}", _range(limits.get("ap")), "mean precision over recall"),
        Headline("EER", f"{f['eer']:.4f}", _range(limits.get("eer")), "both error rates equal"),
    ]
    for rate in ("1e-2", "1e-3"):
        name = f"tar_at_far_{rate}"
        mark = None if verified.supports(float(rate)) else "unsupported: too few people"
        meaning = f"genuine pairs accepted where {float(rate):.1%} of impostor pairs pass"
        figure = f"{f[name]:.4f}"
        found.append(Headline(f"TAR@FAR={rate}", figure, _range(limits.get(name)), meaning, mark))
    at = f"threshold {table.threshold:.4f}: {table.chosen_by}"
    few = None if verified.supports(table.fmr) else "unsupported: too few people"
    fmr, fnmr = (_range(limits) for limits in table.intervals)
    found.append(Headline("FMR", f"{table.fmr:.4f}", fmr, f"impostor pairs that pass, {at}", few))
    found.append(Headline("FNMR", f"{table.fnmr:.4f}", fnmr, f"genuine pairs that fail, {at}"))
    if identification is not None:
        meaning = f"found first among {identification.people} people, one picture each"
        found.append(Headline("rank-1", f"{identification.cmc[0]:.4f}", None, meaning))
    return tuple(found)


def _comparison(name: str, other: _Other) -> Table:
    columns = (
        Column("figure"),
        Column(f"A: {name}", numeric=True),
        Column(f"B: {other.name}", numeric=True),
        Column("B - A", numeric=True),
        Column("95 % interval"),
        Column("verdict"),
    )
    rows = tuple(
        (
            one.title + ("" if one.supported else " (unsupported)"),
            f"{one.a:.4f}",
            f"{one.b:.4f}",
            f"{one.difference:+.4f}",
            _range(one.interval, "+.4f") or "",
            one.verdict,
        )
        for one in other.differences
    )
    caption = "Both on the same pictures; the intervals come from the same resampled people."
    return Table("Two models side by side", caption, columns, rows)


def _charts(
    people: Embeddings,
    verified: Verified,
    identification: Identification | None,
    calibration: Calibration,
    settings: ReportSettings,
    name: str,
    other: _Other | None,
) -> tuple[Chart, ...]:
    points, f = curve(verified.counts, _POINTS), verified.figures
    # A chart is copied out of its page: it names what it shows.
    title = people.origin if other is None else f"{people.origin}; {other.name}"
    against = None
    if other is not None:
        second = curve(other.verified.counts, _POINTS)
        against = figures.Against(other.name, name, second, other.verified.figures)
    made = [
        ("ROC", "Genuine pairs accepted over impostor pairs accepted.",
         figures.roc_figure(points, f, title, against, panels=("linear",))),
        ("ROC, logarithmic", "The same over the logarithm of the FMR: deployed thresholds lie "
         "at the left.", figures.roc_figure(points, f, title, against, panels=("log",))),
        ("Precision and recall", "How many of the accepted pairs are genuine.",
         figures.pr_figure(points, f, title, against)),
        ("DET", "Both error rates on normal-deviate axes: lower and further left is better, "
         "straight lines are bell-shaped scores.", figures.det_figure(points, f, title, against)),
        ("Scores", "How the scores of both kinds of pairs are spread.",
         figures.score_figure(verified.counts, title)),
    ]  # fmt: skip
    if identification is not None:
        second_search = None if other is None else other.identification
        cmc, open_set = None, None
        if other is not None and second_search is not None:
            cmc = figures.AgainstCmc(other.name, name, second_search.cmc)
            open_set = figures.AgainstOpenSet(
                other.name, name, second_search.fpir, second_search.fnir
            )
        who = f"One picture of each of {identification.people} people is enrolled."
        drawn = figures.cmc_figure(identification.cmc, title, cmc)
        made.append(("CMC", f"Identification, closed set. {who}", drawn))
        few = figures.too_few_enrolled(identification.people)
        drawn = figures.open_set_figure(
            identification.fpir, identification.fnir, title, open_set, few=few
        )
        made.append(("Open set", f"Identification with strangers among the probes. {who}", drawn))
    bars = reliability(verified.counts, calibration, settings.prior)
    bits = f"Cllr {cllr(verified.counts, calibration):.3f} bits, at best "
    bits += f"{minimum_cllr(verified.counts):.3f}."
    source = (
        "fitted on these very pairs, which flatters (siamese-eval threshold fits it on others)"
        if people.decision is None
        else "the checkpoint's own"
    )
    drawn = figures.reliability_figure(
        bars.predicted, bars.observed, bars.genuine + bars.impostor, title
    )
    caption = f"Calibration: {source}; prior {settings.prior:g}. {bits}"
    made.append(("Reliability", caption, drawn))
    return tuple(Chart(name, words, svg_of(figure)) for name, words, figure in made)


def _people(table: PeopleTable) -> Table:
    columns: tuple[Column, ...] = (
        Column("person"),
        Column("pictures", numeric=True),
        Column(
            "wrong pictures",
            numeric=True,
            explanation="estimated share that looks like someone else's",
        ),
        Column("harm", numeric=True, explanation="this person's part in all errors"),
        Column("FNMR", numeric=True, explanation="own pairs rejected at the threshold"),
        Column("FMR", numeric=True, explanation="pairs with others accepted at the threshold"),
        Column("of all false non-matches", numeric=True),
        Column("of all false matches", numeric=True, explanation="each counts half for either"),
        Column("genuine mean", numeric=True, explanation="mean score of own pairs"),
        Column("nearest other", explanation="the person with the highest mean score"),
        Column("their mean", numeric=True),
    )
    told_of = any(not math.isnan(row.mislabelled) for row in table.rows)
    if not told_of:  # less to scroll
        columns = tuple(column for column in columns if column.title != "wrong pictures")
    rows: list[tuple[str, ...]] = []
    keys: list[tuple[float | None, ...]] = []
    for row in table.rows:
        told = ((row.mislabelled, ".0%"),) if told_of else ()
        values = (
            (row.images, "d"),
            *told,
            (row.harm, ".1%"),
            (row.fnmr, ".4f"),
            (row.fmr, ".2e"),
            (row.false_non_match_share, ".1%"),
            (row.false_match_share, ".1%"),
            (row.genuine_mean, ".3f"),
        )
        texts = [_cell(*value) for value in values]
        rows.append((row.person, *texts, row.nearest_other, _cell(row.nearest_mean, ".3f")))
        keys.append((None, *(float(value) for value, _ in values), None, row.nearest_mean))
    caption = (
        f"At threshold {table.threshold:.4f} ({table.chosen_by}), the most harmful first. Whoever "
        "leads it is worth a look: wrong pictures in the folder, or a look-alike."
    )
    return Table("People", caption, columns, tuple(rows), tuple(keys))


def _cell(value: float, form: str) -> str:
    return "" if math.isnan(value) else f"{value:{form}}"


def _galleries(
    people: Embeddings, table: PeopleTable, calibration: Calibration, settings: ReportSettings
) -> tuple[Gallery, ...]:
    shown: dict[int, Picture] = {}

    def picture(at: int) -> Picture:
        if at not in shown:
            path = "" if people.paths is None else people.paths[at]
            name = person_name(people, int(people.labels[at]))
            shown[at] = Picture(path, name, _thumbnail_uri(people.root, path))
        return shown[at]

    def cards(found: errors.Pairs) -> tuple[Pair, ...]:
        pairs = errors.varied(found, settings.shown, _OFTEN)
        probability = calibration.probability(pairs.score, settings.prior)
        return tuple(
            Pair(picture(a), picture(b), f"{score:.4f}", f"probability {share:.3f}")
            for a, b, score, share in zip(
                pairs.first.tolist(), pairs.second.tolist(), pairs.score, probability, strict=True
            )
        )

    prior = f"Probability of one person at prior {settings.prior:g}."
    return (
        Gallery(
            "Pairs of one person with the lowest scores",
            "The worst misses, each picture in two at most where there are others. Two different "
            f"faces here mean a wrong picture in a folder. {prior}",
            cards(table.examination.worst_genuine),
        ),
        Gallery(
            "Pairs of two people with the highest scores",
            "The worst confusions. The same face here means one person under two names, or a "
            f"picture in two folders. {prior}",
            cards(table.examination.worst_impostor),
        ),
    )


def _thumbnail_uri(root: Path | None, path: str) -> str | None:
    if root is None or not path:
        return None
    if not is_inside(root / path, root):  # both may come from a file
        return None
    try:
        small = thumbnail(root / path, _THUMBNAIL)
    except DecodeError:  # gone since it was embedded
        return None
    file = io.BytesIO()
    small.save(file, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _facts(
    people: Embeddings, verified: Verified, table: PeopleTable, settings: ReportSettings
) -> tuple[Facts, ...]:
    f = verified.figures
    data = (
        ("judged", people.origin),
        ("people", f"{f['identities']}"),
        ("pictures", f"{f['images']}"),
        ("genuine pairs", f"{f['genuine_pairs']}"),
        ("impostor pairs", f"{f['impostor_pairs']}"),
        ("threshold", f"{table.threshold:.6f} ({table.chosen_by})"),
    )
    chosen = tuple((name, str(value)) for name, value in vars(settings).items())
    return (
        Facts("Data", data),
        Facts("Settings", chosen),
        Facts("Versions", tuple(package_versions().items())),
    )


def _percent(share: float) -> str:
    """Three digits, however small: a deployed FMR may be 0.001 %."""
    return f"{100 * share:.3g} %"


def _range(limits: Interval, form: str = ".4f") -> str | None:
    return None if limits is None else f"{limits[0]:{form}} to {limits[1]:{form}}"


def _interval_text(limits: Interval, form: str) -> str:
    return "" if limits is None else f" ({_range(limits, form)})"


def _percent_interval(limits: Interval) -> str:
    return "" if limits is None else f" (95 % interval {limits[0]:.1%} to {limits[1]:.1%})"
