"""The embedder for use: a trained network with the preprocessing that it was trained with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch

from siamese.config import FitName, PrecisionName
from siamese.data.in_memory import Picture, rgb_pictures
from siamese.data.transforms import Preprocess
from siamese.errors import UserError
from siamese.models.checkpoint import JUDGED, read_checkpoint
from siamese.models.device import choose_device
from siamese.models.embedder import EmbedderSpec, SiameseEmbedder
from siamese.models.embedding import embed
from siamese.models.loading import embedder_of, precision_of, spec_of


@dataclass
class _Batch:
    """See :class:`siamese.models.embedding.PictureBatch`."""

    images: torch.Tensor
    indices: torch.Tensor


class Embedder:
    """A network in eval mode that takes pictures of any kind and size.

    Size, fit, mean and standard deviation are those that it was trained with, and what it gives
    for a file is what ``siamese-eval`` judges: equal up to the rounding of float32, which depends
    on the batch.

    Attributes:
        network: takes prepared pictures only; it refuses those of another size.
        spec: what it is and what it is fed with.
        device: where it runs.
        precision: arithmetic of the network.
        crop: the centre square that is taken first; see :class:`Preprocess`.
        flip: whether each embedding is averaged with that of the mirrored picture.
        batch: pictures at a time.
    """

    def __init__(
        self,
        network: SiameseEmbedder,
        spec: EmbedderSpec,
        *,
        device: torch.device,
        precision: torch.dtype = torch.float32,
        crop: float | None = None,
        flip: bool = False,
        batch: int = 128,
    ):
        if batch < 1:
            raise UserError(f"batch {batch}: must be at least 1")
        if not (crop is None or 0 < crop < 1 or (crop >= 1 and float(crop).is_integer())):
            raise UserError(f"crop {crop}: must be a share of the side below 1, or whole pixels")
        self.network = network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.spec, self.device, self.precision = spec, device, precision
        self.crop, self.flip, self.batch = crop, flip, batch
        fit: FitName = "squash" if spec.fit == "squash" else "crop"
        self._prepare = Preprocess(spec.size, fit, crop)

    @classmethod
    def load(
        cls,
        checkpoint: str | Path,
        device: str = "auto",
        *,
        precision: PrecisionName = "auto",
        crop: float | None = None,
        flip: bool = False,
        batch: int = 128,
    ) -> Embedder:
        """Load the embedder of a checkpoint.

        Args:
            checkpoint: ``best.pt`` or ``last.pt`` of a run.
            device: ``auto`` (a GPU when there is one), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
            precision: arithmetic of the network; ``auto``: as ``siamese-eval`` takes it.
            crop: take the centre square of each picture first: its side in pixels, or as a share
                of the shorter side.
            flip: average each embedding with that of the mirrored picture.
            batch: pictures at a time.

        Raises:
            UserError: the file cannot be read as a checkpoint; device or precision are missing
                here; an option is out of its range.
        """
        path = Path(checkpoint)
        content, place = read_checkpoint(path, keys=JUDGED), choose_device(device)
        return cls(
            embedder_of(content, path),
            spec_of(content),
            device=place,
            precision=precision_of(content, precision, place),
            crop=crop,
            flip=flip,
            batch=batch,
        )

    @property
    def dimensions(self) -> int:
        """Length D of an embedding."""
        return self.spec.embedding_dim

    def embed(self, pictures: Picture | Iterable[Picture]) -> torch.Tensor:
        """Embed one picture or many, without gradients; only one batch of them is held at a time.

        A large JPEG is decoded reduced when it is given by its path, as in training: its pixels in
        an array or a PIL picture give an embedding that differs a little.

        Args:
            pictures: a path, a PIL picture, an array (H, W, C) or (N, H, W, C), a tensor (C, H, W)
                or (N, C, H, W), or an iterable of these, of any sizes. Arrays and tensors hold
                uint8 (0 to 255) or floats in 0 to 1; see
                :func:`siamese.data.in_memory.rgb_pictures`.

        Returns:
            embeddings float32 (N, D) on the CPU, in the order of the pictures, not normalised:
            scores are cosines. N is 1 for a single picture.

        Raises:
            DecodeError: a file cannot be decoded; names it.
            UserError: what is given is no picture; says why.
        """
        embeddings, _ = embed(
            self.network,
            self._batches(pictures),
            device=self.device,
            precision=self.precision,
            flip=self.flip,
        )
        if not len(embeddings):
            return torch.empty(0, self.dimensions)
        return embeddings.clone()  # a plain tensor, which a user's network may learn from

    __call__ = embed

    def _batches(self, pictures: Picture | Iterable[Picture]) -> Iterator[_Batch]:
        size = self.spec.size if self.crop is None else None
        prepared = map(self._prepare, rgb_pictures(pictures, size))
        done = 0
        while images := list(islice(prepared, self.batch)):
            yield _Batch(torch.stack(images), torch.arange(done, done + len(images)))
            done += len(images)


def load_embedder(checkpoint: str | Path, device: str = "auto") -> Embedder:
    """Load the embedder of a checkpoint, ready to embed; :meth:`Embedder.load` has all options.

    Raises:
        UserError: the file cannot be read as a checkpoint, or the device is missing.
    """
    return Embedder.load(checkpoint, device)
