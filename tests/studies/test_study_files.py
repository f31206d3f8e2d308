"""Every study file: it resolves, and its runs are the published ones, row by row."""

import csv
import re
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from siamese.config import ClassificationSettings
from siamese.config.reading import build_settings, flat_settings, read_yaml
from siamese.studies.expand import Line, Place, expand
from siamese.studies.study import Study, read_study
from siamese.zoo import create_network, require_network

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "configs" / "studies"
FILES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
TABLE = ROOT.parent / "shared" / "zoo" / "published_results.csv"


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
    arms = (*own.arms[:1], *own.arms[-1:])
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
    }
    assert set(FILES) == published | own


# The published table

# What each text of the table means: preset, and the batch size where it is not 128.
NETWORKS = {
    "VGG-like (depth 15, w/ BN, channel 64)": ("vgg15_bn_64", 128),
    "ResNet-110": ("resnet110", 128),
    "ResNet-preact-110": ("preact110", 128),
    "ResNet-preact-164 bottleneck": ("preact164_narrow", 128),
    "ResNet-preact-1001 bottleneck": ("preact1001", 128),
    "WRN-28-10": ("wrn28_10", 64),
    "WRN-28-10 w/ dropout": ("wrn28_10", 64),
    "DenseNet-100 (k=12)": ("densenet100_k12", 128),
    "DenseNet-100 (k=24)": ("densenet100_k24_stem16", 128),
    "DenseNet-BC-100 (k=12)": ("densenet_bc100_k12", 32),
    "DenseNet-BC-250 (k=24)": ("densenet_bc250_k24", 128),
    "DenseNet-BC-190 (k=40)": ("densenet_bc190_k40", 128),
    "PyramidNet-110 (alpha=84)": ("pyramidnet110_a84", 128),
    "PyramidNet-110 (alpha=270)": ("pyramidnet110_a270", 128),
    "PyramidNet-110-270": ("pyramidnet110_a270", 128),
    "PyramidNet-164 bottleneck (alpha=270)": ("pyramidnet164_a270", 128),
    "PyramidNet-272 bottleneck (alpha=200)": ("pyramidnet272_a200", 128),
    "ResNeXt-29 4x64d": ("resnext29_4x64d", 32),
    "ResNeXt-29 8x64d": ("resnext29_8x64d", 64),
    "ResNeXt-29 16x64d": ("resnext29_16x64d", 128),
    "shake-shake-26 2x32d": ("shake_shake26_2x32d", 128),
    "shake-shake-26 2x64d": ("shake_shake26_2x64d", 64),
    "shake-shake-26 2x96d": ("shake_shake26_2x96d", 64),
    "shake-shake-26 2x128d": ("shake_shake26_2x128d", 64),
    "ResNet-preact-20, widening factor 4": ("preact20_w4", 128),
    "ResNet-preact-50, widening factor 4": ("preact50_w4", 128),
    "ResNet-preact-50": ("preact50", 128),
    "ResNet-preact-20": ("preact20", 128),
    "w/": ("preact56", 128),
}
AUGMENTATION_TABLES = ("cifar10_preact20_w4", "cifar10_augmentation", "cifar10_multi_gpu")
DATASETS = {"fashion_mnist": "fashion_mnist", "mnist": "mnist", "kmnist": "kmnist"}
LR = {"densenet_bc100_k12": 0.05, "resnext29_4x64d": 0.025, "resnext29_8x64d": 0.05}
EPOCHS = {"wrn": 200, "densenet": 300, "pyramidnet": 300, "resnext": 300, "shake": 1800}
PRECISION = {"": "auto", "FP32": "fp32", "FP16": "pure_fp16", "mixed": "fp16"}


def family(preset: str) -> str:
    return next((name for name in EPOCHS if preset.startswith(name)), "")


