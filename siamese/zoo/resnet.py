"""Residual networks (arXiv 1512.03385), for small images."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from siamese.zoo.network import Network, blocks_per_stage, chain, conv, require_option, stages

EXPANSION = 4  # output channels of a bottleneck over those of its middle, before widening


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut; the sum goes through a ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.conv1 = conv(in_channels, out_channels, 3, stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv(out_channels, out_channels, 3)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut = projection(in_channels, out_channels, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (N, in, H, W) to (N, out, H / stride, W / stride)."""
        y = F.relu_(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu_(y + self.shortcut(x))


class Bottleneck(nn.Module):
    """A 1x1, a 3x3 (which has the stride) and a 1x1 convolution beside a shortcut."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, middle: int, groups: int = 1
    ):
        super().__init__()
        self.conv1 = conv(in_channels, middle, 1)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = conv(middle, middle, 3, stride, groups)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = conv(middle, out_channels, 1)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.shortcut = projection(in_channels, out_channels, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (N, in, H, W) to (N, out, H / stride, W / stride)."""
        y = F.relu_(self.bn1(self.conv1(x)))
        y = F.relu_(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu_(y + self.shortcut(x))


def projection(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """The shortcut: identity, or a 1x1 convolution where the shape changes (option B)."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return chain(conv=conv(in_channels, out_channels, 1, stride), bn=nn.BatchNorm2d(out_channels))


def stem(in_channels: int, width: int) -> nn.Module:
    """The first convolution, 3x3, with batch norm and ReLU."""
    return chain(
        conv=conv(in_channels, width, 3), bn=nn.BatchNorm2d(width), relu=nn.ReLU(inplace=True)
    )


class ResNet(Network):
    """A 3x3 stem and stages of residual blocks; each stage after the first halves the size.

    ``depth`` is that of three equal stages, 6n + 2 (basic) or 9n + 2 (bottleneck); or ``blocks`` of
    each stage are given, e.g. (3, 4, 6, 3) with bottlenecks and width 64: the ResNet-50 of ImageNet
    behind a stem for small images. ``width`` channels leave the stem and the first stage (four
    times as many leave a bottleneck); they double from stage to stage.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        *,
        depth: int | None = None,
        blocks: tuple[int, ...] | None = None,
        block: Literal["basic", "bottleneck"] = "basic",
        width: int = 16,
    ):
        basic = block == "basic"
        if blocks is None:
            require_option(depth is not None, "depth", depth, "set, or blocks instead")
            blocks = (blocks_per_stage(depth or 0, 6 if basic else 9, 2),) * 3
        else:
            require_option(depth is None, "depth", depth, "null where blocks is set")
        outs = [width * 2**stage * (1 if basic else EXPANSION) for stage in range(len(blocks))]

        def block_of(before: int, out: int, stride: int, stage: int, index: int) -> nn.Module:
            if basic:
                return BasicBlock(before, out, stride)
            return Bottleneck(before, out, stride, width * 2**stage)

        widths = [[out] * count for out, count in zip(outs, blocks, strict=True)]
        features = chain(stem=stem(in_channels, width), **stages(width, widths, block_of))
        super().__init__(features, outs[-1], num_classes)
