"""How many processors, and processes, there are to share the work."""

from __future__ import annotations

import os


def processors() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processes() -> int:
    """Processes that ``torchrun`` started for this command; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))
