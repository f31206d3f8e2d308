"""How often 95 % intervals cover the truth, and what the bins of score blur.

    python scripts/bench_intervals.py                          # 10, 30 and 100 people, 300 times
    python scripts/bench_intervals.py --people 30 --repetitions 50

A population of people whose pictures scatter by different amounts is known; samples of P people
with 10 pictures each are judged, and an interval covers when it holds the population's figure.
"""

from __future__ import annotations

import argparse

import numpy as np
from tqdm import tqdm

from siamese.verification.bootstrap import count_and_resample, draw_weights
from siamese.verification.counts import PairCounts, count_pairs
from siamese.verification.figures import summarise
from siamese.verification.scores import listed_scores, normalise

DIMENSIONS = 24
FIGURES = ("auc", "eer", "tar_at_far_1e-2", "tar_at_far_1e-3", "threshold_at_far_1e-2")


def draw(rng: np.random.Generator, people: int, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings and labels of some people of the population."""
    labels = np.repeat(np.arange(people), images)
    spread = 0.8 * np.exp(rng.normal(0, 0.35, people))
    noise = rng.normal(size=(len(labels), DIMENSIONS)) * spread[labels, None]
    centres = rng.normal(size=(people, DIMENSIONS))[labels]
    return (centres + noise).astype(np.float32), labels


def coverage(people: int, repetitions: int, truth: dict[str, float]) -> None:
    covered = dict.fromkeys(FIGURES, 0)
    for seed in tqdm(range(repetitions), desc=f"{people} people", leave=False):
        sample = draw(np.random.default_rng([people, seed]), people, 10)
        limits = count_and_resample(*sample, seed=seed)[1].intervals()
        for name in FIGURES:
            found = limits[name]
            covered[name] += found is not None and found[0] <= truth[name] <= found[1]
    shares = "  ".join(f"{name} {covered[name] / repetitions:.1%}" for name in FIGURES)
    print(f"{people:4} people: {shares}", flush=True)


def blur(people: int, resamples: int) -> None:
    """Figures of resamples by bins against those of every weighted pair."""
    embeddings, labels = draw(np.random.default_rng(0), people, 10)
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
    parser.add_argument("--people", type=int, nargs="+", default=[10, 30, 100])
    parser.add_argument("--repetitions", type=int, default=300)
    given = parser.parse_args()
    truth = summarise(count_pairs(*draw(np.random.default_rng(99), 10_000, 4)))
    print("truth: " + "  ".join(f"{name} {truth[name]:.4f}" for name in FIGURES))
    for people in given.people:
        coverage(people, given.repetitions, truth)
    blur(100, 200)


if __name__ == "__main__":
    main()
