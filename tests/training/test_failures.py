"""Runs on machines that fail: one line with the way to go on, and what was there before stays."""

import csv
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from siamese.tasks.classes.class_task import ClassificationTask
from siamese.tasks.faces.face_task import FaceTask
from siamese.training.loop import StepLoss
from tests.runs import full_disk

FACES = (
    "--data", "faces", "--name", "run", "--workers", "0", "--backbone", "test_resnet",
    "--model.pretrained", "false", "--model.embedding_dim", "8", "--size", "32", "--device", "cpu",
    "--batches.people", "3", "--batches.images_per_epoch", "24", "--split.validation", "2",
    "--trainer.recalibration_batches", "1", "--lr", "1e-2", "--trainer.log_every", "1",
)  # fmt: skip
CLASSES = (
    "--data.name", "mnist", "--data.download", "false", "--data.validation", "0.25",
    "--data.subset", "80", "--name", "run", "--device", "cpu", "--model.name", "resnet8",
    "--model.options", "{width: 2}", "--batches.size", "20", "--lr", "0.1",
)  # fmt: skip
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def place(face_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with ``faces`` in it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def trained_once(
    draw_people: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with a run of one epoch."""
    from siamese.cli import train

    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        draw_people(folder / "faces")
        train._command([*FACES, "--epochs", "1"])
    return folder


@pytest.fixture
def trained(trained_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as working folder."""
    shutil.copytree(trained_once, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """What a command said that failed as it should."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


def contents(*folders: Path) -> dict[Path, bytes]:
    """All files of some folders but TensorBoard's, which is added to."""
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    return {file: file.read_bytes() for file in files if "tfevents" not in file.name}


# Full disks: a limit of the system on the size of files stands for them.


def test_a_disk_that_is_full_before_the_first_checkpoint(place: Path, run_here: Run) -> None:
    with full_disk(500_000):
        told = one_line(run_here("train", *FACES, "--epochs", 1))
    assert " checkpoints/run/best.pt: cannot be written (File too large)" in told
    assert told.endswith("; free some space, then start again\n")
    assert not list(place.glob("checkpoints/run/*"))
    assert not list(place.rglob("*.tmp"))
    again = run_here("train", *FACES, "--epochs", 1)
    assert again.returncode == 0, again.stderr
    assert "run was stopped before its first checkpoint: it begins anew" in again.stdout
    with open("runs/run/metrics.csv") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1"]


def test_a_process_on_a_full_disk_ends(place: Path) -> None:
    """TensorBoard's thread neither keeps it nor speaks at its end."""
    code = (
        "import resource, sys; from siamese.cli.train import main\n"
        "sys.dont_write_bytecode = True  # Python keeps what it could write half\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000)); main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *FACES, "--epochs", "1"],
        text=True, capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert " runs/run: cannot be written (File too large)" in one_line(done)


def test_a_disk_that_is_full_when_last_pt_is_written(trained: Path, run_here: Run) -> None:
    before = contents(trained / "checkpoints")
    with full_disk(2**20):
        told = one_line(run_here("train", "--resume", "run", "--epochs", 2))
    assert " checkpoints/run/" in told
    assert ".pt: cannot be written (File too large); what was there before stays as it is" in told
    assert told.endswith("go on with: siamese-train --resume checkpoints/run/last.pt\n")
    assert contents(trained / "checkpoints") == before
    assert not list(trained.rglob("*.tmp"))
    again = run_here("train", "--resume", "run", "--epochs", 2)
    assert again.returncode == 0, again.stderr
    with open("runs/run/metrics.csv") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]


def test_a_disk_that_is_full_when_metrics_are_written(trained: Path, run_here: Run) -> None:
    """The table is larger here than what TensorBoard writes: it has numbers of very many digits."""
    table = trained / "runs/run/metrics.csv"
    head, row = table.read_text().splitlines()
    wide = range(20)
    table.write_text(f"{head},{','.join(map(str, wide))}\n{row}{f',{0:0100000}' * len(wide)}\n")
    before = contents(trained / "checkpoints", trained / "runs")
    with full_disk(2**20):
        told = one_line(run_here("train", "--resume", "run", "--epochs", 2))
    assert " runs/run/metrics.csv: cannot be written (File too large)" in told
    assert told.endswith("go on with: siamese-train --resume checkpoints/run/last.pt\n")
    after = contents(trained / "checkpoints", trained / "runs")
    changed = trained / "runs/run/settings.yaml"  # says how many epochs are wanted now
    assert after.pop(changed) != before.pop(changed)
    assert after == before


def test_a_disk_that_is_full_when_tensorboard_writes(trained: Path, run_here: Run) -> None:
    before = contents(trained / "checkpoints")
    table = (trained / "runs/run/metrics.csv").read_bytes()
    with full_disk(4000):
        told = one_line(run_here("train", "--resume", "run", "--epochs", 2))
    assert " runs/run: cannot be written (File too large)" in told
    assert contents(trained / "checkpoints") == before
    assert (trained / "runs/run/metrics.csv").read_bytes() == table


def test_what_cannot_be_written_at_the_end_leaves_the_training_done(
    trained: Path, run_here: Run
) -> None:
    shutil.rmtree("runs/run/00000")
    Path("runs/run/00000").write_text("in the way of the projector's pictures")
    told = one_line(run_here("train", "--resume", "run", "--epochs", 2))
    assert " runs/run: cannot be written" in told
    assert told.endswith("the training itself is over, its checkpoint is checkpoints/run/best.pt\n")
    assert "all 2 epochs are done" in one_line(run_here("train", "--resume", "run", "--epochs", 2))


def test_a_test_is_kept_until_another_can_be_written(
    mnist_root: Path, place: Path, run_here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = (*CLASSES, "--data.root", mnist_root, "--data.validation", 0)
    assert run_here("zoo", "train", *arguments, "--epochs", 1).returncode == 0
    test = place / "runs/run/test.json"
    first = test.read_text()

    def fail(*_: Any) -> StepLoss:
        raise RuntimeError("could not create a primitive")

    with monkeypatch.context() as patch:
        patch.setattr(ClassificationTask, "step_loss", fail)
        line = one_line(run_here("zoo", "resume", "run", "--epochs", 2))
    assert "not enough memory" in line
    assert "--batches.size and --data.size, in a new run" in line
    assert test.read_text() == first
    test.unlink()
    test.mkdir()  # nothing can be written in its place
    told = one_line(run_here("zoo", "resume", "run", "--epochs", 2))
    assert " runs/run/test.json: cannot be written" in told
    assert told.endswith("the training itself is over, siamese-zoo resume run ends the run\n")
    test.rmdir()
    assert run_here("zoo", "resume", "run").returncode == 0
    assert '"epoch": 2' in test.read_text()
    assert "all 2 epochs are done" in one_line(run_here("zoo", "resume", "run"))


# Too little memory


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError(), "not enough memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "the GPU has not enough"),
    ],
)
def test_memory_that_runs_out_in_a_step(
    trained: Path, run_here: Run, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    def fail(*_: Any) -> StepLoss:
        raise error

    before = contents(trained / "checkpoints")
    monkeypatch.setattr(FaceTask, "step_loss", fail)
    for arguments, way in (
        (("--resume", "run"), "go on with: siamese-train --resume checkpoints/run/last.pt"),
        ((*FACES, "--name", "other"), "start again"),
    ):
        line = one_line(run_here("train", *arguments, "--epochs", 2))
        assert told in line
        assert "--batches.people, --batches.images and --images.size, in a new run" in line
        assert line.endswith(f"; then {way}\n")
    assert contents(trained / "checkpoints") == before


def test_another_error_of_a_step_is_no_lack_of_memory(
    place: Path, run_here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> StepLoss:
        raise RuntimeError("a bug")

    monkeypatch.setattr(FaceTask, "step_loss", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        run_here("train", *FACES, "--epochs", 1)


def test_a_loader_process_that_is_killed(
    place: Path, run_here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, here = Image.open, os.getpid()

    def die(*given: Any, **options: Any) -> Image.Image:
        if os.getpid() != here:
            os.kill(os.getpid(), 9)
        return original(*given, **options)

    monkeypatch.setattr(Image, "open", die)
    line = one_line(run_here("train", *FACES, "--epochs", 1, "--workers", 1))
    assert "a loader process was killed, mostly for want of memory" in line
    assert "workers 0: none" in line


# Too few pictures to judge by


def test_pictures_of_which_none_can_be_decoded(place: Path, run_here: Run) -> None:
    """Their headers are whole, so they are found out when there are no examples to show."""
    for file in (place / "faces").rglob("*.png"):
        file.write_bytes(file.read_bytes()[:60])
    told = one_line(run_here("train", *FACES))
    assert "not one picture of a batch can be decoded" in told


@pytest.mark.parametrize(("validation", "few"), [("0.3", True), ("0", False)])
def test_too_few_validation_images_are_told_at_the_start_at_the_end_and_in_the_log(
    mnist_root: Path, place: Path, run_here: Run, validation: str, few: bool
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    arguments = (*CLASSES, "--data.root", mnist_root, "--data.validation", validation)
    done = run_here("zoo", "train", *arguments, "--epochs", 1)
    assert done.returncode == 0, done.stderr
    note = "24 validation images of 10 classes are too few to say how often errors occur"
    start, end = done.stdout.split("epoch 1/1")
    assert (note in start, note in end) == (few, few)
    log = EventAccumulator("runs/run")
    log.Reload()
    tags = log.Tags()["tensors"]
    assert ("note/text_summary" in tags) == few
    if few:
        kept = log.Tensors("note/text_summary")[0].tensor_proto.string_val[0].decode()
        assert note in kept
