"""The report: everything about a model, or two, on one self-contained page."""

from __future__ import annotations

import base64
import io
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from siamese.config import ReportSettings
from siamese.data.decode import DecodeError
from siamese.data.labelled_pictures import thumbnail
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
from siamese.report import verification_plots as plots
from siamese.report.embedding_sources import Embeddings
from siamese.report.model_comparison import (
    Difference,
    differences_of,
    model_name,
    model_people,
    same_pictures,
)
from siamese.report.people_report import PeopleTable, people_table, person_name
from siamese.report.verification_report import Verified, judged_people, output_folder, verify
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
from siamese.verification.per_identity import Pairs, varied

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
class _Judged:
    """One of the models with all that is found of it."""

    name: str
    people: Embeddings
    verified: Verified
    identification: Identification | None


def write_report(settings: ReportSettings) -> Reported:
    """Judge a model (or two) and write ``report.html``.

    Raises:
        UserError: unusable input; the second model cannot be judged on the same pictures.
    """
    given = settings.checkpoint or settings.embeddings
    names = ["the model" if given is None else model_name(given)]
    embedded = [judged_people(settings)]
    if settings.against is not None:
        alone = replace(settings, checkpoint=None, embeddings=None)
        other = same_pictures(embedded[0], model_people(alone, settings.against))[1]
        names, embedded = [*names, model_name(settings.against)], [*embedded, other]
    models = []
    for name, people in zip(names, embedded, strict=True):
        verified = verify(
            people, device=settings.device, resamples=settings.resamples, seed=settings.seed
        )
        models.append(_Judged(name, people, verified, _identify(people, settings.seed)))
    differences = differences_of(*(model.verified for model in models)) if models[1:] else ()
    people, verified = models[0].people, models[0].verified
    table = people_table(
        people,
        verified,
        threshold=settings.threshold,
        device=settings.device,
        worst=_SEARCHED * settings.shown,
    )
    calibration = (
        fit_calibration(verified.counts) if people.decision is None else people.decision.calibration
    )
    summary, hints = _summary(verified, table, names, differences), _hints(models, table)
    page = Page(
        title=f"{verified.counts.identities} people, {verified.counts.images} pictures",
        subtitle=f"{people.origin}, {time.strftime('%Y-%m-%d %H:%M')}",
        summary=summary,
        hints=hints,
        headlines=_headlines(verified, table, models[0].identification),
        comparison=_comparison(names, differences) if differences else None,
        charts=_charts(models, calibration, settings.prior),
        people=_people(table),
        galleries=_galleries(people, table, calibration, settings.prior, settings.shown),
        facts=_facts(people, verified, table, vars(settings)),
        glossary=_GLOSSARY,
    )
    path = output_folder(settings) / "report.html"
    write_page(path, page)
    return Reported(path, summary, hints)


def _identify(people: Embeddings, seed: int) -> Identification | None:
    try:
        return identify(people.embeddings, people.labels, seed=seed)
    except UserError:  # nobody has a second picture, or only one person has
        return None


def _hints(models: Sequence[_Judged], table: PeopleTable) -> tuple[str, ...]:
    suspects = sorted(
        (row for row in table.rows if not math.isnan(row.mislabelled)), key=lambda r: -r.mislabelled
    )
    first, *others = models
    hints = [*first.people.notes, *first.verified.notes]
    hints += [
        # Isolated: a name in a right-to-left script must not turn the sentence round.
        f"about {row.mislabelled:.0%} of \u2068{row.person}\u2069's pictures look like "
        "someone else's"
        for row in suspects[:5]
    ]
    if len(suspects) > 5:
        hints.append(f"{len(suspects) - 5} more people have the same sign: see the table")
    for other in others:
        notes = (*other.people.notes, *other.verified.notes)
        hints += [f"{other.name} (B): {note}" for note in notes if note not in hints]
    enrolled = first.identification
    if enrolled is not None and (few := plots.too_few_enrolled(enrolled.people)):
        hints.append(f"CMC and open set: {few}")
    return tuple(hints)


