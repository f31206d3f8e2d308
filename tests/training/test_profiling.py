"""A profile of some steps: its trace, its line, and a run that learns what it would without."""

import csv
import json
import re
from pathlib import Path

import pytest

from siamese.config import (
    BatchSettings,
    ImageSettings,
    ModelSettings,
    SplitSettings,
    TrainerSettings,
    TrainSettings,
)
from siamese.tasks.faces.face_runs import train_faces
from siamese.training.profiling import PARTS


def _train(faces: Path, place: Path, profile: bool, pictures: int) -> Path:
    settings = TrainSettings(
        data=str(faces),
        name="run",
        runs=str(place / "runs"),
        checkpoints=str(place / "checkpoints"),
        images=ImageSettings(size=32),
        split=SplitSettings(validation=2),
        batches=BatchSettings(people=2, images=2, images_per_epoch=pictures, workers=0),
        model=ModelSettings("test_resnet", 8, pretrained=False),
        trainer=TrainerSettings(epochs=2, recalibration_batches=1, profile=profile),
    )
    train_faces(settings)
    return place / "runs" / "run"


def test_a_profiled_run_tells_its_parts_and_learns_the_same(
    face_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = []
    for profile in (False, True):
        run = _train(face_folder, tmp_path / str(profile), profile, 40)
        with open(run / "metrics.csv") as file:
            rows.append([{**row, "seconds": ""} for row in csv.DictReader(file)])
    assert rows[0] == rows[1]
    trace = json.loads((run / "trace.json").read_text())
    names = [event.get("name") for event in trace["traceEvents"]]
    assert all(names.count(part) >= 5 for part in PARTS)
    said = capsys.readouterr().out
    found = re.search(r"a step takes ([\d.]+) ms: (.*) \(means of 5 steps\)", said)
    assert found is not None
    parts = dict(part.split(" ") for part in found[2].split(", "))
    assert list(parts) == [*PARTS, "rest"]
    assert sum(map(float, parts.values())) == pytest.approx(float(found[1]), rel=0.02, abs=0.5)
    assert float(parts["forward"]) > float(parts["copy"])
    # On a fast machine a copy takes less than is told of it.
    assert sum(event["dur"] for event in trace["traceEvents"] if event.get("name") == "copy") > 0


def test_a_run_of_few_steps_says_that_it_was_too_short(
    face_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = _train(face_folder, tmp_path, True, 8)
    assert "no profile: it takes 17 steps" in capsys.readouterr().out
    assert not (run / "trace.json").exists()
