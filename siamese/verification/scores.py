"""Scores of all unordered pairs: cosine similarity, float32, in blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from siamese.errors import UserError

Scores = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

# Fixed, so that a pair's score is the same number wherever it is computed.
_BLOCK = 1024


@dataclass(frozen=True)
class PairScores:
    """Scores of the judged pairs, each class sorted ascending.

    Attributes:
        genuine: float32 (G,), pairs of two images of one identity.
        impostor: float32 (I,), pairs of images of two identities.
        identities: number of identities P that take part.
        images: number of images N that take part.
        identity_pairs: number of pairs of identities behind the impostor scores: C(P, 2), or
            P - 1 where one target is judged.
    """

    genuine: Scores
    impostor: Scores
    identities: int
    images: int
    identity_pairs: int


def normalise(embeddings: npt.ArrayLike) -> torch.Tensor:
    """Embeddings to unit length.

    Args:
        embeddings: (N, D), converted to float32.

    Returns:
        float32 (N, D) on the CPU; a zero vector stays zero and scores 0 with everything.

    Raises:
        UserError: not two-dimensional, or NaN or Inf in it.
    """
    array = np.asarray(embeddings)
    if array.ndim != 2 or array.shape[1] == 0 or not np.issubdtype(array.dtype, np.number):
        raise UserError(
            f"embeddings must be numbers of shape (N, D); these are {array.dtype} {array.shape}"
        )
    vectors = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
    broken = int((~torch.isfinite(vectors).all(dim=1)).sum())
    if broken:
        raise UserError(
            f"{broken} of {len(vectors)} embeddings hold NaN or Inf: embed again in fp32, or use "
            "another checkpoint"
        )
    return torch.nn.functional.normalize(vectors, dim=1)


def score_blocks(unit: torch.Tensor) -> Iterator[tuple[int, Scores]]:
    """Blocks of the upper triangle of the score matrix.

    Args:
        unit: float32 (N, D), rows of unit length.

    Yields:
        ``(first, block)``: ``block[i, j]`` is the score of images ``first + i`` and ``first + j``;
        it holds every pair whose smaller position lies in its rows (pairs count where i < j).
    """
    with torch.inference_mode(), torch.autocast(unit.device.type, enabled=False):
        for first in range(0, len(unit), _BLOCK):
            block = unit[first : first + _BLOCK] @ unit[first:].T
            yield first, block.clamp_(-1, 1).cpu().numpy()


def pair_scores(embeddings: npt.ArrayLike, labels: npt.ArrayLike) -> PairScores:
    """Score all unordered pairs of different images.

    Pairs are told apart by position, so true duplicates count as the genuine pairs they are.
    Memory: the scores themselves (4 bytes per pair) and one block.

    Args:
        embeddings: (N, D).
        labels: integers (N,), equal for images of one identity.

    Raises:
        UserError: wrong shapes or values; no genuine pair; no impostor pair.
    """
    unit, identity = normalise(embeddings), _labels(labels, len(np.asarray(embeddings)))
    counts = np.unique(identity, return_counts=True)[1].astype(np.int64)
    pairs = len(identity) * (len(identity) - 1) // 2
    genuine_pairs = int((counts * (counts - 1) // 2).sum())
    _require_pairs(genuine_pairs, pairs - genuine_pairs)
    genuine = np.empty(genuine_pairs, np.float32)
    impostor = np.empty(pairs - genuine_pairs, np.float32)
    g = i = 0
    for first, block in score_blocks(unit):
        rows, columns = identity[first : first + len(block)], identity[first:]
        upper = np.arange(len(columns)) > np.arange(len(rows))[:, None]
        same = rows[:, None] == columns
        found = block[upper & same]
        genuine[g : g + len(found)] = found
        g += len(found)
        found = block[upper & ~same]
        impostor[i : i + len(found)] = found
        i += len(found)
    genuine.sort()
    impostor.sort()
    people = len(counts)
    return PairScores(genuine, impostor, people, len(identity), people * (people - 1) // 2)


def target_scores(embeddings: npt.ArrayLike, labels: npt.ArrayLike, target: int) -> PairScores:
    """Score one registered identity against everybody: the classic single-person curve.

    Genuine pairs are those of the target's images; impostor pairs join one of them with an image
    of another identity.

    Raises:
        UserError: as :func:`pair_scores`, and when no image has the target's label.
    """
    unit, identity = normalise(embeddings), _labels(labels, len(np.asarray(embeddings)))
    own = identity == target
    if not own.any():
        raise UserError("the target has no image among the judged ones")
    count = int(own.sum())
    _require_pairs(count * (count - 1) // 2, count * (len(own) - count))
    genuine, impostor = [], []
    # The blocks of all pairs: another product could round a pair's score differently.
    for first, block in score_blocks(unit):
        rows, columns = own[first : first + len(block), None], own[first:]
        upper = np.arange(len(columns)) > np.arange(len(rows))[:, None]
        genuine.append(block[upper & rows & columns])
        impostor.append(block[upper & (rows ^ columns)])
    people = len(np.unique(identity))
    return PairScores(
        np.sort(np.concatenate(genuine)),
        np.sort(np.concatenate(impostor)),
        people,
        len(identity),
        people - 1,
    )


def _labels(labels: npt.ArrayLike, images: int) -> Labels:
    array = np.asarray(labels)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise UserError(
            f"labels must be integers of shape (N,); these are {array.dtype} {array.shape}"
        )
    if len(array) != images:
        raise UserError(f"{len(array)} labels for {images} embeddings: one per image is needed")
    return array.astype(np.int64)


def _require_pairs(genuine: int, impostor: int) -> None:
    if genuine == 0:
        raise UserError("no genuine pair: nobody has two images; add images of the same people")
    if impostor == 0:
        raise UserError("no impostor pair: all images are of one person; add other people")
