"""Classification runs: exact resumption, what selects, what is saved, several processes."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch.nn import functional

from siamese.config import ClassificationSettings, ClassifierEvalSettings, check_classification
from siamese.errors import Diverged, UserError
from siamese.models.checkpoint import read_checkpoint, write_checkpoint
from siamese.tasks.classes.class_runs import resume_classifier, train_classifier
from siamese.tasks.classes.class_task import ClassificationTask
from siamese.tasks.classes.evaluate import evaluate
from siamese.training.loop import StepLoss
from siamese.training.monitoring import RunLog
from siamese.training.probing import Arithmetic, PlannedRun
from tests.forked import in_processes, run_siamese
from tests.runs import interrupt_at, same

Settings = ClassificationSettings


def _changed(settings: Settings, **groups: Any) -> Settings:
    """Settings with some values of some groups replaced: ``augment={"mixup": 1.0}``."""
    for group, values in groups.items():
        now = getattr(settings, group)
        changed = replace(now, **values) if isinstance(values, dict) else values
        settings = replace(settings, **{group: changed})
    check_classification(settings)
    return settings


def _elsewhere(settings: Settings, place: Path) -> Settings:
    return replace(settings, runs=str(place / "runs"), checkpoints=str(place / "checkpoints"))


def _last(settings: Settings, name: str = "last.pt") -> dict[str, Any]:
    return read_checkpoint(Path(settings.checkpoints) / "run" / name, "classifier")


def _rows(settings: Settings) -> list[dict[str, str]]:
    with open(Path(settings.runs) / "run" / "metrics.csv", encoding="utf-8") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    ("kind", "number", "groups"),
    [
        ("epoch", 1, {"augment": {"cutmix": 1.0, "cutout": 8}}),
        ("step", 4, {"optimizer": {"ema": 0.9}, "batches": {"ghost": 8}}),
        ("step", 5, {"optimizer": {"name": "radam_schedulefree", "nesterov": False, "lr": 1e-3}}),
        (
            "step",
            4,
            {
                "model": {"name": "shake_shake26_2x32d", "options": {"width": 2, "depth": 8}},
                "augment": {"dual_cutout": 0.1, "cutout": 8},
            },
        ),
    ],
)
def test_a_resumed_run_equals_the_uninterrupted_one(
    classification: Settings, tmp_path: Path, kind: str, number: int, groups: dict[str, Any]
) -> None:
    settings = _changed(classification, **groups)
    if settings.optimizer.name.endswith("schedulefree"):
        settings = _changed(settings, schedule={"name": "auto"})
    train_classifier(settings)
    stopped = _elsewhere(settings, tmp_path / "stopped")
    with pytest.MonkeyPatch.context() as patch:
        interrupt_at(patch, kind, number)
        with pytest.raises(KeyboardInterrupt):
            train_classifier(stopped)
    assert _last(stopped)["progress"]["epoch"] < 3
    torch.manual_seed(999)  # what happened in between must not matter
    resume_classifier("run", stopped.checkpoints, lambda saved: stopped)
    same(_last(settings), _last(stopped))
    same(_last(settings, "best.pt"), _last(stopped, "best.pt"))
    assert _rows(settings) == _rows(stopped)


def test_a_compiled_run_learns_what_a_plain_one_does(
    classification: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # The compiler's own rounding is not the question, and its minutes are not needed.
    compile_with = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module: compile_with(module, backend="aot_eager"))
    found = []
    for wanted in (False, True):
        place = _elsewhere(classification, tmp_path / str(wanted))
        train_classifier(_changed(place, trainer={"compile": wanted}))
        assert (", compiled; batches" in capsys.readouterr().out) == wanted
        assert _last(place)["settings"]["trainer"]["compile"] is wanted
        found.append(_rows(place))
    for plain, compiled in zip(*found, strict=True):
        for name in ("train_loss", "validation_error"):
            assert float(plain[name]) == pytest.approx(float(compiled[name]), abs=1e-3)


def test_a_layout_that_is_faster_is_taken(
    classification: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def plain(run: PlannedRun, usual: Arithmetic, others: list[Arithmetic]) -> Arithmetic:
        asked.extend([usual, *others])
        return others[0]

    monkeypatch.setattr("siamese.training.tuning.fastest", plain)
    train_classifier(classification)
    # The precision stays: a table must not depend on what its machine is fast at.
    assert asked == [Arithmetic(torch.float32, True), Arithmetic(torch.float32, False)]
    trainer = _last(classification)["settings"]["trainer"]
    assert (trainer["channels_last"], trainer["precision"]) == (False, "auto")


def test_it_learns_and_tests_once(classification: Settings) -> None:
    settings = _changed(classification, trainer={"epochs": 8})
    best = train_classifier(settings)
    rows = _rows(settings)
    assert len(rows) == 8
    assert not any(name.startswith("test_") for name in rows[0])
    errors = [float(row["validation_error"]) for row in rows]
    told = json.loads((Path(settings.runs) / "run" / "test.json").read_text(encoding="utf-8"))
    assert best.name == "best.pt"
    assert told["epoch"] == errors.index(min(errors)) + 1
    assert told["error"] < 40  # chance is 90
    found = evaluate(ClassifierEvalSettings(checkpoint=str(best), device="cpu"))
    for name in ("error", "loss", "ece"):
        assert found.figures[name] == pytest.approx(told[name], abs=1e-6)


def test_the_evaluation_files_agree_with_each_other(classification: Settings) -> None:
    best = train_classifier(classification)
    settings = ClassifierEvalSettings(checkpoint=str(best), device="cpu", part="validation")
    found = evaluate(settings)
    row = _rows(classification)[_last(classification, "best.pt")["progress"]["best_epoch"] - 1]
    assert found.figures["error"] == pytest.approx(float(row["validation_error"]))
    kept = np.load(found.out / "predictions.npz")
    assert kept["logits"].shape == kept["probabilities"].shape == (40, 10)
    wrong = np.mean(kept["probabilities"].argmax(axis=1) != kept["labels"])
    assert 100 * wrong == pytest.approx(found.figures["error"])
    with open(found.out / "classes.csv", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [row["class"] for row in table] == kept["classes"].tolist()
    right = sum(int(row["correct"]) for row in table)
    assert right == round(40 * (1 - found.figures["error"] / 100))
    assert (found.out / "confusion.png").stat().st_size > 5000


def test_without_validation_images_nothing_selects(classification: Settings) -> None:
    settings = _changed(classification, data={"validation": 0}, trainer={"test_curve": True})
    chosen = train_classifier(settings)
    assert chosen.name == "last.pt"
    assert not (chosen.parent / "best.pt").exists()
    rows = _rows(settings)
    assert {"test_error", "test_loss"} <= rows[0].keys()
    told = json.loads((Path(settings.runs) / "run" / "test.json").read_text(encoding="utf-8"))
    assert told["epoch"] == 3
    assert told["error"] == pytest.approx(float(rows[-1]["test_error"]))
    with pytest.raises(UserError, match="no validation images"):
        evaluate(ClassifierEvalSettings(checkpoint=str(chosen), part="validation"))


def test_a_test_curve_changes_nothing_but_the_table(
    classification: Settings, tmp_path: Path
) -> None:
    train_classifier(classification)
    other = _changed(_elsewhere(classification, tmp_path / "b"), trainer={"test_curve": True})
    train_classifier(other)
    same(_last(classification)["model"], _last(other)["model"])


def test_validation_happens_when_it_is_asked_for(classification: Settings) -> None:
    settings = _changed(classification, trainer={"validate_every": 2})
    train_classifier(settings)
    assert [bool(row["validation_error"]) for row in _rows(settings)] == [False, True, True]


def test_ghost_batches_are_the_gradient_of_the_mean_with_statistics_of_their_own(
    classification: Settings,
) -> None:
    """Against a loop that does by hand what ghost batch norm is: one step of a batch in parts."""
    norms: list[float] = []
    original = RunLog.step

    def remember(self: RunLog, step: int, figures: dict[str, float]) -> None:
        norms.append(figures["gradient_norm"])
        original(self, step, figures)

    batches: list[Any] = []
    tasks: list[ClassificationTask] = []
    states: list[dict[str, torch.Tensor]] = []
    original_loss = ClassificationTask.step_loss

    def watch(self: ClassificationTask, batch: Any, details: bool) -> StepLoss:
        if len(batches) < 4:
            if not batches:
                tasks.append(self)
                weights = self.model.state_dict()
                states.append({name: value.clone() for name, value in weights.items()})
            batches.append(batch)
        return original_loss(self, batch, details)

    settings = _changed(classification, batches={"ghost": 8}, trainer={"epochs": 1})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunLog, "step", remember)
        patch.setattr(ClassificationTask, "step_loss", watch)
        train_classifier(settings)
    assert [len(batch.labels) for batch in batches] == [8, 8, 8, 8]
    network = tasks[0].model
    network.load_state_dict(states[0])
    network.train().zero_grad()
    for batch in batches:
        loss = functional.cross_entropy(network(batch.images), batch.targets)
        (loss / 4).backward()
    total = math.sqrt(sum(float(p.grad.square().sum()) for p in network.parameters()))
    assert norms[0] == pytest.approx(total, rel=1e-5)


def test_each_image_counts_alike_where_ghost_batches_differ_in_size(
    classification: Settings,
) -> None:
    """40 images in parts of 32 and 8: the step is that of the mean over the images."""
    norms: list[float] = []
    batches: list[Any] = []
    tasks: list[ClassificationTask] = []
    states: list[dict[str, torch.Tensor]] = []
    original_loss = ClassificationTask.step_loss

    def watch(self: ClassificationTask, batch: Any, details: bool) -> StepLoss:
        if not batches:
            tasks.append(self)
            states.append({name: value.clone() for name, value in self.model.state_dict().items()})
        batches.append(batch)
        return original_loss(self, batch, details)

    settings = _changed(
        classification,
        data={"subset": 40, "validation": 0},
        batches={"size": 64, "ghost": 32},
        trainer={"epochs": 1},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunLog, "step", lambda _, __, told: norms.append(told["gradient_norm"]))
        patch.setattr(ClassificationTask, "step_loss", watch)
        train_classifier(settings)
    assert [len(batch.labels) for batch in batches] == [32, 8]
    network = tasks[0].model
    network.load_state_dict(states[0])
    network.train().zero_grad()
    for batch in batches:
        loss = functional.cross_entropy(network(batch.images), batch.targets, reduction="sum")
        (loss / 40).backward()
    total = math.sqrt(sum(float(p.grad.square().sum()) for p in network.parameters()))
    assert norms[0] == pytest.approx(total, rel=1e-5)


def test_images_of_a_size_that_the_network_cannot_take(classification: Settings) -> None:
    model = {"name": "timm/vit_tiny_patch16_224", "options": {"depth": 1}}
    settings = _changed(classification, model=model, data={"size": 32, "test_size": 48})
    with pytest.raises(UserError, match=r"`data\.test_size` 48: .*cannot take images of 48 x 48"):
        train_classifier(settings)


def test_a_run_stopped_before_its_test_is_tested(classification: Settings) -> None:
    train_classifier(classification)
    told = Path(classification.runs) / "run" / "test.json"
    first = told.read_text(encoding="utf-8")
    told.unlink()
    resume_classifier("run", classification.checkpoints, lambda _: classification)
    assert told.read_text(encoding="utf-8") == first
    with pytest.raises(UserError, match="all 3 epochs are done"):
        resume_classifier("run", classification.checkpoints, lambda _: classification)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": [str(9 - at) for at in range(10)]}, "other classes"),
        ({"options": [1]}, "its classifier.* cannot be used"),
        ({"network": None}, "its classifier.* cannot be used"),
        ({"size": "a"}, "its classifier.* cannot be used"),
        ({"mean": []}, "its classifier.* cannot be used"),
    ],
)
def test_a_resumed_run_has_its_own_classes_and_network(
    classification: Settings, change: dict[str, Any], message: str
) -> None:
    train_classifier(_changed(classification, trainer={"epochs": 1}))
    path = Path(classification.checkpoints) / "run" / "last.pt"
    content = _last(classification)
    write_checkpoint(path, {**content, "classifier": {**content["classifier"], **change}})
    with pytest.raises(UserError, match=message):
        resume_classifier("run", classification.checkpoints, lambda _: classification)


def test_a_broken_loss_is_told_and_the_last_checkpoint_stands(classification: Settings) -> None:
    settings = _changed(classification, optimizer={"lr": 1e30})
    with pytest.raises(Diverged, match="lower `lr`"):
        train_classifier(settings)


def test_precisions(classification: Settings, tmp_path: Path) -> None:
    for name in ("bf16", "pure_bf16"):
        settings = _changed(
            _elsewhere(classification, tmp_path / name), trainer={"precision": name, "epochs": 8}
        )
        best = train_classifier(settings)
        kind = torch.bfloat16 if name == "pure_bf16" else torch.float32
        weights = _last(settings, "best.pt")["model"]
        assert all(w.dtype == kind for w in weights.values() if w.is_floating_point())
        found = evaluate(ClassifierEvalSettings(checkpoint=str(best), device="cpu"))
        assert found.figures["error"] < 60


def test_bad_settings_are_refused(classification: Settings) -> None:
    with pytest.raises(UserError, match=r"preact21.*did you mean preact20"):
        train_classifier(_changed(classification, model={"name": "preact21"}))
    with pytest.raises(UserError, match=r"widht.*did you mean width"):
        train_classifier(_changed(classification, model={"options": {"widht": 4}}))
    with pytest.raises(UserError, match=r"`trainer\.sync_bn`"):
        train_classifier(_changed(classification, trainer={"sync_bn": True}))
    with pytest.raises(UserError, match="pure_fp16"):
        _changed(classification, trainer={"precision": "pure_fp16"}, optimizer={"name": "lars"})
    assert not (Path(classification.checkpoints) / "run").exists()


def test_a_run_is_not_overwritten_nor_resumed_as_another(
    classification: Settings, tmp_path: Path
) -> None:
    settings = _changed(classification, trainer={"epochs": 1})
    train_classifier(settings)
    with pytest.raises(UserError, match=r"exists already.*siamese-zoo resume run"):
        train_classifier(settings)
    more = _changed(settings, trainer={"epochs": 2})

    def resume(**groups: Any) -> None:
        resume_classifier("run", settings.checkpoints, lambda _: _changed(more, **groups))

    with pytest.raises(UserError, match=r"`augment.mixup` was 0.0 and cannot become 1.0"):
        resume(augment={"mixup": 1.0})
    with pytest.raises(UserError, match="all 1 epochs are done"):
        resume(trainer={"epochs": 1})
    with pytest.raises(UserError, match=r"its kind is classifier .*embedder .*is needed"):
        read_checkpoint(Path(settings.checkpoints) / "run" / "last.pt")
    resume()
    assert len(_rows(settings)) == 2
    content = _last(settings) | {"optimizer": {}}
    write_checkpoint(Path(settings.checkpoints) / "run" / "last.pt", content)
    more = _changed(settings, trainer={"epochs": 3})
    with pytest.raises(UserError, match=r"of run is damaged .*start a new run"):
        resume()


def _together(settings: Settings, folder: Path) -> str:
    """Train in two processes; what they print."""
    source = folder / "settings.yaml"
    source.write_text(yaml.safe_dump(settings.as_dict()), encoding="utf-8")
    return in_processes(2, run_siamese, "zoo", "train", "--config", source)


def test_two_processes_judge_the_network_that_is_saved(
    classification: Settings, tmp_path: Path
) -> None:
    """Each measures batch norms on images of its own, and judges a half of the images."""
    settings = _changed(classification, optimizer={"lr": 0.02, "ema": 0.9}, trainer={"epochs": 2})
    _together(settings, tmp_path)
    best = Path(settings.checkpoints) / "run" / "best.pt"
    found = evaluate(ClassifierEvalSettings(checkpoint=str(best), device="cpu", part="validation"))
    row = _rows(settings)[_last(settings, "best.pt")["progress"]["epoch"] - 1]
    assert found.figures["loss"] == pytest.approx(float(row["validation_loss"]), rel=1e-5)


def test_two_processes_train_as_one_does(classification: Settings, tmp_path: Path) -> None:
    """Each of two processes takes half of every batch, two ghost batches of it."""
    settings = _changed(
        classification,
        augment={"crop": 0},
        data={"validation": 0},
        optimizer={"lr": 0.02, "momentum": 0.0, "nesterov": False},
        trainer={"epochs": 1, "test_curve": True},
        batches={"ghost": 8},
    )
    together = _elsewhere(settings, tmp_path / "together")
    assert _together(together, tmp_path).count("done:") == 1
    train_classifier(settings)
    mine, theirs = _last(settings)["model"], _last(together)["model"]
    for name, value in mine.items():
        if "running" in name or "num_batches" in name:
            continue  # each process measures its own half; the first's are saved
        # Sums are made in another order. Biases begin at 0: theirs is 1 % of the way they went.
        assert (value - theirs[name]).norm() <= 0.01 * value.norm(), name
    assert _last(settings)["progress"]["images"] == _last(together)["progress"]["images"]
    alone, both = _rows(settings)[-1], _rows(together)[-1]
    assert float(alone["train_loss"]) == pytest.approx(float(both["train_loss"]), rel=1e-4)
