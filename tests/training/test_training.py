"""Whole runs on a small folder: resume, best and last, what is validated is what is saved."""

import csv
import json
import math
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from siamese.config import (
    AugmentSettings,
    BatchSettings,
    CurveSettings,
    ImageSettings,
    LossSettings,
    ModelSettings,
    OptimizerName,
    OptimizerSettings,
    SplitSettings,
    TrainerSettings,
    TrainSettings,
)
from siamese.data.decode import decode
from siamese.errors import Diverged, UserError
from siamese.models.checkpoint import read_checkpoint, write_checkpoint
from siamese.report.verification_report import judge
from siamese.tasks.faces.face_runs import resume_training, train_faces
from siamese.tasks.faces.face_task import FaceTask
from siamese.training.loop import StepLoss
from siamese.training.monitoring import RunLog
from tests.runs import interrupt_at, same


@pytest.fixture
def settings(face_folder: Path, tmp_path: Path) -> TrainSettings:
    """A small run: 4 training people, a network with batch norm, dropout and stochastic depth."""
    return TrainSettings(
        data=str(face_folder),
        name="run",
        runs=str(tmp_path / "runs"),
        checkpoints=str(tmp_path / "checkpoints"),
        device="cpu",
        images=ImageSettings(size=32),
        augment=AugmentSettings(color_jitter=0.3, erasing=0.2),
        split=SplitSettings(validation=2),
        batches=BatchSettings(people=3, images=3, images_per_epoch=36, workers=0),
        model=ModelSettings("test_efficientnet", 8, False, dropout=0.1, drop_path=0.1),
        optimizer=OptimizerSettings(lr=1e-2),
        trainer=TrainerSettings(epochs=4, recalibration_batches=3, log_every=1),
    )


def _last(settings: TrainSettings, name: str = "last.pt") -> dict[str, Any]:
    return read_checkpoint(Path(settings.checkpoints) / "run" / name)


def _metrics(settings: TrainSettings) -> list[dict[str, str]]:
    with open(Path(settings.runs) / "run" / "metrics.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def _stopped_and_resumed(
    settings: TrainSettings, place: Path, kind: str, number: int
) -> TrainSettings:
    """The run elsewhere, after Ctrl-C at a step or epoch and a resume."""
    stopped = _elsewhere(settings, place)
    with pytest.MonkeyPatch.context() as patch:
        interrupt_at(patch, kind, number)
        with pytest.raises(KeyboardInterrupt):
            train_faces(stopped)
    resume_training("run", stopped.checkpoints, lambda saved: stopped)
    return stopped


def _elsewhere(settings: TrainSettings, place: Path) -> TrainSettings:
    return replace(settings, runs=str(place / "runs"), checkpoints=str(place / "checkpoints"))


@pytest.mark.parametrize(
    ("optimizer", "kind", "number", "workers"),
    [
        ("radam_schedulefree", "epoch", 2, 0),
        ("radam_schedulefree", "step", 5, 2),
        ("adamw", "epoch", 2, 2),
        ("sgd_schedulefree", "step", 6, 0),
    ],
)
def test_resumed_run_equals_the_uninterrupted_one(
    settings: TrainSettings,
    tmp_path: Path,
    workers: int,
    optimizer: Any,
    kind: str,
    number: int,
) -> None:
    settings = replace(
        settings,
        optimizer=replace(settings.optimizer, name=optimizer),
        batches=replace(settings.batches, workers=workers),
    )
    train_faces(settings)
    stopped = _elsewhere(settings, tmp_path / "stopped")
    with pytest.MonkeyPatch.context() as patch:
        interrupt_at(patch, kind, number)
        with pytest.raises(KeyboardInterrupt):
            train_faces(stopped)
    progress = _last(stopped)["progress"]
    assert (progress["epoch"], progress["batch"]) == (
        (2, 0) if kind == "epoch" else divmod(number + 1, 4)
    )
    torch.manual_seed(999)  # what happened in between must not matter
    resume_training("run", stopped.checkpoints, lambda saved: stopped)
    same(_last(settings), _last(stopped))
    same(_last(settings, "best.pt"), _last(stopped, "best.pt"))
    assert _metrics(settings) == _metrics(stopped)
    assert len(_metrics(stopped)) == 4


