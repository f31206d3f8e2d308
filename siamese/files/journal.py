"""A file of lines that are only ever added: what was done, for the next call to go on from."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from siamese.errors import UserError
from siamese.files.places import is_regular


@contextmanager
def open_journal(
    path: Path, head: str, require_head: Callable[[str], None]
) -> Iterator[tuple[TextIO, list[str]]]:
    """Go on with a journal, or begin one with ``head`` as its first line.

    Args:
        require_head: refuses the first line of another journal, before anything is written.

    Yields:
        the file, to add lines to, and its lines but the first; the last may have been cut off.

    Raises:
        UserError: no regular file; what ``require_head`` raises.
    """
    if os.path.lexists(path) and (os.path.islink(path) or not is_regular(path)):
        raise UserError(f"{path}: is no regular file; remove it, or name another `out`")
    with open(path, "a+", encoding="utf-8", errors="replace") as file:
        file.seek(0)
        *lines, unfinished = file.read().split("\n")
        if lines:
            require_head(lines[0])
            file.write("\n" if unfinished else "")
        else:
            file.truncate(0)
            file.write(f"{head}\n")
        file.flush()
        yield file, lines[1:]
