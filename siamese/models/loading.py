"""A checkpoint becomes an embedder again, without network and without the training code."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from siamese.config import FITTED, ComparedName, LimitSettings, ScoringName, scoring_title
from siamese.errors import UserError
from siamese.files.shown import shown
from siamese.models.building import DoesNotFit, build_fitting, first_difference, load_fitting
from siamese.models.device import choose_device, choose_precision
from siamese.models.embedder import MODULE, EmbedderSpec, SiameseEmbedder
from siamese.models.onnx_network import OnnxNetwork
from siamese.models.scoring import COSINE, Baked, Scoring, ScoringMap, kind_of
from siamese.models.torch_file import (
    GIB,
    NotReadable,
    read_torch_file,
    require_regular,
    weights_too_large,
)
from siamese.verification.decision import Decision


def spec_of(content: Mapping[str, Any]) -> EmbedderSpec:
    """The embedder's description in a checkpoint's content, which was checked when it was read."""
    fields = content["embedder"]
    return EmbedderSpec(**{**fields, "mean": tuple(fields["mean"]), "std": tuple(fields["std"])})


def embedder_of(
    content: Mapping[str, Any],
    path: Path,
    *,
    dropout: float = 0.0,
    drop_path: float = 0.0,
    embedding_dropout: float = 0.0,
    backbone: nn.Module | None = None,
) -> SiameseEmbedder:
    """Build the embedder of a checkpoint's content on the CPU, in eval mode.

    Args:
        dropout: as of :class:`SiameseEmbedder`, where it is trained further.
        backbone: the module that a program trained, where the checkpoint knows its class only; it
            gets the checkpoint's weights.

    Raises:
        UserError: weights and description do not fit together; a module is missing, or is given
            for a checkpoint that needs none.
    """
    spec = spec_of(content)
    _require_given(spec.backbone, backbone, path)
    weights = content["model"]

    def build(features: int | None = None) -> SiameseEmbedder:
        return SiameseEmbedder(
            spec.backbone if backbone is None else backbone,
            spec.embedding_dim,
            mean=spec.mean,
            std=spec.std,
            size=spec.size,
            dropout=dropout,
            drop_path=drop_path,
            features=features,
            pooling=spec.pooling,
            neck=spec.neck,
            embedding_dropout=embedding_dropout,
        )

    try:
        if backbone is None:
            model = build_fitting(build, weights)
        else:
            model = load_fitting(build(_features(weights, spec)), weights)
    except DoesNotFit as error:
        said = f" ({error})" if str(error) else ""
        raise UserError(
            f"{path}: its weights do not fit {shown(spec.backbone)} with {spec.embedding_dim} "
            f"dimensions{said}"
        ) from None
    return model.eval()


def network_of(
    content: Mapping[str, Any],
    path: Path,
    device: str = "auto",
    *,
    backbone: nn.Module | None = None,
) -> tuple[SiameseEmbedder | OnnxNetwork, torch.device]:
    """What embeds: the embedder of a checkpoint's content, or an exported graph.

    Args:
        content: of the checkpoint or the exported model.
        path: of it, for messages.
        device: a setting; where it runs.
        backbone: as of :func:`embedder_of`.

    Returns:
        the network in eval mode, and the device that it takes pictures on. A graph takes them on
        the CPU, wherever onnxruntime runs it.

    Raises:
        UserError: as of :func:`embedder_of`; this machine has no such device.
    """
    if "onnx" not in content:
        place = choose_device(device)
        return embedder_of(content, path, backbone=backbone).to(place), place
    spec = spec_of(content)
    if backbone is not None:
        raise UserError(f"`backbone`: {path} holds its whole network; leave `backbone` out")
    if "baked" in content:
        spec = replace(spec, embedding_dim=content["baked"].dimensions)
    graph = OnnxNetwork(
        content["onnx"], spec, content["fingerprint"], str(path), device,
        mirrors=content["mirrored"],
    )  # fmt: skip
    return graph.eval(), torch.device("cpu")


def _features(weights: Mapping[str, torch.Tensor], spec: EmbedderSpec) -> int:
    """Width of the backbone's features, by the weights of the head."""
    head = weights.get("head.weight")
    if head is None or head.ndim != 2 or len(head) != spec.embedding_dim or not head.shape[1]:
        raise DoesNotFit("head.weight has another shape")
    return head.shape[1]


