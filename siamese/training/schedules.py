"""Learning rates over a run: pure functions of the step, and the one that the settings ask for."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Literal

from siamese.config import SCHEDULE_FREE, OptimizerSettings, ScheduleSettings
from siamese.errors import UserError


def in_steps(length: float, steps_per_epoch: int, epochs: int) -> int:
    """Steps of a length that is a share of the run (below 1) or a number of epochs (from 1 on)."""
    return round(length * steps_per_epoch * (epochs if length < 1 else 1))


def cosine(done: float, low: float = 0.0) -> float:
    """Half a cosine wave from 1 down to ``low`` over ``done`` in [0, 1] (arXiv 1608.03983)."""
    return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * done))


def polynomial(done: float, power: float, low: float = 0.0) -> float:
    """From 1 down to ``low`` with (1 - done) ** power, as in the LARS papers; power 1: linear."""
    return low + (1 - low) * math.pow(1 - done, power)


def multistep(step: int, milestones: Sequence[int], gamma: float) -> float:
    """``gamma`` to the number of milestones that the step has reached."""
    return gamma ** bisect_right(milestones, step)


def warm_restarts(step: int, first: float, growth: float, low: float = 0.0) -> float:
    """Cosine waves that start anew at 1 and end at ``low`` (SGDR, arXiv 1608.03983).

    The first takes ``first`` steps, each later one ``growth`` (at least 1) times the one before.
    """
    position, length = math.fmod(step, first) if growth == 1 else step, first
    while position >= length:
        position -= length
        length *= growth
    return cosine(position / length, low)


def warmup_ramp(
    step: int, steps: int, shape: Literal["linear", "exponential"], start: float | None = None
) -> float:
    """The rise to 1 over the first ``steps`` steps; 1 from then on.

    ``start`` None: 1 / (steps + 1) (linear), 0.001 (exponential: the same factor each step).
    """
    if step >= steps:
        return 1.0
    if shape == "exponential":
        return float((0.001 if start is None else start) ** (1 - step / steps))
    start = 1 / (steps + 1) if start is None else start
    return start + (1 - start) * step / steps


def schedule_factor(
    schedule: ScheduleSettings, lr: float, steps_per_epoch: int, epochs: int
) -> Callable[[int], float]:
    """The factor on the initial learning rate at each optimizer step.

    One rule for all schedules: they count from step 0 to the end of the run, and the warm-up
    multiplies their beginning by its rise. So milestones stay where they are, a decay ends with the
    run, and nothing jumps where the warm-up ends.

    Raises:
        UserError: ``min_lr``, an absolute value, is above the learning rate.
    """
    if schedule.min_lr > lr:
        raise UserError(
            f"`schedule.min_lr` {schedule.min_lr}: must be at most the learning rate {lr:g}"
        )
    low, total = schedule.min_lr / lr, steps_per_epoch * epochs
    warmup = in_steps(schedule.warmup, steps_per_epoch, epochs)
    milestones = [in_steps(mark, steps_per_epoch, epochs) for mark in schedule.milestones]

    def value(step: int) -> float:
        done = min(1.0, step / max(1, total))
        if schedule.name == "constant":
            return 1.0
        if schedule.name == "multistep":
            return multistep(step, milestones, schedule.gamma)
        if schedule.name == "sgdr":
            return warm_restarts(step, schedule.cycle * steps_per_epoch, schedule.cycle_factor, low)
        if schedule.name == "linear":
            return polynomial(done, 1.0, low)
        if schedule.name == "polynomial":
            return polynomial(done, schedule.power, low)
        return cosine(done, low)

    def factor(step: int) -> float:
        return value(step) * warmup_ramp(step, warmup, schedule.warmup_shape, schedule.warmup_start)

    return factor


def schedule_remarks(schedule: ScheduleSettings, epochs: int) -> list[str]:
    """What of the schedule a run of so many epochs never comes to; lines for the terminal."""
    remarks = []
    if schedule.warmup >= max(1, epochs):
        remarks.append(
            f"note: the warm-up of {schedule.warmup:g} epochs fills the whole run of {epochs}; "
            "a share (`schedule.warmup` 0.05) would end in time"
        )
    late = [f"{mark:g}" for mark in schedule.milestones if mark >= max(1, epochs)]
    if schedule.name == "multistep" and late:
        remarks.append(
            f"note: the milestone(s) {', '.join(late)} lie beyond the {epochs} epochs of the run; "
            "shares below 1 would not"
        )
    return remarks


def lr_line(lr: float, why: str, optimizer: OptimizerSettings, schedule: ScheduleSettings) -> str:
    """A run's first line: its learning rate, how it changes, and where it comes from."""
    free = optimizer.name in SCHEDULE_FREE
    warms_up = schedule.warmup > 0 and optimizer.name != "radam_schedulefree"
    changes = ["after a warm-up"] if warms_up else []
    if not free and schedule.name != "constant":
        changes.append(f"then {_SHAPES.get(schedule.name, schedule.name)}")
    shape = f" {', '.join(changes)}" if changes else ""
    return f"learning rate {lr:g}{shape}: {why}"


_SHAPES = {
    "auto": "a cosine down",
    "cosine": "a cosine down",
    "multistep": "down in steps",
    "sgdr": "cosines that start anew",
    "linear": "linearly down",
    "polynomial": "down by a polynomial",
}
