"""One of several processes of a run: what it prints, and how it says that it ended."""

import json
from pathlib import Path

import pytest

from siamese.errors import Diverged, UserError
from siamese.studies import worker
from siamese.studies.expand import Place, expand
from siamese.studies.study import read_study

EVIL = "\x1b]0;owned\x07\u202e"


@pytest.fixture
def described(write_study, tmp_path: Path) -> Path:
    """The file that describes a run to its processes."""
    run = expand(read_study(write_study()), Place())[0].runs[0]
    content = {"label": run.label, "seed": run.seed, "hash": run.hash, "processes": 2,
               "task": run.task, "settings": run.settings.as_dict(),
               "outcome": str(tmp_path / "outcome.json")}  # fmt: skip
    (tmp_path / "run.json").write_text(json.dumps(content))
    return tmp_path / "run.json"


def test_what_it_prints_steers_no_terminal(
    described: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(worker, "train_alone", lambda run, trainer: print(f"a class {EVIL} of it"))
    assert worker.main(str(described)) == 0
    assert capsys.readouterr().out == "a class \\x1b]0;owned\\x07\\u202e of it\n"


@pytest.mark.parametrize(
    ("error", "status"),
    [(UserError("no such folder"), "error"), (Diverged("the loss is nan"), "diverged"),
     (KeyboardInterrupt(), "interrupted"), (None, "done")],
)  # fmt: skip
@pytest.mark.parametrize("rank", [0, 1])
def test_the_first_process_says_how_it_ended(
    described: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException | None, status: str,
    rank: int,
) -> None:  # fmt: skip
    def train(run: object, trainer: object) -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(worker, "train_alone", train)
    monkeypatch.setenv("RANK", str(rank))
    assert worker.main(str(described)) == (0 if error is None else 1)
    outcome = described.parent / "outcome.json"
    if rank:
        assert not outcome.exists()
        return
    told = json.loads(outcome.read_text())
    assert told["status"] == status
    assert told.get("message", "") == ("" if status in ("done", "interrupted") else str(error))
