"""``siamese-eval`` in several processes gives what it gives in one, bit for bit."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from siamese.cli.eval import _command
from siamese.config import TrainSettings
from siamese.demo.demo_faces import write_demo_faces
from siamese.tasks.faces.face_runs import train_faces
from tests.forked import in_processes

COMMANDS = [
    ["roc", "--out", "roc"],
    ["pr", "--resamples", "0", "--out", "pr"],
    ["people", "--out", "people"],
    ["identify", "--out", "identify"],
    ["compare", "checkpoints/run/best.pt", "checkpoints/run/last.pt", "--out", "compare"],
    ["embed", "--cache", "cache", "--out", "e.npz"],
    ["embed", "--out", "rows.npy"],
]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 16 people of 6 pictures, one broken, and an embedder."""
    place = tmp_path_factory.mktemp("together")
    faces = write_demo_faces(place / "faces", 16, 6, 32, 0)
    made = TrainSettings(data=str(faces), name="run", device="cpu")
    made.runs, made.checkpoints = str(place / "runs"), str(place / "checkpoints")
    made.images.size = 32
    made.model.backbone, made.model.pretrained, made.model.embedding_dim = "test_resnet", False, 8
    made.batches.workers, made.trainer.epochs, made.split.validation = 0, 1, 4
    train_faces(made)
    return place


def _content(place: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in sorted(place.glob("[!fc]*/*.json")) + sorted(place.glob("compare/*.json")):
        found[path.name] = json.loads(path.read_text())
        for name in ("settings", "written"):
            del found[path.name][name]
    found |= {path.name: path.read_text() for path in place.glob("people/*.csv")}
    with np.load(place / "e.npz") as npz:
        found |= {name: npz[name].tobytes() for name in npz.files}
    return found | {"rows": np.load(place / "rows.npy").tobytes()}


def _judge(lines: list[list[str]]) -> None:
    for words in lines:
        _command(words)


def test_three_processes_judge_as_one(place: Path) -> None:
    """Batches of 5 pictures, so that the last is short and one process has one batch more."""
    results = []
    for number in (1, 3):
        out = place / str(number)
        out.mkdir()
        for name in ("faces", "checkpoints"):
            (out / name).symlink_to(place / name)
        common = ["--data", "faces", "--device", "cpu", "--workers", "0", "--batch", "5"]
        model = ["--checkpoint", "checkpoints/run/best.pt"]
        lines = [[*words, *common, *([] if words[0] == "compare" else model)] for words in COMMANDS]
        printed = in_processes(number, _judge, lines, cwd=out)
        results.append((_content(out), printed))
    (alone, alone_printed), (together, printed) = results
    assert {"roc.json", "pr.json", "compare.json", "embeddings", "rows"} <= alone.keys()
    for name in alone:
        assert together[name] == alone[name], name
    assert printed == alone_printed


def test_an_error_ends_all_with_one_line(place: Path) -> None:
    broken = place / "none"
    for person in ("a", "b"):
        (broken / person).mkdir(parents=True)
        (broken / person / "1.jpg").write_bytes((place / "faces/.demo.json").read_bytes())
    words = ["-m", "siamese.cli.eval", "roc", "none", "--checkpoint", "checkpoints/run/best.pt"]
    done = subprocess.run(
        [sys.executable, *TORCHRUN, *words],
        cwd=place, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode
    lines = [line for line in done.stderr.splitlines() if line.startswith("siamese-eval: error: ")]
    assert len(lines) == 1
    assert "none" in lines[0]
    assert "siamese/report" not in done.stderr  # no traceback
