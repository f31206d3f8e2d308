"""The runs of a study, made one after another or several at once, and gone on with after a kill.

A run is named by the hash of its settings. ``result.json``, written last, says that it is over;
``last.pt`` says where it goes on; a folder without either was begun in vain and is made anew.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal, Protocol

from siamese.config.reading import build_settings, flatten
from siamese.errors import Diverged, UserError
from siamese.files.fields import built, parse_json
from siamese.files.places import read_bytes
from siamese.files.writing import CannotWrite, lock_file, write_json, writing
from siamese.processors import processors
from siamese.studies.expand import Run, RunSettings
from siamese.studies.study import TaskName

Status = Literal["done", "diverged", "begun", "new"]
Say = Callable[[str], None]

RESULT = "result.json"
_RESULT_LIMIT = 2**20  # bytes
# What a resumed run takes from now and not from its checkpoint.
_FROM_NOW = (
    "device", "runs", "checkpoints", "cache", "data.root", "data", "data.download", "data.workers",
    "batches.workers", "split.validation_data", "split.test_data", "limits.weights",
    "limits.description",
)  # fmt: skip
_INTERRUPTED = 130


class Trainer(Protocol):
    """How the runs of a task are trained; must be picklable where there are several jobs."""

    def train(self, settings: Any) -> Path:
        """Train a new run to its end."""

    def resume(self, target: str, checkpoints: str, parse: Callable[..., Any]) -> Path:
        """Continue a run from its ``last.pt``."""

    def is_over(self, run: Run, checkpoint: Path) -> bool:
        """Whether a run that has a checkpoint has nothing left to do."""


@dataclass(frozen=True)
class TaskTrainer:
    """The training of this package, imported when it is needed."""

    task: TaskName

    def train(self, settings: Any) -> Path:
        """See :class:`Trainer`."""
        if self.task == "face":
            from siamese.tasks.faces.face_runs import train_faces

            return train_faces(settings)
        from siamese.tasks.classes.class_runs import train_classifier

        return train_classifier(settings)

    def resume(self, target: str, checkpoints: str, parse: Callable[..., Any]) -> Path:
        """See :class:`Trainer`."""
        if self.task == "face":
            from siamese.tasks.faces.face_runs import resume_training

            return resume_training(target, checkpoints, parse)
        from siamese.tasks.classes.class_runs import resume_classifier

        return resume_classifier(target, checkpoints, parse)

    def is_over(self, run: Run, checkpoint: Path) -> bool:
        """See :class:`Trainer`; a classifier is tested after its last epoch."""
        from siamese.models.checkpoint import read_checkpoint

        kind = "embedder" if self.task == "face" else "classifier"
        limits = run.settings.limits
        content = read_checkpoint(checkpoint, kind, keys=["progress"], limits=limits)
        if int(content["progress"]["epoch"]) < run.settings.trainer.epochs:
            return False
        if self.task == "face":
            return True
        from siamese.tasks.classes.testing import TEST, is_tested

        return is_tested(run.folder / TEST, content["progress"])


def status(run: Run) -> Status:
    """How far a run is, from what lies on disk."""
    result = read_result(run)
    if result is not None:
        return "diverged" if result.get("status") == "diverged" else "done"
    return "begun" if run.folder.exists() or run.checkpoints.exists() else "new"


def read_result(run: Run) -> dict[str, Any] | None:
    """What ``result.json`` says; None while the run is not over.

    Raises:
        UserError: the file is damaged.
    """
    path = run.folder / RESULT
    if not path.exists():
        return None
    try:
        # Another version may have written more.
        content = parse_json(read_bytes(path, limit=_RESULT_LIMIT))
        known = {one.name for one in fields(_Result)}
        built(_Result, {name: content[name] for name in content if name in known})
    except (ValueError, TypeError, AttributeError) as error:
        why = f" ({error})" if type(error) is ValueError else ""
        raise UserError(
            f"{path}: is damaged{why}; remove its folder to make the run anew"
        ) from None
    return {**content}


@dataclass(frozen=True)
class _Result:
    """The fields of ``result.json``."""

    status: Literal["done", "diverged"]
    message: str = ""
    task: str = ""
    hash: str = ""
    seed: int = 0
    processes: int = 1
    device: str = ""
    finished: str = ""
    settings: dict[str, Any] = field(default_factory=dict)


def make_run(run: Run, trainer: Trainer, threads: int | None = None) -> None:
    """Bring a run to its end from wherever it stands, and write ``result.json``.

    A run whose loss breaks is recorded as diverged.

    Args:
        run: what to train.
        trainer: how.
        threads: CPU threads; None: torch's own choice.

    Raises:
        UserError: settings or data that cannot work; another study is at work on the run.
        KeyboardInterrupt: stopped, after the state was saved.
    """
    with locked(run) as lock:
        if status(run) in ("done", "diverged"):
            return
        checkpoint = run.checkpoints / "last.pt"
        if not checkpoint.exists():  # begun in vain: nothing in there can be gone on with
            for folder in (run.folder, run.checkpoints):
                shutil.rmtree(folder, ignore_errors=True)
        outcome: dict[str, Any] = {"status": "done"}
        try:
            if run.processes > 1:
                _train_together(run, lock, threads)
            else:
                train_alone(run, trainer, threads)
        except Diverged as error:
            outcome = {"status": "diverged", "message": str(error)}
        write_json(run.folder / RESULT, {**outcome, **_record(run)})


def train_alone(run: Run, trainer: Trainer, threads: int | None = None) -> None:
    """Train or resume a run in this process.

    Raises:
        UserError, Diverged, KeyboardInterrupt: as the trainer.
    """
    # A process that was started with so many need not be told.
    if threads is not None and os.environ.get("OMP_NUM_THREADS") != str(threads):
        import torch

        torch.set_num_threads(threads)
    checkpoint = run.checkpoints / "last.pt"
    if not checkpoint.exists():
        trainer.train(replace(run.settings))
    elif not trainer.is_over(run, checkpoint):
        trainer.resume(run.name, run.settings.checkpoints, _Parse(run.settings))


@dataclass(frozen=True)
class _Parse:
    """A resumed run's settings: the checkpoint's, but for where things lie now."""

    settings: RunSettings

    def __call__(self, saved: Mapping[str, Any]) -> RunSettings:
        kind = type(self.settings)
        now = flatten(kind, self.settings.as_dict())
        flat = flatten(kind, saved) | {name: now[name] for name in _FROM_NOW if name in now}
        return build_settings(kind, flat, f"the checkpoint of {self.settings.name}")


def _record(run: Run) -> dict[str, Any]:
    return {
        "task": run.task,
        "hash": run.hash,
        "seed": run.seed,
        "processes": run.processes,
        "device": _device(run.settings.device, run.processes),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "settings": run.settings.as_dict(),
    }


def _device(name: str, processes: int) -> str:
    """What the run was made on, in words."""
    # A run that loaded no torch here ran on the CPU, or in other processes.
    if (name == "auto" or name.startswith("cuda")) and ("torch" in sys.modules or processes > 1):
        import torch

        with contextlib.suppress(RuntimeError, AssertionError):
            if torch.cuda.is_available():
                gpu = str(torch.cuda.get_device_name(None if name == "auto" else name))
                return gpu if processes == 1 else f"{processes} x {gpu}"
    return "cpu" if name == "auto" else name


# One at work on a run


@contextlib.contextmanager
def locked(run: Run) -> Iterator[int]:
    """Hold a run, so that two studies never train it at once; a kill sets it free.

    Raises:
        BusyError: another process holds it.
    """
    runs = Path(run.settings.runs)
    path = runs / f".{run.name}.lock"
    with writing(path):
        runs.mkdir(parents=True, exist_ok=True)
    # The holder takes the file away at the end, so it is looked at again once it is held.
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            lock_file(lock)
        except BlockingIOError:
            os.close(lock)
            raise BusyError(f"{run}: another process is at work on {run.name}") from None
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(lock), os.stat(path)):
                break
        os.close(lock)
    try:
        yield lock
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(lock)


class BusyError(UserError):
    """Another process trains the run."""


# Several processes for one run


@dataclass(frozen=True)
class _Outcome:
    """How the first process says that it ended."""

    status: Literal["done", "diverged", "error", "interrupted"]
    message: str = ""


def _train_together(run: Run, lock: int, threads: int | None) -> None:
    """Train or resume a run under torchrun; see :mod:`siamese.studies.worker`.

    Raises:
        UserError, Diverged, KeyboardInterrupt: as the trainer, told by the first process.
    """
    outcome = Path(run.settings.runs) / f".{run.name}.outcome.json"
    outcome.unlink(missing_ok=True)
    task = Path(run.settings.runs) / f".{run.name}.run.json"
    write_json(
        task,
        {"label": run.label, "seed": run.seed, "hash": run.hash, "processes": run.processes,
         "task": run.task, "settings": run.settings.as_dict(), "outcome": str(outcome)},
    )  # fmt: skip
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", str(run.processes), "-m", "siamese.studies.worker", str(task)]
    share = max(1, (threads or os.cpu_count() or 1) // run.processes)
    environment = {**os.environ, "OMP_NUM_THREADS": str(share)}
    # The lock goes along: it holds as long as anybody trains.
    process = subprocess.Popen(command, env=environment, pass_fds=(lock,), start_new_session=True)
    try:
        code = process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGTERM)
        process.wait()
        raise
    finally:
        task.unlink(missing_ok=True)
    try:
        told = asdict(built(_Outcome, parse_json(read_bytes(outcome, limit=_RESULT_LIMIT))))
    except (UserError, ValueError):
        told = {"status": "error", "message": f"its processes ended with code {code}"}
    outcome.unlink(missing_ok=True)
    if told["status"] == "diverged":
        raise Diverged(told["message"])
    if told["status"] == "interrupted":
        raise KeyboardInterrupt
    if told["status"] != "done":
        raise UserError(told["message"])


# Several runs at once


def make_all(
    runs: Sequence[Run],
    trainer: Trainer,
    *,
    jobs: int = 1,
    threads: int | None = None,
    logs: Path,
    say: Say = print,
    after: Callable[[], None] = lambda: None,
) -> None:
    """Make every run that is not over yet.

    Args:
        runs: in the order they are made in.
        trainer: how.
        jobs: how many at once; above 1 each has a process of its own.
        threads: CPU threads of each; None: torch's own choice, or the cores divided by ``jobs``.
        logs: folder for what the processes of several jobs print.
        say: tells a line of progress.
        after: called after every run, to draw what there is.

    Raises:
        UserError: a run that cannot work, named; or runs that other processes are at work on.
        KeyboardInterrupt: stopped; what was running has saved its state.
    """
    states = [status(run) for run in runs]
    open_runs = [run for run, state in zip(runs, states, strict=True) if state in ("begun", "new")]
    begun = states.count("begun")
    say(
        f"{len(runs)} runs: {len(runs) - len(open_runs)} over already, {begun} begun, "
        f"{len(open_runs) - begun} to do"
    )
    busy: list[Run] = []
    if jobs == 1:
        for number, run in enumerate(open_runs, 1):
            say(f"[{number}/{len(open_runs)}] {run} ({run.name})")
            try:
                make_run(run, trainer, threads)
            except BusyError as error:
                say(str(error))
                busy.append(run)
                continue
            except CannotWrite as error:
                raise CannotWrite(f"{run} ({run.name}): {error}") from None
            except UserError as error:
                raise UserError(f"{run} ({run.name}): {error}") from None
            say(f"[{number}/{len(open_runs)}] {run}: {_told(run)}")
            after()
    else:
        threads = threads or max(1, processors() // jobs)
        _make_at_once(open_runs, trainer, jobs, threads, logs, say, after, busy)
    if busy:
        raise UserError(
            f"{len(busy)} runs are being made by another process ({busy[0]}): start again when it "
            "is done"
        )


def _told(run: Run) -> str:
    result = read_result(run) or {}
    return "diverged, the study goes on" if result.get("status") == "diverged" else "done"


@dataclass
class _Job:
    run: Run
    process: Any
    messages: Connection
    log: Path


def _make_at_once(
    runs: Sequence[Run],
    trainer: Trainer,
    jobs: int,
    threads: int,
    logs: Path,
    say: Say,
    after: Callable[[], None],
    busy: list[Run],
) -> None:
    with writing(logs):
        logs.mkdir(parents=True, exist_ok=True)
    waiting, working = list(runs), list[_Job]()
    total = len(waiting)
    try:
        while waiting or working:
            while waiting and len(working) < jobs:
                run = waiting.pop(0)
                working.append(_start(run, trainer, threads, logs / f"{run.name}.txt"))
                say(f"[{total - len(waiting)}/{total}] {run} ({run.name}): see {working[-1].log}")
            wait([job.process.sentinel for job in working])
            for job in [job for job in working if not job.process.is_alive()]:
                working.remove(job)
                if _ended(job):
                    say(f"{job.run}: {_told(job.run)}")
                    after()
                else:
                    say(f"{job.run}: another process is at work on it")
                    busy.append(job.run)
    finally:
        for job in working:  # a failure or Ctrl-C: they finish their step, save and end
            with contextlib.suppress(ProcessLookupError):
                os.kill(job.process.pid, signal.SIGINT)
        for job in working:
            job.process.join()


def _start(run: Run, trainer: Trainer, threads: int, log: Path) -> _Job:
    context = multiprocessing.get_context("spawn")
    messages, theirs = context.Pipe(duplex=False)
    process = context.Process(
        target=_work, args=(run, trainer, threads, str(log), theirs, os.getpid()), name=run.name
    )
    process.start()
    theirs.close()
    return _Job(run, process, messages, log)


def _ended(job: _Job) -> bool:
    """Whether a process that is over made its run; False when another one is at it."""
    job.process.join()
    code = job.process.exitcode
    kind = message = ""
    with contextlib.suppress(EOFError):  # it had nothing to say
        kind, message = job.messages.recv()
    job.messages.close()
    if kind == "busy":
        return False
    if kind == "interrupted":
        raise KeyboardInterrupt
    if kind == "error":
        raise UserError(f"{job.run} ({job.run.name}): {message}")
    if code != 0:
        why = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        hint = " (out of memory?)" if code == -9 else ""
        raise UserError(f"{job.run} ({job.run.name}): its process {why}{hint}; see {job.log}")
    return True


def _work(
    run: Run, trainer: Trainer, threads: int, log: str, messages: Connection, parent: int
) -> None:
    """The body of a job's process."""
    os.environ["OMP_NUM_THREADS"] = str(threads)  # before torch is loaded
    with contextlib.suppress(AttributeError, OSError):
        os.setpgrp()  # Ctrl-C reaches the study alone, which then asks each job once
    written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(written, stream)
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    try:
        make_run(run, trainer, threads)
    except BusyError:
        messages.send(("busy", ""))
    except UserError as error:
        messages.send(("error", str(error)))
    except KeyboardInterrupt:
        messages.send(("interrupted", ""))
    except BaseException:
        traceback.print_exc()
        raise SystemExit(1) from None


def _follow(parent: int) -> None:
    """Stop, as on Ctrl-C, when the study is gone: nobody would know that this run goes on."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGINT)
