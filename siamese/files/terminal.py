"""What reaches the terminal: text in which no name or content of a file steers it."""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, cast

from siamese.files.shown import shown_lines
from siamese.files.writing import CannotWrite, writing

# Progress bars return to the start of their line, and move up by whole lines.
_MOVES = re.compile(r"[\r\n]*(?:\x1b\[A)*")
_BAR = re.compile(r"(\r?)(.*?)(\r?)", re.DOTALL)


class PlainStream:
    """A text stream that spells control characters out, whoever writes.

    Prints, progress bars, warnings, logging, argparse's refusals and tracebacks all end here. What
    a progress bar needs passes on a terminal: a return at either end of what is written, and lines
    up. What is written to a terminal that is gone goes nowhere: whether the work ends then is for
    the signal that comes with it (SIGHUP), which may be ignored or a moment late.
    """

    def __init__(
        self, stream: TextIO, name: str = "the stream", rewrite: Callable[[str], str] = str
    ):
        self._stream, self._name, self._rewrite = stream, name, rewrite
        self._is_terminal = stream.isatty()

    def write(self, text: str) -> int:
        """Write text, escaped; returns the number of characters that were given.

        Raises:
            CannotWrite: the file that the stream goes to cannot be written, e.g. a full disk.
        """
        number = len(text)
        if not _MOVES.fullmatch(text):
            head, body, tail = _BAR.fullmatch(text).groups()  # type: ignore[union-attr]
            text = head + shown_lines(self._rewrite(body)) + tail
        with self._refusals():
            self._stream.write(text)
        return number

    def flush(self) -> None:
        """Hand on what is buffered; errors as of :meth:`write`."""
        with self._refusals():
            self._stream.flush()

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            with writing(Path(self._name)):
                yield
        except CannotWrite as error:
            if isinstance(error.__cause__, BrokenPipeError):  # its reader has read enough
                raise error.__cause__ from None
            if not self._is_terminal or getattr(error.__cause__, "errno", None) != errno.EIO:
                raise
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def writelines(self, lines: Any) -> None:
        """Write each of some lines."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def plain_output(rewrite: Callable[[str], str] = str) -> Iterator[None]:
    """Standard output and error as :class:`PlainStream`; ``rewrite`` changes a text before that."""
    streams = sys.stdout, sys.stderr
    for stream in streams:  # a name in any script never stops a print
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    names = "standard output", "standard error"
    sys.stdout, sys.stderr = (
        # None where the command was started without one.
        cast(TextIO, stream and PlainStream(stream, name, rewrite))
        for stream, name in zip(streams, names, strict=True)
    )
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams
