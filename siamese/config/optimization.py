"""Settings of optimizers and schedules, shared by every task."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from siamese.config.ranges import (
    Allowed,
    NonNegativeFloat,
    NonNegativeInt,
    OpenUnit,
    PositiveFloat,
    PositiveOrInfinite,
    UnitAboveZero,
    UnitBelowOne,
    require,
)
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

Betas = Annotated[
    tuple[float, float],
    Allowed("two numbers between 0 and 1", lambda v: len(v) == 2 and all(0 < b < 1 for b in v)),
]
Warmup = Annotated[
    float, Allowed("a share of the run below 1, or epochs", lambda v: 0 <= v < math.inf)
]
Milestones = Annotated[
    tuple[float, ...],
    Allowed(
        "rising shares of the run or epochs, above 0",
        lambda v: all(0 < m < math.inf for m in v) and list(v) == sorted(set(v)),
    ),
]
CycleFactor = Annotated[float, Allowed("at least 1", lambda v: 1 <= v < math.inf)]

# What null means for the moments of the Adam family.
USUAL_BETAS = (0.9, 0.999)
SCHEDULE_FREE = frozenset({"radam_schedulefree", "adamw_schedulefree", "sgd_schedulefree"})


@dataclass
class OptimizerSettings:
    """The optimizer."""

    name: OptimizerName = "radam_schedulefree"
    """radam_schedulefree (no schedule, no warm-up), adamw_schedulefree, sgd_schedulefree (arXiv
    2405.15682); sgd, adam, amsgrad, adamw, radam, adabound, adaboundw, lars, lamb go by the
    schedule. adam, amsgrad, radam, adabound, sgd and lars add the decay to the gradient (L2), the
    others take it off the weights."""
    lr: PositiveFloat | None = None
    """Learning rate; null: a value for the optimizer and the task, printed when the run starts."""
    betas: Betas | None = None
    """Moment decay rates of the Adam family, AdaBound and LAMB among it; null: 0.9 and 0.999, but
    0.99 for faces with radam_schedulefree, whose rate rises over about 2 / (1 - 0.99) steps."""
    momentum: UnitBelowOne = 0.9
    """Momentum of sgd and lars; the interpolation of sgd_schedulefree."""
    nesterov: bool = False
    """Nesterov momentum, for sgd and lars."""
    weight_decay: NonNegativeFloat = 0.0
    """Decay of weights; where it is taken off the weights, lr times this at each step."""
    decay_norms: bool = False
    """Let norms and biases decay, too, as most published CIFAR figures do."""
    final_lr: PositiveFloat = 0.1
    """adabound and adaboundw: the SGD learning rate that the bounds close in on."""
    lookahead: NonNegativeInt = 0
    """Steps between two synchronisations of the slow weights (Lookahead, arXiv 1907.08610, often
    5); 0: off."""
    lookahead_alpha: UnitAboveZero = 0.5
    """Lookahead: how far the slow weights go towards the fast ones."""
    ema: OpenUnit | None = None
    """Decay of an exponential moving average of the weights, which is validated and saved (often
    0.999; Polyak & Juditsky 1992 average evenly); null: off. After t steps it is at most (1 + t) /
    (10 + t), so that short runs do not end near their random beginning. Not with schedule-free
    optimizers, which average anyway."""
    head_lr_factor: PositiveFloat = 1.0
    """Learning rate of a face embedder's head and its loss's class weights relative to the
    backbone's (discriminative rates, arXiv 1801.06146, of two groups)."""
    layer_decay: UnitAboveZero = 1.0
    """Learning rate of each layer of a face embedder's backbone relative to the layer above (as in
    BEiT, arXiv 2106.08254, by timm's groups); 1: all alike."""
    clip: PositiveOrInfinite | None = None
    """Largest gradient norm; null: no clipping."""


@dataclass
class ScheduleSettings:
    """The learning rate over the run; schedule-free optimizers take the warm-up only."""

    name: ScheduleName = "auto"
    """auto: cosine, and none for schedule-free optimizers. constant, cosine (one half wave),
    multistep (times gamma at milestones), sgdr (cosine with warm restarts), linear, polynomial."""
    warmup: Warmup = 0.05
    """Warm-up (arXiv 1706.02677): a share of the run's steps (below 1) or epochs (1 or more); 0:
    none. The schedule, counted from the first step, times a rise from 0 to 1: it ends on the
    schedule and does not shift it, so milestones stay where they are."""
    warmup_shape: Literal["linear", "exponential"] = "linear"
    """How the learning rate rises; always linear for schedule-free optimizers."""
    warmup_start: UnitAboveZero | None = None
    """Share of the learning rate that the warm-up starts from; null: one step's share (linear),
    0.001 (exponential)."""
    min_lr: NonNegativeFloat = 0.0
    """Learning rate at the end of cosine, sgdr's cycles, linear and polynomial."""
    milestones: Milestones = (0.5, 0.75)
    """multistep: where to step, as shares of the run (below 1) or epochs (1 or more). What lies
    beyond the run's end never comes."""
    gamma: PositiveFloat = 0.1
    """multistep: factor at each milestone."""
    power: PositiveFloat = 2.0
    """polynomial: the power."""
    cycle: PositiveFloat = 10.0
    """sgdr: epochs of the first cycle."""
    cycle_factor: CycleFactor = 2.0
    """sgdr: each cycle's length over the one before."""


def check_optimization(optimizer: OptimizerSettings, schedule: ScheduleSettings) -> None:
    """Refuse optimizer and schedule settings that contradict each other.

    Raises:
        UserError: one line that names the setting and the fix.
    """
    name, lr, momentum = optimizer.name, optimizer.lr, optimizer.momentum
    interpolates = name == "sgd_schedulefree"
    usable = momentum > 0 or not interpolates
    require(usable, "optimizer.momentum", momentum, "above 0, it interpolates")
    takes = name in ("sgd", "lars") and momentum > 0
    usable = takes or not optimizer.nesterov
    require(usable, "optimizer.nesterov", True, "false, but for sgd and lars with momentum")
    if name in SCHEDULE_FREE:
        averages = f"{name} averages already"
        require(optimizer.ema is None, "optimizer.ema", optimizer.ema, f"null: {averages}")
        lookahead = optimizer.lookahead
        require(lookahead == 0, "optimizer.lookahead", lookahead, f"0: {averages}")
        if schedule.name not in ("auto", "constant"):
            raise UserError(f"`schedule.name` {schedule.name}: {name} needs no schedule; use auto")
    low = schedule.min_lr
    require(lr is None or low <= lr, "schedule.min_lr", low, "at most the learning rate")
