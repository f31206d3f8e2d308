"""Optimizers behind one face: every one has a training and an evaluation mode."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import schedulefree
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from siamese.config import OptimizerSettings

Group = dict[str, Any]


class PairedOptimizer:
    """An optimizer whose weights are in one of two modes.

    Schedule-free optimizers train one set of weights and evaluate another, an average. ``eval()``
    puts the averaged weights into the model, ``train()`` puts the very training weights back, bit
    for bit (schedule-free's own way back rounds). Other optimizers have one set of weights, and
    both calls only keep account, so that no caller needs to know which kind it has.

    Args:
        optimizer: a torch optimizer; schedule-free ones are recognised by their ``train`` method.
    """

    def __init__(self, optimizer: torch.optim.Optimizer):
        self.inner = optimizer
        self.averages = callable(getattr(optimizer, "train", None))
        self.mode = "eval"
        self._train_weights: list[torch.Tensor] | None = None

    def parameters(self) -> Iterable[torch.Tensor]:
        """All parameters, in the order of the groups."""
        return (p for group in self.inner.param_groups for p in group["params"])

    @torch.no_grad()
    def train(self) -> None:
        """Training weights into the model."""
        if self.mode == "train":
            return
        if self.averages:
            self.inner.train()  # type: ignore[attr-defined]
            if self._train_weights is not None:
                for parameter, saved in zip(self.parameters(), self._train_weights, strict=True):
                    parameter.copy_(saved)
                self._train_weights = None
        self.mode = "train"

    @torch.no_grad()
    def eval(self) -> None:
        """Weights to validate and save into the model."""
        if self.mode == "eval":
            return
        if self.averages:
            self._train_weights = [p.detach().clone() for p in self.parameters()]
            self.inner.eval()  # type: ignore[attr-defined]
        self.mode = "eval"

    def state_dict(self) -> dict[str, Any]:
        """State in eval mode.

        Raises:
            RuntimeError: called in training mode, whose weights are not the ones to save.
        """
        self._require_eval()
        return self.inner.state_dict()

    def train_weights(self) -> list[torch.Tensor]:
        """The parameters that ``train()`` will put back; empty where there is one set only."""
        self._require_eval()
        return self._train_weights or []

    def load_state_dict(self, state: dict[str, Any], train_weights: list[torch.Tensor]) -> None:
        """Continue from a saved state; the model must hold the weights saved beside it."""
        self.inner.load_state_dict(state)
        self.mode = "eval"
        if train_weights:
            pairs = zip(self.parameters(), train_weights, strict=True)
            self._train_weights = [w.to(p.device, copy=True) for p, w in pairs]

    def restart_average(self, group_name: str) -> None:
        """Start the average of groups that have not learnt yet, e.g. of a backbone that thaws now.

        Groups that have made a step stay as they are, so that a run stopped within the epoch that
        thaws them goes on exactly.
        """
        for group in self.inner.param_groups:
            learnt = any(self.inner.state.get(parameter) for parameter in group["params"])
            if self.averages and not learnt and group.get("name", "").startswith(group_name):
                group.update({"k": 0, "weight_sum": 0.0, "lr_max": -1.0})

    @property
    def lr(self) -> float:
        """Learning rate of the first group at this step, warm-up included."""
        group = self.inner.param_groups[0]
        warmed = group.get("scheduled_lr", 0.0) if self.averages else group["lr"]
        return float(warmed or group["lr"])

    def _require_eval(self) -> None:
        if self.mode != "eval":
            raise RuntimeError("call eval() first: these are not the weights to validate or save")


def parameter_groups(
    modules: dict[str, nn.Module], weight_decay: float, lr: float, factors: dict[str, float]
) -> list[Group]:
    """Named groups: weights decay; norms and biases (one-dimensional) do not.

    Frozen parameters are listed, too, so that thawing them needs no new optimizer.

    Args:
        modules: name -> module; a parameter belongs to the first module that has it.
        weight_decay: decay of weights.
        lr: learning rate.
        factors: name -> factor on the learning rate, 1 where absent.
    """
    groups: list[Group] = []
    for name, module in modules.items():
        for kind, decay in (("weights", weight_decay), ("norms_and_biases", 0.0)):
            wanted = [p for p in module.parameters() if (p.ndim > 1) == (kind == "weights")]
            if wanted:
                groups.append(
                    {
                        "params": wanted,
                        "name": f"{name}.{kind}",
                        "weight_decay": decay,
                        "lr": lr * factors.get(name, 1.0),
                    }
                )
    return groups


def build_optimizer(
    settings: OptimizerSettings, groups: list[Group], lr: float, total_steps: int
) -> tuple[PairedOptimizer, LambdaLR | None]:
    """The optimizer of a run, and the schedule of ``adamw`` (schedule-free ones need none).

    Args:
        settings: which optimizer, and its betas and warm-up.
        groups: parameter groups with their own lr and weight decay.
        lr: learning rate for groups that set none.
        total_steps: optimizer steps of the whole run, which warm-up and cosine are laid over.
    """
    warmup = round(settings.warmup * total_steps)
    betas = settings.betas
    if settings.name == "radam_schedulefree":
        return PairedOptimizer(schedulefree.RAdamScheduleFree(groups, lr=lr, betas=betas)), None
    if settings.name == "adamw_schedulefree":
        inner = schedulefree.AdamWScheduleFree(groups, lr=lr, betas=betas, warmup_steps=warmup)
        return PairedOptimizer(inner), None
    if settings.name == "sgd_schedulefree":
        inner = schedulefree.SGDScheduleFree(groups, lr=lr, momentum=betas[0], warmup_steps=warmup)
        return PairedOptimizer(inner), None
    adamw = torch.optim.AdamW(groups, lr=lr, betas=betas)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        done = (step - warmup) / max(1, total_steps - warmup)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    return PairedOptimizer(adamw), LambdaLR(adamw, factor)
