"""Processes for tests, forked from one that has loaded torch and siamese already.

A new interpreter spends six seconds of a core on these imports, a fork none. Tests of the start
itself (what is imported, memory, torchrun) begin a new interpreter all the same.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        *(f"siamese.cli.{name}" for name in ("data", "eval", "train", "use", "zoo")),
        "siamese.report.commands",
        "siamese.tasks.classes.class_runs",
        "siamese.tasks.faces.face_runs",
        "torch.utils.tensorboard",
    ]
)


class Started:
    """A process with what tests use of :class:`subprocess.Popen`.

    Args:
        work: what it does; a function of a module.
        arguments: what the function is given.
        cwd: the folder that it works in; without one the test's.
        environment: its variables; without any the test's.
        output: where both streams go instead of into :attr:`stdout` and :meth:`communicate`.
        start_new_session: as :class:`subprocess.Popen` has it.
        prepare: called first in the process.
    """

    def __init__(
        self,
        work: Callable[..., None],
        *arguments: object,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
        output: int | None = None,
        start_new_session: bool = False,
        prepare: Callable[[], object] | None = None,
    ):
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - read when the process has ended
        reading, writing = os.pipe()
        self.stdout = os.fdopen(reading, encoding="utf-8")
        told = (writing, self._errors.fileno()) if output is None else (output, output)
        streams = [Connection(os.dup(file)) for file in told]
        os.close(writing)
        place = os.getcwd() if cwd is None else str(cwd)
        variables = dict(os.environ if environment is None else environment)
        way = multiprocessing.get_start_method()  # for its own processes
        given = (work, arguments, streams, place, variables, way, start_new_session, prepare)
        self._process = _FORKS.Process(target=_work, args=given)
        self._process.start()
        for stream in streams:
            stream.close()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def communicate(self, timeout: float) -> tuple[str, str]:
        """What is left of its stdout, and its stderr, once it has ended; after `timeout` seconds
        it is killed.
        """
        limit = threading.Timer(timeout, self._process.kill)
        limit.start()
        printed = self.stdout.read()
        self.wait()
        limit.cancel()
        self._errors.seek(0)
        return printed, self._errors.read().decode()


def _work(
    work: Callable[..., None],
    arguments: tuple[object, ...],
    streams: list[Connection],
    place: str,
    variables: dict[str, str],
    way: str,
    session: bool,
    prepare: Callable[[], object] | None,
) -> None:
    if session:
        os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if prepare is not None:
        prepare()
    for number, stream in enumerate(streams, 1):
        os.dup2(stream.fileno(), number)
        stream.close()
    sys.stdout, sys.stderr = (open(file, "w", 1, closefd=False) for file in (1, 2))  # noqa: SIM115
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(place)
    multiprocessing.set_start_method(way, force=True)
    if threads := variables.get("OMP_NUM_THREADS"):
        import torch  # which is loaded already, and reads it no more

        torch.set_num_threads(int(threads))
    try:
        work(*arguments)
    except SystemExit as end:
        code = end.code
    else:
        code = 0
    sys.exit(code)  # what the work held is let go by now, as at an interpreter's end


def run_siamese(name: str, *arguments: object) -> None:
    """The work of ``siamese-NAME ARGUMENTS``."""
    sys.argv = [f"siamese-{name}", *map(str, arguments)]
    import_module(f"siamese.cli.{name}").main()


def in_processes(number: int, work: Callable[..., None], *arguments: object, **more: Any) -> str:
    """Let processes of one job do something, as torchrun would start them; what they print.

    The job's store is kept here, as torchrun keeps it.
    """
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    shared |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(number))
    shared |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "OMP_NUM_THREADS": "1"}
    started = []
    for rank in range(number):
        own = dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank))
        environment = {**os.environ, **shared, **own}
        started.append(Started(work, *arguments, environment=environment, **more))
    with ThreadPoolExecutor(number) as waiting:
        told = {waiting.submit(process.communicate, 240): process for process in started}
        for ended in as_completed(told):
            if told[ended].returncode:  # the others would wait for it
                for process in started:
                    process.kill()
                raise AssertionError(ended.result()[1][-2000:])
    return "".join(ended.result()[0] for ended in told)
