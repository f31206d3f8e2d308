"""A few steps of a run before it begins, for what is chosen by measurement."""

from __future__ import annotations

import hashlib
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from siamese.errors import UserError
from siamese.files.fields import built, parse_json
from siamese.files.places import read_bytes
from siamese.files.writing import write_json
from siamese.models.device import autocast

Record = TypeVar("Record")

STEPS = 3  # per measurement, which is their median
_LIMIT = 2**20


@dataclass(frozen=True)
class Arithmetic:
    """Precision of the network's arithmetic, and the memory layout of its pictures and weights."""

    precision: torch.dtype
    channels_last: bool

    @property
    def layout(self) -> torch.memory_format:
        """The layout as torch names it."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def __str__(self) -> str:
        layout = "channels last" if self.channels_last else "contiguous"
        return f"{str(self.precision).removeprefix('torch.')}, {layout}"


@dataclass(frozen=True)
class PlannedRun:
    """What a run will do, and how it is told what was measured.

    Attributes:
        network: maps a batch to embeddings or logits; in train mode, on the run's device.
        batch: makes a batch such as training has, on that device.
        pictures: how many the run will train with in all.
        name: the network's.
        place: a folder for what is remembered of measurements.
        say: is told what was measured.
    """

    network: nn.Module
    batch: Callable[[], torch.Tensor]
    pictures: int
    name: str
    place: Path
    say: Callable[[str], None]

    def key(self, images: torch.Tensor, arithmetic: str) -> str:
        """What a measurement holds for: network, batch, machine and version of torch."""
        device = images.device
        machine = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}{_bf16_flags()}"
        if device.type == "cuda":
            machine = torch.cuda.get_device_name(device)
        shape = "x".join(map(str, images.shape))
        where = f"{machine} {torch.get_num_threads()}, {torch.__version__}"
        # Networks of one name differ: in their options, or in what a program built.
        weights = [(str(one.dtype), tuple(one.shape)) for one in self.network.parameters()]
        digest = hashlib.sha256(repr(weights).encode()).hexdigest()[:8]
        return f"{self.name} {digest} {shape} {arithmetic}, {where}"

    def remembered(self, name: str, kind: type[Record]) -> dict[str, Record]:
        """The records of a file in ``place``; none where it is missing or damaged."""
        try:
            found = parse_json(read_bytes(self.place / name, limit=_LIMIT))
            return {str(key): built(kind, value) for key, value in found.items()}
        except (ValueError, TypeError, AttributeError):
            return {}

    def remember(self, name: str, records: Mapping[str, Any]) -> None:
        """Write the records down; that it cannot be done is told, and no more."""
        try:
            write_json(self.place / name, {key: asdict(one) for key, one in records.items()})
        except UserError as error:
            self.say(f"the measurement is not kept: {error}")


def _bf16_flags() -> str:
    """What a CPU can do for bf16, which torch's name for it does not tell; Linux alone does."""
    try:
        listed = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    known = sorted({"avx512_bf16", "amx_bf16", "bf16"} & set(listed.split()))
    return "".join(f" {flag}" for flag in known)


@contextmanager
def untouched(modules: Sequence[nn.Module], device: torch.device) -> Iterator[None]:
    """Inside, modules may be tried: buffers, gradients and random states are put back."""
    before = [buffer.clone() for module in modules for buffer in module.buffers()]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            for module in modules:
                module.zero_grad(set_to_none=True)
            # As they are now: a module may have put others in their places.
            buffers = [buffer for module in modules for buffer in module.buffers()]
            for buffer, kept in zip(buffers, before, strict=True):
                buffer.copy_(kept)


def step_seconds(network: nn.Module, images: torch.Tensor, arithmetic: Arithmetic) -> float:
    """Seconds of one forward and backward pass; the network has the layout already."""
    images = images.contiguous(memory_format=arithmetic.layout)
    started = time.perf_counter()
    with autocast(images.device, arithmetic.precision):
        result = network(images)
    loss = result.float().square().mean()
    loss.backward()
    loss.item()  # a GPU is waited for
    return time.perf_counter() - started


def planned_seconds(run: PlannedRun, images: torch.Tensor, arithmetic: Arithmetic) -> float:
    """What the run's steps take in all, by the median of some after one that warms up."""
    step_seconds(run.network, images, arithmetic)
    some = [step_seconds(run.network, images, arithmetic) for _ in range(STEPS)]
    return statistics.median(some) * run.pictures / len(images)
