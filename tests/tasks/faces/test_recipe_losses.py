"""AdaFace, the cross-batch memory, softmax with triplets, a later miner: against naive loops."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from siamese.config import LossSettings, TrainSettings, check_settings
from siamese.errors import UserError
from siamese.tasks.faces.metric_losses import MetricLoss, sharing_classes
from siamese.training.distribution import Distribution


def _batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(4).repeat_interleave(3)
    lengths = torch.linspace(0.5, 4, 12)[:, None]
    rows = torch.randn(12, 8, generator=generator) + torch.eye(4, 8)[labels]
    return rows * lengths, labels


def _unit(rows: torch.Tensor) -> torch.Tensor:
    return nn.functional.normalize(rows.double(), dim=1)


def _triplet_loss(
    anchors: torch.Tensor,
    labels: torch.Tensor,
    others: torch.Tensor,
    other_labels: torch.Tensor,
    selves: list[int],
) -> float:
    """Mean of the violating triplets, by a loop; ``selves``: where each anchor is among others."""
    scores, found = _unit(anchors) @ _unit(others).T, []
    for a in range(len(anchors)):
        for p in range(len(others)):
            for n in range(len(others)):
                if p == selves[a] or labels[a] != other_labels[p] or labels[a] == other_labels[n]:
                    continue
                found.append(max(0.0, float(scores[a, n] - scores[a, p]) + 0.1))
    active = [value for value in found if value > 0]
    return sum(active) / len(active)


def _adaface(
    rows: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor, mean: float, deviation: float
) -> float:
    """Equations 10 to 12 of the paper, picture by picture, in float64 (m 0.4, h 0.333, s 10)."""
    terms = []
    columns = nn.functional.normalize(weights.double(), dim=0)
    for row, label in zip(rows.double(), labels.tolist(), strict=True):
        length = min(max(float(row.norm()), 1e-3), 100.0)
        quality = min(max((length - mean) / (deviation + 1e-3) * 0.333, -1.0), 1.0)
        cosines = (row / row.norm()) @ columns
        angle = math.acos(float(cosines[label])) - 0.4 * quality
        angle = min(max(angle, 1e-3), math.pi - 1e-3)
        logits = 10 * cosines
        logits[label] = 10 * (math.cos(angle) - (0.4 * quality + 0.4))
        terms.append(float(torch.logsumexp(logits, 0) - logits[label]))
    return sum(terms) / len(terms)


def test_adaface_is_its_formula_and_follows_the_lengths() -> None:
    loss = MetricLoss(LossSettings(name="adaface", scale=10.0), 4, 8)
    weights = next(loss.parameters()).detach()
    rows, labels = _batch()
    lengths = rows.norm(dim=1).double()
    mean, deviation = float(lengths.mean()), float(lengths.std(correction=0))
    expected = _adaface(rows, labels, weights, mean, deviation)
    assert loss(rows, labels).item() == pytest.approx(expected, rel=1e-5)
    rows, labels = 3 * rows.flip(0), labels.flip(0)  # the second batch moves them by a hundredth
    lengths = rows.norm(dim=1).double()
    mean = 0.99 * mean + 0.01 * float(lengths.mean())
    deviation = 0.99 * deviation + 0.01 * float(lengths.std(correction=0))
    expected = _adaface(rows, labels, weights, mean, deviation)
    assert loss(rows, labels).item() == pytest.approx(expected, rel=1e-5)


def test_adaface_margins_are_for_every_process() -> None:
    together = Distribution(rank=0, world=2)
    assert sharing_classes("adamw", "adaface", together).world == 1
    assert sharing_classes("adamw", "arcface", together).world == 2


def test_a_memory_pairs_with_earlier_batches() -> None:
    loss = MetricLoss(LossSettings(memory=24), 4, 8)
    (first, labels), (second, _), (third, _) = _batch(1), _batch(2), _batch(3)
    places = list(range(12))
    plain = _triplet_loss(first, labels, first, labels, places)
    assert float(loss(first, labels)) == pytest.approx(plain, rel=1e-5)
    both, both_labels = torch.cat([first, second]), labels.repeat(2)
    wider = _triplet_loss(second, labels, both, both_labels, [12 + i for i in places])
    assert float(loss(second, labels)) == pytest.approx(wider, rel=1e-5)
    # The third takes the first one's places.
    last = torch.cat([third, second])
    wider = _triplet_loss(third, labels, last, both_labels, places)
    assert float(loss(third, labels)) == pytest.approx(wider, rel=1e-5)


@pytest.mark.parametrize("batches", [1, 3])
def test_a_checkpoint_holds_the_memory(batches: int) -> None:
    settings = LossSettings(name="supcon", memory=30)
    loss, resumed = MetricLoss(settings, 4, 8), MetricLoss(settings, 4, 8)
    for seed in range(batches):
        loss(*_batch(seed))
    state = loss.state_dict()
    assert all(torch.is_tensor(value) for value in state.values())
    resumed.load_state_dict(state)
    for seed in range(7, 10):
        assert torch.equal(loss(*_batch(seed)), resumed(*_batch(seed)))


def test_a_batch_larger_than_the_memory_is_refused() -> None:
    loss = MetricLoss(LossSettings(memory=11), 4, 8)
    with pytest.raises(UserError, match=r"`loss.memory` 11: a batch of 12 pictures does not fit"):
        loss(*_batch())


def test_a_place_beyond_the_memory_is_refused() -> None:
    loss = MetricLoss(LossSettings(memory=30), 4, 8)
    for place in ([30, 1], [-1, 0], [0, 2]):
        state = {**loss.state_dict(), "loss._extra_state": torch.tensor(place)}
        with pytest.raises(ValueError, match="no place in a memory of 30"):
            loss.load_state_dict(state)


@pytest.mark.parametrize("name", ["triplet", "contrastive"])
def test_the_miner_begins_with_its_epoch(name: Any) -> None:
    mined = MetricLoss(LossSettings(name=name, miner="batch_hard"), 4, 8)
    later = MetricLoss(LossSettings(name=name, miner="batch_hard", miner_after=2), 4, 8)
    never = MetricLoss(LossSettings(name=name), 4, 8)
    assert float(mined(*_batch())) != float(never(*_batch()))
    for epoch, like in ((0, never), (1, never), (2, mined), (3, mined)):
        later.start_epoch(epoch, 0)
        assert float(later(*_batch())) == float(like(*_batch()))


def test_a_memory_takes_the_miner_when_it_begins() -> None:
    settings = LossSettings(name="contrastive", miner="batch_hard", miner_after=1, memory=12)
    loss, mined = MetricLoss(settings, 4, 8), MetricLoss(LossSettings(name="contrastive"), 4, 8)
    loss.start_epoch(0, 0)
    assert float(loss(*_batch())) == pytest.approx(float(mined(*_batch())), rel=1e-6)
    loss.start_epoch(1, 0)
    assert float(loss(*_batch())) > float(mined(*_batch()))


def test_triplets_beside_softmax_see_the_embeddings_before_the_neck() -> None:
    settings = LossSettings(name="normalized_softmax", triplet_weight=0.5)
    loss, alone = MetricLoss(settings, 4, 8), MetricLoss(LossSettings("normalized_softmax"), 4, 8)
    alone.loss.load_state_dict(loss.loss.state_dict())
    (before, labels), (after, _) = _batch(1), _batch(2)
    triplets = _triplet_loss(before, labels, before, labels, list(range(12)))
    expected = float(alone(after, labels)) + 0.5 * triplets
    found = loss(torch.cat([before, after], 1), labels)
    assert float(found) == pytest.approx(expected, rel=1e-5)
    wide = torch.cat([before, after], 1)
    assert loss.active_share(wide, labels) == alone.active_share(after, labels)


@pytest.mark.parametrize(("given", "lam"), [({}, 1.0), ({"scale": 10.0, "margin": 0.5}, 0.5)])
def test_multi_similarity_by_the_formula_of_its_paper(given: dict[str, float], lam: float) -> None:
    rows, labels = _batch()
    scores, terms = _unit(rows) @ _unit(rows).T, []
    for a in range(12):
        same = [float(scores[a, i]) for i in range(12) if i != a and labels[i] == labels[a]]
        other = [float(scores[a, i]) for i in range(12) if labels[i] != labels[a]]
        pull = math.log1p(sum(math.exp(-2 * (s - lam)) for s in same)) / 2
        push = math.log1p(sum(math.exp(10 * (s - lam)) for s in other)) / 10
        terms.append(pull + push)
    loss = MetricLoss(LossSettings(name="multi_similarity", **given), 4, 8)
    assert float(loss(rows, labels)) == pytest.approx(sum(terms) / 12, rel=1e-5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "arcface", "memory": 64}, "`loss.memory` 64: must be 0 for the arcface loss"),
        ({"triplet_weight": 1.0}, "`loss.triplet_weight` 1.0: must be 0 for the triplet loss"),
        ({"miner_after": 2}, "`loss.miner_after` 2: must be 0 where `loss.miner` is none"),
        ({"name": "adaface", "sample_rate": 0.5}, "`loss.sample_rate` 0.5: must be 1 for the"),
    ],
)
def test_settings_that_do_nothing_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        check_settings(TrainSettings(loss=LossSettings(**given)))
    assert message in str(caught.value)
