"""Moves and their undoing: nothing is lost, whenever it ends."""

import contextlib
import errno
import json
import os
import random
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from siamese.config import MendSettings
from siamese.curation import moves as moves_module
from siamese.curation.moves import carry_out, mend_folder, restore
from siamese.curation.plans import Move, write_plan
from siamese.errors import UserError
from tests.file_names import file_names

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # need not wait for a disk
TIME = 1_234_567_890_123_456_789


def grow(root: Path, files: dict[str, bytes], times: bool = True) -> Path:
    """Files with old times and permissions of their own; a name that ends in / is a folder."""
    root.mkdir(parents=True)
    for number, (name, content) in enumerate(files.items()):
        path = root / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_bytes(content)
            path.chmod(0o640)
            os.utime(path, ns=(TIME + number, TIME + 7 * number))
    return root


def tree(root: Path) -> dict[str, object]:
    """All that is in a folder: of files the bytes, time and permissions, of links the target."""
    found: dict[str, object] = {}
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            key = os.path.relpath(path, root)
            if stat.S_ISLNK(status.st_mode):
                found[key] = ("link", os.readlink(path), status.st_mtime_ns)
            elif stat.S_ISDIR(status.st_mode):
                found[key] = ("folder", stat.S_IMODE(status.st_mode))
            elif stat.S_ISREG(status.st_mode):
                content = Path(path).read_bytes()
                found[key] = (content, stat.S_IMODE(status.st_mode), status.st_mtime_ns)
            else:
                found[key] = "other"
    return found


def contents(*roots: Path) -> Counter[object]:
    """The bytes of all files, wherever they are; without manifests and locks."""
    return Counter(
        kept[0]
        for root in roots
        for name, kept in tree(root).items()
        if isinstance(kept, tuple) and isinstance(kept[0], bytes)
        and not re.match(r"manifest-|\.siamese-lock", name)
    )  # fmt: skip


FILES = {
    "Ann/1.jpg": b"ann 1", "Ann/2.jpg": b"ann 2", "夏子/1.jpg": b"own", "夏子 /a b.png": b"twin",
    "Bob/1.jpg": b"bob", "Bob/same_face/x.jpg": b"deep", "Bob/same_face/in/y.jpg": b"deeper",
    ".hidden/z": b"", "empty/": b"", "left.jpg": b"outside",
}  # fmt: skip
MOVES = [
    Move("Ann/1.jpg", None), Move("夏子 /a b.png", "夏子/a b.png"), Move("Bob/same_face", None),
    Move(".hidden", None), Move("empty", None), Move("left.jpg", "new/folder/left.jpg"),
]  # fmt: skip


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        yield Path(folder)


@pytest.fixture
def faces(place):
    root = grow(place / "faces", FILES)
    os.symlink("../Ann/2.jpg", root / "Bob" / "same_face" / "link")
    (root / "Bob" / "same_face").chmod(0o750)
    for folder in (root / "夏子 ", root / "Bob" / "same_face"):
        os.utime(folder, ns=(TIME, TIME))
    return root


@pytest.fixture
def quarantine(place):
    return place / "faces-quarantine"


def test_files_and_folders_go_where_the_plan_says(faces, quarantine):
    manifest = carry_out(faces, MOVES, quarantine, reason="a test")
    assert sorted(tree(faces)) == [
        "Ann", "Ann/2.jpg", "Bob", "Bob/1.jpg", "new", "new/folder", "new/folder/left.jpg",
        "夏子", "夏子/1.jpg", "夏子/a b.png",
    ]  # fmt: skip
    there = tree(quarantine)
    assert there["Ann/1.jpg"] == (b"ann 1", 0o640, TIME)
    assert there["Bob/same_face/link"][:2] == ("link", "../Ann/2.jpg")
    assert there["Bob/same_face"] == ("folder", 0o750)
    assert {"Bob/same_face/in/y.jpg", ".hidden/z", "empty"} <= set(there)
    assert manifest.parent == quarantine
    assert json.loads(manifest.read_text().splitlines()[0])["reason"] == "a test"


def test_restore_brings_everything_back(faces, quarantine):
    before = tree(faces)
    times = {f: (faces / f).stat().st_mtime_ns for f in ("夏子 ", "Bob/same_face", "empty")}
    manifest = carry_out(faces, MOVES, quarantine, reason="")
    assert tree(faces) != before
    told = restore(manifest)
    assert tree(faces) == before
    assert {f: (faces / f).stat().st_mtime_ns for f in times} == times
    assert told.moved == 7
    assert "7 files moved back" in told.text()
    assert sorted(path.name for path in quarantine.iterdir() if path.name[0] != ".") == [
        manifest.name
    ]
    again = restore(manifest)
    assert "nothing to do" in again.text()
    assert (again.moved, again.already, again.folders) == (0, 7, 0)
    assert tree(faces) == before


# Ended at every step, as by kill -9: a child ends itself at the k-th call to the file system.

CALLS = ("rename", "replace", "mkdir", "rmdir", "unlink", "chmod", "utime", "fsync", "symlink")


def killed_at(step: int, work: Callable[[], object], two_disks: tuple[Path, Path] | None) -> bool:
    """Run in a child that ends before its ``step``-th call; False when it came to its own end."""
    child = os.fork()
    if child == 0:
        try:
            count = 0

            def ending(call: Callable[..., object], partly: bool) -> Callable[..., object]:
                def counted(*args: object, **kwargs: object) -> object:
                    nonlocal count
                    count += 1
                    if count == step:
                        if partly and not os.path.islink(str(args[0])):  # half a file is there
                            Path(str(args[1])).write_bytes(Path(str(args[0])).read_bytes()[:2])
                        os._exit(9)
                    return call(*args, **kwargs)

                return counted

            if two_disks is not None:
                os.rename = other_disks(*two_disks)
            for name in CALLS:
                counted = ending(getattr(os, name), False)
                if getattr(os, name) in os.supports_follow_symlinks:
                    os.supports_follow_symlinks.add(counted)
                setattr(os, name, counted)
            moves_module.copy_content = ending(moves_module.copy_content, True)
            work()
        except BaseException as error:
            print(repr(error), file=sys.__stderr__)
            os._exit(1)
        os._exit(0)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert ended in (0, 9), "the work failed; see what it printed"
    return ended == 9


