"""A checkpoint becomes an embedder again, without network and without the training code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from siamese.config import LimitSettings
from siamese.errors import UserError
from siamese.models.building import DoesNotFit, build_fitting
from siamese.models.device import choose_precision
from siamese.models.embedder import EmbedderSpec, SiameseEmbedder
from siamese.models.torch_file import (
    GIB,
    NotReadable,
    read_torch_file,
    require_regular,
    weights_too_large,
)


def spec_of(content: dict[str, Any]) -> EmbedderSpec:
    """The embedder's description in a checkpoint's content, which was checked when it was read."""
    fields = content["embedder"]
    return EmbedderSpec(**{**fields, "mean": tuple(fields["mean"]), "std": tuple(fields["std"])})


def embedder_of(
    content: dict[str, Any], path: Path, *, dropout: float = 0.0, drop_path: float = 0.0
) -> SiameseEmbedder:
    """Build the embedder of a checkpoint's content on the CPU, in eval mode.

    Args:
        content: of the checkpoint.
        path: of the checkpoint, for messages.
        dropout: as of :class:`SiameseEmbedder`, where it is trained further.
        drop_path: likewise.

    Raises:
        UserError: weights and description do not fit together.
    """
    spec = spec_of(content)

    def build() -> nn.Module:
        return SiameseEmbedder(
            spec.backbone,
            spec.embedding_dim,
            mean=spec.mean,
            std=spec.std,
            size=spec.size,
            dropout=dropout,
            drop_path=drop_path,
        )

    try:
        model = build_fitting(build, content["model"])
    except DoesNotFit:
        raise UserError(
            f"{path}: its weights do not fit {spec.backbone} with {spec.embedding_dim} dimensions"
        ) from None
    assert isinstance(model, SiameseEmbedder)
    return model.eval()


def precision_of(content: dict[str, Any], name: str, device: torch.device) -> torch.dtype:
    """The arithmetic that a checkpoint's embedder is judged in.

    Args:
        content: of the checkpoint.
        name: a setting; ``auto``: float32 where the run was set to it, else the device's own, as
            in training.
        device: where it runs.

    Raises:
        UserError: the device does not have that precision.
    """
    trained = content["settings"].get("trainer", {}).get("precision")
    in_fp32 = name == "auto" and trained == "fp32"  # as it was validated
    return choose_precision("fp32" if in_fp32 else name, device)


def load_start_weights(
    model: SiameseEmbedder, path: Path, limits: LimitSettings | None = None
) -> None:
    """Start from a file: a siamese checkpoint (whole embedder), or backbone weights (timm format).

    Weights of a classifier that the backbone does not have are left aside.

    Args:
        model: gets the weights.
        path: ``.safetensors``, or a file of ``torch.save``.
        limits: how much the file may take; None: the defaults.

    Raises:
        UserError: unreadable file, or weights that do not fit.
    """
    state = _read_weights(path, limits or LimitSettings())
    whole = any(key.startswith("backbone.") for key in state)
    target: nn.Module = model if whole else model.backbone
    wanted = target.state_dict()
    fitting = {key: value for key, value in state.items() if key in wanted}
    wrong = [key for key in fitting if fitting[key].shape != wanted[key].shape]
    missing = [key for key in wanted if key not in state]
    if wrong or missing:
        problem = f"{wrong[0]} has another shape" if wrong else f"{missing[0]} is missing"
        raise UserError(
            f"--model.weights {path}: does not fit this model ({problem}); check --model.backbone "
            "and --model.embedding_dim"
        )
    target.load_state_dict(fitting)


# Ours and timm's training scripts wrap the weights.
_WRAPPERS = ("model", "state_dict")


def _read_weights(path: Path, limits: LimitSettings) -> dict[str, torch.Tensor]:
    told = f"--model.weights {path}"
    content: Any
    try:
        if path.suffix == ".safetensors":
            content = _read_safetensors(path, told, limits)
        else:
            content = read_torch_file(path, told, limits, inside=_WRAPPERS, legacy=True)
    except NotReadable:
        raise UserError(f"{told}: is not a readable weights file") from None
    for key in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(torch.is_tensor(v) for v in content.values()):
        raise UserError(f"{told}: holds no weights by name")
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def _read_safetensors(path: Path, told: str, limits: LimitSettings) -> dict[str, torch.Tensor]:
    """The format declares every size in a header, which its library checks against the file."""
    from safetensors.torch import load_file

    require_regular(path, told)
    if path.stat().st_size > limits.weights * GIB:
        raise weights_too_large(told, limits)
    try:
        return load_file(path)
    except Exception as error:  # whatever the header lacks
        raise NotReadable(str(error)) from None
