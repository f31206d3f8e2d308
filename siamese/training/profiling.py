"""Where a training step's time goes: a trace of some steps, and the share of each part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import torch
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from siamese.files.writing import CannotWrite, replacing

Found = TypeVar("Found")

# The marked parts of a step, in order; what is in none of them is the rest.
PARTS = ("wait", "copy", "augment", "forward", "loss", "backward", "optimizer")
_SKIPPED, _WARM_UP, _STEPS = 10, 2, 5


def waited(batches: Iterable[Found]) -> Iterator[Found]:
    """The batches; the time until each is there is marked as ``wait``."""
    found = iter(batches)
    while True:
        with record_function("wait"):
            batch = next(found, None)
        if batch is None:
            return
        yield batch


class StepProfile:
    """Profiles five steps of a run, after twelve that warm up (``torch.profiler``).

    They are written to ``out`` as a trace of Chrome's form, and ``say`` is told the mean time of
    each of :data:`PARTS` on the processor; a GPU works behind it, its kernels are in the trace.
    """

    def __init__(self, out: Path, say: Callable[[str], None]):
        self._out, self._say = out, say
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
        self._profiler = profile(
            activities=activities,
            schedule=schedule(wait=_SKIPPED, warmup=_WARM_UP, active=_STEPS, repeat=1),
            on_trace_ready=self._finish,
        )
        self._left = _SKIPPED + _WARM_UP + _STEPS

    def __enter__(self) -> StepProfile:
        self._profiler.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._left > 0:
            self._left = 0
            self._profiler.on_trace_ready = None  # of too few steps
            self._profiler.stop()
            if error[0] is None:
                steps = _SKIPPED + _WARM_UP + _STEPS
                self._say(f"no profile: it takes {steps} steps of one call, the run had fewer left")

    def step(self) -> None:
        """One more step is done."""
        if self._left > 0:
            self._left -= 1
            self._profiler.step()
            if self._left == 0:
                self._profiler.stop()

    def _finish(self, done: profile) -> None:
        times = {
            event.key: event.cpu_time_total / _STEPS / 1000
            for event in done.key_averages()
            if event.key in PARTS or event.key.startswith("ProfilerStep")
        }
        whole = sum(time for name, time in times.items() if name not in PARTS)
        parts = {name: times[name] for name in PARTS if name in times}
        parts["rest"] = max(whole - sum(parts.values()), 0.0)
        told = ", ".join(f"{name} {time:.1f}" for name, time in parts.items())
        try:
            with replacing(self._out) as temporary:
                done.export_chrome_trace(str(temporary))
            kept = f"open {self._out} in ui.perfetto.dev or chrome://tracing"
        except CannotWrite as error:
            kept = f"the trace is not kept: {error}"
        self._say(f"a step takes {whole:.1f} ms: {told} (means of {_STEPS} steps); {kept}")
