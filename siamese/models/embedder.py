"""The Siamese embedder: one backbone and a linear head, shared by all images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from siamese.errors import UserError
from siamese.libraries import timm
from siamese.zoo import (
    create_preset,
    create_timm_model,
    pooled_width,
    presets,
    require_preset,
    require_timm_model,
)

# Before the name of a preset of the zoo; without it a backbone is a model of timm.
ZOO = "zoo/"
# Mean and standard deviation for the zoo's networks, which have no pretrained weights to match.
_ZOO_PIXELS = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class EmbedderSpec:
    """What is needed to build an embedder again: it travels in every checkpoint.

    Attributes:
        backbone: timm model name, or ``zoo/`` and a preset of the zoo.
        embedding_dim: length D of the embedding.
        size: side of the square input in pixels.
        fit: how pictures are made square, ``squash`` or ``crop``.
        mean: RGB mean, pixels in [0, 1].
        std: RGB standard deviation.
        color_order: order of the input's channels, always ``RGB``.
    """

    backbone: str
    embedding_dim: int
    size: int
    fit: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    color_order: str = "RGB"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }


class SiameseEmbedder(nn.Module):
    """A backbone of timm or of the zoo, and a linear head; pictures in, embeddings out.

    Normalisation is part of the model, so no caller can apply another one.

    Args:
        backbone: timm model name, e.g. ``tf_efficientnetv2_b0.in1k``, or ``zoo/`` and a preset of
            the zoo, e.g. ``zoo/preact20``.
        embedding_dim: length D of the embedding.
        mean: RGB mean, pixels in [0, 1]; None: the backbone's own (the zoo: 0.5).
        std: RGB standard deviation; None: the backbone's own (the zoo: 0.5).
        pretrained: load timm's pretrained weights (from its cache, or the network).
        dropout: dropout before the head, in [0, 1).
        drop_path: stochastic depth of the backbone, in [0, 1).
        size: side in pixels of the square pictures that it is made for; others are refused. None:
            any, for networks that are not trained yet.

    Raises:
        UserError: unknown backbone; pretrained weights cannot be had (the zoo has none); the
            backbone has no stochastic depth (the zoo has none) but ``drop_path`` is set.
    """

    def __init__(
        self,
        backbone: str,
        embedding_dim: int = 512,
        *,
        mean: tuple[float, float, float] | None = None,
        std: tuple[float, float, float] | None = None,
        pretrained: bool = False,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        size: int | None = None,
    ):
        super().__init__()
        self._frozen = False
        self.size = size
        self.backbone = _create_backbone(backbone, pretrained, drop_path)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(pooled_width(self.backbone), embedding_dim)
        own_mean, own_std = _own_pixels(backbone, self.backbone)
        # Not persistent: the spec in the checkpoint is the one place that says them.
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(mean or own_mean), persistent=False)
        self.register_buffer("std", torch.tensor(std or own_std), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Embed pictures.

        Args:
            images: uint8 (N, 3, size, size), RGB, as
                :class:`siamese.data.transforms.Preprocess` gives them.
                :class:`siamese.models.inference.Embedder` takes pictures of any size.

        Returns:
            embeddings (N, D), not normalised: scoring and the losses do that.

        Raises:
            UserError: pictures of another size, or of another type than uint8, which would be
                embedded without complaint and wrongly.
        """
        if self.size is not None and tuple(images.shape[-2:]) != (self.size, self.size):
            raise UserError(
                f"pictures of {images.shape[-1]} x {images.shape[-2]} pixels: this network was "
                f"made for {self.size} x {self.size}; siamese.load_embedder(...).embed(...) takes "
                "any size and prepares it"
            )
        if images.dtype != torch.uint8:
            raise UserError(
                f"pictures of type {images.dtype}: this network takes uint8, 0 to 255; "
                "siamese.load_embedder(...).embed(...) takes floats in 0 to 1, too"
            )
        pixels = (images.float() / 255 - self.mean[:, None, None]) / self.std[:, None, None]
        embeddings: torch.Tensor = self.head(self.dropout(self.backbone(pixels)))
        return embeddings

    def freeze_backbone(self, frozen: bool) -> None:
        """Freeze the backbone (no gradients, always in eval mode) or thaw it."""
        self._frozen = frozen
        self.backbone.requires_grad_(not frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> SiameseEmbedder:
        """Set the mode; a frozen backbone stays in eval mode, batch norms included."""
        super().train(mode)
        if self._frozen:
            self.backbone.eval()
        return self


def require_backbone(name: str) -> None:
    """Refuse a backbone that neither timm nor the zoo has.

    Raises:
        UserError: names the nearest one.
    """
    setting = f"--model.backbone {name}"
    if name.startswith(ZOO):
        require_preset(name.removeprefix(ZOO), setting)
    else:
        require_timm_model(name, setting, tuple(f"{ZOO}{preset.name}" for preset in presets()))


def _create_backbone(name: str, pretrained: bool, drop_path: float) -> nn.Module:
    require_backbone(name)
    if name.startswith(ZOO):
        preset = require_preset(name.removeprefix(ZOO))
        return create_preset(preset, num_classes=0, pretrained=pretrained, drop_path=drop_path)
    return create_timm_model(
        name,
        f"--model.backbone {name}",
        num_classes=0,
        pretrained=pretrained,
        drop_path=drop_path,
        instead=", or from a file with --model.weights FILE",
    )


def _own_pixels(name: str, backbone: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of a backbone's input, pixels in [0, 1]."""
    if name.startswith(ZOO):
        return _ZOO_PIXELS, _ZOO_PIXELS
    own = timm.data.resolve_data_config({}, model=backbone)
    return own["mean"], own["std"]


def batch_norms(model: nn.Module) -> Iterator[nn.modules.batchnorm._BatchNorm]:
    """Every batch norm that measures its statistics in training, in order."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats:
            yield module
