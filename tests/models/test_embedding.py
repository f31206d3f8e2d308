"""Embedding: one row per picture, in order, alike in any batch size."""

from dataclasses import dataclass

import pytest
import torch

from siamese.errors import UserError
from siamese.models.device import choose_device, choose_precision
from siamese.models.embedder import SiameseEmbedder
from siamese.models.embedding import embed

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
