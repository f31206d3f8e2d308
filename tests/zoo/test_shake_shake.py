"""Shake-Shake: the mixing and its gradients, its randomness, the shortcut of the original code."""

import itertools

import pytest
import torch
from torch import nn

from siamese.zoo.shake_shake import Shake, ShakeBlock, ShakeShake, ShiftedShortcut, mix


@pytest.mark.parametrize("per_image", [True, False])
def test_mixing_and_its_gradients_by_hand(per_image: bool) -> None:
    torch.manual_seed(0)
    images, channels, side = 3, 2, 2
    shape, count = (images, channels, side, side), images if per_image else 1
    one, two, gradient = (torch.randn(shape, dtype=torch.float64) for _ in range(3))
    alpha, beta = (torch.rand(count, 1, 1, 1, dtype=torch.float64) for _ in range(2))
    one.requires_grad_()
    two.requires_grad_()
    mixed = mix(one, two, alpha, beta)
    mixed.backward(gradient)
    assert one.grad is not None
    assert two.grad is not None
    for at in itertools.product(*map(range, shape)):
        a, b = (float(weight[at[0] if per_image else 0, 0, 0, 0]) for weight in (alpha, beta))
        assert mixed[at].item() == pytest.approx(a * one[at].item() + (1 - a) * two[at].item())
        assert one.grad[at].item() == pytest.approx(b * gradient[at].item())
        assert two.grad[at].item() == pytest.approx((1 - b) * gradient[at].item())


@pytest.mark.parametrize("per_image", [True, False])
@pytest.mark.parametrize("backward", [True, False])
@pytest.mark.parametrize("forward", [True, False])
def test_gradients_of_a_block_against_its_branches_alone(
    forward: bool, backward: bool, per_image: bool
) -> None:
    torch.manual_seed(0)
    block = ShakeBlock(4, 4, 1, Shake(forward, backward, per_image)).double()
    x = torch.randn(5, 4, 6, 6, dtype=torch.float64, requires_grad=True)
    gradient = torch.randn(5, 4, 6, 6, dtype=torch.float64)

    torch.manual_seed(7)
    out = block(x)
    found = torch.autograd.grad(out, [x, *block.parameters()], gradient)

    # The same draws: first the weight of the values, then that of the gradients.
    torch.manual_seed(7)
    shape = (5 if per_image else 1, 1, 1, 1)
    alpha = torch.rand(shape).double() if forward else torch.tensor(0.5)
    beta = torch.rand(shape).double() if backward else torch.tensor(0.5)
    one, two = block.branch1(x.relu()), block.branch2(x.relu())
    torch.testing.assert_close(out, x + alpha * one + (1 - alpha) * two)
    parameters1, parameters2 = (list(b.parameters()) for b in (block.branch1, block.branch2))
    first = torch.autograd.grad(one, [x, *parameters1], beta * gradient, retain_graph=True)
    second = torch.autograd.grad(two, [x, *parameters2], (1 - beta) * gradient)
    for ours, theirs in zip(
        found, (gradient + first[0] + second[0], *first[1:], *second[1:]), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def _weights(shake: Shake, images: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """The weights of the first branch's values and gradients, one of each per image."""
    one = torch.ones(images, 2, 1, 1, requires_grad=True)
    mixed = shake(one, torch.zeros(images, 2, 1, 1))
    mixed.sum().backward()
    assert one.grad is not None
    assert torch.equal(mixed[:, 0], mixed[:, 1])
    return mixed.detach()[:, 0].flatten(), one.grad[:, 0].flatten()


def test_draws_for_each_image_or_for_the_batch() -> None:
    torch.manual_seed(0)
    alpha, beta = _weights(Shake(True, True, per_image=True))
    assert len(set(alpha.tolist())) == len(set(beta.tolist())) == 64
    assert not set(alpha.tolist()) & set(beta.tolist())
    for weights in (alpha, beta):
        assert 0 <= weights.min() < 0.2
        assert 0.8 < weights.max() <= 1
        assert abs(weights.mean() - 0.5) < 0.15
    alpha, beta = _weights(Shake(True, True, per_image=False))
    assert len(set(alpha.tolist())) == len(set(beta.tolist())) == 1
    assert alpha[0] != beta[0]
    assert alpha[0] != _weights(Shake(True, True, per_image=False))[0][0]


def test_what_is_not_shaken_is_even() -> None:
    alpha, beta = _weights(Shake(False, True, per_image=True))
    assert set(alpha.tolist()) == {0.5}
    assert len(set(beta.tolist())) == 64
    alpha, beta = _weights(Shake(True, False, per_image=True))
    assert len(set(alpha.tolist())) == 64
    assert set(beta.tolist()) == {0.5}


def test_draws_come_from_the_global_generator_in_training_only() -> None:
    torch.manual_seed(0)
    network = ShakeShake(5, depth=8, width=4)
    images = torch.randn(3, 3, 16, 16)
    state = torch.get_rng_state()
    first = network(images)
    assert not torch.equal(network(images), first)
    torch.set_rng_state(state)
    assert torch.equal(network(images), first)
    network.eval()
    state = torch.get_rng_state()
    network(images)
    assert torch.equal(torch.get_rng_state(), state)


@torch.no_grad()
def test_eval_is_the_mean_of_the_branches() -> None:
    torch.manual_seed(0)
    block = ShakeBlock(4, 8, 2, Shake(True, True, True))
    x = torch.randn(3, 4, 8, 8)
    block(x)  # statistics
    block.eval()
    mean = (block.branch1(x.relu()) + block.branch2(x.relu())) / 2
    torch.testing.assert_close(block(x), block.shortcut(x) + mean)


@pytest.mark.parametrize(("stride", "size"), [(1, 6), (2, 6), (2, 7)])
@torch.no_grad()
def test_shortcut_of_the_original_code(stride: int, size: int) -> None:
    torch.manual_seed(0)
    shortcut = ShiftedShortcut(3, 8, stride).double().eval()
    assert shortcut.bn.running_mean is not None
    nn.init.normal_(shortcut.bn.running_mean)
    x = torch.randn(2, 3, size, size, dtype=torch.float64)
    found = shortcut(x)
    places = range(0, size, stride)
    assert found.shape == (2, 8, len(places), len(places))
    first, second = (c.weight[:, :, 0, 0] for c in (shortcut.conv1, shortcut.conv2))
    for row, top in enumerate(places):
        for column, left in enumerate(places):
            here = x[:, :, top, left].clamp(min=0)
            # Shifted right and down by one: what lay left and above, zeros at the edge.
            shifted = torch.zeros_like(here)
            if top > 0 and left > 0:
                shifted = x[:, :, top - 1, left - 1].clamp(min=0)
            joined = torch.cat([here @ first.T, shifted @ second.T], 1)
            expected = (joined - shortcut.bn.running_mean) / (1 + 1e-5) ** 0.5
            torch.testing.assert_close(found[:, :, row, column], expected)
