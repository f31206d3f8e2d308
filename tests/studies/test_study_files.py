"""Every study file: it resolves, and its runs are the published ones, row by row."""

import csv
import hashlib
import re
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from siamese.config import ClassificationSettings
from siamese.config.reading import build_settings, flat_settings, read_yaml
from siamese.studies.expand import Line, Place, expand, value_of
from siamese.studies.study import Study, read_study
from siamese.zoo import create_network, require_network

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "configs" / "studies"
FILES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


@cache
def study(name: str) -> Study:
    return read_study(FOLDER / f"{name}.yaml")


@cache
def lines(name: str) -> list[Line]:
    """The runs of a study, one seed each: seeds are compared elsewhere, and cost time."""
    own = study(name)
    arms = tuple(replace(arm, seeds=(0,)) for arm in own.arms)
    return expand(replace(own, seeds=(0,), arms=arms), Place())


def by_label(name: str) -> dict[str, Line]:
    return {line.label: line for line in lines(name)}


# Every file


@pytest.mark.parametrize("name", FILES)
def test_resolves_every_run_and_names_its_own_command(name):
    assert len({line.runs[0].hash for line in lines(name)}) == len(lines(name)) > 1
    comment = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").split("\n\n")[0]
    assert f"siamese-zoo compare configs/studies/{name}.yaml" in comment
    for line in lines(name):
        if isinstance(line.settings, ClassificationSettings):
            require_network(line.settings.model.name, line.settings.model.options)


def pictures(line: Line) -> int:
    """Pictures that a run trains on, over all epochs."""
    settings = line.settings
    classifies = isinstance(settings, ClassificationSettings)
    drawn = settings.data.subset if classifies else settings.batches.images_per_epoch
    return settings.trainer.epochs * (drawn or 50_000)


@pytest.mark.parametrize("name", FILES)
def test_reductions_resolve_and_are_much_shorter(name):
    own = study(name)  # a few runs of each: every run costs time
    arms = (*own.arms[:1], *own.arms[1:][-1:])
    grid = {setting: values[-1:] for setting, values in own.grid.items()}
    few = replace(own, arms=arms, grid=grid, seeds=(0,), baseline=None)
    full = sum(pictures(line) for line in expand(few, Place()))
    assert "small" in own.budgets
    for budget in own.budgets.values():
        reduced = expand(few, Place(), replace(budget, most_seeds=1))
        assert sum(pictures(line) for line in reduced) < full / 4


def test_every_study_that_was_asked_for_is_there():
    published = {
        *("cifar10_main", "cifar10_preact20_w4", "cifar10_augmentation", "cifar10_multi_gpu"),
        *("fashion_mnist_1run", "fashion_mnist_median3", "mnist", "kmnist"),
        *("cifar10_residual_units", "cifar10_regularisers", "cifar10_linear_scaling"),
        *("cifar10_linear_scaling_long", "cifar10_initial_lr", "cifar10_good_lr_long"),
        *("cifar10_lars", "cifar10_ghost_bn", "cifar10_no_wd_bn"),
        *("cifar10_precision_1080ti", "cifar10_precision_v100"),
    }
    own = {
        *("optimizer_comparison", "optimizer_comparison_small", "optimizer_lr_sweep"),
        *("optimizer_weight_decay_sweep", "rsb_a1_a2_a3", "recipe_by_architecture"),
        *("schedule_free_vit", "schedule_free_vit_lr"),
        *("schedule_free_faces", "schedule_free_faces_lr"),
        *("face_recipes", "face_recipes_small", "face_recipes_screening"),
        *("face_people", "face_people_112", "face_people_scratch"),
        *("face_from_scratch", "face_noise", "face_more_people"),
        *("face_sizes", "face_parts_scratch", "face_overfitting"),
    }
    assert set(FILES) == published | own


# The published tables

# configs/studies/published.csv holds every published row beside the arm that stands for it, and the
# recipe that was stated with it: in the table, in the text around it, or in the commands beside it
# and the settings that they start from (their precision apart, which later tables vary). "not
# stated: V" where all of these are silent and the arm takes V.
SILENT = "not stated: "
KEYS = (
    *("study", "label", "published_model", "published", "published_runs", "published_time"),
    *("paper", "stated_in"),
)


