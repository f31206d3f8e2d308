"""Files are written whole or not at all, also by two processes at once."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from siamese.files.writing import drafting, remove_leftovers, replacing, write_csv, write_text


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
