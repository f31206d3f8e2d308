"""What a study found, in words that say no more than its runs show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from siamese.studies.expand import Line, cut_data, siblings, value_of
from siamese.studies.results import LineResult, RunResult, outcome
from siamese.studies.statistics import (
    Difference,
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
    """A line of the table against a reference line: their difference, and the same in words."""

    label: str
    reference: str
    difference: Difference
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """Sentences about a study.

    ``reference``: the line that all others are compared with; None where there are several.
    ``across``: in a study of recipes on several networks, every arm against the best over all
    networks.
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
        counted = outcome(study, run)
        if counted is not None:
            values[run.run.seed] = counted.value
    return values


def figure_text(study: Study, value: float) -> str:
    """A figure with its digits: errors with two, areas and losses with four."""
    digits = 2 if study.figure.endswith("_error") else 4
    return f"{value:.{digits}f}"


def figure_name(study: Study) -> str:
    """What the figure is called, with its unit."""
    words = {"auc": "AUC", "ap": "AP", "eer": "EER", "tar": "TAR", "far": "FAR"}
    parts = [words.get(part, part) for part in study.figure.split("_")]
    if parts[0] in words.values():
        parts.insert(0, "validation")
    return " ".join(parts) + (" (%)" if study.figure.endswith("_error") else "")


@dataclass(frozen=True)
class _Family:
    """Arms that are compared with one of them, chosen as the best of them or named beforehand."""

    values: Mapping[str, Mapping[Any, float]]
    reference: str
    base: Mapping[Any, float]
    chosen: bool


def judge(study: Study, results: Sequence[LineResult], budget: Budget | None = None) -> Verdict:
    """The verdict over what has been run so far.

    Differences are paired by seed: a t-interval each, and Holm's correction over all of them. Where
    the reference is the best of the arms, the correction is for all their pairs: see
    :func:`siamese.studies.statistics.against_best`.
    """
    values = {result.line.label: by_seed(study, result) for result in results}
    summaries = {label: summarise(list(figures.values())) for label, figures in values.items()}
    judged = {label: summary for label, summary in summaries.items() if summary is not None}
    warnings = _warnings(study, results, judged, budget)
    if not judged:
        return Verdict(("No run is over yet: nothing can be said.",), (), tuple(warnings), None)
    base = study.baseline or ""
    summary: list[str] = []
    families: list[_Family] = []
    tuned_at: dict[str, dict[str, str]] = {}
    parts = _parts(study, [result for result in results if result.line.label in judged])
    for part, members in parts.items():
        tuned, remark = _tuned(study, members, judged)
        tuned_at[part] = tuned
        best = _best(study, {label: judged[label].median for label in tuned.values()})
        diverged = next(result.diverged for result in members if result.line.label == best)
        summary += [_standing(study, part, best, judged[best], diverged), *remark]
        named = base if base in judged else tuned.get(base)
        if base and named is None:
            where = f" at {part}" if part else ""
            warnings.append(
                f"the baseline {base!r} has no figure{where}: compared with the best instead"
            )
        compared_values = {label: values[label] for label in tuned.values()}
        reference = named or best
        families.append(
            _Family(compared_values, reference, values[reference], chosen=named is None)
        )
    compared, tests = _compare(study, families)
    if tests is not None:
        note = "Intervals cover the variation over seeds, not that of the test set."
        summary.append(f"{tests} {note}")
        if not any(one.difference.seen for one in compared):
            summary.append("No difference seen between any of them and it.")
    remarks, across = _across(study, tuned_at, values)
    only = families[0].reference if len(families) == 1 else None
    return Verdict((*summary, *remarks), compared, tuple(warnings), only, across)


def _compare(
    study: Study, families: Sequence[_Family], start: str = "", unit: str = "seed"
) -> tuple[tuple[Compared, ...], str | None]:
    """Every arm against its family's reference, corrected together; a sentence about the tests."""
    pairs: list[tuple[str, str]] = []
    shown: list[Difference] = []
    others: list[Difference] = []  # tests that the choice of a reference has made
    for family in families:
        labels = list(family.values)
        pairs += [(label, family.reference) for label in labels if label != family.reference]
        if family.chosen:
            with_best, without_best = against_best(
                list(family.values.values()), labels.index(family.reference)
            )
            shown, others = [*shown, *with_best], [*others, *without_best]
        else:
            shown += [
                paired(one, family.base)
                for label, one in family.values.items()
                if label != family.reference
            ]
    units = "seeds" if unit == "seed" else f"pairs of {unit}"
    compared = tuple(
        Compared(one, other, difference, start + _sentence(study, one, other, difference, units))
        for (one, other), difference in zip(pairs, corrected(shown, others), strict=True)
    )
    tested = sum(one.p is not None for one in shown)
    if not tested:
        return compared, None
    if len(families) == 1:
        reference = repr(families[0].reference)
    else:
        reference = "the best or the baseline of each part"
    all_tests = tested + sum(one.p is not None for one in others)
    chosen = ", chosen as the best of them" * any(family.chosen for family in families)
    return compared, (
        f"{tested} comparison{'s' * (tested > 1)} with {reference}{chosen}, paired by {unit}; "
        f"p after Holm's correction for {all_tests} tests."
    )


