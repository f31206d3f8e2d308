"""What a study found, in words that say no more than its runs show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from siamese.studies.expand import Line, cut_data, siblings, value_of
from siamese.studies.results import LineResult, outcome
from siamese.studies.statistics import (
    Difference,
    Seed,
    Summary,
    against_best,
    corrected,
    paired,
    summarise,
)
from siamese.studies.study import Budget, Study
from siamese.verification.enough import FEWEST_SEEDS, too_few_seeds


@dataclass(frozen=True)
class Compared:
    """A line of the table against a reference line; less is better or more, as the study says.

    Attributes:
        label: the line.
        reference: the line that it is compared with.
        difference: its figure less the reference's.
        sentence: the same in words.
    """

    label: str
    reference: str
    difference: Difference
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """Sentences about a study.

    Attributes:
        summary: the result.
        compared: every other line against the reference.
        warnings: what weakens the result.
        reference: label of the line that all others are compared with; None without one, or where
            each part of the study has its own.
        across: in a study of recipes on several networks, every other recipe against the reference
            over all networks; labels are those of arms.
    """

    summary: tuple[str, ...]
    compared: tuple[Compared, ...]
    warnings: tuple[str, ...]
    reference: str | None
    across: tuple[Compared, ...] = ()

    @property
    def sentences(self) -> tuple[str, ...]:
        """The result without the warnings."""
        return (*self.summary, *(one.sentence for one in (*self.compared, *self.across)))

    def lines(self) -> list[str]:
        """All of it, one sentence a line."""
        return [*self.sentences, *(f"Note: {warning}" for warning in self.warnings)]


def by_seed(study: Study, result: LineResult) -> dict[int, float]:
    """Seed -> the figure that counts, for the runs that are done."""
    values = {}
    for run in result.runs:
        found = outcome(study, run)
        if found is not None:
            values[run.run.seed] = found.value
    return values


def figure_text(study: Study, value: float) -> str:
    """A figure with its digits: errors with two, areas and losses with four."""
    digits = 2 if study.figure.endswith("_error") else 4
    return f"{value:.{digits}f}"


def figure_name(study: Study) -> str:
    """What the figure is called, with its unit."""
    words = {"auc": "AUC", "ap": "AP", "eer": "EER"}
    parts = [words.get(part, part) for part in study.figure.split("_")]
    if parts[0] in words.values():
        parts.insert(0, "validation")
    return " ".join(parts) + (" (%)" if study.figure.endswith("_error") else "")


def judge(study: Study, results: Sequence[LineResult], budget: Budget | None = None) -> Verdict:
    """The verdict over what has been run so far.

    Differences are paired by seed: with a t-interval each, and with Holm's correction over all of
    them, since the more arms are compared the more of them differ by chance. Where the reference
    is the best of the arms, the correction is for all their pairs: see
    :func:`siamese.studies.statistics.against_best`.
    """
    values = {result.line.label: by_seed(study, result) for result in results}
    summaries = {label: summarise(list(found.values())) for label, found in values.items()}
    judged = {label: summary for label, summary in summaries.items() if summary is not None}
    warnings = _warnings(study, results, judged, budget)
    if not judged:
        return Verdict(("No run is over yet: nothing can be said.",), (), tuple(warnings), None)
    base = study.baseline or ""
    summary: list[str] = []
    pairs: list[tuple[str, str]] = []  # line, reference
    shown: list[Difference] = []
    others: list[Difference] = []
    references = []
    any_best = False
    tuned_at: dict[str, dict[str, str]] = {}
    parts = _parts(study, [result for result in results if result.line.label in judged])
    for part, members in parts.items():
        tuned, remark = _tuned(study, members)
        tuned_at[part] = tuned
        best = _best(study, {label: judged[label] for label in tuned.values()})
        diverged = next(result.diverged for result in members if result.line.label == best)
        summary += [_standing(study, part, best, judged[best], diverged), *remark]
        named = base if base in judged else tuned.get(base)
        reference = best if named is None else named
        if base and reference not in (base, tuned.get(base)):
            where = f" at {part}" if part else ""
            warnings.append(
                f"the baseline {base!r} has no figure{where}: compared with the best instead"
            )
        references.append(reference)
        labels = list(tuned.values())
        pairs += [(label, reference) for label in labels if label != reference]
        found, more = _compared_with(
            [values[label] for label in labels],
            labels.index(reference) if reference in labels else None,
            values[reference],
            chosen=named is None,
        )
        shown, others, any_best = [*shown, *found], [*others, *more], any_best or named is None
    compared = [
        Compared(label, other, difference, _sentence(study, label, other, difference))
        for (label, other), difference in zip(pairs, corrected(shown, others), strict=True)
    ]
    only = references[0] if len(references) == 1 else None
    tested = sum(compare.difference.p is not None for compare in compared)
    if tested:
        other = repr(only) if only else f"the {'best' if any_best else 'baseline'} of each part"
        summary.append(
            f"{_comparisons(tested, other, others if any_best else None)} Intervals cover the "
            "variation over seeds, not that of the test set."
        )
    seen = [compare.label for compare in compared if compare.difference.seen]
    if tested and not seen:
        summary.append("No difference seen between any of them and it.")
    told, across = _across(study, tuned_at, values)
    return Verdict((*summary, *told), tuple(compared), tuple(warnings), only, across)


def _compared_with(
    values: Sequence[Mapping[Seed, float]],
    at: int | None,
    reference: Mapping[Seed, float],
    *,
    chosen: bool,
) -> tuple[list[Difference], list[Difference]]:
    """Differences from a reference, and those that the choice of it has looked at."""
    if chosen and at is not None:
        return against_best(values, at)
    return [paired(own, reference) for place, own in enumerate(values) if place != at], []


def _comparisons(tested: int, reference: str, others: Sequence[Difference] | None) -> str:
    """How many tests there were and what they were corrected for, in a sentence.

    ``others``: the tests that choosing the reference made; None where it was named beforehand.
    """
    text = f"{tested} comparison{'s' * (tested > 1)} with {reference}"
    if others is None:
        return f"{text}, paired by seed; p after Holm's correction for their number."
    all_pairs = tested + sum(one.p is not None for one in others)
    return (
        f"{text}, which was chosen as the best of them, paired by seed; p after Holm's correction "
        f"for all {all_pairs} pairs that the choice was made among."
    )


def _across(
    study: Study, tuned_at: Mapping[str, Mapping[str, str]], values: Mapping[str, dict[int, float]]
) -> tuple[list[str], tuple[Compared, ...]]:
    """Which recipe wins over all networks: differences paired by network and seed.

    The spread of a difference between networks counts as noise, so a recipe is only called better
    where it is better on most of them. The verdict is about these networks, not about others.

    Args:
        study: the study.
        tuned_at: part of the study -> arm -> label of its line.
        values: label -> seed -> figure.
    """
    if len(tuned_at) < 2 or not all(_is_network(part) for part in tuned_at):
        return [], ()
    first = next(iter(tuned_at.values()))
    arms = [arm for arm in first if all(arm in tuned for tuned in tuned_at.values())]
    if len(arms) < 2:
        return [], ()
    runs = {
        arm: {
            (part, seed): value
            for part, tuned in tuned_at.items()
            for seed, value in values[tuned[arm]].items()
        }
        for arm in arms
    }
    medians = {
        arm: [float(np.median(list(values[tuned[arm]].values()))) for tuned in tuned_at.values()]
        for arm in arms
    }
    sign = 1 if study.less_is_better else -1
    best = min(arms, key=lambda arm: sign * float(np.mean(medians[arm])))
    ahead = sum(
        sign * own == min(sign * medians[arm][at] for arm in arms)
        for at, own in enumerate(medians[best])
    )
    networks = f"Across all {len(tuned_at)} networks"
    summary = [
        f"{networks}, best mean of the medians: {best!r} with "
        f"{figure_text(study, float(np.mean(medians[best])))}, ahead on {ahead} of them."
    ]
    named = study.baseline in arms
    reference = study.baseline if named and study.baseline else best
    keys = [arm for arm in arms if arm != reference]
    fewest = min(len(values[label]) for tuned in tuned_at.values() for label in tuned.values())
    if few := too_few_seeds(fewest):
        return [*summary, f"{networks}: {few}."], ()
    shown, others = _compared_with(
        [runs[arm] for arm in arms], arms.index(reference), runs[reference], chosen=not named
    )
    compared = tuple(
        Compared(arm, reference, difference, f"{networks}, {sentence}")
        for arm, difference in zip(keys, corrected(shown, others), strict=True)
        for sentence in [_sentence(study, arm, reference, difference, "pairs of network and seed")]
    )
    tested = sum(one.difference.p is not None for one in compared)
    if tested:
        told = _comparisons(tested, repr(reference), None if named else others)
        summary.append(f"{networks}: {told.replace('by seed', 'by network and seed')}")
    return summary, compared


def _is_network(part: str) -> bool:
    """Whether a part's words name networks only."""
    return all(word.startswith("model.") for word in part.split(", "))