@cache
def published() -> dict[str, list[dict[str, str]]]:
    studies: dict[str, list[dict[str, str]]] = {}
    with (FOLDER / "published.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            studies.setdefault(row["study"], []).append(row)
    return studies


RECIPE = [name for name in next(iter(published().values()))[0] if name not in KEYS]
PUBLISHED = sorted(published())


def written(value: Any) -> str:
    """A setting as published.csv writes it."""
    if value is None or value == {}:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return " ".join(map(written, value))
    if isinstance(value, dict):
        return "; ".join(f"{name}={written(item)}" for name, item in sorted(value.items()))
    return f"{value:g}" if isinstance(value, float) else str(value)


def held(name: str, line: Line) -> dict[str, str]:
    """The recipe of a run, as published.csv writes it; milestones in epochs."""
    settings = line.settings
    assert isinstance(settings, ClassificationSettings)
    flat = {setting: value_of(settings, setting) for setting in RECIPE if "." in setting}
    steps = settings.schedule.name == "multistep"
    epochs = settings.trainer.epochs
    marks = [mark * epochs if mark < 1 else mark for mark in settings.schedule.milestones]
    flat["schedule.milestones"] = marks if steps else None
    flat["schedule.gamma"] = settings.schedule.gamma if steps else None
    flat["schedule.min_lr"] = None if steps else settings.schedule.min_lr
    flat |= {"processes": line.runs[0].processes, "report": study(name).report}
    return {setting: written(value) for setting, value in flat.items()}


def test_the_published_figures_are_those_that_were_compared_with_the_tables():
    """All 362 rows were, digit for digit, when they were written down."""
    assert set(published()) == set(PUBLISHED) <= set(FILES)
    assert len(published()) == 19
    columns = ("published_model", "published", "published_runs", "published_time", "paper")
    rows = [
        "\t".join([name, *(row[column] for column in columns)])
        for name, rows in published().items()
        for row in rows
    ]
    assert len(rows) == 362
    assert hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16] == "a89017ffa89a127e"


# What the text around the tables states, written down here apart from the data file.
COSINE = (
    *("cifar10_preact20_w4", "cifar10_augmentation", "cifar10_multi_gpu", "cifar10_regularisers"),
    *("fashion_mnist_1run", "fashion_mnist_median3", "mnist", "kmnist"),
)
STATED = {name: {"optimizer.lr": "0.2", "schedule.name": "cosine"} for name in COSINE}
STATED["cifar10_residual_units"] = {"optimizer.lr": "0.2"}


@pytest.mark.parametrize("name", STATED)
def test_the_data_file_holds_what_is_stated_around_the_tables(name):
    for row in published()[name]:
        assert {setting: row[setting] for setting in STATED[name]} == STATED[name], row["label"]
    if name == "cifar10_residual_units":
        for row in published()[name]:
            cosine = "Cosine" in row["published_model"]
            assert row["schedule.name"] == ("cosine" if cosine else "multistep")
    if name.startswith("fashion"):
        assert {(row["augment.crop"], row["augment.flip"]) for row in published()[name]} == {
            ("4", "0.5")
        }


def test_the_main_table_names_its_differences_from_the_papers():
    rows = {row["model.name"]: row for row in published()["cifar10_main"] if row["published"]}
    told = {name: (row["batches.size"], row["optimizer.lr"]) for name, row in rows.items()}
    differing = {
        "wrn28_10": ("64", "0.1"),
        "densenet100_k12": ("64", "0.1"),  # as in the paper
        "densenet_bc100_k12": ("32", "0.05"),
        "resnext29_4x64d": ("32", "0.025"),
        "resnext29_8x64d": ("64", "0.05"),
        "shake_shake26_2x32d": ("128", "0.2"),
        "shake_shake26_2x64d": ("64", "0.1"),
        "shake_shake26_2x96d": ("64", "0.1"),
    }
    assert told == dict.fromkeys(rows, ("128", "0.1")) | differing


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_arm_has_the_recipe_of_its_published_row(name):
    own = by_label(name)
    taken: Counter[str] = Counter()
    for row in published()[name]:
        line = own[row["label"]]
        recipe = {setting: row[setting].removeprefix(SILENT) for setting in RECIPE}
        assert held(name, line) == recipe, row["label"]
        arm = line.arm
        taken[arm.label] += 1
        figure = re.match(r"[\d.]+", row["published"])
        assert arm.published == (float(figure[0]) if figure else None), row
        assert arm.published_runs == (int(row["published_runs"] or 0) or None), row
        assert arm.published_time == (row["published_time"] or None), row
        assert arm.paper == (row["paper"] or None), row
        if best := re.search(r"\(best ([\d.]+)\)", row["published"]):
            text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
            assert f'# best epoch: {best[1]}\n  - {{label: "{arm.label}"' in text
    # No run of ours without a row, and no run for two rows, but where the table repeats itself.
    assert set(taken) == set(own)
    twice = {"SGD, batch 4096, lr 1.6", "LARS, batch 4096, lr 0.02"}
    assert {label for label, rows in taken.items() if rows > 1} == (
        twice if name == "cifar10_lars" else set()
    )


