"""Losses: the composed ones against naive loops, and every name in the settings."""

import math
from typing import Any, get_args

import pytest
import torch

from siamese.config import (
    CLASS_WEIGHT_LOSSES,
    LossName,
    LossSettings,
    MinerName,
    TrainSettings,
    check_settings,
)
from siamese.errors import UserError
from siamese.tasks.faces.metric_losses import (
    MetricLoss,
    fixed_scale,
    with_earlier_values,
    with_values,
)


def _batch() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    labels = torch.arange(4).repeat_interleave(3)
    return torch.randn(12, 8) + torch.eye(4, 8)[labels], labels


def _triplets(margin: float) -> list[float]:
    """Loss of every triplet of the batch, by a naive loop in float64."""
    embeddings, labels = _batch()
    unit = torch.nn.functional.normalize(embeddings.double(), dim=1)
    found = []
    for a in range(12):
        for p in range(12):
            for n in range(12):
                if a != p and labels[a] == labels[p] and labels[a] != labels[n]:
                    violation = unit[a] @ unit[n] - unit[a] @ unit[p] + margin
                    found.append(max(0.0, float(violation)))
    return found


def test_default_triplet_loss_averages_the_violating_triplets() -> None:
    values = _triplets(0.1)
    active = [v for v in values if v > 0]
    loss = MetricLoss(LossSettings(), 4, 8)
    assert float(loss(*_batch())) == pytest.approx(sum(active) / len(active), rel=1e-5)
    assert loss.active_share(*_batch()) == pytest.approx(len(active) / len(values))


def test_mean_reducer_averages_all_of_them() -> None:
    values = _triplets(0.3)
    loss = MetricLoss(LossSettings(margin=0.3, reducer="mean"), 4, 8)
    assert float(loss(*_batch())) == pytest.approx(sum(values) / len(values), rel=1e-5)


@pytest.mark.parametrize(
    ("miner", "kept"),
    [
        ("hard", lambda v: v > 0.1),
        ("semihard", lambda v: 0 < v <= 0.1),
        ("all", lambda v: v > 0),
    ],
)
def test_miners_choose_their_triplets(miner: MinerName, kept: Any) -> None:
    values = [v for v in _triplets(0.1) if kept(v)]
    loss = MetricLoss(LossSettings(miner=miner), 4, 8)
    assert float(loss(*_batch())) == pytest.approx(sum(values) / len(values), rel=1e-5)


def test_batch_hard_takes_one_triplet_per_image() -> None:
    embeddings, labels = _batch()
    unit = torch.nn.functional.normalize(embeddings.double(), dim=1)
    scores = unit @ unit.T
    values = []
    for a in range(12):
        same = [float(scores[a, i]) for i in range(12) if i != a and labels[i] == labels[a]]
        other = [float(scores[a, i]) for i in range(12) if labels[i] != labels[a]]
        values.append(max(0.0, max(other) - min(same) + 0.1))
    active = [v for v in values if v > 0]
    loss = MetricLoss(LossSettings(miner="batch_hard"), 4, 8)
    assert float(loss(*_batch())) == pytest.approx(sum(active) / len(active), rel=1e-5)