def test_a_resumed_run_measures_batch_norms_on_the_same_pictures(
    settings: TrainSettings, tmp_path: Path, draw_people: Callable[..., Path]
) -> None:
    """People with fewer than K pictures give some twice: which, depends on all that are drawn."""
    few = draw_people(tmp_path / "few", images=3)
    settings = replace(settings, data=str(few), batches=replace(settings.batches, images=4))
    train_faces(settings)
    stopped = _stopped_and_resumed(settings, tmp_path / "stopped", "epoch", 1)
    same(_last(settings), _last(stopped))


def test_batches_augmented_on_the_device_go_on_exactly(
    settings: TrainSettings, tmp_path: Path
) -> None:
    settings = replace(settings, augment=AugmentSettings(in_batches=True, erasing=0.5))
    train_faces(settings)
    loaders = replace(settings, batches=replace(settings.batches, workers=2))
    stopped = _stopped_and_resumed(loaders, tmp_path / "stopped", "step", 5)
    same(_last(settings)["model"], _last(stopped)["model"])
    assert _metrics(settings) == _metrics(stopped)


@pytest.mark.parametrize("step", [1, 5])  # while it is frozen; the second step that it learns
def test_a_run_stopped_while_its_backbone_thaws_goes_on_exactly(
    settings: TrainSettings, tmp_path: Path, step: int
) -> None:
    settings = replace(settings, model=replace(settings.model, freeze_backbone=1))
    train_faces(settings)
    stopped = _stopped_and_resumed(settings, tmp_path / "stopped", "step", step)
    same(_last(settings), _last(stopped))


@pytest.mark.parametrize(
    ("loss", "model"),
    [
        (
            LossSettings(name="triplet", memory=40, miner="semihard", miner_after=2),
            {"pooling": "gem", "embedding_dropout": 0.2},
        ),
        (
            LossSettings(name="adaface", scale=4.0, triplet_weight=0.5),
            {"neck": "batch_norm", "backbone": "test_resnet"},
        ),
    ],
)
def test_recipes_go_on_exactly(
    settings: TrainSettings, tmp_path: Path, loss: LossSettings, model: dict[str, Any]
) -> None:
    optimizer = replace(settings.optimizer, head_lr_factor=5.0, layer_decay=0.7)
    images = replace(settings.images, size=64)
    settings = replace(settings, loss=loss, optimizer=optimizer, images=images)
    settings = replace(settings, model=replace(settings.model, drop_path=0.0, **model))
    train_faces(settings)
    stopped = _stopped_and_resumed(settings, tmp_path / "stopped", "step", 9)
    same(_last(settings), _last(stopped))
    assert _metrics(settings) == _metrics(stopped)


@pytest.mark.parametrize(("optimizer", "beta2"), [("radam_schedulefree", 0.99), ("adamw", 0.999)])
def test_moments_left_open_are_those_of_the_optimizer(
    settings: TrainSettings, optimizer: Any, beta2: float
) -> None:
    trainer = replace(settings.trainer, epochs=1)
    left_open = OptimizerSettings(optimizer, lr=1e-2)
    train_faces(replace(settings, optimizer=left_open, trainer=trainer))
    assert _last(settings)["settings"]["optimizer"]["betas"] == [0.9, beta2]
    groups = _last(settings)["optimizer"]["param_groups"]
    assert {tuple(group["betas"]) for group in groups} == {(0.9, beta2)}


def test_a_miner_that_never_begins_is_refused(settings: TrainSettings) -> None:
    late = LossSettings(miner="semihard", miner_after=4)
    with pytest.raises(UserError, match=r"`loss.miner_after` 4: of 4 epochs the miner would see"):
        train_faces(replace(settings, loss=late))


