"""The one error that is the user's to mend, and what a machine may lack."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager


class UserError(ValueError):
    """Bad input or a bad setting: a one-line message that names the file or setting and the fix.

    A setting stands in it by its dotted name in backquotes, `images.size`; the commands print that
    as the flag --images.size.

    The commands print it without a traceback and exit with code 2; in Python it is a
    ``ValueError``.
    """


def first_few(names: Sequence[str]) -> str:
    """The first three of some names, for a message of one line."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


class Diverged(UserError):  # noqa: N818 - a state of the run, which a study records
    """The loss of a run became NaN or infinite; what was saved before stands."""


# What libraries say where the machine lacks something (in lower case), what that is, and the fix.
# The first that fits counts.
_LACKS = (
    (
        ("shared memory", "</torch_"),
        "the shared memory (/dev/shm) is too small for the loader processes: enlarge it (docker "
        "run --shm-size 8g), or load without them (`workers` 0)",
    ),
    (
        ("dataloader worker (pid",),
        "a loader process was killed, mostly for want of memory: free some, or load with fewer "
        "processes (`workers` 0: none)",
    ),
    (
        ("cuda out of memory", "cuda error: out of memory", "_alloc_failed"),
        "the GPU has not enough memory: make batches and pictures smaller, or end what else is on "
        "it",
    ),
    (
        ("cannot allocate memory", "can't allocate memory", "failed to map segment", "bad_alloc",
         "cannot create thread", "can't start new thread", "could not create a primitive",
         "could not create a memory", "out of memory"),
        "not enough memory: give it more (ulimit -v unlimited lifts a limit of the shell), or make "
        "batches and pictures smaller",
    ),
)  # fmt: skip
_CANNOT_LOAD = (
    "not enough memory to load torch and the libraries beside it: give it more (ulimit -v "
    "unlimited lifts a limit of the shell)"
)


def lack(error: BaseException) -> str | None:
    """What the machine lacked, and the fix, where that is what an error says; None otherwise.

    Libraries tell of it by errors of many kinds: ``MemoryError``, ``RuntimeError`` (of tensors, of
    GPUs, of loader processes), ``ImportError`` (a library that cannot be mapped into memory).
    """
    if not isinstance(error, MemoryError | RuntimeError | ImportError):
        return None
    text = str(error).lower()
    found = [words for signs, words in _LACKS if any(sign in text for sign in signs)]
    if not found and not isinstance(error, MemoryError):
        return None
    return _CANNOT_LOAD if _while_loading(error) else (found or [_LACKS[-1][1]])[0]


@contextmanager
def telling_lack(tell: Callable[[str], str]) -> Iterator[None]:
    """A lack of memory inside is raised as a UserError, of which ``tell`` makes the message."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if (missing := lack(error)) is None:
            raise
        raise UserError(tell(missing)) from error


def _while_loading(error: BaseException) -> bool:
    place = error.__traceback__
    while place is not None:
        if place.tb_frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        place = place.tb_next
    return isinstance(error, ImportError)
