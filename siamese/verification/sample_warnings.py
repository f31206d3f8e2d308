"""Warnings about the sample that figures rest on: too small, collapsed, or mostly one person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from siamese.verification.enough import too_few_pairs, too_few_people

# Unit vectors nearer than this are one vector: fp32 sums of other blocks differ by as much.
_SAME_VECTOR = 1e-5
# Above: so many pictures have another person's very embedding that it is no chance copy.
_SHARED = 0.02
_FIRST = 100  # pictures that are enough to see that nothing has collapsed
# Above: one person has most of the genuine pairs, and AUC, EER and TAR are about that person.
_ONE_PERSON = 0.5


def size_warnings(people: int, genuine: int, impostor: int) -> list[str]:
    """Lines where people or pairs are too few to say anything; see ``verification.enough``."""
    lines = too_few_people(people), too_few_pairs(genuine, impostor)
    return [line for line in lines if line is not None]


def label_warnings(labels: npt.ArrayLike) -> list[str]:
    """:func:`size_warnings` for all pairs of labelled pictures.

    Args:
        labels: integers (N,).
    """
    counts = np.unique(np.asarray(labels), return_counts=True)[1].astype(object)
    images, genuine = int(counts.sum()), int((counts * (counts - 1) // 2).sum())
    return size_warnings(len(counts), genuine, images * (images - 1) // 2 - genuine)


def embedding_warnings(
    embeddings: npt.ArrayLike,
    labels: npt.ArrayLike,
    names: Sequence[str] | None = None,
    *,
    all_pairs: bool = True,
) -> list[str]:
    """Lines about embeddings that carry no difference and people who are most of the data.

    Args:
        embeddings: (N, D); what is not numbers and cannot be scored is not looked at.
        labels: integers (N,).
        names: one per label value; None when unknown.
    """
    lines = [_collapsed(np.asarray(embeddings), np.asarray(labels))]
    if all_pairs:
        lines.append(_one_person(np.asarray(labels), names))
    return [line for line in lines if line is not None]


def is_collapsed(embeddings: npt.ArrayLike) -> bool:
    """Whether all embeddings point into one direction, as far as fp32 can tell.

    Args:
        embeddings: (N, D), of any length above 0.
    """
    vectors = np.asarray(embeddings, np.float32)
    if len(vectors) < 2:
        return False
    if len(vectors) > _FIRST and not is_collapsed(vectors[:_FIRST]):
        return False  # without a copy of everything
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return bool((np.linalg.norm(unit - unit[0], axis=1) < _SAME_VECTOR).all())


def _collapsed(vectors: npt.NDArray[Any], labels: npt.NDArray[Any]) -> str | None:
    if vectors.ndim != 2 or vectors.dtype.kind not in "iuf" or not vectors.any(axis=1).all():
        return None  # refused where they are scored
    if is_collapsed(vectors):
        return (
            f"COLLAPSED: all {len(vectors)} embeddings are one and the same vector, every pair "
            "scores the same and the figures are those of guessing: the model tells no faces "
            "apart, or another array was saved"
        )
    keys = np.fromiter((hash(row.tobytes()) for row in vectors), np.int64, len(vectors))
    group = np.unique(keys, return_inverse=True)[1]
    pairs = np.unique(np.stack([group, labels]), axis=1)
    owners = np.bincount(pairs[0], minlength=int(group.max()) + 1)
    shared = int((owners[group] > 1).sum())
    if shared <= max(1, _SHARED * len(vectors)):
        return None
    return (
        f"{shared} of {len(vectors)} embeddings are exactly those of another person's picture: "
        "faces that were not found, or the same pictures under several names?"
    )


def _one_person(labels: npt.NDArray[Any], names: Sequence[str] | None) -> str | None:
    values, counts = np.unique(labels, return_counts=True)
    if len(values) < 3:
        return None  # a line of size_warnings says so
    pairs = counts.astype(np.float64) * (counts - 1) / 2
    most = int(np.argmax(pairs))
    if pairs.sum() == 0 or pairs[most] <= _ONE_PERSON * pairs.sum():
        return None
    label = int(values[most])
    name = str(label) if names is None else names[label]
    return (
        f"{name} has {counts[most]} of {counts.sum()} pictures and "
        f"{pairs[most] / pairs.sum():.0%} of the genuine pairs: the figures are mostly about this "
        "one, and wrong if several people have this name"
    )
