"""How many processors, and processes, there are to share the work."""

from __future__ import annotations

import multiprocessing
import os


def processors() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def forks() -> bool:
    """Whether a process that is started shares this one's memory, instead of being sent a copy."""
    return multiprocessing.get_start_method() == "fork"


def processes() -> int:
    """Processes that ``torchrun`` started for this command; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))
