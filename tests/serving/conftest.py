"""A service on a small random model, called in this process or run as one of its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from siamese import Embedder
from siamese.config.using import ServeSettings
from siamese.serving.app import make_app
from siamese.serving.service import Service
from siamese.verification.calibration import Calibration
from siamese.verification.decision import Decision
from siamese.verification.histogram import BINS, ScoreHistogram
from tests.runs import write_random_model

HERE = "http://127.0.0.1:8000"


def spread() -> ScoreHistogram:
    """A histogram as models have it: two humps that overlap."""
    places = np.arange(BINS)
    humps = [np.exp(-(((places / BINS - middle) / 0.1) ** 2)) for middle in (0.85, 0.6)]
    return ScoreHistogram(*(tuple((500 * hump).astype(int).tolist()) for hump in humps))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A random model with a threshold and a histogram."""
    chosen = {"origin": "/secret/place of ten people", "fmr": 0.01, "people": 10,
              "fmr_interval": [0.001, 0.02]}  # fmt: skip
    decision = Decision(
        0.999, 0.01, Calibration(4.0, -2.0), False, chosen, histogram=spread()
    ).as_dict()
    path = tmp_path / "checkpoints" / "run" / "best.pt"
    return write_random_model(path, decision=decision)


@pytest.fixture
def make_client(checkpoint: Path, tmp_path: Path) -> Iterator[Callable[..., TestClient]]:
    """Function that gives a client of a service with some settings."""
    services = []

    def make(**settings: object) -> TestClient:
        given = {"gallery": str(tmp_path / "g.db"), **settings}
        limits, cut = given.pop("limits", {}), given.pop("cut", None)
        options = ServeSettings(**given)
        for name, value in {"rate": 10**6, **limits}.items():
            setattr(options.limits, name, value)
        service = Service(Embedder.load(checkpoint, "cpu"), options, cut)
        services.append(service)
        client = TestClient(make_app(service, options), HERE, raise_server_exceptions=False)
        client.service = service
        return client

    yield make
    for service in services:
        service.close()


@pytest.fixture
def client(make_client: Callable[..., TestClient]) -> TestClient:
    return make_client()


@contextmanager
def running(
    place: Path, checkpoint: Path, *arguments: object, **environment: str
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A real process that serves: its address, and itself."""
    process = subprocess.Popen(
        [sys.executable, "-c", "from siamese.cli.use import main; main()", "serve",
         "--checkpoint", str(checkpoint), "--port", "0", "--device", "cpu",
         "--limits.rate", "1000000", *map(str, arguments)],
        cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, **environment},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        while (greeting := process.stdout.readline()).startswith("note: "):
            pass
        assert " answers" in greeting, greeting + process.stdout.read()
        yield greeting.split(" ")[0], process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)
