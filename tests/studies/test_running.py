"""Runs: nothing is lost and nothing made twice, whatever happens to the study."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from siamese.errors import UserError
from siamese.studies.compare import compare
from siamese.studies.expand import Place, expand
from siamese.studies.running import BusyError, locked, make_all, make_run, read_result, status
from siamese.studies.study import read_study
from tests.studies.conftest import SHORT
from tests.studies.fakes import FakeTrainer

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def trainer(tmp_path):
    return FakeTrainer(tmp_path / "journal.txt")


@pytest.fixture
def runs(write_study, tmp_path):
    place = Place(str(tmp_path / "runs"), str(tmp_path / "checkpoints"))
    lines = expand(read_study(write_study()), place)
    return [run for line in lines for run in line.runs]


def make(runs, trainer, tmp_path, **others):
    told = []
    make_all(runs, trainer, logs=tmp_path / "logs", say=told.append, **others)
    return told


def epochs(trainer):
    """How often each epoch of each run was trained."""
    return Counter((name, *rest) for kind, name, *rest in trainer.noted() if kind == "epoch")


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_run_is_made_once_and_a_second_time_nothing(runs, trainer, tmp_path, jobs):
    make(runs, trainer, tmp_path, jobs=jobs)
    assert set(epochs(trainer).values()) == {1}
    assert len(epochs(trainer)) == 4 * 3
    assert [status(run) for run in runs] == ["done"] * 4
    before = trainer.noted()
    told = make(runs, trainer, tmp_path, jobs=jobs)
    assert trainer.noted() == before
    assert told == ["4 runs: 4 over already, 0 begun, 0 to do"]
    result = read_result(runs[0])
    assert (result["hash"], result["seed"], result["device"]) == (runs[0].hash, 0, "cpu")
    assert result["settings"]["optimizer"]["lr"] == 0.01


def test_a_study_that_grew_makes_the_new_runs_only(runs, trainer, tmp_path, write_study):
    make(runs, trainer, tmp_path)
    grown = write_study().read_text() + "  - {label: more, settings: {optimizer.lr: 1}}\n"
    place = Place(str(tmp_path / "runs"), str(tmp_path / "checkpoints"))
    lines = expand(read_study(write_study(grown.replace("[0, 1]", "[0, 1, 2]"))), place)
    everything = [run for line in lines for run in line.runs]
    make(everything, trainer, tmp_path)
    assert set(epochs(trainer).values()) == {1}
    assert len(epochs(trainer)) == 9 * 3


def test_an_interrupted_run_goes_on_where_it_stood(runs, trainer, tmp_path):
    trainer.stops = (1, 3)
    with pytest.raises(KeyboardInterrupt):
        make(runs, trainer, tmp_path)
    assert [status(run) for run in runs] == ["done", "begun", "new", "new"]
    trainer.stops = None
    make(runs, trainer, tmp_path)
    assert set(epochs(trainer).values()) == {1}
    assert ["resume", runs[1].name, "2"] in trainer.noted()


def test_a_run_begun_without_a_checkpoint_starts_anew(runs, trainer, tmp_path):
    trainer.stops = (0, 1)
    with pytest.raises(KeyboardInterrupt):
        make(runs, trainer, tmp_path)
    (runs[0].folder / "metrics.csv").write_text("epoch\nx\n")
    trainer.stops = None
    make(runs, trainer, tmp_path)
    assert trainer.noted().count(["train", runs[0].name]) == 2
    assert "x" not in (runs[0].folder / "metrics.csv").read_text()


def test_a_kill_after_the_last_epoch_loses_nothing(runs, trainer, tmp_path):
    make(runs, trainer, tmp_path)
    (runs[2].folder / "result.json").unlink()
    assert status(runs[2]) == "begun"
    before = trainer.noted()
    make(runs, trainer, tmp_path)
    assert trainer.noted() == before
    assert status(runs[2]) == "done"


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_run_that_diverges_is_recorded_and_the_study_goes_on(runs, trainer, tmp_path, jobs):
    trainer.diverges_from = 0.05
    told = make(runs, trainer, tmp_path, jobs=jobs)
    assert [status(run) for run in runs] == ["done", "done", "diverged", "diverged"]
    assert "nan" in read_result(runs[3])["message"]
    assert sum("diverged, the study goes on" in line for line in told) == 2
    before = trainer.noted()
    make(runs, trainer, tmp_path, jobs=jobs)
    assert trainer.noted() == before


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_run_that_cannot_work_stops_the_study_and_is_named(runs, trainer, tmp_path, jobs):
    trainer.refuses = 1
    with pytest.raises(UserError) as caught:
        make(runs, trainer, tmp_path, jobs=jobs)
    message = str(caught.value)
    assert runs[1].name in message
    assert "seed 1" in message
    assert message.endswith("data.root: no images here")
    assert status(runs[1]) == "begun"
    assert status(runs[3]) == "new"


def test_a_process_that_dies_is_told_with_its_log(runs, trainer, tmp_path):
    trainer.crashes = 0
    with pytest.raises(UserError, match=r"its process ended with code 7; see .*\.txt"):
        make(runs, trainer, tmp_path, jobs=2)


def test_two_studies_never_work_on_one_run(runs, trainer, tmp_path):
    with locked(runs[0]):
        with pytest.raises(BusyError), locked(runs[0]):
            pass
        with pytest.raises(UserError, match="made by another process"):
            make(runs, trainer, tmp_path)
    assert [status(run) for run in runs] == ["new", "done", "done", "done"]
    make_run(runs[0], trainer)
    assert set(epochs(trainer).values()) == {1}
    assert not list((tmp_path / "runs").glob("*.lock"))


def test_a_damaged_result_is_told(runs, trainer, tmp_path):
    make(runs, trainer, tmp_path)
    (runs[0].folder / "result.json").write_text("{")
    with pytest.raises(UserError, match=r"result\.json: is damaged"):
        status(runs[0])


def test_a_resumed_run_takes_the_place_from_now(runs, trainer, tmp_path):
    trainer.stops = (0, 2)
    with pytest.raises(KeyboardInterrupt):
        make_run(runs[0], trainer)
    settings = replace(runs[0].settings, data=replace(runs[0].settings.data, root="moved"))
    trainer.stops = None
    make_run(replace(runs[0], settings=settings), trainer)
    last = json.loads((runs[0].checkpoints / "last.pt").read_text())["settings"]
    assert last["data"]["root"] == "moved"
    assert last["optimizer"]["lr"] == 0.01


# Several processes for one run


TOGETHER = SHORT.replace("seeds: [0, 1]", "seeds: [0]\nprocesses: 2")


@pytest.fixture
def together(write_study, tmp_path):
    place = Place(str(tmp_path / "runs"), str(tmp_path / "checkpoints"))
    return [line.runs[0] for line in expand(read_study(write_study(TOGETHER)), place)]


@pytest.mark.parametrize("jobs", [1, 2])
def test_processes_that_train_together_know_each_other(together, trainer, tmp_path, jobs):
    make(together, trainer, tmp_path, jobs=jobs)
    assert set(epochs(trainer).values()) == {1}
    others = [words[1:] for words in trainer.noted() if words[0] == "joined"]
    assert sorted(others) == sorted([run.name, "1", "2", "127.0.0.1"] for run in together)
    assert [read_result(run)["processes"] for run in together] == [2, 2]
    assert not list((tmp_path / "runs").glob("*.lock"))


def test_an_error_of_any_process_ends_the_run(together, trainer, tmp_path):
    trainer.refuses_rank = 1
    trainer.pause = 0.5
    with pytest.raises(UserError, match=rf"{together[0].name}\): there is no second GPU"):
        make(together[:1], trainer, tmp_path)


def test_a_run_in_processes_diverges_once(together, trainer, tmp_path):
    trainer.diverges_from = 0.0
    make(together[:1], trainer, tmp_path)
    assert read_result(together[0])["status"] == "diverged"


# Killed


def start_study(study, tmp_path, journal, jobs, in_background=False):
    """``in_background``: as a shell's ``&`` starts it in a script, deaf to Ctrl-C."""
    code = (
        "import signal\n"
        "from pathlib import Path\n"
        "from siamese.studies.expand import Place, expand\n"
        "from siamese.studies.running import make_all\n"
        "from siamese.studies.study import read_study\n"
        "from tests.studies.fakes import FakeTrainer\n"
        "if __name__ == '__main__':\n"
        f"    {'signal.signal(signal.SIGINT, signal.SIG_IGN)' * in_background}\n"
        f"    root = Path({str(tmp_path)!r})\n"
        "    place = Place(str(root / 'runs'), str(root / 'checkpoints'))\n"
        f"    lines = expand(read_study(Path({str(study)!r})), place)\n"
        "    runs = [run for line in lines for run in line.runs]\n"
        f"    trainer = FakeTrainer(Path({str(journal)!r}), pause=1.0)\n"
        f"    make_all(runs, trainer, jobs={jobs}, logs=root / 'logs')\n"
    )
    script = tmp_path / "study.py"
    script.write_text(code)
    return subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def is_free(run):
    try:
        with locked(run):
            return True
    except BusyError:
        return False


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("jobs", "how"), [(1, signal.SIGKILL), (2, signal.SIGKILL), (2, signal.SIGINT)]
)
def test_a_killed_study_goes_on_and_repeats_nothing(
    runs, trainer, write_study, tmp_path, jobs, how
):
    process = start_study(write_study(), tmp_path, trainer.journal, jobs)
    until(lambda: trainer.journal.exists() and len(epochs(trainer)) >= 4)
    process.send_signal(how)
    process.communicate(timeout=60)
    # its jobs notice, and let go of their runs
    until(lambda: all(is_free(run) for run in runs))  # its jobs notice, and let go of their runs
    done = epochs(trainer)
    assert 4 <= len(done) < 12
    make(runs, trainer, tmp_path)
    assert len(epochs(trainer)) == 12
    # an epoch that was trained and not yet saved is the only one that comes again
    assert sum(epochs(trainer).values()) <= 12 + jobs
    for run in runs:
        rows = (run.folder / "metrics.csv").read_text().splitlines()
        assert [row.split(",")[0] for row in rows] == ["epoch", "1", "2", "3"]
    assert [status(run) for run in runs] == ["done"] * 4


