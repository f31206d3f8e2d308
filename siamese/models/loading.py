"""A checkpoint becomes an embedder again, without network and without the training code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from siamese.errors import UserError
from siamese.models.device import choose_precision
from siamese.models.embedder import EmbedderSpec, SiameseEmbedder


def spec_of(content: dict[str, Any], path: Path) -> EmbedderSpec:
    """The embedder's description in a checkpoint's content.

    Raises:
        UserError: the description is damaged.
    """
    try:
        fields = dict(content["embedder"])
        fields["mean"], fields["std"] = tuple(fields["mean"]), tuple(fields["std"])
        return EmbedderSpec(**fields)
    except (TypeError, KeyError, ValueError):
        raise UserError(f"{path}: is damaged, its embedder description is unusable") from None


def embedder_of(content: dict[str, Any], path: Path) -> SiameseEmbedder:
    """Build the embedder of a checkpoint's content on the CPU, in eval mode.

    Raises:
        UserError: weights and description do not fit together.
    """
    spec = spec_of(content, path)
    try:
        model = SiameseEmbedder(
            spec.backbone,
            spec.embedding_dim,
            mean=spec.mean,
            std=spec.std,
            pretrained=False,
            size=spec.size,
        )
        model.load_state_dict(content["model"])
    except (RuntimeError, TypeError, AttributeError, ValueError):
        raise UserError(
            f"{path}: its weights do not fit {spec.backbone} with {spec.embedding_dim} dimensions"
        ) from None
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


def load_start_weights(model: SiameseEmbedder, path: Path) -> None:
    """Start from a file: a siamese checkpoint (whole embedder), or backbone weights (timm format).

    Weights of a classifier that the backbone does not have are left aside.

    Raises:
        UserError: unreadable file, or weights that do not fit.
    """
    if not path.is_file():
        raise UserError(f"--model.weights {path}: no such file")
    state = _read_weights(path)
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


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # see read_checkpoint
        raise UserError(f"--model.weights {path}: is not a readable weights file") from None
    for key in ("model", "state_dict"):  # ours and timm's training scripts wrap the weights
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(torch.is_tensor(v) for v in content.values()):
        raise UserError(f"--model.weights {path}: holds no weights by name")
    return {key.removeprefix("module."): value for key, value in content.items()}
