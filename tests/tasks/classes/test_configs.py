"""The YAML files a user starts from: each is read, allowed, and says what was published."""

from functools import cache
from pathlib import Path

import pytest

from siamese.cli.parsing import parse_settings
from siamese.config import ClassificationSettings, check_classification
from siamese.zoo import count_cost, create_network, presets, require_preset

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
CIFAR = sorted((CONFIGS / "cifar").glob("*.yaml"))
RECIPES = sorted((CONFIGS / "recipes").glob("*.yaml"))


@cache
def read(path: Path, *overrides: str) -> ClassificationSettings:
    settings = parse_settings(
        ClassificationSettings,
        ["--config", str(path), *overrides],
        prog="siamese-zoo train",
        description="",
        short={},
    )
    check_classification(settings)
    return settings


@pytest.mark.parametrize("path", [*CIFAR, *RECIPES], ids=lambda path: path.stem)
def test_each_file_is_read_and_names_its_own_command(path):
    settings = read(path)
    told = path.relative_to(CONFIGS.parent).as_posix()
    assert f"siamese-zoo train --config {told}" in path.read_text(encoding="utf-8")
    network = settings.model
    if not network.name.startswith("timm/"):
        assert count_cost(create_network(network.name, **network.options), 3, 32)[0] > 0


def test_every_family_of_the_zoo_has_a_file():
    shown = {require_preset(read(path).model.name).family for path in CIFAR}
    assert shown == {preset.family for preset in presets()}


def test_validation_images_select():
    shares = {path.stem: read(path).data.validation for path in CIFAR}
    assert shares.pop("fast") == 0  # a race for the test accuracy, trained on everything
    assert set(shares.values()) == {0.1}


def test_the_papers_way_is_one_line_away():
    settings = read(
        CONFIGS / "cifar" / "preact20.yaml", "--data.validation", "0", "--trainer.test_curve=true"
    )
    assert settings.data.validation == 0
    assert settings.trainer.test_curve


# What the published figures were trained with where it is not batch 128, lr 0.1 and steps.
SPECIAL = {
    "wrn": (64, 0.1, "multistep"),
    "densenet": (32, 0.05, "multistep"),
    "resnext": (32, 0.025, "multistep"),
    "shake_shake": (64, 0.1, "cosine"),
}
OUR_OWN = ("fast", "mnist", "cpu20min")


@pytest.mark.parametrize(
    "path", [path for path in CIFAR if path.stem not in OUR_OWN], ids=lambda path: path.stem
)
def test_families_start_from_the_published_settings(path):
    settings = read(path)
    chosen = (settings.batches.size, settings.optimizer.lr, settings.schedule.name)
    assert chosen == SPECIAL.get(path.stem, (128, 0.1, "multistep"))
    assert settings.optimizer.name == "sgd"
    assert settings.optimizer.momentum == 0.9
    assert settings.optimizer.nesterov
    assert settings.optimizer.decay_norms
    wide = path.stem in ("wrn", "resnext")
    assert settings.optimizer.weight_decay == (5e-4 if wide else 1e-4)
    assert (settings.augment.crop, settings.augment.flip) == (4, 0.5)


def test_published_figures_in_comments_are_those_of_the_presets():
    told = {"vgg15_bn_64": "vgg", "resnet110": "resnet", "preact110": "preact", "wrn28_10": "wrn"}
    told |= {"preact20": "preact20", "densenet_bc100_k12": "densenet", "shake_shake26_2x64d": ""}
    told |= {"pyramidnet110_a84": "pyramidnet", "resnext29_4x64d": "resnext"}
    for preset in presets():
        if preset.name in told and preset.published:
            file = told[preset.name] or "shake_shake"
            text = (CONFIGS / "cifar" / f"{file}.yaml").read_text(encoding="utf-8")
            assert preset.published.split()[0] in text, preset.name


@pytest.mark.parametrize(
    "path", [path for path in CIFAR if path.stem not in OUR_OWN], ids=lambda path: path.stem
)
def test_a_files_settings_are_the_recipe_of_its_networks_figure(path):
    settings = read(path)
    preset = require_preset(settings.model.name)
    if preset.published is None:
        assert path.stem == "se_preact"
        return
    recipe = (
        f"batch {settings.batches.size}, lr {settings.optimizer.lr:g}, {settings.schedule.name}, "
        f"{settings.trainer.epochs} epochs"
    )
    assert preset.recipe == recipe


# arXiv 2110.00476, as the list of the three procedures has it:
#        lr    decay smoothing drop-path repeats RandAugment mixup size epochs
PROCEDURES = {
    "rsb_a1": (5e-3, 0.01, 0.1, 0.05, 3, "rand-m7-mstd0.5-inc1", 0.2, 224, 600),
    "rsb_a2": (5e-3, 0.02, 0.0, 0.05, 3, "rand-m7-mstd0.5-inc1", 0.1, 224, 300),
    "rsb_a3": (8e-3, 0.02, 0.0, 0.0, 1, "rand-m6-mstd0.5-inc1", 0.1, 160, 100),
}


@pytest.mark.parametrize("name", PROCEDURES)
def test_resnet_strikes_back(name):
    settings = read(CONFIGS / "recipes" / f"{name}.yaml")
    assert (
        settings.optimizer.lr,
        settings.optimizer.weight_decay,
        settings.loss.smoothing,
        settings.model.drop_path,
        settings.batches.repeats,
        settings.augment.rand_augment,
        settings.augment.mixup,
        settings.data.size,
        settings.trainer.epochs,
    ) == PROCEDURES[name]
    assert settings.model.name == "timm/resnet50"
    assert settings.optimizer.name == "lamb"
    assert not settings.optimizer.decay_norms
    assert (settings.schedule.name, settings.schedule.min_lr) == ("cosine", 1e-6)
    assert settings.schedule.warmup == 5
    assert (settings.augment.cutmix, settings.augment.cutmix_share) == (1.0, 0.5)
    assert (settings.loss.name, settings.loss.target_threshold) == ("bce", 0)
    assert settings.batches.size == 2048
    assert (settings.data.test_size, settings.data.test_crop) == (224, 0.95)
    assert settings.augment.resized_crop == (0.08, 1.0)


def test_deit():
    """The numbers of arXiv 2012.12877, table 9, for DeiT-S."""
    settings = read(CONFIGS / "recipes" / "deit.yaml")
    augment, optimizer, schedule = settings.augment, settings.optimizer, settings.schedule
    assert optimizer.name == "adamw"
    assert optimizer.lr == pytest.approx(5e-4 * settings.batches.size / 512)
    assert optimizer.weight_decay == 0.05
    assert (schedule.name, schedule.warmup, schedule.min_lr) == ("cosine", 5, 1e-5)
    assert augment.rand_augment == "rand-m9-mstd0.5-inc1"
    assert (augment.mixup, augment.cutmix, augment.erasing) == (0.8, 1.0, 0.25)
    assert (settings.loss.smoothing, settings.model.drop_path) == (0.1, 0.1)
    assert (settings.batches.repeats, settings.trainer.epochs) == (3, 300)
