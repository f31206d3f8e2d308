"""A run's name: free, taken, or begun in vain."""

import re
from pathlib import Path

import pytest

from siamese.errors import UserError
from siamese.training.runs import at_work, find_checkpoint, take_name

BEGUN = ("settings.yaml", "split.json", "data_report.txt", "events.out.tfevents.1.host.2.0")


def place(root: Path, *files: str) -> tuple[str, str]:
    """The folders of runs and checkpoints, with files of a run ``mine``."""
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    return str(root / "runs"), str(root / "checkpoints")


def test_a_free_name_is_free(tmp_path: Path) -> None:
    assert take_name("mine", *place(tmp_path), "--resume") is None


def test_what_was_begun_in_vain_is_taken_over_and_told(tmp_path: Path) -> None:
    places = place(tmp_path, *(f"runs/mine/{file}" for file in BEGUN))
    assert "begins anew" in (take_name("mine", *places, "--resume") or "")
    assert not (tmp_path / "runs/mine").exists()


@pytest.mark.parametrize(
    "file", ["runs/mine/notes.txt", "runs/mine/test.json", "runs/mine/00000/sprite.png",
             "checkpoints/mine/epoch3.pt", "runs/mine"],
)  # fmt: skip
def test_what_somebody_could_miss_stays(tmp_path: Path, file: str) -> None:
    begun = [f"runs/mine/{name}" for name in BEGUN] if file != "runs/mine" else []
    places = place(tmp_path, *begun, file)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="exists already: choose another `name`, or remove it"):
        take_name("mine", *places, "--resume")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    places = place(tmp_path, "elsewhere/settings.yaml")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/mine").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="exists already"):
        take_name("mine", *places, "--resume")
    assert (tmp_path / "elsewhere/settings.yaml").exists()


def test_a_run_that_can_go_on_says_how(tmp_path: Path) -> None:
    places = place(tmp_path, "runs/mine/settings.yaml", "checkpoints/mine/last.pt")
    with pytest.raises(UserError, match="or continue it with --resume mine"):
        take_name("mine", *places, "--resume")


@pytest.mark.parametrize(("epochs", "free"), [(0, True), (1, True), (2, False)])
def test_a_table_of_epochs_is_missed_from_the_second_on(
    tmp_path: Path, epochs: int, free: bool
) -> None:
    """The first epoch is told just before its checkpoint is written: a full disk ends a run there.

    Of a run with more somebody has removed the checkpoints, and may want to keep the table.
    """
    places = place(tmp_path, *(f"runs/mine/{name}" for name in BEGUN))
    table = tmp_path / "runs/mine/metrics.csv"
    table.write_text("epoch,auc\n" + "1,0.5\n" * epochs)
    if free:
        assert take_name("mine", *places, "--resume") is not None
        return
    with pytest.raises(UserError, match="choose another `name`, or remove it"):
        take_name("mine", *places, "--resume")
    assert table.read_text().count("0.5") == epochs


def test_a_best_checkpoint_alone_is_named_to_go_on_from(tmp_path: Path) -> None:
    places = place(tmp_path, "runs/mine/metrics.csv", "checkpoints/mine/best.pt")
    kept = tmp_path / "checkpoints/mine/best.pt"
    with pytest.raises(UserError, match=f"--resume {re.escape(str(kept))} goes on from it"):
        find_checkpoint("mine", places[1], "--resume")
    with pytest.raises(UserError, match=f"or continue it with --resume {re.escape(str(kept))}"):
        take_name("mine", *places, "--resume")
    assert find_checkpoint(str(kept), places[1], "--resume") == kept


def test_two_at_work_on_one_run_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with (
        at_work(tmp_path / "runs/mine"),
        pytest.raises(UserError, match="another process is at work"),
        at_work(tmp_path / "runs/mine"),
    ):
        pass
    with at_work(tmp_path / "runs/mine"):
        pass
    assert list((tmp_path / "runs").iterdir()) == []
