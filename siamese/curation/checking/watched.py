"""Work on many files in processes that may crash or hang without harm to the rest."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")

_CHUNK = 32  # files handed over together
_LOOK = 0.5  # seconds between two looks at the workers
_ORPHANED = 5.0  # seconds after which a worker notices that its parent is gone


def work_watched(
    paths: Sequence[str],
    work: Callable[[str], Result],
    failed: Callable[[str], Result],
    *,
    workers: int,
    patience: float,
) -> Generator[tuple[int, Result]]:
    """Do ``work`` on each path, in processes of its own.

    A process that dies, or that spends too long on one file, is replaced; that file's result is
    what ``failed`` makes of the reason, the others are done all the same. Stopping the iteration
    (Ctrl-C, too) ends the processes at once.

    Args:
        paths: of the files.
        work: a function of a module, as it is sent to the processes.
        failed: makes a result of a reason in words.
        workers: processes; 0: this one, which nothing watches.
        patience: seconds for one file.

    Yields:
        Position in ``paths`` and result, in no particular order.
    """
    if workers == 0:
        for at, path in enumerate(paths):
            yield at, work(path)
        return
    chunks = deque(
        list(range(start, min(start + _CHUNK, len(paths))))
        for start in range(0, len(paths), _CHUNK)
    )
    team: list[_Worker[Result]] = []
    try:
        team = [_Worker(work) for _ in range(min(workers, len(chunks)))]
        while chunks or any(worker.chunk for worker in team):
            for worker in team:
                if not worker.chunk and chunks:
                    worker.start(chunks.popleft(), paths)
            wait([worker.connection for worker in team if worker.chunk], _LOOK)
            for place, worker in enumerate(team):
                reason = None
                try:
                    if worker.chunk and worker.connection.poll():
                        yield from zip(worker.chunk, worker.connection.recv(), strict=True)
                        worker.chunk = []
                    elif worker.chunk and worker.waited() > patience:
                        reason = f"reading it took more than {patience:g} seconds"
                except (EOFError, OSError):
                    reason = "the reader crashed on it"
                if reason is not None:
                    guilty = worker.chunk[worker.place()]
                    yield guilty, failed(reason)
                    chunks.appendleft([at for at in worker.chunk if at != guilty])
                    worker.end()
                    team[place] = _Worker(work)
    finally:
        for worker in team:
            worker.end()


@dataclass
class _Worker(Generic[Result]):
    """A process, the positions it works on, and where in them it is."""

    work: Callable[[str], Result]
    chunk: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.connection, other = multiprocessing.Pipe()
        self._place: Any = multiprocessing.RawValue("q", 0)
        self._seen, self._since = 0, 0.0
        self._process = multiprocessing.Process(
            target=_serve, args=(self.work, other, self._place, os.getpid()), daemon=True
        )
        self._process.start()
        other.close()  # or its end would go unnoticed

    def start(self, chunk: list[int], paths: Sequence[str]) -> None:
        self.chunk = chunk
        self._place.value = self._seen = 0
        self._since = time.monotonic()
        self.connection.send([paths[at] for at in chunk])

    def place(self) -> int:
        """Which of the chunk's files is being read."""
        return min(int(self._place.value), len(self.chunk) - 1)

    def waited(self) -> float:
        """Seconds since it began with its present file, as far as was looked."""
        if self.place() != self._seen:
            self._seen, self._since = self.place(), time.monotonic()
        return time.monotonic() - self._since

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self.connection.close()


def _serve(work: Callable[[str], Any], connection: Connection, place: Any, parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    while os.getppid() == parent:
        try:
            if not connection.poll(_ORPHANED):
                continue
            paths = connection.recv()
        except (EOFError, OSError):  # the parent is gone
            return
        results = []
        for at, path in enumerate(paths):
            place.value = at
            results.append(work(path))
        with contextlib.suppress(OSError):
            connection.send(results)
