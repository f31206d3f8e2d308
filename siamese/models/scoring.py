"""How embeddings are compared: by their cosine, or by that of what a fitted map makes of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from siamese.config import FITTED, ComparedName, FittedName, scoring_title
from siamese.files.fields import built

Vectors = npt.NDArray[np.float32]
COSINE: Literal["cosine"] = "cosine"
PLDA: Literal["plda"] = "plda"
WCCN: Literal["wccn"] = "wccn"
_DIGEST = re.compile("[0-9a-f]{64}")
_MOST = 2**40  # people or pictures
_LARGEST = 1e12  # of a number in a map: float32 holds its products
_TEXT = 64  # characters of a time


@dataclass(frozen=True)
class FittedOn:
    """What a map was fitted on.

    Attributes:
        people: how many.
        pictures: of them.
        flip: whether their embeddings were averaged with those of the mirrored pictures.
        crop: the centre square that was taken first; None: whole pictures.
        fitted_at: when, ISO 8601 in UTC.
    """

    people: int
    pictures: int
    flip: bool
    crop: float | None
    fitted_at: str

    @classmethod
    def from_dict(cls, fields: object) -> FittedOn:
        """From plain values.

        Raises:
            ValueError: these are not the fields of one.
        """
        found = built(cls, fields)
        if not (1 < found.people <= found.pictures <= _MOST and len(found.fitted_at) <= _TEXT):
            raise ValueError("a field of what a map was fitted on is out of its range")
        if found.crop is not None and not 0 < found.crop < np.inf:
            raise ValueError("crop is out of its range")
        return found


@dataclass(frozen=True, eq=False)
class ScoringMap:
    """A map of embeddings x of unit length by z = (x - centre) @ matrix.

    PLDA gives z, and WCCN both of unit length side by side, [x, z / |z|] / sqrt(2), whose inner
    product is the mean of two cosines. The score of two pictures is the cosine of what it gives:
    all that is true of cosines stays so.

    Attributes:
        centre: float32 (D,).
        matrix: float32 (D, k): k at most D for PLDA, D for WCCN.
        fitted: what it was fitted on.
        kind: ``plda`` or ``wccn``.
        digest: SHA-256 (hex) of all that scores depend on.
    """

    centre: Vectors
    matrix: Vectors
    fitted: FittedOn
    kind: FittedName = PLDA
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        # Maps of earlier versions are PLDA, of a digest without a name.
        digest = hashlib.sha256(
            f"{'' if self.kind == PLDA else self.kind}{self.matrix.shape}".encode()
        )
        for array in (self.centre, self.matrix):
            digest.update(np.ascontiguousarray(array, "<f4").data)
        object.__setattr__(self, "digest", digest.hexdigest())

    @property
    def dimensions(self) -> int:
        """Length d of a mapped embedding."""
        return int(self.matrix.shape[1]) + (len(self.centre) if self.kind == WCCN else 0)

    def __call__(self, embeddings: npt.ArrayLike) -> Vectors:
        """Embeddings (N, D) of any length above 0, mapped: float32 (N, d), not normalised."""
        rows = np.asarray(embeddings, np.float64)
        unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        mapped = (unit - self.centre) @ self.matrix.astype(np.float64)
        if self.kind == WCCN:
            mapped /= np.maximum(np.linalg.norm(mapped, axis=1, keepdims=True), 1e-12)
            mapped = np.concatenate([unit, mapped], 1) / np.sqrt(2)
        return np.asarray(mapped, np.float32)

    def as_dict(self) -> dict[str, Any]:
        """Tensors and plain values, for a checkpoint."""
        return {
            "centre": torch.from_numpy(self.centre.copy()),
            "matrix": torch.from_numpy(self.matrix.copy()),
            "fitted": asdict(self.fitted),
            **_named(self.kind),
        }

    @classmethod
    def from_dict(cls, fields: object, dimensions: int) -> ScoringMap:
        """The map that :meth:`as_dict` gave, of embeddings of so many dimensions.

        Raises:
            ValueError: these are not the fields of one.
        """
        needed = {"centre", "matrix", "fitted"}
        if not isinstance(fields, dict) or fields.keys() - {"kind"} != needed:
            raise ValueError("a map has a centre, a matrix and what it was fitted on")
        kind = kind_of(fields)
        if kind is None:
            raise ValueError("a map of an unknown kind")
        centre, matrix = fields["centre"], fields["matrix"]
        for tensor in (centre, matrix):
            if not (torch.is_tensor(tensor) and tensor.dtype == torch.float32):
                raise ValueError("a map is of float32 tensors")
        if centre.shape != (dimensions,) or not (
            matrix.ndim == 2
            and len(matrix) == dimensions
            and (dimensions if kind == WCCN else 1) <= matrix.shape[1] <= dimensions
        ):
            raise ValueError(f"a map of embeddings of {dimensions} dimensions has other shapes")
        if not all(bool((tensor.abs() < _LARGEST).all()) for tensor in (centre, matrix)):
            raise ValueError("a map of NaN, Inf or huge numbers")
        return cls(
            np.ascontiguousarray(centre.numpy()),
            np.ascontiguousarray(matrix.numpy()),
            FittedOn.from_dict(fields["fitted"]),
            kind,
        )


@dataclass(frozen=True)
class Baked:
    """A map that is part of an exported graph, whose embeddings are mapped already.

    Attributes:
        digest: the map's.
        dimensions: length d of what the graph gives.
        fitted: what the map was fitted on.
        kind: ``plda`` or ``wccn``.
    """

    digest: str
    dimensions: int
    fitted: FittedOn
    kind: FittedName = PLDA

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values = asdict(self)
        del values["kind"]
        return {**values, **_named(self.kind)}

    @classmethod
    def from_dict(cls, fields: object, dimensions: int) -> Baked:
        """From plain values; the map is of embeddings of so many dimensions.

        Raises:
            ValueError: these are not the fields of one.
        """
        if not isinstance(fields, dict):
            raise ValueError("no fields")
        found = built(cls, {**fields, "fitted": FittedOn.from_dict(fields.get("fitted"))})
        least, most = (2 * dimensions,) * 2 if found.kind == WCCN else (1, dimensions)
        if not (_DIGEST.fullmatch(found.digest) and least <= found.dimensions <= most):
            raise ValueError("a field of a map is out of its range")
        return found


@dataclass(frozen=True)
class Scoring:
    """How the embeddings of a model are compared.

    Attributes:
        map: made of each embedding first; None: cosine of the embeddings as they are.
    """

    map: ScoringMap | Baked | None = None

    @property
    def name(self) -> ComparedName:
        """``cosine``, ``plda`` or ``wccn``."""
        return COSINE if self.map is None else self.map.kind

    @property
    def title(self) -> str:
        """The name as it stands in sentences."""
        return scoring_title(self.name)

    @property
    def digest(self) -> str:
        """The map's; empty for none."""
        return "" if self.map is None else self.map.digest

    @property
    def in_graph(self) -> bool:
        """Whether the network gives mapped embeddings by itself."""
        return isinstance(self.map, Baked)

    def dimensions(self, embedding_dim: int) -> int:
        """Length of what is compared, for embeddings of so many dimensions."""
        return embedding_dim if self.map is None else self.map.dimensions

    def apply(self, embeddings: Vectors) -> Vectors:
        """What is compared, float32 (N, d), of what the network gives, (N, D)."""
        return self.map(embeddings) if isinstance(self.map, ScoringMap) else embeddings

    def fingerprint(self, mark: str) -> str:
        """Of a model, whose weights and preprocessing have the fingerprint ``mark``, so scored."""
        if self.map is None:
            return mark
        return hashlib.sha256(f"{mark} {self.name} {self.digest}".encode()).hexdigest()