def _across(
    study: Study, tuned_at: Mapping[str, Mapping[str, str]], values: Mapping[str, dict[int, float]]
) -> tuple[list[str], tuple[Compared, ...]]:
    """Which recipe wins over all networks: differences paired by network and seed."""
    if len(tuned_at) < 2 or not all(_is_network(part) for part in tuned_at):
        return [], ()
    first = next(iter(tuned_at.values()))
    arms = [arm for arm in first if all(arm in tuned for tuned in tuned_at.values())]
    if len(arms) < 2:
        return [], ()
    runs: dict[str, dict[Any, float]] = {arm: {} for arm in arms}
    medians: dict[str, list[float]] = {arm: [] for arm in arms}
    for part, tuned in tuned_at.items():
        for arm in arms:
            figures = values[tuned[arm]]
            runs[arm] |= {(part, seed): value for seed, value in figures.items()}
            medians[arm].append(float(np.median(list(figures.values()))))
    means = {arm: float(np.mean(medians[arm])) for arm in arms}
    best = _best(study, means)
    leading = min if study.less_is_better else max
    ahead = sum(
        own == leading(medians[arm][part] for arm in arms) for part, own in enumerate(medians[best])
    )
    networks = f"Across all {len(tuned_at)} networks"
    summary = [
        f"{networks}, best mean of the medians: {best!r} with {figure_text(study, means[best])}, "
        f"ahead on {ahead} of them."
    ]
    fewest = min(len(values[label]) for tuned in tuned_at.values() for label in tuned.values())
    if few := too_few_seeds(fewest):
        return [*summary, f"{networks}: {few}."], ()
    named = study.baseline if study.baseline in arms else None
    reference = named or best
    family = _Family(runs, reference, runs[reference], chosen=named is None)
    compared, tests = _compare(study, [family], f"{networks}, ", "network and seed")
    return [*summary, *([f"{networks}: {tests}"] if tests else [])], compared


def _is_network(part: str) -> bool:
    """Whether a part's words name networks only."""
    return all(word.startswith("model.") for word in part.split(", "))


# Grids over these ask a question once for each value; grids over anything else are a search.
_CONDITIONS = (
    "data", "split", "images.size", "model.name", "model.backbone", "model.options",
    "trainer.epochs", "batches.images_per_epoch",
)  # fmt: skip


def _parts(study: Study, results: Sequence[LineResult]) -> dict[str, list[LineResult]]:
    """Within which parts of a study, in words, its arms are compared: networks, data or lengths."""
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


def _tuned(
    study: Study, results: Sequence[LineResult], judged: Mapping[str, Summary]
) -> tuple[dict[str, str], list[str]]:
    """What is compared: every line, or each arm's best point of the grid; a sentence says so."""
    arms: dict[str, list[LineResult]] = {}
    for result in results:
        arms.setdefault(result.line.arm.label, []).append(result)
    if all(len(lines) == 1 for lines in arms.values()):
        return {arm: lines[0].line.label for arm, lines in arms.items()}, []
    if not study.grid or len(arms) < 2:
        return {result.line.label: result.line.label for result in results}, []
    name = study.task.selecting(results[0].line.settings)
    less = study.task.figures[name]
    scores = {result.line.label: _validated(study, result, name) for result in results}
    if any(map(math.isnan, scores.values())):
        name, less = f"{study.figure} itself, which is a little optimistic", study.less_is_better
        scores = {label: one.median for label, one in judged.items()}
    chosen = {}
    for arm, lines in arms.items():
        sound = [line for line in lines if not line.diverged] or lines
        best = min if less else max
        chosen[arm] = best((line.line.label for line in sound), key=lambda label: scores[label])
    points = "; ".join(repr(label) for label in chosen.values())
    return chosen, [
        f"Each arm is judged at its best point of the grid, chosen by {name}: {points}."
    ]


