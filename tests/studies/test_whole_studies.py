"""Small studies of both tasks, trained for real from the command line to the table."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CLASSES = """
title: Two learning rates
settings:
  data: {name: mnist, validation: 0}
  augment: {crop: 2, flip: 0}
  batches.size: 32
  model: {name: resnet8, options: {width: 8}}
  optimizer.nesterov: false
  schedule.name: constant
  trainer: {epochs: 6, test_curve: true}
seeds: [0, 1]
runs:
  - {label: usual, settings: {optimizer.lr: 0.1}, published: 0.4, published_runs: 3}
  - {label: far too low, settings: {optimizer.lr: 1e-6}}
  - {label: breaks, settings: {optimizer.lr: 1e30}}
"""
FACES = """
title: Two optimizers on faces
task: face
settings:
  images.size: 32
  split: {validation: 2, test: 2, seed: 0}
  batches: {people: 2, images: 3, workers: 0}
  model: {backbone: zoo/resnet8, embedding_dim: 8, pretrained: false}
  trainer: {epochs: 2, test_curve: true, recalibration_batches: 2}
seeds: [0, 1]
runs:
  - {label: schedule-free, settings: {optimizer.lr: 1e-2}}
  - {label: AdamW, settings: {optimizer.name: adamw, optimizer.lr: 1e-3}}
"""


def _rows(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_study_of_classifiers(
    mnist_root: Path, tmp_path: Path, run_here: Callable[..., Any], monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("two.yaml").write_text(CLASSES, encoding="utf-8")
    command = ("zoo", "compare", "two.yaml", "--root", mnist_root, "--device", "cpu")
    done = run_here(*command)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "runs/studies/two"
    told = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    usual, low, broken = told["lines"]
    assert (usual["n"], low["n"], broken["n"], broken["diverged"]) == (2, 2, 0, 2)
    # The last epoch's test error of each run, as the run's own test says it.
    for name, value in zip(usual["runs"], usual["values"].values(), strict=True):
        tested = json.loads((tmp_path / "runs" / name / "test.json").read_text(encoding="utf-8"))
        assert tested["error"] == pytest.approx(value)
    assert usual["median"] < 40 < low["median"]
    rows = _rows(out / "results.csv")
    assert len({(row["run"], row["seed"]) for row in rows if row["epoch"] == "6"}) == 4
    table = (out / "table.md").read_text(encoding="utf-8")
    assert "0.4" in table
    assert "diverged" in table
    assert (out / "table.html").exists()
    assert list((out / "plots").glob("*.png"))
    again = run_here(*command)
    assert "6 runs: 6 over already, 0 begun, 0 to do" in again.stdout


def test_a_study_of_faces(
    draw_people: Callable[..., Path],
    tmp_path: Path,
    run_here: Callable[..., Any],
    monkeypatch: Any,
) -> None:
    monkeypatch.chdir(tmp_path)
    draw_people(tmp_path / "faces", names=[f"p{number}" for number in range(8)])
    Path("two.yaml").write_text(FACES, encoding="utf-8")
    done = run_here("zoo", "compare", "two.yaml", "--data", "faces", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    out = tmp_path / "runs/studies/two"
    told = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert told["figure"] == "test_auc"
    for line in told["lines"]:
        assert line["n"] == 2
        for name, value in zip(line["runs"], line["values"].values(), strict=True):
            rows = _rows(tmp_path / "runs" / name / "metrics.csv")
            chosen = max(rows, key=lambda row: float(row["auc"]))  # validation chooses the epoch
            assert value == pytest.approx(float(chosen["test_auc"]))
