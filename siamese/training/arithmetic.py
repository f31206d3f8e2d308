"""Precision and memory layout by measurement: what a machine is fast at differs."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Literal

import torch

from siamese.training.probing import (
    STEPS,
    Arithmetic,
    PlannedRun,
    planned_seconds,
    step_seconds,
    untouched,
)

# A measurement takes about twenty steps: a run below this many seconds is not kept waiting.
_SHORTEST, _FEWEST = 300.0, 10_000
_WORTH = 1.1  # a smaller gain is not worth other rounding, nor told from noise
_HOPELESS = 1.5  # so many times the usual time are not measured to the end
_FILE = "arithmetic.json"


@dataclass(frozen=True)
class Fastest:
    """What was chosen, in words, and the usual choice's time over its time."""

    chosen: str
    ratio: float


def choices(
    precision: torch.dtype,
    channels_last: bool | Literal["auto"],
    device: torch.device,
    *,
    may_round: bool,
) -> list[Arithmetic]:
    """What a run may choose from, the usual first.

    Args:
        precision: the usual one.
        channels_last: the layout; ``auto``: either, and channels last is usual.
        device: where it runs.
        may_round: whether bfloat16 may take the place of float32 on a CPU; on GPUs the precision
            follows from what their hardware has.
    """
    layouts = [True, False] if channels_last == "auto" else [channels_last]
    precisions = [precision]
    if may_round and device.type == "cpu" and precision == torch.float32:
        precisions.append(torch.bfloat16)
    return [Arithmetic(one, layout) for one in precisions for layout in layouts]


def fastest(run: PlannedRun, usual: Arithmetic, others: list[Arithmetic]) -> Arithmetic:
    """The arithmetic in which a planned run's steps are shortest, by a few steps of each.

    The usual one stays where nothing is faster by a tenth, and where the run is too short to earn
    the measurement back; what was found is remembered. The network keeps its layout.
    """
    if not others or run.pictures < _FEWEST:
        return usual
    images = run.batch()
    everything = {str(one): one for one in (usual, *others)}
    key = run.key(images, " or ".join(everything))
    found = run.remembered(_FILE, Fastest)
    with untouched([run.network], images.device):
        if planned_seconds(run, images, usual) < _SHORTEST:
            return usual
        if key in found and found[key].chosen in everything and found[key].ratio >= 1:
            _tell(run, usual, found[key])
            return everything[found[key].chosen]
        run.say("measuring which precision and memory layout are fastest here ...")
        times = _times(run, images, everything)
    best = min(times, key=lambda name: times[name])
    ratio = times[str(usual)] / times[best]
    if ratio < _WORTH:
        best, ratio = str(usual), 1.0
    run.say("a step takes " + ", ".join(f"{1000 * t:.0f} ms in {n}" for n, t in times.items()))
    found[key] = Fastest(best, ratio)
    run.remember(_FILE, found)
    _tell(run, usual, found[key])
    return everything[best]


def _times(
    run: PlannedRun, images: torch.Tensor, choices: dict[str, Arithmetic]
) -> dict[str, float]:
    """Median seconds of a step of each choice that works; they take turns."""
    times: dict[str, list[float]] = {name: [] for name in choices}
    usual = next(iter(choices))
    try:
        for turn in range(STEPS + 1):
            for name in list(times):
                if turn > 1 and min(times[name]) > _HOPELESS * min(times[usual]):
                    continue
                run.network.to(memory_format=choices[name].layout)
                try:
                    seconds = step_seconds(run.network, images, choices[name])
                except RuntimeError:  # it lacks memory, or a kernel for this precision
                    if name == usual:
                        raise
                    run.say(f"{name} does not work here")
                    run.network.zero_grad(set_to_none=True)
                    del times[name]
                    continue
                if turn > 0:  # the first warms up
                    times[name].append(seconds)
    finally:
        run.network.to(memory_format=choices[usual].layout)
    return {name: statistics.median(some) for name, some in times.items()}


def _tell(run: PlannedRun, usual: Arithmetic, found: Fastest) -> None:
    if found.chosen == str(usual):
        run.say(f"arithmetic: {usual}, nothing else is faster here by a tenth")
    else:
        run.say(
            f"arithmetic: {found.chosen}, in which a step takes {1 / found.ratio:.2f} of its time "
            f"in {usual}"
        )
