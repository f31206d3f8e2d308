"""Pair lists: both kinds as written, every malformed line by its number, missing pictures."""

import csv
import os
import re
from pathlib import Path

import pytest

from siamese.data.pair_lists import PairList, read_known_pairs, read_pairs
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
        ("Ann\t2\t3", "line 1: 'Ann.t2.t3' starts no list.*path_a,path_b,same.*10<TAB>300"),
        ("x,y,z\na,b,1", "line 1: 'x,y,z' starts no list"),
        ("path_a,path_b\nx,y", "line 1: 'path_a,path_b' has no column of the truth"),
        ("img1,img2,distance\nx,y,1", "line 1: .* no column of the truth.*distance is no truth"),
        ("img1,img2,label,same\nx,y,1,1", "line 1: .* several columns that could be meant"),
        ("img1,img2,path_a,path_b,same\n", "line 1: .* several columns that could be meant"),
        ("img1,img2,label\na.jpg,b.jpg,0.73", "line 2: label is '0.73'; .*no truth"),
        ("a.jpg b.jpg 0.73", "line 1: '0.73' is a score or distance, no truth"),
        ("a.jpg b.jpg 1\na.jpg c.jpg 3", "line 2: the last field is '3'; wanted: 1, 0, -1"),
        ("a.jpg b.jpg -1\na.jpg c.jpg 0", "line 2: .* 0 on some lines and -1 on others"),
        ("a.jpg,b.jpg,1\na.jpg,c.jpg", r"line 2: 2 field\(s\), wanted are 3"),
        ("a.jpg b.jpg 1\nc.jpg 1", r"line 2: 2 field\(s\), wanted are 3"),
        ("# nothing\n\n# else", "is empty"),
        ("0\nAnn\t1\t2", "line 1: '0' must be whole numbers of at least 1"),
        ("2\t0", "line 1: '2 0' must be whole numbers of at least 1"),
        # LFW.
        (_lfw("Ann 1"), r"line 2: 2 field\(s\).*a genuine pair is wanted here: name<TAB>i<TAB>j"),
        (_lfw("Ann 1 2", "Ann 1 Bob 2 3 4"), "line 3: spaces leave open where a name ends"),
        (_lfw("Ann 1 2", "Ann Bob 2"), r"line 3: 3 field\(s\); an impostor pair"),
        (_lfw("Ann\t1\tBob Lee\t2"), r"line 2: 4 field\(s\).*a genuine pair"),
        (_lfw("Ann\t1\t2", "Ann\t1\t3"), r"line 3: 3 field\(s\).*an impostor pair.*name2<TAB>j"),
        (_lfw("", "Ann\t1"), r"line 3: 2 field\(s\)"),
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
        (_csv("", "a.jpg,b.jpg"), r"line 4: 2 field\(s\)"),
        (_csv("a.jpg,b.jpg,2"), "line 3: same is '2'; wanted: 1, 0, -1, true"),
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


