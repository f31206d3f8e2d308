"""One person under two names: pairs of folders, all of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from siamese.auditing.two_covariance import (
    Floats,
    Labels,
    TwoCovariance,
    fit,
    normalised,
    sums_by_label,
)

# How many folders have a second one of the same person, before they are looked at.
PRIOR = 0.02
_TELLING = 30.0
_ROWS = 256


@dataclass(frozen=True)
class FolderPairs:
    """Pairs of folders that seem to be one person, the most probable first.

    Attributes:
        first: int64 (K,), labels.
        second: int64 (K,).
        probability: (K,), in [0, 1].
    """

    first: Labels
    second: Labels
    probability: Floats


def find_same_people(
    embeddings: npt.ArrayLike, labels: npt.ArrayLike, *, least: float = 0.5
) -> list[tuple[int, int, float, float]]:
    """Pairs of folders that seem to be one person, from embeddings alone.

    Args:
        embeddings: (N, D), finite.
        labels: integers (N,), values 0 ... P - 1.
        least: probability from which a pair is told.

    Returns:
        (label, larger label, probability, mean cosine) of each, the most probable first.
    """
    values = np.asarray(labels, np.int64)
    weights = np.ones(len(values))
    model = fit(embeddings, values, weights)
    pairs = same_people(model, model.coordinates(embeddings), values, weights, least=least)
    cosine = mean_cosines(embeddings, values, pairs)
    return [
        (int(a), int(b), float(p), float(c))
        for a, b, p, c in zip(pairs.first, pairs.second, pairs.probability, cosine, strict=True)
    ]


def same_people(
    model: TwoCovariance, points: Floats, labels: Labels, weights: Floats, *, least: float = 0.5
) -> FolderPairs:
    """Judge every pair of folders, exactly.

    The evidence is the likelihood ratio that the means of two folders are one person's; the
    probability follows by Bayes' rule with ``PRIOR``, shared among a folder's possible seconds.

    Args:
        model: fitted to these pictures.
        points: (N, D), their coordinates.
        labels: int64 (N,), values 0 ... P - 1.
        weights: (N,), how much each picture belongs to its folder; wrong ones near 0.
        least: probability from which a pair is told.
    """
    means, counts = _means(points, labels, weights)
    known = np.flatnonzero(counts > 0.5)
    means, counts = means[known], counts[known]
    found = []
    for start in range(0, len(known), _ROWS):
        rows = slice(start, start + _ROWS)
        evidence = model.log_ratio(means[rows], counts[rows], means, counts, _TELLING)
        judged = expit(evidence + logit(PRIOR / max(len(known) - 1, 1)))
        first, second = np.nonzero(np.triu(judged, start + 1) >= least)
        found.append((known[start + first], known[second], judged[first, second]))
    return _ranked(*(np.concatenate(part) for part in zip(*found, strict=True)))


def same_people_across(
    here: npt.ArrayLike,
    there: npt.ArrayLike,
    labels: tuple[Labels, Labels],
    weights: Floats,
    *,
    least: float = 0.5,
) -> FolderPairs:
    """Judge every pair of a folder here (``first``) and a folder there (``second``).

    The model is fitted to both: people whom a network was trained on vary less than others.

    Args:
        here: (N, D), finite.
        there: (M, D), finite.
        labels: int64 (N,) and (M,), values from 0 on without gaps.
        weights: (N,), how much each picture here belongs to its folder.
        least: probability from which a pair is told.
    """
    people = int(labels[0].max()) + 1
    both = np.concatenate([labels[0], people + labels[1]])
    every = np.concatenate([weights, np.ones(len(labels[1]))])
    model = fit(np.concatenate([np.asarray(here), np.asarray(there)]), both, every)
    sides = [
        _means(model.coordinates(embeddings), values, counted)
        for embeddings, values, counted in (
            (here, labels[0], weights), (there, labels[1], np.ones(len(labels[1])))
        )
    ]  # fmt: skip
    evidence = model.log_ratio(*sides[0], *sides[1], _TELLING)
    judged = expit(evidence + logit(PRIOR / max(len(evidence), 1)))
    judged[sides[0][1] <= 0.5] = 0.0  # all of its pictures are wrong
    first, second = np.nonzero(judged >= least)
    return _ranked(first, second, judged[first, second])


def mean_cosines(embeddings: npt.ArrayLike, labels: Labels, pairs: FolderPairs) -> Floats:
    """Mean cosine between the pictures of two folders, (K,)."""
    means, _ = _means(normalised(embeddings), labels, np.ones(len(labels)))
    return np.asarray((means[pairs.first] * means[pairs.second]).sum(1))


def _ranked(first: Labels, second: Labels, probability: Floats) -> FolderPairs:
    order = np.argsort(-probability, kind="stable")
    return FolderPairs(first[order], second[order], probability[order])


def _means(points: Floats, labels: Labels, weights: Floats) -> tuple[Floats, Floats]:
    sums, counts = sums_by_label(points, labels, weights)
    return sums / np.maximum(counts, 1e-9)[:, None], counts
