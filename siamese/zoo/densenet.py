"""DenseNet: each layer sees all maps before it (arXiv 1608.06993), for small images."""

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
)

_BOTTLENECK = 4  # channels between the two convolutions, in growth rates


class DenseLayer(nn.Module):
    """Adds ``growth`` maps to those that come in; a bottleneck thins them out first."""

    def __init__(self, in_channels: int, growth: int, *, bottleneck: bool, dropout: float):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1: nn.Module
        self.second: nn.Module
        drop = nn.Dropout(dropout) if dropout else nn.Identity()
        if bottleneck:
            middle = _BOTTLENECK * growth
            self.conv1 = conv(in_channels, middle, 1)
            self.second = chain(
                drop=drop,
                bn=nn.BatchNorm2d(middle),
                relu=nn.ReLU(inplace=True),
                conv=conv(middle, growth, 3),
            )
        else:
            self.conv1, self.second = conv(in_channels, growth, 3), nn.Identity()
        self.dropout = drop

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (N, in, H, W) to (N, in + growth, H, W)."""
        new = self.second(self.conv1(F.relu_(self.bn1(x))))
        return torch.cat([x, self.dropout(new)], 1)


class DenseNet(Network):
    """A 3x3 stem and three dense blocks; between them a 1x1 convolution and average pooling.

    ``depth`` is 3n + 4 (basic) or 6n + 4 (bottleneck: DenseNet-B; with compression below 1
    DenseNet-BC). ``growth`` maps (k) are added by each layer, ``compression`` in (0, 1] is the
    share that a transition keeps, ``stem`` maps leave the stem (null: 2 x growth; the paper: 16 for
    DenseNet, 2 x growth for BC), ``dropout`` follows each convolution but the stem (the paper: 0.2
    without augmentation).
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        *,
        depth: int = 100,
        block: Literal["basic", "bottleneck"] = "bottleneck",
        growth: int = 12,
        compression: float = 0.5,
        stem: int | None = None,
        dropout: float = 0.0,
    ):
        require_option(0 < compression <= 1, "compression", compression, "above 0 and at most 1")
        require_option(0 <= dropout < 1, "dropout", dropout, "at least 0 and below 1")
        bottleneck = block == "bottleneck"
        count = blocks_per_stage(depth, 6 if bottleneck else 3, 4)
        channels = 2 * growth if stem is None else stem
        modules: dict[str, nn.Module] = {"stem": conv(in_channels, channels, 3)}
        for stage in range(1, 4):
            parts = []
            for _ in range(count):
                parts.append(DenseLayer(channels, growth, bottleneck=bottleneck, dropout=dropout))
                channels += growth
            modules[f"stage{stage}"] = nn.Sequential(*parts)
            if stage < 3:
                # Rounded before it is cut: 0.29 x 100 is 29, whatever floating point says.
                kept = int(round(channels * compression, 6))
                require_option(
                    kept > 0, "compression", compression, f"enough to keep 1 of {channels}"
                )
                modules[f"transition{stage}"] = chain(
                    bn=nn.BatchNorm2d(channels),
                    relu=nn.ReLU(inplace=True),
                    conv=conv(channels, kept, 1),
                    drop=nn.Dropout(dropout) if dropout else nn.Identity(),
                    pool=nn.AvgPool2d(2),
                )
                channels = kept
        modules |= last_activation(channels)
        super().__init__(chain(**modules), channels, num_classes)