def test_a_checkpoint_without_a_number_of_epochs_is_damaged(settings: TrainSettings) -> None:
    train_faces(replace(settings, trainer=replace(settings.trainer, epochs=1)))
    path = Path(settings.checkpoints) / "run" / "last.pt"
    content = read_checkpoint(path)
    content["settings"]["trainer"]["epochs"] = None
    write_checkpoint(path, content)
    open_ended = replace(settings, trainer=replace(settings.trainer, epochs=None))
    with pytest.raises(UserError, match=r"last\.pt: is damaged, its settings hold no epochs"):
        resume_training("run", settings.checkpoints, lambda saved: open_ended)


def test_a_resumed_log_keeps_every_point(settings: TrainSettings) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with pytest.MonkeyPatch.context() as patch:
        interrupt_at(patch, "epoch", 2)
        with pytest.raises(KeyboardInterrupt):
            train_faces(settings)
    resume_training("run", settings.checkpoints, lambda saved: settings)
    events = EventAccumulator(str(Path(settings.runs) / "run"), size_guidance={"scalars": 0})
    events.Reload()
    assert [e.step for e in events.Scalars("validation/auc")] == [4, 8, 12, 16]
    assert [e.step for e in events.Scalars("train/loss")] == list(range(16))


def test_workers_do_not_change_the_run(settings: TrainSettings, tmp_path: Path) -> None:
    other = _elsewhere(settings, tmp_path / "other")
    train_faces(settings)
    train_faces(replace(other, batches=replace(other.batches, workers=2)))
    same(_last(settings)["model"], _last(other)["model"])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_is_validated_is_what_is_saved(settings: TrainSettings, precision: Any) -> None:
    train_faces(replace(settings, trainer=replace(settings.trainer, precision=precision)))
    best = Path(settings.checkpoints) / "run" / "best.pt"
    recorded = read_checkpoint(best)["figures"]
    again = judge(
        CurveSettings(
            checkpoint=str(best),
            device="cpu",
            precision=precision,
            workers=0,
            runs=settings.runs,
            flip=False,
        ),
        "roc",
    )
    for name in ("auc", "ap", "eer", "genuine_mean", "impostor_mean"):
        assert again.verified.figures[name] == pytest.approx(recorded[name], abs=1e-6)


def test_best_is_the_epoch_with_the_best_figure_on_unseen_people(settings: TrainSettings) -> None:
    train_faces(settings)
    rows = _metrics(settings)
    values = [float(row["auc"]) for row in rows]
    best = _last(settings, "best.pt")
    assert best["figures"]["auc"] == max(values)
    assert best["progress"]["best_epoch"] == values.index(max(values)) + 1
    assert _last(settings)["progress"]["epoch"] == 4
    train = set(best["split"]["train"]["identities"])
    assert train.isdisjoint(best["split"]["validation"]["identities"])


def test_train_mode_weights_differ_from_the_saved_ones(settings: TrainSettings) -> None:
    train_faces(settings)
    last = _last(settings)
    saved = [value for value in last["model"].values() if value.dtype.is_floating_point]
    assert all(not group["train_mode"] for group in last["optimizer"]["param_groups"])
    trained = {tuple(w.shape): w for w in last["train_weights"]}
    assert any(
        not torch.equal(trained[tuple(value.shape)], value)
        for value in saved
        if tuple(value.shape) in trained
    )


