"""How often a study of equal arms calls one of them different: the family-wise error.

    python scripts/bench_verdicts.py                   # 2 to 8 arms, 3 to 5 seeds, 20,000 studies

Seeds shift all arms alike, as they do where arms share batches; the arms scatter equally, or from a
tenth to ten times as much. Printed beside each other: Holm's correction for the comparisons with
the best alone, and for all pairs, as `siamese.studies.statistics.against_best` has it.
"""

from __future__ import annotations

import argparse
from itertools import combinations

import numpy as np
from scipy.special import stdtr

LEVEL = 0.05


def wrong(x: np.ndarray) -> tuple[float, float]:
    """Shares of studies in which an arm is called different from the best: both corrections.

    ``x``: (studies, seeds, arms). Something is called different where the least p-value of the
    comparisons with the best passes its step of Holm's: for all pairs, where enough smaller
    p-values of other pairs pass before it.
    """
    seeds, arms = x.shape[1:]
    pairs = list(combinations(range(arms), 2))
    d = np.stack([x[..., i] - x[..., j] for i, j in pairs], -1)
    t = np.abs(d.mean(1)) / d.std(1, ddof=1) * np.sqrt(seeds)
    p = 2 * stdtr(seeds - 1, -t)
    best = np.median(x, axis=1).argmin(1)
    with_best = np.array([[arm in pair for pair in pairs] for arm in range(arms)])[best]
    alone = np.where(with_best, p, 2).min(1) <= LEVEL / (arms - 1)
    order = np.argsort(p, 1)
    steps = LEVEL / np.arange(len(pairs), 0, -1)
    rejected = np.logical_and.accumulate(np.take_along_axis(p, order, 1) <= steps, axis=1)
    all_pairs = (rejected & np.take_along_axis(with_best, order, 1)).any(1)
    return float(alone.mean()), float(all_pairs.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=20_000)
    given = parser.parse_args()
    print("arms  seeds  scatter   with the best alone   all pairs")
    for arms in (2, 3, 5, 8):
        for seeds in (3, 4, 5):
            for name in ("equal", "unequal"):
                rng = np.random.default_rng([arms, seeds])
                wide = np.ones(arms) if name == "equal" else np.geomspace(0.1, 10, arms)
                x = rng.normal(size=(given.studies, seeds, 1))
                x = x + rng.normal(size=(given.studies, seeds, arms)) * wide
                alone, all_pairs = wrong(x)
                print(
                    f"{arms:4}  {seeds:5}  {name:8}  {alone:18.1%}  {all_pairs:10.1%}", flush=True
                )


if __name__ == "__main__":
    main()
