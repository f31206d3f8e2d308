"""Maps of embeddings that are fitted to people: PLDA, and WCCN beside the embeddings themselves."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.linalg import cholesky, solve_triangular

from siamese.auditing.two_covariance import (
    TwoCovariance,
    blocks_of,
    fit,
    means_by_label,
    normalised,
)
from siamese.config import FittedName, scoring_title
from siamese.errors import UserError
from siamese.models.scoring import WCCN, FittedOn, ScoringMap
from siamese.verification.scores import normalise

Floats = npt.NDArray[np.float64]

_LEAST = 2  # dimensions: in one the cosine is 1 or -1
_WITHOUT_PEOPLE = 1e-3  # a ratio at which a dimension tells nothing about people
_ALIKE = 1e-12  # a variance within people that is rounding of float32
SHRINKAGE = 0.1  # of WCCN's covariance; see whitening


def weighted_axes(model: TwoCovariance) -> Floats:
    """The map of centred embeddings whose cosine stands for what PLDA says of two pictures.

    In a coordinate with variance 1 of pictures and r of people two pictures x, y of one person have
    the covariance [[r + 1, r], [r, r + 1]], of two people [[r + 1, 0], [0, r + 1]]. The logarithm
    of the ratio of both densities is

        r / (2 r + 1) * x y - r^2 / (2 (r + 1) (2 r + 1)) * (x^2 + y^2) + constant.

    The first terms are an inner product, the second say how long both are, which the cosine takes
    away (Garcia-Romero & Espy-Wilson, "Analysis of i-vector length normalization in speaker
    recognition systems", Interspeech 2011). Each axis is times r / (2 r + 1). Its root would sum
    the first terms as they are, and is about as good as the whole ratio. But people who trained the
    network overstate how much weak axes tell: on the validation people of six networks, fitted on
    the 44 people of their training, AUC was 0.003 to 0.014 higher without the root.

    Returns:
        (D, d): the axes along which people differ, weighted, most telling ones first.
    """
    order = np.argsort(-model.ratio, kind="stable")
    order = order[model.ratio[order] > _WITHOUT_PEOPLE]
    ratio = model.ratio[order]
    return np.asarray(model.axes[:, order] * (ratio / (2 * ratio + 1)))


def whitening(unit: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> Floats:
    """The map of centred embeddings that makes pictures of one person differ alike everywhere.

    It is the factor A of W'^-1 = A A^T, where W is the covariance within people: within-class
    covariance normalisation (Hatch, Kajarekar & Stolcke, "Within-class covariance normalization for
    SVM-based speaker recognition", Interspeech 2006). W is shrunk towards its mean variance,
    W' = (1 - s) W + s tr(W) / D I.

    Alone it is no better than the cosine, but the mean of both cosines is. On the validation people
    of eight networks, fitted on the people of their training, embeddings averaged with those of the
    mirrored pictures, mean AUC and TAR at FMR 1e-2 were: cosine 0.7996 and 0.090; WCCN alone 0.768
    and 0.107; the mean of both with s = 0.1 0.8031 and 0.106, with s = 0.3 0.8036 and 0.103. PLDA:
    0.786 and 0.090. TAR of the mean with s = 0.1 was above that of the cosine on all eight.

    Args:
        unit: (N, D), of length 1.
        labels: (N,), values 0 ... P - 1.

    Returns:
        (D, D).

    Raises:
        UserError: the pictures of each person all have one embedding.
    """
    rows, size = normalised(unit), unit.shape[1]
    means, _ = means_by_label(rows, labels, np.ones(len(labels)))
    within = np.zeros((size, size))
    for block in blocks_of(len(rows)):
        rest = rows[block] - means[labels[block]]
        within += rest.T @ rest
    within /= len(rows)
    variance = np.trace(within)
    if variance < _ALIKE:
        raise UserError(
            "all pictures of each person get one and the same embedding: WCCN learns from how they "
            "differ; add other pictures"
        )
    within = (1 - SHRINKAGE) * within + SHRINKAGE * variance / size * np.eye(size)
    lower = cholesky(within, lower=True)
    return np.asarray(solve_triangular(lower, np.eye(size), lower=True).T)


def fit_map(
    kind: FittedName, embeddings: npt.ArrayLike, labels: npt.ArrayLike, fitted: FittedOn
) -> ScoringMap:
    """Fit a map to labelled embeddings.

    Args:
        embeddings: (N, D).
        labels: int64 (N,), any values.
        fitted: what is to be said of them.

    Raises:
        UserError: too few people or pictures; NaN, Inf or an embedding of length 0.
    """
    title, unit = scoring_title(kind), normalise(embeddings).numpy()
    names, numbers = np.unique(np.asarray(labels), return_inverse=True)
    numbers = numbers.astype(np.int64)
    if len(names) < 2:
        raise UserError(
            f"{len(names)} people: {title} tells people apart, two are needed: add people"
        )
    if len(names) == len(numbers):
        raise UserError(
            f"nobody has two pictures: {title} learns from them how pictures of one person differ; "
            "add pictures"
        )
    if kind == WCCN:
        centre, axes = unit.mean(0, dtype=np.float64), whitening(unit, numbers)
    else:
        model = fit(unit, numbers, np.ones(len(numbers)))
        centre, axes = model.centre, weighted_axes(model)
        if axes.shape[1] < _LEAST:
            raise UserError(
                f"{len(numbers)} pictures of {len(names)} people: PLDA finds {axes.shape[1]} "
                f"dimensions in which people differ, and needs {_LEAST}; add people and pictures"
            )
        # The length of a mapped embedding does not matter, so it is made about 1.
        axes = axes / np.linalg.norm(axes)
    return ScoringMap(centre.astype(np.float32), axes.astype(np.float32), fitted, kind)