class Mapped(nn.Module):
    """A network whose embeddings are mapped, to be exported.

    Args:
        network: pictures in, embeddings (N, D) out.
        made: what is made of them.
    """

    def __init__(self, network: nn.Module, made: ScoringMap):
        super().__init__()
        self.network = network
        self.centre: torch.Tensor
        self.matrix: torch.Tensor
        self.kind = made.kind
        self.register_buffer("centre", torch.from_numpy(made.centre.copy()))
        self.register_buffer("matrix", torch.from_numpy(made.matrix.copy()))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Mapped embeddings (N, d) of what the network takes, not normalised."""
        unit = nn.functional.normalize(self.network(images).float())
        mapped = (unit - self.centre) @ self.matrix
        if self.kind == WCCN:
            mapped = torch.cat([unit, nn.functional.normalize(mapped)], 1) / 2**0.5
        return mapped


def kind_of(fields: object) -> FittedName | None:
    """The kind that the values of a map say, None for none that is known.

    Those of earlier versions say nothing, and are PLDA.
    """
    said = fields.get("kind", PLDA) if isinstance(fields, dict) else PLDA
    return next((kind for kind in FITTED if kind == said), None)


def _named(kind: FittedName) -> dict[str, Any]:
    """The field of the kind, which PLDA lacks: its files stay as earlier versions wrote them."""
    return {} if kind == PLDA else {"kind": kind}


def named_tensors(stored: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors of :meth:`ScoringMap.as_dict`, named as beside weights in one file."""
    return {f"{_PREFIX}{name}": stored[name] for name in _TENSORS}


def take_tensors(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Take such tensors out of what one file holds; empty where there are none."""
    return {
        name: weights.pop(f"{_PREFIX}{name}") for name in _TENSORS if f"{_PREFIX}{name}" in weights
    }


_PREFIX, _TENSORS = "scoring.", ("centre", "matrix")
