"""The commands as a user types them: results, Ctrl-C, and bad input in one line."""

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest

from siamese.cli import train as train_command
from siamese.errors import UserError
from siamese.models.checkpoint import read_checkpoint
from tests.forked import Started, run_siamese

Cli = Callable[..., CompletedProcess[str]]

SMALL = (
    *("--backbone", "test_resnet", "--model.pretrained", "false", "--model.embedding_dim", 8),
    *("--size", 32, "--batches.people", 3, "--batches.images", 3, "--split.validation", 2),
    *("--workers", 0, "--trainer.recalibration_batches", 2, "--lr", 1e-2, "--device", "cpu"),
)


@pytest.fixture(scope="module")
def trained_once(
    draw_people: Callable[..., Path], run_cli: Cli, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with `faces` and a finished run named `run` on them."""
    place = tmp_path_factory.mktemp("trained")
    draw_people(place / "faces")
    result = run_cli("train", "--data", "faces", "--name", "run", "--epochs", 2, *SMALL, cwd=place)
    assert result.returncode == 0, result.stderr
    return place


@pytest.fixture
def trained(trained_once: Path, tmp_path: Path) -> Path:
    """A copy of that folder to change."""
    return Path(shutil.copytree(trained_once, tmp_path / "trained"))


@pytest.fixture
def faces(trained: Path) -> Path:
    """The faces of the copy."""
    return trained / "faces"


def _error(result: CompletedProcess[str]) -> str:
    """The one line of a refused command."""
    assert result.returncode == 2, result.stdout + result.stderr
    lines = [line for line in re.split(r"[\r\n]+", result.stderr) if "error:" in line]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    return lines[0]


def test_embed_then_judge_the_file_gives_the_checkpoint_s_figures(
    trained: Path, run_cli: Cli, faces: Path
) -> None:
    embedded = run_cli("eval", "embed", "--data", faces, "--out", "e.npz", cwd=trained)
    assert embedded.returncode == 0, embedded.stderr
    assert "names that were trained on" in embedded.stdout
    with np.load(trained / "e.npz", allow_pickle=False) as file:
        assert file["embeddings"].shape == (36, 8)
        assert file["embeddings"].dtype == np.float32
        assert file["labels"].dtype == np.int64
        assert "夏子" in file["names"]
        assert "夏子/0.png" in file["paths"]
    direct = run_cli("eval", "roc", "--data", faces, "--out", "a", cwd=trained)
    through = run_cli("eval", "roc", "--embeddings", "e.npz", "--out", "b", cwd=trained)
    assert direct.returncode == through.returncode == 0
    a, b = (json.loads((trained / x / "roc.json").read_text("utf-8")) for x in "ab")
    assert a["auc"] == pytest.approx(b["auc"], abs=1e-6)
    assert a["genuine_pairs"] == 6 * 15
    assert a["impostor_pairs"] == 15 * 36
    assert len(a["curve"]["fmr"]) == len(a["curve"]["recall"]) > 50


def test_one_person_against_everybody(trained: Path, run_here: Cli, faces: Path) -> None:
    result = run_here(
        *("eval", "pr", "--data", faces, "--target", "夏子", "--out", "t"), cwd=trained
    )
    assert result.returncode == 0, result.stderr
    judged = json.loads((trained / "t/pr.json").read_text("utf-8"))
    assert (judged["genuine_pairs"], judged["impostor_pairs"]) == (15, 6 * 30)
    assert "missing from font" not in result.stderr
    wrong = run_here("eval", "pr", "--data", faces, "--target", "Bob", cwd=trained)
    assert "did you mean Bob Lee?" in _error(wrong)


def test_evaluation_tells_of_broken_pictures(trained: Path, run_here: Cli, faces: Path) -> None:
    victim = faces / "Ann" / "0.png"
    victim.write_bytes(victim.read_bytes()[:600])
    (faces / "Ann" / "notes.txt").write_text("x")
    result = run_here("eval", "roc", "--data", faces, cwd=trained)
    assert result.returncode == 0, result.stderr
    assert "1 pictures cannot be decoded and are left out: Ann/0.png" in result.stdout
    assert "1 not an image" in result.stdout
    assert "35 images" in result.stdout


def test_moved_faces_are_judged_at_their_new_place(trained: Path, run_here: Cli) -> None:
    (trained / "faces").rename(trained / "moved")
    moved = ("--data", "moved", "--part", "validation", "--flip", "false")  # as training judges
    result = run_here("eval", "roc", *moved, cwd=trained)
    assert result.returncode == 0, result.stderr
    assert "2 identities, 12 images" in result.stdout
    recorded = (trained / "runs/run/metrics.csv").read_text().splitlines()
    column = recorded[0].split(",").index("auc")
    best = max(float(row.split(",")[column]) for row in recorded[1:])
    judged = json.loads((trained / "runs/run/eval-moved-validation/roc.json").read_text("utf-8"))
    assert judged["auc"] == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("eval", "rok"), "did you mean roc?"),
        (("eval", "roc", "--chekpoint", "x"), "did you mean checkpoint?"),
        (("eval", "roc", "--checkpoint", "nowhere.pt"), "no such checkpoint"),
        (("eval", "roc", "--checkpoint", "faces/Ann/1.png"), "not a readable siamese checkpoint"),
        (("eval", "roc", "--part", "test"), "no test people"),
        (("eval", "roc", "--data", "nowhere"), "no such folder"),
        (("eval", "roc", "--embeddings", "nowhere.npz"), "no such file"),
        (("eval", "embed", "--out", "x.csv"), "must end in .npz"),
        (("eval", "roc", "--batch", "0"), "at least 1"),
        (("train", "--resume", "rum"), "runs here: run"),
        (("train", "--resume", "run"), "all 2 epochs are done"),
        (("train", "--resume", "run", "--epochs", "3", "--lr", "1"), "cannot become 1.0"),
        (("train", "--data", "faces", "--name", "run"), "exists already"),
        (("train", "--data", "faces", "--name", "new"), "--model.pretrained false"),
        (("train", "--data", "faces", "--device", "cuda:77"), "no such device"),
        (("data", "demo"), "--out"),
        (("data", "demo", "--out", "faces"), "faces"),
        (("data", "dmo"), "did you mean demo?"),
    ],
)
def test_bad_input_is_one_line_with_the_fix(
    trained: Path, run_here: Cli, arguments: tuple[str, ...], message: str
) -> None:
    before = sorted(str(path) for path in (trained / "faces").rglob("*"))
    assert message in _error(run_here(*arguments, cwd=trained))
    assert sorted(str(path) for path in (trained / "faces").rglob("*")) == before


def test_a_finished_run_goes_on_with_more_epochs(trained: Path, run_here: Cli) -> None:
    result = run_here("train", "--resume", "run", "--epochs", 3, cwd=trained)
    assert result.returncode == 0, result.stderr
    assert (trained / "runs/run/metrics.csv").read_text().count("\n") == 4


def _started(place: Path, *arguments: object, **options: Any) -> Started:
    return Started(run_siamese, "train", *arguments, cwd=place, **options)


@pytest.mark.parametrize(
    ("workers", "sent"), [(0, signal.SIGINT), (2, signal.SIGINT), (2, signal.SIGTERM)]
)
def test_a_stop_saves_and_says_how_to_go_on(
    face_folder: Path, run_cli: Cli, tmp_path: Path, workers: int, sent: signal.Signals
) -> None:
    process = _started(
        tmp_path,
        *("--data", face_folder, "--name", "run", "--epochs", 500, *SMALL, "--workers", workers),
        start_new_session=True,
    )
    for line in process.stdout:
        if line.startswith("epoch 3/"):
            break
    os.killpg(process.pid, sent)  # as a terminal or a service manager does: to the loaders, too
    told = process.stdout.read()
    assert process.wait(timeout=60) == 130
    resume = re.search(r"siamese-train --resume (\S+last\.pt)", told)
    assert resume is not None
    rows = (tmp_path / "runs/run/metrics.csv").read_text().count("\n") - 1
    again = run_cli("train", "--resume", resume.group(1), "--epochs", rows + 2, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    numbers = [row.split(",")[0] for row in (tmp_path / "runs/run/metrics.csv").open()][1:]
    assert numbers == [str(k + 1) for k in range(rows + 2)]


@pytest.mark.parametrize("ignored", [False, True])
def test_a_dropped_connection_saves_the_run_unless_it_was_told_to_go_on(
    face_folder: Path, tmp_path: Path, ignored: bool
) -> None:
    epochs, hang_up = (6, signal.SIG_IGN) if ignored else (500, signal.SIG_DFL)
    terminal, inner = os.openpty()
    process = _started(
        tmp_path,
        *("--data", face_folder, "--name", "run", "--epochs", epochs, "--workers", 0, *SMALL),
        output=inner,
        start_new_session=True,
        # Whatever the tests were started with: under nohup it would be ignored.
        prepare=partial(signal.signal, signal.SIGHUP, hang_up),
    )
    os.close(inner)
    told = b""
    while b"epoch 2/" not in told:
        told += os.read(terminal, 4096)
    process.send_signal(signal.SIGHUP)
    if not ignored:
        os.close(terminal)  # whatever is printed from now on fails
        assert process.wait(timeout=60) == 130
    else:
        with contextlib.suppress(OSError):  # the end of a terminal
            while os.read(terminal, 4096):
                pass
        assert process.wait(timeout=60) == 0
        os.close(terminal)
    progress = read_checkpoint(tmp_path / "checkpoints/run/last.pt")["progress"]
    assert progress["epoch"] == 6 if ignored else 1 <= progress["epoch"] < 500


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew(
    face_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [*("--data", face_folder, "--name", "run", "--workers", 0), *SMALL]
    process = _started(
        tmp_path,
        *arguments,
        *("--epochs", 500, "--batches.images_per_epoch", 100_000),
        start_new_session=True,
    )
    for line in process.stdout:
        if line.startswith("watch:"):
            break
    again = list(map(str, [*arguments, "--epochs", 1]))
    with pytest.raises(UserError, match="another process is at work"):
        train_command._command(again)
    process.kill()
    process.wait()
    assert (tmp_path / "runs/run/settings.yaml").exists()
    train_command._command(again)
    assert (tmp_path / "checkpoints/run/last.pt").exists()


@pytest.mark.parametrize("command", ["train", "eval"])
def test_too_little_memory_is_one_line(command: str, face_folder: Path, tmp_path: Path) -> None:
    # Enough for NumPy, whose OpenBLAS would try for ever, and not for torch.
    limit = 400 * 2**20
    embeddings = np.eye(12, dtype=np.float32)
    np.savez(tmp_path / "e.npz", embeddings=embeddings, labels=np.arange(12) // 3)
    arguments = {
        "train": ["--data", face_folder],
        "eval": ["roc", "--embeddings", tmp_path / "e.npz"],
    }[command]
    result = subprocess.run(
        [sys.executable, "-c", f"from siamese.cli.{command} import main; main()", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert "not enough memory" in _error(result)


def test_demo_faces_are_written_as_an_image_folder(run_cli: Cli, tmp_path: Path) -> None:
    result = run_cli("data", "demo", "--out", "faces", "--people", 3, "--images", 2, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert sorted(p.parent.name for p in (tmp_path / "faces").glob("*/*.jpg")) == [
        name for name in ("demo_001", "demo_002", "demo_003") for _ in range(2)
    ]


def test_help_and_errors_answer_before_torch_could_be_loaded(run_cli: Cli) -> None:
    # A bound on the work, not on the clock: what is imported decides how soon an answer comes.
    code = (
        "import sys, siamese.cli.{0} as c\n"
        "sys.argv = ['x', *{1}]\n"
        "try: c.main()\n"
        "except SystemExit as e: print(e.code, sorted({{'torch', 'numpy'}} & set(sys.modules)))"
    )
    for command, arguments, exit_code in (
        ("train", ["--help"], 0),
        ("train", ["--optimizer.lrr", "1"], 2),
        ("eval", ["--help"], 0),
        ("eval", ["roc", "--help"], 0),
        ("eval", ["roc", "--dta", "x"], 2),
        ("data", ["demo", "--help"], 0),
        ("train", ["--version"], 0),
        ("eval", ["--version"], 0),
        ("eval", ["roc", "--version"], 0),
        ("data", ["check", "--version"], 0),
        ("zoo", ["train", "--version"], 0),
    ):
        result = subprocess.run(
            [sys.executable, "-c", code.format(command, arguments)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert result.stdout.splitlines()[-1] == f"{exit_code} []"
