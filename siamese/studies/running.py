"""The runs of a study, made one after another or several at once, and continued after a kill.

A run is named by the hash of its settings. ``result.json``, written last, says that it is over;
``last.pt`` says where it goes on; a folder without either was begun in vain and is made anew. The
process that writes a run's files holds its lock, so that two studies never train it at once.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Literal

from siamese.config.reading import build_settings, flatten
from siamese.errors import Diverged, UserError
from siamese.files.fields import built, parse_json
from siamese.files.places import read_bytes
from siamese.files.terminal import plain_output
from siamese.files.writing import CannotWrite, held, write_json, writing
from siamese.processors import processors
from siamese.studies.expand import Run
from siamese.tasks.task_spec import TaskSpec, task_spec

Status = Literal["done", "diverged", "begun", "new"]
Say = Callable[[str], None]

RESULT = "result.json"
_RESULT_LIMIT = 2**20  # bytes
_PATIENCE = 30.0  # seconds that a process gets to end after another one of its run


class BusyError(UserError):
    """Another process trains the run."""


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


def status(run: Run) -> Status:
    """How far a run is, from what lies on disk."""
    result = read_result(run)
    if result is not None:
        return "diverged" if result["status"] == "diverged" else "done"
    return "begun" if run.folder.exists() or run.checkpoints.exists() else "new"


def read_result(run: Run) -> dict[str, Any] | None:
    """What ``result.json`` says; None while the run is not over. UserError where it is damaged."""
    path = run.folder / RESULT
    if not path.exists():
        return None
    written = read_bytes(path, limit=_RESULT_LIMIT)
    try:
        # Another version may have written more.
        content = parse_json(written)
        known = {one.name for one in fields(_Result)}
        built(_Result, {name: content[name] for name in content if name in known})
    except (ValueError, TypeError, AttributeError) as error:
        why = f" ({error})" if type(error) is ValueError else ""
        raise UserError(
            f"{path}: is damaged{why}; remove its folder to make the run anew"
        ) from None
    return {**content}


@contextlib.contextmanager
def locked(run: Run) -> Iterator[None]:
    """Hold a run; a kill sets it free. BusyError where another process holds it.

    The lock's file is removed when the run is over: whoever opened it before finds nothing left to
    do.
    """
    path = Path(run.settings.runs) / f".{run.name}.lock"
    with held(path, BusyError(f"{run}: another process is at work on {run.name}")):
        yield
        path.unlink(missing_ok=True)


# One run


def make_run(run: Run, trainer: TaskSpec, threads: int | None = None) -> None:
    """Bring a run to its end from wherever it stands, and write ``result.json``.

    A run whose loss breaks is recorded as diverged. Of several processes that train a run together
    the first calls this, the others :func:`train_or_resume`.

    Raises:
        UserError: settings or data that cannot work; another study is at work on the run.
        KeyboardInterrupt: stopped, after the state was saved.
    """
    with locked(run):
        if status(run) in ("done", "diverged"):
            return
        if not (run.checkpoints / "last.pt").exists():  # begun in vain: nothing to go on with
            for folder in (run.folder, run.checkpoints):
                shutil.rmtree(folder, ignore_errors=True)
        result = {"status": "done"}
        try:
            train_or_resume(run, trainer, threads)
        except Diverged as error:
            result = {"status": "diverged", "message": str(error)}
        record = {
            "task": run.task.name,
            "hash": run.hash,
            "seed": run.seed,
            "processes": run.processes,
            "device": _device(run.settings.device, run.processes),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "settings": run.settings.as_dict(),
        }
        write_json(run.folder / RESULT, {**result, **record})


def train_or_resume(run: Run, trainer: TaskSpec, threads: int | None = None) -> None:
    """Train a run, or what is left of it, in this process; errors are the trainer's."""
    # A process that was started with so many threads has them already.
    if threads is not None and os.environ.get("OMP_NUM_THREADS") != str(threads):
        import torch

        torch.set_num_threads(threads)
    checkpoint = run.checkpoints / "last.pt"
    if not checkpoint.exists():
        trainer.train(replace(run.settings))
    elif not trainer.is_over(run.settings, checkpoint):
        trainer.resume(run.name, run.settings.checkpoints, partial(_moved, run.settings))


