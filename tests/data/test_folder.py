"""Scanning a face folder: what counts, what is left out, what is refused."""

import os
import sys
import warnings
from pathlib import Path

import pytest
from PIL import Image

from siamese.data.folder import scan_folder
from siamese.errors import UserError


def scan(root: Path):
    return scan_folder(root, progress=False)


def left_out(folder) -> dict[str, str]:
    return {item.path: item.reason for item in folder.left_out}


def save(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (9, 7), (200, 80, 60)).save(path)
    return path


def test_people_and_pictures_are_found(face_folder):
    folder = scan(face_folder)
    assert folder.names == ("Ann", "Bob Lee", "Chloé", "dora", "eve", "夏子")
    assert len(folder.paths) == 36
    assert not folder.left_out
    assert folder.counts() == dict.fromkeys(folder.names, 6)
    for path, label in zip(folder.paths, folder.labels, strict=True):
        assert path.split("/")[0] == folder.names[label]
        assert (folder.root / path).is_file()


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "bmp", "gif", "tiff", "ppm", "JPEG"])
def test_any_file_type_of_pillow_counts(face_folder, ending):
    save(face_folder / "Ann" / f"another.{ending}")
    assert f"Ann/another.{ending}" in scan(face_folder).paths


def test_the_content_decides_and_not_the_ending(face_folder):
    save(face_folder / "Ann" / "a.png").rename(face_folder / "Ann" / "picture.dat")
    assert "Ann/picture.dat" in scan(face_folder).paths


@pytest.mark.parametrize(
    ("path", "listed", "reason"),
    [
        ("Ann/same_face/x.png", "Ann/same_face", "deeper folder"),
        ("Ann/.ipynb_checkpoints/x.png", "Ann/.ipynb_checkpoints", "hidden"),
        ("Ann/.hidden.png", "Ann/.hidden.png", "hidden"),
        (".ipynb_checkpoints/x.png", ".ipynb_checkpoints", "hidden"),
        ("stray.png", "stray.png", "outside any person's folder"),
        ("fay/deeper/x.png", "fay", "person without a usable picture"),
    ],
)
def test_pictures_in_other_places_are_left_out(face_folder, path, listed, reason):
    save(face_folder / path)
    folder = scan(face_folder)
    assert len(folder.paths) == 36
    assert left_out(folder)[listed] == reason
    assert "fay" not in folder.names


@pytest.mark.parametrize(
    ("path", "content", "reason"),
    [
        ("Ann/.DS_Store", b"\0\0\0\1Bud1", "hidden"),
        ("Ann/notes.txt", b"born in May", "not an image"),
        ("Ann/Thumbs.db", b"\xd0\xcf\x11\xe0", "not an image"),
        ("Ann/empty.jpg", b"", "unreadable image"),
        ("Ann/page.jpg", b"<!DOCTYPE html><html>403 Forbidden</html>", "unreadable image"),
        ("Ann/header.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0", "unreadable image"),
        ("Ann/header.jpg", b"\xff\xd8\xff\xe0\0\x10JFIF\0", "unreadable image"),
    ],
)
def test_files_without_a_readable_header_are_left_out(face_folder, path, content, reason):
    (face_folder / path).write_bytes(content)
    folder = scan(face_folder)
    assert left_out(folder) == {path: reason}
    assert len(folder.paths) == 36


def test_people_without_a_usable_picture_are_left_out(face_folder):
    (face_folder / "fay").mkdir()
    (face_folder / "gus").mkdir()
    (face_folder / "gus" / "x.jpg").write_bytes(b"")
    folder = scan(face_folder)
    assert not {"fay", "gus"} & set(folder.names)
    assert left_out(folder)["fay"] == "person without a usable picture"
    assert left_out(folder)["gus"] == "person without a usable picture"


def test_the_summary_counts_people_pictures_and_reasons(face_folder):
    for name in ("a.txt", "b.txt"):
        (face_folder / "Ann" / name).write_text("text")
    (face_folder / "eve" / "c.jpg").write_bytes(b"")
    line = scan(face_folder).summary()
    assert "6 people, 36 pictures; 3 left out (2 not an image, 1 unreadable image)" in line