@pytest.mark.parametrize("name", FILES)
def test_no_figure_is_published_without_a_row(name):
    for arm in study(name).arms:
        if arm.published is not None:
            rows = [row for row in published().get(name, []) if row["label"] == arm.label]
            assert rows, f"{name}: {arm.label} has a published figure and no recipe beside it"


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_studies_report_the_last_epoch_over_as_many_seeds(name):
    own = study(name)
    assert (own.figure, own.report) == ("test_error", "last")
    for line in lines(name):
        assert line.settings.trainer.test_curve
        seeds = next(arm.seeds for arm in own.arms if arm.label == line.arm.label) or own.seeds
        assert len(seeds) >= (line.arm.published_runs or 1)


def test_options_of_residual_units_are_those_of_the_zoo():
    """Two of the runs are presets of their own, whose parameters are published."""
    units = by_label("cifar10_residual_units")
    for label, preset in (
        ("w/ 1st ReLU, w/o last BN", "preact56"),
        ("w/ 1st ReLU, w/ last BN", "preact56_last_bn"),
    ):
        model = units[label].settings.model
        ours = create_network(model.name, **model.options)
        theirs = create_network(preset)
        assert sum(p.numel() for p in ours.parameters()) == sum(
            p.numel() for p in theirs.parameters()
        )


# The comparison of optimizers


def optimizers(name: str) -> dict[str, tuple[str, float | None, float, str]]:
    return {
        line.label: (
            line.settings.optimizer.name,
            line.settings.optimizer.lr,
            line.settings.optimizer.weight_decay,
            line.settings.schedule.name,
        )
        for line in lines(name)
    }


PUBLISHED_OPTIMIZERS = {
    "SGD": ("sgd", 0.01, 0.0, "constant"),
    "Adam": ("adam", 0.001, 0.0, "constant"),
    "AdamW": ("adamw", 0.001, 1e-5, "constant"),
    "AdaBound": ("adabound", 0.001, 0.0, "constant"),
    "RAdam": ("radam", 0.001, 0.0, "constant"),
}


@pytest.mark.parametrize("name", ["optimizer_comparison", "optimizer_comparison_small"])
def test_optimizer_comparison(name):
    own = optimizers(name)
    assert {label: own[label] for label in PUBLISHED_OPTIMIZERS} == PUBLISHED_OPTIMIZERS
    rest = {own[label][0] for label in own.keys() - PUBLISHED_OPTIMIZERS.keys()}
    assert rest == {"sgd_schedulefree", "adamw_schedulefree", "radam_schedulefree"}
    assert study(name).seeds == (0, 1, 2)
    for line in lines(name):
        settings = line.settings
        assert (settings.augment.crop, settings.augment.flip) == (0, 0)
        assert settings.batches.size == 32
        assert settings.optimizer.final_lr == 0.1
        assert settings.optimizer.momentum == 0.9
        assert settings.schedule.warmup == 0 or "schedule-free" in line.label
    if name == "optimizer_comparison":
        assert {line.settings.model.name for line in lines(name)} == {"resnet50_32px"}
        assert {line.settings.trainer.epochs for line in lines(name)} == {50}


