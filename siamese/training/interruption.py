"""Ctrl-C as a request: the running step is finished before anything stops."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import FrameType


@dataclass
class StopRequest:
    """Whether somebody asked for a stop."""

    requested: bool = False


@contextlib.contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Inside, the first SIGINT, SIGTERM or SIGHUP sets ``requested``; a second interrupts.

    SIGHUP is what a dropped connection sends. Where it is ignored (``nohup``) it stays so.
    """
    stop = StopRequest()

    def request(hung_up: bool) -> None:
        if stop.requested and not hung_up:
            raise KeyboardInterrupt
        stop.requested = True
        # Not print: the signal may come amid a write of the progress bar, and a second write to a
        # buffered stream from here would raise.
        with contextlib.suppress(OSError):
            os.write(2, b"\nstopping after this step (again to stop at once) ...\n")

    with _handling(("SIGINT", "SIGTERM", "SIGHUP"), request):
        yield stop


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP end the work as Ctrl-C does: what it holds is let go in order.

    For what waits for others; where a :func:`stop_request` is active inside, it decides.
    """

    def stop(hung_up: bool) -> None:
        raise KeyboardInterrupt

    with _handling(("SIGTERM", "SIGHUP"), stop):
        yield


@contextlib.contextmanager
def _handling(names: Sequence[str], act: Callable[[bool], None]) -> Iterator[None]:
    """Call ``act`` on signals that are not ignored, with whether the terminal is gone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    terminals = [stream for stream in (1, 2) if os.isatty(stream)]

    def handle(number: int, frame: FrameType | None) -> None:
        hung_up = signal.Signals(number).name == "SIGHUP"
        if hung_up:  # what is still printed goes nowhere instead of failing
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for stream in terminals:
                os.dup2(nowhere, stream)
            os.close(nowhere)
        act(hung_up)

    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]  # not on Windows
    before = {
        number: signal.signal(number, handle)
        for number in numbers
        if signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
