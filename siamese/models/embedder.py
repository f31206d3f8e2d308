"""The Siamese embedder: one backbone and a linear head, shared by all pictures."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

import torch
from torch import nn

from siamese.errors import UserError
from siamese.libraries import timm
from siamese.models.heads import GeM, make_neck
from siamese.zoo import (
    create_preset,
    create_timm_model,
    pooled_width,
    presets,
    require_preset,
    require_timm_model,
)

# Before the name of a preset of the zoo, and of the class of a module that a program handed over;
# without either a backbone is a model of timm.
ZOO, MODULE = "zoo/", "own:"
# Mean and standard deviation for networks that have no pretrained weights to match.
_DEFAULT_PIXELS = (0.5, 0.5, 0.5)
# Fields of a description that came later: where they are as before, they are not written.
_LATER = ("pooling", "neck", "crop")


@dataclass(frozen=True)
class EmbedderSpec:
    """What is needed to build an embedder again: it travels in every checkpoint.

    Attributes:
        backbone: timm model name; ``zoo/`` and a preset of the zoo; or ``own:`` and the qualified
            name of a module's class, see :func:`backbone_name`.
        embedding_dim: length D of the embedding.
        size: side of the square input in pixels.
        fit: how pictures are made square, ``squash`` or ``crop``.
        mean: RGB mean, pixels in [0, 1].
        std: RGB standard deviation.
        color_order: order of the input's channels, always ``RGB``.
        pooling: how feature maps become one vector, ``avg`` (the backbone's own) or ``gem``.
        neck: what follows the linear head, ``none`` or ``batch_norm``.
        crop: side of the centre square that is taken of each picture first, as a share of its
            shorter side; None: the whole picture.
    """

    backbone: str
    embedding_dim: int
    size: int
    fit: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    color_order: str = "RGB"
    pooling: str = "avg"
    neck: str = "none"
    crop: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint; what came later is left out where it is not used, so that
        fingerprints stay.
        """
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
            if key not in _LATER or value != getattr(EmbedderSpec, key)
        }


