"""Pre-activation residual networks (arXiv 1603.05027), with squeeze-and-excitation on demand."""

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
from siamese.zoo.resnet import EXPANSION


class PreActBlock(nn.Module):
    """Batch norm, ReLU, convolution, two or three times, beside a shortcut; nothing after the sum.

    The stride is the first (basic) or the 3x3 (bottleneck) convolution's; a bottleneck has a
    quarter of the channels between. ``shortcut`` None: a 1x1 convolution where the shape changes,
    else nothing; with ``preact_shortcut`` it starts after the first batch norm and ReLU.
    ``dropout`` comes before the last convolution (wide residual networks).
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

    ``depth`` is 6n + 2 (basic) or 9n + 2 (bottleneck). ``width`` channels leave the stem and the
    first stage (four times as many leave a bottleneck); they double from stage to stage.
    ``remove_first_relu`` takes the first ReLU of a block, ``add_last_bn`` adds a batch norm at its
    end (arXiv 1610.02915). ``preact_stage``: for each stage, whether the shortcut of its first
    block is pre-activated. ``narrow_first_stage``: ``width`` channels leave the first stage even of
    bottlenecks, as in a known code base whose results are often cited; the paper widens it, too.
    ``se_reduction``: squeeze-and-excitation at the end of each block, channels over this number of
    hidden units.
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
        outs = [width * 2**stage * (EXPANSION if bottleneck else 1) for stage in range(3)]
        if narrow_first_stage:
            outs[0] = width

        def block_of(before: int, out: int, stride: int, stage: int, index: int) -> nn.Module:
            preact_shortcut = preact_stage[stage] and index == 0
            return PreActBlock(
                before,
                out,
                stride,
                bottleneck=bottleneck,
                preact_shortcut=preact_shortcut,
                first_relu=preact_shortcut or not remove_first_relu,
                last_bn=add_last_bn,
                se_reduction=se_reduction,
            )

        body = stages(width, [[out] * count for out in outs], block_of)
        features = chain(stem=conv(in_channels, width, 3), **body, **last_activation(outs[-1]))
        super().__init__(features, outs[-1], num_classes)
