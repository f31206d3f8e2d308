"""Intervals of verification figures: bootstrap over identities.

Pairs are not independent, they share people. So people are drawn with replacement, and a resample
gives each person a weight w_i, each genuine pair of theirs w_i, and each impostor pair w_i * w_j
(a person drawn twice is never paired with himself as an impostor). No score is computed twice:
the scores of each pair of people are counted in some 128 bins, and the counts multiplied with all
resamples' weights at once.

Two approximations: inside a bin a resample's scores are spread as the whole sample's are, and above
600 people they are drawn in 600 random bundles (random groups, Wolter 2007). Both errors are far
below the interval's width (``scripts/bench_intervals.py``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import expit, logit, ndtr, stdtrit

from siamese.errors import UserError
from siamese.verification.counts import Counter, Counts, Floats, PairCounts, counted, people_of
from siamese.verification.metrics import average_precision, curve, reaching, summarise
from siamese.verification.scores import (
    LEVELS,
    PairMatrix,
    Tile,
    check_labels,
    level_counts,
    level_scores,
    levels_of,
)

Interval = tuple[float, float] | None

RESAMPLES = 1000
ROUGH_BELOW = 30  # people; fewer are drawn unluckily, and nothing in them tells
BUNDLES = 600
_PILOT = 2048  # images whose pairs place the bins
_CELLS = 4_000_000  # counts held at once


@dataclass(frozen=True)
class Bootstrap:
    """Weighted counts of every resample, in bins of score.

    Attributes:
        edges: float64 (T - 1,), rising: bin k holds scores in [edges[k - 1], edges[k]).
        genuine: float64 (B, T), weighted genuine pairs.
        impostor: float64 (B, T), weighted impostor pairs.
    """

    counts: PairCounts
    edges: Floats
    genuine: Floats
    impostor: Floats
    genuine_people: int
    genuine_effective: float
    impostor_effective: float

    @cached_property
    def _bin(self) -> Counts:
        """Bin of each distinct score, and of a threshold above all."""
        bins = np.searchsorted(self.edges, self.counts.score, side="right")
        return np.append(bins, len(self.edges))

    @cached_property
    def _shares(self) -> tuple[Floats, Floats]:
        """Shares of a bin's genuine and impostor pairs in the sample that reach each score."""
        first = np.searchsorted(self._bin[:-1], np.arange(len(self.edges) + 2))
        shares = []
        for at_least in (self.counts.genuine_at_least, self.counts.impostor_at_least):
            above = at_least[first[1:]]
            total = at_least[first[:-1]] - above
            reached = at_least - above[self._bin]
            shares.append(reached / np.maximum(total, 1)[self._bin])
        return shares[0], shares[1]

    @cached_property
    def _above(self) -> tuple[Floats, Floats]:
        """Weighted pairs in the bins above each bin, (B, T) each, of those with both kinds."""
        return _sum_above(self.genuine), _sum_above(self.impostor)

    @cached_property
    def _totals(self) -> tuple[Floats, Floats]:
        with np.errstate(divide="ignore"):  # a resample of one person has no impostor pair
            return self.genuine.sum(1), self.impostor.sum(1)

    def rates(self, position: Counts) -> tuple[Floats, Floats]:
        """FMR and FNMR of each resample at one score each, or at shared ones.

        Args:
            position: positions in ``counts.score`` (its length: above all), (B, 1) or (1, K).

        Returns:
            two float64 (B, K); NaN for a resample without impostor or genuine pairs.
        """
        k = np.broadcast_to(self._bin[position], (len(self.genuine), position.shape[1]))
        accepted = []
        for inside, above, share in zip(
            (self.genuine, self.impostor), self._above, self._shares, strict=True
        ):
            within = np.take_along_axis(inside, k, 1) * share[position]
            accepted.append(np.take_along_axis(above, k, 1) + within)
        genuine, impostor = (total[:, None] for total in self._totals)
        with np.errstate(invalid="ignore", divide="ignore"):
            return accepted[1] / impostor, 1 - accepted[0] / genuine

    def _first(self, holds: Callable[[Floats, Floats], npt.NDArray[np.bool_]]) -> Counts:
        """Each resample's lowest threshold at which a condition on FMR and FNMR holds, (B, 1)."""
        low = np.zeros((len(self.genuine), 1), np.int64)
        high = np.full_like(low, len(self.counts.score))
        while (low < high).any():
            middle = (low + high) // 2
            reached = holds(*self.rates(middle))
            high = np.where(reached, middle, high)
            low = np.where(reached, low, np.minimum(middle + 1, high))
        return low

    def auc(self) -> Floats:
        """AUC of each resample, (B,)."""
        # Inside a bin: how often the sample's genuine scores beat its impostor scores.
        bins = self._bin[:-1]
        genuine_here = self.counts.genuine / np.maximum(self._in_bins(self.counts.genuine), 1)[bins]
        impostor_here = (
            self.counts.impostor / np.maximum(self._in_bins(self.counts.impostor), 1)[bins]
        )
        beaten = 1 - self._shares[1][:-1] + impostor_here / 2
        inside = np.bincount(bins, genuine_here * beaten, minlength=len(self.edges) + 1)
        genuine, impostor = self._totals
        below = impostor[:, None] - self._above[1] - self.impostor
        with np.errstate(invalid="ignore", divide="ignore"):
            won = (self.genuine * (below + self.impostor * inside)).sum(1)
            return np.asarray(won / genuine / impostor)

    def _in_bins(self, pairs: Counts) -> Floats:
        """Pairs of the sample itself in each bin."""
        counted = np.bincount(self._bin[:-1], pairs, minlength=len(self.edges) + 1)
        return np.asarray(counted, np.float64)

    def ap(self) -> Floats:
        """AP of each resample, (B,), by some thousand thresholds, shifted to the sample's own."""
        thresholds = curve(self.counts).threshold[::-1]
        position = np.searchsorted(self.counts.score, thresholds)
        genuine, impostor = self._totals
        fmr, fnmr = self.rates(position[None])
        with np.errstate(invalid="ignore", divide="ignore"):
            thinned = _thinned_ap(1 - fnmr, fmr * (impostor / genuine)[:, None])
        exact = self.counts
        recall = exact.genuine_at_least[position] / exact.genuine_pairs
        false = exact.impostor_at_least[position] / exact.genuine_pairs
        thinned_exact = _thinned_ap(recall[None], false[None])[0]
        shifted = np.clip(thinned + average_precision(exact) - thinned_exact, 0, 1)
        return np.where(impostor > 0, shifted, np.nan)

    def eer(self) -> tuple[Floats, Floats]:
        """EER and its threshold of each resample, (B,) each."""
        position = self._first(lambda fmr, fnmr: ~(fnmr < fmr))
        below = np.maximum(position - 1, 0)
        fmr, fnmr = self.rates(position)
        other = self.rates(below)
        nearer = abs(other[0] - other[1]) < abs(fmr - fnmr)
        eer = np.where(nearer, other[0] + other[1], fmr + fnmr) / 2
        return eer[:, 0], self._score(np.where(nearer, below, position))

    def tar_at_fmr(self, fmr: float) -> tuple[Floats, Floats]:
        """TAR at an FMR and the threshold of each resample, (B,) each."""
        position = self._first(lambda reached, _: ~(reached > fmr))
        exists = self._totals[1] > 0  # no FMR without impostor pairs
        tar, threshold = 1 - self.rates(position)[1][:, 0], self._score(position)
        return np.where(exists, tar, np.nan), np.where(exists, threshold, np.nan)

    def rates_at(self, threshold: float) -> tuple[Floats, Floats]:
        """FMR and FNMR of each resample at a threshold, (B,) each."""
        position = np.searchsorted(self.counts.score, threshold)
        fmr, fnmr = self.rates(np.array([[position]]))
        return fmr[:, 0], fnmr[:, 0]

    def _score(self, position: Counts) -> Floats:
        return np.asarray(np.append(self.counts.score, 1.0)[position[:, 0]])

    def figures(self) -> dict[str, Floats]:
        """Every figure of :func:`siamese.verification.metrics.summarise` that varies, (B,) each."""
        eer, eer_threshold = self.eer()
        figures = {"auc": self.auc(), "ap": self.ap(), "eer": eer, "eer_threshold": eer_threshold}
        for name, rate in (("1e-2", 1e-2), ("1e-3", 1e-3)):
            tar, threshold = self.tar_at_fmr(rate)
            figures |= {f"tar_at_far_{name}": tar, f"threshold_at_far_{name}": threshold}
        return figures

    def accuracy_at(self, threshold: float) -> Floats:
        """Share of pairs told right in each resample when scores >= threshold pass, (B,)."""
        fmr, fnmr = self.rates_at(threshold)
        genuine, impostor = self._totals
        with np.errstate(invalid="ignore"):
            return np.asarray(1 - (fmr * impostor + fnmr * genuine) / (genuine + impostor))

    def intervals(self) -> dict[str, Interval]:
        """95 % interval of each of :meth:`figures`.

        Of thresholds by :func:`quantile_interval`, of all others by :func:`share_interval`.
        """
        people, exact = self.genuine_effective, summarise(self.counts)
        return {
            name: quantile_interval(values, people)
            if "threshold" in name
            else share_interval(exact[name], values, people)
            for name, values in self.figures().items()
        }