class SiameseEmbedder(nn.Module):
    """A backbone and a linear head; pictures in, embeddings out.

    Normalisation is part of the model, so no caller can apply another one.

    Args:
        backbone: timm model name, e.g. ``tf_efficientnetv2_b0.in1k``; ``zoo/`` and a preset of the
            zoo, e.g. ``zoo/preact20``; or a module that maps float pictures (N, 3, H, W),
            normalised with ``mean`` and ``std``, to features (N, F). A module is used as it is,
            not copied.
        embedding_dim: length D of the embedding.
        mean: RGB mean, pixels in [0, 1]; None: the backbone's own (the zoo and modules: 0.5).
        std: RGB standard deviation; None: the backbone's own (the zoo and modules: 0.5).
        pretrained: load timm's pretrained weights (from its cache, or the network); a module keeps
            the weights that it has.
        dropout: dropout before the head, in [0, 1).
        drop_path: stochastic depth of the backbone, in [0, 1); 0 for a module.
        size: side in pixels of the square pictures that it is made for; others are refused. None:
            any, for networks that are not trained yet.
        features: width F of a module's features; None: found by one forward pass of zeros of
            ``size``.
        pooling: ``avg`` (the backbone's own) or ``gem``, see :class:`siamese.models.heads.GeM`.
        neck: ``none`` or ``batch_norm``, see :func:`siamese.models.heads.make_neck`.
        embedding_dropout: dropout of the embeddings in training, in [0, 1).

    Attributes:
        both_sides: whether training gives the embeddings before and after the neck, (N, 2 D).

    Raises:
        UserError: unknown backbone; pretrained weights cannot be had (the zoo has none); the
            backbone has no stochastic depth (the zoo has none) but ``drop_path`` is set; a module
            that does not map pictures to features (N, F); ``gem`` for a backbone without feature
            maps.
    """

    def __init__(
        self,
        backbone: str | nn.Module,
        embedding_dim: int = 512,
        *,
        mean: tuple[float, float, float] | None = None,
        std: tuple[float, float, float] | None = None,
        pretrained: bool = False,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        size: int | None = None,
        features: int | None = None,
        pooling: str = "avg",
        neck: str = "none",
        embedding_dropout: float = 0.0,
    ):
        super().__init__()
        self._frozen: list[nn.Parameter] | None = None
        self.size, self.pooling_name, self.neck_name = size, pooling, neck
        self.both_sides = False
        self.backbone_name = backbone_name(backbone)
        if isinstance(backbone, str):
            self.backbone = _create_backbone(backbone, pretrained, drop_path)
            width = pooled_width(self.backbone)
        else:
            if drop_path > 0:
                raise UserError(
                    f"`drop_path` {drop_path:g}: the stochastic depth of a module is set where it "
                    "is made; give 0"
                )
            self.backbone = backbone
            width = _feature_width(backbone, size) if features is None else features
        self.pooling: nn.Module = nn.Identity()
        if pooling == "gem":
            _give_maps(self.backbone, self.backbone_name, size or 64)
            self.pooling = GeM()
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, embedding_dim)
        self.neck = make_neck(neck, embedding_dim)
        self.embedding_dropout = nn.Dropout(embedding_dropout)
        own_mean, own_std = _pixel_statistics(self.backbone_name, self.backbone)
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
            embeddings (N, D), not normalised: scoring and the losses do that. In training with
            ``both_sides`` (N, 2 D), those before the neck first.

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
        before = self.head(self.dropout(self.pooling(self.backbone(pixels))))
        embeddings: torch.Tensor = self.embedding_dropout(self.neck(before))
        if self.both_sides and self.training:
            return torch.cat([before, embeddings], 1)
        return embeddings

    def top(self) -> nn.Module:
        """Everything that is not the backbone: what a frozen backbone leaves to learn."""
        if self.pooling_name == "avg" and self.neck_name == "none":
            return self.head  # whose parameters keep their names
        return nn.ModuleDict({"pooling": self.pooling, "head": self.head, "neck": self.neck})

    def freeze_backbone(self, frozen: bool) -> None:
        """Freeze the backbone (no gradients, always in eval mode) or thaw it.

        Thawed, those parameters learn again that did before; what was frozen otherwise stays so.
        """
        if frozen and self._frozen is None:
            self._frozen = [one for one in self.backbone.parameters() if one.requires_grad]
            self.backbone.requires_grad_(False)
        elif not frozen and self._frozen is not None:
            for parameter in self._frozen:
                parameter.requires_grad_(True)
            self._frozen = None
        self.train(self.training)

    def checkpoint_gradients(self) -> None:
        """Keep few of the backbone's activations for the backward pass, and compute the rest again.

        Raises:
            UserError: the backbone is none of timm's, or none of those that can.
        """
        try:
            self.backbone.set_grad_checkpointing(True)  # type: ignore[operator]
        except (AttributeError, AssertionError, TypeError):
            raise UserError(
                f"`model.grad_checkpointing` true: {self.backbone_name} cannot compute activations "
                "again; set it false, and `batches.chunk` for less memory"
            ) from None

    def train(self, mode: bool = True) -> SiameseEmbedder:
        """Set the mode; a frozen backbone stays in eval mode, batch norms included."""
        super().train(mode)
        if self._frozen is not None:
            self.backbone.eval()
        return self

    def spec(self, fit: str, crop: float | None = None) -> EmbedderSpec:
        """Its description for a checkpoint; it must have been made for one ``size``.

        Args:
            fit: how pictures are made square, ``squash`` or ``crop``.
            crop: the share of a picture that is taken first; None: all of it.
        """
        if self.size is None:
            raise ValueError("an embedder without a size has no description")
        red, green, blue = (float(value) for value in self.mean)
        deviations = tuple(float(value) for value in self.std)
        return EmbedderSpec(
            self.backbone_name,
            self.head.out_features,
            self.size,
            fit,
            (red, green, blue),
            (deviations[0], deviations[1], deviations[2]),
            pooling=self.pooling_name,
            neck=self.neck_name,
            crop=crop,
        )


