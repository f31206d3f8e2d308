"""Real faces: a short run from random weights must beat chance on people it never saw."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.mark.real_faces
def test_a_short_training_beats_chance_on_unseen_people(
    real_faces: Path, tmp_path: Path, run_cli: Callable[..., CompletedProcess[str]]
) -> None:
    config = REPOSITORY / "configs/face/from_scratch.yaml"
    trained = run_cli(
        *("train", "--config", config, "--data", real_faces, "--name", "short"),
        *("--backbone", "test_resnet", "--epochs", 1, "--batches.images_per_epoch", 9600),
        cwd=tmp_path,
        timeout=900,
    )
    assert trained.returncode == 0, trained.stderr
    judged = run_cli("eval", "roc", "--part", "test", cwd=tmp_path)
    assert judged.returncode == 0, judged.stderr
    result = json.loads((tmp_path / "runs/short/eval-test/roc.json").read_text(encoding="utf-8"))
    assert result["identities"] == 10
    assert result["auc"] > 0.6  # 0.66 to 0.69 with three seeds
    assert result["genuine_mean"] > result["impostor_mean"]
