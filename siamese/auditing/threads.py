"""Work on parts of one thing, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

from siamese.processors import processors

T = TypeVar("T")
R = TypeVar("R")


def in_threads(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """The work on each item, in their order, as many at once as there are processors.

    Each with one thread for its matrix products: what stands between these is shared, too.
    """
    with threadpool_limits(1), ThreadPoolExecutor(processors()) as pool:
        yield from pool.map(work, items)