def effective_people(shares: npt.ArrayLike) -> float:
    """How many people of equal weight tell as much as these: ``(sum w)**2 / sum w**2``.

    Kish 1965, "Survey Sampling"; Carter, Schnepel & Steigerwald 2017, "Asymptotic behavior of a t
    test robust to cluster heterogeneity".

    Args:
        shares: (P,), each person's weight in the figure, such as the number of their pairs.

    Returns:
        between 2 and P; 0 where fewer than three people have any weight, which gives no interval.
    """
    w = np.asarray(shares, np.float64)
    if np.count_nonzero(w) < 3:
        return 0.0
    return max(2.0, float(w.sum() ** 2 / (w**2).sum()))


def share_interval(share: float, values: Floats, people: float) -> Interval:
    """95 % interval of a share, such as an AUC or an error rate, from its resamples.

    Near 0 and 1 a share's error is skewed, on the scale of the logit it is nearly normal: Student's
    t there, ``logit(share) +- t(P - 1) * sd(logit(values)) * sqrt(P / (P - 1))`` (Pepe 2003, "The
    Statistical Evaluation of Medical Tests", 5.2). Resamples of 0 or 1 are clipped at half of what
    one of P people contributes to the error, ``min(share, 1 - share) / 2 / P``, as half a case
    stands for none in Anscombe's empirical logit (1956). A sample's own 0 or 1 is bounded by the
    rule of three over people (Hanley & Lippman-Hand 1983), ``1 - 0.05**(1 / P)``.

    Args:
        share: the figure of the sample, in [0, 1].
        values: (B,), the figure in each resample; NaN where it does not exist.

    Returns:
        ``(low, high)`` in [0, 1]; None with fewer than two people, where the figure does not
        exist in a tenth of the resamples or more, and where it is the same in all of them though
        it is not 0 or 1, as when all embeddings are equal.
    """
    existing = _existing(values, people)
    if existing is None:
        return None
    if share in (0, 1):
        bound = 1 - 0.05 ** (1 / people)
        return (0.0, bound) if share == 0 else (1 - bound, 1.0)
    if np.ptp(existing) == 0:
        return None
    least = min(share, 1 - share) / 2 / people
    error = float(logit(np.clip(existing, least, 1 - least)).std())
    return logit_interval(share, error * math.sqrt(people / (people - 1)), people - 1)


