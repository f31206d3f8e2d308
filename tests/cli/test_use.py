"""siamese-use: exit statuses, what is printed, and what is refused."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest

from siamese.models.checkpoint import update_checkpoint
from siamese.verification.calibration import Calibration
from siamese.verification.decision import Decision
from tests.runs import write_random_model

Run = Callable[..., CompletedProcess[str]]


@pytest.fixture
def place(tmp_path: Path, face_folder: Path) -> Path:
    """A folder with faces/ and a random model in checkpoints/run."""
    write_random_model(tmp_path / "checkpoints" / "run" / "best.pt")
    return tmp_path


@pytest.fixture
def use(run_here: Run, place: Path) -> Run:
    return lambda *arguments: run_here("use", *arguments, cwd=place)


def _choose(place: Path, threshold: float) -> None:
    chosen = {"origin": "ten people", "fmr": 0.01, "fmr_interval": [0.001, 0.02]}
    decision = Decision(threshold, 0.01, Calibration(4.0, -2.0), False, chosen)
    path = place / "checkpoints" / "run" / "best.pt"
    update_checkpoint(path, "decision", decision.as_dict())


def test_verify_answers_by_its_exit_status(use: Run, place: Path) -> None:
    pair = "faces/Ann/0.png", "faces/Ann/1.png"
    unknown = use("verify", *pair)
    assert unknown.returncode == 2
    assert "siamese-eval threshold --checkpoint" in unknown.stderr
    assert unknown.stdout.startswith("score ")
    score = json.loads(use("verify", *pair, "--json").stdout)["score"]
    for threshold, status, verdict in ((-1.0, 0, "the same"), (score + 1e-3, 1, "not the same")):
        _choose(place, threshold)
        found = use("verify", *pair, "--prior", "0.1")
        assert found.returncode == status
        lines = found.stdout.splitlines()
        assert lines[1].startswith(f"{verdict} person (threshold {threshold:.4f}, chosen for FMR")
        assert "ten people: FMR 1.00e-02 [1.00e-03, 2.00e-02]" in lines[1]
        assert lines[2].endswith("at prior 0.1")
    assert use("verify", *pair, "--threshold", "0.999999").returncode == 1
    assert json.loads(use("verify", *pair, "--json").stdout)["same"] is False


def test_verify_names_what_it_cannot_use(use: Run, place: Path) -> None:
    (place / "broken.png").write_bytes((place / "faces/Ann/0.png").read_bytes()[:200])
    for arguments, words in (
        (("faces/Ann/0.png", "broken.png"), "broken.png"),
        (("faces/Ann/0.png", "none.png"), "none.png: no such file"),
        (("faces/Ann/0.png",), "two pictures are needed"),
        (("faces/Ann/0.png", "faces/Ann/1.png", "--prior", "1"), "--prior"),
        (
            ("faces/Ann/0.png", "faces/Ann/1.png", "--checkpoint", "none"),
            "none: no such checkpoint",
        ),
    ):
        found = use("verify", *arguments)
        assert found.returncode == 2
        assert words in found.stderr
        assert found.stderr.count("\n") == 1


def test_verify_takes_folders_and_lists(use: Run, place: Path) -> None:
    _choose(place, -1.0)
    both = use("verify", "faces/Ann", "faces/夏子", "--out", "pairs.csv")
    assert both.returncode == 0
    assert "36 pairs" in both.stdout
    with open(place / "pairs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 36
    again = use("verify", "--pairs", "pairs.csv", "--json")
    assert [row["score"] for row in json.loads(again.stdout)] == pytest.approx(
        [float(row["score"]) for row in rows], abs=1e-6
    )
    (place / "two.txt").write_text("Ann/0.png Ann/1.png\nAnn/0.png dora/1.png\n")
    (place / "three.txt").write_text("Ann/0.png Ann/1.png 1\nAnn/0.png dora/1.png 0\n")
    answers = [
        use("verify", "--pairs", name, "--data", "faces", "--json").stdout
        for name in ("two.txt", "three.txt")
    ]
    assert len(json.loads(answers[0])) == 2
    assert answers[0] == answers[1]


def test_from_a_folder_to_names(use: Run, place: Path) -> None:
    _choose(place, 0.9999)
    assert "6 people: 36 pictures enrolled" in use("enroll", "faces").stdout
    found = use("identify", "faces/夏子/0.png", "faces/Ann", "--top", "2", "--out", "who.csv")
    assert found.returncode == 0
    assert "faces/夏子/0.png: 夏子" in found.stdout
    with open(place / "who.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 14
    assert {row["known"] for row in rows if row["path"].startswith("faces/Ann")} == {"Ann"}
    nobody = use("identify", "faces/Ann/0.png", "--threshold", "1.5")
    assert "nobody known" in nobody.stdout
    listed = json.loads(use("people", "--json").stdout)
    assert {one["name"]: one["pictures"] for one in listed}["Bob Lee"] == 6
    stored = json.loads(use("export-person", "Bob Lee").stdout)
    assert len(stored["pictures"]) == 6
    assert use("forget", "Bob Lee", "Ann").returncode == 0
    assert "4 people, 24 pictures" in use("people").stdout
    added = use("enroll", "--name", "New one", "faces/Ann/0.png", "faces/Ann/1.png")
    assert "1 people: 2 pictures enrolled" in added.stdout
    assert use("migrate", "--to", "other.db").stdout.startswith("copied 26 pictures")
    assert "5 people" in use("people", "--gallery", "other.db").stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("identify", "faces/Ann/0.png"), "no such gallery"),
        (("people",), "no such gallery"),
        (("enroll", "faces/Ann/0.png"), "--name"),
        (("enroll", "--name", "Ann"), "--name"),
        (("identify",), "give the pictures"),
        (("forget",), "no such gallery"),
        (("export-person",), "--name is missing"),
        (("people", "--gallery", "mysql://here"), "--gallery mysql://here: give a file"),
        (("people", "--gallery", "faces"), "--gallery faces: is no file"),
        (("identfy",), "did you mean identify?"),
    ],
)
def test_what_cannot_work_is_one_line(use: Run, arguments: tuple[str, ...], words: str) -> None:
    found = use(*arguments)
    assert found.returncode == 2
    assert words in found.stderr
    assert found.stderr.count("\n") == 1


def test_names_of_files_do_not_steer_the_terminal(use: Run, place: Path) -> None:
    _choose(place, -1.0)
    odd = place / "faces" / "Ann" / "\x1b[31mred.png"
    odd.write_bytes((place / "faces/Ann/0.png").read_bytes())
    assert "\x1b" not in use("verify", odd, "faces/Ann").stdout


def test_many_pictures_are_no_longer_than_a_value(use: Run, place: Path) -> None:
    use("enroll", "faces")
    many = ["faces/Ann/0.png"] * 400
    found = use("identify", *many, "--top", "1", "--json")
    assert len(json.loads(found.stdout)) == 400
    assert np.unique([one["candidates"][0]["name"] for one in json.loads(found.stdout)]) == ["Ann"]