def backbone_name(backbone: str | nn.Module) -> str:
    """What a checkpoint keeps of a backbone: its name, or ``own:`` and the name of its class.

    Raises:
        UserError: neither a name nor a module; a class instead of a module.
    """
    if isinstance(backbone, str):
        return backbone
    if not isinstance(backbone, nn.Module):
        is_class = isinstance(backbone, type) and issubclass(backbone, nn.Module)
        hint = f"; give a module of the class, {backbone.__name__}(...)" if is_class else ""
        raise UserError(f"`backbone`: must be a name or a torch.nn.Module{hint}")
    made_of = type(backbone)
    return f"{MODULE}{made_of.__module__}.{made_of.__qualname__}"


def _feature_width(module: nn.Module, size: int | None) -> int:
    """Width of a module's features, by one forward pass that changes nothing in it.

    Raises:
        UserError: it does not take such pictures, or gives something else than (1, F) for one.
    """
    name = backbone_name(module).removeprefix(MODULE)
    if size is None:
        raise UserError(f"`backbone` {name}: give `size`, or the width of its `features`")
    first = next(chain(module.parameters(), module.buffers()), None)
    picture = torch.zeros(1, 3, size, size, device=None if first is None else first.device)
    modes = [(one, one.training) for one in module.modules()]
    try:
        with torch.no_grad():
            features = module.eval()(picture)
    except Exception as error:  # whatever the module raises
        said = " ".join(str(error).split())
        raise UserError(
            f"`backbone` {name}: fails on pictures (1, 3, {size}, {size}): {said}"
        ) from error
    finally:
        for one, training in modes:
            one.training = training
    if not isinstance(features, torch.Tensor) or features.ndim != 2 or not features.shape[1]:
        shape = tuple(features.shape) if isinstance(features, torch.Tensor) else type(features)
        raise UserError(
            f"`backbone` {name}: must map pictures (N, 3, H, W) to features (N, F), but gives "
            f"{shape} for one; end it with pooling and nn.Flatten()"
        )
    return int(features.shape[1])


def require_backbone(name: str) -> None:
    """Refuse a backbone that neither timm nor the zoo has.

    Raises:
        UserError: names the nearest one.
    """
    setting = f"`model.backbone` {name}"
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
        f"`model.backbone` {name}",
        num_classes=0,
        pretrained=pretrained,
        drop_path=drop_path,
        instead=", or from a file with `model.weights` FILE",
    )


def _give_maps(backbone: nn.Module, name: str, size: int) -> None:
    """Take the pooling off a backbone of timm's; UserError where what is left are no maps."""
    maps = None
    if not name.startswith((ZOO, MODULE)):
        with contextlib.suppress(Exception), torch.no_grad():  # whatever transformers raise
            backbone.reset_classifier(0, "")  # type: ignore[operator]
            maps = backbone.eval()(torch.zeros(1, 3, size, size))
        backbone.train()
    if maps is None or maps.ndim != 4 or maps.shape[1] != pooled_width(backbone):
        raise UserError(
            f"`model.pooling` gem: {name} gives no feature maps that could be pooled; use avg"
        )


def _pixel_statistics(
    name: str, backbone: nn.Module
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of a backbone's input, pixels in [0, 1]."""
    if name.startswith((ZOO, MODULE)):
        return _DEFAULT_PIXELS, _DEFAULT_PIXELS
    known = timm.data.resolve_data_config({}, model=backbone)
    return known["mean"], known["std"]


def batch_norms(model: nn.Module) -> Iterator[nn.modules.batchnorm._BatchNorm]:
    """Every batch norm that measures its statistics in training, in order."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats:
            yield module
