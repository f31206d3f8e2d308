"""How often 95 % intervals cover the truth, and what the bins of score blur.

    python scripts/bench_intervals.py                          # two hours; 10 to 100 people
    python scripts/bench_intervals.py --people 30 --repetitions 50

Two populations are known, with AUC 0.97 and 0.82, of people whose pictures scatter by different
amounts. Samples of P people with 2 to 40 pictures each (8 in the median, lognormal) are judged,
and an interval covers when it holds the population's figure. Each figure has two shares: "was" is
of the expanded percentile interval with P - 1 degrees of freedom, "is" that of the product. Last
the difference of two models on the same people.
"""

from __future__ import annotations

import argparse

import numpy as np
from tqdm import tqdm

from siamese.verification.bootstrap import (
    Interval,
    count_and_resample,
    draw_weights,
    quantile_interval,
)
from siamese.verification.counts import PairCounts, count_pairs
from siamese.verification.metrics import summarise
from siamese.verification.scores import listed_scores, normalise

DIMENSIONS = 24
FIGURES = ("auc", "eer", "tar_at_far_1e-2", "tar_at_far_1e-3", "threshold_at_far_1e-2")
POPULATIONS = {0.97: 0.8, 0.82: 1.65}  # AUC -> how far pictures scatter
WORSE = 1.05  # how much further in the eyes of the second model


def draw(
    rng: np.random.Generator, people: int, images: int | None, noise: float
) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings and labels of some people of the population; images None: as many as drawn."""
    some = images
    if some is None:
        drawn = np.exp(rng.normal(np.log(8), 0.6, people))
        some = np.clip(np.rint(drawn), 2, 40).astype(int)
    labels = np.repeat(np.arange(people), some)
    spread = noise * np.exp(rng.normal(0, 0.35, people))
    scatter = rng.normal(size=(len(labels), DIMENSIONS)) * spread[labels, None]
    centres = rng.normal(size=(people, DIMENSIONS))[labels]
    return (centres + scatter).astype(np.float32), labels


def was(values: np.ndarray, people: int) -> Interval:
    """The percentile interval with as many degrees of freedom as there are people."""
    return quantile_interval(values, people)


def coverage(people: int, repetitions: int, noise: float, truths: list[dict[str, float]]) -> None:
    """Both intervals of each figure, and that of the difference from a worse model."""
    covered = {(name, which): 0 for name in FIGURES for which in ("was", "is", "difference")}
    for seed in tqdm(range(repetitions), desc=f"{people} people", leave=False):
        models = []
        for scatter in (noise, noise * WORSE):
            sample = draw(np.random.default_rng([people, seed]), people, None, scatter)
            models.append(count_and_resample(*sample, seed=seed)[1])
        own, other = (model.figures() for model in models)
        told = models[0].intervals()
        for name in FIGURES:
            true, difference = truths[0][name], truths[1][name] - truths[0][name]
            both = quantile_interval(other[name] - own[name], models[0].genuine_effective)
            for which, limits, value in (
                ("was", was(own[name], people), true),
                ("is", told[name], true),
                ("difference", both, difference),
            ):
                covered[name, which] += limits is not None and limits[0] <= value <= limits[1]
    for which in ("was", "is", "difference"):
        shares = "  ".join(f"{name} {covered[name, which] / repetitions:.1%}" for name in FIGURES)
        print(f"{people:4} people, {which:10}: {shares}", flush=True)


def blur(people: int, resamples: int) -> None:
    """Figures of resamples by bins against those of every weighted pair."""
    embeddings, labels = draw(np.random.default_rng(0), people, 10, 0.8)
    bootstrap = count_and_resample(embeddings, labels, resamples=resamples)[1]
    first, second = np.triu_indices(len(labels), 1)
    values, where = np.unique(
        listed_scores(normalise(embeddings), first, second), return_inverse=True
    )
    same = labels[first] == labels[second]
    exact = []
    for w in draw_weights(people, resamples, 0):
        weight = np.where(same, w[labels[first]], w[labels[first]] * w[labels[second]])
        kinds = (np.bincount(where, weight * k, len(values)).astype(int) for k in (same, ~same))
        exact.append(summarise(PairCounts(values, *kinds, people, len(labels), 1)))
    print(f"bins, {people} people: root mean square error over the resamples' standard deviation")
    for name, found in bootstrap.figures().items():
        error = found - np.array([figures[name] for figures in exact])
        print(f"  {name:22} {np.sqrt(np.mean(error**2)) / found.std():.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, nargs="+", default=[10, 20, 30, 50, 100])
    parser.add_argument("--repetitions", type=int, default=300)
    given = parser.parse_args()
    for area, noise in POPULATIONS.items():
        truths = [
            summarise(count_pairs(*draw(np.random.default_rng(99), 4000, 4, noise * worse)))
            for worse in (1, WORSE)
        ]
        told = "  ".join(f"{name} {truths[0][name]:.4f}" for name in FIGURES)
        print(f"population of AUC {area}: {told}")
        for people in given.people:
            coverage(people, given.repetitions, noise, truths)
    blur(100, 200)


if __name__ == "__main__":
    main()
