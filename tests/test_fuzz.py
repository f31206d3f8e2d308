"""A small seeded part of scripts/fuzz.py, in which nothing may be found."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[1]
KINDS = (
    "picture", "checkpoint", "npz", "yaml", "study", "pairs", "split", "plan", "manifest",
)  # fmt: skip
FILES = 50  # of each kind


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz", REPOSITORY / "scripts/fuzz.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz"] = module  # dataclasses look for their module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def seeded(
    fuzz: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, object]]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a forked child must not wait for its parent's threads
    yield {kind.name: kind for kind in fuzz.kinds(tmp_path_factory.mktemp("fuzz"))}
    torch.set_num_threads(threads)


def test_every_kind_is_tested(seeded: dict[str, object]) -> None:
    assert tuple(seeded) == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_broken_files_are_taken_or_refused_in_one_line(
    fuzz: ModuleType, seeded: dict[str, object], tmp_path: Path, kind: str
) -> None:
    tally = fuzz.Tally()
    for first in range(0, FILES, 25):
        fuzz.run_batch(seeded[kind], 11, first, tmp_path, tally)
    assert tally.findings == []
    assert tally.files == FILES
    assert tally.refused > 5  # they were broken


def test_what_a_reader_lets_through_is_found(fuzz: ModuleType, tmp_path: Path) -> None:
    def broken(path: Path) -> None:
        raise KeyError(path.name)

    def killed(path: Path) -> None:
        import os

        os.kill(os.getpid(), 9)

    for read, told in ((broken, "KeyError"), (killed, "died")):
        tally = fuzz.Tally()
        fuzz.run_batch(fuzz.Kind("x", [(".txt", b"seed")], read), 0, 0, tmp_path, tally)
        assert told in tally.findings[0]