def logit_interval(share: float, error: float, freedom: float) -> Interval:
    """95 % interval of a share by Student's t on the scale of the logit; None without an error.

    Args:
        share: above 0 and below 1.
        freedom: degrees of freedom of the error, above 0.
    """
    if not error > 0 or not 0 < share < 1:
        return None
    half = stdtrit(freedom, 0.975) * error
    low, high = expit(logit(share) + np.array([-half, half]))
    return float(low), float(high)


def quantile_interval(values: Floats, people: float) -> Interval:
    """95 % interval of a score or a difference: the expanded percentile one (Hesterberg 2015).

    The quantiles are moved outwards to those that Student's t with P - 1 degrees of freedom asks
    for. Differences of two models on the same people need no other scale: what skews a share near
    0 or 1 skews both alike.

    Args:
        values: (B,), the figure in each resample; NaN where it does not exist.

    Returns:
        ``(low, high)``; None with fewer than two people, where the figure does not exist in a
        tenth of the resamples or more, and where it is the same in all of them.
    """
    existing = _existing(values, people)
    if existing is None or np.ptp(existing) == 0:
        return None
    outwards = stdtrit(people - 1, 0.975) * math.sqrt(people / (people - 1))
    share = ndtr(-outwards)
    low, high = np.quantile(existing, [share, 1 - share])
    return float(low), float(high)


def _existing(values: Floats, people: float) -> Floats | None:
    """The resamples' figures that exist; None where there is too little for an interval."""
    existing = values[np.isfinite(values)]
    few = people < 2 or len(existing) < max(2, 0.9 * len(values))
    return None if few else np.asarray(existing)


def _sum_above(counts: Floats) -> Floats:
    reversed_sums = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(reversed_sums - counts)


def _thinned_ap(recall: Floats, false: Floats) -> Floats:
    """Precision, averaged between neighbouring thresholds, over the recall gained between them."""
    accepted = recall + false
    precision = np.divide(recall, accepted, out=np.ones_like(recall), where=accepted > 0)
    gained = recall[:, :-1] - recall[:, 1:]
    return np.asarray((gained * (precision[:, :-1] + precision[:, 1:]) / 2).sum(1))


