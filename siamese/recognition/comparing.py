"""Are these the same person? Many pairs of pictures at once."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt

from siamese.data.pair_forms import ENDINGS, PICTURES
from siamese.data.pair_lists import read_pairs
from siamese.errors import UserError
from siamese.files.places import read_bytes
from siamese.models.inference import Embedder, pictures_in
from siamese.verification.calibration import require_prior
from siamese.verification.scores import listed_scores, normalise

# Columns of pictures, as lists of pairs have them: path_a, img1, ...
_HEADERS = {f"{name}{ending}" for name in PICTURES for endings in ENDINGS for ending in endings}


@dataclass(frozen=True)
class PairScores:
    """Scores of M pairs of pictures.

    Attributes:
        pairs: paths of both pictures of each.
        scores: float64 (M,), cosine similarities in [-1, 1].
        same: bool (M,), whether each reaches the threshold; None where there is none.
        probabilities: float64 (M,), that each shows one person; None without a calibration.
        threshold: the one in force.
    """

    pairs: tuple[tuple[str, str], ...]
    scores: npt.NDArray[np.float64]
    same: npt.NDArray[np.bool_] | None
    probabilities: npt.NDArray[np.float64] | None
    threshold: float | None


def compare_pairs(
    model: Embedder,
    pairs: Iterable[tuple[str, str]],
    *,
    prior: float = 0.5,
    threshold: float | None = None,
) -> PairScores:
    """Score pairs of pictures; each picture is embedded once.

    Args:
        model: the embedder.
        pairs: paths.
        prior: probability of one person before a pair is compared, above 0 and below 1.
        threshold: from which score on a pair is one person; None: the model's own.

    Raises:
        DecodeError: a picture cannot be decoded; names it.
        UserError: no pair.
    """
    require_prior(prior)
    pairs = tuple(pairs)
    if not pairs:
        raise UserError("no pair of pictures to compare")
    paths = list(dict.fromkeys(path for pair in pairs for path in pair))
    row = {path: number for number, path in enumerate(paths)}
    decision = model.decision
    vectors = model.embed(paths, flip=None if decision is None else decision.flip)
    first, second = (np.array([row[pair[side]] for pair in pairs]) for side in (0, 1))
    scores = listed_scores(normalise(vectors), first, second)
    if threshold is None and decision is not None:
        threshold = decision.threshold
    return PairScores(
        pairs,
        scores,
        None if threshold is None else scores >= threshold,
        None if decision is None else decision.calibration.probability(scores, prior),
        threshold,
    )


def pairs_between(a: str, b: str) -> list[tuple[str, str]]:
    """Every picture of one side with every picture of the other; a side is a picture or a folder.

    Raises:
        UserError: a folder without pictures.
    """
    return list(product(pictures_of(a), pictures_of(b)))


def pictures_of(place: str) -> list[str]:
    """The path itself, or the paths of the pictures in a folder (with people's folders or not)."""
    if not os.path.isdir(place):
        return [place]
    found, _ = pictures_in(Path(place))
    return [str(found.root / path) for path in found.paths]


def listed_pairs(file: str, root: str) -> list[tuple[str, str]]:
    """The pairs of a list: two pictures a line, or any list that siamese-eval pairs reads.

    Args:
        file: the list, UTF-8.
        root: the folder that its paths start from.

    Raises:
        UserError: missing, malformed, or pictures that are not there.
    """
    text = read_bytes(Path(file)).decode("utf-8-sig", "replace")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        raise UserError(f"{file}: is empty; a list of pairs is needed")
    mark = next((mark for mark in "\t,;" if mark in lines[0]), None)
    rows = [line.split() for line in lines]
    if mark is not None:
        rows = list(csv.reader(lines, delimiter=mark))
    columns = [number for number, name in enumerate(rows[0]) if _is_picture(name)]
    if len(columns) == 2:
        rows = rows[1:]
    elif all(len(row) == 2 for row in rows):
        columns = [0, 1]
    else:
        known = read_pairs(Path(file), Path(root))
        rows, columns = [list(pair) for pair in zip(known.first, known.second, strict=True)], [0, 1]
    if any(len(row) <= max(columns) for row in rows):
        raise UserError(f"{file}: a line has fewer fields than its header")
    one, other = columns
    return [(os.path.join(root, row[one]), os.path.join(root, row[other])) for row in rows]


def _is_picture(name: str) -> bool:
    """Whether a header's name is that of a column of pictures."""
    return name.lower().replace("_", "").replace("-", "").replace(" ", "") in _HEADERS
