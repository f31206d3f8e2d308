"""Files are written whole or not at all, also by two processes at once."""

import multiprocessing
from pathlib import Path

import pytest

from siamese.files.writing import replacing, write_csv


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
