"""Settings of optimizers and schedules, shared by every task."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from siamese.config.common import require
from siamese.errors import UserError

OptimizerName = Literal[
    "radam_schedulefree",
    "adamw_schedulefree",
    "sgd_schedulefree",
    "sgd",
    "adam",
    "amsgrad",
    "adamw",
    "radam",
    "adabound",
    "adaboundw",
    "lars",
    "lamb",
]
ScheduleName = Literal["auto", "constant", "cosine", "multistep", "sgdr", "linear", "polynomial"]

SCHEDULE_FREE = frozenset({"radam_schedulefree", "adamw_schedulefree", "sgd_schedulefree"})


@dataclass
class OptimizerSettings:
    """The optimizer."""

    name: OptimizerName = "radam_schedulefree"
    """radam_schedulefree (no schedule, no warm-up), adamw_schedulefree, sgd_schedulefree; sgd,
    adam, amsgrad, adamw, radam, adabound, adaboundw, lars, lamb go by the schedule. adam,
    amsgrad, radam, adabound, sgd and lars add the decay to the gradient (L2), the others take it
    off the weights."""
    lr: float | None = None
    """Learning rate; null: a value for the optimizer and the task, printed when the run starts."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Moment decay rates of the Adam family, AdaBound and LAMB among it."""
    momentum: float = 0.9
    """Momentum of sgd and lars; the interpolation of sgd_schedulefree."""
    nesterov: bool = False
    """Nesterov momentum, for sgd and lars."""
    weight_decay: float = 0.0
    """Decay of weights; where it is taken off the weights, lr times this at each step."""
    decay_norms: bool = False
    """Let norms and biases decay, too, as most published CIFAR figures do."""
    final_lr: float = 0.1
    """adabound and adaboundw: the SGD learning rate that the bounds close in on."""
    lookahead: int = 0
    """Steps between two synchronisations of the slow weights (Lookahead, often 5); 0: off."""
    lookahead_alpha: float = 0.5
    """Lookahead: how far the slow weights go towards the fast ones."""
    ema: float | None = None
    """Decay of an exponential moving average of the weights, which is validated and saved (often
    0.999); null: off. After t steps it is at most (1 + t) / (10 + t), so that short runs do not end
    near their random beginning. Not with schedule-free optimizers, which average anyway."""
    clip: float | None = None
    """Largest gradient norm; null: no clipping."""


@dataclass
class ScheduleSettings:
    """The learning rate over the run; schedule-free optimizers take the warm-up only."""

    name: ScheduleName = "auto"
    """auto: cosine, and none for schedule-free optimizers. constant, cosine (one half wave),
    multistep (times gamma at milestones), sgdr (cosine with warm restarts), linear, polynomial."""
    warmup: float = 0.05
    """Warm-up: a share of the run's steps (below 1) or epochs (1 or more); 0: none. The schedule,
    counted from the first step, times a rise from 0 to 1: it ends on the schedule and does not
    shift it, so milestones stay where they are."""
    warmup_shape: Literal["linear", "exponential"] = "linear"
    """How the learning rate rises; always linear for schedule-free optimizers."""
    warmup_start: float | None = None
    """Share of the learning rate that the warm-up starts from; null: one step's share (linear),
    0.001 (exponential)."""
    min_lr: float = 0.0
    """Learning rate at the end of cosine, sgdr's cycles, linear and polynomial."""
    milestones: tuple[float, ...] = (0.5, 0.75)
    """multistep: where to step, as shares of the run (below 1) or epochs (1 or more). What lies
    beyond the run's end never comes."""
    gamma: float = 0.1
    """multistep: factor at each milestone."""
    power: float = 2.0
    """polynomial: the power."""
    cycle: float = 10.0
    """sgdr: epochs of the first cycle."""
    cycle_factor: float = 2.0
    """sgdr: each cycle's length over the one before."""


def check_optimization(optimizer: OptimizerSettings, schedule: ScheduleSettings) -> None:
    """Refuse optimizer and schedule settings that cannot work or contradict each other.

    Raises:
        UserError: one line that names the setting and the fix.
    """
    lr = optimizer.lr
    require(lr is None or (math.isfinite(lr) and lr > 0), "optimizer.lr", lr, "above 0")
    betas, decay = optimizer.betas, optimizer.weight_decay
    usable = all(0 < beta < 1 for beta in betas)
    require(usable, "optimizer.betas", list(betas), "two numbers between 0 and 1")
    momentum = optimizer.momentum
    require(0 <= momentum < 1, "optimizer.momentum", momentum, "at least 0 and below 1")
    interpolates = optimizer.name == "sgd_schedulefree"
    require(
        momentum > 0 or not interpolates, "optimizer.momentum", momentum, "above 0, it interpolates"
    )
    if optimizer.nesterov:
        takes = optimizer.name in ("sgd", "lars") and momentum > 0
        require(takes, "optimizer.nesterov", "true", "false, but for sgd and lars with momentum")
    require(0 <= decay < math.inf, "optimizer.weight_decay", decay, "0 or more")
    require(0 < optimizer.final_lr < math.inf, "optimizer.final_lr", optimizer.final_lr, "above 0")
    require(optimizer.lookahead >= 0, "optimizer.lookahead", optimizer.lookahead, "0 or more")
    alpha = optimizer.lookahead_alpha
    require(0 < alpha <= 1, "optimizer.lookahead_alpha", alpha, "above 0 and at most 1")
    ema, clip = optimizer.ema, optimizer.clip
    require(ema is None or 0 < ema < 1, "optimizer.ema", ema, "between 0 and 1, or null")
    require(clip is None or clip > 0, "optimizer.clip", clip, "above 0, or null")
    if optimizer.name in SCHEDULE_FREE:
        require(ema is None, "optimizer.ema", ema, f"null: {optimizer.name} averages already")
        require(
            optimizer.lookahead == 0,
            "optimizer.lookahead",
            optimizer.lookahead,
            f"0: {optimizer.name} averages already",
        )
        if schedule.name not in ("auto", "constant"):
            raise UserError(
                f"--schedule.name {schedule.name}: {optimizer.name} needs no schedule; use auto"
            )
    low = schedule.min_lr
    require(lr is None or low <= lr, "schedule.min_lr", low, "at most the learning rate")
    _check_schedule(schedule)


def _check_schedule(schedule: ScheduleSettings) -> None:
    def one(name: str, usable: bool, wanted: str) -> None:
        require(usable, f"schedule.{name}", getattr(schedule, name), wanted)

    one("warmup", 0 <= schedule.warmup < math.inf, "a share of the run below 1, or epochs")
    start = schedule.warmup_start
    one("warmup_start", start is None or 0 < start <= 1, "above 0 and at most 1, or null")
    one("min_lr", 0 <= schedule.min_lr < math.inf, "0 or more")
    marks = schedule.milestones
    rising = all(0 < mark < math.inf for mark in marks) and list(marks) == sorted(set(marks))
    one("milestones", rising, "rising shares of the run or epochs, above 0")
    for name in ("gamma", "power", "cycle"):
        one(name, 0 < getattr(schedule, name) < math.inf, "above 0")
    one("cycle_factor", 1 <= schedule.cycle_factor < math.inf, "at least 1")
