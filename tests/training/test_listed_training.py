"""Training on lists: the same people, merges and pictures in training, resume and judgement."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from siamese.config import (
    BatchSettings,
    CurveSettings,
    ImageSettings,
    ModelSettings,
    OptimizerSettings,
    SplitListSettings,
    SplitSettings,
    ThresholdSettings,
    TrainerSettings,
    TrainSettings,
    check_settings,
)
from siamese.curation.identity_split import write_split
from siamese.errors import UserError
from siamese.models.checkpoint import read_checkpoint, write_checkpoint
from siamese.report.embedding_sources import embed_people, load_model
from siamese.report.threshold_choice import _others
from siamese.report.verification_report import judge
from siamese.studies.expand import settings_hash
from siamese.tasks.faces.face_runs import resume_training, train_faces
from siamese.tasks.faces.face_spec import pictures_of_lists
from tests.runs import interrupt_at, same

NAMES = tuple(f"人{number:02d} x" for number in range(12))


@pytest.fixture
def place(tmp_path: Path, draw_people: Callable[..., Path], monkeypatch: Any) -> Path:
    """`faces` with 12 folders and `lists`, for which six of them are three people."""
    monkeypatch.chdir(tmp_path)
    draw_people(Path("faces"), NAMES, images=4)
    pairs = [f"{NAMES[at]},{NAMES[at + 1]}" for at in (0, 2, 4)]
    Path("merge.csv").write_text("\n".join(["first,second", *pairs]), encoding="utf-8")
    write_split(
        SplitListSettings(
            data="faces", out="lists", validation=3, test=2, merge="merge.csv", seed=SEED
        )
    )
    return tmp_path


SEED = 0  # every part has a merged person


@pytest.fixture
def settings(place: Path) -> TrainSettings:
    return TrainSettings(
        data="faces",
        name="run",
        device="cpu",
        images=ImageSettings(size=32),
        split=SplitSettings(lists="lists"),
        batches=BatchSettings(people=3, images=3, images_per_epoch=18, workers=0),
        model=ModelSettings("test_resnet", 8, False),
        optimizer=OptimizerSettings(lr=1e-2),
        trainer=TrainerSettings(epochs=3, recalibration_batches=1, test_curve=True),
    )


BEST = Path("checkpoints/run/best.pt")


def listed() -> dict[str, dict[str, list[str]]]:
    parts: dict[str, dict[str, list[str]]] = {}
    for file in Path("lists").glob("*.csv"):
        with open(file, encoding="utf-8", newline="") as rows:
            for row in csv.DictReader(rows):
                parts.setdefault(file.stem, {}).setdefault(row["person"], []).append(row["path"])
    return parts


def test_a_run_learns_and_judges_what_the_lists_say(settings: TrainSettings) -> None:
    parts = listed()
    merged = {part: [p for p in some if len(some[p]) == 8] for part, some in parts.items()}
    assert all(merged.values()), "choose a seed with a merged person in every part"
    extra = Path("faces") / merged["test"][0] / "new.png"
    Image.new("RGB", (40, 48)).save(extra)  # in no list: takes no part
    train_faces(settings)
    content = read_checkpoint(BEST)
    for part, people in parts.items():
        saved = content["split"][part]
        assert saved["identities"] == sorted(people)
        assert saved["listed"] == people
        assert saved["pictures"] == sum(map(len, people.values()))
    split = json.loads(Path("runs/run/split.json").read_text(encoding="utf-8"))
    assert split == {part: sorted(people) for part, people in parts.items()}
    report = Path("runs/run/data_report.txt").read_text(encoding="utf-8")
    for names in merged.values():
        for name in names:
            at = NAMES.index(name)
            assert f"  {name}: pictures of {NAMES[at]}, {NAMES[at + 1]}" in report
    with open("runs/run/metrics.csv", encoding="utf-8") as rows:
        judged = list(csv.DictReader(rows))
    for name in ("test_auc", "test_ap", "test_eer", "test_tar_at_far_1e-2"):
        assert all(0 <= float(row[name]) <= 1 for row in judged)
    shutil.rmtree("lists")
    for part, people in parts.items():
        people_of = embed_people(
            CurveSettings(checkpoint=str(BEST), part=part, device="cpu", workers=0)  # type: ignore[arg-type]
        )
        assert people_of.names == tuple(sorted(people))
        assert people_of.paths is not None
        found = {name: [] for name in people}
        for path, label in zip(people_of.paths, people_of.labels, strict=True):
            found[people_of.names[label]].append(path)
        assert found == people
    shutil.move("faces", "moved")
    figures = judge(
        CurveSettings(
            checkpoint=str(BEST), data="moved", part="test", device="cpu", workers=0, resamples=0
        ),
        "roc",
    ).verified.figures
    assert figures["images"] == sum(map(len, parts["test"].values()))
    assert figures["identities"] == 2


def test_names_of_merged_folders_are_known_as_trained_on(settings: TrainSettings) -> None:
    train_faces(replace(settings, trainer=replace(settings.trainer, epochs=1)))
    parts = listed()
    person = next(name for name, paths in parts["train"].items() if len(paths) == 8)
    other = NAMES[NAMES.index(person) + 1]
    assert other not in parts["train"]
    Path("others").mkdir()
    for name, new in ((other, other), (NAMES[0], "new"), (NAMES[1], "newer")):
        shutil.copytree(Path("faces") / name, Path("others") / new)
    common = {"checkpoint": str(BEST), "data": "others", "device": "cpu", "workers": 0}
    notes = embed_people(CurveSettings(**common)).notes
    told = f"1 of the 3 people in others have names that were trained on ({other})"
    assert any(told in note for note in notes)
    given = ThresholdSettings(**common)
    folder, told = _others(load_model(given), given.data, given.part)
    assert folder is not None
    assert folder.names == ("new", "newer")
    assert f"1 people left out whose names trained the network or chose the threshold: {other}" in (
        told
    )


def test_a_resumed_run_needs_no_lists_and_equals_the_uninterrupted_one(
    settings: TrainSettings, tmp_path: Path
) -> None:
    train_faces(settings)
    stopped = replace(settings, runs="stopped/runs", checkpoints="stopped/checkpoints")
    with pytest.MonkeyPatch.context() as patch:
        interrupt_at(patch, "epoch", 1)
        with pytest.raises(KeyboardInterrupt):
            train_faces(stopped)
    shutil.rmtree("lists")
    shutil.copy(f"faces/{NAMES[0]}/0.png", f"faces/{NAMES[0]}/late.png")
    torch.manual_seed(99)
    resume_training("run", "stopped/checkpoints", lambda saved: stopped)
    for name in ("best.pt", "last.pt"):
        same(
            read_checkpoint(Path("checkpoints/run") / name),
            read_checkpoint(Path("stopped/checkpoints/run") / name),
        )


def test_resume_tells_of_missing_pictures_and_refuses_missing_people_and_other_lists(
    settings: TrainSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    train_faces(replace(settings, trainer=replace(settings.trainer, epochs=1)))
    more = replace(settings, trainer=replace(settings.trainer, epochs=2))
    shutil.copytree("lists", "lists2")
    other = replace(more, split=SplitSettings(lists="lists2"))
    with pytest.raises(UserError, match=r"`split\.lists` was lists and cannot become lists2"):
        resume_training("run", "checkpoints", lambda saved: other)
    shutil.move("faces", "moved")
    with pytest.raises(UserError, match="faces: no such folder"):
        resume_training("run", "checkpoints", lambda saved: more)
    more = replace(more, data="moved")
    person, paths = next(iter(listed()["validation"].items()))
    Path("moved", paths[0]).unlink()
    resume_training("run", "checkpoints", lambda saved: more)
    told = capsys.readouterr().out
    before = sum(map(len, listed()["validation"].values()))
    assert f"note: validation has {before - 1} pictures now, {before} before" in told
    for path in paths[1:]:
        Path("moved", path).unlink()
    more = replace(more, trainer=replace(more.trainer, epochs=3))
    with pytest.raises(UserError, match=rf"1 validation people of .* are missing \({person}\)"):
        resume_training("run", "checkpoints", lambda saved: more)


def test_a_checkpoint_with_damaged_lists_is_refused(settings: TrainSettings) -> None:
    train_faces(replace(settings, trainer=replace(settings.trainer, epochs=1)))
    content = read_checkpoint(BEST)
    for wrong in ([], {"a": "b"}, {"a": [3]}, {3: ["a"]}):
        content["split"]["test"]["listed"] = wrong
        write_checkpoint(BEST, {k: v for k, v in content.items() if k not in ("format", "version")})
        with pytest.raises(UserError, match=r"split\.test\.listed cannot|not a readable"):
            read_checkpoint(BEST)


def test_the_study_of_lists_is_named_by_them(settings: TrainSettings) -> None:
    named = settings_hash(settings)
    for lists, alike in (("./lists/", True), ("lists2", False), (None, False)):
        split = SplitSettings(lists=lists)
        assert (settings_hash(replace(settings, split=split)) == named) is alike
    assert pictures_of_lists("lists") == {
        part: sum(map(len, people.values())) for part, people in listed().items()
    }
    assert pictures_of_lists("nowhere") == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test": 2}, r"`split\.test` 2: does nothing beside `split\.lists`"),
        ({"seed": 0}, r"`split\.seed` 0: does nothing beside .*null unsets it"),
        ({"validation_data": "v"}, r"`split\.validation_data` v: does nothing beside"),
        ({"test_data": "t"}, r"`split\.test_data` t: does nothing beside"),
    ],
)
def test_contradictions_are_refused(
    settings: TrainSettings, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check_settings(replace(settings, split=replace(settings.split, **change)))


def test_lists_need_a_folder_and_a_test_curve_needs_test_people(settings: TrainSettings) -> None:
    with pytest.raises(UserError, match=r"`split\.lists`: give the folder .* with `data`"):
        check_settings(replace(settings, data=None))
    check_settings(settings)
    Path("lists/test.csv").unlink()
    with pytest.raises(UserError, match=r"test_curve` true: there is no test\.csv in lists"):
        train_faces(settings)
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ("gone", "gone: no such folder; write lists with siamese-data split"),
        ("merge.csv", "merge.csv: no such folder"),
        ("empty", "empty: has no train.csv"),
        ("bad", "bad/train.csv, line 2: no such picture in faces: 'x/1.png' (1 of 1"),
    ],
)
def test_bad_lists_are_one_line(
    place: Path, run_here: Callable[..., Any], lists: str, message: str
) -> None:
    Path("empty").mkdir()
    Path("bad").mkdir()
    Path("bad/train.csv").write_text("path\nx/1.png\n")
    Path("bad/validation.csv").write_text("path\ny/1.png\n")
    backbone = ("--backbone", "test_resnet", "--model.pretrained", "false", "--device", "cpu")
    told = run_here("train", "--data", "faces", "--split.lists", lists, *backbone)
    assert told.returncode == 2
    assert message in told.stderr
    assert told.stderr.count("\n") == 1
    assert not Path("runs").exists()
