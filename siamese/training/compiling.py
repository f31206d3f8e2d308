"""Whether a network is compiled: where a run is long enough to earn the minutes back."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from siamese.errors import UserError
from siamese.files.fields import built, parse_json
from siamese.files.places import read_bytes
from siamese.files.writing import write_json
from siamese.models.device import autocast

# Compiling takes a minute or two and saves a tenth to a quarter of a step: a run below this many
# seconds cannot earn that, and is not kept waiting by a measurement from so many pictures on.
_SHORTEST, _FEWEST = 900.0, 50_000
_STEPS = 3  # per measurement, which is their median
_WORTH = 1.03  # a smaller gain is not told from noise
_LIMIT = 2**20


@dataclass(frozen=True)
class Gain:
    """What compiling brings: the seconds that it takes, and an eager step's time over a compiled
    one's.
    """

    seconds: float
    ratio: float


def compiled(network: nn.Module) -> nn.Module:
    """The network compiled by torch; it shares the weights, and compiles at its first step."""
    result: nn.Module = torch.compile(network)  # type: ignore[assignment]
    return result


def earns(
    network: nn.Module,
    batch: Callable[[], torch.Tensor],
    pictures: int,
    precision: torch.dtype,
    *,
    name: str,
    place: Path,
    say: Callable[[str], None],
) -> bool:
    """Measure on a few steps whether a planned run is shorter with a compiled network.

    What compiling brought is remembered by network, batch, machine and version of torch, so only
    the first long run waits for it. The network is as before after that.

    Args:
        network: maps a batch to embeddings; in train mode.
        batch: makes a batch such as training has, on the network's device.
        pictures: how many the run will train with in all.
        precision: of the arithmetic.
        name: the network's.
        place: a JSON file in which gains are remembered.
        say: is told what was measured.
    """
    if pictures < _FEWEST:
        return False
    images = batch()
    key = _key(name, images, precision)
    gains = _read(place)
    with _Probe(network, images, precision) as probe:
        step = probe.seconds(network)
        planned = step * pictures / len(images)
        if planned < _SHORTEST:
            return False
        gain = gains.get(key)
        known = gain is not None
        if gain is None:
            say("measuring what compiling the network brings (a minute or two) ...")
            try:
                gain = probe.gain()
            except _NotCompiled as error:
                say(f"the network cannot be compiled here ({error})")
                return False
            gains[key] = gain
            try:
                write_json(place, {name: asdict(one) for name, one in gains.items()})
            except UserError as error:
                say(f"the measurement is not kept: {error}")
    saved = planned * (1 - 1 / gain.ratio)
    worth = gain.ratio >= _WORTH and saved > (gain.seconds if known else 0)
    say(
        f"compiled, a step takes {1 / gain.ratio:.2f} of its time; compiling takes "
        f"{gain.seconds:.0f} s of about {planned / 60:.0f} min: {'done' if worth else 'left out'}"
    )
    return worth


def require_compilable(network: nn.Module, images: torch.Tensor, precision: torch.dtype) -> None:
    """Try one compiled step, before a run is begun with it.

    Raises:
        UserError: it fails; says why.
    """
    with _Probe(network, images, precision) as probe:
        probe.step(network)  # what fails as it is has another reason
        try:
            probe.compile()
        except _NotCompiled as error:
            raise UserError(
                f"`trainer.compile` true: the network cannot be compiled here ({error}); set it "
                "false"
            ) from None


class _NotCompiled(Exception):  # noqa: N818 - a state of the machine
    """Compiling a network failed; says why in one line."""


class _Probe:
    """Steps on one batch that leave the network, and every random state, as they were."""

    def __init__(self, network: nn.Module, images: torch.Tensor, precision: torch.dtype):
        self.network, self.images, self.precision = network, images, precision
        devices = [images.device] if images.device.type == "cuda" else []
        self._random = torch.random.fork_rng(devices=devices)

    def __enter__(self) -> _Probe:
        self._before = [kept.clone() for kept in self.network.buffers()]
        self._random.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._random.__exit__(None, None, None)
        self.network.zero_grad(set_to_none=True)
        for kept, before in zip(self.network.buffers(), self._before, strict=True):
            kept.copy_(before)

    def step(self, network: nn.Module) -> float:
        """Seconds of one forward and backward pass."""
        started = time.perf_counter()
        with autocast(self.images.device, self.precision):
            result = network(self.images)
        loss = result.float().square().mean()
        loss.backward()
        loss.item()  # a GPU is waited for
        return time.perf_counter() - started

    def seconds(self, network: nn.Module) -> float:
        """Median of some steps after one that warms up."""
        self.step(network)
        return statistics.median(self.step(network) for _ in range(_STEPS))

    def compile(self) -> tuple[nn.Module, float]:
        """The compiled network, and the seconds of its first step, which compiles it.

        Raises:
            _NotCompiled: there is no compiler, or it fails.
        """
        try:
            fast = compiled(self.network)
            return fast, self.step(fast)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # of torch's many kinds
            reason = str(error).strip().split("\n")[0][:200]
            raise _NotCompiled(reason or type(error).__name__) from None

    def gain(self) -> Gain:
        """Compile, then take turns with the network as it is."""
        fast, first = self.compile()
        times = [(self.step(self.network), self.step(fast)) for _ in range(2 * _STEPS)]
        eager, quick = (statistics.median(some) for some in zip(*times[1:], strict=True))
        return Gain(max(first - quick, 0.0), eager / quick)


def _key(name: str, images: torch.Tensor, precision: torch.dtype) -> str:
    device = images.device
    machine = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    if device.type == "cuda":
        machine = torch.cuda.get_device_name(device)
    shape = "x".join(map(str, images.shape))
    number = str(precision).removeprefix("torch.")
    return f"{name} {shape} {number}, {machine} {torch.get_num_threads()}, {torch.__version__}"


def _read(place: Path) -> dict[str, Gain]:
    """The remembered gains; none where the file is missing or damaged."""
    try:
        found = parse_json(read_bytes(place, limit=_LIMIT))
        gains = {str(key): built(Gain, value) for key, value in found.items()}
    except (ValueError, TypeError, AttributeError):
        return {}
    return {key: one for key, one in gains.items() if one.ratio > 0 and one.seconds >= 0}