def _validated(study: Study, result: LineResult, name: str) -> float:
    """Median over the seeds of the validation figure at the epoch that counts; else NaN."""
    values = []
    for run in result.runs:
        counted = outcome(study, run)
        row = next((r for r in run.rows if counted and r["epoch"] == counted.epoch), {})
        if name in row:
            values.append(row[name])
    return float(np.median(values)) if values else math.nan


def _best(study: Study, figures: Mapping[str, float]) -> str:
    """The label of the best figure, the first of equal ones."""
    return (min if study.less_is_better else max)(figures, key=lambda label: figures[label])


def _standing(study: Study, part: str, best: str, summary: Summary, diverged: int) -> str:
    which = "last epoch" if study.report == "last" else "epoch chosen by validation"
    runs = f"{summary.n} run{'s' * (summary.n > 1)}" + (
        f", {diverged} diverged" if diverged else ""
    )
    return (
        f"{f'At {part}, best' if part else 'Best'} median {figure_name(study)}, {which}: {best!r} "
        f"with {figure_text(study, summary.median)} ({runs})."
    )


def _sentence(study: Study, label: str, reference: str, difference: Difference, unit: str) -> str:
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
    adjusted = difference.adjusted or 0.0
    p = "p < 0.001" if adjusted < 0.001 else f"p = {adjusted:.3f}"
    if not difference.seen:
        return f"{names}: no difference seen ({interval}, {p})."
    better = (difference.mean < 0) == study.less_is_better
    return f"{names}: {'better' if better else 'worse'} ({interval}, {p})."


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
    published = [result.line for result in results if result.line.arm.published is not None]
    cut = {line.label: words for line in published if (words := cut_data(line.settings))}
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
    few = {label: one.n for label, one in judged.items() if one.n < FEWEST_SEEDS}
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
    target = study.target
    runs = [run for result in results for run in result.runs]
    if target is not None and all(reached_after(study, run, target) is None for run in runs):
        warnings.append(f"no run has reached the target of {target:g}")
    devices = {run.device for run in runs if run.device}
    if len(devices) > 1:
        warnings.append(f"made on {', '.join(sorted(devices))}: times cannot be compared")
    return warnings


def reached_after(study: Study, run: RunResult, target: float) -> float | None:
    """Seconds of training until a run's figure first reaches a value; None: never."""
    rows, values = run.curve(study.figure)
    for row, value in zip(rows, values, strict=True):
        if (value <= target if study.less_is_better else value >= target) and "seconds" in row:
            return row["seconds"]
    return None


def _edges(study: Study, results: Sequence[LineResult], name: str, words: str) -> list[str]:
    """Warnings where the best value of a sweep is its least or greatest."""
    by_label = {result.line.label: result for result in results}
    sign = 1 if study.less_is_better else -1
    warnings = []
    for group in siblings([result.line for result in results], name):
        scores = []
        for line in group:
            result = by_label[line.label]
            summary = summarise(list(by_seed(study, result).values()))
            if summary is None and not result.diverged:
                break  # not over: nothing can be said
            # A value at which a run diverges is worse than any other: the range is known there.
            bad = summary is None or result.diverged > 0
            scores.append(math.inf if bad or summary is None else sign * summary.median)
        if len(scores) < len(group) or min(scores) == math.inf:
            continue
        best = scores.index(min(scores))
        side, way = ("lowest", "lower") if best == 0 else ("highest", "higher")
        value = value_of(group[best].settings, name)
        below_nothing = name == "optimizer.weight_decay" and value == 0
        if best in (0, len(group) - 1) and not below_nothing:
            warnings.append(
                f"the best {words}, {value:g} ({group[best].label!r}), is the {side} tried: try "
                f"{way} ones, the optimum may lie beyond the grid"
            )
    return warnings


def budget_text(budget: Budget, lines: Sequence[Line]) -> str:
    """What a budget made of a study's settings, in one line."""
    words = []
    for name in budget.settings:
        values = dict.fromkeys(str(value_of(line.settings, name)) for line in lines)
        words.append(f"{name} {' or '.join(values)}")
    if budget.seeds is not None:
        words.append(f"seeds {', '.join(map(str, budget.seeds))}")
    if budget.most_seeds is not None:
        words.append(f"at most {budget.most_seeds} seeds")
    return ", ".join(words)
