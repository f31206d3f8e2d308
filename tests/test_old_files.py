"""Checkpoints that an earlier siamese wrote load, resume and judge as they did there.

``tests/fixtures/make_old_files.py`` made them by the code of commit fda1023, and recorded what that
code makes of them. Bits depend on the versions of the libraries and on the processor. Where these
are those of the recording every bit must be the same.

Elsewhere the weights may lie beside the recorded ones by 0.15 of the way that the resumed epoch
goes, and figures by 0.05 (errors: by one image). Measured: the same processor without its vector
instructions ends about 0.05 of the way off (faces); a run that lost its optimizer's state, its
epoch or, for faces, its random state ends 0.3 to 1.3 off; other weights far more.
"""

import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.fixtures import make_old_files as old

FOLDER = Path(__file__).parent / "fixtures" / "old_files"
RECORDED: dict[str, Any] = json.loads((FOLDER / old.RECORDED).read_text(encoding="utf-8"))
EXACT = all(RECORDED[name] == value for name, value in old.machine().items())
FARTHEST = 0.15  # a share of the way
FIGURE = {"error": 100 / 60, "validation_error": 100 / 40, "train_error": 100 / 120}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As in the recording: several threads would add in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=old.RUNS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def place(kind: str, tmp_path: Path) -> Path:
    """The folder that the earlier code left, with its pictures."""
    with tarfile.open(FOLDER / f"{kind}.tar.xz") as archive:
        archive.extractall(tmp_path / "earlier", filter="data")
    _, draw, pictures = old.RUNS[kind]
    draw(tmp_path / "earlier" / pictures)
    return tmp_path / "earlier"


def require_near(found: dict[str, float], wanted: dict[str, float]) -> None:
    """Figures are the recorded ones."""
    for name, value in wanted.items():
        tolerance = 0.0 if EXACT else FIGURE.get(name, 0.05)
        assert found[name] == pytest.approx(value, rel=0, abs=tolerance), name


def is_near(way: list[float], wanted: list[float]) -> bool:
    """Whether weights moved as they did in the recording, rounding aside."""
    return way == pytest.approx(wanted, rel=0, abs=FARTHEST * wanted[0])


def require_kept(before: dict[str, Any], after: dict[str, Any], where: str = "") -> None:
    """Settings are what they were; there may be new ones beside them."""
    for name, value in before.items():
        if isinstance(value, dict):
            require_kept(value, after[name], f"{where}{name}.")
        elif f"{where}{name}" != "trainer.epochs":
            assert after[name] == value, f"{where}{name}"


def test_a_resumed_run_goes_on_as_it_would_have(
    kind: str, place: Path, run_here: Callable[..., Any]
) -> None:
    recorded = RECORDED[kind]
    before = old.read(place / "checkpoints/run/last.pt")
    done = run_here(*old.RUNS[kind][0]["resume"], cwd=place)
    assert done.returncode == 0, done.stderr
    after = {name: old.read(place / "checkpoints/run" / name) for name in old.FILES}
    way = old.movement(before, after["last.pt"])
    assert is_near(way, recorded["movement"])
    assert not is_near([0.0] * 9, recorded["movement"]), "standing still would be noticed"
    *rows, last = old.metrics(place)
    assert rows == recorded["metrics"][:-1], "the earlier epochs' rows stay as they are"
    wanted = recorded["metrics"][-1]
    assert last.keys() >= wanted.keys()
    require_near(
        {name: float(value) for name, value in last.items()},
        {name: float(value) for name, value in wanted.items()},
    )
    require_kept(before["settings"], after["last.pt"]["settings"])
    for name in ("epoch", "step", "images", "best_epoch"):
        assert after["last.pt"]["progress"][name] == recorded["progress"][name]
    if EXACT:
        assert {name: old.digests(content) for name, content in after.items()} == recorded[
            "digests"
        ]


def test_the_best_epoch_is_judged_as_it_was(
    kind: str, place: Path, tmp_path: Path, run_here: Callable[..., Any]
) -> None:
    """From another folder than that in which it was trained: its settings say where that lay."""
    here = tmp_path / "here"
    here.mkdir()
    command = list(old.RUNS[kind][0]["judge"])
    for option in ("--checkpoint", "--data", "--root"):
        if option in command:
            at = command.index(option) + 1
            command[at] = str(place / command[at])
    done = run_here(*command, cwd=here)
    assert done.returncode == 0, done.stderr
    require_near(old.judged_figures(kind, here), RECORDED[kind]["judged"])


def test_every_file_is_small() -> None:
    assert all(file.stat().st_size < 200_000 for file in FOLDER.iterdir())
