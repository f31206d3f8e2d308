"""siamese: a folder of faces becomes a trained, honestly judged face-verification model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what the names are, for type checkers and editors; see __getattr__
    from siamese.errors import UserError as UserError
    from siamese.models.embedder import SiameseEmbedder as SiameseEmbedder
    from siamese.models.inference import Embedded as Embedded
    from siamese.models.inference import Embedder as Embedder
    from siamese.models.inference import Verification as Verification
    from siamese.models.inference import load_embedder as load_embedder
    from siamese.recognition.gallery import Gallery as Gallery
    from siamese.report.model_export import export as export
    from siamese.tasks.faces.face_calls import TrainedRun as TrainedRun
    from siamese.tasks.faces.face_calls import train as train
    from siamese.verification.counts import count_pairs as count_pairs
    from siamese.verification.evaluate_embeddings import VerificationFigures as VerificationFigures
    from siamese.verification.evaluate_embeddings import evaluate as evaluate
    from siamese.verification.metrics import summarise as summarise

__version__ = "0.1.0"
__all__ = [
    "Embedded",
    "Embedder",
    "Gallery",
    "SiameseEmbedder",
    "TrainedRun",
    "UserError",
    "Verification",
    "VerificationFigures",
    "count_pairs",
    "evaluate",
    "export",
    "load_embedder",
    "summarise",
    "train",
]

_MODULES = {
    "Embedded": "siamese.models.inference",
    "Embedder": "siamese.models.inference",
    "Gallery": "siamese.recognition.gallery",
    "SiameseEmbedder": "siamese.models.embedder",
    "TrainedRun": "siamese.tasks.faces.face_calls",
    "UserError": "siamese.errors",
    "Verification": "siamese.models.inference",
    "VerificationFigures": "siamese.verification.evaluate_embeddings",
    "count_pairs": "siamese.verification.counts",
    "evaluate": "siamese.verification.evaluate_embeddings",
    "export": "siamese.report.model_export",
    "load_embedder": "siamese.models.inference",
    "summarise": "siamese.verification.metrics",
    "train": "siamese.tasks.faces.face_calls",
}


def __getattr__(name: str) -> Any:
    """Import on first use: torch takes seconds, and not everybody who imports this needs it."""
    if name not in _MODULES:
        raise AttributeError(f"module 'siamese' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