def other_disks(root: Path, quarantine: Path) -> Callable[[str, str], None]:
    """``os.rename`` as it is when the two are on different disks."""
    rename = os.rename

    def refusing(source: str, target: str) -> None:
        if os.fspath(source).startswith(f"{root}/") != os.fspath(target).startswith(f"{root}/"):
            raise OSError(errno.EXDEV, "Invalid cross-device link", source, None, target)
        rename(source, target)

    return refusing


def manifest_in(quarantine: Path) -> Path | None:
    return next(quarantine.glob("manifest-*"), None) if quarantine.exists() else None


@pytest.fixture(params=[False, True], ids=["one disk", "two disks"])
def disks(request, monkeypatch, faces, quarantine):
    """None, or the two folders that are as if on two disks."""
    if not request.param:
        return None
    monkeypatch.setattr(os, "rename", other_disks(faces, quarantine))
    return faces, quarantine


def test_two_disks(disks, faces, quarantine):
    before = tree(faces)
    manifest = carry_out(faces, MOVES, quarantine, reason="")
    assert tree(quarantine)["Ann/1.jpg"] == (b"ann 1", 0o640, TIME)
    assert not (faces / "Bob" / "same_face").exists()
    restore(manifest)
    assert tree(faces) == before


def test_moves_that_end_at_any_step_are_undone(disks, faces, quarantine):
    before, all_bytes = tree(faces), contents(faces)
    step, halves = 1, 0
    while killed_at(step, lambda: carry_out(faces, MOVES, quarantine, reason=""), disks):
        now = contents(faces, quarantine)
        assert set(all_bytes) <= set(now), step  # wherever it ended, nothing was lost
        manifest = manifest_in(quarantine)
        if manifest is None:
            assert tree(faces) == before
        else:
            halves += tree(faces) != before
            restore(manifest)
            assert tree(faces) == before, step
            assert contents(quarantine) == Counter(), step
        shutil.rmtree(quarantine, ignore_errors=True)
        step += 1
    assert halves > 10
    restore(manifest_in(quarantine))
    assert tree(faces) == before


def test_a_restore_that_ends_at_any_step_goes_on(disks, faces, quarantine):
    before, all_bytes = tree(faces), contents(faces)
    times = [(faces / folder).stat().st_mtime_ns for folder in ("夏子 ", "Bob/same_face")]
    manifest = carry_out(faces, MOVES, quarantine, reason="")
    step = 1
    while killed_at(step, partial(restore, manifest), disks):
        assert set(all_bytes) <= set(contents(faces, quarantine)), step
        restore(manifest)
        assert tree(faces) == before, step
        assert [(faces / f).stat().st_mtime_ns for f in ("夏子 ", "Bob/same_face")] == times
        shutil.rmtree(quarantine)
        manifest = carry_out(faces, MOVES, quarantine, reason="")
        step += 1
    assert step > 15
    assert tree(faces) == before


def test_a_restore_that_ends_again_and_again_goes_on(disks, faces, quarantine):
    before = tree(faces)
    manifest = carry_out(faces, MOVES, quarantine, reason="")
    for step in range(1, 40):
        killed_at(step, lambda: restore(manifest), disks)
    restore(manifest)
    assert tree(faces) == before


def test_a_real_second_disk(faces, tmp_path):
    if faces.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second disk")
    before = tree(faces)
    manifest = carry_out(faces, MOVES, tmp_path / "q", reason="")
    assert tree(tmp_path / "q")["Ann/1.jpg"] == (b"ann 1", 0o640, TIME)
    assert sorted(os.listdir(faces)) == ["Ann", "Bob", "new", "夏子"]
    with pytest.raises(UserError, match="does not lie beside"):
        restore(manifest)
    restore(manifest, faces)
    assert tree(faces) == before


def test_a_disk_that_keeps_no_times_gives_them_back(faces, quarantine):
    before = tree(faces)
    manifest = carry_out(faces, MOVES, quarantine, reason="")
    for folder, _, files in os.walk(quarantine):
        for name in files:
            if name != ".siamese-lock" and not os.path.islink(os.path.join(folder, name)):
                os.utime(os.path.join(folder, name), ns=(5, 5))
                os.chmod(os.path.join(folder, name), 0o777)
    restore(manifest)
    assert tree(faces) == before


def test_a_disk_that_cannot_keep_times_harms_none(faces, quarantine, monkeypatch):
    monkeypatch.setattr(os, "rename", other_disks(faces, quarantine))
    before = tree(faces)
    manifest = carry_out(faces, [Move("Ann/1.jpg", None)], quarantine, reason="")
    os.utime(quarantine / "Ann" / "1.jpg", ns=(5, 5))
    os.chmod(quarantine / "Ann" / "1.jpg", 0o777)

    def at_home_only(change):
        def changed(path, *given, **options):
            if str(path).startswith(f"{quarantine}/"):
                raise PermissionError(errno.EPERM, "not on this disk", path)
            change(path, *given, **options)

        return changed

    for name in ("utime", "chmod"):
        monkeypatch.setattr(os, name, at_home_only(getattr(os, name)))
    restore(manifest)
    assert tree(faces) == before


def test_a_folder_that_gets_something_is_not_emptied(faces, quarantine, tmp_path):
    write_plan(tmp_path / "plan.csv", [Move("夏子 /a b.png", "夏子 /deeper/a b.png")])
    before = tree(faces)
    done = mend_folder(MendSettings(str(faces), str(tmp_path / "plan.csv"), str(quarantine)))
    assert (done.taken_out, done.renamed, done.emptied) == (0, 1, 0)
    assert (faces / "夏子 " / "deeper" / "a b.png").read_bytes() == b"twin"
    restore(done.manifest)
    assert tree(faces) == before


