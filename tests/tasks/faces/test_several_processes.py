"""Faces in two processes: the run is that of one, where no batch norm sees half a batch."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import yaml

from siamese.config import TrainSettings
from siamese.data.decode import DecodeError
from siamese.data.folder import FaceFolder
from siamese.data.split import Split
from siamese.models.checkpoint import read_checkpoint
from siamese.models.embedder import SiameseEmbedder
from siamese.tasks.faces.face_runs import resume_training, train_faces
from siamese.tasks.faces.face_task import FaceTask
from siamese.tasks.faces.metric_losses import MetricLoss
from siamese.training import launch
from siamese.training.distribution import joined
from tests.forked import in_processes, run_siamese

TRANSFORMER = "test_vit"  # has no batch norm


@pytest.fixture
def settings(face_folder: Path, tmp_path: Path) -> TrainSettings:
    made = TrainSettings(data=str(face_folder), name="run", device="cpu")
    made.runs, made.checkpoints = str(tmp_path / "runs"), str(tmp_path / "checkpoints")
    made.images.size = 160
    made.model.backbone, made.model.pretrained, made.model.embedding_dim = TRANSFORMER, False, 8
    made.split.validation, made.batches.people, made.batches.images = 2, 3, 2
    made.batches.workers, made.batches.images_per_epoch = 0, 12
    made.loss.name, made.optimizer.name, made.optimizer.lr = "arcface", "sgd", 0.01
    made.optimizer.weight_decay = 0.0
    made.trainer.epochs, made.trainer.recalibration_batches = 2, 0
    return made


def _together(settings: TrainSettings, folder: Path, *more: str) -> str:
    """Train in two processes; what they print."""
    source = folder / "settings.yaml"
    source.write_text(yaml.safe_dump(settings.as_dict()), encoding="utf-8")
    return _in_two_processes(["--config", str(source), *more])


def _in_two_processes(arguments: list[str]) -> str:
    return in_processes(2, run_siamese, "train", *arguments)


def _under_torchrun(arguments: list[str], restarts: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
    command += ["--standalone", f"--max-restarts={restarts}", "-m", "siamese.cli.train"]
    return subprocess.Popen(
        [*command, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def _rows(settings: TrainSettings) -> list[dict[str, str]]:
    with open(Path(settings.runs) / "run" / "metrics.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _last(settings: TrainSettings) -> dict[str, Any]:
    return read_checkpoint(Path(settings.checkpoints) / "run" / "last.pt")


@pytest.mark.parametrize("loss", ["arcface", "triplet", "supcon"])
def test_two_processes_train_as_one_does(
    settings: TrainSettings, tmp_path: Path, loss: Any
) -> None:
    """A batch of three people: one process has one of them, the other two, in chunks."""
    settings.loss.name = loss
    settings.augment.in_batches = loss == "triplet"
    train_faces(settings)
    alone, alone_rows = _last(settings), _rows(settings)
    settings.runs, settings.checkpoints = str(tmp_path / "runs2"), str(tmp_path / "checkpoints2")
    printed = _together(settings, tmp_path, "--batches.chunk", "2")
    assert printed.count("done:") == 1
    assert "3 people x 2 pictures shared by 2 processes" in printed
    both, both_rows = _last(settings), _rows(settings)
    for kind in ("model", "loss"):
        for name, value in alone[kind].items():
            assert torch.allclose(value, both[kind][name], rtol=1e-3, atol=1e-5), name
    assert both["progress"]["images"] == alone["progress"]["images"] == 24
    for one, other in zip(alone_rows, both_rows, strict=True):
        for figure in ("train_loss", "auc", "genuine_mean"):
            assert float(one[figure]) == pytest.approx(float(other[figure]), rel=1e-3, abs=1e-5)


def _near(one: Any, other: Any, where: str = "") -> None:
    """Equal but for float32's rounding."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            _near(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for at, pair in enumerate(zip(one, other, strict=True)):
            _near(*pair, f"{where}[{at}]")
    elif torch.is_tensor(one):
        assert one.shape == other.shape, where
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-5), where


@pytest.mark.parametrize(
    ("optimizer", "rate"),
    [("radam_schedulefree", 1.0), ("sgd_schedulefree", 1.0), ("sgd", 0.75), ("lars", 1.0)],
)
def test_two_processes_go_on(
    settings: TrainSettings, tmp_path: Path, optimizer: Any, rate: float
) -> None:
    """Their checkpoint holds all class weights and moments: one process goes on with it, too.

    AdamW would differ, at any rate: the gradient of the bias of attention's keys is 0 but for
    rounding, which Adam makes steps of (in float64 the runs agree to 1e-12).
    """
    settings.loss.name, settings.loss.sample_rate = "subcenter_arcface", rate
    settings.optimizer.name = optimizer
    settings.optimizer.lr = 1e-3 if optimizer == "radam_schedulefree" else 0.01
    settings.optimizer.clip = 1.0
    settings.schedule.name, settings.schedule.warmup = "constant", 0
    settings.optimizer.ema = 0.9 if optimizer == "sgd" else None
    settings.trainer.epochs = 1
    _together(settings, tmp_path)
    copied = tmp_path / "copy" / "run"
    shutil.copytree(Path(settings.checkpoints) / "run", copied)
    resumed = ["--resume", str(Path(settings.checkpoints) / "run"), "--epochs", "2"]
    _in_two_processes(resumed)
    both = _last(settings)
    settings.trainer.epochs = 2
    settings.runs, settings.checkpoints = str(tmp_path / "runs1"), str(tmp_path / "copy")
    settings.loss.scale = both["settings"]["loss"]["scale"]
    resume_training("run", settings.checkpoints, lambda saved: settings)
    handed_over = _last(settings)
    settings.runs, settings.checkpoints = str(tmp_path / "runs2"), str(tmp_path / "checkpoints2")
    train_faces(settings)
    alone = _last(settings)
    for kind in ("model", "loss", "optimizer", "train_weights"):
        _near(alone[kind], both[kind], kind)
        _near(alone[kind], handed_over[kind], kind)


