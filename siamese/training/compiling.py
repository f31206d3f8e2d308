"""Whether a network is compiled: where a run is long enough to earn the minutes back."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import torch
from torch import nn

from siamese.config.ranges import Compiling
from siamese.errors import UserError
from siamese.training.probing import (
    STEPS,
    Arithmetic,
    PlannedRun,
    planned_seconds,
    step_seconds,
    untouched,
)

# Compiling takes a minute or two and saves a tenth to a quarter of a step: a run below this many
# seconds cannot earn that, and is not kept waiting by a measurement from so many pictures on.
_SHORTEST, _FEWEST = 900.0, 50_000
_WORTH = 1.03  # a smaller gain is not told from noise
_RECORDED = 2  # steps after the first, in which CUDA graphs are recorded, then replayed
_FILE = "compiling.json"


@dataclass(frozen=True)
class Gain:
    """What compiling brings: the seconds that it takes, and an eager step's time over a compiled
    one's.
    """

    seconds: float
    ratio: float


def compiled(network: nn.Module, wanted: Compiling = True) -> nn.Module:
    """The network compiled by torch; it shares the weights, and compiles at its first step.

    Where it is not wanted, or was not found to be worth it, it is the network as it is.
    """
    if not is_compiled(wanted):
        return network
    if wanted == "reduce-overhead":
        return _Replayed(network)
    result: nn.Module = torch.compile(network)  # type: ignore[assignment]
    return result


class _Replayed(nn.Module):
    """A network compiled with CUDA graphs, whose steps all write to one place."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self._network = torch.compile(network, mode="reduce-overhead")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Embeddings or logits that the next step leaves alone."""
        result: torch.Tensor = self._network(images).clone()
        return result


def is_compiled(wanted: Compiling) -> bool:
    """Whether a run that has decided about ``auto`` trains a compiled network."""
    return wanted not in (False, "auto")


def earns(run: PlannedRun, arithmetic: Arithmetic) -> bool:
    """Measure on a few steps whether a planned run is shorter with a compiled network.

    What compiling brought is remembered by network, batch, machine and version of torch, so only
    the first long run waits for it. The network is as before after that.
    """
    if run.pictures < _FEWEST:
        return False
    images = run.batch()
    key = run.key(images, str(arithmetic))
    gains = run.remembered(_FILE, Gain)
    gain = gains.get(key)
    if gain is not None and not (gain.ratio > 0 and gain.seconds >= 0):
        gain = None
    known = gain is not None
    with untouched([run.network], images.device):
        planned = planned_seconds(run, images, arithmetic)
        if planned < _SHORTEST:
            return False
        if gain is None:
            run.say("measuring what compiling the network brings (a minute or two) ...")
            try:
                gain = _gain(run.network, images, arithmetic)
            except _NotCompiled as error:
                run.say(f"the network cannot be compiled here ({error})")
                return False
            run.remember(_FILE, {**gains, key: gain})
    saved = planned * (1 - 1 / gain.ratio)
    worth = gain.ratio >= _WORTH and saved > (gain.seconds if known else 0)
    run.say(
        f"compiled, a step takes {1 / gain.ratio:.2f} of its time; compiling takes "
        f"{gain.seconds:.0f} s of about {planned / 60:.0f} min: {'done' if worth else 'left out'}"
    )
    return worth


def compiles(
    wanted: Compiling, run: PlannedRun, arithmetic: Arithmetic, *, processes: int, new: bool
) -> Compiling:
    """How a run's network is compiled: as is wanted, or as a measurement says.

    Args:
        new: the run begins now. One that goes on in several processes goes on without, as nobody
            may have wanted it.

    Raises:
        UserError: it is wanted and cannot be.
    """
    if processes > 1:
        if new and is_compiled(wanted):
            raise UserError(
                f"`trainer.compile` {_written(wanted)}: several processes train as it is; set it "
                "false"
            )
        return False
    if wanted == "auto":
        return earns(run, arithmetic)
    if wanted is not False:
        require_compilable(run, arithmetic, wanted)
    return wanted


def _written(wanted: Compiling) -> str:
    return str(wanted).lower()


def require_compilable(run: PlannedRun, arithmetic: Arithmetic, wanted: Compiling = True) -> None:
    """Try one compiled step, before a run is begun with it.

    Raises:
        UserError: it fails; says why.
    """
    images = run.batch()
    with untouched([run.network], images.device):
        step_seconds(run.network, images, arithmetic)  # what fails as it is has another reason
        try:
            _compile(run.network, images, arithmetic, wanted)
        except _NotCompiled as error:
            raise UserError(
                f"`trainer.compile` {_written(wanted)}: the network cannot be compiled here "
                f"({error}); set it false"
            ) from None


class _NotCompiled(Exception):  # noqa: N818 - a state of the machine
    """Compiling a network failed; says why in one line."""


def _compile(
    network: nn.Module, images: torch.Tensor, arithmetic: Arithmetic, wanted: Compiling = True
) -> tuple[nn.Module, float]:
    """The compiled network, and the seconds of its first step, which compiles it.

    Raises:
        _NotCompiled: there is no compiler, it fails, or what it made lacks memory.
    """
    try:
        fast = compiled(network, wanted)
        network.zero_grad(set_to_none=True)
        first = step_seconds(fast, images, arithmetic)
        for _ in range(_RECORDED if wanted == "reduce-overhead" else 0):
            network.zero_grad(set_to_none=True)  # as between a run's steps
            step_seconds(fast, images, arithmetic)
        return fast, first
    except Exception as error:  # of torch's many kinds
        reason = str(error).strip().split("\n")[0][:200]
        raise _NotCompiled(reason or type(error).__name__) from None


def _gain(network: nn.Module, images: torch.Tensor, arithmetic: Arithmetic) -> Gain:
    """Compile, then take turns with the network as it is."""
    fast, first = _compile(network, images, arithmetic)
    times = [
        [step_seconds(one, images, arithmetic) for one in (network, fast)] for _ in range(2 * STEPS)
    ]
    eager, quick = (statistics.median(some) for some in zip(*times[1:], strict=True))
    return Gain(max(first - quick, 0.0), eager / quick)
