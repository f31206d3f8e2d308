"""``clean``: training without an audit's suspects, and whoever judges keeps theirs."""

import csv
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from siamese.cli.train import parse
from siamese.config import TrainSettings
from siamese.curation.moves import Move
from siamese.curation.plans import write_plan
from siamese.data.cleaning import cleaned
from siamese.data.folder import scan_folder
from siamese.data.split import Split, make_split
from siamese.errors import UserError
from siamese.files.writing import write_csv
from siamese.models.checkpoint import read_checkpoint
from siamese.studies.expand import settings_hash
from siamese.tasks.faces.face_runs import resume_training, train_faces
from tests.runs import interrupt_at, same, short_run

COLUMNS = ("rank", "path", "person", "suspicion", "owner", "own_score", "owner_score")


def audit(file: Path, paths: list[str]) -> Path:
    """What siamese-data audit writes."""
    rows = [(at, path, path.split("/")[0], 0.9, "x", 0.1, 0.6) for at, path in enumerate(paths, 1)]
    return write_csv(file, COLUMNS, rows, errors="surrogateescape")


def split_of(faces: Path) -> Split:
    return make_split(scan_folder(faces), validation=2, test=0, seed=0)


@pytest.fixture
def split(face_folder: Path) -> Split:
    return split_of(face_folder)


def paths_of(split: Split, part: str, person: int, number: int) -> list[str]:
    folder = split.parts()[part]
    own = [p for p, label in zip(folder.paths, folder.labels, strict=True) if label == person]
    return own[:number]


def test_suspects_are_left_out_of_training_alone(split: Split, tmp_path: Path) -> None:
    wrong = [*paths_of(split, "train", 0, 2), *paths_of(split, "train", 2, 6)]
    judged = paths_of(split, "validation", 1, 3)
    file = audit(tmp_path / "suspects.csv", [*wrong, *judged, "gone/1.png"])
    found, lines = cleaned(split, file)
    assert found.validation.paths == split.validation.paths
    assert set(found.train.paths) == set(split.train.paths) - set(wrong)
    names = [name for at, name in enumerate(split.train.names) if at != 2]
    assert list(found.train.names) == names
    for path, label in zip(found.train.paths, found.train.labels, strict=True):
        assert path.startswith(f"{names[label]}/")
    assert [item.path for item in found.train.left_out] == sorted(wrong)
    assert lines == [
        f"{file}: 8 pictures of 2 people are left out of training, 1 people have none left",
        "3 others are of validation or test people, who stay whole",
        f"note: 1 others take no part in {split.train.root}: gone/1.png",
    ]


def test_every_form_that_an_audit_writes_is_read(
    tmp_path: Path, draw_people: Callable[..., Path]
) -> None:
    """Names that a spreadsheet would calculate, absolute paths, and the plan."""
    faces = draw_people(tmp_path / "faces", ["=a", "b, c", "d", "e", "f"], images=4)
    split = split_of(faces)
    wrong = [path for path in split.train.paths if path.endswith("/1.png")]
    assert len(wrong) == 3
    files = [audit(tmp_path / "a.csv", wrong)]
    files.append(audit(tmp_path / "b.csv", [str(faces.absolute() / path) for path in wrong]))
    (tmp_path / "link").symlink_to(faces)
    files.append(audit(tmp_path / "c.csv", [str(tmp_path / "link" / path) for path in wrong]))
    files.append(tmp_path / "plan.csv")
    write_plan(files[-1], [Move(path, None) for path in wrong])
    for file in files:
        found = cleaned(split, file)[0]
        assert set(split.train.paths) - set(found.train.paths) == set(wrong), file


