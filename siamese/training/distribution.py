"""Several processes that train one model, as ``torchrun`` starts them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from siamese.errors import UserError

Made = TypeVar("Made")

# Longer than the first process takes to download a set or to decode a folder: the others wait.
_PATIENCE = timedelta(hours=6)


@dataclass(frozen=True)
class Distribution:
    """A process's place among those that train together; ``local_rank``: which GPU it takes."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def mean(self, value: float) -> float:
        """A number's mean over all processes; each must call it."""
        if self.world == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64)
        if dist.get_backend() == "nccl":
            total = total.cuda()
        dist.all_reduce(total)
        return float(total) / self.world

    @torch.no_grad()
    def average(self, tensors: Iterable[torch.Tensor]) -> None:
        """Each tensor becomes its mean over all processes; each must call it."""
        if self.world == 1:
            return
        for tensor in tensors:
            total = tensor.float()
            dist.all_reduce(total)
            tensor.copy_(total / self.world)

    def any(self, value: bool) -> bool:
        """Whether it is true in one of the processes; each must call it."""
        return value if self.world == 1 else self.mean(float(value)) > 0

    def agree(self, text: str) -> str:
        """The first process's text, in all of them; each must call it."""
        if self.world == 1:
            return text
        texts = [text]
        dist.broadcast_object_list(texts)
        return texts[0]

    def first_then_all(self, work: Callable[[], Made]) -> Made:
        """Do something in the first process before the others, e.g. what downloads."""
        if self.world == 1:
            return work()
        if not self.first:
            dist.barrier()
            return work()
        try:
            return work()
        finally:
            dist.barrier()

    def gather_rows(self, mine: torch.Tensor) -> torch.Tensor:
        """Every process's rows, (n, ...), one after the other; each must call it, n may differ.

        Gradients reach this process's own rows, times the number of processes: averaged over them,
        as ``DistributedDataParallel`` does, they are those of a loss over all rows.
        """
        if self.world == 1:
            return mine
        sizes = [torch.zeros(1, dtype=torch.int64, device=mine.device) for _ in range(self.world)]
        dist.all_gather(sizes, torch.tensor([len(mine)], device=mine.device))
        longest = int(max(sizes))
        padded = mine.new_zeros((longest, *mine.shape[1:]))
        padded[: len(mine)] = mine.detach()
        parts = [torch.empty_like(padded) for _ in range(self.world)]
        dist.all_gather(parts, padded)
        rows = [part[: int(size)] for part, size in zip(parts, sizes, strict=True)]
        rows[self.rank] = mine
        if mine.requires_grad:
            mine.register_hook(lambda gradient: gradient * self.world)  # type: ignore[no-untyped-call]
        return torch.cat(rows)

    def positions(self, total: int) -> range | None:
        """This process's share of some positions; None: all of them."""
        return None if self.world == 1 else range(self.rank, total, self.world)

    def gather_shares(
        self, rows: torch.Tensor, positions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The rows, (n, ...), that all processes made of their :meth:`positions`, and these, in
        order.
        """
        if self.world == 1:
            return rows, positions
        parts: list[Any] = [None] * self.world
        dist.all_gather_object(parts, (rows, positions))
        everything, places = (torch.cat(kind) for kind in zip(*parts, strict=True))
        order = torch.argsort(places)
        return everything[order], places[order]


SINGLE = Distribution()


@contextmanager
def joined(device_type: str) -> Iterator[Distribution]:
    """Join the processes that ``torchrun`` started, through NCCL or Gloo; alone without it."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield SINGLE
        return
    local = int(os.environ["LOCAL_RANK"])
    if device_type == "cuda":
        if local >= torch.cuda.device_count():
            raise UserError(
                f"torchrun --nproc_per_node: this machine has {torch.cuda.device_count()} GPUs; "
                "start at most as many processes"
            )
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if device_type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield Distribution(dist.get_rank(), dist.get_world_size(), local)
    finally:
        dist.destroy_process_group()
