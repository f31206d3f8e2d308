#!/usr/bin/env python
"""The audit's numerics on drawn embeddings: right where pictures are few, and fast where many?

Embeddings of 512 dimensions, as of a good model: people differ most in some directions, pictures
of one person scatter in all. "sharp" is how far people are apart; 1 tells nearly all of them apart.

  python scripts/bench_drawn_audit.py                             # quality, ten minutes
  python scripts/bench_drawn_audit.py --people 2000 --images 17   # time and memory of one audit
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
from bench_audit import by_one_other, cut_in_two, mixed_folders, moved
from sklearn.metrics import average_precision_score

from siamese.auditing.same_person import same_people
from siamese.auditing.suspects import find_suspects

SIZES = ((10, 12), (20, 25), (60, 10), (60, 30), (100, 30))
SEEDS = 3


def draw(people: int, images: int, dimensions: int, seed: int, sharp: float) -> np.ndarray:
    """Embeddings (people * images, dimensions), person after person."""
    rng = np.random.default_rng(seed)
    order = np.arange(dimensions)
    centres = rng.normal(size=(people, dimensions)) * sharp / np.sqrt(1 + order)
    scatter = rng.normal(size=(people * images, dimensions)) * 2 / np.sqrt(20 + order)
    return np.asarray(np.repeat(centres, images, 0) + scatter)


def quality(people: int, images: int, dimensions: int, sharp: float) -> str:
    """Means over seeds, as a line of the table."""
    labels = np.repeat(np.arange(people), images)
    folders = min(5, people // 4)
    suspects, counts = [], np.zeros(7, int)
    for seed in range(SEEDS):
        embeddings = draw(people, images, dimensions, seed, sharp)
        given = moved(labels, seed, heavy=2)
        wrong = given != labels
        found = find_suspects(embeddings, given)
        told = found.probability >= 0.5
        suspects.append(
            [
                average_precision_score(wrong, found.log_odds),
                wrong[told].mean() if told.any() else np.nan,
                told[wrong].mean(),
                found.probability.sum() / wrong.sum(),
            ]
        )
        counts[:3] += cut_in_two(embeddings, labels, seed, folders, in_order=False)
        given = by_one_other(labels, seed, folders)
        truth = {int(person) for person in np.unique(given[given != labels])}
        mixed = mixed_folders(embeddings, given)
        counts[3:] += [len(mixed & truth), len(truth), len(mixed - truth), 0]
        counts[6] += len(mixed_folders(embeddings, labels))
    ap, precision, recall, expected = np.mean(suspects, 0)
    return (
        f"{people:6d}  {images:6d}  {sharp:5.1f}  {ap:5.2f}  {precision:9.2f}  {recall:6.2f}  "
        f"{expected:13.2f}  {counts[0]:5d} of {counts[1]:2d} ({counts[2]})  "
        f"{counts[3]:5d} of {counts[4]:2d} ({counts[5]}; {counts[6]})"
    )


def cost(people: int, images: int, dimensions: int) -> None:
    """One audit: wrong pictures and folders of one person."""
    labels = np.repeat(np.arange(people), images)
    embeddings = draw(people, images, dimensions, 0, 1.0).astype(np.float32)
    given = moved(labels, 0)
    before = resource.getrusage(resource.RUSAGE_SELF)
    clock = time.perf_counter()
    found = find_suspects(embeddings, given)
    middle = time.perf_counter()
    same_people(embeddings, given, 1 - found.probability)
    after = resource.getrusage(resource.RUSAGE_SELF)
    used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    print(
        f"{len(labels)} pictures of {people} people, {dimensions} dimensions: wrong pictures "
        f"{middle - clock:.0f} s, one person under two names {time.perf_counter() - middle:.0f} s; "
        f"processor {used:.0f} s, at most {after.ru_maxrss / 2**20:.1f} GiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--people", type=int, help="time one audit of so many people")
    parser.add_argument("--images", type=int, default=17, help="of each of them")
    parser.add_argument("--dimensions", type=int, default=512)
    given = parser.parse_args()
    if given.people is not None:
        cost(given.people, given.images, given.dimensions)
        return
    print("a tenth moved: wrong pictures; then people cut in two, then folders of two people")
    print(
        "people  images  sharp     AP  precision  recall  expected/true  found (false) "
        " found (others; untouched ones told)"
    )
    for people, images in SIZES:
        for sharp in (0.5, 1.0):
            print(quality(people, images, given.dimensions, sharp), flush=True)


if __name__ == "__main__":
    main()
