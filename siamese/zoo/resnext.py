"""ResNeXt: bottlenecks whose 3x3 convolution is grouped (arXiv 1611.05431), for small images."""

from __future__ import annotations

from torch import nn

from siamese.zoo.network import Network, blocks_per_stage, chain, conv
from siamese.zoo.resnet import EXPANSION, Bottleneck

_WIDTH = 64


class ResNeXt(Network):
    """Three stages of grouped bottlenecks with 256, 512 and 1024 output channels.

    Args:
        num_classes: length of the logits; 0: pooled features.
        in_channels: channels of the images.
        depth: layers, 9n + 2.
        cardinality: groups of the 3x3 convolutions.
        base_width: channels of each group in the first stage; they double from stage to stage.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        *,
        depth: int = 29,
        cardinality: int = 4,
        base_width: int = 64,
    ):
        count = blocks_per_stage(depth, 9, 2)
        channels = _WIDTH
        modules: dict[str, nn.Module] = {
            "stem": chain(
                conv=conv(in_channels, channels, 3),
                bn=nn.BatchNorm2d(channels),
                relu=nn.ReLU(inplace=True),
            )
        }
        for stage in range(3):
            out, middle = _WIDTH * EXPANSION * 2**stage, cardinality * base_width * 2**stage
            parts = []
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                parts.append(Bottleneck(channels, out, stride, middle, cardinality))
                channels = out
            modules[f"stage{stage + 1}"] = nn.Sequential(*parts)
        super().__init__(chain(**modules), channels, num_classes)
