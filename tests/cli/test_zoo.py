"""`siamese-zoo` as a user types it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Here = Callable[..., Any]

SMALL = (
    *("--data.name", "mnist", "--model", "resnet8", "--model.options", "{width: 4}"),
    *("--batches.size", 32, "--augment.crop", 2, "--augment.flip", 0, "--device", "cpu"),
)


@pytest.fixture
def trained(mnist_root: Path, tmp_path: Path, run_here: Here, monkeypatch: Any) -> Path:
    """A working folder with a finished run named `run`."""
    monkeypatch.chdir(tmp_path)
    done = run_here("zoo", "train", "--root", mnist_root, "--name", "run", "--epochs", 1, *SMALL)
    assert done.returncode == 0, done.stderr
    assert "test: error" in done.stdout
    return tmp_path


def test_train_eval_resume(trained: Path, mnist_root: Path, run_here: Here) -> None:
    done = run_here("zoo", "eval", "--checkpoint", "checkpoints/run/best.pt")
    assert done.returncode == 0, done.stderr
    assert "expected calibration error" in done.stdout
    told = json.loads((trained / "runs/run/test.json").read_text(encoding="utf-8"))
    again = json.loads(
        (trained / "runs/run/eval-test-best/figures.json").read_text(encoding="utf-8")
    )
    assert again["error"] == told["error"]
    refused = run_here("zoo", "resume", "run")
    assert "all 1 epochs are done; raise --epochs" in _error(refused)
    done = run_here("zoo", "resume", "run", "--epochs", 2)
    assert done.returncode == 0, done.stderr
    assert "epoch 2/2" in done.stdout
    saved = yaml.safe_load((trained / "runs/run/settings.yaml").read_text(encoding="utf-8"))
    assert saved["model"] == {
        "name": "resnet8", "options": {"width": 4}, "drop_path": 0.0, "pretrained": False,
    }  # fmt: skip


def test_the_list_is_the_registry(run_here: Here) -> None:
    done = run_here("zoo", "list", "--family", "preact", "--json", "true")
    rows = {row["preset"]: row for row in json.loads(done.stdout)}
    assert rows["preact20"]["parameters"] == 272282
    assert rows["preact20"]["macs"] == 40813184
    assert rows["preact110"]["published_error"] == "6.47 (3)"
    assert rows["preact20"]["published_error"] == "8.28 (1)"
    assert rows["preact20"]["published_recipe"] == "batch 128, lr 0.1, multistep, 200 epochs"
    table = run_here("zoo", "list", "--family", "preact", "--macs", "false").stdout
    assert "preact1001_narrow" in table
    assert "272,282" not in table


def test_the_list_loads_no_torch() -> None:
    code = (
        "import sys; from siamese.cli.zoo import _command; _command(['list']); "
        "assert not {'torch', 'timm'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "813,184" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("trian",), "did you mean train?"),
        (("train", "--model.nam", "x"), "did you mean model.name?"),
        (("train", "--model", "preact21"), "did you mean preact20?"),
        (("train", "--model", "resnet50"), "did you mean timm/resnet50?"),
        (("train", "--augment.mixup", 1, "--augment.ricap", 1), "exclude each other"),
        (("train", "--data.name", "cifar11"), "did you mean cifar10"),
        (("train", "--schedule.name", "cosin"), "did you mean cosine"),
        (("train", "--optimizer", "adma"), "did you mean adam"),
        (("train", "--root", "nowhere", "--data.download", "false"), "nowhere"),
        (("resume",), "give the run's name"),
        (("resume", "nothing"), "no such checkpoint or run"),
        (("eval",), "--checkpoint is missing"),
        (("eval", "--checkpoint", "nothing.pt"), "no such checkpoint"),
        (("eval", "--checkpoint", "nothing.pt", "--batch", 0), "--batch 0: must be at least 1"),
        (("eval", "--checkpoint", "nothing.pt", "--bins", 0), "--bins 0: must be at least 1"),
        (("list", "--family", "vgk"), "the families are densenet"),
        (("augmentations",), "--out is missing"),
        (("compare",), "--study is missing"),
        (("compare", "nothing.yaml"), "nothing.yaml"),
    ],
)
def test_bad_input_is_one_line(
    arguments: tuple[Any, ...], message: str, run_here: Here, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in _error(run_here("zoo", *arguments))
    assert not list(tmp_path.rglob("*.pt"))


def test_a_face_checkpoint_is_no_classifier(trained: Path, run_here: Here) -> None:
    refused = run_here("eval", "roc", "--checkpoint", "checkpoints/run/best.pt")
    assert "its kind is classifier (siamese-zoo train)" in _error(refused)


def _error(result: Any) -> str:
    assert result.returncode == 2, result.stdout + result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    return str(lines[0])
