"""The processes that ``torchrun`` started for one command: the first does it, the others help.

The first one alone reads the command line, writes and prints. Where it meets work that can be
shared it says so, and each process does its part; the others know of nothing else.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Generator, Iterator
from typing import Any

import torch.distributed as dist

from siamese.errors import UserError, lack


class Crew:
    """The first process and its helpers, of which there may be none."""

    def __init__(self, rank: int = 0, world: int = 1):
        self.rank, self.world = rank, world
        self._rounds: Generator[list[Any], None, None] | None = None

    def share(
        self, mine: Iterator[Any], work: Callable[..., Iterator[Any]], *given: Any
    ) -> Iterator[list[Any]]:
        """Round by round what all processes make, in the order of their ranks.

        Args:
            mine: what this process makes.
            work: makes, in another process, its own: called with its rank, the number of processes
                and ``given``. A function of a module; all of these are pickled.

        Yields:
            one list a round, without the processes that have made all of theirs.

        Raises:
            UserError: what any of them raises.
        """
        if self.world == 1:
            return ([part] for part in mine)
        self._rounds = self._share(mine, work, given)
        return self._rounds

    def _share(
        self, mine: Iterator[Any], work: Callable[..., Iterator[Any]], given: tuple[Any, ...]
    ) -> Generator[list[Any], None, None]:
        self._tell((work, given))
        try:
            while parts := [part for part in self._round(mine) if part is not None]:
                for part in parts:
                    if isinstance(part, Exception):
                        raise part
                yield parts
        finally:
            self._tell(False)

    def _round(self, mine: Iterator[Any]) -> list[Any]:
        self._tell(True)
        part = _next(mine, as_it_is=True)
        parts: list[Any] = [None] * self.world
        dist.gather_object(None, parts)  # its own it has
        return [part, *parts[1:]]

    def _tell(self, message: object) -> None:
        dist.broadcast_object_list([message])

    def end(self) -> None:
        """Let the helpers go; whatever is being shared ends."""
        if self._rounds is not None:
            self._rounds.close()
        self._tell(None)

    def help(self) -> None:
        """Do what the first process asks for, until it lets go."""
        while (message := self._hear()) is not None:
            work, given = message
            parts = work(self.rank, self.world, *given)
            while self._hear():
                dist.gather_object(_next(parts))

    def _hear(self) -> Any:
        message: list[Any] = [None]
        dist.broadcast_object_list(message)
        return message[0]


def _next(parts: Iterator[Any], *, as_it_is: bool = False) -> Any:
    """The next part, None after the last; an error that another process can raise."""
    try:
        return next(parts, None)
    except UserError as error:
        return error
    except Exception as error:
        if as_it_is:
            return error
        reason = lack(error)
        return RuntimeError(traceback.format_exc()) if reason is None else UserError(reason)


_CREW = Crew()


def crew() -> Crew:
    """Those who work on this process's command."""
    return _CREW


def form(rank: int, world: int) -> Crew:
    """Let this process's command be that of several."""
    global _CREW
    _CREW = Crew(rank, world)
    return _CREW
