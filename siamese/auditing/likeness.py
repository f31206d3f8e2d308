"""How like every person's pictures a picture is: exactly where near, by a sample where far."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, eye_array

from siamese.auditing.two_covariance import Floats, Labels, Rows, membership, places

_NEIGHBOURS = 100  # of each picture, about
_OF_FOLDER = 100  # pictures of its folder at most that each is held against
_ROWS, _COLUMNS = 256, 8192

Watch = Callable[[Iterable[int]], Iterable[int]]


def find_neighbours(points: Rows, sample: Labels, *, watch: Watch = iter) -> csr_array:
    """Each picture's nearest others by cosine, as a sparse pattern (N, N).

    Nearest are those that are as near as the first few of the sample are, so that they are about
    a hundred: one pass over all pairs without sorting them.

    Args:
        points: float32 (N, d).
        sample: positions of pictures, at random. Where that is all of them, nobody is near.
        watch: wraps the loop over pictures, for a progress bar.
    """
    count = len(points)
    if len(sample) == count:
        return csr_array((count, count), dtype=bool)
    unit = points * _inverse_lengths(points)[:, None]
    wanted = max(1, round(_NEIGHBOURS * len(sample) / count))
    found, lengths = [], []
    for start in watch(range(0, count, _ROWS)):
        rows = unit[start : start + _ROWS]
        # One more: it may be the picture itself.
        among = np.partition(rows @ unit[sample].T, -wanted - 1, axis=1)[:, -wanted - 1, None]
        hits = [
            np.nonzero(rows @ unit[column : column + _COLUMNS].T > among)
            for column in range(0, count, _COLUMNS)
        ]
        row = np.concatenate([at for at, _ in hits])
        column = np.concatenate([at + n * _COLUMNS for n, (_, at) in enumerate(hits)])
        found.append(column[np.argsort(row, kind="stable")].astype(np.int32))
        lengths.append(np.bincount(row, minlength=len(rows)))
    indices, starts = np.concatenate(found), np.append(0, np.cumsum(np.concatenate(lengths)))
    return csr_array((np.ones(len(indices), bool), indices, starts), shape=(count, count))


class Pairs:
    """Which pictures each one is held against: its neighbours, its folder, and a common sample.

    Attributes:
        sample: positions (M,), ascending, of pictures that all are held against.
        place: of each picture its position in the sample, (N,); -1 where it is in none.
    """

    def __init__(self, neighbours: csr_array, labels: Labels, sample: Labels):
        self.sample = np.sort(sample)
        self.place = np.full(len(labels), -1)
        self.place[self.sample] = np.arange(len(sample))
        self._pattern = csr_array(neighbours.shape, dtype=bool)
        if len(sample) < len(labels):
            own = membership(labels, np.ones(len(labels), bool))
            few = membership(labels, places(labels) < _OF_FOLDER)
            few.eliminate_zeros()
            self._pattern = csr_array(neighbours + own.T @ few + eye_array(len(labels), dtype=bool))

    def of(self, rows: Labels) -> tuple[Labels, Labels]:
        """Positions in the rows, and of the pictures that are near those, themselves too."""
        part = self._pattern[rows]
        return np.repeat(np.arange(len(rows)), np.diff(part.indptr)), part.indices


class Likeness:
    """A smooth count of a person's pictures that are near a picture, in a model's coordinates.

    Each counts by its weight times exp(sharpness (cosine - 1)). Exact for the pictures of
    ``pairs``; all others count as the average of the sample that is not near.
    """

    def __init__(self, points: Rows, labels: Labels, weights: Floats, pairs: Pairs):
        self._points, self._labels, self._pairs = points, labels, pairs
        self._weights = weights.astype(np.float32)
        self._inverse = _inverse_lengths(points)
        # Cosines of unrelated directions spread by 1 / sqrt(d).
        self._sharpness = np.float32(np.sqrt(2 * points.shape[1]))
        sample = pairs.sample
        self._compared = points[sample] * self._inverse[sample, None]
        people = int(labels.max()) + 1
        self.counts = np.bincount(labels, weights, people)
        known = np.where(pairs.place >= 0, weights, 0.0)
        self._unknown = (self.counts - np.bincount(labels, known, people)).astype(np.float32)
        self._members = csr_array(
            (self._weights[sample], (labels[sample], np.arange(len(sample)))),
            shape=(people, len(sample)),
        )

    def __call__(self, rows: Labels) -> npt.NDArray[np.float32]:
        """Of the pictures at these positions with every person, (n, P), without themselves."""
        points = self._points[rows] * self._inverse[rows, None]
        kernel = self._kernel(self._compared @ points.T)
        inside = np.flatnonzero(self._pairs.place[rows] >= 0)
        kernel[self._pairs.place[rows[inside]], inside] = 0.0
        sums = np.ascontiguousarray((self._members @ kernel).T)
        at, near = self._pairs.of(rows)
        if not len(at):
            return sums
        place, weight = self._pairs.place[near], self._weights[near]
        known = place >= 0
        value = np.empty(len(at), np.float32)
        value[known] = kernel[place[known], at[known]]
        value[~known] = self._near(points, at[~known], near[~known])
        value[near == rows[at]] = 0.0
        lost = [np.bincount(at[known], w[known], len(rows)) for w in (weight, weight * value)]
        everyone = self._weights[self._pairs.sample]
        far = (everyone @ kernel - lost[1]) / np.maximum(everyone.sum() - lost[0], 1e-9)
        far = np.maximum(far, 0).astype(np.float32)
        sums += far[:, None] * self._unknown
        at, own = at[~known], self._labels[near[~known]]
        np.add.at(sums, (at, own), weight[~known] * (value[~known] - far[at]))
        return np.maximum(sums, 0, out=sums)

    def _near(self, points: Rows, at: Labels, near: Labels) -> npt.NDArray[np.float32]:
        cosines = np.empty(len(at), np.float32)
        for start in range(0, len(at), _ROWS):
            part = slice(start, start + _ROWS)
            cosines[part] = np.einsum("nd,nd->n", points[at[part]], self._points[near[part]])
        return self._kernel(cosines * self._inverse[near])

    def _kernel(self, cosines: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        cosines -= 1
        cosines *= self._sharpness
        return np.exp(cosines, out=cosines)


def _inverse_lengths(points: Rows) -> npt.NDArray[np.float32]:
    lengths = np.sqrt(np.einsum("nd,nd->n", points, points))
    return np.asarray(1 / np.maximum(lengths, 1e-12), np.float32)
