"""1:N: whose picture is it? A search in a gallery of known people, and ranked retrieval."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from siamese.errors import UserError
from siamese.verification.counts import Floats
from siamese.verification.scores import (
    Labels,
    Prepared,
    check_labels,
    level_scores,
    prepare,
)

Fusion = Literal["max", "mean"]

# Scores held at once, 16 MiB of them.
_BLOCK = 2**22
_CURVE_POINTS = 1000


@dataclass(frozen=True)
class Identification:
    """Searches of all probes in random galleries.

    Ties count against the model everywhere: a person is found only above all others.

    Attributes:
        cmc: float64 (K,), share of probes whose own person is among the best 1 ... K.
        threshold: float64 (T,), T <= 1000, rising; with ``fpir`` and ``fnir`` the open-set curve.
        fpir: float64 (T,), false-positive identification rate: share of searches without the own
            person in the gallery whose best score >= threshold.
        fnir: float64 (T,), false-negative identification rate: share of searches with the own
            person in the gallery that do not rank it first with a score >= threshold.
        mated: float64 (probes * draws,), ascending: the own person's score where it is first, else
            -Inf.
        non_mated: float64 (probes * draws,), ascending: the best other person's score.
    """

    people: int
    people_left_out: int
    images_per_person: int
    fusion: Fusion
    draws: int
    probes: int
    cmc: Floats
    threshold: Floats
    fpir: Floats
    fnir: Floats
    mated: Floats = field(repr=False)
    non_mated: Floats = field(repr=False)

    def fnir_at(self, fpir: float) -> float:
        """The lowest FNIR whose FPIR does not exceed ``fpir``, over all thresholds.

        Args:
            fpir: wanted false-positive identification rate in [0, 1].
        """
        too_low = self._too_low(fpir)
        return float(np.searchsorted(self.mated, too_low, side="right") / len(self.mated))

    def threshold_at(self, fpir: float) -> float:
        """The lowest threshold whose FPIR does not exceed ``fpir``; just above 1 none is accepted.

        Args:
            fpir: wanted false-positive identification rate in [0, 1].
        """
        too_low = self._too_low(fpir)
        above = np.concatenate([self.mated, self.non_mated])
        above = above[above > too_low]
        if not len(above):
            return float(np.nextafter(1.0, 2.0))
        return float(above.min()) if np.isfinite(too_low) else -1.0

    def _too_low(self, fpir: float) -> float:
        """The highest score that would be a false alarm too many; -Inf where all are allowed."""
        total = len(self.non_mated)
        allowed = int(fpir * total)
        if (allowed + 1) / total <= fpir:  # 0.29 * 100 is 28.999...
            allowed += 1
        return float(self.non_mated[total - 1 - allowed]) if allowed < total else -np.inf


def identify(
    embeddings: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    images_per_person: int = 1,
    fusion: Fusion = "max",
    seed: int = 0,
    draws: int = 10,
    progress: bool = False,
) -> Identification:
    """Search every image in galleries of the others (ISO/IEC 19795-1).

    Each gallery holds ``images_per_person`` images of every person who has more than that, drawn
    at random; all their other images are probes. Closed set: the own person's rank is 1 + the
    number of other people with a score >= the own one's. Open set: each probe is searched twice,
    in the whole gallery and in the gallery without its own person, who is a stranger there. Rates
    are over the probes of all galleries; they are not independent, so that ten galleries narrow
    the luck of the draw, not the choice of people.

    Args:
        embeddings: (N, D), of any length above 0.
        labels: integers (N,), equal for images of one identity.
        images_per_person: images of each person in the gallery, at least 1.
        draws: number of random galleries, at least 1.

    Raises:
        UserError: unusable embeddings, labels or settings; fewer than two people with more than
            ``images_per_person`` images.
    """
    _require_galleries(images_per_person, fusion, draws)
    prepared = prepare(embeddings)
    taken, person, left_out = _enrolled(check_labels(labels, len(prepared.unit)), images_per_person)
    people = int(person.max()) + 1
    prepared = prepared.at(torch.from_numpy(taken))
    found_at_rank, mated, non_mated = _search_galleries(
        prepared, person, images_per_person, fusion, seed, draws, progress=progress
    )
    summed = images_per_person if fusion == "mean" else 1
    threshold, fpir, fnir = _open_set(mated, non_mated)
    return Identification(
        people=people,
        people_left_out=left_out,
        images_per_person=images_per_person,
        fusion=fusion,
        draws=draws,
        probes=len(person) - people * images_per_person,
        cmc=np.cumsum(found_at_rank) / found_at_rank.sum(),
        threshold=level_scores(threshold / summed, prepared.zoom),
        fpir=fpir,
        fnir=fnir,
        mated=np.where(mated < 0, -np.inf, level_scores(mated / summed, prepared.zoom)),
        non_mated=level_scores(non_mated / summed, prepared.zoom),
    )


def _require_galleries(images_per_person: int, fusion: str, draws: int) -> None:
    """Refuse galleries that cannot be; UserError."""
    if images_per_person < 1:
        raise UserError(
            f"{images_per_person} images per person in the gallery: at least 1 is needed"
        )
    if draws < 1:
        raise UserError(f"{draws} random galleries: at least 1 is needed")
    if fusion not in get_args(Fusion):
        raise UserError(f"fusion {fusion!r}: must be max or mean")


def _enrolled(
    labels: npt.NDArray[np.int64], images_per_person: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int]:
    """Images of people with enough of them, whose they are (0, 1, ...), and how many lack some."""
    _, person, images = np.unique(labels, return_inverse=True, return_counts=True)
    enough = images > images_per_person
    people = int(enough.sum())
    _require_people(people, images_per_person)
    taken = enough[person]
    numbered = (np.cumsum(enough) - 1)[person[taken]]
    return np.flatnonzero(taken), numbered, len(images) - people


def _search_galleries(
    prepared: Prepared,
    person: Labels,
    images: int,
    fusion: Fusion,
    seed: int,
    draws: int,
    *,
    progress: bool,
) -> tuple[Labels, Labels, Labels]:
    """Probes by the own person's rank (K,), and the ascending levels of mated and other scores."""
    own_person_of = torch.from_numpy(person)
    found_at_rank, mated, non_mated = np.zeros(person.max() + 1, np.int64), [], []
    for draw in tqdm(
        range(draws), desc="searching galleries", leave=False, disable=None if progress else True
    ):
        gallery = _draw_gallery(person, images, np.random.default_rng([seed, draw]))
        probes = np.ones(len(person), bool)
        probes[gallery] = False
        probe = torch.from_numpy(np.flatnonzero(probes))
        own_person = own_person_of[probe, None]
        first = 0
        for levels in _search(prepared, probe, gallery, images, fusion):
            own_label = own_person[first : first + len(levels)]
            first += len(levels)
            score = levels.gather(1, own_label)
            rank = (levels >= score).sum(1).numpy()
            found_at_rank += np.bincount(rank - 1, minlength=len(found_at_rank))
            mated.append(torch.where(torch.from_numpy(rank) == 1, score[:, 0], -1).numpy())
            non_mated.append(levels.scatter_(1, own_label, -1).amax(1).numpy())
    return found_at_rank, np.sort(np.concatenate(mated)), np.sort(np.concatenate(non_mated))


