"""ResNeXt: bottlenecks whose 3x3 convolution is grouped (arXiv 1611.05431), for small images."""

from __future__ import annotations

from torch import nn

from siamese.zoo.network import Network, blocks_per_stage, chain, stages
from siamese.zoo.resnet import EXPANSION, Bottleneck, stem

_WIDTH = 64


class ResNeXt(Network):
    """Three stages of grouped bottlenecks with 256, 512 and 1024 output channels.

    ``depth`` is 9n + 2, ``cardinality`` the groups of the 3x3 convolutions, ``base_width`` the
    channels of each group in the first stage; they double from stage to stage.
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
        outs = [_WIDTH * EXPANSION * 2**stage for stage in range(3)]

        def block(before: int, out: int, stride: int, stage: int, index: int) -> nn.Module:
            middle = cardinality * base_width * 2**stage
            return Bottleneck(before, out, stride, middle, cardinality)

        body = stages(_WIDTH, [[out] * count for out in outs], block)
        super().__init__(chain(stem=stem(in_channels, _WIDTH), **body), outs[-1], num_classes)