def test_a_folder_is_listed_once_and_only_when_a_name_is_not_found_as_it_is(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[str] = []
    walk = os.walk
    monkeypatch.setattr(os, "walk", lambda path, **o: listed.append(str(path)) or walk(path, **o))
    _read(root, "Ann/Ann_0001.jpg Ann/Ann_0002.png 1")
    assert listed == []
    _read(root, TWO_FOLDS)
    assert listed == [str(root)]


# Other forms and other spellings.

A, B, C = "Ann/Ann_0001.jpg", "Ann/Ann_0002.png", "夏子/夏子_0002.jpg"


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("content", "told"),
    [
        (f"{A} {B} 1\n{A} {C} 0\n", "no header: picture, picture, truth .*by spaces"),
        (f"{A}\t{B}\t1\n{A}\t{C}\t-1\n", "(1: one person, -1: two), separated by tabs"),
        (f"{A}  {B}\t1\n\n{A} \t{C} -1\n", "separated by spaces"),
        (f"1 {A} {B}\n0 {A} {C}\n", "no header: truth, picture, picture"),
        (f"{A},{B},True\n{A},{C},False\n", "separated by commas"),
        (f"{A};{B};1.0\n{A};{C};0.0\n", "separated by semicolons"),
        (f"# a list\n{A} {B} 1\n # more\n{A} {C} 0\n", "2 lines with # left out"),
        (f"img1,img2,label\n{A},{B},1\n{A},{C},0\n", "img1 and img2 taken as the pictures, label"),
        (f"FILE1\tFILE2\tIsSame\n{A}\t{B}\tSAME\n{A}\t{C}\tDifferent\n", "IsSame as the truth"),
        (f"Image_1;Image_2;is_same\n{A};{B};yes\n{A};{C};no\n", "yes: one person, no: two"),
        (f"path1,path2,target\n{A},{B},1\n{A},{C},-1\n", "-1: two"),
        (f"image1,image2,same\n{A},{B},1\n{A},{C},0\n", "image1 and image2"),
        (f"img1 img2 label\n{A} {B} 1\n{A} {C} 0\n", "img1 and img2"),
        (f"left image,right image,match\n{A},{B},1\n{A},{C},0\n", "left image and right image"),
        (f'id,score,img1,img2,y\n1,0.3,"{A}",{B},1\n2,0.2,{A},"{C}",0\n', "id, score not read"),
        ("1 1\nAnn 1 2\nAnn 1 夏子 2\n", "LFW's list, separated by spaces"),
    ],
)
def test_other_forms(root: Path, content: str, told: str, ending: str) -> None:
    pairs = _read(root, "\ufeff" + content.replace("\n", ending))
    assert (pairs.first, pairs.second, pairs.same) == ((A, A), (B, C), (True, False))
    assert (pairs.fold, pairs.missing) == (None, ())
    assert pairs.taken is not None
    assert "\n" not in pairs.taken
    assert re.search(told, pairs.taken) or told in pairs.taken


def test_the_plain_forms_need_no_word(root: Path) -> None:
    assert _read(root, TWO_FOLDS).taken is None
    assert _read(root, _csv()).taken is None


def test_folds_of_a_table(root: Path) -> None:
    pairs = _read(root, f"img1,img2,label,fold\n{A},{B},1,b\n{A},{C},0,a\n{B},{C},0,b\n")
    assert pairs.fold == (0, 1, 0)
    assert "fold as the fold (2)" in str(pairs.taken)


def test_folds_of_lfw_by_spaces_with_names_that_hold_spaces(root: Path) -> None:
    by_tabs = _read(root, TWO_FOLDS)
    by_spaces = _read(root, TWO_FOLDS.replace("\t", " "))
    assert by_spaces.fold == (0, 0, 1, 1)
    for field in ("first", "second", "same", "fold"):
        assert getattr(by_spaces, field) == getattr(by_tabs, field)


def test_names_with_spaces_in_a_list_by_spaces(root: Path) -> None:
    one, other = "Bob Lee/Bob Lee_0001.jpg", "Bob Lee/Bob Lee_0012.jpg"
    for line in (f"{one} {other} 1", f'"{one}" "{other}" 1', f"1 {one} {other}"):
        pairs = _read(root, line)
        assert (pairs.first, pairs.second, pairs.same) == ((one,), (other,), (True,))
    with pytest.raises(UserError, match=r"line 1: 5 field\(s\), wanted are 3; .*quotes"):
        _read(root, "Bob Lee/x.jpg Bob Lee/y.jpg 1")


@pytest.mark.parametrize(
    ("name", "path", "way"),
    [
        ("Ann/Ann_0001", "Ann/Ann_0001.jpg", "with another suffix"),
        ("Ann/Ann_0001.png", "Ann/Ann_0001.jpg", "with another suffix"),
        ("夏子/夏子_0001.jpg", "夏子/夏子_0001.webp", "with another suffix"),
        ("Cy/Cy_0001.jpg", "Cy/Cy_0001_0.jpg", "aligned"),
        ("Cy/Cy_0001", "Cy/Cy_0001_0.jpg", "aligned"),
        ("Ann_0001.jpg", "Ann/Ann_0001.jpg", "in deeper folders"),
        ("lfw/Ann/Ann_0001.jpg", "Ann/Ann_0001.jpg", "by the end of the path"),
        ("lfw/Cy/Cy_0001.png", "Cy/Cy_0001_0.jpg", "by the end of the path, aligned"),
        ("Ann\\Ann_0001.jpg", "Ann/Ann_0001.jpg", "(Ann"),
        ("Jose\u0301/1.jpg", "Jos\u00e9/1.jpg", "(Jose"),
    ],
)
def test_pictures_under_other_names(root: Path, name: str, path: str, way: str) -> None:
    for extra in ("Cy/Cy_0001_0.jpg", "Jos\u00e9/1.jpg"):
        (root / extra).parent.mkdir(exist_ok=True)
        (root / extra).touch()
    pairs = _read(root, f"path_a,path_b,same\n{name},{C},0")
    assert pairs.first == (path,)
    if not way.startswith("("):
        assert f"1 pictures found {way}" in str(pairs.taken)
        assert f"{name} is {path}" in str(pairs.taken)


