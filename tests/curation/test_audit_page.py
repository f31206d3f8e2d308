"""What an audit writes and tells."""

import csv
import os
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from siamese.config import MendSettings
from siamese.curation.audit_page import (
    Audit,
    Leak,
    MixedFolder,
    SamePerson,
    Suspect,
    audit_text,
    write_audit,
)
from siamese.curation.moves import mend_folder, restore
from siamese.curation.plans import read_plan
from siamese.verification.enough import too_weak_to_audit
from tests.report.test_page import Elements

NAMES = ("Ann", "夏子", "横澤夏子", "<script>alert(1)<", "caf\udce9")
COLORS = {name: (40 * at + 40, 255 - 40 * at, 90) for at, name in enumerate(NAMES)}


@pytest.fixture
def faces(tmp_path):
    for name, color in COLORS.items():
        (tmp_path / "faces" / name).mkdir(parents=True)
        for at in range(6):
            Image.new("RGB", (96, 96), color).save(tmp_path / "faces" / name / f"{at}.png")
    return tmp_path / "faces"


def audit_of(root: Path | None) -> Audit:
    return Audit(
        origin="faces, by best.pt",
        root=root,
        other_root=root,
        people=5,
        pictures=30,
        suspects=(
            Suspect("caf\udce9/1.png", "caf\udce9", 0.987654321, "夏子", 0.1, 0.8),
            Suspect("<script>alert(1)</2.png", "<script>alert(1)<", 0.9, None, -0.25, 0.3),
            Suspect("夏子/0.png", "夏子", 0.75, "Ann", 0.4, 0.5),
        ),
        typical={name: tuple(f"{name}/{at}.png" for at in range(4)) for name in NAMES},
        same=(SamePerson("夏子", "横澤夏子", 0.97, 0.6, (("夏子/1.png", "横澤夏子/1.png"),
                                                     ("夏子/1.png", "横澤夏子/2.png"))),),
        mixed=(MixedFolder("Ann", 0.8, ("Ann/0.png", "Ann/1.png", "Ann/2.png"), ("Ann/3.png",)),),
        leaks=(Leak("file", "Ann/0.png", "Ann/1.png", 1.0), Leak("name", "夏子", "夏子", 0.9)),
        notes=("The model is weak.",),
    )  # fmt: skip


def rows_of(path: Path) -> list[list[str]]:
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.reader(file))


def test_tables_hold_every_finding_and_names_keep_their_bytes(faces, tmp_path):
    out = tmp_path / "out"
    files = write_audit(out, audit_of(faces), shown=2)
    assert [str(file.relative_to(out)) for file in files] == [
        "suspects.csv", "same_person.csv", "mixed.csv", "leaks.csv", "plans/suspects.csv",
        "audit.html",
    ]  # fmt: skip
    assert all(file.is_file() for file in files)
    assert rows_of(out / "suspects.csv") == [
        ["rank", "path", "person", "suspicion", "owner", "own_score", "owner_score"],
        ["1", "caf\udce9/1.png", "caf\udce9", "0.987654", "夏子", "0.100000", "0.800000"],
        ["2", "<script>alert(1)</2.png", "<script>alert(1)<", "0.900000", "", "-0.250000",
         "0.300000"],
        ["3", "夏子/0.png", "夏子", "0.750000", "Ann", "0.400000", "0.500000"],
    ]  # fmt: skip
    assert rows_of(out / "same_person.csv") == [
        ["first", "second", "probability", "score"], ["夏子", "横澤夏子", "0.970000", "0.600000"],
    ]  # fmt: skip
    assert rows_of(out / "mixed.csv") == [
        ["person", "probability", "pictures", "other_pictures", "example", "other_example"],
        ["Ann", "0.800000", "3", "1", "Ann/0.png", "Ann/3.png"],
    ]
    assert rows_of(out / "leaks.csv") == [
        ["kind", "first", "second", "score"], ["file", "Ann/0.png", "Ann/1.png", "1.000000"],
        ["name", "夏子", "夏子", "0.900000"],
    ]  # fmt: skip


def test_the_plan_takes_out_all_suspects_and_can_be_undone(faces, tmp_path):
    audit = audit_of(faces)
    # As a path, "<script>alert(1)</2.png" is the file 2.png in the folder of that name.
    write_audit(tmp_path / "out", audit, shown=1)
    moves = read_plan(tmp_path / "out" / "plans" / "suspects.csv")
    assert [(move.path, move.to) for move in moves] == [(s.path, None) for s in audit.suspects]
    text = audit_text(audit, tmp_path / "out")
    (command,) = [line for line in text.splitlines() if "siamese-data mend" in line]
    words = shlex.split(command.removeprefix("next: "))
    assert words[:2] == ["siamese-data", "mend"]
    done = mend_folder(MendSettings(data=words[2], plan=words[4]))
    assert done.taken_out == 3
    assert not (faces / "夏子" / "0.png").exists()
    restore(done.manifest)
    assert (faces / "夏子" / "0.png").exists()


