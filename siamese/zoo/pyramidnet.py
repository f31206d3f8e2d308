"""PyramidNet: residual blocks whose channels grow by the same amount each (arXiv 1610.02915)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from siamese.zoo.network import Network, blocks_per_stage, chain, conv, require_option
from siamese.zoo.preact import PreActBlock
from siamese.zoo.resnet import EXPANSION


class PaddedShortcut(nn.Module):
    """Averages 2x2 pixels where the block halves the size; missing channels are zeros."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        # At an odd edge the mean of what is there, as many pixels as the convolution gives.
        self.pool = nn.AvgPool2d(2, ceil_mode=True) if stride == 2 else nn.Identity()
        self.missing = out_channels - in_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (N, in, H, W) to (N, out, H / stride, W / stride)."""
        return F.pad(self.pool(x), (0, 0, 0, 0, 0, self.missing))


class PyramidNet(Network):
    """A 3x3 stem of 16 channels and three stages of additively widening blocks.

    Blocks have no first ReLU and a last batch norm.

    Args:
        num_classes: length of the logits; 0: pooled features.
        in_channels: channels of the images.
        depth: layers, 6n + 2 (basic) or 9n + 2 (bottleneck).
        block: basic or bottleneck.
        alpha: channels added from the stem to the last block (before a bottleneck's factor 4).
        width: channels of the stem.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        *,
        depth: int = 110,
        block: Literal["basic", "bottleneck"] = "basic",
        alpha: float = 84,
        width: int = 16,
    ):
        require_option(alpha >= 0, "alpha", alpha, "0 or more")
        bottleneck = block == "bottleneck"
        count = blocks_per_stage(depth, 9 if bottleneck else 6, 2)
        channels = width
        modules: dict[str, nn.Module] = {
            "stem": chain(conv=conv(in_channels, width, 3), bn=nn.BatchNorm2d(width))
        }
        for stage in range(3):
            parts = []
            for index in range(count):
                done = stage * count + index + 1
                out = round(width + alpha * done / (3 * count)) * (EXPANSION if bottleneck else 1)
                stride = 2 if stage > 0 and index == 0 else 1
                parts.append(
                    PreActBlock(
                        channels,
                        out,
                        stride,
                        bottleneck=bottleneck,
                        shortcut=PaddedShortcut(channels, out, stride),
                        first_relu=False,
                        last_bn=True,
                    )
                )
                channels = out
            modules[f"stage{stage + 1}"] = nn.Sequential(*parts)
        modules["bn"], modules["relu"] = nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
        super().__init__(chain(**modules), channels, num_classes)
