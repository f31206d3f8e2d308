"""Pair lists: both kinds as written, every malformed line by its number, missing pictures."""

import csv
from pathlib import Path

import pytest

from siamese.data.pair_lists import PairList, read_pairs
from siamese.errors import UserError

PICTURES = (
    "Ann/Ann_0001.jpg",
    "Ann/Ann_0002.png",
    "Ann/Ann_0002.csv",
    "Ann/Ann_0003.JPEG",
    "Ann/Ann_0003.txt",
    "Ann/Ann_0004.bmp",
    "Ann/Ann_0004.jpg",
    "Bob Lee/Bob Lee_0001.jpg",
    "Bob Lee/Bob Lee_0012.jpg",
    "夏子/夏子_0001.webp",
    "夏子/夏子_0002.jpg",
    'odd, very/a "quoted" one.jpg',
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of empty files: the list needs only their names."""
    for picture in PICTURES:
        (tmp_path / "faces" / picture).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "faces" / picture).touch()
    return tmp_path / "faces"


def _read(root: Path, content: str | bytes) -> PairList:
    file = root.parent / "list.anything"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_pairs(file, root)


TWO_FOLDS = "\n".join(
    [
        "2\t1",
        "Ann\t1\t2",
        "Ann\t3\t夏子\t1",
        "Bob Lee\t1\t12",
        "Bob Lee\t1\tAnn\t4",
        "",
    ]
)


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_folds_of_lfw(root: Path, ending: str, encoding: str) -> None:
    pairs = _read(root, TWO_FOLDS.replace("\n", ending).encode(encoding))
    assert pairs == PairList(
        first=(
            "Ann/Ann_0001.jpg",
            "Ann/Ann_0003.JPEG",
            "Bob Lee/Bob Lee_0001.jpg",
            "Bob Lee/Bob Lee_0001.jpg",
        ),
        second=(
            "Ann/Ann_0002.png",
            "夏子/夏子_0001.webp",
            "Bob Lee/Bob Lee_0012.jpg",
            "Ann/Ann_0004.jpg",
        ),
        same=(True, False, True, False),
        fold=(0, 0, 1, 1),
        missing=(),
        skipped=0,
    )


@pytest.mark.parametrize("header", ["2", "1\t2"])
def test_one_fold_of_lfw(root: Path, header: str) -> None:
    lines = [header, "Ann\t1\t2", "Bob Lee\t1\t12", "Ann\t1\tBob Lee\t1", "Ann\t2\tBob Lee\t1"]
    pairs = _read(root, "\n".join(lines))
    assert pairs.same == (True, True, False, False)
    assert pairs.fold is None


def test_csv_in_any_order_of_columns(root: Path) -> None:
    quoted = '"odd, very/a ""quoted"" one.jpg"'
    pairs = _read(
        root,
        "\ufeffsame,path_b,path_a\r\n"
        f"YES,{quoted},Ann/Ann_0001.jpg\r\n"
        "0,夏子/夏子_0002.jpg,./Bob Lee//Bob Lee_0001.jpg\r\n"
        "False,Ann/../Ann/Ann_0002.png,Ann/Ann_0001.jpg\r\n\r\n",
    )
    assert pairs.first == ("Ann/Ann_0001.jpg", "Bob Lee/Bob Lee_0001.jpg", "Ann/Ann_0001.jpg")
    assert pairs.second == (PICTURES[-1], "夏子/夏子_0002.jpg", "Ann/Ann_0002.png")
    assert pairs.same == (True, False, False)
    assert pairs.fold is None


@pytest.mark.parametrize(
    ("truth", "same"),
    [("1", True), ("true", True), ("Yes", True), ("0", False), ("FALSE", False), (" no ", False)],
)
def test_truths_of_csv(root: Path, truth: str, same: bool) -> None:
    line = f"Ann/Ann_0001.jpg,Ann/Ann_0002.png,{truth}"
    assert _read(root, f"path_a,path_b,same\n{line}\n").same == (same,)


def test_what_the_csv_module_writes_is_read(root: Path) -> None:
    (root / "two\nlines.jpg").touch()
    file = root.parent / "pairs.txt"  # the kind is told by content
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path_a", "path_b", "same"])
        writer.writerow([PICTURES[-1], "two\nlines.jpg", "no"])
        writer.writerow([PICTURES[0], PICTURES[1], "maybe"])
    with pytest.raises(UserError, match="line 4: same is 'maybe'"):
        read_pairs(file, root)
    file.write_bytes(file.read_bytes().replace(b"maybe", b"yes"))
    assert read_pairs(file, root).second == ("two\nlines.jpg", PICTURES[1])


def test_missing_pictures_are_named_and_their_pairs_left_out(root: Path) -> None:
    content = TWO_FOLDS.replace("Ann\t1\t2", "Ann\t1\t77").replace("12", "77")
    content = content.replace("Ann\t3\t夏子\t1", "Nobody\t1\tAnn\t77")
    pairs = _read(root, content)
    assert pairs.missing == (
        "Ann/Ann_0077.jpg",
        "Nobody/Nobody_0001.jpg",
        "Bob Lee/Bob Lee_0077.jpg",
    )
    assert (pairs.skipped, pairs.same, pairs.fold) == (3, (False,), (1,))
    pairs = _read(
        root,
        "path_a,path_b,same\nAnn/Ann_0001.jpg,Ann,1\nAnn,Ann/Ann_0002.png,1\n"
        "Ann/Ann_0001.jpg,Ann/Ann_0002.png,1\n",
    )
    assert (pairs.missing, pairs.skipped, len(pairs.same)) == (("Ann",), 2, 1)  # a folder


def _lfw(*lines: str) -> str:
    return "\n".join(["1", *lines])


def _csv(*lines: str) -> str:
    return "\n".join(["path_a,path_b,same", "Ann/Ann_0001.jpg,Ann/Ann_0002.png,1", *lines])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("\n \r\n", "is empty"),
        (b"\xff\xfe1\x00", "line 1: is not UTF-8"),
        (TWO_FOLDS.encode().replace(b"12", b"\xe9"), "line 4: is not UTF-8"),
        ("1\nAnn\t1\t2\n\0", "line 3: holds a zero byte"),
        # Neither kind.
        ("10 300\nAnn\t1\t2", "line 1: '10 300' starts no list.*path_a,path_b,same.*10<TAB>300"),
        ("1\t2\t3", "line 1: .* starts no list"),
        ("path_a,path_b\nx,y", "line 1: 'path_a,path_b' starts no list"),
        ("path_a,path_b,same,fold\n", "line 1: .* starts no list"),
        ("0\nAnn\t1\t2", "line 1: '0' must be whole numbers of at least 1"),
        ("2\t0", "line 1: '2.t0' must be whole numbers of at least 1"),
        # LFW.
        (_lfw("Ann 1 2"), r"line 2: 1 field\(s\).*a genuine pair is wanted here: name<TAB>i<TAB>j"),
        (_lfw("Ann\t1\tBob Lee\t2"), r"line 2: 4 field\(s\).*a genuine pair"),
        (_lfw("Ann\t1\t2", "Ann\t1\t3"), r"line 3: 3 field\(s\).*an impostor pair.*name2<TAB>j"),
        (_lfw("", "Ann\t1\t2"), r"line 2: 1 field\(s\)"),
        (_lfw("Ann\t1\tx"), "line 2: 'x' is no picture's number"),
        (_lfw("Ann\t0\t1"), "line 2: '0' is no picture's number"),
        (_lfw("Ann\t-1\t1"), "line 2: '-1' is no picture's number"),
        (_lfw("Ann\t1.5\t1"), "line 2: '1.5' is no picture's number"),
        (_lfw("Ann\t\u0661\t1"), "line 2: '\u0661' is no picture's number"),
        (_lfw("Ann\t" + "9" * 5000 + "\t1"), "line 2: .* is no picture's number"),
        (_lfw("Ann\t1\t1"), "line 2: a picture paired with itself"),
        (_lfw("Ann\t1\t01"), "line 2: a picture paired with itself"),
        (_lfw("Ann\t1\t2", "Ann\t1\tAnn\t3"), "line 3: 'Ann' twice"),
        (_lfw("..\t1\t2"), "line 2: '..' cannot be a person's folder"),
        (_lfw("../x\t1\t2"), "line 2: '../x' cannot be a person's folder"),
        (_lfw("\t1\t2"), "line 2: '' cannot be a person's folder"),
        (_lfw("Ann\t1\t2"), "line 2: the list ends after 1 of 2 pairs; line 1 says 1 genuine"),
        (TWO_FOLDS + "Ann\t1\t3", "line 6: one line too many; line 1 says.*each of 2 folds"),
        ("999999999\t999999999\nAnn\t1\t2", "line 2: the list ends after 1 of"),
        (
            TWO_FOLDS.replace("Bob Lee\t1\t12", "Ann\t2\t1"),
            "line 4: .* are paired on line 2 already",
        ),
        # CSV.
        ("path_a,path_b,same", "no pair follows the header"),
        (_csv("Ann/Ann_0001.jpg,1"), r"line 3: 2 field\(s\), wanted are 3"),
        (_csv("a, b.jpg,Ann/Ann_0001.jpg,1"), r"line 3: 4 field\(s\).*quotes"),
        (_csv("", "a.jpg,b.jpg,1"), r"line 3: 0 field\(s\)"),
        (_csv("a.jpg,b.jpg,2"), "line 3: same is '2'; wanted: 1, 0, true"),
        (_csv("a.jpg,b.jpg,"), "line 3: same is ''"),
        (_csv("a.jpg,,1"), "line 3: an empty path"),
        (_csv("a.jpg,./a.jpg,1"), "line 3: a picture paired with itself"),
        (_csv("/a.jpg,b.jpg,1"), "line 3: '/a.jpg' is absolute"),
        (_csv("C:\\a.jpg,b.jpg,1"), "line 3: .* is absolute"),
        (_csv("../a.jpg,b.jpg,1"), "line 3: '../a.jpg' leaves the root"),
        (_csv("a/../../b.jpg,b.jpg,1"), "line 3: .* leaves the root"),
        (_csv("a.jpg,..\\b.jpg,1"), "line 3: .* leaves the root"),
        (_csv('"a.jpg,b.jpg,1'), "line 3: is no CSV"),
        (_csv('"a"b.jpg,b.jpg,1'), "line 3: is no CSV"),
        (_csv("Ann/Ann_0002.png,Ann/Ann_0001.jpg,0"), "line 3: .* are paired on line 2 already"),
        # Nothing is there.
        ("path_a,path_b,same\nx.jpg,y.jpg,1", "none of its 1 pairs has both pictures .*'x.jpg'"),
    ],
)
def test_malformed_lists_are_refused(root: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        _read(root, content)
    assert "list.anything" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_and_folders_that_are_none_are_refused(root: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_pairs(root / "none.txt", root)
    with pytest.raises(UserError, match="is a folder"):
        read_pairs(root / "Ann", root)
    with pytest.raises(UserError, match="no such folder"):
        read_pairs(root / PICTURES[0], root / "none")
    with pytest.raises(UserError, match="is a file"):
        read_pairs(root / PICTURES[0], root / PICTURES[0])


def test_each_persons_folder_is_listed_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    listed: list[str] = []
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: listed.append(str(path)) or listdir(path))
    _read(root, TWO_FOLDS)
    assert len(listed) == len(set(listed)) == 3


@pytest.mark.real_faces
def test_development_list_of_lfw(real_faces: Path) -> None:
    root = real_faces.parent / "lfw_devtest"
    pairs = read_pairs(root / "pairsDevTest.txt", root)
    assert len(pairs.same) == 1000
    assert pairs.same == (True,) * 500 + (False,) * 500
    assert (pairs.missing, pairs.skipped, pairs.fold) == ((), 0, None)
    assert pairs.first[0] == "Abdullah_Gul/Abdullah_Gul_0013.jpg"
    assert all(
        (one.split("/")[0] == other.split("/")[0]) == same
        for one, other, same in zip(pairs.first, pairs.second, pairs.same, strict=True)
    )
