"""Wrong pictures inside folders: how probably each shows somebody else than its folder says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.sparse import csr_array
from scipy.special import expit, logit

from siamese.auditing.likeness import Likeness, Pairs, find_neighbours
from siamese.auditing.mixed import Mixed, find_mixed
from siamese.auditing.threads import in_threads
from siamese.auditing.two_covariance import (
    Centred,
    Floats,
    Labels,
    Likelihoods,
    Rows,
    TwoCovariance,
    blocks_of,
    centred,
    fit_without,
    normalised,
    sums_by_label,
)

Watch = Callable[[Iterable[int], str], Iterable[int]]

_ROUNDS = 4
_FOLDS = 5
_CELLS = 2**20  # pictures x people that are looked at together
_SAMPLE = 8000
_TUNED_ON = 2000
_BEST = 256
_PRIOR_WRONG = 0.05
_PRIOR_PICTURES = 10.0  # how many pictures the prior of a folder's wrong share counts for
_NOBODY = 0.1  # of the wrong pictures, how many are of nobody in the folder
# Where their estimation starts, and what it is drawn to: one unit of a logarithm as one standard
# deviation.
_FACTORS = (0.25, 1.0)
_LABEL_NOISE = 0.1


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
        neighbours: which pictures are near which, sparse (N, N).
    """

    probability: Floats
    log_odds: Floats
    owner: Labels
    own_score: Floats
    owner_score: Floats
    mixed: Mixed
    neighbours: csr_array


# Two log likelihoods of each picture (rows) by each person (columns), the last: nobody, (n, P + 1):
# of the two-covariance model, less nobody's, and of how near the person's pictures are.
_Evidence = tuple[Rows, Rows]