def test_a_copy_that_differs_is_not_trusted(disks, faces, quarantine, monkeypatch):
    if disks is None:
        pytest.skip("only copies can differ")
    before, real = tree(faces), moves_module.copy_content

    def failing(source, target):
        real(source, target)
        if source.endswith("x.jpg"):
            Path(target).write_bytes(b"dee?")

    monkeypatch.setattr(moves_module, "copy_content", failing)
    with pytest.raises(UserError, match=r"x\.jpg: its copy differs.*undo: siamese-data restore"):
        carry_out(faces, MOVES, quarantine, reason="")
    monkeypatch.setattr(moves_module, "copy_content", real)
    assert not [name for name in tree(quarantine) if "x.jpg" in name]
    restore(manifest_in(quarantine))
    assert tree(faces) == before


def test_a_full_disk_leaves_all_and_says_how_to_undo(disks, faces, quarantine, monkeypatch):
    if disks is None:
        pytest.skip("only copies need room")
    before, real = tree(faces), moves_module.copy_content

    def full(source, target):
        if source.endswith("y.jpg"):
            Path(target).write_bytes(b"d")
            raise OSError(errno.ENOSPC, "No space left on device", target)
        real(source, target)

    monkeypatch.setattr(moves_module, "copy_content", full)
    with pytest.raises(
        UserError, match=r"No space left on device; \d of 7 files are moved"
    ) as told:
        carry_out(faces, MOVES, quarantine, reason="")
    monkeypatch.setattr(moves_module, "copy_content", real)
    manifest = shlex.split(str(told.value).split("undo: ")[1])[2]
    restore(Path(manifest))
    assert tree(faces) == before


def test_ctrl_c_says_how_to_undo(faces, quarantine, monkeypatch, capsys):
    before, real = tree(faces), os.rename

    def interrupted(source, target):
        if str(source).endswith("a b.png"):
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        carry_out(faces, MOVES, quarantine, reason="")
    monkeypatch.setattr(os, "rename", real)
    told = capsys.readouterr().err
    assert "1 of 7 files are moved, undo: siamese-data restore" in told
    restore(Path(shlex.split(told.split("undo: ")[1])[2]))
    assert tree(faces) == before


# What cannot be done is refused before anything is done.


