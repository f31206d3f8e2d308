"""What all networks of the zoo share: features, global average pooling and a linear classifier."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from siamese.config.ranges import require


class Network(nn.Module):
    """Convolutional features (num_features maps), averaged over the image, and a linear classifier.

    Weights start as in the papers on networks for small images: convolutions normal with He's
    variance 2 / fan-out (arXiv 1502.01852; fan-out is kernel area times output channels, groups not
    taken off, as in the original code), batch norms 1 and 0, linear layers normal with variance 1 /
    fan-in and no bias. With ``num_classes`` 0 the network gives its pooled features.
    """

    def __init__(self, features: nn.Module, num_features: int, num_classes: int):
        super().__init__()
        self.num_features = num_features
        self.num_classes = num_classes
        self.features = features
        self.head = nn.Linear(num_features, num_classes) if num_classes else nn.Identity()
        self.apply(_initialise)

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """Feature maps (N, num_features, h, w) of normalised images (N, channels, H, W)."""
        maps: torch.Tensor = self.features(images)
        return maps

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N, num_classes) of normalised images; features (N, num_features) without any."""
        pooled = F.adaptive_avg_pool2d(self.forward_features(images), 1).flatten(1)
        logits: torch.Tensor = self.head(pooled)
        return logits


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="linear")
    else:
        return
    if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
        nn.init.zeros_(module.bias)


def conv(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Conv2d:
    """A convolution without bias that keeps the size, or halves it (rounding up) with stride 2."""
    return nn.Conv2d(
        in_channels,
        out_channels,
        kernel,
        stride=stride,
        padding=kernel // 2,
        groups=groups,
        bias=False,
    )


def chain(**modules: nn.Module) -> nn.Sequential:
    """Modules one after the other, by name."""
    return nn.Sequential(OrderedDict(modules))


def stages(
    channels: int,
    widths: Sequence[Sequence[int]],
    block: Callable[[int, int, int, int, int], nn.Module],
) -> dict[str, nn.Module]:
    """Stages of blocks by name; the first block of each stage after the first halves the size.

    ``widths`` has the output channels of every block of every stage; ``block`` makes one from
    channels in and out, stride, and its stage and place in it, from 0.
    """
    made: dict[str, nn.Module] = {}
    for stage, outs in enumerate(widths):
        parts = []
        for index, out in enumerate(outs):
            stride = 2 if stage > 0 and index == 0 else 1
            parts.append(block(channels, out, stride, stage, index))
            channels = out
        made[f"stage{stage + 1}"] = nn.Sequential(*parts)
    return made


def last_activation(channels: int) -> dict[str, nn.Module]:
    """What ends a network of pre-activation blocks."""
    return {"bn": nn.BatchNorm2d(channels), "relu": nn.ReLU(inplace=True)}


def require_option(condition: bool, name: str, value: object, wanted: str) -> None:
    """UserError for a value of a constructor argument that does not hold a condition."""
    require(condition, f"model.options.{name}", value, wanted)


def blocks_per_stage(depth: int, step: int, others: int) -> int:
    """Blocks n in each stage of a network of ``step`` x n + ``others`` layers; UserError if not
    whole.
    """
    blocks, rest = divmod(depth - others, step)
    low = max(blocks, 1) * step + others
    require_option(
        blocks >= 1 and rest == 0,
        "depth",
        depth,
        f"{step}n + {others} in this family, e.g. {low} or {low + step}",
    )
    return blocks
