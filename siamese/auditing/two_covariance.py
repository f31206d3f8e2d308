"""The two-covariance model of embeddings: how people differ, and how pictures of one person do.

An embedding is a person's own point plus the picture's deviation, both Gaussian. Ioffe,
"Probabilistic Linear Discriminant Analysis", ECCV 2006; Bruemmer & de Villiers, "The speaker
partitioning problem", Odyssey 2010.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.polynomial.chebyshev import chebinterpolate, chebvander
from scipy.linalg import eigh
from scipy.sparse import csr_array

from siamese.auditing.threads import in_threads

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Rows = npt.NDArray[np.float32]

_LEAST_RATIO = 1e-4  # a dimension in which people do not differ
_PICTURES_PER_DIMENSION = 5
_ROWS = 8192
_POLYNOMIALS = 24
_BELIEVED = 3.0  # fitted variances count for so many cut folders per picture per dimension


@dataclass(frozen=True)
class TwoCovariance:
    """The fitted model. In its coordinates deviations have variance 1 in every dimension.

    Attributes:
        centre: mean embedding, (D,).
        axes: columns are the directions of the d coordinates, (D, d).
        ratio: variance between people in each coordinate, (d,), in units of the deviations'.
    """

    centre: Floats
    axes: Floats
    ratio: Floats

    def coordinates(self, embeddings: npt.ArrayLike) -> Floats:
        """L2-normalised embeddings (N, D) in the model's coordinates, (N, d)."""
        given = np.asarray(embeddings)
        points = np.empty((len(given), self.axes.shape[1]))
        for block in blocks_of(len(given)):
            points[block] = (normalised(given[block]) - self.centre) @ self.axes
        return points

    def log_likelihood(self, points: Floats, sums: Floats, counts: Floats) -> Floats:
        """How well points (N, d) fit to people: (N, P), log densities without the constant.

        ``sums`` (P, d) and ``counts`` (P,) are each person's sum of coordinates (weighted, where
        pictures are) and number (or weight) of pictures; 0: nobody known.
        """
        mean, variance = self.predicted(sums, counts)
        precision = 1 / variance
        distance = (points**2) @ precision.T - 2 * points @ (mean * precision).T
        constant = (mean**2 * precision).sum(1) + np.log(variance).sum(1)
        return np.asarray(-0.5 * (distance + constant))

    def log_likelihood_own(self, points: Rows | Floats, sums: Floats, counts: Floats) -> Floats:
        """The same for one person per point: sums (N, d) and counts (N,) give (N,)."""
        mean, variance = self.predicted(sums, counts)
        return np.asarray(-0.5 * ((points - mean) ** 2 / variance + np.log(variance)).sum(1))

    def predicted(self, sums: Floats | float, counts: Floats) -> tuple[Floats, Floats]:
        """Mean and variance of a further picture of each person."""
        gain = self.ratio / (counts[:, None] * self.ratio + 1)
        return gain * sums, gain + 1

    def log_ratio(self, first: Floats, n: Floats, second: Floats, m: Floats, most: float) -> Floats:
        """Evidence that two groups of pictures show one person rather than two, all with all.

        Args:
            first: (N, d), means of the groups' coordinates.
            n: (N,), their numbers of pictures.
            second: (M, d).
            m: (M,).
            most: how many pictures of a group count: pictures come in series, and beyond so many
                they tell little more about the person.

        Returns:
            (N, M), natural logarithms of the likelihood ratios.
        """
        n, m = (np.clip(np.rint(c), 1, most) for c in (n, m))
        result = np.empty((len(first), len(second)))
        for a in np.unique(n):
            left = a * first[n == a]
            for b in np.unique(m):
                right = b * second[m == b]
                gain, spread = self.ratio / ((a + b) * self.ratio + 1), (a + b) * self.ratio + 1
                squares = (left**2 @ gain)[:, None] + (right**2 @ gain)[None]
                joint = 0.5 * (squares + 2 * (left * gain) @ right.T - np.log(spread).sum())
                apart = self._evidence(left, a)[:, None] + self._evidence(right, b)[None]
                result[np.ix_(n == a, m == b)] = joint - apart
        return result

    def _evidence(self, sums: Floats, count: float) -> Floats:
        """Log density of groups of one size, (N, d) to (N,), less what no person changes."""
        spread = count * self.ratio + 1
        return np.asarray(0.5 * (sums**2 @ (self.ratio / spread) - np.log(spread).sum()))