def test_the_page_shows_suspects_beside_typical_faces(faces, tmp_path):
    write_audit(tmp_path, audit_of(faces), shown=60)
    html = (tmp_path / "audit.html").read_text("utf-8")
    page = Elements(html)
    assert page.open == []
    assert "<script>alert" not in html
    text = " ".join(page.text.split())
    for part in (
        "Wrong pictures inside a folder", "One person under two names", "Two people under one name",
        "In both folders", "suspicion 99%", "looks most like \u2068夏子\u2069", "looks like nobody",
        "typical of \u2068caf\\udce9\u2069", "\u2068夏子\u2069 = \u2068横澤夏子\u2069",
        "probability 97%", "1 other picture", "same file", "same name", "The model is weak.",
        "a weak model misses many", "3 suspicious pictures", "siamese-data mend",
        "siamese-data split",
    ):  # fmt: skip
        assert part in text, part
    # Suspects: 1 + 3 (its own typical but itself) + 4; 1 + 3; 1 + 3 + 4. Pairs: 1 + 2. Two in one:
    # 3 + 1. Leaks: 2, and 4 + 4 of a person.
    expected = (1 + 3 + 4) + (1 + 3) + (1 + 3 + 4) + (1 + 2) + (3 + 1) + 2 + (4 + 4)
    assert [tag for tag, _ in page.found].count("img") == expected


def test_shown_limits_the_pictures_only(faces, tmp_path):
    write_audit(tmp_path, audit_of(faces), shown=1)
    page = Elements((tmp_path / "audit.html").read_text("utf-8"))
    assert [tag for tag, _ in page.found].count("img") == 8 + 3 + 4 + 2
    assert "夏子/0.png" in page.text  # in the list


def test_nothing_found_is_said(faces, tmp_path):
    nothing = replace(
        audit_of(faces), suspects=(), same=(), mixed=(), leaks=(), other_root=None, notes=()
    )
    write_audit(tmp_path, nothing, shown=60)
    for name in ("suspects", "same_person", "mixed", "leaks", "plans/suspects"):
        assert len(rows_of(tmp_path / f"{name}.csv")) == 1
    page = Elements((tmp_path / "audit.html").read_text("utf-8"))
    assert page.text.count("Nothing found.") == 3
    assert "In both folders" not in page.text
    assert "siamese-data" not in page.text
    text = audit_text(nothing, tmp_path)
    assert "0 suspicious pictures" in text
    assert "next:" not in text


def test_nothing_in_the_other_folder_is_said(faces, tmp_path):
    write_audit(tmp_path, replace(audit_of(faces), leaks=()), shown=60)
    page = Elements((tmp_path / "audit.html").read_text("utf-8"))
    assert "In both folders" in page.text
    assert page.text.count("Nothing found.") == 1


def test_embeddings_alone_have_lists_and_no_pictures(tmp_path):
    audit = replace(audit_of(None), other_root=None)
    write_audit(tmp_path, audit, shown=60)
    page = Elements((tmp_path / "audit.html").read_text("utf-8"))
    assert not {"img"} & {tag for tag, _ in page.found}
    assert "not available" not in page.text
    assert "0.970" in page.text
    assert "siamese-data mend" not in page.text + audit_text(audit, tmp_path)
    assert len(rows_of(tmp_path / "plans" / "suspects.csv")) == 4


def test_pictures_that_are_gone_leave_a_place(faces, tmp_path):
    audit = audit_of(faces)
    for name in NAMES:
        for file in (faces / name).iterdir():
            file.unlink()
    write_audit(tmp_path / "out", audit, shown=60)
    page = Elements((tmp_path / "out" / "audit.html").read_text("utf-8"))
    assert page.text.count("not available") > 20


def test_the_text_tells_the_first_few_and_what_to_do(faces, tmp_path):
    audit = audit_of(faces)
    many = replace(audit, suspects=audit.suspects * 3)
    write_audit(tmp_path / "a b", many, shown=1)
    text = audit_text(many, tmp_path / "a b")
    lines = text.splitlines()
    assert lines[0] == "faces, by best.pt"
    assert "9 suspicious pictures" in lines[1]
    assert "  0.988  $'caf\\351/1.png'  looks like 夏子" in lines
    assert "  and 4 more" in lines
    assert "  0.800  Ann: 3 + 1 pictures" in lines
    assert "  1.000  same file: Ann/0.png = Ann/1.png" in lines
    assert "The model is weak." in lines
    assert f"look: '{tmp_path}/a b/audit.html'" in lines
    assert lines[-2:] == [
        f"next: siamese-data mend {faces} --plan '{tmp_path}/a b/plans/suspects.csv'",
        f"next: siamese-data split {faces} --merge '{tmp_path}/a b/same_person.csv'",
    ]
    text.encode()


def test_what_was_there_is_replaced(faces, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "suspects.csv").write_text("old")
    write_audit(tmp_path / "out", audit_of(faces), shown=1)
    assert len(rows_of(tmp_path / "out" / "suspects.csv")) == 4
    assert not [name for name in os.listdir(tmp_path / "out") if name.startswith(".")]


@pytest.mark.parametrize(("auc", "moved"), [(0.63, False), (0.7499, False), (0.75, True)])
def test_a_weak_model_proposes_no_move(faces, tmp_path, auc, moved):
    audit = replace(audit_of(faces), weak=too_weak_to_audit(auc))
    write_audit(tmp_path, audit, shown=2)
    told = audit_text(audit, tmp_path)
    assert ("siamese-data mend" in told) == moved
    assert ("siamese-data mend" in (tmp_path / "audit.html").read_text("utf-8")) == moved
    assert ("next: no move; the model is too weak" in told) != moved
    assert ("train longer or on more people" in told) != moved
