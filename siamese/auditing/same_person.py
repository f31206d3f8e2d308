"""One person under two names: pairs of folders, all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from siamese.auditing.two_covariance import (
    Floats,
    Labels,
    TwoCovariance,
    fit_to_halves,
    means_by_label,
    means_of_halves,
    normalised,
)

# How many folders have a second one of the same person, before they are looked at.
PRIOR = 0.02
_TELLING = 30.0
_ROWS = 256
_HALVES = 2000


@dataclass(frozen=True)
class FolderPairs:
    """Pairs of folders that seem to be one person: labels (K,), and probabilities in [0, 1].

    The most probable stand first.
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
        least: probability from which a pair is returned.

    Returns:
        (label, larger label, probability, mean cosine) of each, the most probable first.
    """
    values = np.asarray(labels, np.int64)
    weights = np.ones(len(values))
    pairs = same_people(embeddings, values, weights, least=least)
    cosine = mean_cosines((embeddings, embeddings), (values, values), pairs)
    return [
        (int(a), int(b), float(p), float(c))
        for a, b, p, c in zip(pairs.first, pairs.second, pairs.probability, cosine, strict=True)
    ]


def same_people(
    embeddings: npt.ArrayLike, labels: Labels, weights: Floats, *, least: float = 0.5
) -> FolderPairs:
    """Judge every pair of folders, exactly.

    The evidence is the likelihood ratio that the means of two folders are one person's. It has to
    convince twice: by Bayes' rule with ``PRIOR``, shared among a folder's possible seconds; and by
    being as strong, for so many pictures, as that of most folders here when they are cut into two.

    Arguments as of :func:`find_same_people`; ``weights`` (N,) say how much each picture belongs to
    its folder, wrong ones near 0.
    """
    people = np.arange(int(labels.max()) + 1)
    return _judged(embeddings, labels, weights, people, people, least)


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
        least: probability from which a pair is returned.
    """
    people = int(labels[0].max()) + 1
    both = np.concatenate([labels[0], people + labels[1]])
    every = np.concatenate([weights, np.ones(len(labels[1]))])
    embeddings = np.concatenate([np.asarray(here), np.asarray(there)])
    sides = np.split(np.arange(int(both.max()) + 1), [people])
    pairs = _judged(embeddings, both, every, sides[0], sides[1], least)
    return FolderPairs(pairs.first, pairs.second - people, pairs.probability)


def _judged(
    embeddings: npt.ArrayLike, labels: Labels, weights: Floats, left: Labels, right: Labels,
    least: float,
) -> FolderPairs:  # fmt: skip
    """Judge every pair of a folder of ``left`` with a later one of ``right``."""
    model = fit_to_halves(embeddings, labels, weights)
    points = model.coordinates(embeddings)
    means, counts = means_by_label(points, labels, weights)
    left, right = (side[counts[side] > 0.5] for side in (left, right))  # a picture is believed
    if not len(left) or not len(right):
        return FolderPairs(left[:0], left[:0], np.zeros(0))
    blocks = []
    for start in range(0, len(left), _ROWS):
        rows = left[start : start + _ROWS]
        evidence = model.log_ratio(means[rows], counts[rows], means[right], counts[right], _TELLING)
        likely = (_by_prior(evidence, len(right)) >= least) & (rows[:, None] < right)
        first, second = np.nonzero(likely)
        blocks.append((rows[first], right[second], evidence[first, second]))
    first, second, evidence = (np.concatenate(part) for part in zip(*blocks, strict=True))
    smaller = np.minimum(counts[first], counts[second])
    similar = _by_halves(evidence, smaller, partial(_halves, model, points, labels, weights))
    probability = np.minimum(_by_prior(evidence, len(right)), similar)
    order = np.argsort(-probability, kind="stable")
    order = order[probability[order] >= least]
    return FolderPairs(first[order], second[order], probability[order])


def mean_cosines(
    sides: tuple[npt.ArrayLike, npt.ArrayLike], labels: tuple[Labels, Labels], pairs: FolderPairs
) -> Floats:
    """Mean cosine between the pictures of a folder here and one there, (K,).

    The two sides are embeddings (N, D) and (M, D) with labels (N,) and (M,); the same twice for
    pairs within one folder. A pair has a label of each.
    """
    here, there = (
        means_by_label(normalised(side), values, np.ones(len(values)))[0]
        for side, values in zip(sides, labels, strict=True)
    )
    return np.asarray((here[pairs.first] * there[pairs.second]).sum(1))


def _by_prior(evidence: Floats, folders: int) -> Floats:
    """Probability by Bayes' rule; the second of a folder is one of so many."""
    return np.asarray(expit(evidence + logit(PRIOR / max(folders - 1, 1))))


def _by_halves(evidence: Floats, pictures: Floats, halves: Callable[[float], Floats]) -> Floats:
    """Probability by what halves of one folder give: a half where one in twenty gives less.

    ``evidence`` and ``pictures`` of the smaller folder are of pairs, (K,); ``halves`` gives the
    evidence of halves where the second has so many pictures at most.
    """
    probability = np.ones(len(evidence))
    sizes = 2.0 ** np.floor(np.log2(np.clip(np.rint(pictures), 1, _TELLING)))
    for size in np.unique(sizes):
        known = halves(size if size < _TELLING / 2 else np.inf)
        if len(known):
            least, low, middle = np.quantile(known, [0.05, 0.16, 0.5])
            pairs = sizes == size
            probability[pairs] = expit((evidence[pairs] - least) / max((middle - low) / 2, 1e-9))
    return probability


def _halves(
    model: TwoCovariance, points: Floats, labels: Labels, weights: Floats, most: float
) -> Floats:
    """Evidence for pairs that are one person's: the halves of each folder."""
    one, other, n, m = means_of_halves(points, labels, weights, most=most)
    usable = np.flatnonzero((n >= 1.5) & (m >= min(most, 2) - 0.5))[:_HALVES]
    one_by_one = (
        model.log_ratio(one[[i]], n[[i]], other[[i]], m[[i]], _TELLING)[0, 0] for i in usable
    )
    return np.fromiter(one_by_one, np.float64)