# Grids over these ask a question once for each value; grids over anything else are a search.
_CONDITIONS = (
    "data", "split", "images.size", "model.name", "model.backbone", "model.options",
    "trainer.epochs", "batches.images_per_epoch",
)  # fmt: skip


def _parts(study: Study, results: Sequence[LineResult]) -> dict[str, list[LineResult]]:
    """The parts of a study within which its arms are compared, in words.

    A grid over networks, data or lengths is no search for the best of them: arms are compared at
    each of its values.
    """
    exact = study.baseline in [result.line.label for result in results]
    if len(study.arms) < 2 or exact:
        return {"": list(results)}
    parts: dict[str, list[LineResult]] = {}
    for result in results:
        words = [
            f"{name}={value}"
            for name, value in result.line.point.items()
            if name.startswith(tuple(f"{condition}." for condition in _CONDITIONS))
            or name in _CONDITIONS
        ]
        parts.setdefault(", ".join(words), []).append(result)
    return parts


def _tuned(study: Study, results: Sequence[LineResult]) -> tuple[dict[str, str], list[str]]:
    """What is compared: every line, or each arm's best point of the grid.

    Arms that were each tried over a grid are compared tuned: at the point whose median validation
    figure is best, or where nothing was validated, whose own median is.

    Returns:
        name -> label of the line, and a sentence that tells of the choice.
    """
    arms: dict[str, list[LineResult]] = {}
    for result in results:
        arms.setdefault(result.line.arm.label, []).append(result)
    if all(len(lines) == 1 for lines in arms.values()):
        return {arm: lines[0].line.label for arm, lines in arms.items()}, []
    if not study.grid or len(arms) < 2:
        return {result.line.label: result.line.label for result in results}, []
    name = study.task.selecting(results[0].line.settings)
    validated = all(_validated(study, result, name) is not None for result in results)
    chosen = {}
    for arm, lines in arms.items():
        sound = [line for line in lines if not line.diverged] or lines
        scores = {}
        for line in sound:
            if validated:
                score = _validated(study, line, name)
                less = study.task.figures[name]
            else:
                score, less = (
                    float(np.median(list(by_seed(study, line).values()))),
                    study.less_is_better,
                )
            assert score is not None, "looked at above"
            scores[line.line.label] = score if less else -score
        chosen[arm] = min(scores, key=lambda label: scores[label])
    how = f"by {name}" if validated else f"by {study.figure} itself, which is a little optimistic"
    points = "; ".join(repr(label) for label in chosen.values())
    return chosen, [f"Each arm is judged at its best point of the grid, chosen {how}: {points}."]


