"""Residual networks (arXiv 1512.03385), for small images."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from siamese.zoo.network import Network, blocks_per_stage, chain, conv, require_option

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


class ResNet(Network):
    """A 3x3 stem and stages of residual blocks; each stage after the first halves the size.

    Args:
        num_classes: length of the logits; 0: pooled features.
        in_channels: channels of the images.
        depth: layers of a network of three equal stages, 6n + 2 (basic) or 9n + 2 (bottleneck).
        blocks: blocks of each stage instead, e.g. (3, 4, 6, 3) with bottlenecks and width 64: the
            ResNet-50 of ImageNet behind a stem for small images.
        block: basic or bottleneck.
        width: channels of the stem and of the first stage (four times as many leave a
            bottleneck); they double from stage to stage.
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
        channels = width
        modules: dict[str, nn.Module] = {
            "stem": chain(
                conv=conv(in_channels, width, 3),
                bn=nn.BatchNorm2d(width),
                relu=nn.ReLU(inplace=True),
            )
        }
        for stage, count in enumerate(blocks):
            middle = width * 2**stage
            out = middle if basic else middle * EXPANSION
            parts: list[nn.Module] = []
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                parts.append(
                    BasicBlock(channels, out, stride)
                    if basic
                    else Bottleneck(channels, out, stride, middle)
                )
                channels = out
            modules[f"stage{stage + 1}"] = nn.Sequential(*parts)
        super().__init__(chain(**modules), channels, num_classes)
