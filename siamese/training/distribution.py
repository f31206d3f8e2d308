"""Several processes that train one model, as ``torchrun`` starts them."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from siamese.errors import UserError
from siamese.processors import processes

Made = TypeVar("Made")

# Longer than the first process takes to download a set or to decode a folder: the others wait.
_PATIENCE = timedelta(hours=6)


@dataclass(frozen=True)
class Distribution:
    """A process's place among those that train together; ``local_rank``: which GPU it takes."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    store: Any = None  # torch's, of the whole job; None: alone

    @property
    def first(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def note_run(self, name: str) -> None:
        """Let :func:`begun_run` know which run this job has begun."""
        if self.store is not None and self.first:
            self.store.set(_RUN, name)

    def take_gpu(self) -> None:
        """Let ``cuda`` be this process's GPU, where there are any."""
        if (gpus := torch.cuda.device_count()) > 0:
            torch.cuda.set_device(self.local_rank % gpus)

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
        # Who has none does not know how wide a row is.
        some = [part for part in parts if len(part[1])] or parts[:1]
        everything, places = (torch.cat(kind) for kind in zip(*some, strict=True))
        order = torch.argsort(places)
        return everything[order], places[order]


SINGLE = Distribution()


_RUN = "siamese_run"  # under which the store keeps its name
_LOST = ("gloo", "nccl", "connection reset", "connection closed", "broken pipe")


@contextmanager
def telling_lost(way_on: Callable[[], str]) -> Iterator[None]:
    """A process that waits in vain for one that has ended says so in one line, with the way on.

    Raises:
        UserError: another process has ended, killed or by an error of its own.
    """
    try:
        yield
    except RuntimeError as error:
        gone = isinstance(error, dist.DistError) or any(x in str(error).lower() for x in _LOST)
        if not gone:
            raise
        raise UserError(f"another process of this job has ended; {way_on()}") from None


def _is_hosted() -> bool:
    """Whether torchrun itself keeps the processes' store, which then outlives a restart of them."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _job_store() -> Any:
    return dist.TCPStore(  # type: ignore[attr-defined]
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=os.environ["RANK"] == "0" and not _is_hosted(),
        timeout=_PATIENCE,
        wait_for_workers=False,
    )


def is_restarted_by_torchrun() -> bool:
    """Whether torchrun will start the processes again when one of them ends."""
    count, most = (
        int(os.environ.get(f"TORCHELASTIC_{name}", "0"))
        for name in ("RESTART_COUNT", "MAX_RESTARTS")
    )
    return count < most


def begun_run() -> str | None:
    """The run that this job began before torchrun started its processes again, if it began one."""
    if processes() == 1 or not _is_hosted():
        return None
    store = _job_store()
    return store.get(_RUN).decode() if store.check([_RUN]) else None


def _meet(store: Any, rank: int, world: int) -> str:
    """A name for these processes that none before them had, the same in all of them.

    A store that outlives them still holds the addresses of processes that are gone, and torchrun's
    count of restarts differs between machines. So each process asks under a name of its own, and
    the first one answers whoever asks until all have heard it.
    """
    if rank:
        own = uuid.uuid4().hex
        store.set(f"asks/{rank}", own)
        name: str = store.get(f"heard/{own}").decode()
        store.set(f"{name}/{rank}", "")
        return name
    name = uuid.uuid4().hex
    missing = set(range(1, world))
    while missing:
        for other in sorted(missing):
            if store.check([f"asks/{other}"]):
                store.set(f"heard/{store.get(f'asks/{other}').decode()}", name)
            if store.check([f"{name}/{other}"]):
                missing.discard(other)
        time.sleep(0.01)
    return name


@contextmanager
def joined(device_type: str) -> Iterator[Distribution]:
    """Join the processes that ``torchrun`` started, through NCCL or Gloo; alone without it.

    Of errors that end several of them under ``torchrun`` only the first is raised; the others exit
    with code 2.
    """
    if processes() == 1:
        yield SINGLE
        return
    rank, world, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    if device_type == "cuda":
        if local >= torch.cuda.device_count():
            raise UserError(
                f"torchrun --nproc_per_node: this machine has {torch.cuda.device_count()} GPUs; "
                "start at most as many processes"
            )
        torch.cuda.set_device(local)
    store = _job_store()
    own = dist.PrefixStore(_meet(store, rank, world), store)  # type: ignore[attr-defined]
    backend = "nccl" if device_type == "cuda" else "gloo"
    dist.init_process_group(backend, store=own, rank=rank, world_size=world, timeout=_PATIENCE)
    try:
        yield Distribution(rank, world, local, store)
    except Exception:
        if _is_hosted() and not _is_first_told(own):
            raise SystemExit(2) from None
        raise
    finally:
        dist.destroy_process_group()


def _is_first_told(store: Any) -> bool:
    try:
        return bool(store.add("told", 1) == 1)
    except RuntimeError:  # torchrun is gone
        return True
