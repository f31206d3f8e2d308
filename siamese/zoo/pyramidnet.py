"""PyramidNet: residual blocks whose channels grow by the same amount each (arXiv 1610.02915)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from siamese.zoo.network import (
    Network,
    blocks_per_stage,
    chain,
    conv,
    last_activation,
    require_option,
    stages,
)
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
    """A 3x3 stem of ``width`` channels and three stages of additively widening blocks.

    ``depth`` is 6n + 2 (basic) or 9n + 2 (bottleneck); ``alpha`` channels are added from the stem
    to the last block (before a bottleneck's factor 4). Blocks have no first ReLU and a last batch
    norm.
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
        factor = EXPANSION if bottleneck else 1
        outs = [
            round(width + alpha * done / (3 * count)) * factor for done in range(1, 3 * count + 1)
        ]

        def block_of(before: int, out: int, stride: int, stage: int, index: int) -> nn.Module:
            return PreActBlock(
                before,
                out,
                stride,
                bottleneck=bottleneck,
                shortcut=PaddedShortcut(before, out, stride),
                first_relu=False,
                last_bn=True,
            )

        widths = [outs[stage * count : (stage + 1) * count] for stage in range(3)]
        features = chain(
            stem=chain(conv=conv(in_channels, width, 3), bn=nn.BatchNorm2d(width)),
            **stages(width, widths, block_of),
            **last_activation(outs[-1]),
        )
        super().__init__(features, outs[-1], num_classes)