def draw_weights(units: int, resamples: int, seed: int) -> Floats:
    """How often each of ``units`` is drawn in each resample: float64 (B, units), rows sum to it."""
    drawn = np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), resamples)
    return drawn.astype(np.float64)


class Resampler:
    """Counts tiles per pair of resampled units and bin of score, weighted for every resample.

    Args:
        unit_of: int (N,), 0 ... M - 1, never falling in the matrix's order: what is resampled.
        edges: int (T - 1,), levels that bins begin at.
        weights: float64 (B, M).
    """

    def __init__(
        self,
        pairs: PairMatrix,
        unit_of: Counts,
        edges: Counts,
        weights: Floats,
    ):
        device = pairs.unit.device
        self._unit_of = torch.from_numpy(unit_of).to(device, torch.int32)
        self.edges, self._bins = edges, len(edges) + 1
        widths = np.diff(edges, prepend=0, append=LEVELS)
        bins = np.repeat(np.arange(self._bins, dtype=np.int32), widths)
        self._bin_of = torch.from_numpy(bins).to(device)
        self._weights = torch.from_numpy(weights).to(device, torch.float32)
        empty = torch.zeros(len(weights), self._bins, dtype=torch.float64, device=device)
        self.genuine, self.impostor = empty, empty.clone()

    def add(self, tile: Tile) -> None:
        """Count one tile."""
        height, width = tile.levels.shape
        columns = self._unit_of[tile.first_column : tile.first_column + width]
        units = int(columns[-1] - columns[0]) + 1
        start = 0
        while start < height:
            rows = self._unit_of[tile.first_row + start : tile.first_row + height]
            # As many units of rows at a time as there is room for.
            most = max(1, _CELLS // (units * self._bins))
            stop = start + int(torch.searchsorted(rows, int(rows[0]) + most))
            self._add_rows(tile, slice(start, stop), rows[: stop - start], columns)
            start = stop

    def _add_rows(
        self, tile: Tile, taken: slice, rows: torch.Tensor, columns: torch.Tensor
    ) -> None:
        first_row, first_column = int(rows[0]), int(columns[0])
        heights, widths = int(rows[-1]) - first_row + 1, int(columns[-1]) - first_column + 1
        bins = self._bin_of.index_select(0, tile.levels[taken].flatten())
        bins = bins.view(len(rows), len(columns))
        row_weights = self._weights[:, first_row : first_row + heights]
        row = (rows - first_row) * self._bins
        if tile.genuine is not None:
            inside = tile.genuine[taken]
            cell = (bins + row[:, None])[inside]
            counts = level_counts(cell, heights * self._bins).view(heights, self._bins)
            self.genuine += row_weights.double() @ counts.double()
        index = bins.add_((row * widths)[:, None]).add_((columns - first_column) * self._bins)
        cell = index.flatten() if tile.impostor is None else index[tile.impostor[taken]]
        counts = level_counts(cell, heights * widths * self._bins)
        cells = counts.view(heights, widths, self._bins).float().transpose(0, 1)
        column_weights = self._weights[:, first_column : first_column + widths]
        for top in range(0, heights, _ROWS_AT_ONCE):
            part = slice(top, top + _ROWS_AT_ONCE)
            sums = column_weights @ cells[:, part].reshape(widths, -1)
            weighted = sums.view(len(row_weights), -1, self._bins) * row_weights[:, part, None]
            self.impostor += weighted.sum(1, dtype=torch.float64)


_ROWS_AT_ONCE = 32


def count_and_resample(
    embeddings: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> tuple[PairCounts, Bootstrap]:
    """Count all pairs as :func:`siamese.verification.counts.count_pairs`, with their bootstrap.

    Equal labels and seed give equal resamples, whatever the embeddings: differences of two
    models' figures are then paired.

    Args:
        embeddings: (N, D).
        labels: integers (N,).

    Raises:
        UserError: see :class:`siamese.verification.scores.PairMatrix`.
    """
    vectors = np.atleast_1d(np.asarray(embeddings))
    checked = check_labels(labels, len(vectors))
    identity = np.unique(checked, return_inverse=True)[1]
    people = int(identity.max(initial=-1)) + 1
    shuffled = np.random.default_rng(seed).permutation(people)
    groups = (shuffled % BUNDLES if people > BUNDLES else np.arange(people))[identity]
    weights = draw_weights(min(people, BUNDLES), resamples, seed)
    pilot = _edges(vectors, identity, shuffled)
    given = (vectors, checked, groups, pilot, weights, device)
    pairs, (counter, resampler) = counted(_counters, *given, progress=progress)
    counts = counter.counts(*people_of(pairs))
    genuine, impostor = resampler.genuine.cpu().numpy(), resampler.impostor.cpu().numpy()
    own_pairs = pairs.counts * (pairs.counts - 1) // 2
    edges = level_scores(resampler.edges, pairs.zoom)
    return counts, bootstrap_of(counts, edges, genuine, impostor, own_pairs, pairs.counts)


def _counters(
    vectors: npt.NDArray[np.float32],
    labels: Counts,
    groups: Counts,
    edges: Floats,
    weights: Floats,
    device: torch.device | str,
) -> tuple[PairMatrix, tuple[Counter, Resampler]]:
    pairs = PairMatrix(vectors, labels, groups=groups, device=device)
    levels = np.unique(levels_of(edges, pairs.zoom))
    counter = Counter(pairs.unit.device, pairs.zoom)
    return pairs, (counter, Resampler(pairs, groups[pairs.order], levels, weights))


def bootstrap_of(
    counts: PairCounts,
    edges: Floats,
    genuine: Floats,
    impostor: Floats,
    own_pairs: Counts,
    images: Counts,
) -> Bootstrap:
    """The resamples, from each person's number of genuine pairs and of images, (P,) each."""
    return Bootstrap(
        counts,
        edges,
        genuine,
        impostor,
        int((own_pairs > 0).sum()),
        effective_people(own_pairs),
        effective_people(images),
    )


def _edges(
    vectors: npt.NDArray[np.float32],
    identity: Counts,
    shuffled: Counts,
) -> Floats:
    """Scores that bins begin at, by the quantiles of some people's pairs."""
    images = np.bincount(identity)[shuffled]
    chosen = shuffled[: 1 + int(np.searchsorted(np.cumsum(images), _PILOT))]
    inside = np.isin(identity, chosen)
    try:
        pilot = PairMatrix(vectors[inside], identity[inside])
    except UserError:  # people with one image each, by chance
        pilot = PairMatrix(vectors, identity)
    counter = Counter(zoom=pilot.zoom)
    pilot.feed(counter)
    return edges_of(counter.counts(0, 0, 0))


def edges_of(counts: PairCounts) -> Floats:
    """Scores that 128 bins begin at: quantiles of both kinds, finer where few impostors are."""
    genuine = counts.genuine_pairs - np.linspace(1, counts.genuine_pairs, 34)[:-1]
    impostor = np.linspace(1, counts.impostor_pairs, 34)[:-1]
    tail = np.geomspace(1, counts.impostor_pairs, 46)
    chosen = [np.linspace(counts.score[-1], 1, 16)]
    for at_least, wanted in (
        (counts.genuine_at_least, genuine),
        (counts.impostor_at_least, impostor),
        (counts.impostor_at_least, tail),
    ):
        positions = reaching(at_least, wanted)
        chosen.append(counts.score[np.clip(positions, 0, len(counts.score) - 1)])
    return np.unique(np.concatenate(chosen))


def resample_listed(
    counts: PairCounts,
    scores: npt.ArrayLike,
    same: npt.ArrayLike,
    people: tuple[npt.ArrayLike, npt.ArrayLike],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Bootstrap:
    """Bootstrap of listed pairs.

    Args:
        scores: (M,), one score per pair.
        same: bool (M,), whether the pair is genuine.
        people: who is on the first and on the second picture, (M,) each, any labels.
    """
    values, truth = np.asarray(scores, np.float64), np.asarray(same, bool)
    known, where = np.unique(np.concatenate([np.asarray(p) for p in people]), return_inverse=True)
    first, second = where[: len(values)], where[len(values) :]
    weights = draw_weights(len(known), resamples, seed)
    edges = edges_of(counts)
    bins = np.searchsorted(edges, values, side="right")
    sums = []
    for kind in (truth, ~truth):
        one, other, into = first[kind], second[kind], bins[kind]
        counted = np.zeros((len(edges) + 1, resamples))
        step = max(1, _CELLS // resamples)
        for start in range(0, len(one), step):
            part = slice(start, start + step)
            weight = weights[:, one[part]]
            if kind is not truth:
                weight = weight * weights[:, other[part]]
            np.add.at(counted, into[part], weight.T)
        sums.append(counted.T)
    own_pairs = np.bincount(first[truth])
    others = np.bincount(first[~truth], minlength=len(known)) + np.bincount(
        second[~truth], minlength=len(known)
    )
    return bootstrap_of(counts, edges, sums[0], sums[1], own_pairs, others)
