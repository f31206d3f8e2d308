"""Optimizers behind one face: every one has a training and an evaluation mode."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, cast

import schedulefree
import timm.optim
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import get_ema_multi_avg_fn

from siamese.config import SCHEDULE_FREE, USUAL_BETAS, OptimizerSettings, ScheduleSettings
from siamese.errors import UserError
from siamese.training.adabound import AdaBound
from siamese.training.resuming import require_alike, require_moments
from siamese.training.schedules import in_steps, schedule_factor

Group = dict[str, Any]


class PairedOptimizer:
    """An optimizer whose weights are in one of two modes.

    Schedule-free optimizers train one set of weights and evaluate another, an average; so does an
    exponential moving average (EMA) over any other optimizer. ``eval()`` puts the averaged weights
    into the model, ``train()`` puts the very training weights back, bit for bit (schedule-free's
    own way back rounds). Without an average both calls only keep account.

    After t steps the decay of the EMA is at most (1 + t) / (10 + t), as in TensorFlow's average, so
    that a short run does not end at an average of its random beginning. It is kept in float32 at
    least.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, ema: float | None = None):
        self.inner = optimizer
        self.schedule_free = callable(getattr(optimizer, "train", None))
        self.averages = self.schedule_free or ema is not None
        self.mode = "eval"
        self._train_weights: list[torch.Tensor] | None = None
        self._ema = ema
        self._ema_steps = 0
        self._ema_weights = [_precise(p) for p in self.parameters()] if ema is not None else []

    def parameters(self) -> Iterable[torch.Tensor]:
        """All parameters, in the order of the groups."""
        return (p for group in self.inner.param_groups for p in group["params"])

    @torch.no_grad()
    def train(self) -> None:
        """Training weights into the model."""
        if self.mode == "train":
            return
        if self.schedule_free:
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
        if self.schedule_free:
            self.inner.eval()  # type: ignore[attr-defined]
        elif self.averages:
            for parameter, average in zip(self.parameters(), self._ema_weights, strict=True):
                parameter.copy_(average)
        self.mode = "eval"

    def step(self, scaler: torch.amp.GradScaler) -> None:
        """One step from gradients that are unscaled and clipped already; RuntimeError in eval mode.

        Where the scaler finds a broken gradient it leaves the step out, and the average with it.
        """
        if self.mode != "train":
            raise RuntimeError("call train() first: these are not the weights that learn")
        # Asking for the scale makes a GPU wait, so nobody asks without need.
        watched = self._ema is not None and scaler.is_enabled()
        before = scaler.get_scale() if watched else 0.0
        scaler.step(self.inner)
        scaler.update()
        if self._ema is not None and (not watched or scaler.get_scale() >= before):
            self._update_ema(self._ema)

    def _update_ema(self, decay: float) -> None:
        decay = min(decay, (1 + self._ema_steps) / (10 + self._ema_steps))
        weights = self._ema_weights
        now = [p.detach().to(w.dtype) for p, w in zip(self.parameters(), weights, strict=True)]
        get_ema_multi_avg_fn(decay)(weights, now, self._ema_steps)  # type: ignore[no-untyped-call]
        self._ema_steps += 1

    def state_dict(self) -> dict[str, Any]:
        """State in eval mode (else RuntimeError); an EMA's weights are the model's own then."""
        self._require_eval()
        state: dict[str, Any] = self.inner.state_dict()
        if self._ema is not None:
            pairs = zip(self.parameters(), self._ema_weights, strict=True)
            rounded = any(p.dtype != average.dtype for p, average in pairs)
            state["ema"] = {"steps": self._ema_steps, "weights": []}
            if rounded:  # bfloat16 and float16 models do not hold the average exactly
                state["ema"]["weights"] = list(self._ema_weights)
        return state

    def train_weights(self) -> list[torch.Tensor]:
        """The parameters that ``train()`` will put back; empty where there is one set only."""
        self._require_eval()
        return self._train_weights or []

    def load_state_dict(self, state: dict[str, Any], train_weights: list[torch.Tensor]) -> None:
        """Continue from a saved state; the model must hold the weights saved beside it.

        ValueError, KeyError, IndexError, TypeError: it is no state of this optimizer.
        """
        fresh = self.inner.state_dict()["param_groups"]
        state = {**state, "param_groups": _stepped_alike(fresh, state["param_groups"])}
        require_alike(fresh, state["param_groups"])
        require_moments(list(self.parameters()), state["state"])
        self.inner.load_state_dict(state)
        self._lay_out_moments()
        self.mode = "eval"
        if self._ema is not None:
            self._ema_steps = state["ema"]["steps"]
            saved = state["ema"]["weights"] or list(self.parameters())
            pairs = zip(self._ema_weights, saved, strict=True)
            self._ema_weights = [w.detach().to(a, copy=True) for a, w in pairs]
        if train_weights:
            learnt = zip(self.parameters(), train_weights, strict=True)
            self._train_weights = [w.to(p.device, copy=True) for p, w in learnt]

    def _lay_out_moments(self) -> None:
        """Moments in memory as their parameters are: fused kernels take them by position."""
        for parameter in self.parameters():
            moments = self.inner.state.get(parameter, {})
            for name, value in moments.items():
                alike = torch.is_tensor(value) and value.shape == parameter.shape
                if alike and value.stride() != parameter.stride():
                    laid_out = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False)
                    moments[name] = laid_out.copy_(value)

    def restart_average(self, group_name: str) -> None:
        """Start the average of groups that have not learnt yet, e.g. of a backbone that thaws now.

        Groups that have made a step stay as they are, so that a run stopped within the epoch that
        thaws them goes on exactly. An EMA needs no restart: of weights that stood still it is these
        weights.
        """
        for group in self.inner.param_groups:
            learnt = any(self.inner.state.get(parameter) for parameter in group["params"])
            if self.schedule_free and not learnt and group.get("name", "").startswith(group_name):
                group.update({"k": 0, "weight_sum": 0.0, "lr_max": -1.0})

    @property
    def lr(self) -> float:
        """Learning rate of the first group at this step, warm-up included."""
        group = self.inner.param_groups[0]
        warmed = group.get("scheduled_lr", 0.0) if self.schedule_free else group["lr"]
        return float(warmed or group["lr"])

    def _require_eval(self) -> None:
        if self.mode != "eval":
            raise RuntimeError("call eval() first: these are not the weights to validate or save")


