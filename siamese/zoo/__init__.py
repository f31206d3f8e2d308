"""Network families for small images, named presets, and any model of timm beside them."""

from siamese.zoo.cost import count_cost, kept_costs
from siamese.zoo.presets import Preset
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
    "kept_costs",
    "pooled_width",
    "presets",
    "require_network",
    "require_preset",
    "require_timm_model",
]