def test_jobs_of_a_study_in_the_background_notice_that_it_is_gone(
    runs, trainer, write_study, tmp_path
):
    process = start_study(write_study(), tmp_path, trainer.journal, 2, in_background=True)
    until(lambda: trainer.journal.exists() and len(epochs(trainer)) >= 2)
    process.kill()
    process.communicate(timeout=60)
    until(lambda: all(is_free(run) for run in runs))
    assert len(epochs(trainer)) < 6  # else both ran to their ends


# The whole command


def test_compare_writes_as_it_goes_and_again_from_what_there_is(
    write_study, placed, trainer, tmp_path, free_of_cost
):
    study = write_study()
    told = []
    trainer.stops = (1, 2)
    with pytest.raises(KeyboardInterrupt):
        compare(placed(study), trainer, told.append)
    out = tmp_path / "runs" / "studies" / "rates"
    assert "1 of 2 runs" not in (out / "table.md").read_text()
    assert "3 of 4 runs are not over" in (out / "verdict.txt").read_text()
    trainer.stops = None
    assert compare(placed(study), trainer, told.append) == out
    names = {path.name for path in out.iterdir()}
    assert names >= {"table.md", "table.html", "verdict.txt", "results.csv", "summary.json"}
    assert names >= {"plots", "study.yaml"}
    before = trainer.noted()
    (out / "table.md").unlink()
    compare(placed(study, only_report=True), trainer, told.append)
    assert (out / "table.md").exists()
    assert trainer.noted() == before
    summary = json.loads((out / "summary.json").read_text())
    assert [line["n"] for line in summary["lines"]] == [2, 2]
    assert summary["lines"][1]["published"] == 7.5
    assert summary["budget"] is None


