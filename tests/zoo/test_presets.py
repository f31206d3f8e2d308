"""Presets: their size and cost as measured elsewhere, their published figures, and bad names."""

import csv
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from siamese.errors import UserError
from siamese.zoo import Preset, count_cost, create_network, presets, require_network, require_preset

# Parameters, and multiply-accumulates of one 32 px RGB image, of the reference implementation.
CONFORMANCE = Path(__file__).with_name("conformance.csv")
with CONFORMANCE.open(newline="", encoding="utf-8") as _file:
    KNOWN = {
        row["name"]: (int(row["parameters"]), int(row["macs"]) if row["macs"] else None)
        for row in csv.DictReader(_file)
    }


def _cost(name: str, in_channels: int = 3, size: int = 32, **options: Any) -> tuple[int, int]:
    with torch.device("meta"):  # nothing is computed, nothing takes memory
        return count_cost(
            create_network(name, in_channels=in_channels, **options), in_channels, size
        )


@pytest.mark.parametrize("name", KNOWN)
def test_cost_of_known_networks(name: str) -> None:
    parameters, macs = _cost(name)
    assert parameters == KNOWN[name][0]
    assert KNOWN[name][1] in (macs, None)  # some figures were never published


def test_every_network_of_the_reference_is_known() -> None:
    assert len(KNOWN) == 35


def test_presets_beyond_the_table() -> None:
    # The ResNet-50 for small images, known to have 23.5 M parameters, against torchvision's own.
    from torchvision.models import resnet50

    with torch.device("meta"):
        reference = resnet50(num_classes=10)
        reference.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
        reference.maxpool = torch.nn.Identity()
        expected = count_cost(reference, 3, 32)
    assert _cost("resnet50_32px") == expected
    assert _cost("resnet8")[0] == 78042
    assert _cost("wrn16_2")[0] == 691674


# Rows of presets that the main table lacks: the settings of configs/cifar/, or the plain row.
ELSEWHERE = {
    ("cifar10_linear_scaling", "batch 128, lr 0.1, multistep"),
    ("cifar10_preact20_w4", "plain, 200 epochs"),
}
PUBLISHED = Path(__file__).resolve().parents[2] / "configs" / "studies" / "published.csv"


def test_published_figures_and_their_recipes_are_those_of_the_data_file() -> None:
    found: dict[str, tuple[str, str]] = {}
    with PUBLISHED.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        plain = row["study"] == "cifar10_main" or (row["study"], row["label"]) in ELSEWHERE
        if plain and row["published"]:
            size, lr = row["batches.size"], row["optimizer.lr"]
            batch = "" if size.startswith("not stated") else f"batch {size}, "
            schedule, epochs = row["schedule.name"], row["trainer.epochs"]
            recipe = f"{batch}lr {lr}, {schedule}, {epochs} epochs"
            found[row["model.name"]] = f"{row['published']} ({row['published_runs']})", recipe
    assert found == {p.name: (p.published, p.recipe) for p in presets() if p.published is not None}
    assert all(p.recipe is None for p in presets() if p.published is None)


def test_kept_costs_are_as_counted() -> None:
    """A few of them; scripts/count_costs.py counts all anew."""
    for name in ("vgg15_bn_64", "resnet8", "resnet50_32px", "preact20", "wrn16_2"):
        preset = require_preset(name)
        assert _cost(name) == (preset.parameters, preset.macs)


def test_kept_costs_are_those_of_the_reference() -> None:
    for name, (parameters, macs) in KNOWN.items():
        preset = require_preset(name)
        assert preset.parameters == parameters
        assert macs in (preset.macs, None)


def test_names_are_unique_and_said_in_the_order_of_families() -> None:
    names = [preset.name for preset in presets()]
    assert len(set(names)) == len(names)
    families = [preset.family for preset in presets()]
    assert families == sorted(families, key=families.index)
    assert all(isinstance(preset, Preset) and preset.description for preset in presets())


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("preakt20", "preact20"),
        ("wrn_28_10", "wrn28_10"),
        ("resnet50d", "timm/resnet50d"),
        ("timm/resnett50", "timm/resnet50"),
    ],
)
def test_unknown_networks_name_the_nearest(name: str, nearest: str) -> None:
    for refuse in (create_network, require_network):
        with pytest.raises(UserError, match=rf"`model.name` {name}: .*did you mean {nearest}\?"):
            refuse(name)


def test_a_name_like_no_other_is_told_where_they_are_listed() -> None:
    with pytest.raises(UserError, match="zzz: no such preset; siamese-zoo list shows them all"):
        require_preset("zzz")


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("wrn16_2", {"drop_out": 0.3}, r"options\.drop_out`: wrn16_2 .*did you mean dropout\?"),
        ("wrn16_2", {"zzz": 1}, r"options\.zzz`: wrn16_2 .*; it has depth, widen, dropout"),
        ("preact20", {"depth": 21}, r"options\.depth` 21: must be 6n \+ 2 .*e\.g\. 20 or 26"),
        ("preact20", {"depth": 2}, r"options\.depth` 2: must be 6n \+ 2 .*e\.g\. 8 or 14"),
        ("preact164", {"depth": 20.0}, r"options\.depth` 20\.0: must be a whole number above 0"),
        ("preact20", {"depth": True}, r"options\.depth` true: must be a whole number"),
        ("preact20", {"width": -16}, r"options\.width` -16: must be a whole number above 0"),
        ("preact20", {"block": "deep"}, r"options\.block` deep: must be basic or bottleneck"),
        (
            "preact20",
            {"preact_stage": [True]},
            r"preact_stage` .*: must be a list, 3 times true or",
        ),
        ("preact20", {"add_last_bn": 1}, r"options\.add_last_bn` 1: must be true or false"),
        ("preact20", {"se_reduction": 100}, r"options\.se_reduction` 100: must be at most 16"),
        ("resnet20", {"blocks": [1, 1]}, r"options\.depth` 20: must be null where blocks is set"),
        ("resnet50_32px", {"blocks": None}, r"options\.depth` null: must be set, or blocks"),
        ("wrn16_2", {"dropout": 1}, r"options\.dropout` 1: must be at least 0 and below 1"),
        ("wrn16_2", {"dropout": "much"}, r"options\.dropout` much: must be a number"),
        ("vgg15_bn_64", {"layers": [1, 2]}, r"options\.layers` .* as many numbers as widths"),
        ("densenet100_k12", {"compression": 0}, r"options\.compression` 0: must be above 0"),
        (
            "densenet_bc100_k12",
            {"compression": 1e-3},
            r"compression` 0\.001: must be enough to keep",
        ),
        ("pyramidnet110_a84", {"alpha": -1}, r"options\.alpha` -1: must be 0 or more"),
        ("shake_shake26_2x32d", {"width": 33}, r"options\.width` 33: must be even"),
        ("resnet8", {"pretrained": True}, r"resnet8 has no pretrained .*`model\.pretrained` false"),
        ("resnet8", {"drop_path": 0.1}, r"drop_path` 0\.1: resnet8 has no stochastic depth; set 0"),
    ],
)
def test_options_that_do_not_fit_are_one_line(
    name: str, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError, match=told) as caught, torch.device("meta"):
        create_network(name, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["preact20", "timm/test_resnet"])
def test_options_that_are_settings_of_their_own_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"options\.num_classes`: is no option"):
        require_network(name, {"num_classes": 5})


def test_options_win_over_the_preset() -> None:
    deeper = create_network("preact20", depth=8, width=4, preact_stage=[True, False, False])
    assert sum(p.numel() for p in deeper.parameters()) < 10_000
    require_network("preact20", {"depth": 8})


def test_any_model_of_timm() -> None:
    torch.manual_seed(0)
    network = create_network("timm/test_resnet", num_classes=7, in_channels=1).eval()
    images = torch.randn(2, 1, 64, 64)
    reference = timm.create_model("test_resnet", num_classes=7, in_chans=1).eval()
    reference.load_state_dict(network.state_dict())
    assert torch.equal(network(images), reference(images))
    assert create_network("timm/test_resnet", num_classes=0)(torch.randn(2, 3, 64, 64)).ndim == 2


def test_transformers_of_timm_take_the_size_of_the_images() -> None:
    name = "timm/vit_tiny_patch16_224"
    network = create_network(name, num_classes=3, image_size=32, drop_path=0.1, depth=2)
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 3)
    parameters, macs = count_cost(network, 3, 32)
    assert parameters == sum(p.numel() for p in network.parameters())
    assert macs > 0


def test_what_models_of_timm_lack_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"drop_path` 0\.1: vgg11 has no stochastic depth; set 0"):
        create_network("timm/vgg11", drop_path=0.1)
    with pytest.raises(UserError, match=r"options\.drop_rat`: .*did you mean drop_rate\?"):
        create_network("timm/test_resnet", drop_rat=0.1)

    def offline(*args: object, **options: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("timm.create_model", offline)
    with pytest.raises(UserError, match=r"weights of test_resnet .*`model\.pretrained` false$"):
        create_network("timm/test_resnet", pretrained=True)


def test_counting_leaves_the_network_as_it_is() -> None:
    torch.manual_seed(0)
    network = create_network("preact20", depth=8, width=4)
    network.features.stage1.eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    parameters, macs = count_cost(network, 3, 32)
    assert parameters == sum(p.numel() for p in network.parameters())
    # Stem, two 3x3 in each block, two 1x1 shortcuts, and the classifier, by hand.
    by_hand = 1024 * 9 * (3 * 4 + 2 * 4 * 4) + 256 * (9 * (4 * 8 + 8 * 8) + 4 * 8)
    by_hand += 64 * (9 * (8 * 16 + 16 * 16) + 8 * 16) + 16 * 10
    assert macs == by_hand
    assert [module.training for module in network.modules()] == modes
    assert all(p.device.type == "cpu" and p.requires_grad for p in network.parameters())
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key])
