"""Files are written whole or not at all, also by two processes at once."""

import errno
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from siamese.errors import UserError
from siamese.files.writing import (
    CannotWrite,
    drafting,
    going_on,
    lock_file,
    remove_leftovers,
    replacing,
    write_csv,
    write_text,
    writing,
)


def _write_meanwhile(path: Path) -> None:
    with replacing(path) as temporary:
        temporary.write_text("theirs")


def test_two_processes_do_not_write_into_each_others_file(tmp_path: Path) -> None:
    path = tmp_path / "夏.json"
    with replacing(path) as temporary:
        temporary.write_text("our")
        other = multiprocessing.Process(target=_write_meanwhile, args=(path,))
        other.start()
        other.join(60)
        assert other.exitcode == 0
        assert path.read_text() == "theirs"
        with open(temporary, "a") as file:
            file.write("s")
    assert path.read_text() == "ours"
    assert list(tmp_path.iterdir()) == [path]


def test_after_an_error_the_file_is_what_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write_csv(path, ("name",), [["caf\udce9"]])
    assert path.read_text() == "name\ncaf\\udce9\n"
    with pytest.raises(ZeroDivisionError):
        write_csv(path, ("name",), ([1 // number] for number in (1, 0)))
    assert path.read_text() == "name\ncaf\\udce9\n"
    write_csv(path, ("name",), [["caf\udce9"]], errors="surrogateescape")
    assert path.read_bytes() == b"name\r\ncaf\xe9\r\n"
    assert list(tmp_path.iterdir()) == [path]


def _wait_in(path: Path, folder: bool) -> None:
    with (drafting if folder else replacing)(path) as temporary:
        (temporary / "half" if folder else temporary).write_text("half")
        time.sleep(60)


def _begun(path: Path, folder: bool) -> multiprocessing.Process:
    """A process that is in the middle of writing."""
    process = multiprocessing.get_context("fork").Process(target=_wait_in, args=(path, folder))
    process.start()
    until = time.monotonic() + 30
    while not any(found.read_text() for found in _halves(path)) and time.monotonic() < until:
        time.sleep(0.01)
    return process


def _halves(path: Path) -> list[Path]:
    found = path.parent.glob(".*.tmp")
    return [half / "half" if half.is_dir() else half for half in found if _is_there(half)]


def _is_there(half: Path) -> bool:
    return (half / "half").exists() if half.is_dir() else half.exists()


@pytest.mark.parametrize("folder", [False, True])
def test_what_a_killed_process_left_goes_when_the_target_is_written_next(
    tmp_path: Path, folder: bool
) -> None:
    path = tmp_path / ("夏" * 80)  # 240 bytes: hardly room for more
    (tmp_path / f".{'夏' * 66}.notours.tmp").write_text("kept")
    (tmp_path / ".other.0123abcd.tmp").write_text("kept")
    before = set(tmp_path.iterdir())
    killed, living = (_begun(path, folder) for _ in range(2))
    until = time.monotonic() + 30
    while len(set(tmp_path.iterdir()) - before) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    try:
        os.kill(killed.pid or 0, signal.SIGKILL)
        killed.join(30)
        assert len(set(tmp_path.iterdir()) - before) == 2
        if folder:
            with drafting(path) as draft:
                (draft / "whole").write_text("")
        else:
            write_text(path, "whole")
        left = set(tmp_path.iterdir()) - before - {path}
        assert len(left) == 1, "the living one's stays, the dead one's is gone"
    finally:
        living.kill()
        living.join(30)
    remove_leftovers(tmp_path, ".*夏")
    assert set(tmp_path.iterdir()) - before == {path}


def test_a_link_in_a_temporarys_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("kept")
    (tmp_path / ".a.0123abcd.tmp").symlink_to("victim")
    write_text(tmp_path / "a", "whole")
    assert (tmp_path / "victim").read_text() == "kept"


@pytest.mark.parametrize(("mask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664)])
def test_the_umask_rules(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        path = write_text(tmp_path / "new" / "a", "whole")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == mode
    assert path.parent.stat().st_mode & 0o777 == 0o777 & ~mask


def test_a_draft_becomes_its_folder_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lists"
    with pytest.raises(ZeroDivisionError), drafting(path) as draft:
        (draft / "a").write_text(str(1 // 0))
    assert list(tmp_path.iterdir()) == []
    path.mkdir()
    with drafting(path) as draft:
        (draft / "a").write_text("")
    assert [file.name for file in path.iterdir()] == ["a"]
    with pytest.raises(OSError, match="not empty"), drafting(path) as draft:
        (draft / "b").write_text("")
    assert [file.name for file in path.iterdir()] == ["a"]
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_one_line_with_the_way_to_go_on() -> None:
    ways = iter(("start again", "not asked twice"))
    with (
        pytest.raises(CannotWrite) as caught,
        going_on(lambda: next(ways)),
        writing(Path("runs/夏")),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert str(caught.value) == (
        "runs/夏: cannot be written (No space left on device); what was there before stays as it "
        "is; start again"
    )


def test_the_way_to_go_on_is_that_of_the_time_of_the_error() -> None:
    ways = ["early"]

    def fail() -> None:
        with going_on(ways.pop):
            ways.append("late")
            raise CannotWrite("a")

    with pytest.raises(CannotWrite, match=r"^a; late$"):
        fail()


@pytest.mark.parametrize("error", [UserError("bad setting"), ValueError("a bug")])
def test_other_errors_pass_as_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, going_on(lambda: "never"), writing(Path("a")):
        raise error
    assert caught.value is error


def _lock(path: Path, held: Any, until: Any) -> None:
    handle = os.open(path, os.O_RDWR)
    assert lock_file(handle)
    held.set()
    until.wait(60)


@pytest.mark.parametrize("how", ["end", "kill"])
def test_a_lock_is_held_until_its_process_is_over(tmp_path: Path, how: str) -> None:
    path = tmp_path / "a"
    path.write_text("")
    context = multiprocessing.get_context("fork")
    held, until = context.Event(), context.Event()
    holder = context.Process(target=_lock, args=(path, held, until))
    holder.start()
    assert held.wait(30)
    handle = os.open(path, os.O_RDWR)
    try:
        with pytest.raises(BlockingIOError):
            lock_file(handle)
        if how == "kill":
            os.kill(holder.pid or 0, signal.SIGKILL)
        else:
            until.set()
        holder.join(30)
        assert lock_file(handle)
    finally:
        os.close(handle)


def test_a_disk_without_locks_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int, how: int) -> None:
        raise OSError(errno.ENOTSUP, "no locks here")

    monkeypatch.setattr("fcntl.flock", refuse)
    handle = os.open(tmp_path, os.O_RDONLY)
    assert not lock_file(handle)
    os.close(handle)
    write_text(tmp_path / "a", "written all the same")
    assert os.listdir(tmp_path) == ["a"]