def _require_given(name: str, backbone: nn.Module | None, path: Path) -> None:
    """Refuse to build a module of which only the class is known, and to leave one aside."""
    if name.startswith(MODULE) and backbone is None:
        made_of = shown(name.removeprefix(MODULE))
        raise UserError(
            f"{path}: its network is a module of the class {made_of}, which the file does not "
            "hold; load it in Python: siamese.Embedder.load(..., backbone=MODULE), with a module "
            "made as the trained one was"
        )
    if not name.startswith(MODULE) and backbone is not None:
        raise UserError(
            f"`backbone`: {path} holds a network that is known by its name, {shown(name)}; leave "
            "`backbone` out"
        )


def precision_of(content: Mapping[str, Any], name: str, device: torch.device) -> torch.dtype:
    """The arithmetic that a checkpoint's embedder is judged in.

    Raises:
        UserError: the device does not have that precision; an exported graph has its own.
    """
    if "onnx" in content:
        if name not in ("auto", "fp32"):
            raise UserError(
                f"`precision` {name}: an exported graph runs in the arithmetic that it was "
                "exported in; leave it at auto"
            )
        return torch.float32
    trained = content["settings"].get("trainer", {}).get("precision")
    in_fp32 = name == "auto" and trained == "fp32"  # as it was validated
    return choose_precision("fp32" if in_fp32 else name, device)


def decision_of(content: Mapping[str, Any], path: Path) -> Decision | None:
    """The threshold and calibration that were chosen for a checkpoint; None where none were.

    Raises:
        UserError: they are damaged.
    """
    if "decision" not in content:
        return None
    try:
        return Decision.from_dict(content["decision"])
    except (KeyError, TypeError, ValueError):
        raise UserError(
            f"{path}: is damaged, its threshold cannot be used; choose one anew with "
            "siamese-eval threshold"
        ) from None


def stored_map(content: Mapping[str, Any], path: Path) -> ScoringMap | Baked | None:
    """The fitted map that a checkpoint holds, or that is part of an exported graph.

    Raises:
        UserError: it is damaged.
    """
    if "baked" in content:
        baked: Baked = content["baked"]
        return baked
    if "scoring" not in content:
        return None
    try:
        return ScoringMap.from_dict(content["scoring"], spec_of(content).embedding_dim)
    except (ValueError, TypeError):
        kind = kind_of(content["scoring"])
        raise UserError(
            f"{path}: is damaged, its {'' if kind is None else f'{scoring_title(kind)} '}scoring "
            f"cannot be used; fit it anew with siamese-eval {kind or ' or '.join(FITTED)}, or "
            "compare with `scoring` cosine"
        ) from None


def scoring_of(content: Mapping[str, Any], path: Path, asked: ScoringName = "auto") -> Scoring:
    """The scoring that a setting means for a checkpoint.

    Args:
        content: of the checkpoint or the exported model.
        path: of it, for messages.
        asked: ``cosine``, ``plda``, ``wccn``, or ``auto``: as its threshold was chosen, without
            one cosine. A graph that maps its embeddings by itself has no other scoring.

    Raises:
        UserError: it does not have that scoring, or not the one that its threshold was chosen with;
            its threshold or map is damaged.
    """
    decision = decision_of(content, path) if asked == "auto" else None
    if "baked" in content:
        baked: Baked = content["baked"]
        if asked not in ("auto", baked.kind):
            raise UserError(
                f"`scoring` {asked}: {path} was exported with its {scoring_title(baked.kind)} "
                "scoring, and its graph gives nothing else; take the checkpoint, or export it with "
                f"`scoring` {asked}"
            )
        return Scoring(baked)
    chosen: ComparedName = COSINE if decision is None else decision.scoring
    name = chosen if asked == "auto" else asked
    if name == COSINE:
        return Scoring()
    title, found = scoring_title(name), stored_map(content, path)
    if found is None or found.kind != name:
        raise UserError(_lacks(content, path, name, found, asked))
    if decision is not None and decision.map != found.digest:
        raise UserError(
            f"{path}: its threshold was chosen with another {title} than it holds now; choose it "
            f"anew with siamese-eval threshold, or leave it out with `scoring` {name} or cosine"
        )
    return Scoring(found)