def test_names_that_several_pictures_fit_are_refused(root: Path) -> None:
    for extra in ("Cy/Cy_0001_0.jpg", "Cy/Cy_0001_1.jpg", "Di/1.jpg", "Ed/1.jpg", "1.png"):
        (root / extra).parent.mkdir(exist_ok=True)
        (root / extra).touch()
    several = r"line 1: 'Cy/Cy_0001.jpg' may be any of 2: Cy/Cy_0001_0.jpg, Cy/Cy_0001_1.jpg"
    with pytest.raises(UserError, match=several):
        _read(root, f"Cy/Cy_0001.jpg {C} 0")
    with pytest.raises(UserError, match=r"'x/1.jpg' and '1.jpg' would both be .*'1.png'"):
        _read(root, f"1.jpg {C} 0\nx/1.jpg {C} 0")
    (root / "1.png").unlink()
    with pytest.raises(UserError, match=r"'1.jpg' may be any of 2: Di/1.jpg, Ed/1.jpg"):
        _read(root, f"1.jpg {C} 0")


def test_the_first_three_missing_pictures_are_named(root: Path) -> None:
    with pytest.raises(UserError, match=r"not there: 'p.jpg', 'q.jpg', 'r.jpg', \.\.\."):
        _read(root, "p.jpg q.jpg 1\nr.jpg s.jpg 0")


def test_a_link_that_leads_out_of_the_folder_is_refused(root: Path) -> None:
    (root.parent / "private").mkdir()
    (root.parent / "private" / "1.jpg").touch()
    (root / "Ed").symlink_to(root.parent / "private")
    for name in ("Ed/1.jpg", "Ed/1"):
        with pytest.raises(UserError, match=r"'Ed/1.jpg' leads outside"):
            _read(root, f"{name} {C} 0")


def test_pipes_are_never_opened(root: Path) -> None:
    os.mkfifo(root.parent / "pipe")
    os.mkfifo(root / "Ann" / "pipe.jpg")
    with pytest.raises(UserError, match="is a device or pipe"):
        read_pairs(root.parent / "pipe", root)
    with pytest.raises(UserError, match=r"not there: 'Ann/pipe.jpg'"):
        _read(root, f"Ann/pipe.jpg {C} 0")


def test_paths_of_another_system(root: Path) -> None:
    file = root.parent / "list.txt"
    lines = ["2 1", "Ann 1 2", "Ann 1 夏子 2", "Bob Lee 1 2", "Bob Lee 1 Ann 2"]
    file.write_text("\n".join(lines), encoding="utf-8")
    paths = [f"/home/me/lfw/{name}" for name in (A, B)]
    paths += ["C:\\lfw\\夏子\\夏子_0002", "Bob Lee_0001.jpg", "x/Bob Lee/Bob Lee_0002_0.jpg"]
    pairs = read_known_pairs(file, paths, "e.npz")
    assert pairs.first == (paths[0], paths[0], paths[3], paths[3])
    assert pairs.second == (paths[1], paths[2], paths[4], paths[1])
    assert pairs.fold == (0, 0, 1, 1)
    with pytest.raises(UserError, match=r"may be any of 2: a/Ann/Ann_0001.jpg, b/Ann/Ann_0001.jpg"):
        read_known_pairs(file, [f"{at}/Ann/Ann_0001.jpg" for at in "ab"], "e.npz")


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
