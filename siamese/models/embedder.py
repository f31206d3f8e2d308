"""The Siamese embedder: one backbone and a linear head, shared by all images."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import timm
import torch
from torch import nn

from siamese.errors import UserError


@dataclass(frozen=True)
class EmbedderSpec:
    """What is needed to build an embedder again: it travels in every checkpoint.

    Attributes:
        backbone: timm model name.
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
    """A timm backbone and a linear head; pictures in, embeddings out.

    Normalisation is part of the model, so no caller can apply another one.

    Args:
        backbone: timm model name.
        embedding_dim: length D of the embedding.
        mean: RGB mean, pixels in [0, 1]; None: the backbone's own.
        std: RGB standard deviation; None: the backbone's own.
        pretrained: load timm's pretrained weights (from its cache, or the network).
        dropout: dropout before the head, in [0, 1).
        drop_path: stochastic depth of the backbone, in [0, 1).

    Raises:
        UserError: unknown backbone; pretrained weights cannot be had; the backbone has no
            stochastic depth but ``drop_path`` is set.
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
    ):
        super().__init__()
        self._frozen = False
        self.backbone = _create_backbone(backbone, pretrained, drop_path)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(_num_features(self.backbone), embedding_dim)
        own = timm.data.resolve_data_config({}, model=self.backbone)
        # Not persistent: the spec in the checkpoint is the one place that says them.
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(mean or own["mean"]), persistent=False)
        self.register_buffer("std", torch.tensor(std or own["std"]), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Embed pictures.

        Args:
            images: uint8 (N, 3, H, W), RGB, as :func:`siamese.data.transforms.Preprocess` gives.

        Returns:
            embeddings (N, D), not normalised: scoring and the losses do that.
        """
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
    """Refuse a backbone that timm does not have.

    Raises:
        UserError: names the nearest one.
    """
    base = name.split(".")[0]
    if not timm.is_model(base):
        near = difflib.get_close_matches(base, timm.list_models(), n=1)
        hint = f"did you mean {near[0]}?" if near else "timm.list_models() lists them"
        raise UserError(f"--model.backbone {name}: timm has no such model; {hint}")


def _create_backbone(name: str, pretrained: bool, drop_path: float) -> nn.Module:
    require_backbone(name)
    options: dict[str, Any] = {"drop_path_rate": drop_path} if drop_path > 0 else {}
    # The hub client logs every retry; the one line raised below says all of it.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        model: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=0, **options)
    except TypeError:
        raise UserError(
            f"--model.drop_path {drop_path}: {name} has no stochastic depth; set 0"
        ) from None
    except Exception as error:
        # Whatever the hub client raises when it is offline, blocked or asked for missing weights.
        if not pretrained:
            raise UserError(f"--model.backbone {name}: cannot be built ({error})") from None
        raise UserError(
            f"the pretrained weights of {name} cannot be loaded ({type(error).__name__}); go "
            "online once, or start from random weights with --model.pretrained false, or from a "
            "file with --model.weights FILE"
        ) from None
    return model


def _num_features(backbone: nn.Module) -> int:
    """Features that the pooled backbone gives; some nets widen after ``num_features``."""
    width = getattr(backbone, "head_hidden_size", None) or backbone.num_features
    return int(width)  # type: ignore[arg-type]


def batch_norms(model: nn.Module) -> Iterator[nn.modules.batchnorm._BatchNorm]:
    """Every batch norm that measures its statistics in training, in order."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats:
            yield module
