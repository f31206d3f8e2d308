"""Figures of cross-validation: every fold has a model of its own, and its pairs are pooled.

Scores of two models cannot be compared picture by picture, so only pictures of one fold are paired.
The pooled scores hold what differs from model to model besides what differs from pair to pair: this
is what a threshold meets that is used with one more model of the same recipe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from siamese.verification.bootstrap import (
    BUNDLES,
    Bootstrap,
    Resampler,
    bootstrap_of,
    draw_weights,
    edges_of,
)
from siamese.verification.counts import Floats, PairCounts, count_pairs
from siamese.verification.metrics import error_rates, threshold_at_fmr
from siamese.verification.scores import PairMatrix, level_scores, levels_of


@dataclass(frozen=True)
class Folds:
    """Counted pairs of all folds.

    Attributes:
        bootstraps: of each fold, of the same resamples; empty where none were drawn.
        bootstrap: resamples of all pairs together; None where none were drawn.
    """

    counts: tuple[PairCounts, ...]
    bootstraps: tuple[Bootstrap, ...]
    pooled: PairCounts
    bootstrap: Bootstrap | None

    def crossed_rates(self, fmr: float) -> CrossedRates:
        """What a threshold does on people who did not choose it, each fold judged by the others'.

        As the folds of LFW's protocol (Huang et al. 2007), with the threshold of an FMR.
        """
        thresholds, wrong = [], np.zeros(2)
        resampled = np.zeros((2, len(self.bootstraps[0].genuine) if self.bootstraps else 0))
        totals = np.zeros_like(resampled)
        for number, counts in enumerate(self.counts):
            others = pool_counts([*self.counts[:number], *self.counts[number + 1 :]])
            threshold = threshold_at_fmr(others, fmr)
            thresholds.append(threshold)
            false = [float(rate) for rate in error_rates(counts, threshold)]
            wrong += np.array(false) * [counts.impostor_pairs, counts.genuine_pairs]
            if self.bootstraps:
                bootstrap = self.bootstraps[number]
                drawn = np.array([bootstrap.impostor.sum(1), bootstrap.genuine.sum(1)])
                # A fold of which a resample has no pair adds no error either.
                resampled += np.nan_to_num(np.array(bootstrap.rates_at(threshold))) * drawn
                totals += drawn
        rates = wrong / [self.pooled.impostor_pairs, self.pooled.genuine_pairs]
        with np.errstate(invalid="ignore", divide="ignore"):
            shares = resampled / totals
        return CrossedRates(
            tuple(thresholds), float(rates[0]), float(rates[1]), shares[0], shares[1]
        )


@dataclass(frozen=True)
class CrossedRates:
    """Error rates at thresholds that other folds chose.

    Attributes:
        fmr_resampled: float64 (B,), of each resample; NaN where it has no such pair.
    """

    thresholds: tuple[float, ...]
    fmr: float
    fnmr: float
    fmr_resampled: Floats
    fnmr_resampled: Floats


def pool_counts(parts: Sequence[PairCounts]) -> PairCounts:
    """Pairs of several models together; the same person is in one of them only."""
    score, where = np.unique(np.concatenate([p.score for p in parts]), return_inverse=True)
    sums = []
    for kind in ("genuine", "impostor"):
        total = np.zeros(len(score), np.int64)
        np.add.at(total, where, np.concatenate([getattr(part, kind) for part in parts]))
        sums.append(total)
    return PairCounts(
        score,
        sums[0],
        sums[1],
        sum(part.identities for part in parts),
        sum(part.images for part in parts),
        sum(part.identity_pairs for part in parts),
    )


def count_folds(
    folds: Sequence[tuple[npt.ArrayLike, npt.ArrayLike]],
    *,
    resamples: int = 0,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> Folds:
    """Count the pairs within each fold, and resample the people of all folds together.

    People are drawn out of everybody, not fold by fold: of the two or three people of a small fold
    hardly anything could be drawn.

    Args:
        folds: embeddings (N, D) and integer labels (N,) of each.

    Raises:
        UserError: see :class:`siamese.verification.scores.PairMatrix`.
    """
    counts = tuple(
        count_pairs(vectors, labels, device=device, progress=progress) for vectors, labels in folds
    )
    pooled = pool_counts(counts)
    if not resamples:
        return Folds(counts, (), pooled, None)
    units = [min(one.identities, max(2, BUNDLES // len(folds))) for one in counts]
    weights = draw_weights(sum(units), resamples, seed)
    starts = np.cumsum([0, *units])
    matrices, groups = [], []
    for (vectors, labels), one, fold_units in zip(folds, counts, units, strict=True):
        shuffled = np.random.default_rng(seed).permutation(one.identities)
        group = np.asarray(shuffled % fold_units)[np.unique(labels, return_inverse=True)[1]]
        matrices.append(PairMatrix(vectors, labels, groups=group, device=device))
        groups.append(group[matrices[-1].order])
    # Bins are the same scores in every fold, though a fold's own grid may be finer.
    zoom = min(pairs.zoom for pairs in matrices)
    edges = np.unique(level_scores(levels_of(edges_of(pooled), zoom), zoom))
    own_pairs = [pairs.counts * (pairs.counts - 1) // 2 for pairs in matrices]
    bootstraps: list[Bootstrap] = []
    for number, pairs in enumerate(matrices):
        drawn = weights[:, starts[number] : starts[number + 1]]
        resampler = Resampler(pairs, groups[number], levels_of(edges, pairs.zoom), drawn)
        pairs.feed(resampler, progress=progress)
        sums = resampler.genuine.cpu().numpy(), resampler.impostor.cpu().numpy()
        bootstraps.append(
            bootstrap_of(counts[number], edges, *sums, own_pairs[number], pairs.counts)
        )
    whole = bootstrap_of(
        pooled,
        edges,
        np.sum([one.genuine for one in bootstraps], axis=0),
        np.sum([one.impostor for one in bootstraps], axis=0),
        np.concatenate(own_pairs),
        np.concatenate([pairs.counts for pairs in matrices]),
    )
    return Folds(counts, tuple(bootstraps), pooled, whole)
