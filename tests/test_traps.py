"""Pipes, devices and the kernel's files in the way of every command: none is opened or waited for.

Also: what runs leave behind has the permissions that the umask gives.
"""

import os
import shutil
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

LIMIT = 60  # seconds for a command, which takes about one
TRAPS = ("pipe.png", "to_pipe.png", "zero.png", "random.png", "kernel.png", "gone.png")
TRAIN = (
    "--epochs", "1", "--workers", "0", "--backbone", "test_resnet", "--model.pretrained", "false",
    "--size", "32", "--batches.people", "4", "--batches.images_per_epoch", "16", "--device", "cpu",
    "--split.validation", "3", "--trainer.recalibration_batches", "1", "--lr", "1e-2",
    "--model.embedding_dim", "8",
)  # fmt: skip


def set_traps(folder: Path) -> None:
    """Everything that a picture's name may stand for and is no picture."""
    os.mkfifo(folder / "pipe.png")
    os.mkfifo(folder.parents[1] / f"pipe of {folder.name}")
    (folder / "to_pipe.png").symlink_to(folder.parents[1] / f"pipe of {folder.name}")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "random.png").symlink_to("/dev/random")
    (folder / "kernel.png").symlink_to("/proc/kmsg")
    (folder / "gone.png").symlink_to("nowhere")


@pytest.fixture
def in_time() -> Iterator[None]:
    """What waits for ever ends as an error."""

    def end(signal_: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"not done after {LIMIT} seconds")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(LIMIT)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def trained_here(
    draw_people: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """`faces` with traps, and the run `run` that was trained on them under a strict umask."""
    from siamese.cli import train

    place = tmp_path_factory.mktemp("traps")
    draw_people(place / "faces", [f"人{person}" for person in range(8)], images=4)
    set_traps(place / "faces" / "人0")
    before, mask = Path.cwd(), os.umask(0o077)
    os.chdir(place)
    try:
        train._command(["--data", "faces", "--name", "run", *TRAIN])
    finally:
        os.umask(mask)
        os.chdir(before)
    return place


@pytest.fixture
def place(trained_here: Path, monkeypatch: pytest.MonkeyPatch, in_time: None) -> Path:
    monkeypatch.chdir(trained_here)
    return trained_here


def test_training_leaves_them_out_and_says_so(place: Path) -> None:
    told = (place / "runs" / "run" / "data_report.txt").read_text()
    for name in TRAPS:
        assert f"人0/{name}: not a file" in told
    assert "left out of faces: 6" in told


def test_nobody_else_may_read_what_a_run_leaves_under_a_strict_umask(place: Path) -> None:
    found = [*place.joinpath("runs").rglob("*"), *place.joinpath("checkpoints").rglob("*")]
    names = {path.name for path in found}
    assert {"best.pt", "last.pt", "metrics.csv", "split.json", "data_report.txt"} <= names
    assert any(path.name == "sprite.png" for path in found), "README names it"
    for path in found:
        assert not stat.S_IMODE(path.lstat().st_mode) & 0o077, path


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("data check faces --out {out} --workers 0", "6"),
        ("data check faces --out {out} --workers 1", "6"),
        ("data split faces --validation 2 --test 2 --out {out}", "6 not a file"),
        ("data convert faces --out {out} --size 16 --workers 0", "6 left out (6 not a file)"),
        ("data audit faces --checkpoint checkpoints/run --out {out} --workers 0", "6 not a file"),
        ("eval embed --data faces --checkpoint checkpoints/run --out {out}/e.npz --workers 0",
         "6 not a file"),
        ("eval roc --data faces --checkpoint checkpoints/run --out {out} --cache {out}c",
         "6 not a file"),
    ],
)  # fmt: skip
def test_commands_leave_them_out_and_say_so(
    place: Path, tmp_path: Path, run_here: Callable[..., Any], command: str, told: str
) -> None:
    done = run_here(*(word.format(out=tmp_path / "out") for word in command.split()))
    assert done.returncode == 0, done.stderr
    assert told in done.stdout


@pytest.mark.parametrize(
    "command",
    [
        "data check {trap}", "data audit --embeddings {trap}", "data mend faces --plan {trap}",
        "data restore {trap}", "data split faces --merge {trap}", "data convert {trap} --out o",
        "data audit faces --checkpoint {trap}", "train --data {trap}", "train --config {trap}",
        "train --resume {trap}", "train --data faces --split.lists {folder}",
        "train --data faces --model.weights {trap} --size 32 --backbone test_resnet",
        "eval roc --checkpoint {trap}", "eval roc --embeddings {trap}", "eval roc --config {trap}",
        "eval pairs --data faces --pairs {trap} --checkpoint checkpoints/run",
        "eval compare {trap} {trap}", "eval roc --checkpoints {folder}",
        "zoo train --config {trap}", "zoo compare {trap}", "zoo eval --checkpoint {trap}",
        "zoo resume {trap}", "zoo train --data.name folder --data.root {folder}",
        "zoo train --data.name mnist --data.download false --data.root {folder}",
    ],
)  # fmt: skip
@pytest.mark.parametrize("trap", ["pipe.png", "to_pipe.png", "zero.png", "kernel.png"])
def test_commands_refuse_them_in_one_line(
    place: Path, tmp_path: Path, run_here: Callable[..., Any], command: str, trap: str
) -> None:
    given = place / "faces" / "人0" / trap
    folder = tmp_path / "folder"
    for name in (
        "train.csv", "validation.csv", "run/best.pt", "train/a/1.png", "train/b/1.png",
        "test/a/1.png", "test/b/1.png", "MNIST/raw/train-images-idx3-ubyte",
        "MNIST/raw/train-labels-idx1-ubyte", "MNIST/raw/t10k-images-idx3-ubyte",
        "MNIST/raw/t10k-labels-idx1-ubyte",
    ):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(given)
    done = run_here(*(word.format(trap=given, folder=folder) for word in command.split()))
    assert done.returncode == 2, done.stdout
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_mend_moves_them_as_they_are(
    place: Path, tmp_path: Path, run_here: Callable[..., Any]
) -> None:
    faces = tmp_path / "faces"
    shutil.copytree(place / "faces" / "人1", faces / "人1")
    (faces / "人0").mkdir()
    set_traps(faces / "人0")
    before = {name: os.lstat(faces / "人0" / name).st_mode for name in TRAPS}
    (tmp_path / "plan.csv").write_text("path,to\n人0,\n")
    done = run_here("data", "mend", faces, "--plan", tmp_path / "plan.csv")
    assert done.returncode == 0, done.stderr
    quarantine = tmp_path / "faces-quarantine"
    assert {name: os.lstat(quarantine / "人0" / name).st_mode for name in TRAPS} == before
    done = run_here("data", "restore", next(quarantine.glob("manifest-*")))
    assert done.returncode == 0, done.stderr
    assert {name: os.lstat(faces / "人0" / name).st_mode for name in TRAPS} == before


