"""Study files: what is asked for is run, and everything else is refused in one line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from siamese.config import ClassificationSettings, TrainSettings
from siamese.errors import UserError
from siamese.studies.expand import (
    Place,
    changed,
    expand,
    learning_rate,
    settings_hash,
    siblings,
    varied,
)
from siamese.studies.study import read_study

CELL = "settings: {data.validation: 0}\n"
FACE = "task: face\nsettings: {split.test: 0.2, trainer.epochs: 4}\n"


def lines_of(path, budget=None, place=None):
    study = read_study(path)
    return expand(study, place or Place(), study.budgets[budget] if budget else None)


def refusal(path, budget=None):
    with pytest.raises(UserError) as caught:
        lines_of(path, budget)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_arms_grid_and_seeds_are_crossed(write_study):
    text = CELL + "seeds: [3, 4]\nruns:\n- label: a\n- {label: b, seeds: [7]}\n"
    text += "grid: {optimizer.lr: [1e-3, 0.5], batches.size: [32, 64]}"
    lines = lines_of(write_study(text))
    assert [line.label for line in lines][:3] == [
        "a, optimizer.lr=0.001, batches.size=32",
        "a, optimizer.lr=0.001, batches.size=64",
        "a, optimizer.lr=0.5, batches.size=32",
    ]
    assert [len(line.runs) for line in lines] == [2] * 4 + [1] * 4
    run = lines[2].runs[1]
    assert (run.seed, run.settings.seed, run.settings.optimizer.lr) == (4, 4, 0.5)
    assert run.settings.batches.size == 32
    assert len({run.hash for line in lines for run in line.runs}) == 12


def test_layers_lie_over_each_other_in_order(write_study, tmp_path):
    (tmp_path / "one.yaml").write_text(
        "name: x\nseed: 9\noptimizer: {lr: 1e-3, weight_decay: 1e-5}\n"
        "model: {name: wrn28_10, options: {dropout: 0.3, width: 2}}\ndata: {validation: 0}\n"
    )
    (tmp_path / "two.yaml").write_text("optimizer: {weight_decay: 1e-4, momentum: 0.5}\n")
    text = "base: [one.yaml, two.yaml]\nsettings: {optimizer.momentum: 0.6, trainer.epochs: 7}\n"
    text += "runs:\n- {label: a, settings: {trainer.epochs: 8, model.options.width: 4}}\n"
    text += "- {label: b, settings: {model.options: {depth: 1}}}\n"
    first, second = (line.settings for line in lines_of(write_study(text)))
    assert (first.optimizer.lr, first.optimizer.weight_decay, first.optimizer.momentum) == (
        1e-3, 1e-4, 0.6,
    )  # fmt: skip
    assert (first.trainer.epochs, second.trainer.epochs, first.seed) == (8, 7, 0)
    assert first.model.options == {"dropout": 0.3, "width": 4}
    assert second.model.options == {"depth": 1}
    assert first.trainer.test_curve  # the figure is a test error


def test_where_runs_lie_is_the_commands_to_say(write_study):
    place = Place("r", "c", "cpu", "sets")
    run = lines_of(write_study(), place=place)[0].runs[0]
    assert str(run.folder) == f"r/{run.name}"
    assert str(run.checkpoints) == f"c/{run.name}"
    assert (run.settings.device, run.settings.data.root) == ("cpu", "sets")
    assert run.name == f"cifar10-preact20-{run.hash}"
    face = FACE + "runs: [{label: a}]"
    run = lines_of(write_study(face), place=Place(data="people", root="sets"))[0].runs[0]
    assert run.settings.data == "people"
    assert run.task.name == "face"


# The hash


def test_the_hash_is_the_same_in_every_process():
    code = (
        "from siamese.config import *; from siamese.studies.expand import settings_hash as h\n"
        "print(h(ClassificationSettings()), h(TrainSettings()))"
    )
    told = [
        subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
        for _ in range(2)
    ]
    here = f"{settings_hash(ClassificationSettings())} {settings_hash(TrainSettings())}"
    assert [one.stdout.strip() for one in told] == [here, here]
    assert all(len(digest) == 12 and int(digest, 16) >= 0 for digest in here.split())


@pytest.mark.parametrize(
    "change",
    ["name", "runs", "checkpoints", "device", "data.root", "data.download", "data.workers",
     "batches.test_size", "trainer.log_every", "trainer.profile"],
)  # fmt: skip
def test_what_does_not_change_a_result_does_not_change_the_hash(change):
    settings = ClassificationSettings()
    group, _, leaf = change.rpartition(".")
    holder = getattr(settings, group) if group else settings
    setattr(holder, leaf, "other" if isinstance(getattr(holder, leaf), (str, type(None))) else 3)
    assert settings_hash(settings) == settings_hash(ClassificationSettings())


def test_every_other_setting_changes_the_hash():
    def leaves(settings, prefix=""):
        for name, value in vars(settings).items():
            if hasattr(value, "__dataclass_fields__"):
                yield from leaves(value, f"{prefix}{name}.")
            else:
                yield prefix + name, settings, name

    ignored = {"name", "runs", "checkpoints", "device", "data.root", "data.download"}
    ignored |= {"data.workers", "batches.test_size", "trainer.log_every", "trainer.profile"}
    ignored |= {"trainer.compile"}
    ignored |= {"limits.weights", "limits.description"}
    seen = {settings_hash(ClassificationSettings())}
    for full in [full for full, _, _ in leaves(ClassificationSettings()) if full not in ignored]:
        settings = ClassificationSettings()
        holder, name = next((h, n) for f, h, n in leaves(settings) if f == full)
        setattr(holder, name, "other" if getattr(holder, name) != "other" else 1)
        digest = settings_hash(settings)
        assert digest not in seen, full
        seen.add(digest)
    assert len(seen) > 50


def test_younger_settings_leave_the_names_of_older_runs():
    def older():
        settings = TrainSettings()
        settings.batches.people, settings.batches.images = 8, 4  # the defaults then
        settings.trainer.epochs = 20
        settings.optimizer.lr, settings.optimizer.betas = 1e-4, (0.9, 0.999)
        return settings

    # Computed before there was any setting of this list.
    assert settings_hash(ClassificationSettings()) == "c7d54be76f99"
    assert settings_hash(older()) == "af58a8a17724"
    younger = {
        "augment": {"low_resolution": 0.1, "jpeg": 0.1, "randaugment": 1, "mixup": 0.1}
        | {"randaugment_magnitude": 10},
        "images": {"crop": 0.6},
        "model": {"pooling": "gem", "neck": "batch_norm", "embedding_dropout": 0.1},
        "loss": {"miner_after": 1, "triplet_weight": 1.0, "memory": 64},
        "optimizer": {"head_lr_factor": 2.0, "layer_decay": 0.9},
    }
    digests = {"af58a8a17724"}
    for group, changes in younger.items():
        for name, value in changes.items():
            settings = older()
            setattr(getattr(settings, group), name, value)
            digests.add(settings_hash(settings))
    assert len(digests) == 1 + sum(map(len, younger.values()))


def test_a_default_that_changed_is_another_run():
    left_open, rated = TrainSettings(), TrainSettings()
    rated.optimizer.lr = 5e-3  # what null means from pretrained weights, 1e-4 before
    assert settings_hash(left_open) == settings_hash(rated)
    rated.optimizer.lr = 1e-4
    assert settings_hash(left_open) != settings_hash(rated)
    left_open.loss.name = rated.loss.name = "multi_similarity"
    rated.optimizer.lr = None
    rated.loss.margin, rated.loss.scale = 1.0, 10.0  # 0.5 and 50 before
    assert settings_hash(left_open) == settings_hash(rated)
    rated.loss.margin, rated.loss.scale = 0.5, 50.0
    assert settings_hash(left_open) != settings_hash(rated)


def test_equal_numbers_hash_alike():
    one, two = ClassificationSettings(), ClassificationSettings()
    one.optimizer.lr, two.optimizer.lr = 1.0, 1
    one.schedule.milestones, two.schedule.milestones = (1, 2), [1.0, 2.0]
    assert settings_hash(one) == settings_hash(two)
    assert settings_hash(one, processes=2) != settings_hash(one)


def test_another_folder_of_images_is_another_run():
    settings = ClassificationSettings()
    settings.data.name = "folder"
    before = settings_hash(settings)
    settings.data.root = "elsewhere"
    assert settings_hash(settings) != before
    faces = TrainSettings()
    before = settings_hash(faces)
    faces.data = "people"
    named = settings_hash(faces)
    assert named != before
    for same in ("./people/", Path("people").absolute(), "gone/../people"):
        faces.data = str(same)
        assert settings_hash(faces) == named


# Budgets


def test_small_reduces_data_epochs_and_seeds(write_study):
    text = CELL + "seeds: [5, 6, 7]\nruns: [{label: a}, {label: b, settings: {optimizer.lr: 1}}]"
    lines = lines_of(write_study(text), "small")
    settings = lines[0].settings
    assert (settings.data.subset, settings.data.test_subset) == (2000, 1000)
    assert settings.trainer.epochs == 2
    assert [[run.seed for run in line.runs] for line in lines] == [[5, 6], [5, 6]]
    full = lines_of(write_study(text))
    assert {run.hash for line in full for run in line.runs}.isdisjoint(
        run.hash for line in lines for run in line.runs
    )


def test_reduced_runs_keep_the_ratio_of_their_lengths(write_study):
    text = (
        CELL + "settings: {data.validation: 0, schedule.warmup: 5, schedule.milestones: [100, 0.8]}"
    )
    text = text.split("\n", 1)[1]
    text += "\nruns:\n- {label: a, settings: {trainer.epochs: 200}}\n"
    text += "- {label: b, settings: {trainer.epochs: 800, batches.size: 4096}}"
    one, two = (line.settings for line in lines_of(write_study(text), "small"))
    assert (one.trainer.epochs, two.trainer.epochs) == (2, 8)
    assert (one.schedule.warmup, two.schedule.warmup) == (5 / 200, 5 / 800)
    assert one.schedule.milestones == (0.5, 0.8)
    assert one.data.subset == two.data.subset == 4096


def test_a_study_names_its_own_budgets(write_study):
    text = CELL + "runs: [{label: a}]\nbudget:\n  tiny: {trainer.epochs: 1, seeds: [4]}\n"
    lines = lines_of(write_study(text), "tiny")
    assert lines[0].settings.trainer.epochs == 1
    assert lines[0].settings.data.subset is None
    assert [run.seed for run in lines[0].runs] == [4]
    text = FACE + "runs: [{label: a}]"
    assert lines_of(write_study(text), "small")[0].settings.batches.images_per_epoch == 1024


# Refused


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("runs: [{label: a}]\nsettigns: {}", "unknown key settigns; did you mean settings?"),
        ("runs: [{lable: a}]", "run 1: unknown key lable; did you mean label?"),
        ("runs: []", "runs must be a list"),
        ("title: x", "runs must be a list"),
        ("runs: [{settings: {}}]", "run 1 has no label"),
        ("runs: [a]", "run 1 must hold"),
        (CELL + "runs: [{label: a}, {label: a}]", "two runs have the label 'a'"),
        (CELL + "runs: [{label: a}, {label: b}]", "'a' and 'b' are the same run (seed 0)"),
        (CELL + "runs: [{label: a, settings: {optimizer.lrr: 1}}]", "did you mean optimizer.lr?"),
        (CELL + "runs: [{label: a, settings: {optimizer.lr: x}}]", "must be a number or null"),
        (CELL + "runs: [{label: a, settings: {optimizer.lr: 0}}]", "'a': `optimizer.lr` 0.0: must"),
        (CELL + "runs: [{label: a, settings: {optimizer: {lr: 1}, optimizer.lr: 2}}]",
         "given twice"),
        (CELL + "runs: [{label: a, settings: {optimizer.lr: 1}}]\ngrid: {optimizer.lr: [1, 2]}",
         "optimizer.lr stands in 'a' and in grid"),
        ("settings: {optimizer.lr: 1}\nruns: [{label: a}]\ngrid: {optimizer.lr: [1, 2]}",
         "optimizer.lr stands in settings and in grid"),
        (CELL + "runs: [{label: a}]\ngrid: {optimizer.lr: 0.1}", "must be a list of values"),
        (CELL + "runs: [{label: a}]\ngrid: {optimizer.lr: [1, 1.0]}", "holds a value twice"),
        (CELL + "runs: [{label: a, published: 3}]\ngrid: {optimizer.lr: [1, 2]}", "published"),
        (CELL + "runs: [{label: a, settings: {seed: 1}}]", "seed does not belong here"),
        (CELL + "runs: [{label: a, settings: {name: x}}]", "named by the hash"),
        (CELL + "runs: [{label: a}]\nseeds: [0, 0]", "must be a list of different whole numbers"),
        (CELL + "runs: [{label: a}]\nseeds: 3", "must be a list of different whole numbers"),
        (CELL + "runs: [{label: a}]\nfigure: test_eror", "did you mean test_error?"),
        (CELL + "runs: [{label: a}]\ntask: faces", "did you mean face?"),
        (CELL + "runs: [{label: a}]\nreport: selected", "needs validation images"),
        (CELL + "runs: [{label: a}]\nfigure: validation_error", "set data.validation"),
        (CELL + "runs: [{label: a}]\nbaseline: plan", "did you mean 'a'?"),
        (CELL + "runs: [{label: a}]\nbase: gone.yaml", "base gone.yaml: no such file"),
        (CELL + "runs: [{label: a}]\ntarget: .nan", "target nan: must be a finite number"),
        (CELL + "runs: [{label: a, published: good}]", "published good: must be a finite number"),
        (CELL + "runs: [{label: a, settings: {trainer.test_curve: false}}]", "trainer.test_curve"),
        ("task: face\nsettings: {trainer.epochs: 1}\nruns: [{label: a}]", "set split.test"),
        ("task: face\nruns: [{label: a}]", "`trainer.epochs` null: runs are compared"),
        (CELL + "runs: [{label: a, processes: 0}]", "processes 0: must be a whole number"),
        (CELL + "runs: [{label: a}]\nbudget: {tiny: 3}", "budget tiny must hold settings"),
    ],
)  # fmt: skip
def test_bad_studies(write_study, text, part):
    message = refusal(write_study(text))
    assert part in message
    assert "rates.yaml" in message


def test_runs_that_a_budget_makes_the_same_are_refused(write_study):
    text = CELL + "runs: [{label: a, settings: {data.subset: 9000}}, {label: b}]"
    assert len(lines_of(write_study(text))) == 2
    assert "under the budget small" in refusal(write_study(text), "small")


# What differs


def test_changed_and_varied_name_what_matters(write_study):
    low, high = lines = lines_of(write_study())
    assert changed(low.settings) == {
        "data.validation": 0.0, "optimizer.lr": 0.01, "trainer.epochs": 3,
        "trainer.test_curve": True,
    }  # fmt: skip
    assert varied(lines) == ["optimizer.lr"]
    assert siblings([high, low], "optimizer.lr") == [[low, high]]


def test_a_learning_rate_left_to_its_default_is_known(write_study):
    text = CELL + "runs: [{label: a}, {label: b, settings: {optimizer.lr: 1}}]"
    lines = lines_of(write_study(text))
    assert [learning_rate(line.settings) for line in lines] == [0.1, 1.0]
    face = TrainSettings()
    assert learning_rate(face) == 5e-3
    face.model.pretrained = False
    assert learning_rate(face) == 1e-2
    json.dumps(changed(lines[1].settings))
