"""What tells one trained model from every other: a digest of its weights and its preprocessing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import torch

from siamese.models.embedder import EmbedderSpec


def fingerprint(spec: EmbedderSpec, weights: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 (hex) of everything that an embedding depends on.

    Two models with one fingerprint give the same embeddings (but for rounding); embeddings of
    models with different ones cannot be compared.

    Args:
        spec: size, fit, mean, standard deviation and kind of the network.
        weights: its state, by name, on any device.
    """
    digest = hashlib.sha256(json.dumps(spec.as_dict(), sort_keys=True).encode())
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(values.numpy().data)
    return digest.hexdigest()