def _precise(parameter: torch.Tensor) -> torch.Tensor:
    """A copy in float32 at least: one step of an average is below what bfloat16 can tell."""
    dtype = torch.promote_types(parameter.dtype, torch.float32)
    return parameter.detach().to(dtype, copy=True)


def _stepped_alike(fresh: list[Group], saved: list[Group]) -> list[Group]:
    """An optimizer's saved groups, to be stepped by the kernels of this run, fused or not."""
    pairs = zip(fresh, saved, strict=True)
    return [{**group, "fused": own["fused"]} if "fused" in own else group for own, group in pairs]


def _begin_momentum(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Before a step of torch's fused SGD: momentum begins at 0, so the first step is the same.

    torch's own begins as undefined memory, and stays so where a loss scaler leaves the first step
    out; and it fails where some parameters get their first gradient later than others.
    """
    heavy = [group for group in optimizer.param_groups if group["momentum"]]
    for parameter in (one for group in heavy for one in group["params"] if one.grad is not None):
        if optimizer.state[parameter].get("momentum_buffer") is None:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


class Lookahead(timm.optim.Lookahead):  # type: ignore[misc]
    """Lookahead (arXiv 1907.08610): timm's, with slow weights that start where training starts.

    timm's own slow weights start at the first synchronisation, which so does nothing; the paper's
    start from the initial weights. They live in the state of the wrapped optimizer.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step of the wrapped optimizer; every ``lookahead_k`` steps the slow weights move."""
        state, kept = self._base_optimizer.state, "lookahead_slow_buff"
        starting = {
            p: p.detach().clone()
            for group in self.param_groups
            for p in group["params"]
            if p.grad is not None and kept not in state.get(p, {})
        }
        loss: float | None = self._base_optimizer.step(closure)
        for parameter, start in starting.items():
            state[parameter][kept] = start
        for group in self.param_groups:
            group["lookahead_step"] += 1
            if group["lookahead_step"] % group["lookahead_k"] == 0:
                self.update_slow(group)
        return loss


def parameter_groups(
    modules: dict[str, nn.Module],
    weight_decay: float,
    lr: float,
    factors: dict[str, float],
    decay_norms: bool = False,
    layer_decays: Mapping[str, float] = MappingProxyType({}),
) -> list[Group]:
    """Named groups: weights decay; norms and biases (one-dimensional) do not unless
    ``decay_norms``.

    Frozen parameters are listed, too, so that thawing them needs no new optimizer. ``factors`` on
    the learning rate are by module, as are ``layer_decays``: of each layer relative to the one
    above it, as timm groups them. The top layers come first, at the module's own rate.
    """
    groups: list[Group] = []
    spared = weight_decay if decay_norms else 0.0
    for name, module in modules.items():
        # timm's transformers name what else shall not decay: position embeddings, class tokens.
        own = getattr(module, "no_weight_decay", None)
        exempt = set(own()) if callable(own) else set()
        if (layer_decay := layer_decays.get(name, 1.0)) < 1:
            groups += _by_layer(
                name, module, weight_decay, lr * factors.get(name, 1.0), layer_decay, exempt, spared
            )
            continue
        for kind, decay in (("weights", weight_decay), ("norms_and_biases", spared)):
            wanted = [
                parameter
                for place, parameter in module.named_parameters()
                if (parameter.ndim > 1 and place not in exempt) == (kind == "weights")
            ]
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


def _by_layer(
    name: str,
    module: nn.Module,
    weight_decay: float,
    lr: float,
    layer_decay: float,
    exempt: set[str],
    spared: float,
) -> list[Group]:
    """A module's groups by layer, the topmost first; UserError where it does not tell them."""
    if not callable(getattr(module, "group_matcher", None)):
        raise UserError(
            f"`optimizer.layer_decay` {layer_decay:g}: {type(module).__name__} does not say what "
            "its layers are, as timm's models do; set 1"
        )
    layers = timm.optim.param_groups_layer_decay(
        module,
        weight_decay=weight_decay,
        no_weight_decay_list=exempt,
        weight_decay_exclude_1d=spared == 0,
        layer_decay=layer_decay,
    )
    layers.sort(key=lambda group: -group["lr_scale"])
    return [
        {
            "params": group["params"],
            "name": f"{name}.{place}",
            "weight_decay": group["weight_decay"],
            "lr": lr * group["lr_scale"],
        }
        for place, group in enumerate(layers)
    ]


def build_optimizer(
    optimizer: OptimizerSettings,
    schedule: ScheduleSettings,
    groups: list[Group],
    lr: float,
    steps_per_epoch: int,
    epochs: int,
) -> tuple[PairedOptimizer, LambdaLR | None]:
    """The optimizer of a run and its schedule, to be stepped after each of its steps.

    Schedule-free optimizers have none and take the warm-up only. ``lr`` is for groups that set
    none, UserError where ``schedule.min_lr`` is above it.
    """
    if optimizer.name in SCHEDULE_FREE:
        warmup = in_steps(schedule.warmup, steps_per_epoch, epochs)
        return PairedOptimizer(_schedule_free(optimizer, groups, lr, warmup)), None
    inner = _scheduled(optimizer, groups, lr)
    if optimizer.lookahead:
        inner = Lookahead(inner, alpha=optimizer.lookahead_alpha, k=optimizer.lookahead)
    factor = schedule_factor(schedule, lr, steps_per_epoch, epochs)
    return PairedOptimizer(inner, optimizer.ema), LambdaLR(inner, factor)


def _schedule_free(
    settings: OptimizerSettings, groups: list[Group], lr: float, warmup: int
) -> torch.optim.Optimizer:
    betas = settings.betas or USUAL_BETAS
    if settings.name == "radam_schedulefree":
        inner = schedulefree.RAdamScheduleFree(groups, lr=lr, betas=betas)
    elif settings.name == "adamw_schedulefree":
        inner = schedulefree.AdamWScheduleFree(groups, lr=lr, betas=betas, warmup_steps=warmup)
    else:
        inner = schedulefree.SGDScheduleFree(
            groups, lr=lr, momentum=settings.momentum, warmup_steps=warmup
        )
    return cast(torch.optim.Optimizer, inner)


def _scheduled(
    settings: OptimizerSettings, groups: list[Group], lr: float
) -> torch.optim.Optimizer:
    name = settings.name
    adaptive: dict[str, Any] = {"lr": lr, "betas": settings.betas or USUAL_BETAS}
    heavy = {"lr": lr, "momentum": settings.momentum, "nesterov": settings.nesterov}
    if name in ("adabound", "adaboundw"):
        # A group with its own learning rate keeps its proportion to the end.
        groups = [{**g, "final_lr": settings.final_lr * g.get("lr", lr) / lr} for g in groups]
    fused = {"fused": True} if _takes_fused(groups) else {}
    kinds: dict[str, tuple[Any, dict[str, Any]]] = {
        "sgd": (torch.optim.SGD, {**heavy, **fused}),
        "adam": (torch.optim.Adam, {**adaptive, **fused}),
        "amsgrad": (torch.optim.Adam, {**adaptive, **fused, "amsgrad": True}),
        "radam": (torch.optim.RAdam, adaptive),
        "adabound": (AdaBound, adaptive),
        "adaboundw": (AdaBound, {**adaptive, "decoupled": True}),
        # With timm's own values it is not the published LARS.
        "lars": (timm.optim.Lars, {**heavy, "trust_coeff": 1.0, "always_adapt": True}),
        # Clipping is the loop's, after all gradients of a step are averaged.
        "lamb": (timm.optim.Lamb, {**adaptive, "max_grad_norm": None}),
        "adamw": (torch.optim.AdamW, {**adaptive, **fused}),
    }
    kind, options = kinds[name]
    made = cast(torch.optim.Optimizer, kind(groups, **options))
    if name == "sgd" and fused:
        made.register_step_pre_hook(_begin_momentum)
    return made


def _takes_fused(groups: list[Group]) -> bool:
    """Whether one kernel steps all parameters at once, where torch has one: on a GPU.

    A CPU's takes a third of the time, a hundredth of a training step, but it trusts that gradients
    lie in memory as their parameters do: others give wrong numbers, where a GPU's refuses them.
    """
    parameters = [parameter for group in groups for parameter in group["params"]]
    return all(p.device.type == "cuda" and p.is_floating_point() for p in parameters)