@pytest.mark.parametrize(
    ("moves", "told"),
    [
        ([Move("Ann/9.jpg", None)], "1 of the plan's 2 paths are not there: Ann/9.jpg"),
        ([Move("left.jpg/x", None)], "not there: left.jpg/x"),
        ([Move("Ann/1.jpg", "Ann/2.jpg")], "Ann/2.jpg exists already"),
        ([Move("Ann/1.jpg", "Ann/1.jpg")], "exists already"),
        ([Move("Ann/1.jpg", "夏子")], "夏子 exists already"),
        ([Move("Ann", "Bob")], "Bob exists already"),
        ([Move("Ann/1.jpg", "x"), Move("Ann/2.jpg", "./x")], "the plan moves two things there"),
        ([Move("Ann/1.jpg", "x"), Move("Ann/2.jpg", "x/y")], "which moves itself"),
        ([Move("Ann", "Cid"), Move("Bob/1.jpg", "Ann/3.jpg")], "which moves itself"),
        ([Move("Ann", "Ann/deeper")], "which moves itself"),
        ([Move("Ann/1.jpg", "left.jpg/x")], "left.jpg is no folder"),
        ([Move("Ann/1.jpg", None), Move("Ann//1.jpg", "x")], "Ann/1.jpg: is in the plan twice"),
        ([Move("Ann/1.jpg", None), Move("Ann", None)], "and so is the folder Ann around it"),
        ([Move("../outside.jpg", None)], "must lie inside"),
        ([Move("Ann/../../outside.jpg", None)], "must lie inside"),
        ([Move("Ann/1.jpg", "../x")], "must lie inside"),
        ([Move("Ann/1.jpg", "/tmp/x")], "/tmp/x: must lie inside"),
        ([Move(".", None)], "must lie inside"),
        ([Move("", None)], "an empty path: must lie inside"),
        ([Move("a\0b", None)], "must lie inside"),
        ([Move("door/outside.jpg", None)], "a link leads out of"),
        ([Move("Ann/1.jpg", "door/x")], "a link leads out of"),
        ([], "no moves were given"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_before_anything_is_done(
    faces, quarantine, place, moves, told
):
    (place / "else").mkdir()
    (place / "outside.jpg").write_bytes(b"not ours")
    (place / "else" / "outside.jpg").write_bytes(b"not ours")
    (faces / "door").symlink_to(place / "else")
    before = tree(place)
    good = [Move("Bob/1.jpg", None)] if moves and moves[-1].to != "Ann/3.jpg" else []
    with pytest.raises(UserError, match=re.escape(told)):
        carry_out(faces, good + moves, quarantine, reason="")
    assert tree(place) == before


@pytest.mark.parametrize(
    ("given_place", "told"),
    [
        ("faces/.quarantine", "lies inside"), ("faces", "lies inside"), (".", "holds"),
        ("inner", "lies inside"), ("file", "is a file"),
    ],
)  # fmt: skip
def test_the_quarantine_is_another_folder(faces, place, given_place, told):
    (place / "inner").symlink_to(faces / "Ann")
    (place / "file").write_bytes(b"")
    before = tree(place)
    with pytest.raises(UserError, match=told):
        carry_out(faces, MOVES, place / given_place, reason="")
    assert tree(place) == before


def test_nothing_in_the_quarantine_is_overwritten(faces, quarantine):
    grow(quarantine, {"Ann/1.jpg": b"earlier"})
    before = tree(faces)
    with pytest.raises(UserError, match=r"Ann/1.jpg exists already; give another `quarantine`"):
        carry_out(faces, MOVES, quarantine, reason="")
    assert tree(faces) == before
    assert (quarantine / "Ann" / "1.jpg").read_bytes() == b"earlier"


def test_a_folder_joins_what_came_from_it_before(faces, quarantine):
    before = tree(faces)
    first = carry_out(faces, [Move("Bob/same_face/in/y.jpg", None)], quarantine, reason="")
    assert sorted(os.listdir(faces / "Bob" / "same_face")) == ["link", "x.jpg"]
    second = carry_out(faces, [Move("Bob", None)], quarantine, reason="")
    assert tree(quarantine)["Bob/same_face/x.jpg"][0] == b"deep"
    assert not (faces / "Bob").exists()
    restore(second)
    restore(first)
    assert tree(faces) == before
    grow(quarantine / "Bob", {"same_face": b"a file"})
    with pytest.raises(UserError, match=r"Bob/same_face: cannot be moved, .* exists already"):
        carry_out(faces, [Move("Bob", None)], quarantine, reason="")
    assert tree(faces) == before


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_told_first(faces, quarantine):
    (faces / "Ann").chmod(0o555)
    with pytest.raises(UserError, match="may not be written"):
        carry_out(faces, MOVES, quarantine, reason="")
    assert not quarantine.exists()


def test_a_folder_that_may_not_be_written_is_told_first_even_to_root(
    faces, quarantine, monkeypatch
):
    monkeypatch.setattr(os, "access", lambda path, _: not str(path).endswith("/Ann"))
    with pytest.raises(UserError, match="Ann: may not be written"):
        carry_out(faces, MOVES, quarantine, reason="")
    assert not quarantine.exists()


def test_after_an_interruption_the_old_plan_names_the_way_back(faces, quarantine):
    manifest = carry_out(faces, MOVES, quarantine, reason="")
    with pytest.raises(UserError, match="not there") as told:
        carry_out(faces, MOVES, quarantine, reason="")
    assert f"siamese-data restore {manifest}" in str(told.value)


def test_a_link_inside_the_folder_is_followed_once(faces, quarantine):
    (faces / "alias").symlink_to("Ann")
    before = tree(faces)
    manifest = carry_out(faces, [Move("alias/1.jpg", None)], quarantine, reason="")
    assert tree(quarantine)["Ann/1.jpg"][0] == b"ann 1"
    restore(manifest)
    assert tree(faces) == before
    with pytest.raises(UserError, match="twice"):
        carry_out(
            faces, [Move("alias/1.jpg", None), Move("Ann/1.jpg", None)], quarantine, reason=""
        )


def test_links_and_pipes_are_moved_as_they_are(faces, quarantine):
    os.symlink("nowhere", faces / "Ann" / "broken")
    os.symlink(faces, faces / "Ann" / "around")
    os.mkfifo(faces / "Ann" / "pipe")
    before = tree(faces)
    moves = [Move(f"Ann/{name}", None) for name in ("broken", "around", "pipe")]
    manifest = carry_out(faces, moves, quarantine, reason="")
    assert os.readlink(quarantine / "Ann" / "broken") == "nowhere"
    assert stat.S_ISFIFO(os.lstat(quarantine / "Ann" / "pipe").st_mode)
    assert "Ann/1.jpg" in tree(faces)
    restore(manifest)
    assert tree(faces) == before


def test_hard_links_stay_two_files(faces, quarantine):
    os.link(faces / "Ann" / "1.jpg", faces / "Bob" / "twin.jpg")
    before = tree(faces)
    moves = [Move("Ann/1.jpg", None), Move("Bob/twin.jpg", None)]
    manifest = carry_out(faces, moves, quarantine, reason="")
    restore(manifest)
    assert tree(faces) == before
    with pytest.raises(UserError, match="exists already"):
        carry_out(faces, [Move("Ann/1.jpg", "Bob/twin.jpg")], quarantine, reason="")


# Restoring into a folder that went on living.


def test_what_is_new_at_the_old_place_stays(faces, quarantine):
    manifest = carry_out(faces, MOVES, quarantine, reason="")
    (faces / "Ann" / "1.jpg").write_bytes(b"new picture")
    with pytest.raises(UserError, match=r"6 files moved back, 1 not: Ann/1.jpg \(something new"):
        restore(manifest)
    assert (faces / "Ann" / "1.jpg").read_bytes() == b"new picture"
    assert (quarantine / "Ann" / "1.jpg").read_bytes() == b"ann 1"
    assert (faces / "Bob" / "same_face" / "in" / "y.jpg").read_bytes() == b"deeper"
    (faces / "Ann" / "1.jpg").unlink()
    restore(manifest)
    assert (faces / "Ann" / "1.jpg").read_bytes() == b"ann 1"


def test_a_new_file_where_a_folder_was_stays(faces, quarantine):
    manifest = carry_out(faces, MOVES, quarantine, reason="")
    (faces / ".hidden").write_bytes(b"a file now")
    with pytest.raises(UserError, match=r"6 files moved back, 1 not: \.hidden/z"):
        restore(manifest)
    assert (faces / ".hidden").read_bytes() == b"a file now"
    assert (quarantine / ".hidden" / "z").exists()


def test_what_has_changed_or_gone_is_named(faces, quarantine):
    manifest = carry_out(faces, MOVES, quarantine, reason="")
    (quarantine / "Ann" / "1.jpg").write_bytes(b"ann 9")
    (quarantine / "Bob" / "same_face" / "x.jpg").unlink()
    with pytest.raises(UserError, match="5 files moved back, 2 not") as told:
        restore(manifest)
    assert "Ann/1.jpg (has changed since" in str(told.value)
    assert "Bob/same_face/x.jpg (is neither there nor at" in str(told.value)
    assert (quarantine / "Ann" / "1.jpg").read_bytes() == b"ann 9"


def test_equal_bytes_at_both_places_are_an_interrupted_copy(faces, quarantine):
    before = tree(faces)
    manifest = carry_out(faces, MOVES, quarantine, reason="")
    shutil.copy(quarantine / "Ann" / "1.jpg", faces / "Ann" / "1.jpg")
    restore(manifest)
    assert tree(faces) == before
    assert not (quarantine / "Ann").exists()


def test_new_files_stay_where_they_are(faces, quarantine):
    manifest = carry_out(faces, MOVES, quarantine, reason="")
    for path in (faces / "new" / "mine.jpg", quarantine / "Ann" / "note.txt"):
        path.write_bytes(b"mine")
    restore(manifest)
    assert (faces / "new" / "mine.jpg").read_bytes() == b"mine"
    assert (quarantine / "Ann" / "note.txt").read_bytes() == b"mine"
    assert not (faces / "new" / "folder").exists()


def test_the_quarantine_may_be_moved_with_its_manifest(faces, quarantine, place):
    before = tree(faces)
    manifest = carry_out(faces, MOVES, quarantine, reason="")
    (place / "disk").mkdir()
    quarantine.rename(place / "disk" / "other name")
    moved = place / "disk" / "other name" / manifest.name
    with pytest.raises(UserError, match=r"does not lie beside .*: siamese-data restore") as told:
        restore(moved)
    command = shlex.split(str(told.value).split("if that is right: ")[1])
    assert command == ["siamese-data", "restore", str(moved), "--root", str(faces)]
    assert tree(faces) != before
    restore(moved, faces)
    assert tree(faces) == before


def test_a_copied_manifest_serves_too(faces, quarantine, tmp_path):
    before = tree(faces)
    manifest = carry_out(faces, MOVES, quarantine, reason="")
    shutil.copy(manifest, tmp_path / manifest.name)
    with pytest.raises(UserError, match="does not lie beside"):
        restore(tmp_path / manifest.name)
    restore(tmp_path / manifest.name, faces, quarantine)
    assert tree(faces) == before


def test_several_are_undone_last_first(faces, quarantine):
    before = tree(faces)
    first = carry_out(faces, [Move("Ann/1.jpg", "Ann/moved.jpg")], quarantine, reason="")
    second = carry_out(faces, [Move("Ann/moved.jpg", None)], quarantine, reason="")
    assert first != second
    with pytest.raises(UserError, match="undo later moves first"):
        restore(first)
    restore(second)
    restore(first)
    assert tree(faces) == before


def test_one_process_at_a_time(faces, quarantine):
    before = tree(faces)
    manifest = carry_out(faces, MOVES, quarantine, reason="")
    held, done = threading.Event(), threading.Event()

    def other() -> None:
        with FileLock(quarantine / ".siamese-lock"):
            held.set()
            done.wait(20)

    thread = threading.Thread(target=other)
    thread.start()
    held.wait(20)
    try:
        for work in (
            lambda: restore(manifest),
            lambda: carry_out(faces, [Move("Bob/1.jpg", None)], quarantine, reason=""),
        ):
            with pytest.raises(UserError, match="another process"):
                work()
        assert tree(faces) != before
    finally:
        done.set()
        thread.join()
    restore(manifest)
    assert tree(faces) == before


def test_one_entry_under_both_names_is_never_removed(faces, quarantine):
    """As on a disk that folds letter case; and a hard link at the old place."""
    manifest = carry_out(faces, [Move("Ann/1.jpg", "Ann/one.jpg")], quarantine, reason="")
    os.link(faces / "Ann" / "one.jpg", faces / "Ann" / "1.jpg")
    before = tree(faces)
    assert "nothing to do" in restore(manifest).text()
    assert tree(faces) == before


# Any tree, any plan.

PATH = st.lists(file_names(), min_size=1, max_size=3).map("/".join)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_plan_is_undone_or_refused(data):
    files = data.draw(st.dictionaries(PATH, st.binary(max_size=4), min_size=1, max_size=10))
    kept: dict[str, bytes] = {}
    for path, content in files.items():  # a file is no folder
        if not any(f"{path}/".startswith(f"{k}/") or f"{k}/".startswith(f"{path}/") for k in kept):
            kept[path] = content
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        root, quarantine = grow(Path(folder) / "r", kept), Path(folder) / "q"
        before, all_bytes = tree(root), contents(root)
        sources = st.sampled_from(sorted(before)) | PATH
        targets = st.none() | st.none() | PATH | st.sampled_from(sorted(before))
        moves = data.draw(st.lists(st.builds(Move, sources, targets), min_size=1, max_size=5))
        try:
            manifest = carry_out(root, moves, quarantine, reason="")
        except UserError:
            assert tree(root) == before
            assert not quarantine.exists()
            return
        assert contents(root, quarantine) == all_bytes
        for move in moves:
            assert os.path.lexists(quarantine / move.path if move.to is None else root / move.to)
        assert tree(root) != before
        restore(manifest)
        assert tree(root) == before
        assert "nothing to do" in restore(manifest).text()


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_sound_plan_is_carried_out(data):
    names = data.draw(st.lists(PATH, min_size=1, max_size=8, unique_by=lambda p: p.split("/")[0]))
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        files = {name: str(number).encode() for number, name in enumerate(names)}
        root, quarantine = grow(Path(folder) / "r", files), Path(folder) / "q"
        before = tree(root)
        chosen = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
        fresh = data.draw(st.lists(st.booleans(), min_size=len(chosen), max_size=len(chosen)))
        assume("target" not in {name.split("/")[0] for name in names})
        moves = [
            Move(name, f"target/{number}/x" if new else None)
            for number, (name, new) in enumerate(zip(chosen, fresh, strict=True))
        ]
        manifest = carry_out(root, moves, quarantine, reason="")
        for move in moves:
            place = quarantine / move.path if move.to is None else root / move.to
            assert place.read_bytes() == files[move.path]
            assert not os.path.lexists(root / move.path)
        restore(manifest)
        assert tree(root) == before


# The commands.


def test_mend_and_restore_as_commands(faces, tmp_path, run_here):
    before = tree(faces)
    plan = tmp_path / "plans" / "a plan.csv"
    write_plan(plan, MOVES)
    done = run_here("data", "mend", faces, "--plan", plan)
    assert (done.returncode, done.stderr) == (0, "")
    first, last = done.stdout.splitlines()
    assert first == (
        f"{faces}: 5 files moved to {faces}-quarantine; 2 files moved within it; "
        "5 emptied folders removed"
    )
    command = shlex.split(last.removeprefix("undo: "))
    assert command[:2] == ["siamese-data", "restore"]
    back = run_here("data", *command[1:])
    assert back.stdout == f"{faces}: 7 files moved back to where they were\n"
    assert tree(faces) == before
    again = run_here("data", *command[1:])
    assert again.returncode == 0
    assert "nothing to do" in again.stdout


def test_the_undo_command_works_in_a_shell(tmp_path):
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    root = grow(tmp_path / "it's  caf\udce9 夏子　\n", {"a/b": b"1"})
    write_plan(tmp_path / "plan.csv", [Move("a/b", None)])
    told = mend_folder(MendSettings(data=str(root), plan=str(tmp_path / "plan.csv"))).text()
    command = told.encode("utf-8", "backslashreplace").decode().rsplit("undo: ", 1)[1]
    script = f'siamese-data() {{ "{sys.executable}" -c ' + (
        f"'from siamese.cli.data import main; main()' \"$@\"; }}; {command}"
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (root / "a" / "b").read_bytes() == b"1"


def test_an_empty_plan_moves_nothing(faces, tmp_path, run_here):
    write_plan(tmp_path / "plan.csv", [])
    done = run_here("data", "mend", faces, "--plan", tmp_path / "plan.csv")
    assert done.returncode == 0
    assert "nothing to move" in done.stdout
    assert not Path(f"{faces}-quarantine").exists()


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("", "line 1: not a manifest"), ("{}\n", "line 1: not a manifest"),
        ("[1]\n", "line 1: not a manifest"), ("path,to\n", "line 1: not a manifest"),
        ('{"siamese-moves": 2}\n', "another version"),
        ('{"siamese-moves": 1, "root": "/r", "quarantine": "/q", "reason": "", '
         '"name": "manifest-20260101-000000-1"}\n'
         '{"emptied": {"path": "../x", "mode": 1, "mtime_ns": 1}}\n', "line 2: not a manifest"),
        ('{"siamese-moves": 1, "root": "/nowhere", "quarantine": "/q", "reason": "", '
         '"name": "manifest-20260101-000000-1"}\n', "does not lie beside"),
    ],
)  # fmt: skip
def test_what_is_no_manifest_is_refused_in_one_line(tmp_path, run_here, written, told):
    (tmp_path / "m.jsonl").write_text(written)
    done = run_here("data", "restore", tmp_path / "m.jsonl")
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert told in done.stderr


HEAD = {
    "siamese-moves": 1, "root": "/r/faces", "quarantine": "/r/q", "reason": "",
    "name": "manifest-20260101-000000-1",
}  # fmt: skip
MOVED = {
    "old": "Ann/1.jpg", "new": "Ann/1.jpg", "quarantined": True, "kind": "file", "size": 5,
    "mode": 0o640, "mtime_ns": 1, "content": None,
}  # fmt: skip
HUGE = 10**30


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (1, HEAD | {"siamese-moves": "1"}), (1, HEAD | {"siamese-moves": True}),
        (1, HEAD | {"root": 1}), (1, HEAD | {"root": "faces"}), (1, HEAD | {"root": "/a\0b"}),
        (1, HEAD | {"quarantine": None}), (1, HEAD | {"quarantine": ["/q"]}),
        (1, HEAD | {"reason": {}}), (1, HEAD | {"name": "/../../victim/backup"}),
        (1, HEAD | {"name": 7}), (1, HEAD | {"moved": []}), (1, HEAD | {"more": 1}),
        (1, {key: value for key, value in HEAD.items() if key != "root"}),
        (2, 1), (2, []), (2, "moved"), (2, {}), (2, {"moved": MOVED, "made": 1}),
        (2, {"moved": []}), (2, {"moved": None}), (2, {"gone": MOVED}),
        *((2, {"moved": MOVED | change}) for change in (
            {"old": 1}, {"old": ""}, {"old": "/etc/x"}, {"old": "a/../../x"}, {"old": "a\0b"},
            {"old": "\ud800"}, {"new": None}, {"new": ["a"]}, {"new": "../x"},
            {"quarantined": 1}, {"quarantined": "yes"}, {"kind": "device"}, {"kind": ["file"]},
            {"size": "5"}, {"size": 5.0}, {"size": True}, {"size": -1}, {"size": HUGE},
            {"mode": "0640"}, {"mode": -1}, {"mode": 0o10000}, {"mode": None}, {"mode": HUGE},
            {"mtime_ns": 1.5}, {"mtime_ns": HUGE}, {"mtime_ns": -HUGE}, {"content": 7},
            {"more": 1},
        )),
        (2, {"moved": {key: value for key, value in MOVED.items() if key != "size"}}),
        *((2, {"emptied": {"path": "a", "mode": 0o755, "mtime_ns": 1} | change}) for change in (
            {"path": ".."}, {"path": 5}, {"mode": None}, {"mode": 1e400}, {"mtime_ns": [1]},
        )),
        *((2, {"made": {"path": "a", "quarantined": True, "mode": None} | change}) for change in (
            {"path": "../a"}, {"quarantined": None}, {"mode": "x"}, {"mode": HUGE},
        )),
    ],
)  # fmt: skip
def test_a_field_of_another_type_or_size_is_refused_with_its_line(tmp_path, line, value):
    path = tmp_path / "m.jsonl"
    first = [json.dumps(HEAD)] if line == 2 else []
    path.write_text("\n".join([*first, json.dumps(value)]) + "\n")
    with pytest.raises(UserError, match=rf"m\.jsonl, line {line}: not a manifest") as told:
        restore(path)
    assert len(str(told.value).splitlines()) == 1
    assert len(str(told.value)) < 400


