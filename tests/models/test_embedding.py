"""Embedding: one row per picture, in order, alike in any batch size."""

import multiprocessing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from siamese.data.decode import DecodeError
from siamese.data.folder import scan_folder
from siamese.errors import UserError
from siamese.models import embedding
from siamese.models.device import choose_device, choose_precision
from siamese.models.embedder import SiameseEmbedder
from siamese.models.embedding import BatchEmbedding, embed, pictures_together
from siamese.models.inference import Embedder

CPU = torch.device("cpu")


@dataclass
class _Batch:
    images: torch.Tensor
    indices: torch.Tensor


def _batches(pictures: torch.Tensor, size: int) -> list[_Batch]:
    return [
        _Batch(pictures[i : i + size], torch.arange(i, min(i + size, len(pictures))))
        for i in range(0, len(pictures), size)
    ]


@pytest.fixture
def model() -> SiameseEmbedder:
    torch.manual_seed(0)
    return SiameseEmbedder("test_resnet", 8)


def test_batched_equals_one_by_one(model: SiameseEmbedder) -> None:
    pictures = torch.randint(0, 256, (11, 3, 32, 32), dtype=torch.uint8)
    empty = _Batch(torch.empty(0, 3, 1, 1, dtype=torch.uint8), torch.empty(0, dtype=torch.int64))
    together, order = embed(model, [*_batches(pictures, 4), empty], device=CPU)
    single = torch.cat([model(p[None]) for p in pictures]).detach()
    torch.testing.assert_close(together, single, rtol=1e-4, atol=1e-5)
    assert order.tolist() == list(range(11))
    assert together.dtype == torch.float32


def test_flip_averages_with_the_mirror_image(model: SiameseEmbedder) -> None:
    pictures = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    both, _ = embed(model, _batches(pictures, 3), device=CPU, flip=True)
    mirrored, _ = embed(model, _batches(pictures.flip(-1), 3), device=CPU, flip=True)
    torch.testing.assert_close(both, mirrored)
    plain, _ = embed(model, _batches(pictures, 3), device=CPU)
    assert not torch.allclose(torch.nn.functional.normalize(plain), both)


def test_bf16_stays_close_to_fp32(model: SiameseEmbedder) -> None:
    pictures = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
    exact, _ = embed(model, _batches(pictures, 6), device=CPU)
    rough, _ = embed(model, _batches(pictures, 6), device=CPU, precision=torch.bfloat16)
    assert rough.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(exact, rough).min() > 0.99
    assert not torch.equal(exact, rough)


def test_devices_and_precisions_that_are_not_there_are_refused() -> None:
    with pytest.raises(UserError, match="`device` cuda:99"):
        choose_device("cuda:99")
    with pytest.raises(UserError, match="`device` banana"):
        choose_device("banana")
    with pytest.raises(UserError, match="fp16"):
        choose_precision("fp16", CPU)
    assert choose_precision("auto", CPU) == torch.float32


@pytest.fixture
def two_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which two loaders embed, and no folder is too small for them."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(embedding, "processors", lambda: 2)
    monkeypatch.setattr(embedding, "_BATCHES_EACH", 1)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures are embedded at a time by this process, not by its loaders."""
    sizes: list[int] = []
    plain = embedding.embed_batch

    def noting(model: nn.Module, images: torch.Tensor, *rest: Any) -> torch.Tensor:
        sizes.append(len(images))
        return plain(model, images, *rest)

    monkeypatch.setattr(embedding, "embed_batch", noting)
    return sizes


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.usefixtures("two_processors")
def test_loaders_embed_what_they_load_to_the_last_bit_alike(
    face_folder: Path, seen: list[int], flip: bool
) -> None:
    network = SiameseEmbedder("test_resnet", 8, size=32)
    model = Embedder(network, network.spec("squash"), device=CPU, flip=flip, batch=16)
    folder = scan_folder(face_folder)
    expected, positions, _ = model.embed_listed(folder, workers=0)
    assert seen == [16, 16, 4]
    seen.clear()
    found, kept, failed = model.embed_listed(folder, workers=1)
    assert seen == [4]  # where a batch is not full, threads make a difference
    assert np.array_equal(found, expected)
    assert np.array_equal(kept, positions)
    assert failed == []
    rest = list(model.embed_in_batches(folder, first=16, workers=1))
    assert np.array_equal(np.concatenate([batch.vectors for batch in rest]), expected[16:])


@pytest.mark.usefixtures("two_processors")
def test_broken_pictures_are_told_by_loaders_that_embed(face_folder: Path, seen: list[int]) -> None:
    network = SiameseEmbedder("test_resnet", 8, size=32)
    model = Embedder(network, network.spec("squash"), device=CPU, batch=16)
    folder = scan_folder(face_folder)
    whole, _, _ = model.embed_listed(folder)
    broken = folder.root / folder.paths[20]
    broken.write_bytes(broken.read_bytes()[:200])
    seen.clear()
    found, kept, failed = model.embed_listed(folder, workers=1)
    assert seen == [15, 4]
    assert kept.tolist() == [at for at in range(36) if at != 20]
    np.testing.assert_allclose(found, whole[kept], rtol=1e-4, atol=1e-5)
    assert [path for path, _ in failed] == [folder.paths[20]]
    with pytest.raises(DecodeError, match=broken.name):
        model.embed_listed(folder, workers=1, skip_broken=False)


@pytest.mark.usefixtures("two_processors")
def test_where_loaders_do_not_embed(monkeypatch: pytest.MonkeyPatch) -> None:
    network = SiameseEmbedder("test_resnet", 8)

    def loaders(workers: int = 1, batches: int = 9, backbone: str = "x", **other: Any) -> int:
        parts: dict[str, Any] = {"model": network, "batch": 32, "device": CPU}
        embedding = BatchEmbedding(**{**parts, **other}, precision=torch.float32, flip=False)
        return embedding.loaders(backbone, workers, batches)

    assert loaders() == loaders(batches=2) == loaders(workers=4) == 2
    assert loaders(workers=0) == loaders(batches=1) == 0
    assert loaders(backbone="own:Net") == loaders(model=nn.Identity()) == 0
    assert loaders(batch=8) == loaders(batch=40) == 0
    assert loaders(device=torch.device("cuda")) == 0
    for name in ("spawn", "forkserver"):
        monkeypatch.setattr(multiprocessing, "get_start_method", lambda name=name: name)
        assert loaders() == 0


@pytest.mark.parametrize(
    ("most", "side", "together"),
    [(128, 32, 128), (128, 64, 128), (128, 112, 32), (128, 224, 16), (128, 512, 16),
     (100, 64, 96), (8, 32, 8), (8, 512, 8), (1, 64, 1), (17, 64, 16)],
)  # fmt: skip
def test_a_cpu_takes_fewer_large_pictures_together(most: int, side: int, together: int) -> None:
    assert pictures_together(most, side, CPU) == together
    assert pictures_together(most, side, torch.device("cuda")) == most