class Likelihoods:
    """How much better points fit to each person than to nobody known, by one float32 product.

    In it stand the squares of a point, times precisions. These are a smooth function of a person's
    number of pictures, for each dimension: 24 Chebyshev polynomials give them to seven digits.

    Args:
        model: the coordinates' model.
        sums: (P, d), as of :meth:`TwoCovariance.log_likelihood`.
        counts: (P,), at least 0.
    """

    def __init__(self, model: TwoCovariance, sums: Floats, counts: Floats):
        order = np.log1p(counts)
        low, half = order.min(), max(np.ptp(order) / 2, 1e-3)
        nobody = 1 / (model.ratio + 1)

        def precisions(at: Floats) -> Floats:
            return 1 / model.predicted(0.0, np.expm1(low + half * (at + 1)))[1] - nobody

        weights = chebinterpolate(precisions, _POLYNOMIALS)  # type: ignore[type-var]
        self._weights = np.asarray(weights, np.float32)
        mean, variance = model.predicted(sums, counts)
        constant = (mean**2 / variance).sum(1) + np.log(variance * nobody).sum(1)
        powers = chebvander((order - low) / half - 1, _POLYNOMIALS)
        people = mean / variance, -0.5 * powers, -0.5 * constant[:, None]
        self._people = np.concatenate(people, 1).astype(np.float32)

    def __call__(self, points: Rows) -> Rows:
        """Logarithms of the likelihood ratios, points (n, d) with people (n, P)."""
        ones = np.ones((len(points), 1), np.float32)
        return np.concatenate([points, points**2 @ self._weights.T, ones], 1) @ self._people.T


def normalised(embeddings: npt.ArrayLike) -> Floats:
    """Rows of length 1, float64 (N, D); a row of zeros stays."""
    rows = np.asarray(embeddings, np.float64)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


@dataclass(frozen=True)
class Centred:
    """L2-normalised embeddings less their mean: float32 ``rows`` (N, D), and ``centre`` (D,).

    ``covariance`` (D, D) is that of all the rows, of whatever weight.
    """

    rows: Rows
    centre: Floats
    covariance: Floats

    def unit(self, block: slice) -> Floats:
        """Some of the L2-normalised embeddings themselves, float64."""
        return np.asarray(self.rows[block] + self.centre)


def centred(embeddings: npt.ArrayLike) -> Centred:
    """Embeddings (N, D), finite, as models are fitted to them."""
    given = np.asarray(embeddings)
    rows = np.empty(given.shape, np.float32)
    centre = sum(normalised(given[block]).sum(0) for block in blocks_of(len(rows))) / len(rows)
    for block in blocks_of(len(rows)):
        rows[block] = normalised(given[block]) - centre
    return Centred(rows, centre, _scatter(rows, np.ones(len(rows))) / len(rows))


def fit(embeddings: npt.ArrayLike, labels: Labels, weights: Floats) -> TwoCovariance:
    """Fit the model to labelled embeddings, each counted by its weight.

    Covariances are shrunk as Ledoit & Wolf, "A well-conditioned estimator for large-dimensional
    covariance matrices", 2004: those of pictures towards a sphere, those of people, who are few,
    towards the covariance of everything. Where pictures are fewer than five per dimension, only
    the principal components of everything are looked at, as many as a fifth of the pictures.

    Args:
        embeddings: (N, D), finite.
        labels: int64 (N,), values 0 ... P - 1.
        weights: (N,), in [0, 1].
    """
    return fit_without(centred(embeddings), labels, weights, [labels[:0]])[0]