@pytest.mark.parametrize(
    "line",
    [b"[" * 100_000, b'{"moved": {"size": ' + b"9" * 10_000 + b"}}", b"\xff", b"{" * 200_000],
)  # fmt: skip
def test_lines_that_break_readers_are_refused(tmp_path, line):
    path = tmp_path / "m.jsonl"
    path.write_bytes(json.dumps(HEAD).encode() + b"\n" + line + b"\n")
    with pytest.raises(UserError, match=r"m\.jsonl, line 2: not a manifest"):
        restore(path)


def test_a_pipe_or_device_is_no_manifest(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), Path("/proc/kmsg")):
        with pytest.raises(UserError, match="a manifest"):
            restore(path)


# Manifests from somewhere else, and links that lead away: nothing outside is touched.


@pytest.fixture
def trap(faces, quarantine, place):
    """A quarantined picture, a folder of somebody else, and a function that writes a manifest."""
    (place / "victim").mkdir()
    (place / "victim" / "backup-0").write_bytes(b"not ours")
    manifest = carry_out(faces, [Move("Ann/1.jpg", None)], quarantine, reason="")
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]

    def write(head: dict[str, object], *entries: dict[str, object], at: Path = manifest) -> Path:
        moved = [{"moved": lines[1]["moved"] | entry} for entry in entries]
        at.write_text("\n".join(json.dumps(one) for one in (lines[0] | head, *moved)) + "\n")
        return at

    return write


