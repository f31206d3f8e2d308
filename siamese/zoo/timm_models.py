"""Models of timm, built with errors that say what to do."""

from __future__ import annotations

import difflib
import inspect
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import nn

from siamese.errors import UserError
from siamese.files.online import why_unreachable
from siamese.libraries import timm


@lru_cache(maxsize=1)
def creation_arguments() -> frozenset[str]:
    """What ``timm.create_model`` itself takes: which weights to load, not how a model is built."""
    return frozenset(inspect.signature(timm.create_model).parameters) - {"kwargs"}


def prefix_of(setting: str, name: str) -> str:
    """What stands before the name in a setting as the user said it, e.g. ``timm/``."""
    said = setting.rpartition(" ")[2]
    return said.removesuffix(name) if said.endswith(name) else ""


def require_timm_model(name: str, setting: str, others: tuple[str, ...] = ()) -> None:
    """UserError where timm has no model of a name (with or without a tag); ``others`` are
    suggested, too.

    ``setting``: how the user said it, for the message.
    """
    base = name.split(".")[0]
    if not timm.is_model(base):
        near = difflib.get_close_matches(base, [*timm.list_models(), *others], n=1)
        prefix = prefix_of(setting, name)
        hint = f"did you mean {prefix}{near[0]}?" if near else "timm.list_models() lists them"
        raise UserError(f"{setting}: timm has no such model; {hint}")


def create_timm_model(
    name: str,
    setting: str,
    *,
    num_classes: int,
    pretrained: bool = False,
    drop_path: float = 0.0,
    instead: str = "",
    **options: Any,
) -> nn.Module:
    """Build a model of timm; 0 classes: pooled features. UserError where that cannot be.

    ``setting``: how the user said it, ``instead``: what else to start from; both for messages.
    """
    given = {**options, **({"drop_path_rate": drop_path} if drop_path > 0 else {})}
    # The hub client logs every retry; the one line raised below says all of it.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    unreachable: list[str] = []
    try:
        with _from_cache_when_offline(name if pretrained else None, unreachable):
            model: nn.Module = timm.create_model(
                name, pretrained=pretrained, num_classes=num_classes, **given
            )
    except TypeError as error:
        found = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if found is None or found[1] not in given:
            raise UserError(f"{setting}: cannot be built ({error})") from None
        if found[1] == "drop_path_rate" and "drop_path_rate" not in options:
            raise UserError(
                f"`model.drop_path` {drop_path}: {name} has no stochastic depth; set 0"
            ) from None
        raise UserError(_no_option(name, found[1])) from None
    except Exception as error:
        # Whatever the hub client raises when it is offline, blocked or asked for missing weights.
        if not pretrained:
            raise UserError(f"{setting}: cannot be built ({error})") from None
        reason = unreachable[0] if unreachable else type(error).__name__
        raise UserError(
            f"the pretrained weights of {name} cannot be loaded ({reason}); go "
            f"online once, or start from random weights with `model.pretrained` false{instead}"
        ) from None
    return model


@contextmanager
def _from_cache_when_offline(name: str | None, unreachable: list[str]) -> Iterator[None]:
    """Let timm look for a model's weights in its cache only where their server does not answer.

    Else the hub's client tries for a minute before it says so. ``unreachable`` gets the reason.
    """
    from huggingface_hub import constants

    source = None if name is None else timm.get_pretrained_cfg(name, allow_unregistered=True)
    if source is None or constants.HF_HUB_OFFLINE:
        yield
        return
    on_hub = bool(source.hf_hub_id)
    address = constants.ENDPOINT if on_hub else source.url
    reason = why_unreachable(address) if isinstance(address, str) and address else None
    if reason is None:
        yield
        return
    unreachable.append(reason)
    if not on_hub:
        cached = Path(torch.hub.get_dir(), "checkpoints", Path(urlsplit(address).path).name)
        if not cached.exists():
            raise OSError(reason)
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = False


def _no_option(name: str, option: str) -> str:
    with torch.device("meta"):
        known = inspect.signature(type(timm.create_model(name)).__init__).parameters
    near = difflib.get_close_matches(option, [key for key in known if key != "self"], n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"`model.options.{option}`: {name} has no such option{hint}"


def takes_one_size(name: str) -> bool:
    """Whether a model is built for one input size (transformers with learnt positions are)."""
    return bool(timm.get_pretrained_cfg(name, allow_unregistered=True).fixed_input_size)


def pooled_width(model: nn.Module) -> int:
    """Length of the pooled features; some models widen after ``num_features``."""
    width = getattr(model, "head_hidden_size", None) or model.num_features
    return int(width)  # type: ignore[arg-type]
