"""Ctrl-C as a request: the running step is finished before anything stops."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from types import FrameType, TracebackType
from typing import Any


class StopRequest:
    """While active, the first SIGINT, SIGTERM or SIGHUP sets ``requested``; a second interrupts.

    SIGHUP is what a dropped connection sends. The terminal is gone then, so that what is still
    printed to it goes nowhere instead of failing. Where SIGHUP is ignored (``nohup``) it stays so.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[signal.Signals, Any] = {}
        self._terminals: list[int] = []

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._terminals = [stream for stream in (1, 2) if os.isatty(stream)]
            for number in _STOPPING:
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._request)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if number == getattr(signal, "SIGHUP", None):
            _leave(self._terminals)
        elif self.requested:
            raise KeyboardInterrupt
        self.requested = True
        # Not print: the signal may come amid a write of the progress bar, and a second write to a
        # buffered stream from here would raise.
        with contextlib.suppress(OSError):
            os.write(2, b"\nstopping after this step (again to stop at once) ...\n")


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP end the work as Ctrl-C does: what it holds is let go in order.

    For what waits for others; where a :class:`StopRequest` is active inside, it decides.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    terminals = [stream for stream in (1, 2) if os.isatty(stream)]

    def stop(number: int, frame: FrameType | None) -> None:
        if number == getattr(signal, "SIGHUP", None):
            _leave(terminals)
        raise KeyboardInterrupt

    before = {
        number: signal.signal(number, stop)
        for number in _STOPPING
        if number != signal.SIGINT and signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(terminals: Sequence[int]) -> None:
    """Let what is still printed to a terminal that is gone go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in terminals:
        os.dup2(nowhere, stream)
    os.close(nowhere)


# Windows has no SIGHUP.
_STOPPING = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
