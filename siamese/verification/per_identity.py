"""Who makes the errors: each person's rates at a threshold, and the worst pairs of all."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from siamese.verification.counts import Counts, Floats, PairCounts
from siamese.verification.metrics import error_rates, threshold_at_fmr
from siamese.verification.scores import PairMatrix, Tile, level_scores, score_level

# A mixture of a folder's own person with strangers: see `mislabelled_share`.
_FMRS = (0.5, 0.1, 0.02)
_TELLING = 0.75
_LEAST = 0.15
_PAIRS = 45  # ten pictures


@dataclass(frozen=True)
class People:
    """One row per identity, (P,) each, in ascending order of the labels.

    Attributes:
        fnmr: share of the genuine pairs below the threshold; NaN with one picture.
        fmr: share of the impostor pairs with this person that reach the threshold.
        false_non_match_share: share of all false non-matches that are this person's.
        false_match_share: share of all false matches, each counted half for either person.
        mislabelled: about which share of the pictures looks like someone else's; NaN: no sign.
    """

    label: Counts
    images: Counts
    genuine_mean: Floats
    fnmr: Floats
    fmr: Floats
    false_non_match_share: Floats
    false_match_share: Floats
    nearest: Counts
    nearest_mean: Floats
    mislabelled: Floats

    @property
    def harm(self) -> Floats:
        """Mean of the two shares: this person's part in all errors.

        The sum is 1 where there are errors of both kinds, else 1/2 or 0.
        """
        return (self.false_non_match_share + self.false_match_share) / 2


@dataclass(frozen=True)
class Pairs:
    """Some pairs of images, the worst first.

    Attributes:
        first: int64 (K,), positions among the caller's images.
        second: int64 (K,).
        score: float64 (K,).
    """

    first: Counts
    second: Counts
    score: Floats


@dataclass(frozen=True)
class Examination:
    """Errors by person and by pair.

    Attributes:
        people: one row per identity.
    """

    threshold: float
    people: People
    worst_genuine: Pairs
    worst_impostor: Pairs


class _Examiner:
    """Takes tiles: counts errors per image at some levels, keeps the worst pairs."""

    def __init__(self, pairs: PairMatrix, levels: list[int], counts: PairCounts, worst: int):
        device = pairs.unit.device
        self.levels = levels
        shape = (len(levels), pairs.images)
        self.false_matches = torch.zeros(shape, dtype=torch.int64, device=device)
        self.rejected = torch.zeros(shape, dtype=torch.int64, device=device)
        kept = min(worst, counts.genuine_pairs)
        low = int(np.searchsorted(np.cumsum(counts.genuine), kept))
        self.genuine = _Kept(score_level(float(counts.score[low]), pairs.zoom), kept, lowest=True)
        kept = min(worst, counts.impostor_pairs)
        high = int(np.flatnonzero(counts.impostor_at_least >= kept)[-1])
        self.impostor = _Kept(
            score_level(float(counts.score[high]), pairs.zoom), kept, lowest=False
        )

    def add(self, tile: Tile) -> None:
        rows = slice(tile.first_row, tile.first_row + tile.levels.shape[0])
        columns = slice(tile.first_column, tile.first_column + tile.levels.shape[1])
        for number, level in enumerate(self.levels):
            matches = tile.levels >= level
            if tile.impostor is not None:
                matches &= tile.impostor
            self.false_matches[number, rows] += matches.sum(1)
            self.false_matches[number, columns] += matches.sum(0)
            if tile.genuine is not None:
                rejected = (tile.levels < level) & tile.genuine
                self.rejected[number, rows] += rejected.sum(1)
                self.rejected[number, columns] += rejected.sum(0)
        self.impostor.add(tile, tile.impostor)
        if tile.genuine is not None:
            self.genuine.add(tile, tile.genuine)


class _Kept:
    """The pairs beyond a level, and as many at it as there is room for."""

    def __init__(self, level: int, size: int, *, lowest: bool):
        self._level, self._size, self._sign = level, size, 1 if lowest else -1
        self._kept: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []
        self._at_level = 0

    def add(self, tile: Tile, mask: torch.Tensor | None) -> None:
        beyond = (tile.levels - self._level) * self._sign
        chosen = beyond < 0
        if self._at_level < self._size:
            chosen |= beyond == 0
        if mask is not None:
            chosen &= mask
        where = torch.nonzero(chosen)
        levels = tile.levels[where[:, 0], where[:, 1]]
        worse = levels != self._level
        equal = torch.nonzero(~worse).flatten()[: self._size - self._at_level]
        self._at_level += len(equal)
        for part in (torch.nonzero(worse).flatten(), equal):
            cells = where[part] + torch.tensor(
                [tile.first_row, tile.first_column], device=where.device
            )
            self._kept.append((cells.cpu().numpy(), levels[part].cpu().numpy().astype(np.int64)))

    def pairs(self, order: Counts, zoom: int) -> Pairs:
        cells = np.concatenate([cells for cells, _ in self._kept])
        levels = np.concatenate([levels for _, levels in self._kept])
        best = np.lexsort((cells[:, 1], cells[:, 0], self._sign * levels))[: self._size]
        positions = order[cells[best]]
        return Pairs(positions[:, 0], positions[:, 1], level_scores(levels[best], zoom))


def examine(
    embeddings: npt.ArrayLike,
    labels: npt.ArrayLike,
    counts: PairCounts,
    threshold: float,
    *,
    worst: int = 24,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> Examination:
    """Go through all pairs once more and attribute the errors to people and pairs.

    Args:
        embeddings: (N, D).
        labels: integers (N,).

    Raises:
        UserError: see :class:`siamese.verification.scores.PairMatrix`.
    """
    pairs = PairMatrix(embeddings, labels, device=device)
    thresholds = [threshold, *(threshold_at_fmr(counts, rate) for rate in _FMRS)]
    levels = [score_level(min(max(value, -1.0), 2.0), pairs.zoom) for value in thresholds]
    examiner = _Examiner(pairs, levels, counts, worst)
    pairs.feed(examiner, progress=progress)
    label = np.asarray(labels)[pairs.order[pairs.starts]].astype(np.int64)
    people = _people(pairs, label, examiner)
    return Examination(
        threshold,
        people,
        examiner.genuine.pairs(pairs.order, pairs.zoom),
        examiner.impostor.pairs(pairs.order, pairs.zoom),
    )


def varied(pairs: Pairs, most: int, often: int) -> Pairs:
    """The worst of some pairs, none of whose images is in more than ``often`` of them.

    One odd picture scores low with every other of its person; without this nothing else is seen.
    Where too few pairs are left, the worst of the others fill up.
    """
    seen: Counter[int] = Counter()
    taken: list[int] = []
    others: list[int] = []
    for position, both in enumerate(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)):
        fits = len(taken) < most and max(seen[image] for image in both) < often
        (taken if fits else others).append(position)
        seen.update(both if fits else ())
    chosen = np.sort([*taken, *others[: max(0, most - len(taken))]]).astype(np.int64)
    return Pairs(pairs.first[chosen], pairs.second[chosen], pairs.score[chosen])


def _people(pairs: PairMatrix, label: Counts, examiner: _Examiner) -> People:
    images = pairs.counts
    # Each genuine pair was counted at both of its images, which are one person's.
    rejected = _per_person(pairs, examiner.rejected) // 2
    matches = _per_person(pairs, examiner.false_matches)
    genuine_pairs = images * (images - 1) // 2
    impostor_pairs = images * (pairs.images - images)
    with np.errstate(invalid="ignore"):
        fnmr = rejected / genuine_pairs
    fmr = matches / impostor_pairs
    mean, nearest, nearest_mean = _mean_scores(pairs)
    mislabelled = np.array(
        [
            mixed_share(fnmr[1:, p], fmr[1:, p]) if genuine_pairs[p] >= _PAIRS else np.nan
            for p in range(len(images))
        ]
    )
    return People(
        label,
        images.astype(np.int64),
        mean,
        fnmr[0],
        fmr[0],
        rejected[0] / max(1, rejected[0].sum()),
        matches[0] / max(1, matches[0].sum()),
        label[nearest],
        nearest_mean,
        mislabelled,
    )


def _per_person(pairs: PairMatrix, per_image: torch.Tensor) -> Counts:
    return np.asarray(np.add.reduceat(per_image.cpu().numpy(), pairs.starts, axis=1), np.int64)


_ROWS = 1024


def _mean_scores(pairs: PairMatrix) -> tuple[Floats, Counts, Floats]:
    """Mean genuine score of each person, the nearest other one, and the mean score with them."""
    sums = np.add.reduceat(pairs.unit.cpu().numpy(), pairs.starts, axis=0, dtype=np.float64)
    n = pairs.counts
    with np.errstate(invalid="ignore", divide="ignore"):
        genuine = (np.einsum("pd,pd->p", sums, sums) - n) / (n * (n - 1))
    genuine[n < 2] = np.nan
    centres = sums / n[:, None]
    nearest, mean = np.empty(len(n), np.int64), np.empty(len(n))
    for first in range(0, len(n), _ROWS):
        products = centres[first : first + _ROWS] @ centres.T
        diagonal = np.arange(len(products))
        products[diagonal, diagonal + first] = -np.inf
        nearest[diagonal + first] = products.argmax(1)
        mean[diagonal + first] = products.max(1)
    return genuine, nearest, mean


def mislabelled_share(counts: PairCounts) -> float | None:
    """About which share of the pictures looks like someone else's, from the curve alone.

    Where a share q of a folder's pictures shows strangers, 1 - (1 - q)**2 of its genuine pairs are
    impostor pairs in truth: the ROC jumps to (1 - q)**2 and from there runs straight to (1, 1),
    FNMR(t) = m * (1 - FMR(t)). A weak model has such genuine scores, too, but then m grows as the
    FMR falls. So m at FMR 0.5 and at 0.02 must nearly agree; it is read off at 0.1.
    A model too weak to tell most of the right pictures from strangers shows no sign.

    Returns:
        q in (0, 1), None where there is no such sign.
    """
    if counts.genuine_pairs < _PAIRS:
        return None
    fmr, fnmr = error_rates(counts, [threshold_at_fmr(counts, rate) for rate in _FMRS])
    share = mixed_share(fnmr, fmr)
    return None if np.isnan(share) else share


def mixed_share(fnmr: Floats, fmr: Floats) -> float:
    """:func:`mislabelled_share` from FNMR and FMR at its thresholds, (3,) each; or NaN."""
    if (fmr >= 1).any() or fnmr[0] >= 1 - fmr[0]:
        return float("nan")
    least, share, most = fnmr / (1 - fmr)
    # The right pictures' pairs must stay above the strangers' as the FMR falls.
    if least < _LEAST or share >= 1 or 1 - most < _TELLING * (1 - least):
        return float("nan")
    return float(1 - np.sqrt(1 - share))
