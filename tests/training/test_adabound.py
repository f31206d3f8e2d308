"""AdaBound against the paper's algorithm as a plain float64 loop, and against its two limits."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import MultiStepLR

from siamese.training.adabound import AdaBound

LR, BETAS, FINAL, GAMMA, EPS = 0.02, (0.9, 0.99), 0.3, 0.05, 1e-8


def _gradients(seed: int, steps: int, size: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        # From tiny to huge, so that both bounds bite.
        yield rng.normal(size=size) * 10.0 ** rng.integers(-3, 3, size)


def _naive(
    start: np.ndarray, gradients: list[np.ndarray], rates: list[float], decay: float, apart: bool
) -> np.ndarray:
    """arXiv 1902.09843, algorithm 2, number by number, with Adam's bias corrections."""
    x = [float(v) for v in start]
    m, v = [0.0] * len(x), [0.0] * len(x)
    for t, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        target = FINAL * rate / rates[0]
        low = target * (1 - 1 / (GAMMA * t + 1))
        high = target * (1 + 1 / (GAMMA * t))
        for i, slope in enumerate(gradient):
            g = float(slope) + (0.0 if apart else decay * x[i])
            m[i] = BETAS[0] * m[i] + (1 - BETAS[0]) * g
            v[i] = BETAS[1] * v[i] + (1 - BETAS[1]) * g * g
            alpha = rate * math.sqrt(1 - BETAS[1] ** t) / (1 - BETAS[0] ** t)
            eta = min(max(alpha / (math.sqrt(v[i]) + EPS), low), high)
            x[i] -= (rate * decay * x[i] if apart else 0.0) + eta * m[i]
    return np.array(x)


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_every_step_is_the_paper_s(decay: float, decoupled: bool) -> None:
    starts = [np.random.default_rng(1).normal(size=n) for n in (5, 3)]
    steps = 60
    gradients = [list(_gradients(seed, steps, len(s))) for seed, s in enumerate(starts)]
    params = [torch.tensor(s, requires_grad=True) for s in starts]
    optimizer = AdaBound(params, LR, BETAS, FINAL, GAMMA, EPS, decay, decoupled)
    schedule = MultiStepLR(optimizer, [30, 45], gamma=0.1)  # the bounds follow it
    rates = []
    for step in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        for parameter, series in zip(params, gradients, strict=True):
            parameter.grad = torch.tensor(series[step])
        optimizer.step()
        schedule.step()
    for parameter, start, series in zip(params, starts, gradients, strict=True):
        expected = _naive(start, series, rates, decay, decoupled)
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-10)


def test_wide_bounds_leave_adam_and_closed_ones_sgd() -> None:
    series = list(_gradients(0, 30, 6))
    start = torch.tensor(np.random.default_rng(2).normal(size=6))

    def run(kind: type[torch.optim.Optimizer], **options: float) -> torch.Tensor:
        parameter = start.clone().requires_grad_()
        optimizer = kind([parameter], **options)
        for gradient in series:
            parameter.grad = torch.tensor(gradient)
            optimizer.step()
        return parameter.detach()

    # The authors add eps before the bias correction, Adam after it: without eps they agree.
    open_bounds = run(AdaBound, lr=0.01, gamma=1e-12, final_lr=1.0, eps=0.0)
    adam = run(torch.optim.Adam, lr=0.01, eps=0.0)
    torch.testing.assert_close(open_bounds, adam, rtol=1e-10, atol=1e-10)
    # SGD whose momentum is an average.
    closed = run(AdaBound, lr=0.01, gamma=1e12, final_lr=0.3)
    mean, expected = torch.zeros_like(start), start.clone()
    for gradient in series:
        mean = 0.9 * mean + 0.1 * torch.tensor(gradient)
        expected -= 0.3 * mean
    torch.testing.assert_close(closed, expected, rtol=1e-8, atol=1e-8)


def test_a_parameter_that_learns_later_counts_its_own_steps() -> None:
    series = list(_gradients(3, 8, 4))
    early, late = (torch.zeros(4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    optimizer = AdaBound([early, late], LR, BETAS, FINAL, GAMMA)
    for step, gradient in enumerate(series):
        early.grad = torch.tensor(gradient)
        late.grad = torch.tensor(series[step - 4]) if step >= 4 else None
        optimizer.step()
    expected = _naive(np.zeros(4), series[:4], [LR] * 4, 0.0, False)
    np.testing.assert_allclose(late.detach().numpy(), expected, rtol=1e-10)


def test_gradients_are_left_as_they_are() -> None:
    parameter = torch.ones(3, requires_grad=True)
    parameter.grad = torch.tensor([1.0, 2.0, 3.0])
    AdaBound([parameter], weight_decay=0.5).step()
    assert parameter.grad.tolist() == [1.0, 2.0, 3.0]