def fit_without(
    faces: Centred, labels: Labels, weights: Floats, parts: Sequence[Labels]
) -> list[TwoCovariance]:
    """For each part (positions of pictures) the model that is fitted to all the others.

    The scatter of everything is summed once; a part's own is taken off.
    """
    people = int(labels.max()) + 1
    scatter, sums = _scatter(faces.rows, weights), sums_by_label(faces.rows, labels, weights)[0]

    def fitted(part: Labels) -> TwoCovariance:
        seen = weights.copy()
        seen[part] = 0.0
        if seen.sum() < 1:  # where no picture is believed, all are
            return fit_without(faces, labels, np.ones(len(labels)), [part[:0]])[0]
        rows, less = faces.rows[part], _rows_of(labels[part], weights[part], people)
        rest = scatter - _scatter(rows, weights[part]), sums - less @ rows
        return _fitted(faces, labels, seen, *rest)

    return list(in_threads(fitted, parts))


def _fitted(
    faces: Centred, labels: Labels, weights: Floats, scatter: Floats, sums: Floats
) -> TwoCovariance:
    """The model of pictures with these weights, and the sums of them: (D, D) and (P, D)."""
    everything = faces.covariance
    basis = _principal(everything, max(1, int(weights.sum() / _PICTURES_PER_DIMENSION)))
    if basis is not None:
        everything, scatter = basis.T @ everything @ basis, basis.T @ scatter @ basis
        sums = sums @ basis
    counts = np.bincount(labels, weights, len(sums))
    known = counts > 1e-6
    means = np.where(known[:, None], sums / np.maximum(counts, 1e-6)[:, None], 0.0)
    held = np.sqrt(counts)[:, None] * means
    # Of a deviation's variance a mean keeps 1 / (number of pictures) where all weigh alike; of one
    # picture all of it, however little that picture weighs.
    kept = np.bincount(labels, weights**2)[known] / counts[known] ** 2
    freedom = max(weights.sum() - (kept * counts[known]).sum(), 1.0)
    squares = weights * _squares(faces.rows, basis, means, labels)
    within = _shrunk(scatter - held.T @ held, squares, freedom, None)
    people = means[known] - means[known].mean(0)
    squares, freedom = (people**2).sum(1), max(len(people) - 1, 1)
    between = _shrunk(people.T @ people, squares, freedom, everything)
    between = between - within * np.mean(kept)
    ratio, axes = eigh(between, within)
    axes = axes if basis is None else basis @ axes
    return TwoCovariance(faces.centre, axes, np.maximum(ratio, _LEAST_RATIO))


def fit_to_halves(embeddings: npt.ArrayLike, labels: Labels, weights: Floats) -> TwoCovariance:
    """Fit the model for comparing folders with folders: from random halves of each.

    A fitted model has chosen directions in which the means of these people lie far apart, and has
    taken for a difference between people what is chance: two folders of one person then look like
    two people. Halves of folders are such cases, so the variances are measured again by their
    means; the fitted ones count as much as many pictures per dimension make them worth.

    Arguments as of :func:`fit`.
    """
    model = fit(embeddings, 2 * labels + places(labels) % 2, weights)
    one, other, n, m = means_of_halves(model.coordinates(embeddings), labels, weights)
    usable = (n > 0.5) & (m > 0.5)
    one, other, n, m = one[usable], other[usable], n[usable], m[usable]
    apart = ((one - other) ** 2 / (1 / n + 1 / m)[:, None]).sum(0)
    together = (one * other).sum(0)
    believed = _BELIEVED * max(weights.sum(), 1.0) / len(model.ratio)
    within = (apart + believed) / (len(one) + believed)
    between = (together + believed * model.ratio) / (len(one) + believed)
    ratio = np.maximum(between / within, _LEAST_RATIO)
    return TwoCovariance(model.centre, model.axes / np.sqrt(within), ratio)