def _validated(study: Study, result: LineResult, name: str) -> float | None:
    """Median over the seeds of the validation figure at the epoch that counts."""
    values = []
    for run in result.runs:
        found = outcome(study, run)
        row = next((r for r in run.rows if found is not None and r["epoch"] == found.epoch), {})
        if name in row:
            values.append(row[name])
    return float(np.median(values)) if values else None


def _best(study: Study, judged: dict[str, Summary]) -> str:
    sign = 1 if study.less_is_better else -1
    return min(judged, key=lambda label: sign * judged[label].median)


def _standing(study: Study, part: str, best: str, found: Summary, diverged: int) -> str:
    which = "last epoch" if study.report == "last" else "epoch chosen by validation"
    runs = f"{found.n} run{'s' * (found.n > 1)}" + (f", {diverged} diverged" if diverged else "")
    return (
        f"{f'At {part}, best' if part else 'Best'} median {figure_name(study)}, {which}: {best!r} "
        f"with {figure_text(study, found.median)} ({runs})."
    )


def _sentence(
    study: Study, label: str, reference: str, difference: Difference, unit: str = "seeds"
) -> str:
    names = f"{label!r} against {reference!r}"
    if difference.n == 0:
        return f"{names}: no seed in common, not compared."
    signed = f"{difference.mean:+.{2 if study.figure.endswith('_error') else 4}f}"
    if difference.half is None:
        return f"{names}: {signed}, {too_few_seeds(difference.n)}."
    low, high = difference.mean - difference.half, difference.mean + difference.half
    interval = (
        f"{signed} [{figure_text(study, low)}, {figure_text(study, high)}], {difference.n} {unit}"
    )
    if difference.p is None:
        return f"{names}: no difference seen ({interval}; no spread to judge it by)."
    p = _p(difference.adjusted)
    if not difference.seen:
        return f"{names}: no difference seen ({interval}, {p})."
    better = (difference.mean < 0) == study.less_is_better
    return f"{names}: {'better' if better else 'worse'} ({interval}, {p})."


