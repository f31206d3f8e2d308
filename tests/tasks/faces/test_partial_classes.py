"""Class weights shared out and drawn: against PML's whole loss in float64, in 1 to 3 processes."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.func import functional_call

from siamese.config import CLASS_WEIGHT_LOSSES, LossSettings, TrainSettings, check_settings
from siamese.errors import UserError
from siamese.tasks.faces.metric_losses import MetricLoss
from siamese.training.distribution import SINGLE, Distribution, joined
from tests.forked import in_processes

CLASSES, DIMENSION, INPUTS = 7, 8, 5
LIMIT = 0.5  # gradients of this batch are longer
# AdaFace's margins go by every picture of a batch: it is neither shared out nor drawn.
NAMES = sorted(CLASS_WEIGHT_LOSSES - {"adaface"})


def _loss(settings: LossSettings, distribution: Distribution = SINGLE) -> MetricLoss:
    torch.manual_seed(3)
    return MetricLoss(settings, CLASSES, DIMENSION, distribution, seed=5)


def _batches(labels: tuple[int, ...]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    for step in range(5):
        inputs = torch.randn(len(labels), INPUTS, generator=generator)
        yield inputs, (torch.tensor(labels) + step) % CLASSES


def _oracle(
    whole: Any,
    weights: torch.Tensor,
    drawn: torch.Tensor,
    embeddings: torch.Tensor,
    labels: torch.Tensor,
) -> torch.Tensor:
    """PML's own loss in float64, of some classes as if there were no others."""
    centres = weights.shape[1] // CLASSES
    columns = (drawn[:, None] * centres + torch.arange(centres)).flatten()
    settings = LossSettings(name=whole.name, scale=getattr(whole.loss, "scale", None))
    pml = MetricLoss(settings, len(drawn), DIMENSION).loss
    pml.reducer = whole.loss.reducer
    targets = torch.searchsorted(drawn, labels)
    return functional_call(pml, {"W": weights[:, columns]}, (embeddings, targets))


def _columns(loss: MetricLoss, weights: torch.Tensor, distribution: Distribution) -> torch.Tensor:
    """This process's columns of the whole weights."""
    if loss.shared is None:
        return weights
    return torch.split(weights, loss.shared.widths, dim=1)[distribution.rank]


def _sgd(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.3, momentum=0.9)


