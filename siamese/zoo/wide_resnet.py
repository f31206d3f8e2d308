"""Wide residual networks: pre-activation blocks, few and wide (arXiv 1605.07146)."""

from __future__ import annotations

from torch import nn

from siamese.zoo.network import Network, blocks_per_stage, chain, conv, require_option
from siamese.zoo.preact import PreActBlock

_STEM = 16


class WideResNet(Network):
    """WRN-depth-widen: a stem of 16 channels, three stages of 16, 32 and 64 times ``widen``.

    Shortcuts that change the shape are pre-activated.

    Args:
        num_classes: length of the logits; 0: pooled features.
        in_channels: channels of the images.
        depth: layers, 6n + 4.
        widen: widening factor.
        dropout: between the two convolutions of each block (the paper: 0.3 on CIFAR).
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        *,
        depth: int = 28,
        widen: int = 10,
        dropout: float = 0.0,
    ):
        require_option(0 <= dropout < 1, "dropout", dropout, "at least 0 and below 1")
        count = blocks_per_stage(depth, 6, 4)
        channels = _STEM
        modules: dict[str, nn.Module] = {"stem": conv(in_channels, _STEM, 3)}
        for stage in range(3):
            out = _STEM * widen * 2**stage
            parts = []
            for index in range(count):
                parts.append(
                    PreActBlock(
                        channels,
                        out,
                        2 if stage > 0 and index == 0 else 1,
                        preact_shortcut=channels != out,
                        dropout=dropout,
                    )
                )
                channels = out
            modules[f"stage{stage + 1}"] = nn.Sequential(*parts)
        modules["bn"], modules["relu"] = nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
        super().__init__(chain(**modules), channels, num_classes)