@pytest.mark.parametrize(
    ("name", "swept"),
    [("optimizer_lr_sweep", "lr"), ("optimizer_weight_decay_sweep", "weight_decay")],
)
def test_sweeps_cross_the_same_optimizers_with_one_setting(name, swept):
    compared = by_label("optimizer_comparison")
    values = study(name).grid[f"optimizer.{swept}"]
    assert len(lines(name)) == len(compared) * len(values)
    for line in lines(name):
        settings, other = line.settings, compared[line.arm.label].settings
        optimizer = replace(
            settings.optimizer,
            **{swept: getattr(other.optimizer, swept)},
            decay_norms=other.optimizer.decay_norms,
        )
        assert optimizer == other.optimizer
        assert (settings.model, settings.augment, settings.batches, settings.schedule) == (
            other.model,
            other.augment,
            other.batches,
            other.schedule,
        )


# Recipes


def recipe(name: str) -> ClassificationSettings:
    path = ROOT / "configs" / "recipes" / f"{name}.yaml"
    flat = flat_settings(ClassificationSettings, read_yaml(path), str(path))
    return build_settings(ClassificationSettings, flat, str(path))


def as_recipe(line: Line) -> ClassificationSettings:
    settings = line.settings
    assert isinstance(settings, ClassificationSettings)
    return replace(settings, name=None, trainer=replace(settings.trainer, test_curve=False))


def test_procedures_are_the_recipes():
    for label, line in by_label("rsb_a1_a2_a3").items():
        assert as_recipe(line) == recipe(f"rsb_{label.lower()}")


def test_recipes_are_crossed_with_architectures():
    networks = ("timm/resnet50", "timm/deit_small_patch16_224")
    crossed = by_label("recipe_by_architecture")
    assert len(crossed) == 4
    for network in networks:
        for label, name in (("A2", "rsb_a2"), ("DeiT", "deit")):
            ours = as_recipe(crossed[f"{label}, model.name={network}"])
            whole = recipe(name)
            theirs = replace(
                whole,
                model=replace(whole.model, name=network),
                data=replace(whole.data, test_crop=ours.data.test_crop),
            )
            assert ours == theirs
    assert len({line.settings.data.test_crop for line in crossed.values()}) == 1


# Schedule-free


def test_vision_transformer_differs_in_the_optimizer_only():
    assert len({repr(line.settings.model) for line in lines("schedule_free_vit")}) == 1
    model = lines("schedule_free_vit")[0].settings.model
    network = create_network(model.name, **model.options)
    assert network.patch_embed.num_patches == 64
    names = {line.settings.optimizer.name for line in lines("schedule_free_vit")}
    assert names == {"adamw", "adamw_schedulefree", "radam_schedulefree"}
    trials = Counter(line.settings.optimizer.name for line in lines("schedule_free_vit_lr"))
    assert set(trials.values()) == {4}


def test_faces_differ_in_the_optimizer_and_the_length_only():
    own = study("schedule_free_faces")
    assert (own.figure, own.report, own.seeds) == ("test_auc", "selected", (0, 1, 2))
    groups = Counter()
    for line in lines("schedule_free_faces"):
        settings = line.settings
        groups[settings.optimizer.name] += 1
        cosine = settings.optimizer.name == "adamw"
        assert settings.schedule.name == ("cosine" if cosine else "auto")
        assert settings.split.seed == 0
        assert settings.optimizer.weight_decay == 0.01
    assert groups == {"adamw": 4, "radam_schedulefree": 4}
    rest = {
        repr((s.images, s.augment, s.split, s.batches, s.model, s.loss, s.trainer.select))
        for s in (line.settings for line in lines("schedule_free_faces"))
    }
    assert len(rest) == 1


def test_faces_learning_rates_are_tuned_alike_and_without_test_people():
    tuning, own = lines("schedule_free_faces_lr"), lines("schedule_free_faces")
    assert (study("schedule_free_faces_lr").figure, study("schedule_free_faces_lr").seeds) == (
        "auc",
        (0,),
    )
    assert Counter(line.settings.optimizer.name for line in tuning) == {
        "adamw": 4,
        "radam_schedulefree": 4,
    }
    for line in tuning:
        settings = line.settings
        assert not settings.trainer.test_curve
        same = [other for other in own if other.settings.optimizer == settings.optimizer]
        for other in same:  # the learning rate chosen there is used here, with all the rest
            assert other.settings.schedule == settings.schedule
            assert other.settings.batches == settings.batches
            assert other.settings.split == settings.split
            assert other.settings.model == settings.model
    tried = {(line.settings.optimizer.name, line.settings.optimizer.lr) for line in tuning}
    assert {(line.settings.optimizer.name, line.settings.optimizer.lr) for line in own} <= tried
