"""Network families for small images, named presets, and any model of timm beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from siamese.zoo.macs import count_cost
    from siamese.zoo.named import Preset
    from siamese.zoo.registry import (
        create_network,
        create_preset,
        presets,
        require_network,
        require_preset,
    )
    from siamese.zoo.timm_models import create_timm_model, pooled_width, require_timm_model

__all__ = [
    "Preset",
    "count_cost",
    "create_network",
    "create_preset",
    "create_timm_model",
    "pooled_width",
    "presets",
    "require_network",
    "require_preset",
    "require_timm_model",
]

_HOMES = {
    "Preset": "named",
    "count_cost": "macs",
    "create_timm_model": "timm_models",
    "pooled_width": "timm_models",
    "require_timm_model": "timm_models",
}


def __getattr__(name: str) -> Any:
    """Import on first use: the list of the presets needs no torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'registry')}"), name)