def _lacks(
    content: Mapping[str, Any],
    path: Path,
    name: ComparedName,
    found: ScoringMap | Baked | None,
    asked: ScoringName,
) -> str:
    """That it holds another map than that of a scoring, or none, and how to get it."""
    title = scoring_title(name)
    held, that = f"no {title}", "it"
    if found is not None:
        held, that = f"{scoring_title(found.kind)}, not {title}", title
    chosen = "" if asked != "auto" else f", but its threshold was chosen with {that}"
    how = f"fit it with siamese-eval {name} --checkpoint {path}"
    if "fingerprint" in content:
        how = f"fit it for the checkpoint (siamese-eval {name}) and export it again"
    instead = "" if found is None else ", which takes the other's place"
    return f"`scoring` {name}: {path} holds {held}{chosen}; {how}{instead}"


def mirrors_of(
    content: Mapping[str, Any], path: Path, scoring: Scoring, asked: bool | Literal["auto"]
) -> bool:
    """Whether embeddings are averaged with those of the mirrored pictures.

    Args:
        content: of the checkpoint or the exported model.
        path: of it, for messages.
        scoring: how they are compared.
        asked: ``auto``: as its threshold was chosen, without one as its map was fitted, else yes
            (measured: scripts/RESULTS.md). A graph does what it was exported with.

    Raises:
        UserError: its threshold is damaged; a graph that averages by itself is asked not to.
    """
    if content.get("mirrored", False):
        if asked is False:
            raise averages_itself(path)
        return True
    if asked != "auto":
        return asked
    if scoring.in_graph:
        return False
    held = holding(decision_of(content, path), scoring)
    if held is not None:
        return held.flip
    return scoring.map is None or scoring.map.fitted.flip


def averages_itself(path: str | os.PathLike[str]) -> UserError:
    """The error of a graph whose embeddings are averages, of which the bare ones are wanted."""
    return UserError(
        f"`flip` false: the graph {path} averages each embedding with the mirrored picture's by "
        "itself; take the checkpoint, or export it with `flip` false"
    )


def holding(decision: Decision | None, scoring: Scoring) -> Decision | None:
    """The decision, where it was chosen with that scoring; with another one it says nothing."""
    if decision is None or (decision.scoring, decision.map) != (scoring.name, scoring.digest):
        return None
    return decision


def load_start_weights(
    model: SiameseEmbedder, path: Path, limits: LimitSettings | None = None
) -> None:
    """Start from a file: a siamese checkpoint (whole embedder), or backbone weights (timm format).

    Weights of a classifier that the backbone does not have are left aside.

    Raises:
        UserError: unreadable file, or weights that do not fit.
    """
    state = _read_weights(path, limits or LimitSettings())
    whole = any(key.startswith("backbone.") for key in state)
    target: nn.Module = model if whole else model.backbone
    wanted = target.state_dict()
    difference = first_difference(wanted, state)
    parts = ("neck.", "pooling.")
    if difference is None and whole:  # what it would lose; a classifier's head it may
        lost = [name for name in state if name.startswith(parts) and name not in wanted]
        difference = f"{lost[0]} is not in it" if lost else None
    if difference is not None:
        settings = "`model.backbone` and `model.embedding_dim`"
        if difference.startswith(parts):
            settings = "`model.neck` and `model.pooling`"
        raise UserError(
            f"`model.weights` {path}: does not fit this model ({difference}); check {settings}"
        )
    target.load_state_dict({name: state[name] for name in wanted})


# Ours and timm's training scripts wrap the weights.
_WRAPPERS = ("model", "state_dict")


def _read_weights(path: Path, limits: LimitSettings) -> dict[str, torch.Tensor]:
    source = f"`model.weights` {path}"
    content: Any
    try:
        if path.suffix == ".safetensors":
            content = _read_safetensors(path, source, limits)
        else:
            content = read_torch_file(path, source, limits, inside=_WRAPPERS, legacy=True)
    except NotReadable:
        raise UserError(f"{source}: is not a readable weights file") from None
    for key in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(torch.is_tensor(v) for v in content.values()):
        raise UserError(f"{source}: holds no weights by name")
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def _read_safetensors(path: Path, source: str, limits: LimitSettings) -> dict[str, torch.Tensor]:
    """The format declares every size in a header, which its library checks against the file."""
    from safetensors.torch import load_file

    require_regular(path, source)
    if path.stat().st_size > limits.weights * GIB:
        raise weights_too_large(source, limits)
    try:
        return load_file(path)
    except Exception as error:  # whatever the header lacks
        raise NotReadable(str(error)) from None