def _summary(
    verified: Verified,
    table: PeopleTable,
    names: Sequence[str],
    differences: Sequence[Difference],
) -> tuple[str, ...]:
    f, limits = verified.figures, verified.intervals
    lines = [
        f"A pair of one person scores higher than a pair of two people in {f['auc']:.1%} of all "
        f"cases{_bracketed(limits.get('auc'), '.1%', '95 % interval ')}.",
        f"At the threshold {table.threshold:.4f} ({table.chosen_by}) {_percent(table.fmr)} of the "
        f"pairs of two people pass and {_percent(table.fnmr)} of the pairs of one person fail.",
        f"{f['identities']} people support statements about false-match rates down to "
        f"{f['lowest_supported_fmr']:.1e}; beyond that more people are needed.",
    ]
    if differences:
        auc = differences[0]
        lines.append(
            f"Against {names[1]} (B): AUC {auc.difference:+.4f}"
            f"{_bracketed(auc.interval, '+.4f')}, {auc.verdict}."
        )
    return tuple(lines)


def _headlines(
    verified: Verified, table: PeopleTable, identification: Identification | None
) -> tuple[Headline, ...]:
    f, limits = verified.figures, verified.intervals
    headlines = [
        Headline("AUC", f"{f['auc']:.4f}", _range(limits.get("auc")), "1 is perfect, 0.5 chance"),
        Headline("AP", f"{f['ap']:.4f}", _range(limits.get("ap")), "mean precision over recall"),
        Headline("EER", f"{f['eer']:.4f}", _range(limits.get("eer")), "both error rates equal"),
    ]
    for rate in ("1e-2", "1e-3"):
        name = f"tar_at_far_{rate}"
        mark = None if verified.supports(float(rate)) else "unsupported: too few people"
        meaning = f"genuine pairs accepted where {float(rate):.1%} of impostor pairs pass"
        figure = f"{f[name]:.4f}"
        headlines.append(
            Headline(f"TAR@FAR={rate}", figure, _range(limits.get(name)), meaning, mark)
        )
    where = f"threshold {table.threshold:.4f}: {table.chosen_by}"
    few = None if verified.supports(table.fmr) else "unsupported: too few people"
    fmr, fnmr = (_range(limits) for limits in table.intervals)
    headlines.append(
        Headline("FMR", f"{table.fmr:.4f}", fmr, f"impostor pairs that pass, {where}", few)
    )
    headlines.append(
        Headline("FNMR", f"{table.fnmr:.4f}", fnmr, f"genuine pairs that fail, {where}")
    )
    if identification is not None:
        meaning = f"found first among {identification.people} people, one picture each"
        headlines.append(Headline("rank-1", f"{identification.cmc[0]:.4f}", None, meaning))
    return tuple(headlines)


def _comparison(names: Sequence[str], differences: Sequence[Difference]) -> Table:
    columns = (
        Column("figure"),
        *(Column(f"{mark}: {name}", numeric=True) for mark, name in zip("AB", names, strict=True)),
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
        for one in differences
    )
    caption = "Both on the same pictures; the intervals come from the same resampled people."
    return Table("Two models side by side", caption, columns, rows)


def _charts(models: Sequence[_Judged], calibration: Calibration, prior: float) -> tuple[Chart, ...]:
    first, *others = models
    counts, figures = first.verified.counts, first.verified.figures
    points = curve(counts, _POINTS)
    # A chart is copied out of its page: it names what it shows.
    title = "; ".join([first.people.origin, *(other.name for other in others)])
    against = None
    for other in others:
        second = curve(other.verified.counts, _POINTS)
        against = plots.Against(other.name, first.name, second, other.verified.figures)
    drawn = [
        ("ROC", "Genuine pairs accepted over impostor pairs accepted.",
         plots.roc_figure(points, figures, title, against, panels=("linear",))),
        ("ROC, logarithmic", "The same over the logarithm of the FMR: deployed thresholds lie "
         "at the left.", plots.roc_figure(points, figures, title, against, panels=("log",))),
        ("Precision and recall", "How many of the accepted pairs are genuine.",
         plots.pr_figure(points, figures, title, against)),
        ("DET", "Both error rates on normal-deviate axes: lower and further left is better, "
         "straight lines are bell-shaped scores.",
         plots.det_figure(points, figures, title, against)),
        ("Scores", "How the scores of both kinds of pairs are spread.",
         plots.score_figure(counts, title)),
    ]  # fmt: skip
    searches = [(m.name, m.identification) for m in models if m.identification is not None]
    if first.identification is not None:
        people = first.identification.people
        who = f"One picture of each of {people} people is enrolled."
        figure = plots.cmc_figure([(name, one.cmc) for name, one in searches], title)
        drawn.append(("CMC", f"Identification, closed set. {who}", figure))
        few = plots.too_few_enrolled(people)
        rates = [(name, one.fpir, one.fnir) for name, one in searches]
        figure = plots.open_set_figure(rates, title, few=few)
        drawn.append(("Open set", f"Identification with strangers among the probes. {who}", figure))
    bars = reliability(counts, calibration, prior)
    source = (
        "fitted on these very pairs, which flatters (siamese-eval threshold fits it on others)"
        if first.people.decision is None
        else "the checkpoint's own"
    )
    caption = (
        f"Calibration: {source}; prior {prior:g}. Cllr {cllr(counts, calibration):.3f} bits, at "
        f"best {minimum_cllr(counts):.3f}."
    )
    pairs = bars.genuine + bars.impostor
    figure = plots.reliability_figure(bars.predicted, bars.observed, pairs, title)
    drawn.append(("Reliability", caption, figure))
    return tuple(Chart(name, words, svg_of(figure)) for name, words, figure in drawn)