def outside(place: Path) -> dict[str, object]:
    return {k: v for k, v in tree(place).items() if not k.startswith("faces")}


def test_a_name_in_a_manifest_forms_no_path_outside(trap, place):
    before = outside(place)
    with pytest.raises(UserError, match="name is not as"):
        restore(trap({"name": "/../../victim/backup"}, {}))
    assert outside(place) == before


def test_a_root_elsewhere_must_be_named(trap, faces, place):
    far = place / "home" / "somebody"
    far.mkdir(parents=True)
    before = outside(place)
    manifest = trap({"root": str(far)}, {"old": "planted", "mode": 0o4777})
    with pytest.raises(UserError, match="does not lie beside"):
        restore(manifest)
    assert outside(place) == before
    restore(manifest, faces)  # what the user names counts
    assert stat.S_IMODE((faces / "planted").stat().st_mode) == 0o777
    assert outside(place) == before


def test_a_quarantine_elsewhere_gives_nothing_away(trap, quarantine, place):
    before = outside(place)
    status = (place / "victim" / "backup-0").stat()
    wanted = {"new": "backup-0", "size": status.st_size, "mtime_ns": status.st_mtime_ns}
    manifest = trap({"quarantine": str(place / "victim")}, wanted, at=quarantine / "backup-0")
    with pytest.raises(UserError, match=r"1 not: Ann/1\.jpg"):
        restore(manifest)
    assert outside(place) == before


