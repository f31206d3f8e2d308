"""Two people under one name: folders that fall into two clusters."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from siamese.auditing.calibrated import probability
from siamese.auditing.two_covariance import Floats, Labels, TwoCovariance

# How often a folder holds two people, before it is looked at.
PRIOR = 0.05
_LEAST_PICTURES = 6
_MERGED_SHARE = 0.3
_MERGERS = 200
_TELLING = 10.0

Watch = Callable[[Iterable[int]], Iterable[int]]


@dataclass(frozen=True)
class Mixed:
    """Every folder, cut into the two parts that differ most.

    Attributes:
        probability: (P,), that a folder holds two people; 0 with fewer than six pictures.
        smaller: bool (N,), whether a picture is in its folder's smaller part.
    """

    probability: Floats
    smaller: npt.NDArray[np.bool_]


def find_mixed(
    model: TwoCovariance, points: Floats, labels: Labels, *, seed: int = 0, watch: Watch = iter
) -> Mixed:
    """Find folders that hold two people.

    Each folder is cut in two by k-means; the evidence is the likelihood ratio that the parts are
    two people rather than one. What it means is learnt here: from the folders as they are, of
    which few are mixed, and from folders into which pictures of another one were put.

    Args:
        model: fitted to these pictures.
        points: (N, D), their coordinates.
        labels: int64 (N,), values 0 ... P - 1.
        seed: of the mergers.
        watch: wraps the loop over people, for a progress bar.
    """
    people = int(labels.max()) + 1
    order = np.argsort(labels, kind="stable")
    cuts = np.searchsorted(labels[order], np.arange(people + 1))
    own = [order[a:b] for a, b in pairwise(cuts)]
    smaller = np.zeros(len(labels), bool)
    evidence = np.full(people, -np.inf)
    scale = np.sqrt(model.ratio / (model.ratio + 1))  # what tells people apart
    for person in watch(range(people)):
        if len(own[person]) >= _LEAST_PICTURES:
            part = _cut(points[own[person]] * scale)
            smaller[own[person]] = part
            evidence[person] = -_same(model, points[own[person]], part)
    usable = np.flatnonzero(np.isfinite(evidence))
    if len(usable) < 2:
        return Mixed(np.zeros(people), smaller)
    rng = np.random.default_rng(seed)
    merged = []
    for _ in range(min(_MERGERS, 4 * len(usable))):
        one, other = rng.choice(usable, 2, replace=False)
        added = max(2, round(len(own[one]) * _MERGED_SHARE / (1 - _MERGED_SHARE)))
        added = min(added, len(own[other]))
        pictures = np.concatenate([own[one], rng.permutation(own[other])[:added]])
        merged.append(-_same(model, points[pictures], _cut(points[pictures] * scale)))
    judged = np.zeros(people)
    # A log likelihood ratio grows with the square of a distance, which itself is about normal.
    least = min(evidence[usable].min(), min(merged))
    roots, found = np.sqrt(evidence[usable] - least), np.sqrt(np.array(merged) - least)
    judged[usable] = probability(roots, found, roots, PRIOR)
    return Mixed(judged, smaller)


def _cut(points: Floats) -> npt.NDArray[np.bool_]:
    """Cut into two clusters; true for the smaller."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # copies of one picture are one cluster
        parts = KMeans(2, n_init=5, random_state=0).fit_predict(points)
    return np.asarray(parts == int(parts.mean() < 0.5))


def _same(model: TwoCovariance, points: Floats, part: npt.NDArray[np.bool_]) -> float:
    """Log likelihood ratio that both parts are one person."""
    if part.all() or not part.any():
        return np.inf
    one, other = points[~part], points[part]
    n, m = np.array([float(len(one))]), np.array([float(len(other))])
    return float(model.log_ratio(one.mean(0)[None], n, other.mean(0)[None], m, _TELLING)[0, 0])