# Places that only a file names: read from, never written to.


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    (tmp_path / "far" / "victim").mkdir(parents=True)
    return tmp_path / "far" / "victim"


def changed(place: Path, tmp_path: Path, **settings: object) -> Path:
    """A copy of the run's checkpoint with other settings and another folder of its people."""
    from siamese.models.checkpoint import read_checkpoint, write_checkpoint

    content = read_checkpoint(place / "checkpoints" / "run" / "last.pt")
    content["settings"] |= settings
    for part in content["split"].values():
        part["folder"] = settings.get("folder", part["folder"])
    content["settings"].pop("folder", None)
    path = tmp_path / "checkpoints" / "run" / "last.pt"
    write_checkpoint(path, content)
    return path


@pytest.mark.parametrize("setting", ["runs", "checkpoints", "cache"])
def test_a_resumed_run_writes_nowhere_that_only_its_checkpoint_names(
    place: Path, tmp_path: Path, victim: Path, run_here: Callable[..., Any], setting: str
) -> None:
    checkpoint = changed(place, tmp_path, **{setting: str(victim)})
    done = run_here("train", "--resume", checkpoint, "--epochs", 2)
    assert done.returncode == 2
    assert f"says that {setting} is {victim}" in done.stderr
    assert f"give --{setting}" in done.stderr
    assert list(victim.iterdir()) == []


def test_demo_faces_are_not_drawn_where_a_checkpoint_says(
    place: Path, tmp_path: Path, victim: Path, run_here: Callable[..., Any]
) -> None:
    checkpoint = changed(place, tmp_path, data=None, folder=str(victim / "demo-faces"))
    done = run_here("eval", "roc", "--checkpoint", checkpoint, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "is not here" in done.stderr
    assert list(victim.iterdir()) == []


def test_a_study_writes_nowhere_that_only_its_file_names(
    tmp_path: Path, victim: Path, run_here: Callable[..., Any]
) -> None:
    study = tmp_path / "studies" / "s.yaml"
    study.parent.mkdir()
    for task, setting in (("face", "cache"), ("classification", "data.root")):
        figure = "auc" if task == "face" else "test_error"
        study.write_text(
            f"task: {task}\nfigure: {figure}\n"
            f"settings: {{{setting}: {victim}, trainer.epochs: 1}}\n"
            "runs: [{label: a}]\n"
        )
        done = run_here("zoo", "compare", study, "--dry_run", cwd=study.parent)
        assert done.returncode == 2
        assert f"{setting} {victim} would be written" in done.stderr


def test_converted_pictures_stay_in_their_folder(
    place: Path, tmp_path: Path, victim: Path, run_here: Callable[..., Any]
) -> None:
    out = tmp_path / "out"
    command = ("data", "convert", "faces", "--out", out, "--size", 16, "--workers", 0)
    assert run_here(*command).returncode == 0
    record = out / ".convert.jsonl"
    first, *lines = record.read_text().splitlines()
    away = [line.replace('["人', '["../far/victim/人', 1) for line in lines]
    away = [line.replace('["\\u4eba', '["../far/victim/\\u4eba', 1) for line in away]
    assert away != lines
    record.write_text("\n".join([first, *away]) + "\n")
    shutil.rmtree(out / "人1")
    assert run_here(*command).returncode == 0
    assert list(victim.iterdir()) == []
    shutil.rmtree(out / "人1")
    (out / "人1").symlink_to(victim)
    done = run_here(*command)
    assert done.returncode == 2
    assert "a link leads out of" in done.stderr
    assert list(victim.iterdir()) == []


def test_a_cache_is_not_written_through_a_link(
    place: Path, tmp_path: Path, victim: Path, run_here: Callable[..., Any]
) -> None:
    (victim / "file").write_bytes(b"not ours")
    command = (
        *("eval", "embed", "--data", "faces", "--checkpoint", "checkpoints/run"),
        *("--workers", 0, "--out", tmp_path / "e.npz", "--cache", tmp_path / "cache"),
    )
    assert run_here(*command).returncode == 0
    for ending in ("sqlite",):
        kept = next((tmp_path / "cache").glob(f"*.{ending}"))
        kept.unlink()
        kept.symlink_to(victim / "file")
        done = run_here(*command)
        assert done.returncode == 0, done.stderr
        assert (victim / "file").read_bytes() == b"not ours"
        assert not kept.is_symlink()