@pytest.mark.parametrize("name", get_args(LossName))
def test_every_loss_teaches_a_free_embedding(name: LossName) -> None:
    torch.manual_seed(1)
    labels = torch.arange(4).repeat_interleave(3)
    embeddings = torch.nn.Parameter(torch.randn(12, 8))
    loss = MetricLoss(LossSettings(name=name), 4, 8)
    optimizer = torch.optim.Adam([embeddings, *loss.parameters()], lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        value = loss(embeddings, labels)
        value.backward()
        optimizer.step()
    unit = torch.nn.functional.normalize(embeddings.detach(), dim=1)
    scores = unit @ unit.T
    same = labels[:, None] == labels
    assert scores[same].mean() - scores[~same].mean() > 0.5
    assert loss.has_class_weights == (name in CLASS_WEIGHT_LOSSES) == bool(list(loss.parameters()))


def test_losses_are_computed_in_fp32_under_autocast() -> None:
    embeddings, labels = _batch()
    loss = MetricLoss(LossSettings(), 4, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(embeddings, labels)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, loss(embeddings, labels))


def test_arcface_equals_its_formula() -> None:
    embeddings, labels = _batch()
    loss = MetricLoss(LossSettings(name="arcface", margin=20.0, scale=30.0), 4, 8)
    weights = torch.nn.functional.normalize(next(loss.parameters()).detach().double(), dim=0)
    cosine = torch.nn.functional.normalize(embeddings.double(), dim=1) @ weights
    angle = torch.arccos(cosine.clamp(-1 + 1e-7, 1 - 1e-7))
    hot = torch.nn.functional.one_hot(labels, 4).bool()
    logits = 30 * torch.where(hot, torch.cos(angle + math.radians(20)), cosine)
    expected = torch.nn.functional.cross_entropy(logits, labels)
    torch.testing.assert_close(loss(embeddings, labels).double(), expected, rtol=1e-4, atol=0)


# sqrt(2) ln(C - 1), worked out apart; fewer than ten people count as ten.
SCALES = {1: 3.1073, 2: 3.1073, 9: 3.1073, 10: 3.1073, 44: 5.3191, 2000: 10.7486}


@pytest.mark.parametrize("people", SCALES)
def test_the_scale_follows_the_number_of_people(people: int) -> None:
    assert fixed_scale(people) == pytest.approx(SCALES[people], abs=1e-4)
    for name in ("arcface", "subcenter_arcface", "cosface"):
        chosen = with_values(LossSettings(name=name), people)
        assert chosen == LossSettings(name=name, scale=fixed_scale(people))
        loss = MetricLoss(LossSettings(name=name), people, 8)
        assert loss.loss.scale == fixed_scale(people)
    softmax = LossSettings(name="normalized_softmax")
    assert with_values(softmax, people).temperature == pytest.approx(1 / SCALES[people], rel=1e-4)
    built = MetricLoss(softmax, people, 8).loss
    assert built.temperature == pytest.approx(1 / SCALES[people], rel=1e-4)
    assert with_earlier_values(softmax).temperature == 0.05


def test_runs_store_what_multi_similarity_takes_and_older_ones_keep_theirs() -> None:
    left_open = LossSettings(name="multi_similarity")
    stored = LossSettings(name="multi_similarity", margin=1.0, scale=10.0)
    assert with_values(left_open, 44) == stored
    earlier = LossSettings(name="multi_similarity", margin=0.5, scale=50.0)
    assert with_earlier_values(left_open) == earlier
    assert with_earlier_values(stored) == with_values(stored, 44) == stored
    assert with_values(earlier, 44) == earlier


def test_a_given_scale_and_other_losses_stay() -> None:
    for given in (
        LossSettings(name="arcface", scale=64.0),
        LossSettings(name="normalized_softmax", temperature=0.1),
        LossSettings(name="circle"),
        LossSettings(name="supcon"),
        LossSettings(),
    ):
        assert with_values(given, 44) == with_earlier_values(given) == given


@pytest.mark.parametrize("people", [2, 3])
@pytest.mark.parametrize("name", ["arcface", "cosface", "subcenter_arcface"])
def test_class_weights_tell_very_few_people_apart(name: LossName, people: int) -> None:
    torch.manual_seed(1)
    labels = torch.arange(people).repeat_interleave(3)
    embeddings = torch.nn.Parameter(torch.randn(3 * people, 8))
    loss = MetricLoss(LossSettings(name=name), people, 8)
    optimizer = torch.optim.Adam([embeddings, *loss.parameters()], lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        loss(embeddings, labels).backward()
        optimizer.step()
    unit = torch.nn.functional.normalize(embeddings.detach(), dim=1)
    scores, same = unit @ unit.T, labels[:, None] == labels
    assert scores[same].mean() - scores[~same].mean() > 0.8


@pytest.mark.parametrize(
    "loss",
    [
        LossSettings(name="triplet", temperature=0.1),
        LossSettings(name="supcon", margin=0.1),
        LossSettings(name="arcface", miner="batch_hard"),
        LossSettings(name="contrastive", miner="semihard"),
        LossSettings(margin=-1.0),
    ],
)
def test_settings_that_would_do_nothing_are_refused(loss: LossSettings) -> None:
    with pytest.raises(UserError, match="loss"):
        check_settings(TrainSettings(loss=loss))
