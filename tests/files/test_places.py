"""Places that names from files lead to, and what is opened there."""

import os
from pathlib import Path

import pytest

from siamese.errors import UserError
from siamese.files.places import is_inside, is_regular, open_regular, read_bytes, require_inside


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "faces" / "Ann").mkdir(parents=True)
    (tmp_path / "faces2").mkdir()
    (tmp_path / "victim").mkdir()
    (tmp_path / "faces" / "link").symlink_to("../victim")
    return tmp_path / "faces"


def test_what_lies_in_the_folder_is_inside(root: Path) -> None:
    for name in ("", "Ann", "Ann/new.jpg", "not/there/yet"):
        assert is_inside(root / name, root)
    for name in ("../victim", "../faces2", "link", "link/x", "Ann/../../victim"):
        assert not is_inside(root / name, root)
    assert is_inside(root / "link", root, root.parent / "victim")


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../victim/x", "Ann/../../victim", "link/x", "a\0b", "..\\victim"]
)
def test_names_that_lead_outside_are_refused(root: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"^list\.csv, line 3: .* leads outside"):
        require_inside(root, name, "list.csv, line 3")


def test_names_inside_become_paths(root: Path) -> None:
    assert require_inside(root, "Ann/1.jpg", "list") == root / "Ann" / "1.jpg"


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "random").symlink_to("/dev/random")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "kernel").symlink_to("/proc/kmsg")  # waits for the kernel's next message
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("file")
    for name in ("pipe", "random", "loop", "kernel", ".", "missing"):
        assert not is_regular(tmp_path / name)
        with pytest.raises(OSError, match=r"."):
            open_regular(tmp_path / name)
        with pytest.raises(UserError, match=r": "):
            read_bytes(tmp_path / name)
    for name in ("file", "link"):
        with open_regular(tmp_path / name) as file:
            assert file.read() == b"x"
    with open_regular(tmp_path / "file", follow=False) as file:
        assert file.read() == b"x"
    with pytest.raises(OSError, match="not a regular file"):
        open_regular(tmp_path / "link", follow=False)


def test_large_files_are_refused_unread(tmp_path: Path) -> None:
    with open(tmp_path / "big", "wb") as file:
        file.truncate(2**40)
    with pytest.raises(UserError, match=r"list: is larger than 1 MiB"):
        read_bytes(tmp_path / "big", "list", 2**20)