def wanted(row: dict[str, str]) -> dict[str, object]:
    """What a row of the table asks for, blanks filled by the rule."""
    name, text = row["study"], re.sub(r"\s+", " ", row["model"])
    fits = [network for network in NETWORKS if text.startswith(network)]
    preset, batch = NETWORKS[max(fits, key=len)]
    augmenting = name in AUGMENTATION_TABLES
    paper = family(preset) if name == "cifar10_main" else ""
    words = row["lr_schedule"] or "multistep"
    if augmenting or preset.startswith("shake") or "Cosine annealing" in text:
        words = "cosine"
    size = int(row["batch_size"] or batch) * int(row["n_gpus"] or 1)
    wide = preset.startswith(("wrn", "resnext"))
    epochs = int(row["epochs"] or EPOCHS.get(paper, 160))
    options: dict[str, object] = {}
    if name == "cifar10_residual_units":
        shortcut = "preactivate shortcut" in text
        options["remove_first_relu"] = "w/o 1st ReLU" in text
        options["add_last_bn"] = "w/ last BN" in text
        options["preact_stage"] = [True, shortcut, shortcut]
        epochs = 300 if "300 epochs" in text else 160
    if "w/ dropout" in text:
        options["dropout"] = 0.3

    def number(pattern: str, otherwise: float = 0) -> float:
        found = re.search(pattern, text)
        return float(found[1]) if found else otherwise

    dual = number(r"Dual-Cutout.*\(alpha=([\d.]+)\)")
    cutout = number(r"Cutout (\d+)", 16 if "Cutout" in text else 0)
    ricap = number(r"RICAP \(beta=([\d.]+)\)")
    mixing = "mixup" in text.lower()
    milestones, gamma = (0.5, 0.75), 0.1
    if paper == "wrn":
        milestones, gamma = (60, 120, 160), 0.2
    return {
        "data": next((v for k, v in DATASETS.items() if name.startswith(k)), "cifar10"),
        "validation": 0,
        "preset": preset,
        "options": options,
        "epochs": epochs,
        "batch": size,
        "ghost": int(row["ghost_batch_size"]) if row["ghost_batch_size"] else None,
        "processes": int(row["n_gpus"] or 1),
        "optimizer": (row["optimizer"] or "SGD").lower(),
        "nesterov": row["optimizer"] != "LARS",
        "momentum": 0.9,
        "lr": float(row["initial_lr"] or (0.2 if augmenting else LR.get(preset, 0.1))),
        "decay": float(row["weight_decay"] or (5e-4 if wide else 1e-4)),
        "decay_norms": row["weight_decay_on_bn"] != "no",
        "schedule": words,
        "steps": (milestones, gamma) if words == "multistep" else None,
        "warmup": 0,
        "precision": PRECISION[row["precision"]],
        "crop": 0 if ricap and "w/ random crop" not in text else 4,
        "flip": 0 if name in ("mnist", "kmnist") else 0.5,
        "cutout": cutout,
        "dual": dual,
        "ricap": ricap,
        "mixup": number(r"[Mm]ixup \(alpha=([\d.]+)\)", 1 if mixing else 0),
        "cutmix": 0,
        "erasing": 0.5 if "RandomErasing" in text else 0,
        "smoothing": number(r"label smoothing \(epsilon=([\d.]+)\)"),
    }


def held(line: Line) -> dict[str, object]:
    """The same of a run."""
    settings = line.settings
    assert isinstance(settings, ClassificationSettings)
    augment, optimizer, schedule = settings.augment, settings.optimizer, settings.schedule
    multistep = schedule.name == "multistep"
    return {
        "data": settings.data.name,
        "validation": settings.data.validation,
        "preset": settings.model.name,
        "options": settings.model.options,
        "epochs": settings.trainer.epochs,
        "batch": settings.batches.size,
        "ghost": settings.batches.ghost,
        "processes": line.runs[0].processes,
        "optimizer": optimizer.name,
        "nesterov": optimizer.nesterov,
        "momentum": optimizer.momentum,
        "lr": optimizer.lr,
        "decay": optimizer.weight_decay,
        "decay_norms": optimizer.decay_norms,
        "schedule": schedule.name,
        "steps": (tuple(schedule.milestones), schedule.gamma) if multistep else None,
        "warmup": schedule.warmup,
        "precision": settings.trainer.precision,
        "crop": augment.crop,
        "flip": augment.flip,
        "cutout": augment.cutout,
        "dual": augment.dual_cutout,
        "ricap": augment.ricap,
        "mixup": augment.mixup,
        "cutmix": augment.cutmix,
        "erasing": augment.erasing,
        "smoothing": settings.loss.smoothing,
    }


@cache
def table() -> dict[str, list[dict[str, str]]]:
    if not TABLE.exists():
        pytest.skip(f"{TABLE} does not exist: no published figures on this machine")
    studies: dict[str, list[dict[str, str]]] = {}
    with TABLE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            studies.setdefault(row["study"], []).append(row)
    return studies


def test_every_published_study_has_its_file():
    assert len(table()) == 19
    assert set(table()) <= set(FILES)


PUBLISHED = [name for name in FILES if name.startswith(("cifar10_", "fashion_", "mnist", "kmnist"))]


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_row_is_one_run_with_its_settings_and_figure(name):
    own = [(held(line), line) for line in lines(name)]
    taken: Counter[str] = Counter()
    for row in table()[name]:
        matches = [line for settings, line in own if settings == wanted(row)]
        assert len(matches) == 1, f"{row} has {len(matches)} runs; wanted {wanted(row)}"
        arm = matches[0].arm
        taken[arm.label] += 1
        figure = re.match(r"[\d.]+", row["test_error_pct"])
        assert arm.published == (float(figure[0]) if figure else None), row
        assert arm.published_runs == (int(row["n_runs_median"] or 0) or None), row
        assert arm.published_time == (row["training_time"] or None), row
        assert arm.paper == (row["paper_error"] or None), row
        if best := re.search(r"\(best ([\d.]+)\)", row["test_error_pct"]):
            text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
            assert f'# best epoch: {best[1]}\n  - {{label: "{arm.label}"' in text
    # No run of ours without a row, and no run for two rows, but where the table repeats itself.
    assert set(taken) == {line.arm.label for line in lines(name)}
    twice = {"SGD, batch 4096, lr 1.6", "LARS, batch 4096, lr 0.02"}
    assert {label for label, rows in taken.items() if rows > 1} == (
        twice if name == "cifar10_lars" else set()
    )


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