def test_what_cannot_be_meant_is_one_line(split: Split, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("path,person\nAnn/0.png,Ann\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"^`clean` .*other\.csv: has no columns path and susp"):
        cleaned(split, other)
    with pytest.raises(UserError, match=r"nowhere\.csv"):
        cleaned(split, tmp_path / "nowhere.csv")
    file = audit(tmp_path / "a.csv", ["x/1.png", "y/2.png"])
    with pytest.raises(UserError, match=r"^`clean` .*a\.csv: not one of its 2 pictures takes part"):
        cleaned(split, file)
    most = [path for at in range(3) for path in paths_of(split, "train", at, 5)]
    with pytest.raises(UserError, match=r"^`clean` .*b\.csv: leaves fewer than 2 training people"):
        cleaned(split, audit(tmp_path / "b.csv", most))
    assert cleaned(split, audit(tmp_path / "c.csv", []))[0].train == split.train
    assert parse(["--data", "faces", "--clean", "a.csv"]).clean == "a.csv"
    file.write_bytes(b"path,suspicion\n/a\0b.png,0.9\n")
    with pytest.raises(UserError, match=r"^`clean` .*a\.csv: holds a NUL byte"):
        cleaned(split, file)


def test_a_table_saved_by_a_spreadsheet_is_read(split: Split, tmp_path: Path) -> None:
    wrong = paths_of(split, "train", 0, 2)
    file = tmp_path / "quoted.csv"
    lines = ['"path","suspicion"', *(f'"{path}","0.9"' for path in wrong)]
    file.write_text("\r\n".join(lines), encoding="utf-8-sig")
    assert set(split.train.paths) - set(cleaned(split, file)[0].train.paths) == set(wrong)


def test_an_edited_table_is_another_run(tmp_path: Path) -> None:
    file = audit(tmp_path / "a.csv", ["x/1.png", "y/2.png"])
    settings = TrainSettings(data="faces", clean=str(file))
    before = settings_hash(settings)
    assert before != settings_hash(replace(settings, clean=None))
    moved = replace(settings, clean=str(shutil.copy(file, tmp_path / "b.csv")))
    assert settings_hash(moved) == before
    audit(file, ["x/1.png"])
    assert settings_hash(settings) != before


def _last(settings: TrainSettings) -> dict[str, Any]:
    return read_checkpoint(Path(settings.checkpoints) / "run" / "last.pt")


@pytest.mark.parametrize("change", ["gone", "other"])
def test_a_run_without_suspects_is_one_on_a_folder_without_them(
    face_folder: Path, split: Split, tmp_path: Path, change: str
) -> None:
    wrong = [*paths_of(split, "train", 0, 2), *paths_of(split, "train", 2, 1)]
    settings = short_run(face_folder, tmp_path / "clean")
    settings.clean = str(audit(tmp_path / "suspects.csv", wrong))
    settings.optimizer.lr = 1e-2
    settings.batches = replace(settings.batches, people=3, images=2, images_per_epoch=12)
    settings.trainer = replace(settings.trainer, epochs=2)
    removed = replace(
        settings,
        data=str(shutil.copytree(face_folder, tmp_path / "removed" / "faces")),
        clean=None,
        runs=str(tmp_path / "removed/runs"),
        checkpoints=str(tmp_path / "removed/checkpoints"),
    )
    for path in wrong:
        os.remove(Path(str(removed.data)) / path)
    train_faces(removed)
    with pytest.MonkeyPatch.context() as patch:
        interrupt_at(patch, "epoch", 1)
        with pytest.raises(KeyboardInterrupt):
            train_faces(settings)
    if change == "gone":
        os.remove(settings.clean)
    else:
        audit(Path(settings.clean), paths_of(split, "train", 1, 3))
    resume_training("run", settings.checkpoints, lambda saved: settings)
    same(_last(removed)["model"], _last(settings)["model"])
    same(_last(removed)["figures"], _last(settings)["figures"])
    part = _last(settings)["split"]
    assert {path for paths in part["train"]["listed"].values() for path in paths} == (
        set(split.train.paths) - set(wrong)
    )
    assert "listed" not in part["validation"]
    report = (Path(settings.runs) / "run" / "data_report.txt").read_text(encoding="utf-8")
    assert all(f"{path}: suspect of " in report for path in wrong)


def test_the_table_is_the_audit_s_own(tmp_path: Path) -> None:
    """The columns above are those that the audit writes."""
    from siamese.curation.audit_page import Audit, write_audit

    nothing = Audit(
        origin="", root=None, other_root=None, people=2, pictures=4, suspects=(), typical={},
        same=(), mixed=(), leaks=(), notes=(), weak=None,
    )  # fmt: skip
    write_audit(tmp_path, nothing, shown=1)
    with open(tmp_path / "suspects.csv", encoding="utf-8", newline="") as file:
        assert tuple(next(csv.reader(file))) == COLUMNS
