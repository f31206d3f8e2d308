"""Wrong pictures inside folders: how probably each shows somebody else than its folder says."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit, logit

from siamese.auditing.mixed import Mixed, find_mixed
from siamese.auditing.two_covariance import (
    Floats,
    Labels,
    TwoCovariance,
    fit,
    membership,
    normalised,
    sums_by_label,
)

Watch = Callable[[Iterable[int], str], Iterable[int]]

_ROUNDS = 4
_ROWS = 512
_TUNED_ON = 2000
_PRIOR_WRONG = 0.05
_PRIOR_PICTURES = 10.0  # how many pictures the prior of a folder's wrong share counts for
_NOBODY = 0.1  # of the wrong pictures, how many are of nobody in the folder
_LABEL_NOISE = 0.1  # where its estimation starts


@dataclass(frozen=True)
class Suspicion:
    """What is known of every picture, (N,) each.

    Attributes:
        probability: that it shows somebody else than its folder's person, in [0, 1].
        log_odds: the same without an end to its scale, for ranking.
        owner: the label it looks most like, other than its own; -1: like nobody's.
        own_score: cosine to its folder's typical face, which it takes no part in.
        owner_score: cosine to the typical face of ``owner``; NaN for nobody's.
        mixed: the folders that hold two people.
        model: the fitted model.
    """

    probability: Floats
    log_odds: Floats
    owner: Labels
    own_score: Floats
    owner_score: Floats
    mixed: Mixed
    model: TwoCovariance


@dataclass(frozen=True)
class _Evidence:
    """Two log likelihoods of each picture (rows) by each person (columns), the last: nobody.

    Attributes:
        model: of the two-covariance model, (n, P + 1).
        neighbours: of how near the person's pictures are, (n, P + 1).
    """

    model: Floats
    neighbours: Floats


def find_suspects(
    embeddings: npt.ArrayLike, labels: Labels, *, watch: Watch = lambda items, _: items
) -> Suspicion:
    """How probably each picture shows somebody else than its folder's person.

    The embeddings of a weak model still tell people apart when each direction is weighed by what
    it says about people. So a two-covariance model is fitted to the folders; each picture is then
    held against its own folder without it, against every other folder and against people unknown,
    by that model and by its nearest pictures. Both are weighed so that they predict the given
    labels best, allowing some to be wrong (Guo et al., "On Calibration of Modern Neural Networks",
    2017, with label noise). Pictures that seem wrong count less in the next round (EM), and each
    folder has a share of wrong pictures of its own, so that a folder with many does not hide them.
    The smaller part of a folder that probably holds two people starts as wrong.

    Compare Northcutt et al., "Confident Learning", 2021.

    Args:
        embeddings: (N, D), finite; not all alike.
        labels: int64 (N,), values 0 ... P - 1, P at least 2.
        watch: wraps loops, given their name, for progress bars.
    """
    every = np.arange(len(labels))
    weights = np.ones(len(labels))
    model = fit(embeddings, labels, weights)
    mixed = find_mixed(
        model, model.coordinates(embeddings), labels, watch=lambda p: watch(p, "cutting folders")
    )
    weights[mixed.smaller] = 1 - mixed.probability[labels[mixed.smaller]]
    wrong = _wrong_shares(labels, weights)
    log_odds, owner = np.zeros(len(labels)), np.zeros(len(labels), np.int64)
    for turn in range(_ROUNDS):
        model = fit(embeddings, labels, weights)
        judge = _Judge(model, model.coordinates(embeddings), labels, weights)
        judge.tune()
        blocks = range(0, len(labels), _ROWS)
        for start in watch(blocks, f"comparing pictures, round {turn + 1} of {_ROUNDS}"):
            rows = every[start : start + _ROWS]
            log_odds[rows], owner[rows] = judge.odds(rows, wrong)
        weights = 1 - expit(log_odds)
        wrong = _wrong_shares(labels, weights)
    own_score, owner_score = _typical_scores(embeddings, labels, weights, owner)
    return Suspicion(1 - weights, log_odds, owner, own_score, owner_score, mixed, model)


class _Judge:
    """Holds pictures against all folders; see :func:`find_suspects`."""

    def __init__(self, model: TwoCovariance, points: Floats, labels: Labels, weights: Floats):
        self.model, self.points, self.labels, self.weights = model, points, labels, weights
        self.sums, self.counts = sums_by_label(points, labels, weights)
        self.directions = normalised(points).astype(np.float32)
        self.members = membership(labels, weights).astype(np.float32)
        # Cosines of unrelated directions spread by 1 / sqrt(D).
        self.sharpness = np.float32(np.sqrt(2 * points.shape[1]))
        self.factors = np.array([0.25, 1.0])

    def tune(self) -> None:
        """Weigh both kinds of evidence so that the given labels are predicted best."""
        rows = np.random.default_rng(_TUNED_ON).permutation(len(self.labels))[:_TUNED_ON]
        at, own = np.arange(len(rows)), self.labels[rows]
        parts = [self._evidence(rows[a : a + _ROWS]) for a in range(0, len(rows), _ROWS)]
        stacked = np.stack(
            [
                np.concatenate([part.model[:, :-1] for part in parts]),
                np.concatenate([part.neighbours[:, :-1] for part in parts]),
            ]
        )
        del parts
        stacked -= stacked.mean(2, keepdims=True)
        total, part = np.empty(stacked[0].shape), np.empty(stacked[0].shape)

        def loss(at_point: Floats) -> float:
            np.multiply(stacked[0], np.exp(at_point[0]), out=total)
            np.multiply(stacked[1], np.exp(at_point[1]), out=part)
            np.add(total, part, out=total)
            told = np.exp(total[at, own] - _log_sum_exp(total))
            noise = expit(at_point[2])
            return float(-np.log((1 - noise) * told + noise / total.shape[1]).mean())

        start = np.append(np.log(self.factors), logit(_LABEL_NOISE))
        found = minimize(loss, start, method="Nelder-Mead", options={"maxiter": 120})
        self.factors = np.exp(found.x[:2])

    def odds(self, rows: Labels, wrong: Floats) -> tuple[Floats, Labels]:
        """Log odds that pictures are wrong, and whom each looks like beside its own."""
        evidence = self._evidence(rows)
        total = self.factors[0] * evidence.model + self.factors[1] * evidence.neighbours
        at, own = np.arange(len(rows)), self.labels[rows]
        kept = total[at, own].copy()
        people = total.shape[1] - 1
        total[at, own] = -np.inf
        total[:, :-1] += np.log((1 - _NOBODY) / max(people - 1, 1))
        total[:, -1] += np.log(_NOBODY)
        share = wrong[own]
        owner = total.argmax(1)
        odds = _log_sum_exp(total) + np.log(share) - kept - np.log1p(-share)
        return odds, np.where(owner == people, -1, owner)

    def _evidence(self, rows: Labels) -> _Evidence:
        """Every picture leaves its own folder before it is held against it."""
        points, own, weight = self.points[rows], self.labels[rows], self.weights[rows]
        at = np.arange(len(rows))
        by_model = np.empty((len(rows), len(self.counts) + 1))
        by_model[:, :-1] = self.model.log_likelihood(points, self.sums, self.counts)
        nobody = np.zeros((1, points.shape[1])), np.zeros(1)
        by_model[:, -1:] = self.model.log_likelihood(points, *nobody)
        by_model[at, own] = self.model.log_likelihood_own(
            points, self.sums[own] - weight[:, None] * points, self.counts[own] - weight
        )
        kernel = self.directions @ self.directions[rows].T
        kernel -= 1
        kernel *= self.sharpness
        np.exp(kernel, out=kernel)
        kernel[rows, at] = 0.0
        sums = np.asarray(self.members @ kernel, np.float64).T
        counts = np.repeat(self.counts[None], len(rows), 0)
        counts[at, own] -= weight
        background = sums.sum(1) / max(self.counts.sum(), 1e-9)
        near = np.empty_like(by_model)
        # One picture's worth of background: a folder of few pictures says little by silence.
        near[:, :-1] = np.log(sums + background[:, None] + 1e-30) - np.log(counts + 1)
        near[:, -1] = np.log(background + 1e-30)
        return _Evidence(by_model, near)


def _wrong_shares(labels: Labels, weights: Floats) -> Floats:
    """Each folder's share of wrong pictures, (P,): those expected, and what is usual."""
    expected = np.bincount(labels, 1 - weights) + _PRIOR_WRONG * _PRIOR_PICTURES
    return np.asarray(expected / (np.bincount(labels) + _PRIOR_PICTURES))


def _log_sum_exp(values: Floats) -> Floats:
    """Of each row, (n,); the values are lost. scipy's takes five times as long."""
    most = values.max(1)
    values -= most[:, None]
    np.exp(values, out=values)
    return np.asarray(most + np.log(values.sum(1)))


def _typical_scores(
    embeddings: npt.ArrayLike, labels: Labels, weights: Floats, owner: Labels
) -> tuple[Floats, Floats]:
    rows = normalised(embeddings)
    sums, _ = sums_by_label(rows, labels, weights)
    own = (rows * normalised(sums[labels] - weights[:, None] * rows)).sum(1)
    other = (rows * normalised(sums)[owner]).sum(1)
    return own, np.where(owner < 0, np.nan, other)