def test_the_study_beside_a_table_makes_the_same_runs_anywhere(
    write_study, placed, trainer, tmp_path, free_of_cost
):
    untold = SHORT.replace(", published: 7.5, published_runs: 3", "")
    write_study("optimizer: {momentum: 0.5}\ntrainer: {epochs: 7}\n", "base.yaml")
    study = write_study(
        "base: base.yaml\ngrid: {optimizer.momentum: [0.8, 0.9]}\n" + untold, "夏.yaml"
    )
    out = compare(placed(study), trainer, lambda line: None)
    (tmp_path / "base.yaml").unlink()
    again = out / "study.yaml"
    assert again.read_text(encoding="utf-8").startswith("# siamese-zoo compare study.yaml\n")
    before = trainer.noted()
    compare(placed(again, out=str(tmp_path / "again")), trainer, lambda line: None)
    assert trainer.noted() == before
    assert (tmp_path / "again" / "results.csv").read_text() == (out / "results.csv").read_text()


def test_plots_of_an_earlier_state_of_the_file_are_taken_away(
    write_study, placed, trainer, free_of_cost
):
    study = write_study(SHORT + "target: 100\n")
    plots = compare(placed(study), trainer, lambda line: None) / "plots"
    assert (plots / "time_to_target.png").exists()
    (plots / "mine.png").touch()
    compare(placed(write_study()), trainer, lambda line: None)
    assert not (plots / "time_to_target.png").exists()
    assert (plots / "mine.png").exists()


