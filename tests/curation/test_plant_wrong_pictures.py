"""scripts/plant_wrong_pictures.py: what is wrong is what its table says, and nothing else."""

import csv
import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from siamese.data.folder import scan_folder

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Function that runs the script with some arguments."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    script = importlib.import_module("plant_wrong_pictures")

    def run(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["plant_wrong_pictures.py", *map(str, arguments)])
        script.main()

    return run


def rows_of(out: Path) -> list[dict[str, str]]:
    with open(out / "planted.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("listed", [False, True])
def test_the_table_names_every_wrong_picture(
    face_folder: Path, tmp_path: Path, plant: Callable[..., None], listed: bool
) -> None:
    people = sorted(path.name for path in face_folder.iterdir())
    arguments: list[object] = []
    if listed:
        people = people[:4]
        rows = [f"{name}/0.png,{name}" for name in people]
        (tmp_path / "train.csv").write_text("\n".join(["path,person", *rows]), encoding="utf-8")
        arguments = ["--only-people", tmp_path / "train.csv"]
    before = {path: path.read_bytes() for path in face_folder.glob("*/*.png")}
    out = tmp_path / "out"
    plant(face_folder, out, "--share", 0.25, "--seed", 3, *arguments)
    table = rows_of(out)
    assert len(table) == round(0.25 * 6 * len(people))
    found = scan_folder(out / "faces")
    wrong = {row["path"]: row for row in table}
    assert len(found.paths) == len(before) == 36
    assert len({(out / "faces" / path).resolve() for path in found.paths}) == 36
    for path in found.paths:
        source = (out / "faces" / path).resolve().relative_to(face_folder.resolve()).as_posix()
        row = wrong.get(path)
        if row is None:
            assert source == path
            continue
        assert row["source"] == source
        assert row["person"] == path.split("/")[0] != row["owner"] == source.split("/")[0]
        assert {row["person"], row["owner"]} <= set(people)
    assert {path: path.read_bytes() for path in face_folder.glob("*/*.png")} == before
    for seed, alike in ((3, True), (4, False)):
        again = tmp_path / f"again{seed}"
        plant(face_folder, again, "--share", 0.25, "--seed", seed, *arguments)
        assert (rows_of(again) == table) is alike


def test_nothing_is_overwritten_or_written_among_the_faces(
    face_folder: Path,
    tmp_path: Path,
    plant: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "people.csv").write_text("person\nAnn\nnobody\n", encoding="utf-8")
    for arguments, message in (
        ((face_folder, tmp_path), f"{tmp_path}: exists"),
        ((face_folder, face_folder / "new"), "lies inside of"),
        ((tmp_path / "nowhere", tmp_path / "out"), "no such folder"),
        ((face_folder, tmp_path / "out", "--share", 1), "--share 1.0: must be"),
        (
            (face_folder, tmp_path / "out", "--only-people", tmp_path / "people.csv"),
            "1 of its people have no folder",
        ),
    ):
        with pytest.raises(SystemExit) as ended:
            plant(*arguments)
        told = capsys.readouterr().err
        assert ended.value.code == 2
        assert message in told
        assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert not (face_folder / "new").exists()
