"""AdaBound: Adam whose step sizes are squeezed, over the run, to that of SGD."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.optim.optimizer import ParamsT


class AdaBound(torch.optim.Optimizer):
    """Adaptive gradients with dynamic bounds on the learning rate (arXiv 1902.09843).

    The paper's algorithm 2 as its authors run it: moments corrected for their bias as in Adam, no
    factor 1 / sqrt(t), and bounds that move with the learning-rate schedule. They close in on SGD's
    rate ``final_lr``, ``gamma`` says how fast. ``decoupled``: the decay is taken off the weights as
    in AdamW (AdaBoundW); else it is added to the gradient (L2).
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        final_lr: float = 0.1,
        gamma: float = 1e-3,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled: bool = False,
    ):
        defaults = {
            "lr": lr,
            "betas": betas,
            "final_lr": final_lr,
            "gamma": gamma,
            "eps": eps,
            "weight_decay": weight_decay,
            "decoupled": decoupled,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in torch; the group remembers the rate that a schedule starts from."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        group.setdefault("base_lr", group["lr"])

    @torch.no_grad()
    def step(  # type: ignore[override]
        self, closure: Callable[[], float] | None = None
    ) -> float | None:
        """One step; ``closure``, if any, computes the loss anew and returns it."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._step_group(group, params)
        return loss

    def _step_group(self, group: dict[str, Any], params: list[torch.Tensor]) -> None:
        lr, decay = group["lr"], group["weight_decay"]
        beta1, beta2 = group["betas"]
        grads = [p.grad for p in params if p.grad is not None]
        if decay and group["decoupled"]:
            torch._foreach_mul_(params, 1 - lr * decay)
        elif decay:
            grads = list(torch._foreach_add(grads, params, alpha=decay))
        states = [self.state[p] for p in params]
        for parameter, state in zip(params, states, strict=True):
            if not state:
                state["step"] = 0
                state["mean"] = torch.zeros_like(parameter)
                state["square"] = torch.zeros_like(parameter)
            state["step"] += 1
        means, squares = ([state[kind] for state in states] for kind in ("mean", "square"))
        torch._foreach_lerp_(means, grads, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, grads, grads, 1 - beta2)

        # Layers that thaw later are at other steps, so each parameter has its own numbers.
        steps = [state["step"] for state in states]
        sizes = [lr * math.sqrt(1 - beta2**t) / (1 - beta1**t) for t in steps]
        final = group["final_lr"] * lr / group["base_lr"]
        lower = [final * (1 - 1 / (group["gamma"] * t + 1)) for t in steps]
        upper = [final * (1 + 1 / (group["gamma"] * t)) for t in steps]
        rates = torch._foreach_sqrt(squares)
        torch._foreach_add_(rates, group["eps"])
        torch._foreach_reciprocal_(rates)
        torch._foreach_mul_(rates, sizes)
        torch._foreach_clamp_min_(rates, lower)
        torch._foreach_clamp_max_(rates, upper)
        torch._foreach_addcmul_(params, rates, means, -1.0)