@pytest.mark.parametrize(
    "name", ["夏子", "Zoë Müller", "Олег", "مريم", "ひらがな　氏名", "😀", "a'b\"c", "100%", "-x"]
)
def test_names_in_any_script(tmp_path, draw_people, name):
    folder = scan(draw_people(tmp_path / "faces", [name, "z"], images=1))
    assert name in folder.names
    assert f"{name}/0.png" in folder.paths


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow Unicode names only")
def test_names_that_are_not_utf8(face_folder):
    person = os.fsencode(face_folder) + b"/caf\xe9"
    os.mkdir(person)
    picture = (face_folder / "Ann" / "0.png").read_bytes()
    with open(person + b"/\xff.png", "wb") as file:
        file.write(picture)
    with open(person + b"/\xfe.png", "wb"):
        pass
    folder = scan(face_folder)
    assert os.fsdecode(b"caf\xe9") in folder.names
    assert os.fsdecode(b"caf\xe9/\xff.png") in folder.paths
    assert left_out(folder) == {os.fsdecode(b"caf\xe9/\xfe.png"): "unreadable image"}
    folder.summary().encode("utf-8")


def test_the_order_is_by_name(tmp_path, draw_people):
    people = ["b", "a b", "a", "B", "ä"]
    folder = scan(draw_people(tmp_path / "faces", people, images=3))
    assert folder.names == tuple(sorted(people))
    assert list(folder.labels) == sorted(folder.labels)
    assert folder.paths == tuple(f"{name}/{i}.png" for name in folder.names for i in range(3))
    assert scan(tmp_path / "faces") == folder


def test_only_keeps_some_people_and_relabels_them(face_folder):
    (face_folder / "Ann" / "x.txt").write_text("text")
    whole = scan(face_folder)
    part = whole.only(["夏子", "Bob Lee"])
    assert part.names == ("Bob Lee", "夏子")
    assert part.labels == (0,) * 6 + (1,) * 6
    assert part.paths[0] == "Bob Lee/0.png"
    assert part.paths[-1] == "夏子/5.png"
    assert part.root == whole.root
    assert part.left_out == whole.left_out


def test_symbolic_links_are_followed(tmp_path, face_folder):
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "ann").symlink_to(face_folder / "Ann")
    (linked / "gone").symlink_to(tmp_path / "nowhere")
    folder = scan(linked)
    assert folder.names == ("ann",)
    assert len(folder.paths) == 6
    assert "gone" in left_out(folder)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such folder"):
        scan(tmp_path / "nowhere")


def test_a_file_is_refused(face_folder):
    with pytest.raises(UserError, match=r"0\.png: is a file; a folder .* is needed"):
        scan(face_folder / "Ann" / "0.png")


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no usable picture in it \(it is empty\)"):
        scan(tmp_path)


def test_a_folder_with_loose_pictures_only_is_refused_with_the_remedy(face_folder):
    with pytest.raises(UserError, match=r"\(6 outside .*Ann/NAME/picture\.jpg"):
        scan(face_folder / "Ann")


# A loop of links would stop a scan with OSError, a pipe would let it wait for ever.


def test_a_link_to_itself_is_left_out(face_folder):
    (face_folder / "loop").symlink_to(face_folder / "loop")
    (face_folder / "Ann" / "loop").symlink_to(face_folder / "Ann" / "loop")
    folder = scan(face_folder)
    assert {"loop", "Ann/loop"} <= set(left_out(folder))
    assert len(folder.paths) == 36


def test_special_files_are_left_out_unopened(face_folder, monkeypatch):
    os.mkfifo(face_folder / "Ann" / "pipe.jpg")
    monkeypatch.setattr("siamese.data.folder.check_header", lambda path: None)
    assert left_out(scan(face_folder)) == {"Ann/pipe.jpg": "not a file"}


# Two spellings of one name (macOS writes NFD) could fall on both sides of the split.


def test_a_name_in_two_unicode_forms_is_refused(tmp_path, draw_people):
    root = draw_people(tmp_path / "faces", ["Chloe\u0301", "Chlo\u00e9", "dora"], images=2)
    with pytest.raises(UserError, match="Chlo"):
        scan(root)


# warnings.catch_warnings() is not for threads: the filters would stay changed, and some
# decompression bombs would pass.


def test_scanning_leaves_the_warning_filters_alone(tmp_path, draw_people):
    root = draw_people(tmp_path / "faces", ["a", "b"], images=100)
    before = list(warnings.filters)
    for _ in range(4):
        scan(root)
    assert warnings.filters == before


def test_a_name_of_impossible_length_is_refused():
    with pytest.raises(UserError):
        scan(Path("a" * 300))