@pytest.mark.parametrize("target", ["../victim", "../faces/Ann"])
@pytest.mark.parametrize("side", ["faces", "faces-quarantine"])
def test_a_link_on_the_way_is_not_followed_by_restore(trap, place, side, target):
    before = outside(place)
    (place / side / "door").symlink_to(target)
    status = (place / "victim" / "backup-0").stat()
    entry: dict[str, object] = {"old": "door/planted", "mode": 0o4777}
    if side == "faces-quarantine":
        same = {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
        entry = {"old": "Ann/taken", "new": "door/backup-0", **same}
    manifest = trap({}, entry)
    with open(manifest, "a") as file:
        for made in (
            {"emptied": {"path": "door/made", "mode": 0o777, "mtime_ns": 1}},
            {"made": {"path": "door/made", "quarantined": True, "mode": 0o777}},
        ):
            file.write(json.dumps(made) + "\n")
    within = sorted(os.listdir(place / "faces" / "Ann"))
    with pytest.raises(UserError, match="a link leads from there"):
        restore(manifest)
    assert outside(place) == before
    assert sorted(os.listdir(place / "faces" / "Ann")) == within


@pytest.mark.parametrize("name", ["Ann", "Bob", "new"])
def test_a_link_in_the_quarantine_is_not_followed_by_mend(faces, quarantine, place, name):
    (place / "victim").mkdir()
    quarantine.mkdir()
    (quarantine / name).symlink_to("../victim")
    before = tree(place)
    moves = [Move(f"{name}/1.jpg", None)] if name == "Ann" else [Move("Bob/same_face", None)]
    if name == "new":
        (faces / "new").symlink_to("../victim")
        moves = [Move("Ann/1.jpg", "new/x.jpg")]
        before = tree(place)
    with pytest.raises(UserError, match="link leads"):
        carry_out(faces, moves, quarantine, reason="")
    assert tree(place) == before


def test_a_link_that_comes_meanwhile_is_not_followed(faces, quarantine, place, monkeypatch):
    (place / "victim").mkdir()
    before, rename = tree(faces), os.rename

    def swapping(source, target):
        rename(source, target)
        if str(source).endswith("Ann/1.jpg"):
            rename(quarantine / "Ann", place / "aside")
            (quarantine / "Ann").symlink_to(place / "victim")

    monkeypatch.setattr(os, "rename", swapping)
    with pytest.raises(UserError, match="is not touched: a link leads") as told:
        carry_out(faces, [Move("Ann/1.jpg", None), Move("Ann/2.jpg", None)], quarantine, reason="")
    monkeypatch.setattr(os, "rename", rename)
    assert os.listdir(place / "victim") == []
    (quarantine / "Ann").unlink()
    (place / "aside").rename(quarantine / "Ann")
    restore(Path(shlex.split(str(told.value).split("undo: ")[1])[2]))
    assert tree(faces) == before


def test_an_unfinished_copy_that_is_a_link_is_not_written_through(
    disks, faces, quarantine, place, monkeypatch
):
    if disks is None:
        pytest.skip("only copies are unfinished")
    (place / "victim").write_bytes(b"not ours")
    real = moves_module.copy_content

    def trapped(source, copy):
        os.symlink(place / "victim", copy)
        real(source, copy)

    monkeypatch.setattr(moves_module, "copy_content", trapped)
    with pytest.raises(UserError, match="File exists"):
        carry_out(faces, [Move("Ann/1.jpg", None)], quarantine, reason="")
    assert (place / "victim").read_bytes() == b"not ours"
    assert (faces / "Ann" / "1.jpg").read_bytes() == b"ann 1"


def test_a_quarantine_that_nobody_named_is_no_link(faces, quarantine, place):
    (place / "victim").mkdir()
    quarantine.symlink_to("victim")
    write_plan(place / "plan.csv", [Move("Ann/1.jpg", None)])
    with pytest.raises(UserError, match="give it with `quarantine`"):
        mend_folder(MendSettings(str(faces), str(place / "plan.csv")))
    assert os.listdir(place / "victim") == []
    done = mend_folder(MendSettings(str(faces), str(place / "plan.csv"), str(quarantine)))
    assert (place / "victim" / "Ann" / "1.jpg").exists()
    restore(done.manifest)
    assert (faces / "Ann" / "1.jpg").exists()


def test_special_bits_are_never_brought_back(faces, quarantine, monkeypatch):
    (faces / "Ann" / "1.jpg").chmod(0o6755)
    (faces / "Bob" / "same_face").chmod(0o2775)
    manifest = carry_out(faces, MOVES, quarantine, reason="")
    assert stat.S_IMODE((quarantine / "Bob" / "same_face").stat().st_mode) == 0o775
    os.chmod(quarantine / "Ann" / "1.jpg", 0o600)  # as on a disk that keeps no permissions
    restore(manifest)
    assert stat.S_IMODE((faces / "Ann" / "1.jpg").stat().st_mode) == 0o755
    assert stat.S_IMODE((faces / "Bob" / "same_face").stat().st_mode) == 0o775
    (faces / "Ann" / "1.jpg").chmod(0o4755)
    monkeypatch.setattr(os, "rename", other_disks(faces, quarantine))
    carry_out(faces, [Move("Ann/1.jpg", None)], quarantine, reason="")
    assert stat.S_IMODE((quarantine / "Ann" / "1.jpg").stat().st_mode) == 0o755


# Names that a disk does not take are told before anything is written.


@pytest.mark.parametrize("new", ["夏" * 86 + ".jpg", "x" * 256, f"deeper/{'夏' * 86}/1.jpg"])
def test_a_name_of_too_many_bytes_is_refused_first(faces, quarantine, place, new):
    before = tree(place)
    with pytest.raises(UserError, match=r"Ann/1.jpg: cannot be moved, .*a name of 2\d\d bytes"):
        carry_out(faces, [Move("Bob/1.jpg", None), Move("Ann/1.jpg", new)], quarantine, reason="")
    assert tree(place) == before
    carry_out(faces, [Move("Ann/1.jpg", "夏" * 83 + ".jpg")], quarantine, reason="")  # 253 bytes


def test_a_disk_with_shorter_names_is_asked(faces, quarantine, monkeypatch):
    real = os.lstat

    def shorter(path, **options):
        if len(os.path.basename(path)) > 16:
            raise OSError(errno.ENAMETOOLONG, "File name too long", path)
        return real(path, **options)

    monkeypatch.setattr(os, "lstat", shorter)
    with pytest.raises(UserError, match="a name of 17 bytes"):
        carry_out(faces, [Move("Ann/1.jpg", "x" * 17)], quarantine, reason="")
    assert not quarantine.exists()


def test_a_path_of_too_many_bytes_is_refused_first(faces, place):
    long = place / "/".join(["d" * 200] * 19)  # 3,819 bytes
    deep = "/".join(["e" * 200] * 2)
    (faces / deep).mkdir(parents=True)
    (faces / deep / "1.jpg").write_bytes(b"deep")
    before = tree(place)
    with pytest.raises(UserError, match=r"is too long for the disk .* a path of 4\d\d\d\)"):
        carry_out(faces, [Move(f"{deep}/1.jpg", None)], long, reason="")
    assert tree(place) == before


def test_the_next_mend_removes_what_a_killed_one_left(faces, quarantine):
    before = tree(faces)
    quarantine.mkdir()
    left = ".manifest-20260101-000000-7.jsonl.0123abcd.tmp"
    (quarantine / left).write_bytes(b"half")
    (quarantine / ".other.0123abcd.tmp").write_bytes(b"somebody's")
    manifest = carry_out(faces, MOVES, quarantine, reason="")
    assert not (quarantine / left).exists()
    assert (quarantine / ".other.0123abcd.tmp").exists()
    restore(manifest)
    assert tree(faces) == before


@pytest.mark.parametrize("seed", range(3))
def test_a_crash_between_any_two_renames_is_undone_or_gone_on_with(seed, faces, place):
    """Seeded: many files, mend and restore broken off by an error at chosen renames."""
    rng = random.Random(seed)
    root, quarantine = place / "many", place / "many-quarantine"
    grow(root, {f"p{n % 4}/{n:02d}.jpg": bytes([n]) for n in range(24)})
    before, rename = tree(root), os.rename
    for _ in range(6):
        moves = [Move(f"p{n % 4}/{n:02d}.jpg", rng.choice([None, f"p9/{n}.jpg"]))
                 for n in rng.sample(range(24), 12)]  # fmt: skip
        for work in ("mend", "restore"):
            left = rng.randrange(12)

            def crashing(source, target, *, step=left, seen=[0]):  # noqa: B006 - counts
                seen[0] += str(source).endswith(".jpg")
                if seen[0] > step:
                    raise SystemExit("killed")
                rename(source, target)

            with pytest.MonkeyPatch.context() as patch, contextlib.suppress(SystemExit):
                patch.setattr(os, "rename", crashing)
                if work == "mend":
                    carry_out(root, moves, quarantine, reason="")
                else:
                    restore(manifest_in(quarantine))
            assert contents(root, quarantine) == contents_of(before)
        restore(manifest_in(quarantine))
        assert tree(root) == before
        shutil.rmtree(quarantine)


def contents_of(found: dict[str, object]) -> Counter[object]:
    return Counter(kept[0] for kept in found.values() if isinstance(kept[0], bytes))


def test_a_folder_in_place_of_its_manifest_is_told(faces, quarantine, run_here):
    carry_out(faces, MOVES, quarantine, reason="")
    done = run_here("data", "restore", quarantine)
    assert done.returncode == 2
    assert f"{quarantine}: cannot be read" in done.stderr


def test_a_conflict_is_one_line_and_exit_code_2(faces, quarantine, run_here):
    manifest = carry_out(faces, MOVES, quarantine, reason="")
    (faces / "Ann" / "1.jpg").write_bytes(b"new picture")
    done = run_here("data", "restore", manifest)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "Ann/1.jpg (something new is at its place" in done.stderr


@pytest.mark.parametrize("missing", ["data", "plan"])
def test_missing_settings_are_named(faces, tmp_path, run_here, missing):
    write_plan(tmp_path / "plan.csv", MOVES)
    given_settings = {"data": faces, "plan": tmp_path / "plan.csv"}
    del given_settings[missing]
    done = run_here("data", "mend", *(f"--{k}={v}" for k, v in given_settings.items()))
    assert done.returncode == 2
    assert f"--{missing} is missing" in done.stderr
