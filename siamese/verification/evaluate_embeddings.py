"""The figures of 1:1 verification in one call: embeddings and labels in, a dataclass out."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from siamese.errors import UserError
from siamese.verification.bootstrap import (
    RESAMPLES,
    Bootstrap,
    Interval,
    count_and_resample,
    quantile_interval,
    share_interval,
)
from siamese.verification.counts import PairCounts, count_pairs
from siamese.verification.metrics import (
    auc,
    average_precision,
    equal_error_rate,
    lowest_supported_fmr,
    tar_at_fmr,
    threshold_at_fmr,
)
from siamese.verification.sample_warnings import embedding_warnings, size_warnings
from siamese.verification.scores import Labels


@dataclass(frozen=True)
class FigureIntervals:
    """95 % intervals ``(low, high)`` of the figures of the same names, by bootstrap over people.

    One is None where the sample gives none (fewer than three people with two images, or the same
    figure in every resample).
    """

    auc: Interval
    ap: Interval
    eer: Interval
    eer_threshold: Interval
    tar_at_far: Mapping[float, Interval]
    thresholds: Mapping[float, Interval]


@dataclass(frozen=True)
class VerificationFigures:
    """How well embeddings tell people apart, over all unordered pairs of different images.

    Attributes:
        auc: area under the ROC curve, in [0, 1]; ties count half.
        ap: average precision, in [0, 1], not interpolated.
        eer: equal error rate, in [0, 1].
        eer_threshold: cosine similarity at which it is reached.
        tar_at_far: share of genuine pairs accepted, in [0, 1], by false-accept rate.
        thresholds: the lowest cosine similarity whose false-accept rate does not exceed the key.
        lowest_supported_far: figures at lower rates are not supported by so few people (rule of
            three over pairs of people).
        genuine_pairs: number of pairs of one identity.
        impostor_pairs: number of pairs of two identities.
        identities: number of people.
        images: number of embeddings.
        intervals: 95 % intervals; None where none were asked for.
        warnings: sentences about embeddings or samples that make the figures doubtful.
    """

    auc: float
    ap: float
    eer: float
    eer_threshold: float
    tar_at_far: Mapping[float, float]
    thresholds: Mapping[float, float]
    lowest_supported_far: float
    genuine_pairs: int
    impostor_pairs: int
    identities: int
    images: int
    intervals: FigureIntervals | None = None
    warnings: tuple[str, ...] = ()


def evaluate(
    embeddings: npt.ArrayLike | torch.Tensor,
    labels: npt.ArrayLike | torch.Tensor | Sequence[str],
    *,
    far: Sequence[float] = (1e-2, 1e-3),
    intervals: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> VerificationFigures:
    """Judge embeddings by 1:1 verification (ISO/IEC 19795-1), exactly over all pairs.

    Scores are cosine similarities in fp32, rounded to a millionth. Memory grows with N, not N**2.

    Args:
        embeddings: (N, D) numbers, array or tensor, of any length above 0.
        labels: (N,) integers or strings, equal for images of one identity.
        far: false-accept rates, each above 0 and below 1, that figures are wanted at.
        intervals: give 95 % intervals, by resampling people (not pairs).
        resamples: how many resamples they rest on, at least 100.
        seed: of the resamples.
        device: where scores are computed: a CUDA device, else the CPU.
        progress: show a bar.

    Raises:
        UserError: embeddings or labels that cannot be used (shape, NaN, all zeros); no genuine
            pair; no impostor pair; a rate or a number of resamples out of its range.
    """
    if not all(0 < rate < 1 for rate in far):
        raise UserError(f"far {list(far)}: each must lie between 0 and 1")
    if intervals and resamples < 100:
        raise UserError(f"{resamples} resamples: at least 100 are needed for intervals")
    vectors = _on_cpu(embeddings)
    identity, names = _as_integers(labels)
    bootstrap = None
    if intervals:
        counts, bootstrap = count_and_resample(
            vectors, identity, resamples=resamples, seed=seed, device=device, progress=progress
        )
    else:
        counts = count_pairs(vectors, identity, device=device, progress=progress)
    eer, eer_threshold = equal_error_rate(counts)
    figures = VerificationFigures(
        auc=auc(counts),
        ap=average_precision(counts),
        eer=eer,
        eer_threshold=eer_threshold,
        tar_at_far={rate: tar_at_fmr(counts, rate) for rate in far},
        thresholds={rate: threshold_at_fmr(counts, rate) for rate in far},
        lowest_supported_far=lowest_supported_fmr(counts),
        genuine_pairs=counts.genuine_pairs,
        impostor_pairs=counts.impostor_pairs,
        identities=counts.identities,
        images=counts.images,
        warnings=(*embedding_warnings(vectors, identity, names), *_warnings(counts, far)),
    )
    if bootstrap is None:
        return figures
    return replace(figures, intervals=_intervals(figures, bootstrap))


def _on_cpu(values: npt.ArrayLike | torch.Tensor) -> npt.ArrayLike:
    """An array of a tensor on any device, with or without a gradient, of any float."""
    if not isinstance(values, torch.Tensor):
        return values
    values = values.detach().cpu()
    return np.asarray(values.float() if values.dtype == torch.bfloat16 else values)


def _as_integers(
    labels: npt.ArrayLike | torch.Tensor | Sequence[str],
) -> tuple[npt.ArrayLike, tuple[str, ...] | None]:
    """Labels as they are, or numbered where they are strings, with the strings."""
    array = np.asarray(_on_cpu(labels))
    texts = array.dtype.kind in "US" or (
        array.dtype.kind == "O" and array.ndim == 1 and all(isinstance(one, str) for one in array)
    )
    return number_names([str(one) for one in array]) if texts and array.ndim == 1 else (array, None)


def number_names(names: Sequence[str]) -> tuple[Labels, tuple[str, ...]]:
    """Number texts by the person they name; one name in two Unicode forms is one person.

    Args:
        names: one per image.

    Returns:
        int64 (N,) labels 0 ... P - 1, and the name of each label, sorted.
    """
    texts = np.array([unicodedata.normalize("NFC", name) for name in names], dtype=object)
    known, labels = np.unique(texts, return_inverse=True)
    return labels.astype(np.int64), tuple(known)


def _intervals(figures: VerificationFigures, bootstrap: Bootstrap) -> FigureIntervals:
    people = bootstrap.genuine_effective
    eer, eer_threshold = bootstrap.eer()
    at_far = {rate: bootstrap.tar_at_fmr(rate) for rate in figures.tar_at_far}
    return FigureIntervals(
        auc=share_interval(figures.auc, bootstrap.auc(), people),
        ap=share_interval(figures.ap, bootstrap.ap(), people),
        eer=share_interval(figures.eer, eer, people),
        eer_threshold=quantile_interval(eer_threshold, people),
        tar_at_far={
            rate: share_interval(figures.tar_at_far[rate], tar, people)
            for rate, (tar, _) in at_far.items()
        },
        thresholds={
            rate: quantile_interval(threshold, people) for rate, (_, threshold) in at_far.items()
        },
    )


def _warnings(counts: PairCounts, rates: Sequence[float]) -> tuple[str, ...]:
    lines = size_warnings(counts.identities, counts.genuine_pairs, counts.impostor_pairs)
    lowest = lowest_supported_fmr(counts)
    lines += [
        f"FAR {rate:g} is unsupported: {counts.identities} people support FAR >= {lowest:.1e}"
        for rate in rates
        if rate < lowest
    ]
    return tuple(lines)
