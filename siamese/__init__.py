"""siamese: a folder of faces becomes a trained, honestly judged face-verification model."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = [
    "Embedder",
    "SiameseEmbedder",
    "UserError",
    "count_pairs",
    "load_embedder",
    "summarise",
]

_HOMES = {
    "Embedder": "siamese.models.inference",
    "SiameseEmbedder": "siamese.models.embedder",
    "UserError": "siamese.errors",
    "count_pairs": "siamese.verification.counts",
    "load_embedder": "siamese.models.inference",
    "summarise": "siamese.verification.metrics",
}


def __getattr__(name: str) -> Any:
    """Import on first use: the commands parse their arguments before torch is loaded."""
    if name not in _HOMES:
        raise AttributeError(f"module 'siamese' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