def _adam(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """With an epsilon that leaves rounding as small as it is where a gradient is about 0."""
    return torch.optim.AdamW(parameters, lr=0.03, eps=1e-2)


def _compare(
    settings: LossSettings,
    labels: tuple[int, ...],
    distribution: Distribution,
    optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
) -> None:
    """Five clipped steps of a layer and the class weights, as the loop makes them."""
    rank, world = distribution.rank, distribution.world
    loss = _loss(settings, distribution)
    plain = _loss(LossSettings(name=settings.name, reducer=settings.reducer))
    (held,), (whole,) = loss.parameters(), plain.parameters()
    weights = nn.Parameter(whole.detach().double())
    assert held.shape[1] <= math.ceil(CLASSES / world) * weights.shape[1] // CLASSES
    layer = nn.Parameter(torch.randn(INPUTS, DIMENSION, generator=torch.Generator().manual_seed(2)))
    same_layer = nn.Parameter(layer.detach().double())
    steps, same_steps = optimizer([layer, held]), optimizer([same_layer, weights])
    drawing = _loss(settings)  # in one process, for the classes that a batch draws
    for inputs, targets in _batches(labels):
        drawn = torch.arange(CLASSES)
        if drawing._partial is not None:
            drawn = drawing._partial._draw(targets)
        embeddings = inputs.double() @ same_layer
        embeddings.retain_grad()
        expected = _oracle(plain, weights, drawn, embeddings, targets)
        expected.backward()
        # the first process has one row, so shares differ
        bounds = [0, *range(1, world), len(targets)]
        share = slice(bounds[rank], bounds[rank + 1])
        mine = inputs[share] @ layer
        mine.retain_grad()
        gathered = distribution.gather_rows(mine), distribution.gather_rows(targets[share])
        value = loss(*gathered)
        value.backward()
        torch.testing.assert_close(value.double(), expected, rtol=2e-6, atol=1e-6)
        assert mine.grad is not None
        assert embeddings.grad is not None
        near = {"rtol": 1e-4, "atol": 2e-6, "check_dtype": False}
        torch.testing.assert_close(mine.grad / world, embeddings.grad[share], **near)
        assert weights.grad is not None
        assert held.grad is not None
        torch.testing.assert_close(held.grad, _columns(loss, weights.grad, distribution), **near)
        assert layer.grad is not None
        if world > 1:  # as DistributedDataParallel does
            dist.all_reduce(layer.grad)
            layer.grad /= world
        clip = nn.utils.clip_grad_norm_ if loss.shared is None else loss.shared.clip
        norm = clip([layer, held], LIMIT)
        expected_norm = nn.utils.clip_grad_norm_([same_layer, weights], LIMIT)
        torch.testing.assert_close(norm.double(), expected_norm, rtol=1e-5, atol=5e-6)
        for one in (steps, same_steps):
            one.step()
            one.zero_grad()
    near = {"rtol": 1e-4, "atol": 1e-5, "check_dtype": False}
    torch.testing.assert_close(layer, same_layer, **near)
    torch.testing.assert_close(held, _columns(loss, weights, distribution), **near)


CASES = [
    (settings, labels)
    for name in NAMES
    for settings, labels in (
        (LossSettings(name=name), (0, 0, 1, 2, 5, 6, 6)),
        (LossSettings(name=name, sample_rate=0.6), (0, 0, 1, 4, 4)),
        # The classes of the batch alone: with three processes one has none of them.
        (LossSettings(name=name, sample_rate=0.1, reducer="sum"), (0, 0, 1)),
    )
]


@pytest.mark.parametrize("optimizer", [_sgd, _adam])
@pytest.mark.parametrize(("settings", "labels"), CASES)
def test_drawn_classes_are_those_of_a_loss_without_others(
    settings: LossSettings, labels: tuple[int, ...], optimizer: Any
) -> None:
    _compare(settings, labels, SINGLE, optimizer)


def _process() -> None:
    with joined("cpu") as distribution:
        for settings, labels in CASES:
            for optimizer in (_sgd, _adam):
                _compare(settings, labels, distribution, optimizer)


@pytest.mark.parametrize("world", [2, 3])
def test_processes_that_share_the_classes_make_the_steps_of_one(world: int) -> None:
    in_processes(world, _process)


@pytest.mark.parametrize("name", NAMES)
def test_partial_loss_of_all_classes_is_the_plain_one(name: Any) -> None:
    """At a rate that draws all of them."""
    embeddings, labels = torch.randn(6, DIMENSION), torch.tensor([0, 1, 2, 4, 5, 6])
    plain, partial = (_loss(LossSettings(name=name, sample_rate=r)) for r in (1.0, 0.99))
    assert plain._partial is None
    assert partial._partial is not None
    torch.testing.assert_close(partial(embeddings, labels), plain(embeddings, labels))
    assert partial.state_dict().keys() == plain.state_dict().keys() == {"loss.W"}


def test_a_batch_draws_its_own_classes_and_any_others_alike() -> None:
    classes, draws = 40, 2000
    loss = MetricLoss(LossSettings(name="cosface", sample_rate=0.25), classes, 4, seed=1)
    partial = loss._partial
    assert partial is not None
    labels = torch.tensor([3, 17, 17, 39])
    counts = torch.zeros(classes)
    for _ in range(draws):
        drawn = partial._draw(labels)
        assert len(drawn) == 10
        assert set(labels.tolist()) <= set(drawn.tolist())
        assert torch.equal(drawn, drawn.unique())
        counts[drawn] += 1
    others = counts[counts < draws]
    share = 7 / 37  # 10 less the 3 of the batch, of all others
    assert len(others) == 37
    # five standard deviations of a binomial count
    assert float((others - draws * share).abs().max()) < 5 * math.sqrt(draws * share * (1 - share))
    assert len(partial._draw(torch.arange(12))) == 12  # all of the batch, though they are more


def test_draws_follow_seed_epoch_and_batch() -> None:
    def draws(seed: int, epoch: int, first: int, number: int) -> list[list[int]]:
        settings = LossSettings(name="arcface", sample_rate=0.2)
        loss = MetricLoss(settings, 100, 4, seed=seed)
        loss.start_epoch(epoch, first)
        assert loss._partial is not None
        return [loss._partial._draw(torch.tensor([1])).tolist() for _ in range(number)]

    whole = draws(0, 2, 0, 5)
    assert draws(0, 2, 3, 2) == whole[3:]  # a run that goes on at the fourth batch
    assert whole[0] not in whole[1:] + draws(0, 3, 0, 5) + draws(1, 2, 0, 5)


def test_a_rate_is_for_class_weights() -> None:
    check_settings(TrainSettings(loss=LossSettings(name="cosface", sample_rate=0.1)))
    for loss in (
        LossSettings(sample_rate=0.5),
        LossSettings(name="arcface", sample_rate=0.0),
        LossSettings(name="arcface", sample_rate=1.5),
    ):
        with pytest.raises(UserError, match=r"^`loss\.sample_rate` "):
            check_settings(TrainSettings(loss=loss))
