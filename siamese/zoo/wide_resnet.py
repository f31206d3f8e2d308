"""Wide residual networks: pre-activation blocks, few and wide (arXiv 1605.07146)."""

from __future__ import annotations

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

_STEM = 16


class WideResNet(Network):
    """WRN-depth-widen: a stem of 16 channels, three stages of 16, 32 and 64 times ``widen``.

    ``depth`` is 6n + 4; shortcuts that change the shape are pre-activated; ``dropout`` lies between
    the two convolutions of each block (the paper: 0.3 on CIFAR).
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
        outs = [_STEM * widen * 2**stage for stage in range(3)]

        def block(before: int, out: int, stride: int, stage: int, index: int) -> nn.Module:
            return PreActBlock(before, out, stride, preact_shortcut=before != out, dropout=dropout)

        body = stages(_STEM, [[out] * count for out in outs], block)
        features = chain(stem=conv(in_channels, _STEM, 3), **body, **last_activation(outs[-1]))
        super().__init__(features, outs[-1], num_classes)
