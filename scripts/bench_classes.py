r"""What class weights of very many people cost in a step: time, and memory of each process (Linux).

    python scripts/bench_classes.py                         # 100,000 and 1,000,000 people
    python scripts/bench_classes.py --classes 100000 --rates 1 0.3 0.1

The loss alone (arcface, a batch of 64 embeddings of 512 numbers, SGD without momentum) on one
thread per process, without a network. Printed: the medians of the steps' seconds by the clock
and of the first process's processor (which other work on the machine touches less), and the most
memory that a process held in them, less what it held before it made the weights. An optimizer with
moments adds one or two matrices of the weights' size, which the processes share out alike.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from siamese.config import LossSettings
from siamese.tasks.faces.metric_losses import MetricLoss
from siamese.training.distribution import Distribution

DIMENSION, BATCH = 512, 64


def memory(kind: str) -> float:
    """GB that this process holds (VmRSS), or held at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(kind)) * 1024 / 1e9


def measure(rank: int, world: int, meeting: str, classes: int, rate: float, steps: int) -> None:
    """Some steps in one of the processes; the first one prints."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world)
    try:
        before, settings = memory("VmRSS"), LossSettings(name="arcface", sample_rate=rate)
        loss = MetricLoss(settings, classes, DIMENSION, Distribution(rank, world, rank))
        optimizer = torch.optim.SGD(loss.parameters(), lr=0.1)
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # forget the most so far
        seconds, worked = [], []
        for step in range(steps + 1):
            generator = torch.Generator().manual_seed(step)
            embeddings = torch.randn(BATCH, DIMENSION, generator=generator).requires_grad_()
            labels = torch.randint(classes, (BATCH // 4,), generator=generator).repeat(4)
            started, begun = time.perf_counter(), time.process_time()
            loss(embeddings, labels).backward()
            optimizer.step()
            optimizer.zero_grad()
            seconds.append(time.perf_counter() - started)
            worked.append(time.process_time() - begun)
        if rank == 0:
            print(
                f"{classes:9,} people, rate {rate:g}, {world} process(es): "
                f"{statistics.median(seconds[1:]):.2f} s a step, "
                f"{statistics.median(worked[1:]):.2f} s of the processor, "
                f"{memory('VmHWM') - before:.2f} GB in each",
                flush=True,
            )
    finally:
        dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--classes", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--rates", type=float, nargs="+", default=[1.0, 0.1])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=3)
    given = parser.parse_args()
    spawn: Any = torch.multiprocessing.spawn  # type: ignore[attr-defined]
    for classes in given.classes:
        for rate in given.rates:
            for world in given.processes:
                with tempfile.TemporaryDirectory() as folder:
                    meeting = (Path(folder) / "meeting").as_uri()
                    spawn(measure, (world, meeting, classes, rate, given.steps), nprocs=world)


if __name__ == "__main__":
    main()
