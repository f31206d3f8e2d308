"""What a run costs before it is run: multiply-accumulates, and the time they take here."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from functools import cache

from siamese.studies.expand import Run
from siamese.tasks.task_spec import TRAINING_STEP

_PROBE = ("preact20", 64)  # network and batch that the machine's speed is measured with


@dataclass(frozen=True)
class Cost:
    """Parameters, multiply-accumulates of an image's forward pass and of the whole run; None:
    unknown.
    """

    parameters: int | None
    macs: int | None
    total: float | None


def run_cost(run: Run) -> Cost:
    """The cost of a run: three forward passes per training image, one per judged image."""
    work = run.task.workload(run.settings)
    options = json.dumps(work.options, sort_keys=True)
    parameters, macs = _network(
        work.network, options, work.drop_path, work.outputs, work.channels, work.size
    )
    total = None if macs is None or work.images is None else float(macs) * work.images
    return Cost(parameters, macs, total)


@cache
def _network(
    name: str, options: str, drop_path: float, outputs: int, channels: int, size: int
) -> tuple[int | None, int | None]:
    """Parameters and multiply-accumulates of a network, by its name."""
    from siamese.zoo import count_cost, create_network

    network = create_network(
        name,
        num_classes=outputs,
        in_channels=channels,
        image_size=size,
        drop_path=drop_path,
        **json.loads(options),
    )
    try:
        return count_cost(network, channels, size)
    except (RuntimeError, NotImplementedError):  # a model that the meta device cannot run
        return sum(parameter.numel() for parameter in network.parameters()), None


@cache
def machine_speed(device: str, threads: int | None = None) -> float:
    """Multiply-accumulates per second of a training step here, from a probe of about a second."""
    import torch
    from torch.nn.functional import cross_entropy

    from siamese.models.device import choose_device
    from siamese.zoo import count_cost, create_network

    place = choose_device(device)
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    name, batch = _PROBE
    try:
        network = create_network(name).to(place).train()
        images = torch.zeros(batch, 3, 32, 32, device=place)
        labels = torch.zeros(batch, dtype=torch.int64, device=place)
        best = float("inf")
        for _ in range(3):  # the first one warms up
            started = time.perf_counter()
            loss = cross_entropy(network(images), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            if place.type == "cuda":
                torch.cuda.synchronize(place)
            best = min(best, time.perf_counter() - started)
    finally:
        torch.set_num_threads(before)
    _, macs = count_cost(network, 3, 32)
    return TRAINING_STEP * macs * batch / best
