"""What reaches the terminal: text in which no name or content of a file steers it."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from siamese.files.shown import shown_lines

# Progress bars return to the start of their line, and move up by whole lines.
_MOVES = re.compile(r"[\r\n]*(?:\x1b\[A)*")
_BAR = re.compile(r"(\r?)(.*?)(\r?)", re.DOTALL)


class PlainStream:
    """A text stream that spells control characters out, whoever writes.

    Prints, progress bars, warnings, logging, argparse's refusals and tracebacks all end here. What
    a progress bar needs passes on a terminal: a return at either end of what is written, and lines
    up.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text, escaped; returns the number of characters that were given."""
        if not _MOVES.fullmatch(text):
            head, body, tail = _BAR.fullmatch(text).groups()  # type: ignore[union-attr]
            text = head + shown_lines(body) + tail
        self._stream.write(text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write each of some lines."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def plain_output() -> Iterator[None]:
    """Standard output and standard error as :class:`PlainStream`, whatever their encoding."""
    streams = sys.stdout, sys.stderr
    for stream in streams:  # a name in any script never stops a print
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.stdout, sys.stderr = (cast(TextIO, PlainStream(stream)) for stream in streams)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams
