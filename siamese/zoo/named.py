"""The named networks: a family, its options, and what was published for them; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from siamese.zoo.kept_macs import COSTS


@dataclass(frozen=True)
class Preset:
    """A named choice of a family's constructor arguments.

    Attributes:
        name: e.g. ``preact20``.
        family: key of :data:`siamese.zoo.registry.FAMILIES`.
        description: what it is, in a few words.
        options: constructor arguments other than the family's defaults.
        published: test error on CIFAR-10 in per cent, median (number of runs), of the last epoch
            and without augmentation beyond crop and flip; None: not published for this variant.
        recipe: what that figure was trained with, as far as it was stated: batch size, learning
            rate, schedule, epochs (all of it: configs/studies/published.csv).
    """

    name: str
    family: str
    description: str
    options: dict[str, Any] = field(default_factory=dict)
    published: str | None = None
    recipe: str | None = None

    @property
    def parameters(self) -> int:
        """Its parameters with 10 classes, as :func:`siamese.zoo.count_cost` counts them."""
        return COSTS[self.name][0]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one 32 px RGB image, as counted there."""
        return COSTS[self.name][1]


_BOTTLENECK = {"block": "bottleneck"}
_NARROW = {**_BOTTLENECK, "narrow_first_stage": True}
_DENSE = {"block": "basic", "compression": 1.0}
_STAGES = "bottlenecks, 64, 128, 256 channels out"
_FIRST_NARROW = "bottlenecks, but 16 channels out of the first stage"

PRESETS = (
    Preset(
        "vgg15_bn_64",
        "vgg",
        "13 convolutions, 64 to 512 channels, batch norm, one linear layer",
        published="7.29 (3)",
        recipe="batch 128, lr 0.1, multistep, 160 epochs",
    ),
    Preset("resnet8", "resnet", "basic blocks; small, for CPUs", {"depth": 8}),
    Preset("resnet14", "resnet", "basic blocks; small, for CPUs", {"depth": 14}),
    Preset("resnet20", "resnet", "basic blocks", {"depth": 20}),
    Preset("resnet56", "resnet", "basic blocks", {"depth": 56}),
    Preset(
        "resnet110",
        "resnet",
        "basic blocks",
        {"depth": 110},
        "6.52 (3)",
        "batch 128, lr 0.1, multistep, 160 epochs",
    ),
    Preset(
        "resnet50_32px",
        "resnet",
        "ImageNet's ResNet-50 with a 3x3 stem, for small images",
        {**_BOTTLENECK, "blocks": (3, 4, 6, 3), "width": 64},
    ),
    Preset(
        "preact20",
        "preact",
        "basic blocks",
        {"depth": 20},
        "8.28 (1)",
        "batch 128, lr 0.1, multistep, 200 epochs",
    ),
    Preset("preact50", "preact", "basic blocks", {"depth": 50}),
    Preset(
        "preact20_w4",
        "preact",
        "basic blocks, four times as wide",
        {"depth": 20, "width": 64},
        "4.91 (1)",
        "lr 0.2, cosine, 200 epochs",
    ),
    Preset("preact50_w4", "preact", "basic blocks, four times as wide", {"depth": 50, "width": 64}),
    Preset("preact56", "preact", "basic blocks", {"depth": 56}),
    Preset(
        "preact56_last_bn",
        "preact",
        "basic blocks that end in a batch norm",
        {"depth": 56, "add_last_bn": True},
    ),
    Preset(
        "preact110",
        "preact",
        "basic blocks",
        {"depth": 110},
        "6.47 (3)",
        "batch 128, lr 0.1, multistep, 160 epochs",
    ),
    Preset("preact164", "preact", _STAGES, {**_BOTTLENECK, "depth": 164}),
    Preset(
        "preact164_narrow",
        "preact",
        _FIRST_NARROW,
        {**_NARROW, "depth": 164},
        "5.90 (3)",
        "batch 128, lr 0.1, multistep, 160 epochs",
    ),
    Preset("preact1001", "preact", _STAGES, {**_BOTTLENECK, "depth": 1001}),
    Preset("preact1001_narrow", "preact", _FIRST_NARROW, {**_NARROW, "depth": 1001}),
    Preset(
        "se_preact110",
        "se_preact",
        "basic blocks that end in a batch norm and squeeze-and-excitation",
        {"depth": 110, "add_last_bn": True, "se_reduction": 16},
    ),
    Preset("wrn16_2", "wrn", "twice as wide; small", {"depth": 16, "widen": 2}),
    Preset(
        "wrn28_10",
        "wrn",
        "ten times as wide",
        {"depth": 28, "widen": 10},
        "4.03 (3)",
        "batch 64, lr 0.1, multistep, 200 epochs",
    ),
    Preset(
        "densenet100_k12",
        "densenet",
        "basic, stem 24",
        {**_DENSE, "growth": 12},
        "3.87 (1)",
        "batch 64, lr 0.1, multistep, 300 epochs",
    ),
    Preset(
        "densenet100_k12_stem16",
        "densenet",
        "basic, stem 16 as in the paper",
        {**_DENSE, "growth": 12, "stem": 16},
    ),
    Preset("densenet100_k24", "densenet", "basic, stem 48", {**_DENSE, "growth": 24}),
    Preset(
        "densenet100_k24_stem16",
        "densenet",
        "basic, stem 16 as in the paper",
        {**_DENSE, "growth": 24, "stem": 16},
    ),
    Preset(
        "densenet_bc100_k12",
        "densenet",
        "bottlenecks, compression 0.5",
        {"depth": 100, "growth": 12},
        "4.69 (3)",
        "batch 32, lr 0.05, multistep, 300 epochs",
    ),
    Preset(
        "densenet_bc250_k24",
        "densenet",
        "bottlenecks, compression 0.5",
        {"depth": 250, "growth": 24},
    ),
    Preset(
        "densenet_bc190_k40",
        "densenet",
        "bottlenecks, compression 0.5",
        {"depth": 190, "growth": 40},
    ),
    Preset(
        "pyramidnet110_a84",
        "pyramidnet",
        "basic blocks",
        {"depth": 110, "alpha": 84},
        "4.40 (3)",
        "batch 128, lr 0.1, multistep, 300 epochs",
    ),
    Preset(
        "pyramidnet110_a270",
        "pyramidnet",
        "basic blocks",
        {"depth": 110, "alpha": 270},
        "3.92 (1)",
        "batch 128, lr 0.1, multistep, 300 epochs",
    ),
    Preset(
        "pyramidnet164_a270",
        "pyramidnet",
        "bottlenecks",
        {**_BOTTLENECK, "depth": 164, "alpha": 270},
        "3.44 (1)",
        "batch 128, lr 0.1, multistep, 300 epochs",
    ),
    Preset(
        "pyramidnet272_a200",
        "pyramidnet",
        "bottlenecks",
        {**_BOTTLENECK, "depth": 272, "alpha": 200},
    ),
    Preset(
        "resnext29_4x64d",
        "resnext",
        "4 groups of 64",
        {"cardinality": 4},
        "3.89 (3)",
        "batch 32, lr 0.025, multistep, 300 epochs",
    ),
    Preset(
        "resnext29_8x64d",
        "resnext",
        "8 groups of 64",
        {"cardinality": 8},
        "3.97 (1)",
        "batch 64, lr 0.05, multistep, 300 epochs",
    ),
    Preset("resnext29_16x64d", "resnext", "16 groups of 64", {"cardinality": 16}),
    Preset(
        "shake_shake26_2x32d",
        "shake_shake",
        "S-S-I, width 32",
        {"width": 32},
        "3.68 (3)",
        "batch 128, lr 0.2, cosine, 1800 epochs",
    ),
    Preset(
        "shake_shake26_2x64d",
        "shake_shake",
        "S-S-I, width 64",
        {"width": 64},
        "2.88 (1)",
        "batch 64, lr 0.1, cosine, 1800 epochs",
    ),
    Preset(
        "shake_shake26_2x96d",
        "shake_shake",
        "S-S-I, width 96",
        {"width": 96},
        "2.90 (1)",
        "batch 64, lr 0.1, cosine, 1800 epochs",
    ),
    Preset("shake_shake26_2x128d", "shake_shake", "S-S-I, width 128", {"width": 128}),
)