def find_suspects(
    embeddings: npt.ArrayLike, labels: Labels, *, neighbours: csr_array | None = None,
    watch: Watch = lambda items, _: items,
) -> Suspicion:  # fmt: skip
    """How probably each picture shows somebody else than its folder's person.

    The embeddings of a weak model still tell people apart when each direction is weighed by what
    it says about people. So a two-covariance model is fitted to the folders; each picture is then
    held against its own folder without it, against every other folder and against people unknown,
    by that model and by its nearest pictures. Both are weighed so that they predict the given
    labels best, allowing some to be wrong (Guo et al., "On Calibration of Modern Neural Networks",
    2017, with label noise). No picture is judged by a model that was fitted to its label: that one
    has learnt it as its folder's, wrong or not (cross-validation in five folds). Pictures that
    seem wrong count less in the next round (EM), and each folder has a share of wrong pictures of
    its own, so that a folder with many does not hide them. The smaller part of a folder that
    probably holds two people starts as wrong; unless that second person has a folder, too, it
    mostly ends as right, and only ``mixed`` tells of it.

    Compare Northcutt et al., "Confident Learning", 2021.

    Args:
        embeddings: (N, D), finite; not all alike.
        labels: int64 (N,), values 0 ... P - 1, P at least 2.
        neighbours: of an earlier answer for these embeddings, to save the search.
        watch: wraps loops, given their name, for progress bars.
    """
    faces, folds = centred(embeddings), _folds(embeddings)
    sample = np.concatenate([rows[: _SAMPLE // _FOLDS] for rows in folds])
    mixed = find_mixed(faces, labels, watch=lambda people: watch(people, "cutting folders"))
    weights = np.ones(len(labels))
    weights[mixed.smaller] = 1 - mixed.probability[labels[mixed.smaller]]
    wrong = _wrong_shares(labels, weights)
    if neighbours is None:
        neighbours = _neighbours(faces, labels, weights, sample, watch)
    pairs = Pairs(neighbours, labels, sample)
    log_odds, owner = np.zeros(len(labels)), np.zeros(len(labels), np.int64)
    size = max(1, _CELLS // (len(wrong) + 1))
    for turn in range(_ROUNDS):
        judges = _Judges(faces, labels, weights, folds, pairs)
        factors = judges.tuned()
        words = f"comparing pictures, round {turn + 1} of {_ROUNDS}"
        for fold in watch(range(len(folds)), words):
            judge, rows = judges.of(fold), folds[fold]
            blocks = [rows[start : start + size] for start in range(0, len(rows), size)]
            found = in_threads(partial(judge.odds, wrong=wrong, factors=factors), blocks)
            for block, (odds, whom) in zip(blocks, found, strict=True):
                log_odds[block], owner[block] = odds, whom
        weights = 1 - expit(log_odds)
        wrong = _wrong_shares(labels, weights)
    own_score, owner_score = _typical_scores(faces, labels, weights, owner)
    return Suspicion(1 - weights, log_odds, owner, own_score, owner_score, mixed, neighbours)


def _neighbours(
    faces: Centred, labels: Labels, weights: Floats, sample: Labels, watch: Watch
) -> csr_array:
    """The pictures near each, in the coordinates of a model that is fitted to all."""
    model = fit_without(faces, labels, weights, [labels[:0]])[0]
    points = faces.rows @ model.axes.astype(np.float32)
    return find_neighbours(points, sample, watch=lambda at: watch(at, "finding neighbours"))


class _Judges:
    """A judge for each fold of the pictures, whose model was fitted to the others."""

    def __init__(
        self, faces: Centred, labels: Labels, weights: Floats, folds: Sequence[Labels], pairs: Pairs
    ):
        self._faces, self._labels, self._folds = faces, labels, folds
        self._given = labels, weights, pairs
        self._sums = sums_by_label(faces.rows, labels, weights)[0]
        self._models = fit_without(faces, labels, weights, folds)
        self._last: tuple[int, _Judge] | None = None

    def of(self, fold: int) -> _Judge:
        """The judge of a fold; one at a time, each holds all the pictures in its coordinates."""
        if self._last is None or self._last[0] != fold:
            model, self._last = self._models[fold], None
            points = self._faces.rows @ model.axes.astype(np.float32)
            self._last = fold, _Judge(model, points, self._sums @ model.axes, *self._given)
        return self._last[1]

    def tuned(self) -> Floats:
        """Factors of both kinds of evidence with which the given labels are predicted best.

        Of each picture the people that it looks most like stand for themselves, a random few of
        the others for all those.
        """
        samples = [rows[: _TUNED_ON // _FOLDS] for rows in self._folds]
        found = [
            _few(self.of(fold).evidence(rows), self._labels[rows])
            for fold, rows in enumerate(samples)
            if len(rows)
        ]
        first, second, stands_for = (np.concatenate(part) for part in zip(*found, strict=True))
        people = len(self._sums)
        total, part = np.empty(first.shape), np.empty(first.shape)

        def loss(at_point: Floats) -> float:
            np.multiply(first, np.exp(at_point[0]), out=total)
            np.multiply(second, np.exp(at_point[1]), out=part)
            np.add(total, part, out=total)
            own = total[:, 0].copy()
            np.add(total, stands_for, out=total)
            predicted = np.exp(own - _log_sum_exp(total))
            noise = expit(at_point[2])
            missed = -np.log((1 - noise) * predicted + noise / people).sum()
            # Where every label is predicted, the factors would grow without end.
            return float(missed + ((at_point - start) ** 2).sum() / 2) / len(own)

        start = np.append(np.log(_FACTORS), logit(_LABEL_NOISE))
        best = minimize(loss, start, method="Nelder-Mead", options={"maxiter": 120})
        return np.asarray(np.exp(best.x[:2]))


def _few(evidence: _Evidence, own: Labels) -> tuple[Rows, Rows, Floats]:
    """Evidence for a picture's own folder, the best others, and some of the rest, (n, K) each.

    The third is the logarithm of how many people each column stands for.
    """
    first, second = (kind[:, :-1] for kind in evidence)
    total = _FACTORS[0] * first + _FACTORS[1] * second
    total[np.arange(len(own)), own] = -np.inf
    people = total.shape[1]
    if people <= _BEST:
        best, some = np.argsort(-total, axis=1)[:, :-1], np.zeros(0, np.int64)
    else:
        best = np.argpartition(-total, _BEST, axis=1)[:, :_BEST]
        some = np.random.default_rng(0).permutation(people)[:_BEST]
    np.put_along_axis(total, best, -np.inf, 1)
    rest = total[:, some] > -np.inf
    each = np.log(max(people - 1 - best.shape[1], 1) / np.maximum(rest.sum(1), 1))
    columns = np.concatenate([own[:, None], best, np.repeat(some[None], len(own), 0)], 1)
    stands_for = np.zeros(columns.shape)
    stands_for[:, best.shape[1] + 1 :] = np.where(rest, each[:, None], -np.inf)
    one, other = (np.take_along_axis(kind, columns, 1) for kind in (first, second))
    return one, other, stands_for


class _Judge:
    """Holds pictures against all folders; see :func:`find_suspects`."""

    def __init__(
        self, model: TwoCovariance, points: Rows, sums: Floats, labels: Labels, weights: Floats,
        pairs: Pairs,
    ):  # fmt: skip
        self.model, self.points, self.labels, self.weights = model, points, labels, weights
        self.sums = sums
        self.counts = np.bincount(labels, weights, len(sums)).astype(np.float64)
        self.likelihoods = Likelihoods(model, sums, self.counts)
        self.likeness = Likeness(points, labels, weights, pairs)

    def odds(self, rows: Labels, wrong: Floats, factors: Floats) -> tuple[Floats, Labels]:
        """Log odds that pictures are wrong, and whom each looks like beside its own."""
        total, near = self.evidence(rows)
        total *= np.float32(factors[0])
        near *= np.float32(factors[1])
        total += near
        at, own = np.arange(len(rows)), self.labels[rows]
        kept = total[at, own].astype(np.float64)
        people = total.shape[1] - 1
        total[at, own] = -np.inf
        total[:, :-1] += np.float32(np.log((1 - _NOBODY) / max(people - 1, 1)))
        total[:, -1] += np.float32(np.log(_NOBODY))
        share = wrong[own]
        owner = total.argmax(1)
        odds = _log_sum_exp(total) + np.log(share) - kept - np.log1p(-share)
        return odds, np.where(owner == people, -1, owner)

    def evidence(self, rows: Labels) -> _Evidence:
        """Every picture leaves its own folder before it is held against it."""
        points, own, weight = self.points[rows], self.labels[rows], self.weights[rows]
        at, nobody = np.arange(len(rows)), (np.zeros((1, points.shape[1])), np.zeros(1))
        by_model = np.zeros((len(rows), len(self.counts) + 1), np.float32)
        by_model[:, :-1] = self.likelihoods(points)
        by_model[at, own] = (
            self.model.log_likelihood_own(
                points, self.sums[own] - weight[:, None] * points, self.counts[own] - weight
            )
            - self.model.log_likelihood(points.astype(np.float64), *nobody)[:, 0]
        )
        near = np.empty_like(by_model)
        sums = self.likeness(rows)
        # One picture's worth of background: a folder of few pictures says little by silence.
        near[:, -1] = sums.sum(1) / max(self.counts.sum(), 1e-9) + np.float32(1e-30)
        np.add(sums, near[:, -1:], out=near[:, :-1])
        np.log(near, out=near)
        near[:, :-1] -= np.log1p(self.counts).astype(np.float32)
        near[at, own] += np.log1p(self.counts[own]) - np.log1p(self.counts[own] - weight)
        return by_model, near


def _folds(embeddings: npt.ArrayLike) -> list[Labels]:
    """The pictures' positions in random parts, the same in whatever order the pictures come."""
    rng = np.random.default_rng(0)
    given = np.asarray(embeddings)
    towards = rng.normal(size=given.shape[1])
    places = [normalised(given[block]) @ towards for block in blocks_of(len(given))]
    order = np.argsort(np.concatenate(places), kind="stable")
    return np.array_split(order[rng.permutation(len(given))], _FOLDS)


def _wrong_shares(labels: Labels, weights: Floats) -> Floats:
    """Each folder's share of wrong pictures, (P,): those expected, and what is usual."""
    expected = np.bincount(labels, 1 - weights) + _PRIOR_WRONG * _PRIOR_PICTURES
    return np.asarray(expected / (np.bincount(labels) + _PRIOR_PICTURES))


def _log_sum_exp(values: Floats | Rows) -> Floats:
    """Of each row, (n,); the values are lost. scipy's takes five times as long."""
    most = values.max(1)
    values -= most[:, None]
    np.exp(values, out=values)
    return np.asarray(most + np.log(values.sum(1)))


def _typical_scores(
    faces: Centred, labels: Labels, weights: Floats, owner: Labels
) -> tuple[Floats, Floats]:
    sums, counts = sums_by_label(faces.rows, labels, weights)
    sums += counts[:, None] * faces.centre
    own, other = np.empty(len(labels)), np.empty(len(labels))
    for block in blocks_of(len(labels)):
        rows = faces.unit(block)
        rest = sums[labels[block]] - weights[block, None] * rows
        own[block] = (rows * normalised(rest)).sum(1)
        other[block] = (rows * normalised(sums[owner[block]])).sum(1)
    return own, np.where(owner < 0, np.nan, other)
