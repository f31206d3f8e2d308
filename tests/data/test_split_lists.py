"""Lists of who learns, validates and tests: what is written is read, anything else is refused."""

import os
import tempfile
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from siamese.data.folder import scan_folder
from siamese.data.split_lists import (
    list_content,
    listed_numbers,
    merged_folders,
    names_of,
    pictures_by_person,
    read_again,
    read_split,
)
from siamese.errors import UserError
from tests.file_names import file_names

PEOPLE = ("a", "b", "c", "d")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four people with three pictures each, and one picture deeper."""
    for name in PEOPLE:
        for number in range(3):
            picture(tmp_path / "faces" / name / f"{number}.png")
    picture(tmp_path / "faces" / "a" / "deep" / "x.png")
    return tmp_path / "faces"


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    """Lists of two people each, with a header `path` only."""
    write(tmp_path / "lists", train=rows("ab"), validation=rows("cd"))
    return tmp_path / "lists"


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path, "PNG")
    return path


def rows(people: str) -> str:
    return "path\n" + "".join(f"{name}/{number}.png\n" for name in people for number in range(3))


def write(folder: Path, **parts: str | bytes) -> Path:
    folder.mkdir(exist_ok=True)
    for part, content in parts.items():
        data = content if isinstance(content, bytes) else os.fsencode(content)
        (folder / f"{part}.csv").write_bytes(data)
    return folder


def write_people(folder: Path, parts: Mapping[str, Mapping[str, Sequence[str]]]) -> Path:
    return write(folder, **{part: list_content(people) for part, people in parts.items()})


def test_lists_by_hand_name_the_person_by_the_folder(root, lists):
    split = read_split(lists, root)
    assert split.listed
    assert split.test is None
    assert split.train.names == ("a", "b")
    assert split.validation.paths == tuple(f"{name}/{n}.png" for name in "cd" for n in range(3))
    assert split.validation.labels == (0, 0, 0, 1, 1, 1)
    assert split.train.left_out == ()


def test_what_scanning_finds_is_what_lists_of_everything_give(root, tmp_path):
    (root / "a" / "deep" / "x.png").unlink()
    whole = scan_folder(root)
    by_person = pictures_by_person(whole)
    parts = {"train": ("a", "c"), "validation": ("b", "d")}
    lists = write_people(
        tmp_path / "l", {part: {n: by_person[n] for n in names} for part, names in parts.items()}
    )
    split = read_split(lists, root)
    for part, names in parts.items():
        expected, found = whole.only(list(names)), split.parts()[part]
        assert (found.names, found.paths, found.labels) == (
            expected.names,
            expected.paths,
            expected.labels,
        )


@settings(deadline=None, max_examples=40)
@given(st.lists(file_names(), min_size=6, max_size=6, unique=True), st.data())
def test_names_of_any_bytes_survive(names, data):
    assume(len({unicodedata.normalize("NFC", name) for name in names}) == len(names))
    files = data.draw(st.lists(file_names(), min_size=2, max_size=3, unique=True))
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "faces"
        for name in names:
            for file in files:
                picture(root / name / file)
        parts = {
            part: {name: [f"{name}/{file}" for file in files] for name in some}
            for part, some in zip(
                ("train", "validation", "test"), (names[:2], names[2:4], names[4:]), strict=True
            )
        }
        found = read_split(write_people(Path(place) / "lists", parts), root)
        for part, folder in found.parts().items():
            assert {n: sorted(p) for n, p in parts[part].items()} == pictures_by_person(folder)
            again = read_again(root, {part: pictures_by_person(folder)}, "x")[part]
            assert again == folder


def test_a_person_of_two_folders_is_one_label(root, tmp_path):
    content = "path,person\nb/0.png,x\na/1.png,x\nc/0.png,a\nc/1.png,a\n"
    lists = write(tmp_path / "l", train=content, validation="path\nd/1.png\nd/2.png\nb/2.png\n")
    split = read_split(lists, root)
    assert split.train.names == ("a", "x")
    assert split.train.paths == ("c/0.png", "c/1.png", "a/1.png", "b/0.png")
    assert split.train.labels == (0, 0, 1, 1)
    assert merged_folders(split.train) == {"x": ["a", "b"]}
    assert merged_folders(split.validation) == {}
    part = {"identities": ["a", "x"], "listed": pictures_by_person(split.train)}
    assert sorted(names_of(part)) == ["a", "b", "c", "x"]
    assert names_of({"identities": ["a", "x"]}) == ["a", "x"]


@pytest.mark.parametrize(
    "content",
    [
        "\ufeffpath\r\nc/0.png\r\nc/1.png\r\nd/0.png\r\n",
        "path,person,note\nc/0.png,c,x\nc/1.png,c,\nd/0.png,d,\n",
        " Person , PATH \nc,c/0.png\n\nc,./c//1.png\nd,d/0.png",
        'note,path\n"a ""b"", c",c/0.png\n"two\nlines",c/1.png\n,d/0.png\n',
    ],
)
def test_tables_of_other_programs_are_read(root, lists, content):
    write(lists, validation=content.encode())
    assert read_split(lists, root).validation.paths == ("c/0.png", "c/1.png", "d/0.png")
    assert listed_numbers(lists) == {"train": 6, "validation": 3}


def test_deeper_pictures_may_be_listed(root, lists):
    write(lists, train=rows("ab") + "a/deep/x.png\n")
    train = read_split(lists, root).train
    assert train.paths[3] == "a/deep/x.png"
    assert train.labels == (0, 0, 0, 0, 1, 1, 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"validation\.csv: lists no picture"),
        ("path\n", r"validation\.csv: lists no picture"),
        ("file,person\nc/0.png,c\n", r"line 1: 'file,person' starts no list"),
        ("path;person\nc/0.png;c\n", r"line 1: .*separated by commas"),
        ("path\nc/0.png\nc/9.png\n", r"line 3: no such picture in .*faces: 'c/9\.png' \(1 of 2"),
        ("path\nc/0.png\nc\n", r"line 3: no person; say who 'c'"),
        ("path,person\nc,c\n", r"line 2: no such picture in .*: 'c'"),
        ("path\nc\\0.png\n", r"line 2: no person; say who 'c\\\\0.png'"),
        ("path,person\nc\\0.png,c\n", r"line 2: no such picture .*write / between"),
        ("path\nc/0.png\nd/0.png\n./c/0.png\n", r"line 4: 'c/0\.png' is listed in .*line 2"),
        ("path\na/0.png\n", r"validation\.csv, line 2: 'a/0\.png' is listed in .*train\.csv, line"),
        ("path,person\nc/0.png,a\n", r"validation\.csv, line 2: 'a' is in .*train\.csv, line 2"),
        ("path\n../faces/c/0.png\n", r"line 2: '\.\./faces/c/0\.png' leaves the folder"),
        ("path\nc/../../x/0.png\n", r"line 2: .*leaves the folder"),
        ("path\n/c/0.png\n", r"line 2: '/c/0\.png' is absolute"),
        ('path,person\n"",c\n', r"line 2: an empty path"),
        ("path,person\nc/0.png,\n", r"line 2: no person"),
        ("path,person\nc/0.png,c\nc/1.png\n", r"line 3: 1 field\(s\), but the header has 2"),
        ("path\nc/0,1.png\n", r"line 2: 2 field\(s\), .*quotes"),
        ('path\nc/0.png\n"c/1.png', r"line 3: is no CSV"),
        ("path\nc/0.png\nc/ä.png\n".encode("latin-1"), r"line 3: .*save the list as UTF-8"),
        ("path\nc/0.png\n".encode("utf-16"), r"validation\.csv: is not UTF-8 text \(UTF-16"),
        ("path\nc/0.png\nc/1.png\n", "one validation person only"),
        ("path\nc/0.png\nd/0.png\n", "nobody among the 2 validation people has two pictures"),
    ],
)
def test_lists_that_cannot_be_right_are_refused_with_file_and_line(root, lists, content, message):
    write(lists, validation=content)
    with pytest.raises(UserError, match=message) as told:
        read_split(lists, root)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_one_name_in_two_unicode_forms_is_one_person(root, lists, forms):
    one, other = (unicodedata.normalize(form, "ガク") for form in forms)
    write(lists, train=f"path,person\na/0.png,{one}\nb/0.png,{other}\nb/1.png,b\nb/2.png,b\n")
    assert read_split(lists, root).train.names == tuple(sorted((one, "b")))
    write(lists, validation=f"path,person\nc/0.png,{other}\nd/1.png,d\nd/2.png,d\n")
    with pytest.raises(UserError, match=r"validation\.csv, line 2: .* is in .*train\.csv, line 2"):
        read_split(lists, root)


def test_missing_folders_and_lists_are_named(root, lists, tmp_path):
    with pytest.raises(UserError, match=r"nowhere: no such folder; .*siamese-data split"):
        read_split(tmp_path / "nowhere", root)
    with pytest.raises(UserError, match="gone: no such folder"):
        read_split(lists, tmp_path / "gone")
    (lists / "validation.csv").unlink()
    with pytest.raises(UserError, match=r"lists: has no validation\.csv"):
        read_split(lists, root)


def test_a_broken_picture_is_left_out_and_told_by_every_part(root, lists):
    (root / "c" / "0.png").write_bytes(b"no picture")
    for number in range(3):
        (root / "a" / f"{number}.png").write_bytes(b"")
    write(lists, train=rows("ab") + "b/x.png\n")
    picture(root / "b" / "x.png")
    with pytest.raises(UserError, match="one train person only"):
        read_split(lists, root)
    picture(root / "a" / "0.png")
    split = read_split(lists, root)
    assert len(split.train.paths) == 5
    told = [item.path for item in split.train.left_out]
    assert told == ["a/1.png", "a/2.png", "c/0.png"]
    assert split.validation.left_out == split.train.left_out


def test_a_checkpoints_lists_are_found_again_as_far_as_they_are_there(root):
    pictures = {"x": ["a/0.png", "b/1.png"], "c": ["c/0.png"]}
    whole = read_again(root, {"train": pictures, "test": {"d": ["d/0.png"]}}, "best.pt")
    assert pictures_by_person(whole["train"]) == {"c": ["c/0.png"], "x": ["a/0.png", "b/1.png"]}
    assert whole["test"].paths == ("d/0.png",)
    (root / "b" / "1.png").unlink()
    (root / "c" / "0.png").unlink()
    less = read_again(root, {"train": pictures}, "best.pt")["train"]
    assert pictures_by_person(less) == {"x": ["a/0.png"]}
    assert {item.reason for item in less.left_out} == {"missing", "person without a usable picture"}


@pytest.mark.parametrize("path", ["/etc/passwd", "../secret.png", "a/../../x.png"])
def test_a_checkpoint_cannot_point_out_of_the_folder(root, path):
    with pytest.raises(UserError, match=r"best\.pt: .*(absolute|leaves the folder)"):
        read_again(root, {"test": {"a": [path]}}, "best.pt")