def _moved(settings: Any, saved: Mapping[str, Any]) -> Any:
    """A resumed run's settings: the checkpoint's, but for where things lie now."""
    kind = type(settings)
    now = flatten(kind, settings.as_dict())
    movable = {name: now[name] for name in task_spec(kind).movable}
    place = f"the checkpoint of {settings.name}"
    return build_settings(kind, flatten(kind, saved) | movable, place)


def _device(name: str, processes: int) -> str:
    """What the run was made on, in words."""
    # A run that loaded no torch here ran on the CPU.
    if (name == "auto" or name.startswith("cuda")) and "torch" in sys.modules:
        import torch

        with contextlib.suppress(RuntimeError, AssertionError):
            if torch.cuda.is_available():
                gpu = str(torch.cuda.get_device_name(None if name == "auto" else name))
                return gpu if processes == 1 else f"{processes} x {gpu}"
    return "cpu" if name == "auto" else name


# Many runs


def make_all(
    runs: Sequence[Run],
    trainer: TaskSpec,
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
        trainer: the task that trains it, or what stands in for it.
        jobs: how many at once; above 1 each has processes of its own.
        threads: CPU threads of each; None: torch's own choice, or the cores divided by ``jobs``.
        logs: folder for what the processes of several jobs print.
        say: prints a line of progress.
        after: called after every run.

    Raises:
        UserError: a run that cannot work, named; or runs that other processes are at work on.
        KeyboardInterrupt: stopped; what was running has saved its state.
    """
    states = [status(run) for run in runs]
    to_do = [run for run, state in zip(runs, states, strict=True) if state in ("begun", "new")]
    begun = states.count("begun")
    say(
        f"{len(runs)} runs: {len(runs) - len(to_do)} over already, {begun} begun, "
        f"{len(to_do) - begun} to do"
    )
    ends = _Ends(say, after)
    working: list[_Job] = []
    try:
        for number, run in enumerate(to_do, 1):
            title = f"[{number}/{len(to_do)}] {run}"
            if jobs == 1 and run.processes == 1:
                say(f"{title} ({run.name})")
                ends.take(title, run, partial(make_run, run, trainer, threads))
                continue
            job = _Job(title, run, logs / f"{run.name}.txt" if jobs > 1 else None)
            working.append(job)
            job.start(trainer, threads or max(1, processors() // jobs))
            say(f"{title} ({run.name})" + (f": see {job.log}" if job.log else ""))
            if len(working) == jobs:
                ends.take_first(working)
        while working:
            ends.take_first(working)
    finally:
        for job in working:  # a failure or Ctrl-C: they finish their step, save and end
            job.interrupt()
        for job in working:
            job.join()
    if ends.busy:
        raise UserError(
            f"{len(ends.busy)} runs are being made by another process ({ends.busy[0]}): start "
            "again when it is done"
        )


@dataclass
class _Ends:
    """Prints how runs end, and keeps those that another process is at work on."""

    say: Say
    after: Callable[[], None]
    busy: list[Run] = field(default_factory=list)

    def take(self, title: str, run: Run, end: Callable[[], None]) -> None:
        """Call what brings a run to its end; a UserError gets the run's name."""
        try:
            end()
        except BusyError as error:
            self.say(str(error))
            self.busy.append(run)
            return
        except CannotWrite as error:
            raise CannotWrite(f"{run} ({run.name}): {error}") from None
        except UserError as error:
            raise UserError(f"{run} ({run.name}): {error}") from None
        done = "diverged, the study goes on" if status(run) == "diverged" else "done"
        self.say(f"{title}: {done}")
        self.after()

    def take_first(self, working: list[_Job]) -> None:
        """Wait for the first job that is over, and take it out of the others."""
        while True:
            alive = [p.sentinel for job in working for p in job.processes if p.exitcode is None]
            for job in working:
                if job.is_over():
                    working.remove(job)
                    self.take(job.title, job.run, job.end)
                    return
            wait(alive)


@dataclass
class _Job:
    """A run in processes of its own; the first writes its files, any sends the error it ends by."""

    title: str
    run: Run
    log: Path | None
    processes: list[SpawnProcess] = field(default_factory=list)
    messages: Connection | None = None

    def start(self, trainer: TaskSpec, threads: int) -> None:
        """Start the processes, which share the threads."""
        if self.log is not None:
            with writing(self.log):
                self.log.parent.mkdir(parents=True, exist_ok=True)
        context = multiprocessing.get_context("spawn")
        self.messages, sender = context.Pipe(duplex=False)
        world = self.run.processes
        environment = {"OMP_NUM_THREADS": str(max(1, threads // world))}
        if world > 1:  # what torchrun sets
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            environment |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(world))
        for rank in range(world):
            ranks = dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank)) if world > 1 else {}
            process = context.Process(
                target=_work,
                args=(self.run, trainer, environment | ranks, self.log, sender, os.getpid()),
                name=self.run.name,
            )
            process.start()
            self.processes.append(process)
        sender.close()

    def is_over(self) -> bool:
        """Whether the first process has ended, or another one has failed."""
        return self.processes[0].exitcode is not None or any(p.exitcode for p in self.processes)

    def end(self) -> None:
        """Wait for the processes of a run that is over, and raise what it ended with."""
        code = next((p.exitcode for p in self.processes if p.exitcode), 0)
        for process in self.processes:
            process.join(_PATIENCE)
            if process.is_alive():  # it waits for one that has ended
                process.kill()
                process.join()
        assert self.messages is not None, "started"
        error = None
        with self.messages, contextlib.suppress(EOFError):  # it had nothing to say
            error = self.messages.recv()
        if error is not None:
            raise error
        if code:
            why = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
            hint = " (out of memory?)" if code == -signal.SIGKILL else ""
            see = f"; see {self.log}" if self.log else ""
            raise UserError(f"its process {why}{hint}{see}")

    def interrupt(self) -> None:
        """Press Ctrl-C in every process."""
        for process in self.processes:
            if process.pid is not None and process.is_alive():
                os.kill(process.pid, signal.SIGINT)

    def join(self) -> None:
        """Wait for every process."""
        for process in self.processes:
            process.join()


def _work(
    run: Run,
    trainer: TaskSpec,
    environment: Mapping[str, str],
    log: Path | None,
    messages: Connection,
    parent: int,
) -> None:
    """The body of a job's process."""
    os.environ.update(environment)  # before torch is loaded
    with contextlib.suppress(AttributeError, OSError):
        os.setpgrp()  # Ctrl-C reaches the study alone, which then asks each process once
    # A study in the background ignores Ctrl-C; its processes hear what it asks them all the same.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if log is not None:
        written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        for stream in (1, 2):
            os.dup2(written, stream)
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    threads = int(environment["OMP_NUM_THREADS"])
    try:
        with plain_output():
            if environment.get("RANK", "0") == "0":
                make_run(run, trainer, threads)
            else:
                with contextlib.suppress(Diverged):  # the first process records it
                    train_or_resume(run, trainer, threads)
    except (UserError, KeyboardInterrupt) as error:
        with contextlib.suppress(BrokenPipeError):  # the study is gone
            messages.send(error)
        raise SystemExit(1) from None
    except BaseException:
        traceback.print_exc()
        raise SystemExit(1) from None


def _follow(parent: int) -> None:
    """Stop, as on Ctrl-C, when the study is gone: nobody would know that this run goes on."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGINT)
