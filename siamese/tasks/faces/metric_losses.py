"""Metric-learning losses by name: PML's loss, miner and reducer, composed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from pytorch_metric_learning import distances, losses, miners, reducers
from pytorch_metric_learning.utils import loss_and_miner_utils
from torch import nn

from siamese.config import CLASS_WEIGHT_LOSSES, MULTI_SIMILARITY, LossSettings
from siamese.errors import UserError
from siamese.tasks.faces.adaface import AdaFaceLoss
from siamese.tasks.faces.partial_classes import PartialClasses
from siamese.training.distribution import SINGLE, Distribution
from siamese.training.sharing import SharedColumns

# Usual values: FaceNet-like triplets on cosine; Khosla 2020 (supcon); van den Oord 2018 as PML sets
# it (ntxent); Sun 2020, face setting (circle); Deng 2019 (arcface, degrees); Wang 2018 (cosface);
# Kim 2022 (adaface). :func:`with_values` gives arcface and its kin their scale, normalized_softmax
# (Zhai 2019) its temperature, and multi_similarity both.
_MARGIN = {
    "triplet": 0.1,
    "contrastive": 0.0,
    "circle": 0.25,
    "arcface": 28.6,
    "subcenter_arcface": 28.6,
    "cosface": 0.35,
    "adaface": 0.4,
}
_SCALE = {"circle": 256.0}
_TEMPERATURE = {"supcon": 0.1, "ntxent": 0.07}
# Losses whose scale follows the number of people.
_SCALED = frozenset({"arcface", "subcenter_arcface", "cosface", "adaface"})
# What runs took before these values changed; they go on with it.
_EARLIER_SCALE = {
    "arcface": 64.0,
    "subcenter_arcface": 64.0,
    "cosface": 64.0,
    "multi_similarity": 50.0,
}
_EARLIER_MARGIN = {"multi_similarity": 0.5}
_EARLIER_TEMPERATURE = {"normalized_softmax": 0.05}
_FEWEST_CLASSES = 10
# Where a loss has no triplet margin, active triplets are counted at this one.
_ACTIVE_MARGIN = 0.1


def fixed_scale(classes: int) -> float:
    """AdaCos' fixed scale for losses with class weights, sqrt(2) ln(C - 1) (arXiv 1905.00292).

    It puts the steepest part of the right class's probability at 45 degrees from its weight, the
    others being at right angles. Fewer than ten classes count as ten: below, the formula falls to 0
    (at two).
    """
    return math.sqrt(2) * math.log(max(classes, _FEWEST_CLASSES) - 1)


def with_values(settings: LossSettings, classes: int) -> LossSettings:
    """The settings with the scale of arcface and its kin filled in where the user gave none (for
    normalized_softmax its inverse, the temperature), and margin and scale of multi_similarity.
    """
    if settings.name in _SCALED:
        return replace(settings, scale=_given(settings.scale, fixed_scale(classes)))
    if settings.name == "normalized_softmax":
        temperature = _given(settings.temperature, 1 / fixed_scale(classes))
        return replace(settings, temperature=temperature)
    if settings.name == "multi_similarity":
        margin, scale = MULTI_SIMILARITY
        return replace(
            settings, margin=_given(settings.margin, margin), scale=_given(settings.scale, scale)
        )
    return settings


def with_earlier_values(settings: LossSettings) -> LossSettings:
    """The settings of a checkpoint, with the values that were meant where none were stored.

    Runs store them since they have changed; before, the scale was 64 for any number of people, and
    the temperature of normalized_softmax 0.05.
    """
    return replace(
        settings,
        margin=_given(settings.margin, _EARLIER_MARGIN.get(settings.name)),
        scale=_given(settings.scale, _EARLIER_SCALE.get(settings.name)),
        temperature=_given(settings.temperature, _EARLIER_TEMPERATURE.get(settings.name)),
    )


def sharing_classes(optimizer: str, loss: str, distribution: Distribution) -> Distribution:
    """The processes among which class weights are shared out; alone where each keeps them all.

    LARS and LAMB go by the norm of a whole matrix; AdaFace's margins by every picture of a batch.
    """
    return SINGLE if optimizer in ("lars", "lamb") or loss == "adaface" else distribution


@torch.no_grad()
def active_share(
    embeddings: torch.Tensor, labels: torch.Tensor, margin: float = _ACTIVE_MARGIN
) -> float:
    """Share of a batch's triplets that violate a margin on cosine similarity, in [0, 1].

    Embeddings (N, D), labels int64 (N,). PML's triplet loss averages only these, so the loss can
    look flat while their number falls.
    """
    unit = nn.functional.normalize(embeddings.float(), dim=1)
    similarity = unit @ unit.T
    anchor, positive, negative = loss_and_miner_utils.get_all_triplets_indices(labels)
    if len(anchor) == 0:
        return 0.0
    violation = similarity[anchor, negative] - similarity[anchor, positive] + margin
    return float((violation > 0).float().mean())


class MetricLoss(nn.Module):
    """A loss on embeddings and labels (0 ... classes - 1), in float32.

    Class weights are shared out among the processes of a ``distribution``; each must call the loss
    with the whole batch then. ``seed``: of the classes that a batch draws.
    """

    def __init__(
        self,
        settings: LossSettings,
        classes: int,
        embedding_dim: int,
        distribution: Distribution = SINGLE,
        seed: int = 0,
    ):
        super().__init__()
        settings = with_values(settings, classes)
        self.name, self.embedding_dim = settings.name, embedding_dim
        margin = _given(settings.margin, _MARGIN.get(settings.name))
        scale = _given(settings.scale, _SCALE.get(settings.name))
        temperature = _given(settings.temperature, _TEMPERATURE.get(settings.name))
        self.triplet_margin = margin if settings.name == "triplet" else None
        reducer = _reducer(settings.reducer)
        options: dict[str, Any] = {} if reducer is None else {"reducer": reducer}
        build = _LOSSES[settings.name]
        self.loss = build(classes, embedding_dim, margin, scale, temperature, options)
        self._miner, self._miner_after = _miner(settings.miner, margin), settings.miner_after
        self.miner = self._miner if self._miner_after == 0 else None
        if settings.memory:
            self.loss = RememberingLoss(self.loss, embedding_dim, settings.memory)
        self._triplet_weight = settings.triplet_weight
        self._triplet: nn.Module | None = None
        if settings.triplet_weight:
            self._triplet = _LOSSES["triplet"](0, 0, _MARGIN["triplet"], None, None, options)
        self._partial: PartialClasses | None = None
        rate = settings.sample_rate
        if self.has_class_weights and (rate < 1 or distribution.world > 1):
            self._partial = PartialClasses(self.loss, classes, rate, distribution, seed)

    @property
    def has_class_weights(self) -> bool:
        """Whether the loss only knows training identities (arcface and its kin)."""
        return self.name in CLASS_WEIGHT_LOSSES

    @property
    def knows_training_only(self) -> bool:
        """Whether it cannot be asked about other people: class weights, remembered embeddings."""
        return self.has_class_weights or isinstance(self.loss, RememberingLoss)

    @property
    def shared(self) -> SharedColumns | None:
        """The class weights where processes share them out."""
        return None if self._partial is None else self._partial.shared

    def start_epoch(self, epoch: int, batch: int) -> None:
        """See :meth:`PartialClasses.start_epoch`; the miner begins when its epoch comes."""
        self.miner = self._miner if epoch >= self._miner_after else None
        if self._partial is not None:
            self._partial.start_epoch(epoch, batch)

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Loss of a batch: embeddings (N, D) of any float type, labels int64 (N,).

        Embeddings (N, 2 D) are those before and after a neck: triplets beside a loss with class
        weights see the ones before.
        """
        with torch.autocast(embeddings.device.type, enabled=False):
            before, embeddings = both_sides(embeddings.float(), self.embedding_dim)
            value = self._main(embeddings, labels)
            if self._triplet is not None:
                value = value + self._triplet_weight * self._triplet(before, labels)
        return value

    def _main(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if self._partial is not None:
            return self._partial(embeddings, labels)
        value: torch.Tensor
        if isinstance(self.loss, RememberingLoss):
            self.loss.miner = self.miner
            value = self.loss(embeddings, labels)
        else:
            mined = self.miner(embeddings, labels) if self.miner is not None else None
            value = self.loss(embeddings, labels, mined)
        return value

    def active_share(self, embeddings: torch.Tensor, labels: torch.Tensor) -> float:
        """See :func:`active_share`; at the loss's own margin where it is one of triplets."""
        margin = _ACTIVE_MARGIN if self.triplet_margin is None else self.triplet_margin
        return active_share(both_sides(embeddings, self.embedding_dim)[1], labels, margin)


def both_sides(embeddings: torch.Tensor, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings (N, D) before and after a neck, of (N, 2 D); of (N, D) twice the same."""
    return embeddings[:, :dim], embeddings[:, -dim:]


class RememberingLoss(losses.CrossBatchMemory):  # type: ignore[misc]
    """PML's cross-batch memory (Wang et al., arXiv 1912.06798), which a checkpoint holds whole.

    PML keeps its place in the memory outside of its state.
    """

    def __init__(self, loss: nn.Module, embedding_dim: int, memory: int):
        super().__init__(loss, embedding_dim, memory_size=memory)

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Loss of a batch; UserError where it is larger than the memory."""
        if len(embeddings) > self.memory_size:
            raise UserError(
                f"`loss.memory` {self.memory_size}: a batch of {len(embeddings)} pictures does not "
                "fit in it; raise it"
            )
        value: torch.Tensor = super().forward(embeddings, labels)
        return value

    def get_extra_state(self) -> torch.Tensor:
        """Where the next embedding goes, and whether the memory has been filled."""
        return torch.tensor([self.queue_idx, int(self.has_been_filled)])

    def set_extra_state(self, state: torch.Tensor) -> None:
        """ValueError where it is no place in this memory."""
        place, filled = (int(value) for value in state)
        if not 0 <= place < self.memory_size or filled not in (0, 1):
            raise ValueError(f"no place in a memory of {self.memory_size}: {place}, {filled}")
        self.queue_idx, self.has_been_filled = place, bool(filled)


def _given(value: float | None, usual: float | None) -> float | None:
    return usual if value is None else value


_Builder = Callable[[int, int, float | None, float | None, float | None, dict[str, Any]], nn.Module]

# (classes, D, margin, scale, temperature, options) -> PML loss
_LOSSES: dict[str, _Builder] = {
    "triplet": lambda c, d, m, s, t, o: losses.TripletMarginLoss(
        margin=m, distance=distances.CosineSimilarity(), **o
    ),
    "contrastive": lambda c, d, m, s, t, o: losses.ContrastiveLoss(
        pos_margin=1, neg_margin=m, distance=distances.CosineSimilarity(), **o
    ),
    "multi_similarity": lambda c, d, m, s, t, o: losses.MultiSimilarityLoss(beta=s, base=m, **o),
    "supcon": lambda c, d, m, s, t, o: losses.SupConLoss(temperature=t, **o),
    "ntxent": lambda c, d, m, s, t, o: losses.NTXentLoss(temperature=t, **o),
    "circle": lambda c, d, m, s, t, o: losses.CircleLoss(m=m, gamma=s, **o),
    "arcface": lambda c, d, m, s, t, o: losses.ArcFaceLoss(c, d, margin=m, scale=s, **o),
    "subcenter_arcface": lambda c, d, m, s, t, o: losses.SubCenterArcFaceLoss(
        num_classes=c, embedding_size=d, margin=m, scale=s, sub_centers=3, **o
    ),
    "cosface": lambda c, d, m, s, t, o: losses.CosFaceLoss(c, d, margin=m, scale=s, **o),
    "adaface": lambda c, d, m, s, t, o: AdaFaceLoss(c, d, **{"margin": m, "scale": s, **o}),
    "normalized_softmax": lambda c, d, m, s, t, o: losses.NormalizedSoftmaxLoss(
        c, d, temperature=t, **o
    ),
}


def _miner(name: str, margin: float | None) -> nn.Module | None:
    cosine = distances.CosineSimilarity()
    if name in ("all", "semihard", "hard"):
        miner: nn.Module = miners.TripletMarginMiner(
            margin=margin, type_of_triplets=name, distance=cosine
        )
        return miner
    if name == "batch_hard":
        return miners.BatchHardMiner(distance=cosine)  # type: ignore[no-any-return]
    if name == "multi_similarity":
        return miners.MultiSimilarityMiner(epsilon=0.1)  # type: ignore[no-any-return]
    return None


def _reducer(name: str) -> nn.Module | None:
    kinds = {
        "mean": reducers.MeanReducer,
        "nonzero_mean": reducers.AvgNonZeroReducer,
        "sum": reducers.SumReducer,
    }
    return kinds[name]() if name in kinds else None
