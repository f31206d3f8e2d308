"""What the commands print about their results."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from siamese.config import scoring_title
from siamese.files.shown import shown

if TYPE_CHECKING:  # the results' modules load torch; printing needs none of it
    from siamese.report.embedding_sources import Embeddings
    from siamese.report.identification_report import Identified
    from siamese.report.model_comparison import Comparison, Difference
    from siamese.report.people_report import PeopleTable
    from siamese.report.report_page import Reported
    from siamese.report.scoring_fit import FittedScoring
    from siamese.report.threshold_choice import Choice, Rates
    from siamese.report.verification_report import Judgement
    from siamese.tasks.classes.evaluate import Evaluated

Limits = tuple[float, float] | None

_SHOWN = 15


def embeddings(written: tuple[Path, Embeddings]) -> None:
    """What was embedded, and where it lies."""
    path, people = written
    _notes(people.notes)
    count, dimensions = people.embeddings.shape
    print(f"{shown(people.origin)}\nwrote {count} embeddings of {dimensions} dimensions to {path}")


def judgement(result: Judgement) -> None:
    """The figures of a 1:1 verification with their intervals."""
    _notes(result.notes)
    verified = result.verified
    f, limits = verified.figures, verified.intervals
    print(
        f"{shown(result.origin)}\n{f['identities']} identities, {f['images']} images, "
        f"{f['genuine_pairs']} genuine pairs, {f['impostor_pairs']} impostor pairs"
    )
    for name, text in (("auc", "AUC"), ("ap", "AP ")):
        print(f"{text} {f[name]:.4f}{limits_text(limits.get(name))}")
    if result.folds:
        each = [fold.figures["auc"] for fold in result.folds]
        listed = " ".join(f"{auc:.4f}" for auc in each)
        spread = f"mean {fmean(each):.4f}, standard deviation {stdev(each):.4f}"
        print(f"    fold by fold {listed}: {spread}")
    print(f"EER {f['eer']:.4f}{limits_text(limits.get('eer'))}, threshold {f['eer_threshold']:.4f}")
    lowest = f["lowest_supported_fmr"]
    for rate in ("1e-2", "1e-3"):
        name = f"tar_at_far_{rate}"
        line = f"TAR@FAR={rate} {f[name]:.4f}{limits_text(limits.get(name))}"
        if verified.supports(float(rate)):
            print(f"{line}, threshold {f[f'threshold_at_far_{rate}']:.4f}")
        else:
            print(f"{line} (unsupported: {_support(result)} support FAR >= {lowest:.1e})")
    if result.decision is not None and result.at_decision is not None:
        fmr, fnmr = result.at_decision
        fmr_limits, fnmr_limits = result.at_decision_intervals or (None, None)
        mark = "" if verified.supports(fmr) else f" (unsupported below {lowest:.1e})"
        print(
            f"at the checkpoint's own threshold {result.decision.threshold:.4f} (chosen for FMR "
            f"{result.decision.target_fmr:g}): FMR {fmr:.2e}{limits_text(fmr_limits, '.2e')}"
            f"{mark}, FNMR {fnmr:.4f}{limits_text(fnmr_limits)}"
        )
    if result.listed is not None:
        folds, accuracy = result.listed.folds, result.listed.accuracy
        if folds is not None:
            print(
                f"accuracy {folds.mean:.4f} +- {folds.standard_error:.4f}"
                f"{limits_text(folds.interval)} (standard error over "
                f"{len(folds.accuracies)} folds, threshold chosen on the others)"
            )
        if accuracy is not None:
            interval = limits_text(result.listed.accuracy_interval)
            print(f"accuracy {accuracy:.4f}{interval} at the checkpoint's own threshold")
        elif folds is None:
            why = "no folds and no threshold of a model's own (siamese-eval threshold chooses one)"
            print(f"accuracy: none, there are {why}")
    _files(result.files)


def _support(result: Judgement) -> str:
    """Who supports the figures: people, or where not all of them were paired their pairs."""
    counts = result.verified.counts
    people = counts.identities
    if counts.identity_pairs == people * (people - 1) // 2:
        return f"{people} people"
    return f"{counts.identity_pairs} pairs of people"


def choice(result: Choice, prior: float) -> None:
    """A threshold, what it does, and what its scores are worth."""
    _notes(result.notes)
    decision = result.decision
    scored = "" if decision.scoring == "cosine" else f", `scoring` {decision.scoring}"
    print(f"threshold {decision.threshold:.4f} for FMR {decision.target_fmr:g}{scored}")
    print(f"chosen on:  {_rates(result.chosen)}")
    if result.checked is not None:
        print(f"checked on: {_rates(result.checked)}")
    if one := decision.identification:
        print(
            f"searches:   threshold {one['threshold']:.4f} for FPIR {one['target_fpir']:g}: FPIR "
            f"{one['fpir']:.4f}, FNIR {one['fnir']:.4f} ({one['people']} people with "
            f"{one['images_per_person']} enrolled, {one['searches']} searches; a larger gallery "
            "gives more false alarms)"
        )
    line = decision.calibration
    print(
        f"log-likelihood ratio = {line.slope:.4g} * score {line.offset:+.4g}; a score at the "
        f"threshold means one person with probability {result.probability:.4f} at prior {prior:g}"
    )
    if result.written:
        print(f"wrote the threshold into {shown(str(result.path))}")
    else:
        print(f"{shown(str(result.path))} is as it was (--write false)")
    _files(result.files)


def _rates(rates: Rates) -> str:
    lowest = rates.lowest_supported_fmr
    mark = f" (unsupported below {lowest:.1e})" if rates.fmr < lowest else ""
    return (
        f"{shown(rates.origin)}: {rates.people} people, {rates.images} images\n"
        f"  FMR {rates.fmr:.2e}{limits_text(rates.fmr_interval, '.2e')}{mark}, "
        f"FNMR {rates.fnmr:.4f}{limits_text(rates.fnmr_interval)}, "
        f"Cllr {rates.cllr:.4f} bits (at best {rates.minimum_cllr:.4f})"
    )


def fitted(result: FittedScoring) -> None:
    """A fitted scoring, and what it does beside the cosine."""
    _notes(result.notes)
    kind, of = result.map.kind, result.map.fitted
    title, given, size = scoring_title(kind), len(result.map.centre), result.map.dimensions
    made = f"{size} of {given} dimensions kept"
    if size > given:
        made = f"{size - given} dimensions beside the {given} of the embedding"
    print(
        f"{title} of {of.people} people, {of.pictures} pictures: {made}\n"
        f"fitted on:  {shown(result.fitted_on)}"
    )
    if result.judged_on is not None:
        print(f"judged on:  {shown(result.judged_on)}")
    for one in result.differences:
        better = {"A is better": "the cosine is better", "B is better": f"{title} is better"}
        verdict = better.get(one.verdict, one.verdict)
        print(f"  {_difference(one, 'cosine', title, 'difference')}: {verdict}")
    path = shown(str(result.path))
    if result.written:
        print(
            f"wrote the {title} into {path}; it is in force with --scoring {kind}, or once a "
            f"threshold was chosen with it: siamese-eval threshold --scoring {kind}"
        )
    else:
        print(f"{path} is as it was (--write false)")
    _files(result.files)


def people(result: PeopleTable) -> None:
    """The most harmful people."""
    _notes(result.notes)
    print(f"{shown(result.origin)}\n{len(result.rows)} people; {_operating_point(result)}")
    print("harm: the mean of a person's shares in all false non-matches and all false matches")
    print("  harm  FNMR    FMR      images  person (nearest other, mean score)")
    for row in result.rows[:_SHOWN]:
        wrong = row.mislabelled
        hint = f"  about {wrong:.0%} look like someone else's" if wrong == wrong else ""
        print(
            f"  {row.harm:5.1%} {row.fnmr:.4f}  {row.fmr:.1e}  {row.images:6}  {shown(row.person)} "
            f"({shown(row.nearest_other)}, {row.nearest_mean:.3f}){hint}"
        )
    if len(result.rows) > _SHOWN:
        print(f"  ... {len(result.rows) - _SHOWN} more in the file")
    _files(result.files)


def _operating_point(result: PeopleTable) -> str:
    return (
        f"at threshold {result.threshold:.4f} ({result.chosen_by}): "
        f"FMR {result.fmr:.2e}{limits_text(result.intervals[0], '.2e')}, "
        f"FNMR {result.fnmr:.4f}{limits_text(result.intervals[1])}"
    )


def identified(result: Identified) -> None:
    """Ranks, open-set errors and retrieval."""
    from siamese.report.identification_report import FPIRS, RANKS, rank_rate

    _notes(result.notes)
    print(f"{shown(result.origin)}\n{result.galleries[0].draws} random galleries of each size")
    for one in result.galleries:
        left = f" ({one.people_left_out} people have too few pictures)"
        left = left if one.people_left_out else ""
        # Where everybody is among the first k, rank-k says nothing.
        known = [rank for rank in RANKS if rank < one.people]
        ranks = ", ".join(f"rank-{rank} {rank_rate(one, rank):.4f}" for rank in known)
        rates = ", ".join(f"FNIR@FPIR={rate:g} {one.fnir_at(rate):.4f}" for rate in FPIRS)
        print(
            f"{one.images_per_person} enrolled ({one.fusion}): {one.people} people, {one.probes} "
            f"probes{left}: {ranks}; {rates}"
        )
    if len({one.people for one in result.galleries}) > 1:
        print("larger galleries hold fewer people, who are easier to tell apart: compare with care")
    ranked = result.retrieval
    print(
        f"MAP@R {ranked.map_at_r:.4f}, R-precision {ranked.r_precision:.4f} "
        f"({ranked.queries} queries)"
    )
    _files(result.files)


def comparison(result: Comparison) -> None:
    """Two models, figure by figure."""
    _notes(result.notes)
    print(f"A: {shown(result.names[0])}\nB: {shown(result.names[1])}")
    for one in result.differences:
        print(f"{_difference(one, 'A', 'B', 'B - A')}: {one.verdict}")
    _files(result.files)


def _difference(one: Difference, a: str, b: str, between: str) -> str:
    """A figure of two models or scorings, and how far it differs."""
    mark = "" if one.supported else " (unsupported)"
    return (
        f"{one.title}{mark}: {a} {one.a:.4f}, {b} {one.b:.4f}, {between} {one.difference:+.4f}"
        f"{limits_text(one.interval, '+.4f')}"
    )


def report(result: Reported) -> None:
    """The summary of a report, and where it lies."""
    _notes(result.hints)
    for line in result.summary:
        print(shown(line))
    _files([result.path])


def limits_text(limits: Limits, form: str = ".4f") -> str:
    """An interval as it follows its figure; empty without one."""
    return "" if limits is None else f" [{limits[0]:{form}}, {limits[1]:{form}}]"


def _notes(notes: Iterable[str]) -> None:
    for note in notes:
        print(f"note: {shown(note)}")


def _files(files: Iterable[Path]) -> None:
    print("wrote " + ", ".join(shown(str(file)) for file in files))


def classified(result: Evaluated) -> None:
    """A classifier's figures, and the classes it knows worst."""
    figures = result.figures
    top5 = f", top-5 error {figures['top5_error']:.2f} %" if "top5_error" in figures else ""
    print(
        f"{shown(result.origin)}\nerror {figures['error']:.2f} %{top5}, "
        f"loss {figures['loss']:.4f}, expected calibration error {figures['ece']:.4f}"
    )
    table = result.table
    order = sorted(range(len(result.classes)), key=lambda index: table.recall[index])
    width = max(len(shown(result.classes[index])) for index in order[:_SHOWN])
    print(f"{'class'.ljust(width)}  images  recall  precision  most often taken for")
    for index in order[:_SHOWN]:
        other = int(table.confused_with[index])
        taken_for = "" if other < 0 else shown(result.classes[other])
        print(
            f"{shown(result.classes[index]).ljust(width)}  {table.images[index]:6d}  "
            f"{table.recall[index]:6.3f}  {table.precision[index]:9.3f}  {taken_for}"
        )
    if len(order) > _SHOWN:
        print(f"... and {len(order) - _SHOWN} classes that it knows better")
    print(f"classes.csv, confusion.png, predictions.npz, figures.json: {shown(str(result.out))}")