def _require_people(people: int, images_per_person: int) -> None:
    fix = "add images of the same people" + (
        ", or take fewer images per person into the gallery" if images_per_person > 1 else ""
    )
    if people == 0:
        raise UserError(
            f"nobody has more than {images_per_person} image(s), so nobody can be enrolled and "
            f"searched for: {fix}"
        )
    if people == 1:
        raise UserError(
            f"only one person has more than {images_per_person} image(s), a gallery needs two: "
            f"{fix}"
        )


def _draw_gallery(person: Labels, images: int, rng: np.random.Generator) -> Labels:
    """Positions (images * K,) of random images of each person: one of everybody, then another."""
    shuffled = rng.permutation(len(person))
    ordered = shuffled[np.argsort(person[shuffled], kind="stable")]
    counts = np.bincount(person)
    first = np.cumsum(counts) - counts
    return np.asarray(ordered[(first + np.arange(images)[:, None]).flatten()])


def _search(
    prepared: Prepared, probes: torch.Tensor, gallery: Labels, images: int, fusion: Fusion
) -> Iterator[torch.Tensor]:
    """Levels (R, K) of some probes with every person; of "mean" the sum over a person's images."""
    rows = max(1, _BLOCK // len(gallery))
    enrolled = torch.from_numpy(gallery)
    for block in torch.split(probes, rows):
        levels = prepared.levels(block, enrolled).reshape(len(block), images, -1)
        yield levels.amax(1) if fusion == "max" else levels.sum(1)


def _open_set(mated: Labels, non_mated: Labels) -> tuple[Floats, Floats, Floats]:
    """Threshold (a level), FPIR and FNIR at no more than 1000 points, each of them exact."""
    total = len(mated)
    # Even steps of FNIR, even steps of FPIR, and even ratios of FPIR for the log axis.
    share = _CURVE_POINTS // 3
    even = np.linspace(0, total - 1, share).round().astype(np.int64)
    few = total - np.geomspace(1, total, share).round().astype(np.int64)
    scores = np.unique(np.concatenate([mated[even], non_mated[even], non_mated[few]]))
    scores = scores[scores >= 0]
    level = np.append(scores, scores[-1] + 1)
    fpir = (total - np.searchsorted(non_mated, level, side="left")) / total
    fnir = np.searchsorted(mated, level, side="left") / total
    return level.astype(np.float64), fpir, fnir


@dataclass(frozen=True)
class Retrieval:
    """How well the images of a person rank first when one of them is the query.

    Attributes:
        map_at_r: mean average precision at R, in [0, 1].
        r_precision: share of own images among the best R, in [0, 1].
    """

    map_at_r: float
    r_precision: float
    queries: int


@torch.inference_mode()
def retrieval(
    embeddings: npt.ArrayLike, labels: npt.ArrayLike, *, progress: bool = False
) -> Retrieval:
    """MAP@R and R-precision (Musgrave et al. 2020, "A Metric Learning Reality Check").

    Every image is the query once and all others are ranked by cosine similarity; R is the number
    of other images of its identity. Both figures are means over the queries; an image that is the
    only one of its identity is ranked, but is no query. Of equal scores other people's rank
    first.

    Args:
        embeddings: (N, D), of any length above 0.
        labels: integers (N,), equal for images of one identity.

    Raises:
        UserError: unusable embeddings or labels; nobody has two images.
    """
    prepared = prepare(embeddings)
    unit = prepared.unit
    _, person, images = np.unique(
        check_labels(labels, len(unit)), return_inverse=True, return_counts=True
    )
    relevant = images[person] - 1
    # By R, so that the queries of a block need lists of about the same length.
    queries = np.argsort(relevant, kind="stable")
    queries = queries[relevant[queries] > 0]
    if len(queries) == 0:
        raise UserError("no query: nobody has two images; add images of the same people")
    average_precision = precision = 0.0
    identity = torch.from_numpy(person)
    blocks = torch.split(torch.from_numpy(queries), max(1, _BLOCK // len(unit)))
    for query in tqdm(blocks, desc="ranking", leave=False, disable=None if progress else True):
        r = torch.from_numpy(relevant)[query, None]
        hit = _best_are_own(prepared, identity, query, int(r.max()))
        place = torch.arange(1, hit.shape[1] + 1)
        hit &= place <= r
        hits = hit.cumsum(1)
        average_precision += float((hits * hit / place.double() / r).sum())
        precision += float((hit / r.double()).sum())
    return Retrieval(average_precision / len(queries), precision / len(queries), len(queries))


def _best_are_own(
    prepared: Prepared, identity: torch.Tensor, query: torch.Tensor, places: int
) -> torch.Tensor:
    """Whether the best-scored images are of the query's identity: bool (Q, places)."""
    levels = prepared.levels(query, slice(None))
    # One integer orders by level, then other people first; its last bit tells which it was.
    levels.mul_(2).add_(identity[query, None] != identity)
    levels[torch.arange(len(query)), query] = -1
    # A float32 holds these integers, all below 2**24, exactly, and its top k is found faster.
    best = levels.float().topk(places, dim=1).values.int()
    return best % 2 == 0
