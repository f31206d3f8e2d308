"""Walking through a folder: everything in its place, nothing twice, no circles."""

import os
import socket
import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from siamese.curation.contents import walk_folder
from siamese.data.folder import scan_folder
from siamese.errors import UserError
from tests.file_names import raw_names


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")


def test_everything_has_its_place(tmp_path):
    root = tmp_path / "faces"
    for name in ("Ann/a.png", "Ann/same_face/b.png", "Ann/same_face/deeper/c.png", "Ann/.d.png",
                 "Ann/.cache/e.png", ".git/config", "stray.png", "夏子/f.png"):  # fmt: skip
        touch(root / name)
    (root / "empty").mkdir()
    (root / "Ann" / "gone.png").symlink_to("nowhere")
    os.mkfifo(root / "夏子" / "pipe")
    (root / "夏子" / "zero.png").symlink_to("/dev/zero")
    found = walk_folder(root)
    people = {name: [file.path for file in files] for name, files in found.people.items()}
    assert people == {"Ann": ["Ann/a.png"], "empty": [], "夏子": ["夏子/f.png"]}
    assert [(one.path, set(one.files)) for one in found.nested] == [
        ("Ann/same_face", {"Ann/same_face/b.png", "Ann/same_face/deeper/c.png"})
    ]
    assert found.hidden == [".git", "Ann/.cache", "Ann/.d.png"]
    assert found.outside == ["stray.png"]
    assert [(odd.path, odd.detail) for odd in found.special] == [
        ("Ann/gone.png", "a link that leads nowhere"),
        ("夏子/pipe", "a pipe"),
        ("夏子/zero.png", "a link to a device"),
    ]
    assert set(found.names["Ann"]) == {"a.png", "same_face", ".d.png", ".cache", "gone.png"}


def test_links_do_not_lead_in_circles_or_to_anything_twice(tmp_path):
    root = tmp_path / "faces"
    touch(root / "Ann" / "a.png")
    touch(tmp_path / "elsewhere" / "b.png")
    (root / "self").symlink_to(".")
    (root / "above").symlink_to("..")
    (root / "again").symlink_to("Ann")
    (root / "loop").symlink_to("loop")
    (root / "one").symlink_to(tmp_path / "elsewhere")
    (root / "two").symlink_to(tmp_path / "elsewhere")
    (root / "Ann" / "up").symlink_to("..")
    (tmp_path / "elsewhere" / "deep").mkdir()
    (tmp_path / "elsewhere" / "deep" / "round").symlink_to(root)
    found = walk_folder(root)
    assert set(found.people) == {"Ann", "one"}
    assert {odd.path for odd in found.linked} == {"self", "above", "again", "two"}
    assert {odd.path for odd in found.special} == {"loop", "Ann/up"}
    assert [file.path for file in found.files()] == ["Ann/a.png", "one/b.png"]


def test_a_socket_and_a_folder_that_cannot_be_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path / "faces" / "Ann" / "a.png")
    (tmp_path / "faces" / "Bob").mkdir()
    with socket.socket(socket.AF_UNIX) as channel:
        channel.bind("faces/s")
        real = os.scandir

        def scandir(path):
            if os.fspath(path).endswith("Bob"):
                raise PermissionError(13, "Permission denied", path)
            return real(path)

        monkeypatch.setattr(os, "scandir", scandir)
        found = walk_folder(tmp_path / "faces")
    assert [(odd.path, odd.detail) for odd in found.special] == [("s", "a socket")]
    assert [(odd.path, odd.detail) for odd in found.closed] == [("Bob", "Permission denied")]


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        walk_folder(tmp_path / "faces")


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.dictionaries(
        raw_names(), st.dictionaries(raw_names(), st.booleans(), max_size=4), max_size=4
    )
)
def test_layouts_of_any_names_agree_with_training(tmp_path_factory, draw_people, layout):
    root = tmp_path_factory.mktemp("any") / "faces"
    draw_people(root, ("Ann",), 1)
    picture = (root / "Ann" / "0.png").read_bytes()
    written = {"Ann/0.png"}
    for person, files in layout.items():
        folder = os.path.join(os.fsencode(root), person)
        os.makedirs(folder, exist_ok=True)
        for name, inside in files.items():
            place = os.path.join(folder, name)
            if inside:
                os.makedirs(place, exist_ok=True)
                place = os.path.join(place, b"x.png")
            if not os.path.isdir(place):
                with open(place, "wb") as file:
                    file.write(picture)
            written.add(os.fsdecode(os.path.relpath(place, os.fsencode(root))))
    found = walk_folder(root)
    told = {file.path for file in found.files()}
    people = {unicodedata.normalize("NFC", os.fsdecode(person)) for person in [b"Ann", *layout]}
    if len(people) == len({b"Ann", *layout}):  # training refuses one name in two Unicode forms
        assert told == set(scan_folder(root, progress=False).paths)
    told |= {path for nested in found.nested for path in nested.files}
    hidden = tuple(found.hidden)
    assert written - told == {
        path for path in written for top in hidden if path == top or path.startswith(f"{top}/")
    }
