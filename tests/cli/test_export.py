"""siamese-use export, and the commands that take what it writes."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.runs import train_small

RUN = "checkpoints/run/best.pt"


@pytest.fixture(scope="module")
def once(draw_people: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run and its exports, people included."""
    place = tmp_path_factory.mktemp("used")
    draw_people(place / "faces", [f"人{person} x" for person in range(16)], images=5)
    train_small(place, 8)
    return place


@pytest.fixture
def place(once, monkeypatch):
    monkeypatch.chdir(once)
    return once


def _told(result):
    assert (result.returncode, result.stdout.count("Traceback")) == (2, 0), result.stdout
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_an_export_is_judged_as_its_checkpoint(place, run_here):
    options = ("--people", "--workers", "0", "--checkpoint", RUN)
    told = run_here("use", "export", *options)
    assert told.returncode == 0, told.stderr
    lines = told.stdout.splitlines()
    assert lines.pop(0).startswith("note: the model averages each embedding with that of")
    assert lines[0] == f"exporting {RUN} (onnx) takes some seconds"
    assert lines[1].startswith(f"checked on 40 pictures of {place / 'faces'}: largest difference ")
    assert float(lines[1].split()[-1]) < 1e-4
    assert lines[3].startswith("wrote checkpoints/run/best.onnx (1.5 MB)")
    told = run_here("use", "export", *options, "--to", "safetensors")
    assert told.stdout.splitlines()[0] == lines[2]  # the fingerprint
    figures = {}
    for name in ("best.pt", "best.onnx", "best.safetensors"):
        path = f"checkpoints/run/{name}"
        judged = run_here(
            "eval", "roc", "--checkpoint", path, "--workers", 0, "--device", "cpu", "--out", name
        )
        assert judged.returncode == 0, judged.stderr
        content = json.loads((place / name / "roc.json").read_text())
        figures[name] = [content[key] for key in ("auc", "ap", "eer", "images", "genuine_pairs")]
        figures[name] += content["intervals"]["auc"]
    assert figures["best.safetensors"] == figures["best.pt"]
    assert figures["best.onnx"] == pytest.approx(figures["best.pt"], abs=1e-4)
    compared = run_here(
        "eval", "compare", RUN, "checkpoints/run/best.onnx", "--workers", 0, "--device", "cpu"
    )
    assert compared.returncode == 0, compared.stderr


@pytest.mark.parametrize("name", ["best.onnx", "best.safetensors"])
def test_what_an_exported_model_cannot_do_is_one_line(place, run_here, name):
    path = f"checkpoints/run/{name}"
    if not os.path.exists(path):
        run_here("use", "export", "--people", "--to", name[5:], "--workers", 0)
    told = _told(run_here("eval", "threshold", "--checkpoint", path, "--target-fmr", "0.2"))
    assert "choose it for the checkpoint and export again (--write false only shows it)" in told
    shown = run_here(
        *("eval", "threshold", "--checkpoint", path, "--target-fmr", "0.2", "--write", "false"),
        *("--workers", 0, "--device", "cpu", "--out", "threshold"),
    )
    assert shown.returncode == 0, shown.stderr
    folds = ("--folds", 2, "--target-fmr", "0.2")
    told = _told(run_here("eval", "threshold", "--checkpoint", path, *folds, "--write", "false"))
    assert "does not say how it was trained; give --folds the checkpoint" in told
    told = _told(run_here("train", "--resume", path))
    assert "an exported model has no optimizer" in told


def test_errors_are_one_line(place, run_here, monkeypatch):
    told = _told(run_here("use", "export", "--out", "x.pt"))
    assert told == "siamese-use: error: --out x.pt: the file's name must end in .onnx\n"
    assert "--data nowhere: no such folder" in _told(run_here("use", "export", "--data", "nowhere"))
    assert "did you mean export?" in _told(run_here("use", "exprt"))
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    told = _told(run_here("use", "export", "--checkpoint", RUN))
    assert told.startswith("siamese-use: error: --to onnx: needs the library onnxscript, ")
    assert told.endswith("pip install 'siamese[onnx]'\n")
