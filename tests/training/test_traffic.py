"""What processes send in a step: every gradient once, of class weights no matrix."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "count_traffic.py"
PICTURES, DIMENSION = 8, 16


def test_what_two_processes_send() -> None:
    arguments = ["--backbone", "test_resnet", "--people", "4", "--images", "2", "--classes", "20"]
    arguments += ["--embedding_dim", str(DIMENSION), "--processes", "2"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    title, head, *rest = done.stdout.splitlines()
    parameters = int(title.split()[1].replace(",", ""))
    names = head.split(" | ")
    assert [line.split(" | ")[0] for line in rest[:2]] == ["triplet", "arcface"]
    for line in rest[:2]:
        loss, *cells = line.split(" | ")
        row = dict(zip(names[1:], (int(cell.replace(",", "")) for cell in cells), strict=True))
        assert row["gradients"] == 4 * parameters
        # half of the rows and labels, and how many they are
        half = PICTURES // 2
        assert row["embeddings, labels"] == 4 * half * DIMENSION + 8 * half + 2 * 8
        # log-sum-exps and own logits of all pictures, and the gradient of their embeddings
        sums = 4 * PICTURES * (2 + DIMENSION) if loss == "arcface" else 0
        assert row["class weights"] == sums
        # two processes in a ring send each number once; gloo adds some words to each operation
        asked = sum(row[name] for name in names[2:-1])
        assert row["written"] == pytest.approx(asked, rel=0.01)
    predictions = [line for line in rest if "GPUs" in line]
    assert len(predictions) == 4
    assert rest[2].startswith("prediction, not measured")
