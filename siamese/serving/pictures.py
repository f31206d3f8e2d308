"""Pictures that strangers send: from bytes to what the network sees, and back to be shown."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass

import torch
from PIL import Image

from siamese.data.decode import decode_bytes
from siamese.models.inference import Embedder

# A photograph and its name to its face, see :class:`siamese.cropping.face_cutter.FaceCutter`.
Cut = Callable[[Image.Image, str], Image.Image]


@dataclass(frozen=True)
class Sent:
    """A picture as it was sent.

    Attributes:
        name: the part of the request, and the file's name where it has one, for messages.
        file: the file's name, as the sender calls it.
        content: its bytes.
    """

    name: str
    file: str
    content: bytes


@dataclass(frozen=True)
class Seen:
    """A picture as the network sees it.

    Attributes:
        pixels: uint8 (3, size, size).
        digest: SHA-256 of the file, hex.
    """

    pixels: torch.Tensor
    digest: str


def prepared(sent: Sent, model: Embedder, most_pixels: int, cut: Cut | None = None) -> Seen:
    """Decode and prepare a picture as in training.

    Args:
        cut: takes the face out of a photograph first; None: the picture is one.

    Raises:
        DecodeError: it is none, is broken, or has too many pixels.
        UserError: of ``cut``.
    """
    size = model.prepare.decode_size if cut is None else None  # a detector wants all pixels
    picture = decode_bytes(sent.content, sent.name, size, most_pixels)
    if cut is not None:
        picture = cut(picture, sent.name)
    return Seen(model.prepare(picture), hashlib.sha256(sent.content).hexdigest())


def png_uri(pixels: torch.Tensor) -> str:
    """A ``data:image/png`` URI of uint8 (3, height, width)."""
    file = io.BytesIO()
    # Hardly larger than at the default level, and several times faster.
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(file, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
