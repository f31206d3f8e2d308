"""Pre-activation residual networks (arXiv 1603.05027), with squeeze-and-excitation on demand."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from siamese.zoo.network import Network, blocks_per_stage, chain, conv, require_option
from siamese.zoo.resnet import EXPANSION


class PreActBlock(nn.Module):
    """Batch norm, ReLU, convolution, two or three times, beside a shortcut; nothing after the sum.

    Args:
        in_channels: channels that come in.
        out_channels: channels that leave.
        stride: of the first (basic) or the 3x3 (bottleneck) convolution.
        bottleneck: 1x1, 3x3, 1x1 with a quarter of the channels between, instead of twice 3x3.
        shortcut: what the input goes through beside the convolutions; None: a 1x1 convolution
            where the shape changes, else nothing.
        preact_shortcut: the shortcut starts after the first batch norm and ReLU.
        first_relu: a ReLU after the first batch norm.
        last_bn: a batch norm after the last convolution.
        se_reduction: channels over the hidden units of a squeeze-and-excitation; None: without.
        dropout: before the last convolution (wide residual networks).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        *,
        bottleneck: bool = False,
        shortcut: nn.Module | None = None,
        preact_shortcut: bool = False,
        first_relu: bool = True,
        last_bn: bool = False,
        se_reduction: int | None = None,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.preact_shortcut = preact_shortcut
        self.first_relu = first_relu
        if shortcut is None:
            same = stride == 1 and in_channels == out_channels
            shortcut = nn.Identity() if same else conv(in_channels, out_channels, 1, stride)
        self.shortcut = shortcut
        self.bn1 = nn.BatchNorm2d(in_channels)
        if bottleneck:
            middle = out_channels // EXPANSION
            self.conv1 = conv(in_channels, middle, 1)
            self.bn2 = nn.BatchNorm2d(middle)
            self.conv2 = conv(middle, middle, 3, stride)
            self.bn3: nn.Module | None = nn.BatchNorm2d(middle)
            self.conv3: nn.Module | None = conv(middle, out_channels, 1)
        else:
            self.conv1 = conv(in_channels, out_channels, 3, stride)
            self.bn2 = nn.BatchNorm2d(out_channels)
            self.conv2 = conv(out_channels, out_channels, 3)
            self.bn3 = self.conv3 = None
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.last_bn = nn.BatchNorm2d(out_channels) if last_bn else nn.Identity()
        self.se = SqueezeExcitation(out_channels, se_reduction) if se_reduction else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (N, in, H, W) to (N, out, H / stride, W / stride)."""
        y = self.bn1(x)
        if self.first_relu:
            y = F.relu_(y)
        shortcut = self.shortcut(y if self.preact_shortcut else x)
        y = F.relu_(self.bn2(self.conv1(y)))
        if self.conv3 is None:
            y = self.conv2(self.dropout(y))
        else:
            assert self.bn3 is not None
            y = self.conv3(self.dropout(F.relu_(self.bn3(self.conv2(y)))))
        out: torch.Tensor = self.se(self.last_bn(y)) + shortcut
        return out


class SqueezeExcitation(nn.Module):
    """A gate in (0, 1) per channel, from the means of all channels (arXiv 1709.01507)."""

    def __init__(self, channels: int, reduction: int):
        super().__init__()
        require_option(
            reduction <= channels, "se_reduction", reduction, f"at most {channels}, the channels"
        )
        self.squeeze = nn.Linear(channels, channels // reduction)
        self.excite = nn.Linear(channels // reduction, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (N, C, H, W), each channel scaled."""
        gate = self.excite(F.relu_(self.squeeze(x.mean((2, 3)))))
        return x * torch.sigmoid(gate)[:, :, None, None]


class PreActResNet(Network):
    """A 3x3 stem, three stages of pre-activation blocks, a last batch norm and ReLU.

    Args:
        num_classes: length of the logits; 0: pooled features.
        in_channels: channels of the images.
        depth: layers, 6n + 2 (basic) or 9n + 2 (bottleneck).
        block: basic or bottleneck.
        width: channels of the stem and of the first stage (four times as many leave a
            bottleneck); they double from stage to stage.
        remove_first_relu: no ReLU between the first batch norm and the first convolution of a block
            (arXiv 1610.02915), but for blocks whose shortcut is pre-activated.
        add_last_bn: a batch norm after the last convolution of a block (arXiv 1610.02915).
        preact_stage: for each stage, whether the shortcut of its first block starts after the
            block's first batch norm and ReLU.
        narrow_first_stage: ``width`` channels leave the first stage even of bottlenecks, as in a
            known code base whose results are often cited; the paper widens it, too.
        se_reduction: squeeze-and-excitation at the end of each block, with channels over this
            number of hidden units; null: without.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        *,
        depth: int = 110,
        block: Literal["basic", "bottleneck"] = "basic",
        width: int = 16,
        remove_first_relu: bool = False,
        add_last_bn: bool = False,
        preact_stage: tuple[bool, bool, bool] = (True, True, True),
        narrow_first_stage: bool = False,
        se_reduction: int | None = None,
    ):
        bottleneck = block == "bottleneck"
        count = blocks_per_stage(depth, 9 if bottleneck else 6, 2)
        channels = width
        modules: dict[str, nn.Module] = {"stem": conv(in_channels, width, 3)}
        for stage, preact in enumerate(preact_stage):
            narrow = not bottleneck or (narrow_first_stage and stage == 0)
            out = width * 2**stage * (1 if narrow else EXPANSION)
            parts = []
            for index in range(count):
                preact_shortcut = preact and index == 0
                parts.append(
                    PreActBlock(
                        channels,
                        out,
                        2 if stage > 0 and index == 0 else 1,
                        bottleneck=bottleneck,
                        preact_shortcut=preact_shortcut,
                        first_relu=preact_shortcut or not remove_first_relu,
                        last_bn=add_last_bn,
                        se_reduction=se_reduction,
                    )
                )
                channels = out
            modules[f"stage{stage + 1}"] = nn.Sequential(*parts)
        modules["bn"], modules["relu"] = nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
        super().__init__(chain(**modules), channels, num_classes)
