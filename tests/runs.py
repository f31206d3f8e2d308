"""What the tests of training runs share: two runs compared, a run interrupted, a full disk."""

import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from siamese.training.monitoring import RunLog


def same(a: Any, b: Any, where: str = "") -> None:
    """Equal to the last bit, clocks and places aside."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a.keys() - {"seconds", "runs", "checkpoints"}:
            same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for at, (x, y) in enumerate(zip(a, b, strict=True)):
            same(x, y, f"{where}[{at}]")
    elif torch.is_tensor(a):
        assert torch.equal(a, b), where
    else:
        assert a == b or (a != a and b != b), where


def interrupt_at(monkeypatch: pytest.MonkeyPatch, kind: str, number: int) -> None:
    """Ctrl-C when the observer is told of the given step or epoch."""
    original: Callable[..., None] = getattr(RunLog, kind)

    def watch(self: RunLog, first: Any, second: Any) -> None:
        original(self, first, second)
        if (first if kind == "step" else first["epoch"]) == number:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(RunLog, kind, watch)


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Inside, no file of this process and its children grows beyond some bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