def test_nan_stops_with_advice_and_keeps_the_checkpoint(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = FaceTask.step_loss, [0]

    def break_down(self: FaceTask, batch: Any, details: bool) -> StepLoss:
        calls[0] += 1
        result = original(self, batch, details)
        return StepLoss(result.value * math.nan, 9) if calls[0] == 7 else result

    monkeypatch.setattr(FaceTask, "step_loss", break_down)
    with pytest.raises(UserError, match=r"nan at step 7 \(epoch 2, lr .*lower `lr`"):
        train_faces(settings)
    assert _last(settings)["progress"]["epoch"] == 1
    assert _last(settings, "best.pt")["figures"]["epoch"] == 1


def test_an_exploding_learning_rate_is_noticed(settings: TrainSettings) -> None:
    optimizer = replace(settings.optimizer, name="adamw", lr=1e30)
    schedule = replace(settings.schedule, warmup=0.0)
    with pytest.raises(Diverged, match="lower `lr`"):
        train_faces(replace(settings, optimizer=optimizer, schedule=schedule))


def test_frozen_backbone_learns_only_after_its_epochs(settings: TrainSettings) -> None:
    frozen = replace(settings, model=replace(settings.model, freeze_backbone=2))
    seen: list[dict[str, torch.Tensor]] = []
    original = FaceTask.validate

    def remember(self: FaceTask) -> dict[str, float]:
        state = self.model.backbone.state_dict()
        seen.append({name: value.clone() for name, value in state.items()})
        return original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FaceTask, "validate", remember)
        train_faces(frozen)
    first, second, third = seen[:3]
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], third[name]) for name in first)


def test_accumulated_batches_make_one_step(settings: TrainSettings) -> None:
    trainer = replace(settings.trainer, accumulate=3, epochs=2)
    train_faces(replace(settings, trainer=trainer))
    progress = _last(settings)["progress"]
    assert progress["step"] == 2 * 2  # 4 batches an epoch: 3 and 1
    assert progress["images"] == 2 * 36


def test_accumulated_gradient_is_that_of_the_mean_loss(settings: TrainSettings) -> None:
    norms: list[float] = []
    original = RunLog.step

    def remember(self: RunLog, step: int, figures: dict[str, float]) -> None:
        norms.append(figures["gradient_norm"])
        original(self, step, figures)

    # The same batch twice: its mean loss has the gradient of one. Batch norm sees each batch alone.
    plain = replace(
        settings,
        augment=AugmentSettings(0, None),
        model=replace(settings.model, dropout=0, drop_path=0),
        trainer=replace(settings.trainer, epochs=1),
    )
    batch: list[Any] = []
    original_loss = FaceTask.step_loss

    def repeat(self: FaceTask, given: Any, details: bool) -> StepLoss:
        batch.append(given)
        return original_loss(self, batch[0], details)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunLog, "step", remember)
        patch.setattr(FaceTask, "step_loss", repeat)
        train_faces(replace(plain, name="one"))
        train_faces(replace(plain, name="two", trainer=replace(plain.trainer, accumulate=2)))
    assert norms[0] == pytest.approx(norms[4], rel=1e-4)


@pytest.mark.parametrize(
    ("optimizer", "lr", "pretrained", "told"),
    [
        (
            "radam_schedulefree",
            None,
            True,
            "0.005: the default of radam_schedulefree from weights",
        ),
        ("radam_schedulefree", None, False, "0.01: the default of radam_schedulefree from random"),
        (
            "adamw",
            None,
            False,
            "0.003 after a warm-up, then a cosine down: the default of adamw",
        ),
        ("adamw", 0.02, True, "0.02 after a warm-up, then a cosine down: as set"),
    ],
)
def test_the_first_line_says_the_learning_rate_and_why(
    settings: TrainSettings, capsys: pytest.CaptureFixture[str], optimizer: OptimizerName,
    lr: float | None, pretrained: bool, told: str,
) -> None:  # fmt: skip
    settings = replace(
        settings,
        optimizer=replace(settings.optimizer, name=optimizer, lr=lr),
        model=replace(settings.model, pretrained=pretrained),
        data="nowhere",
    )
    with pytest.raises(UserError):
        train_faces(settings)
    assert capsys.readouterr().out.startswith(f"learning rate {told}")


