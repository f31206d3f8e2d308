"""Judge the embeddings of any other system: exact figures over all pairs, with intervals.

    python scripts/examples/judge_other_embeddings.py [FILE.npz]

FILE.npz holds embeddings (N, D) and labels (N,); without it vectors of 60 people are made up.
"""

import sys

import numpy as np

import siamese


def made_up(people: int = 60, pictures: int = 5) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(people), pictures)
    centres = random.normal(size=(people, 32))
    return centres[labels] + random.normal(size=(len(labels), 32)), labels


def main() -> None:
    if len(sys.argv) > 1:
        with np.load(sys.argv[1]) as file:
            vectors, labels = file["embeddings"], file["labels"]
    else:
        vectors, labels = made_up()
    figures = siamese.evaluate(vectors, labels, intervals=True, resamples=200)
    print(f"{figures.identities} people, {figures.images} pictures")
    print(f"AUC {figures.auc:.4f}, EER {figures.eer:.4f}")
    if figures.intervals is not None and figures.intervals.auc is not None:
        low, high = figures.intervals.auc
        print(f"95 % interval of the AUC: {low:.4f} to {high:.4f}")
    for rate, accepted in figures.tar_at_far.items():
        print(f"at a false-accept rate of {rate:g} {accepted:.1%} of genuine pairs are accepted")
    for warning in figures.warnings:
        print(f"note: {warning}")


if __name__ == "__main__":
    main()
