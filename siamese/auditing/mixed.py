"""Two people under one name: folders that fall into two clusters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit
from scipy.stats import norm

from siamese.auditing.two_covariance import (
    Centred,
    Floats,
    Labels,
    TwoCovariance,
    centred,
    fit_without,
)

# How often a folder holds two people, before it is looked at.
PRIOR = 0.05
_LEAST_PICTURES = 6
_MERGED_SHARE = 0.3
_MERGERS = 200
_TELLING = 10.0
_FOLDS = 10
_STEPS = 300

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
    embeddings: npt.ArrayLike | Centred, labels: Labels, *, watch: Watch = iter
) -> Mixed:
    """Find folders that hold two people.

    Each folder is cut in two by k-means; the evidence is the likelihood ratio that the parts are
    two people rather than one. What it means is learnt here: from the folders as they are, of
    which few are mixed, and from folders into which pictures of another one were put. From
    four such folders on none is judged by a model that was fitted to it: to that one, two people
    under one name are what pictures of one person look like (cross-validation in up to ten folds
    of people).

    Args:
        embeddings: (N, D), finite.
        labels: int64 (N,), values 0 ... P - 1.
        watch: wraps the loop over people, for a progress bar.
    """
    people = int(labels.max()) + 1
    own = _pictures(labels)
    usable = np.array([p for p in range(people) if len(own[p]) >= _LEAST_PICTURES], np.int64)
    smaller, judged = np.zeros(len(labels), bool), np.zeros(people)
    if len(usable) < 2:
        return Mixed(judged, smaller)
    rng = np.random.default_rng(0)
    folds = np.array_split(rng.permutation(usable), min(_FOLDS, len(usable) // 2))
    order, fold_of = np.concatenate(folds), np.repeat(np.arange(len(folds)), [*map(len, folds)])
    mergers = min(_MERGERS, 4 * len(order)) * np.arange(len(order) + 1) // len(order)
    faces = embeddings if isinstance(embeddings, Centred) else centred(embeddings)
    unseen = folds if len(folds) > 1 else [usable[:0]]
    parts = [np.flatnonzero(np.isin(labels, fold)) for fold in unseen]
    models = fit_without(faces, labels, np.ones(len(labels)), parts)
    evidence, merged = np.zeros(people), []
    for at in watch(range(len(order))):
        person, fold, model = order[at], folds[fold_of[at]], models[fold_of[at]]
        smaller[own[person]], evidence[person] = _cut_pictures(faces, own[person], model)
        added = max(2, round(len(own[person]) * _MERGED_SHARE / (1 - _MERGED_SHARE)))
        for _ in range(mergers[at + 1] - mergers[at]):
            strangers = rng.permutation(own[rng.choice(fold[fold != person])])[:added]
            both = np.concatenate([own[person], strangers])
            merged.append(_cut_pictures(faces, both, model)[1])
    # A log likelihood ratio grows with the square of a distance, which itself is about normal.
    cut = usable[np.isfinite(evidence[usable])]
    found = np.array(merged)[np.isfinite(merged)]
    if len(cut) and len(found):
        least = min(evidence[cut].min(), found.min())
        roots = np.sqrt(evidence[cut] - least)
        judged[cut] = probability(roots, np.sqrt(found - least), roots, PRIOR)
    return Mixed(judged, smaller)


def _cut_pictures(
    faces: Centred, pictures: Labels, model: TwoCovariance
) -> tuple[npt.NDArray[np.bool_], float]:
    """Which pictures are in the smaller part, and the evidence that it is somebody else."""
    points = faces.rows[pictures] @ model.axes
    part = _cut(points * np.sqrt(model.ratio / (model.ratio + 1)))  # what tells people apart
    if part.all() or not part.any():  # copies of one picture
        return part, -np.inf
    one, other = points[~part], points[part]
    n, m = np.array([float(len(one))]), np.array([float(len(other))])
    same = model.log_ratio(one.mean(0)[None], n, other.mean(0)[None], m, _TELLING)
    return part, -float(same[0, 0])


def _pictures(labels: Labels) -> list[Labels]:
    """Positions of every person's pictures."""
    order = np.argsort(labels, kind="stable")
    cuts = np.searchsorted(labels[order], np.arange(int(labels.max()) + 2))
    return [order[a:b] for a, b in pairwise(cuts)]


def _cut(points: Floats) -> npt.NDArray[np.bool_]:
    """Cut into two clusters, the best of five k-means side by side; true for the smaller.

    From the starts of scikit-learn's ``KMeans(2, n_init=5, random_state=0)`` (greedy k-means++),
    which takes many times as long for a dozen pictures.
    """
    chance = np.random.RandomState(0).random_sample((5, 3))
    n, squares, row = len(points), (points**2).sum(1), np.arange(5)

    def apart(picked: Labels) -> Floats:
        lengths = squares[picked][..., None] + squares
        return np.asarray(np.maximum(lengths - 2 * points[picked] @ points.T, 0))

    first = (chance[:, 0] * n).astype(np.int64)
    near = apart(first)
    reach = near.cumsum(1)
    tried = (reach[:, None] < chance[:, 1:, None] * reach[:, -1, None, None]).sum(2)
    tried = np.minimum(tried, n - 1)
    second = tried[row, np.minimum(apart(tried), near[:, None]).sum(2).argmin(1)]
    part = apart(second) < near
    for _ in range(_STEPS):
        count, total = part.sum(1)[:, None], part.astype(points.dtype) @ points
        one = total / np.maximum(count, 1)
        other = (points.sum(0) - total) / np.maximum(n - count, 1)
        before, middle = part, ((one**2).sum(1) - (other**2).sum(1)) / 2
        part = (one - other) @ points.T > middle[:, None]
        if (part == before).all():
            break
    kept = count[:, 0] * (one**2).sum(1) + (n - count[:, 0]) * (other**2).sum(1)
    best = part[(kept >= kept.max() * (1 - 1e-12)).argmax()]
    return np.asarray(best == (best.mean() < 0.5))


def probability(
    evidence: npt.ArrayLike, present: npt.ArrayLike, absent: npt.ArrayLike, prior: float
) -> Floats:
    """Probability of what the evidence, of any shape, speaks for; rises with it.

    Two normal distributions are laid through quantiles that a minority of contrary cases does not
    move: one of evidence where it is so (``present``, at least one value), one where it mostly is
    not (``absent``). How often it is so (``prior``, in (0, 1)) is not estimated: where the two
    overlap, that climbs to anything.
    """
    low, middle, high = np.quantile(np.asarray(present, np.float64), [0.16, 0.5, 0.84])
    below, centre = np.quantile(np.asarray(absent, np.float64), [0.16, 0.5])
    # The hidden cases are all above: only the lower side tells how absent values scatter.
    narrow = max(centre - below, 1e-6)
    wide = max((high - low) / 2, narrow)
    raised = np.maximum(evidence, centre)  # below, the wider distribution would win again
    so = norm.logpdf(raised, max(middle, centre), wide)
    return np.asarray(expit(so - norm.logpdf(raised, centre, narrow) + logit(prior)))