def test_too_few_validation_people_are_told_at_the_start_and_at_the_end(
    settings: TrainSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    train_faces(replace(settings, trainer=replace(settings.trainer, epochs=1)))
    told = capsys.readouterr().out
    start, end = told.split("epoch 1/1")
    for part in (start, end):
        assert "validation people are too few to say how good the model is" in part


def test_class_weights_are_learnt_and_saved(settings: TrainSettings) -> None:
    train_faces(replace(settings, loss=LossSettings(name="arcface")))
    best = _last(settings, "best.pt")
    (weights,) = best["loss"].values()
    assert sorted(weights.shape) == [4, 8]
    names = [group["name"] for group in best["optimizer"]["param_groups"]]
    assert "loss.weights" in names
    assert "validation_loss" not in best["figures"]


def test_the_scale_is_told_kept_and_resumed(
    settings: TrainSettings,
    capsys: pytest.CaptureFixture[str],
) -> None:
    value, earlier = math.sqrt(2) * math.log(9), 64.0  # 4 people count as 10
    short = replace(
        settings,
        loss=LossSettings(name="arcface"),
        batches=replace(settings.batches, images_per_epoch=9),
        trainer=replace(settings.trainer, epochs=1),
    )
    train_faces(short)
    told = f"arcface: scale {value:.4g}, which follows from the 4 training people"
    assert told in capsys.readouterr().out
    kept = _last(short)
    assert kept["settings"]["loss"]["scale"] == pytest.approx(value)

    def resumed(content: dict[str, Any]) -> dict[str, Any]:
        write_checkpoint(Path(settings.checkpoints) / "run" / "last.pt", content)
        longer = replace(
            short,
            loss=LossSettings(**content["settings"]["loss"]),
            trainer=replace(short.trainer, epochs=2),
        )
        resume_training("run", settings.checkpoints, lambda _: longer)
        assert told not in capsys.readouterr().out
        return _last(short)

    assert resumed(kept)["settings"]["loss"] == kept["settings"]["loss"]
    # A checkpoint from before has none; its run went by the value that was usual then.
    kept["settings"]["loss"]["scale"] = None
    old = resumed(kept)
    assert old["settings"]["loss"]["scale"] == earlier
    kept["settings"]["loss"]["scale"] = earlier
    same(resumed(kept)["model"], old["model"])


def test_nothing_on_disk_is_overwritten(settings: TrainSettings) -> None:
    train_faces(replace(settings, trainer=replace(settings.trainer, epochs=1)))
    before = (Path(settings.checkpoints) / "run" / "best.pt").read_bytes()
    with pytest.raises(UserError, match=r"exists already.*--resume run"):
        train_faces(settings)
    assert (Path(settings.checkpoints) / "run" / "best.pt").read_bytes() == before


def test_resume_refuses_other_settings_and_other_people(
    settings: TrainSettings, draw_people: Callable[..., Path], tmp_path: Path
) -> None:
    train_faces(replace(settings, trainer=replace(settings.trainer, epochs=1)))

    def resume(**changes: Any) -> None:
        resume_training("run", settings.checkpoints, lambda _: replace(settings, **changes))

    with pytest.raises(UserError, match=r"`optimizer.lr` was 0.01 and cannot become 0.5"):
        resume(optimizer=replace(settings.optimizer, lr=0.5))
    with pytest.raises(UserError, match="all 1 epochs are done; raise `epochs`"):
        resume(trainer=replace(settings.trainer, epochs=1))
    other = draw_people(tmp_path / "other", names=("x", "y", "z"))
    with pytest.raises(UserError, match=r"people of .* are missing"):
        resume(data=str(other))
    with pytest.raises(UserError, match=r"no such checkpoint or run.*runs here: run"):
        resume_training("rum", settings.checkpoints, lambda _: settings)
    content = _last(settings) | {"optimizer": {}}
    write_checkpoint(Path(settings.checkpoints) / "run" / "last.pt", content)
    with pytest.raises(UserError, match=r"of run is damaged .*best\.pt, or start"):
        resume()


def test_broken_pictures_are_reported_once_and_do_not_stop_the_run(
    settings: TrainSettings, face_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for person in sorted(face_folder.iterdir()):
        victim = person / "0.png"
        victim.write_bytes(victim.read_bytes()[:600])  # the header is whole, the pixels are not
    train_faces(settings)
    told = capsys.readouterr().out
    assert told.count("left out from now on") == 6
    report = (Path(settings.runs) / "run" / "data_report.txt").read_text(encoding="utf-8")
    assert report.count("failed later") == 6
    assert int(_last(settings)["figures"]["images"]) == 10  # two validation people, 5 left of each


def test_tensorboard_shows_everything(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setattr("siamese.tasks.faces.face_log._REDRAWN", math.inf)
    train_faces(settings)
    folder = Path(settings.runs) / "run"
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    tags = events.Tags()
    wanted = {"loss", "active_triplets", "lr", "gradient_norm", "images_per_second"}
    assert {f"train/{name}" for name in wanted} <= set(tags["scalars"])
    wanted = {"auc", "ap", "eer", "tar_at_far_1e-2", "genuine_mean", "impostor_mean"}
    assert {f"validation/{name}" for name in wanted} <= set(tags["scalars"])
    assert set(tags["images"]) == {"roc", "pr", "scores", "augmented training pictures"}
    assert set(tags["histograms"]) == {"scores/genuine", "scores/impostor"}
    # Short epochs would wait for their curves: those of the last one are drawn at the end.
    assert [image.step for image in events.Images("roc")] == [16]
    assert len(events.Scalars("train/loss")) == 16
    assert len(events.Scalars("validation/auc")) == 4
    assert list(folder.glob("*/validation_people/sprite.png"))
    assert {"settings.yaml", "metrics.csv", "data_report.txt", "split.json"} <= set(
        os.listdir(folder)
    )


def test_long_epochs_show_their_curves_and_a_stopped_run_its_newest(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def drawn() -> list[int]:
        events = EventAccumulator(str(Path(settings.runs) / "run"), size_guidance={"images": 0})
        events.Reload()
        assert all(len(events.Images(tag)) == len(events.Images("roc")) for tag in ("pr", "scores"))
        return [image.step for image in events.Images("roc")]

    with monkeypatch.context() as patch:
        patch.setattr("siamese.tasks.faces.face_log._REDRAWN", math.inf)
        interrupt_at(patch, "epoch", 2)
        with pytest.raises(KeyboardInterrupt):
            train_faces(settings)
    assert drawn() == [8]
    monkeypatch.setattr("siamese.tasks.faces.face_log._REDRAWN", 0.0)
    resume_training("run", settings.checkpoints, lambda saved: settings)
    assert drawn() == [8, 12, 16]


def test_what_is_the_same_in_each_epoch_is_read_once_unless_there_is_no_room(
    settings: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Counter[tuple[str, str]]()

    def counted(path: Path, size: int | None) -> Any:
        read[where, str(path)] += 1
        return decode(path, size)

    monkeypatch.setattr("siamese.data.labelled_pictures.decode", counted)
    again = _elsewhere(settings, tmp_path / "again")
    where = "kept"
    train_faces(settings)
    where = "not kept"
    for room in ("_KEPT", "_KEPT_DECODED"):
        monkeypatch.setattr(f"siamese.tasks.faces.face_task.{room}", 0)
    train_faces(again)
    judged = set(json.loads((Path(again.runs) / "run" / "split.json").read_text())["validation"])
    often: dict[tuple[str, bool], list[int]] = {}
    for (where, path), times in read.items():
        often.setdefault((where, Path(path).parent.name in judged), []).append(times)
    assert set(often["kept", False]) == {1}
    # Batch norms are measured on three batches of nine behind each of four epochs of four batches;
    # one batch is shown. Each of the twelve pictures that are judged is shown once, too.
    assert sum(often["not kept", False]) == 4 * (3 + 4) * 9 + 9
    assert [sum(often[where, True]) for where in ("kept", "not kept")] == [2 * 12, 5 * 12]
    same(_last(settings), _last(again))
    assert _metrics(settings) == _metrics(again)


def test_the_saved_settings_repeat_the_run(settings: TrainSettings, tmp_path: Path) -> None:
    from siamese.cli.train import parse

    train_faces(settings)
    saved = Path(settings.runs) / "run" / "settings.yaml"
    again = _elsewhere(parse(["--config", str(saved)]), tmp_path / "again")
    train_faces(again)
    same(_last(settings)["model"], _last(again)["model"])
