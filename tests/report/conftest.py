"""A small trained run for the commands of siamese-eval, which tests call in this process."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from siamese.cli import eval as eval_command
from tests.runs import train_small

VALIDATION, TEST, TRAINED = 6, 5, 5


@pytest.fixture(scope="session")
def trained_once(
    draw_people: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with `faces`, `others` (people of other names), and the run `run` on the faces."""
    place = tmp_path_factory.mktemp("judged")
    names = [f"人{person} x" for person in range(VALIDATION + TEST + TRAINED)]
    draw_people(place / "faces", names, images=5)
    draw_people(place / "others", [*"abcdefg", names[0]], images=4, seed=1)
    more = ("--split.test", str(TEST), "--trainer.recalibration_batches", "2")
    train_small(place, VALIDATION, *more)
    return place


@pytest.fixture
def trained(trained_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to change, as the present folder."""
    place = Path(shutil.copytree(trained_once, tmp_path / "judged"))
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def evaluate(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Function that runs siamese-eval in this process and returns what it prints."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        given: Sequence[str] = [str(argument) for argument in arguments]
        workers = () if given[0] == "compare" and "--workers" in given else ("--workers", "0")
        eval_command._command([*given, *workers])
        return capsys.readouterr().out

    return run