def means_of_halves(
    points: Floats, labels: Labels, weights: Floats, *, most: float = np.inf
) -> tuple[Floats, Floats, Floats, Floats]:
    """Means of a first and of a second half of each folder (P, d), and their sums of weights (P,).

    The halves are random, those that :func:`fit_to_halves` takes; of each second half ``most``
    pictures are taken.
    """
    place = places(labels)
    taken = (place % 2 == 0) | (place // 2 < most)
    means, counts = means_by_label(points, 2 * labels + place % 2, weights * taken)
    if len(counts) % 2:  # the last folder has one picture
        means, counts = np.pad(means, ((0, 1), (0, 0))), np.pad(counts, (0, 1))
    return means[::2], means[1::2], counts[::2], counts[1::2]


def places(labels: Labels) -> Labels:
    """Each picture's place in its folder, from 0, at random."""
    order = np.lexsort((np.random.default_rng(0).random(len(labels)), labels))
    place = np.empty(len(labels), np.int64)
    place[order] = np.arange(len(labels)) - np.searchsorted(labels[order], labels[order])
    return place


def _principal(covariance: Floats, most: int) -> Floats | None:
    """Directions of the largest variance (D, most); None where there are no more dimensions."""
    size = len(covariance)
    if most >= size:
        return None
    return np.asarray(eigh(covariance, subset_by_index=[size - most, size - 1])[1])


def _shrunk(scatter: Floats, squares: Floats, freedom: float, towards: Floats | None) -> Floats:
    """Shrink a covariance towards a sphere, or a given shape, of the same trace.

    ``scatter`` (D, D) sums the outer products of n rows, ``squares`` (n,) are their squared
    lengths: all that Ledoit and Wolf's amount needs.
    """
    covariance = scatter / freedom
    size, n = np.trace(covariance), len(squares)
    shape = np.eye(len(covariance)) if towards is None else towards
    target = shape * (size / max(np.trace(shape), 1e-12))
    spread = (scatter**2).sum() / n**2
    apart = spread - (np.trace(scatter) / n) ** 2 / len(scatter)
    noise = ((squares**2).sum() / n - spread) / n
    amount = np.clip(noise / max(apart, 1e-300), 0, 1) if n > 1 else 1.0
    mixed = (1 - amount) * covariance + amount * target
    return np.asarray(mixed + np.eye(len(covariance)) * max(1e-9, 1e-6 * size / len(covariance)))


def blocks_of(count: int) -> list[slice]:
    """Parts of so many rows: of a whole no copy is made."""
    return [slice(start, start + _ROWS) for start in range(0, count, _ROWS)]


def _scatter(rows: Rows, weights: Floats) -> Floats:
    """Weighted sum of the rows' outer products, (D, D)."""
    total = np.zeros((rows.shape[1],) * 2)
    for block in blocks_of(len(rows)):
        one = np.sqrt(weights[block])[:, None] * rows[block]
        total += one.T @ one
    return total


def _squares(rows: Rows, basis: Floats | None, means: Floats, labels: Labels) -> Floats:
    """Squared distance of each row, in the basis, to the mean of its label, (N,)."""
    squares = np.empty(len(rows))
    for block in blocks_of(len(rows)):
        one = rows[block] if basis is None else rows[block] @ basis
        squares[block] = ((one - means[labels[block]]) ** 2).sum(1)
    return squares


def sums_by_label(rows: Rows | Floats, labels: Labels, weights: Floats) -> tuple[Floats, Floats]:
    """Weighted sums of the rows (P, D) and sums of the weights (P,), by label."""
    people = int(labels.max()) + 1
    sums = np.zeros((people, rows.shape[1]))
    for block in blocks_of(len(rows)):
        sums += _rows_of(labels[block], weights[block], people) @ rows[block]
    return sums, np.bincount(labels, weights, people).astype(np.float64)


def means_by_label(rows: Floats, labels: Labels, weights: Floats) -> tuple[Floats, Floats]:
    """Weighted means of the rows (P, D), 0 without weight, and sums of the weights (P,)."""
    sums, counts = sums_by_label(rows, labels, weights)
    return sums / np.maximum(counts, 1e-9)[:, None], counts


def membership(labels: Labels, weights: Floats) -> csr_array:
    """Sparse (P, N): row p holds the weights of person p's pictures."""
    return _rows_of(labels, weights, int(labels.max()) + 1)


def _rows_of(labels: Labels, weights: Floats, people: int) -> csr_array:
    at = np.arange(len(labels))
    return csr_array((weights, (labels, at)), shape=(people, len(labels)))
