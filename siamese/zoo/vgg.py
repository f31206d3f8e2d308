"""VGG-like networks: plain 3x3 convolutions and max pooling (arXiv 1409.1556)."""

from __future__ import annotations

from torch import nn

from siamese.zoo.network import Network, chain, require_option


class VGG(Network):
    """Stages of 3x3 convolutions (with bias), each ended by a 2x2 max pooling; one linear layer.

    Pooling keeps a last odd row and column, so that 28 pixels end at 1 as 32 do. ``layers`` counts
    the convolutions of each stage, ``widths`` their channels.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        *,
        layers: tuple[int, ...] = (2, 2, 3, 3, 3),
        widths: tuple[int, ...] = (64, 128, 256, 512, 512),
        batch_norm: bool = True,
    ):
        require_option(
            len(layers) == len(widths), "layers", layers, f"as many numbers as widths ({widths})"
        )
        stages: dict[str, nn.Module] = {}
        channels = in_channels
        for number, (count, width) in enumerate(zip(layers, widths, strict=True), 1):
            parts: list[nn.Module] = []
            for _ in range(count):
                parts.append(nn.Conv2d(channels, width, 3, padding=1))
                if batch_norm:
                    parts.append(nn.BatchNorm2d(width))
                parts.append(nn.ReLU(inplace=True))
                channels = width
            parts.append(nn.MaxPool2d(2, ceil_mode=True))
            stages[f"stage{number}"] = nn.Sequential(*parts)
        super().__init__(chain(**stages), channels, num_classes)