def _people(table: PeopleTable) -> Table:
    columns = [
        ("images", "pictures", "d", ""),
        ("mislabelled", "wrong pictures", ".0%", "estimated share that looks like someone else's"),
        ("harm", "harm", ".1%", "this person's part in all errors"),
        ("fnmr", "FNMR", ".4f", "own pairs rejected at the threshold"),
        ("fmr", "FMR", ".2e", "pairs with others accepted at the threshold"),
        ("false_non_match_share", "of all false non-matches", ".1%", ""),
        ("false_match_share", "of all false matches", ".1%", "each counts half for either"),
        ("genuine_mean", "genuine mean", ".3f", "mean score of own pairs"),
    ]
    if all(math.isnan(row.mislabelled) for row in table.rows):  # less to scroll
        columns = [column for column in columns if column[0] != "mislabelled"]
    rows: list[tuple[str, ...]] = []
    keys: list[tuple[float | None, ...]] = []
    for row in table.rows:
        values = [float(getattr(row, field)) for field, _, _, _ in columns]
        texts = [_cell(getattr(row, field), form) for field, _, form, _ in columns]
        rows.append((row.person, *texts, row.nearest_other, _cell(row.nearest_mean, ".3f")))
        keys.append((None, *values, None, row.nearest_mean))
    shown = (
        Column("person"),
        *(Column(title, numeric=True, explanation=words) for _, title, _, words in columns),
        Column("nearest other", explanation="the person with the highest mean score"),
        Column("their mean", numeric=True),
    )
    caption = (
        f"At threshold {table.threshold:.4f} ({table.chosen_by}), the most harmful first. Whoever "
        "leads it is worth a look: wrong pictures in the folder, or a look-alike."
    )
    return Table("People", caption, shown, tuple(rows), tuple(keys))


def _cell(value: float, form: str) -> str:
    return "" if math.isnan(value) else f"{value:{form}}"


def _galleries(
    people: Embeddings, table: PeopleTable, calibration: Calibration, prior: float, shown: int
) -> tuple[Gallery, ...]:
    @cache
    def picture(position: int) -> Picture:
        path = "" if people.paths is None else people.paths[position]
        name = person_name(people, int(people.labels[position]))
        return Picture(path, name, _thumbnail_uri(people.root, path))

    def cards(worst: Pairs) -> tuple[Pair, ...]:
        pairs = varied(worst, shown, _OFTEN)
        probability = calibration.probability(pairs.score, prior)
        return tuple(
            Pair(picture(a), picture(b), f"{score:.4f}", f"probability {share:.3f}")
            for a, b, score, share in zip(
                pairs.first.tolist(), pairs.second.tolist(), pairs.score, probability, strict=True
            )
        )

    meaning = f"Probability of one person at prior {prior:g}."
    return (
        Gallery(
            "Pairs of one person with the lowest scores",
            "The worst misses, each picture in two at most where there are others. Two different "
            f"faces here mean a wrong picture in a folder. {meaning}",
            cards(table.examination.worst_genuine),
        ),
        Gallery(
            "Pairs of two people with the highest scores",
            "The worst confusions. The same face here means one person under two names, or a "
            f"picture in two folders. {meaning}",
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
    people: Embeddings, verified: Verified, table: PeopleTable, settings: Mapping[str, Any]
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
    chosen = tuple((name, str(value)) for name, value in settings.items())
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


def _bracketed(limits: Interval, form: str, words: str = "") -> str:
    return "" if limits is None else f" ({words}{_range(limits, form)})"