def test_killed_processes_go_on(settings: TrainSettings, tmp_path: Path) -> None:
    """Once by themselves, as torchrun starts them again; then the job ends with one line."""
    settings.trainer.epochs = 6
    settings.optimizer.name, settings.optimizer.lr = "radam_schedulefree", 1e-3  # no schedule
    source, last = tmp_path / "settings.yaml", tmp_path / "checkpoints" / "run" / "last.pt"
    source.write_text(yaml.safe_dump(settings.as_dict()), encoding="utf-8")
    job = _under_torchrun(["--config", str(source)], restarts=1)
    seen = 0
    for killed in (0, 1):
        while not last.exists() or last.stat().st_mtime_ns == seen:
            assert job.poll() is None
            time.sleep(0.01)
        os.kill(_processes_of(job.pid)[killed], signal.SIGKILL)
        seen = last.stat().st_mtime_ns
    _, errors = job.communicate(timeout=60)
    assert job.returncode
    lines = [line for line in errors.splitlines() if line.startswith("siamese-train: ")]
    assert lines == [
        "siamese-train: error: another process of this job has ended; torchrun starts them again",
        "siamese-train: error: another process of this job has ended; go on with: siamese-train "
        f"--resume {last}",
    ]
    assert "siamese/training" not in errors  # no traceback
    done = read_checkpoint(last)["progress"]["epoch"]
    assert 2 <= done < 6
    _in_two_processes(["--resume", str(last.parent)])
    settings.runs, settings.checkpoints = str(tmp_path / "runs2"), str(tmp_path / "checkpoints2")
    _together(settings, tmp_path)
    theirs = read_checkpoint(last)["model"]
    for name, value in _last(settings)["model"].items():
        assert torch.equal(value, theirs[name]), name


def _processes_of(torchrun: int) -> list[int]:
    tasks = Path(f"/proc/{torchrun}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def test_what_torchrun_starts_again(settings: TrainSettings, monkeypatch: Any) -> None:
    """A run that is over is not begun again; one without a checkpoint begins under its name."""
    monkeypatch.setattr(launch, "begun_run", lambda: "run")
    settings.name, settings.trainer.epochs = None, 1
    best = train_faces(settings)
    assert best == Path(settings.checkpoints) / "run" / "best.pt"
    written = best.stat().st_mtime_ns
    assert train_faces(settings) == best
    assert best.stat().st_mtime_ns == written


class _WithoutBob:
    """Grey pictures; Bob's cannot be decoded."""

    def read(self, root: Path, path: str) -> torch.Tensor:
        if path.startswith("Bob"):
            raise DecodeError(f"{path}: is broken")
        return torch.full((3, 32, 32), 128, dtype=torch.uint8)


def _recalibrate(folder: str) -> None:
    """One of two processes, with one person of a batch each, asks for twelve batches."""
    with joined("cpu") as processes:
        names = ("Ann", "Bob", "Cy")
        paths = [f"{name}/{number}.png" for name in names for number in range(2)]
        people = FaceFolder(Path(folder), names, tuple(paths), (0, 0, 1, 1, 2, 2), ())
        settings = TrainSettings(device="cpu")
        settings.batches.people, settings.batches.images = 2, 2
        model = SiameseEmbedder("test_resnet", 8, size=32)
        task = FaceTask(
            settings,
            Split(people, people, None),
            model,
            model.spec("squash"),
            MetricLoss(settings.loss, 3, 8),
            torch.device("cpu"),
            torch.float32,
            0,
            lambda path, reason: None,
            _WithoutBob(),
            processes,
        )
        if processes.rank == 0:  # which shows examples, without waiting for the other
            assert len(list(task.fixed_batches(1))) == 1
        empty = [len(images) == 0 for images in task.fixed_batches(12)]
        every: list[Any] = [None, None]
        dist.all_gather_object(every, empty)
        assert any(every[0])
        assert any(every[1])
        assert every[0] != every[1]
        left = list(task.recalibration_inputs(12))
        assert all(len(images) == 2 for images in left)
        assert 0 < len(left) == sum(not (one or other) for one, other in zip(*every, strict=True))


def test_processes_leave_out_the_same_batches(tmp_path: Path) -> None:
    """Batch norms over all processes' pictures would wait for a missing one for ever."""
    in_processes(2, _recalibrate, str(tmp_path))


def _gather_from_one() -> None:
    """One of two processes has nothing: fewer pictures than processes, or only broken ones."""
    with joined("cpu") as processes:
        rows, places = torch.tensor([[3.0, 4.0], [1.0, 2.0]]), torch.tensor([2, 0])
        if processes.rank == 0:
            rows, places = torch.empty(0, 0), torch.empty(0, dtype=torch.int64)
        gathered, order = processes.gather_shares(rows, places)
        assert gathered.tolist() == [[1.0, 2.0], [3.0, 4.0]]
        assert order.tolist() == [0, 2]
        nothing = torch.empty(0, 0), torch.empty(0, dtype=torch.int64)
        assert all(len(part) == 0 for part in processes.gather_shares(*nothing))


def test_a_process_without_pictures_takes_part() -> None:
    in_processes(2, _gather_from_one)
