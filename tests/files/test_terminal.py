"""Streams that fail: a full disk behind standard output, a reader that went away, none at all."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from siamese.files.terminal import PlainStream
from siamese.files.writing import CannotWrite


class Failing(io.StringIO):
    """A stream that fails as the system does: at once, or when it is flushed."""

    def __init__(self, number: int, late: bool):
        super().__init__()
        self.number, self.late = number, late

    def write(self, text: str) -> int:
        if not self.late:
            raise OSError(self.number, os.strerror(self.number))
        return len(text)

    def flush(self) -> None:
        if self.late:
            raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize("late", [False, True])
def test_a_stream_that_fails_is_named(late: bool) -> None:
    stream = PlainStream(Failing(errno.ENOSPC, late), "standard output")
    with pytest.raises(CannotWrite, match=r"^standard output: cannot be written \(No space left"):
        print("a line", file=stream, flush=True)


@pytest.mark.parametrize("late", [False, True])
def test_a_reader_that_went_away_is_no_full_disk(late: bool) -> None:
    with pytest.raises(BrokenPipeError):
        print("a line", file=PlainStream(Failing(errno.EPIPE, late)), flush=True)


def shell(line: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a line of shell in which SIAMESE is a command."""
    program = "from siamese.cli.train import main; main()"
    return subprocess.run(
        ["bash", "-c", line.replace("SIAMESE", f"'{sys.executable}' -c '{program}'")],
        cwd=cwd,
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("line", "code", "told"),
    [
        ("SIAMESE --help > /dev/full", 2, 1),
        ("SIAMESE --help > /dev/full 2>&1", 2, 0),
        ("SIAMESE --nonsense 2> /dev/full", 2, 0),
        ("SIAMESE --help | head -1 > /dev/null; exit ${PIPESTATUS[0]}", 0, 0),
    ],
)
def test_a_command_whose_output_fails_ends_in_order(
    tmp_path: Path, line: str, code: int, told: int
) -> None:
    done = shell(line, tmp_path)
    assert done.returncode == code
    assert len(done.stderr.splitlines()) == told, done.stderr
    if told:
        assert "standard output: cannot be written (No space left on device)" in done.stderr


def test_a_command_started_without_streams_ends_in_order(tmp_path: Path) -> None:
    done = shell("SIAMESE --help >&- 2>&- <&-", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_terminal_that_is_gone_is_written_to_in_vain() -> None:
    outer, inner = os.openpty()
    with open(inner, "w", encoding="utf-8") as file:
        stream = PlainStream(file)
        os.close(outer)
        for _ in range(2):
            print("a line", file=stream, flush=True)
