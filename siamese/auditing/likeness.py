"""How like every person's pictures a picture is: exactly where near, by a sample where far."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array, csr_array, eye_array

from siamese.auditing.threads import in_threads
from siamese.auditing.two_covariance import Floats, Labels, Rows, membership, places

_NEIGHBOURS = 100  # of each picture, about
_OF_FOLDER = 200  # pictures of its folder at most that each is held against
_OF_EVERYBODY = 10.0
_ROWS, _BLOCK = 256, 2048

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
    wanted = 1 + max(1, round(_NEIGHBOURS * len(sample) / count))  # one may be the picture itself
    compared, blocks = unit[sample].T, range(0, count, _BLOCK)

    def reach(start: int) -> Rows:
        cosines = unit[start : start + _BLOCK] @ compared
        return np.partition(cosines, -wanted, axis=1)[:, -wanted].copy()

    least = np.concatenate(list(in_threads(reach, blocks)))

    def near(start: int) -> npt.NDArray[np.int32]:
        """Of all pairs of a block with itself and later ones: either may be near to the other."""
        rows, found = slice(start, start + _BLOCK), []
        for other in range(start, count, _BLOCK):
            columns = slice(other, other + _BLOCK)
            cosines = unit[rows] @ unit[columns].T
            one, two = np.divmod(np.flatnonzero(cosines > least[rows, None]), cosines.shape[1])
            found.append((one + start, two + other))
            if other > start:
                one, two = np.divmod(np.flatnonzero(cosines > least[columns]), cosines.shape[1])
                found.append((two + other, one + start))
        return np.concatenate(found, 1).astype(np.int32)

    turns = zip(watch(range(len(blocks))), in_threads(near, blocks), strict=True)
    parts = [part for _, part in turns]
    at = tuple(np.concatenate(parts, 1))
    return csr_array(coo_array((np.ones(len(at[0]), bool), at), shape=(count, count)))


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
        if len(sample) == len(labels):
            self._pattern = csr_array(eye_array(len(labels), dtype=bool))
        else:
            own = membership(labels, np.ones(len(labels)))
            few = membership(labels, (places(labels) < _OF_FOLDER).astype(np.float64))
            few.eliminate_zeros()
            self._pattern = csr_array(
                neighbours + (own.T @ few).astype(bool) + eye_array(len(labels), dtype=bool)
            )

    def of(self, rows: Labels) -> tuple[Labels, Labels]:
        """Positions in the rows, and of the pictures that are near those, themselves too."""
        part = self._pattern[rows]
        return np.repeat(np.arange(len(rows)), np.diff(part.indptr)), part.indices


class Likeness:
    """A smooth count of a person's pictures that are near a picture, in a model's coordinates.

    Each counts by its weight times exp(sharpness (cosine - 1)). Exact for the pictures of
    ``pairs``; a person's others count as those of the sample that are not near it: that person's,
    and ten of everybody's.
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
        self._compared_weights = self._weights[sample]
        self._seen = np.bincount(labels[sample], weights[sample], people)
        self._unseen = np.bincount(labels, np.where(pairs.place < 0, weights, 0.0), people)
        self._members = csr_array(
            (self._weights[sample], (labels[sample], np.arange(len(sample)))),
            shape=(people, len(sample)),
        )

    def __call__(self, rows: Labels) -> npt.NDArray[np.float32]:
        """Of the pictures at these positions with every person, (n, P), without themselves."""
        points = self._points[rows] * self._inverse[rows, None]
        kernel = self._kernel(self._compared @ points.T)
        at, near = self._pairs.of(rows)
        place, weight = self._pairs.place[near], self._weights[near]
        known = place >= 0
        value = np.empty(len(at), np.float32)
        value[known] = kernel[place[known], at[known]]
        value[~known] = self._near(points, at[~known], near[~known])
        value[near == rows[at]] = 0.0
        kernel[place[known], at[known]] = 0.0
        left = self._compared_weights.sum() - np.bincount(at[known], weight[known], len(rows))
        far = self._compared_weights @ kernel / np.maximum(left, 1e-9)
        sums = np.ascontiguousarray((self._members @ kernel).T)
        cells, cell = np.unique(at * sums.shape[1] + self._labels[near], return_inverse=True)
        row, person = np.divmod(cells, sums.shape[1])
        inside, outside, exact = (
            np.bincount(cell, by) for by in (weight * known, weight * ~known, weight * value)
        )
        seen, unseen = self._seen[person] - inside, self._unseen[person] - outside
        seen, unseen = np.maximum(seen, 0), np.maximum(unseen, 0)
        of_sample = sums[row, person]
        rate = (of_sample + _OF_EVERYBODY * far[row]) / (seen + _OF_EVERYBODY)
        share = self._unseen / (self._seen + _OF_EVERYBODY)
        sums *= (1 + share).astype(np.float32)
        sums += (far[:, None] * (_OF_EVERYBODY * share)).astype(np.float32)
        sums[row, person] = of_sample + unseen * rate + exact
        return sums

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