def test_a_dry_run_tells_everything_and_writes_nothing(
    write_study, placed, trainer, tmp_path, free_of_cost
):
    told = []
    compare(placed(write_study(), dry_run=True), trainer, told.append)
    text = "\n".join(told)
    assert "all runs: data.validation 0, trainer.epochs 3" in text
    assert "optimizer.lr 0.1" in text
    assert text.count("6.0e+12 MACs, about 1 h 40 min") == 4
    assert "4 runs (4 new): about 6 h 40 min" in text
    assert "272,282 parameters, 40.8 M MACs" in text
    assert not (tmp_path / "runs").exists()
    assert not trainer.journal.exists()


def test_an_unknown_network_is_told_with_the_file(write_study, placed, trainer):
    study = write_study("runs: [{label: a, settings: {model.name: resnet21}}]")
    with pytest.raises(UserError, match=r"rates.yaml: 'a': `model.name` resnet21: no such preset"):
        compare(placed(study), trainer, lambda line: None)


def test_a_reduced_study_is_marked(write_study, placed, trainer, tmp_path, free_of_cost):
    study = write_study()
    out = compare(placed(study, budget="small"), trainer, lambda line: None)
    assert out.name == "rates-small"
    for name in ("table.md", "table.html", "verdict.txt"):
        text = (out / name).read_text()
        assert "REDUCED (budget small)" in text
        assert "data.subset 2000" in text
    assert json.loads((out / "summary.json").read_text())["budget"] == "small"
    assert "compare study.yaml --budget small" in (out / "study.yaml").read_text()
    with pytest.raises(UserError, match="has no such budget; it has small"):
        compare(placed(study, budget="tiny"), trainer, lambda line: None)


def test_the_cost_is_that_of_the_network(write_study):
    from siamese.studies.estimate import run_cost

    text = (
        "settings: {data.validation: 0, trainer.epochs: 2}\nruns:\n- label: a\n"
        "- {label: b, settings: {data.name: mnist, data.subset: 1000, data.test_subset: 10}}\n"
        "- {label: c, settings: {data.validation: 0.5, augment: {cutout: 8, dual_cutout: 1}}}\n"
        "- {label: d, settings: {model.name: preact21}}\n"
    )
    one, mnist, dual, wrong = (
        line.runs[0] for line in expand(read_study(write_study(text)), Place())
    )
    macs = 40_813_184
    cost = run_cost(one)
    assert (cost.parameters, cost.macs) == (272_282, macs)
    assert cost.total == macs * 2 * (3 * 50_000 + 10_000)
    small = run_cost(mnist)
    assert small.total == small.macs * 2 * (3 * 1000 + 10)
    assert run_cost(dual).total == macs * 2 * (3 * 2 * 25_000 + 25_000 + 10_000)
    with pytest.raises(UserError, match="preact20"):
        run_cost(wrong)
