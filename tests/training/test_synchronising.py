"""Batch norms that see the pictures of all processes; torch has them for GPUs only."""

from typing import Any

import pytest
import timm
import torch
from torch import nn

from siamese.models.embedder import SiameseEmbedder, batch_norms
from siamese.training.synchronising import synchronise_batch_norms

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")


def _filled(backbone: str) -> SiameseEmbedder:
    """An embedder in eval mode whose batch norms have all measured something else."""
    torch.manual_seed(0)
    model = SiameseEmbedder(backbone, 8, size=32)
    for norm in batch_norms(model):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return model.eval()


@pytest.mark.parametrize("backbone", ["tf_efficientnetv2_b0", "zoo/preact20"])
def test_the_network_stays_the_same(backbone: str) -> None:
    """timm's batch norms keep their activations, and weights, names and outputs are the same."""
    model, plain = _filled(backbone), _filled(backbone)
    before = dict(model.named_parameters())
    if backbone.startswith("tf_"):
        assert any(isinstance(norm, timm.layers.BatchNormAct2d) for norm in batch_norms(model))
    assert synchronise_batch_norms(model, GPU, 2, None)
    assert all(isinstance(norm, nn.SyncBatchNorm) for norm in batch_norms(model))
    assert len(list(batch_norms(model))) == len(list(batch_norms(plain)))
    after = dict(model.named_parameters())
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)  # optimizers know them
    assert list(model.state_dict()) == list(plain.state_dict())
    pictures = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    assert torch.equal(model(pictures), plain(pictures))
    plain.load_state_dict(model.state_dict())


class _OwnNorm(nn.BatchNorm1d):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs) * 2


@pytest.mark.parametrize(
    ("device", "world", "chunk", "norm", "expected"),
    [
        (GPU, 2, None, nn.BatchNorm1d, True),
        (GPU, 1, None, nn.BatchNorm1d, False),
        (CPU, 2, None, nn.BatchNorm1d, False),
        (GPU, 2, 8, nn.BatchNorm1d, False),
        (GPU, 2, None, _OwnNorm, False),
    ],
)
def test_which_networks_have_them(
    device: torch.device, world: int, chunk: int | None, norm: Any, expected: bool
) -> None:
    network = nn.Sequential(nn.Linear(3, 3), norm(3))
    assert synchronise_batch_norms(network, device, world, chunk) is expected
    assert type(network[1]) is (nn.SyncBatchNorm if expected else norm)