def _p(value: float | None) -> str:
    assert value is not None, "tested"
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _warnings(
    study: Study,
    results: Sequence[LineResult],
    judged: dict[str, Summary],
    budget: Budget | None,
) -> list[str]:
    warnings = []
    if budget is not None:
        warnings.append(
            f"reduced budget {budget.name!r} "
            f"({budget_text(budget, [result.line for result in results])}): not comparable with "
            "published figures"
        )
    told = [result.line for result in results if result.line.arm.published is not None]
    cut = {line.label: words for line in told if (words := cut_data(line.settings)) is not None}
    if budget is None and cut:
        label, words = next(iter(cut.items()))
        more = f" and {len(cut) - 1} more" if len(cut) > 1 else ""
        warnings.append(
            f"{label!r}{more}: only a part of the images ({words}): not comparable with published "
            "figures"
        )
    unfinished = sum(result.unfinished for result in results)
    if unfinished:
        total = sum(len(result.runs) for result in results)
        warnings.append(f"{unfinished} of {total} runs are not over: all figures are provisional")
    for result in results:
        if result.diverged:
            rest = result.diverged < len(result.runs)
            warnings.append(
                f"{result.line.label!r}: {result.diverged} of {len(result.runs)} runs diverged; "
                + ("its figures are those of the others" if rest else "it has no figure")
            )
    few = {label: found.n for label, found in judged.items() if found.n < FEWEST_SEEDS}
    if few:
        named = ", ".join(map(repr, [*few][:3])) + (", ..." if len(few) > 3 else "")
        warnings.append(f"{too_few_seeds(min(few.values()))}: no interval for {named}")
    if study.report == "selected" and not study.figure.startswith(("test_", "train_")):
        warnings.append(f"{study.figure} is measured on what selects the epoch: it is optimistic")
    for name, words in (
        ("optimizer.lr", "learning rate"),
        ("optimizer.weight_decay", "weight decay"),
    ):
        warnings += _edges(study, results, name, words)
    if study.target is not None and not any(
        value <= study.target if study.less_is_better else value >= study.target
        for result in results
        for run in result.runs
        for value in run.curve(study.figure)[1]
    ):
        warnings.append(f"no run has reached the target of {study.target:g}")
    devices = {run.device for result in results for run in result.runs if run.device}
    if len(devices) > 1:
        warnings.append(f"made on {', '.join(sorted(devices))}: times cannot be compared")
    return warnings


def _edges(study: Study, results: Sequence[LineResult], name: str, words: str) -> list[str]:
    """Warnings where the best value of a sweep is its least or greatest."""
    found = {result.line.label: result for result in results}
    warnings = []
    for group in siblings([result.line for result in results], name):
        scores = []
        for line in group:
            result = found[line.label]
            summary = summarise(list(by_seed(study, result).values()))
            if summary is None and not result.diverged:
                break  # not over: nothing can be said
            # A value at which a run diverges is worse than any other: the range is known there.
            bad = summary is None or result.diverged > 0
            sign = 1 if study.less_is_better else -1
            scores.append(math.inf if bad or summary is None else sign * summary.median)
        if len(scores) < len(group) or min(scores) == math.inf:
            continue
        at = scores.index(min(scores))
        if at in (0, len(group) - 1):
            value = value_of(group[at].settings, name)
            side = "lowest" if at == 0 else "highest"
            way = "lower" if at == 0 else "higher"
            if name == "optimizer.weight_decay" and value == 0:
                continue  # there is nothing below
            warnings.append(
                f"the best {words}, {value:g} ({group[at].label!r}), is the {side} tried: try "
                f"{way} ones, the optimum may lie beyond the grid"
            )
    return warnings


def budget_text(budget: Budget, lines: Sequence[Line]) -> str:
    """What a budget made of a study's settings, in one line."""
    words = []
    for name in budget.settings:
        values = sorted({str(value_of(line.settings, name)) for line in lines}, key=_numeric)
        words.append(f"{name} {values[0]}" + (f" to {values[-1]}" if len(values) > 1 else ""))
    if budget.seeds is not None:
        words.append(f"seeds {', '.join(map(str, budget.seeds))}")
    if budget.most_seeds is not None:
        words.append(f"at most {budget.most_seeds} seeds")
    return ", ".join(words)


def _numeric(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return math.inf, text
