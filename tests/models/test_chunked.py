"""Batches in chunks: the gradient of the whole, in the memory of a part."""

import copy
from typing import Any

import pytest
import torch
from pytorch_metric_learning.losses import SupConLoss
from torch import nn

from siamese.errors import UserError
from siamese.models.chunked import Chunked, parts
from siamese.models.embedder import SiameseEmbedder

LABELS = torch.arange(5).repeat_interleave(3)


def _network(backbone: str, **options: Any) -> SiameseEmbedder:
    torch.manual_seed(0)
    size = 160 if backbone == "test_vit" else 32
    return SiameseEmbedder(backbone, 8, size=size, **options).train()


def _pictures(network: SiameseEmbedder) -> torch.Tensor:
    rng = torch.Generator().manual_seed(1)
    size = network.size
    return torch.randint(0, 256, (15, 3, size, size), dtype=torch.uint8, generator=rng)


def _gradients(network: nn.Module, forward: nn.Module, images: torch.Tensor) -> dict[str, Any]:
    network.zero_grad()
    torch.manual_seed(2)
    SupConLoss()(forward(images), LABELS).backward()
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("pictures", [2, 4, 7, 15, 100])
def test_the_gradient_is_that_of_the_whole_batch(pictures: int) -> None:
    network = _network("test_vit")  # has no batch norm
    images = _pictures(network)
    whole = _gradients(network, network, images)
    chunked = _gradients(network, Chunked(network, pictures), images)
    assert whole.keys() == chunked.keys()
    a, b = (torch.cat([one[name].flatten() for name in whole]).double() for one in (whole, chunked))
    assert float((a - b).norm() / a.norm()) < 3e-6


class _InParts(nn.Module):
    """The same parts, with all activations kept."""

    def __init__(self, network: nn.Module, sizes: list[int]):
        super().__init__()
        self.network, self.sizes = network, sizes

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.network(part) for part in images.split(self.sizes)])


def test_dropout_draws_the_same_again_and_batch_norms_count_once() -> None:
    network = _network("test_resnet", dropout=0.5)
    other = copy.deepcopy(network)
    images = _pictures(network)
    kept = _gradients(other, _InParts(other, [4, 4, 4, 3]), images)
    chunked = _gradients(network, Chunked(network, 4), images)
    for name, gradient in kept.items():
        assert torch.allclose(chunked[name], gradient, rtol=1e-5, atol=1e-7), name
    for (name, mine), theirs in zip(network.named_buffers(), other.buffers(), strict=True):
        assert torch.equal(mine, theirs), name


@pytest.mark.parametrize(("number", "most"), [(1, 2), (2, 2), (5, 2), (15, 7), (9, 4), (3, 1)])
def test_no_part_is_a_single_picture(number: int, most: int) -> None:
    made = parts(torch.arange(number), most)
    assert torch.equal(torch.cat(made), torch.arange(number))
    assert all(min(number, 2) <= len(part) <= max(most, 2) + 1 for part in made)


def test_layers_that_move_from_pass_to_pass_are_repeated() -> None:
    torch.manual_seed(0)
    iterating = nn.utils.parametrizations.spectral_norm(nn.Linear(12, 8))
    counting = nn.Sequential(nn.Conv2d(3, 3, 1), nn.InstanceNorm2d(3, track_running_stats=True))
    network = nn.Sequential(counting, nn.Flatten(), iterating).train()
    other = copy.deepcopy(network)
    images = torch.randn(15, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    kept = _gradients(other, _InParts(other, [4, 4, 4, 3]), images)
    chunked = _gradients(network, Chunked(network, 4), images)
    for name, gradient in kept.items():
        assert torch.allclose(chunked[name], gradient, rtol=1e-5, atol=1e-7), name
    for mine, theirs in zip(network.buffers(), other.buffers(), strict=True):
        assert torch.equal(mine, theirs)


def test_activations_of_a_batch_are_not_kept() -> None:
    network = _network("test_resnet")
    images = _pictures(network)
    own = {p.data_ptr() for p in network.parameters()}

    def kept(forward: nn.Module) -> int:
        total = 0

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal total
            total += tensor.nbytes * (tensor.data_ptr() not in own)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            forward(images)
        return total

    assert kept(Chunked(network, 5)) < kept(network) / 100


def test_a_network_in_eval_mode_measures_nothing() -> None:
    network = _network("test_resnet").eval()
    before = copy.deepcopy(network.state_dict())
    with torch.no_grad():
        plain = network(_pictures(network))
        assert torch.allclose(Chunked(network, 6)(_pictures(network)), plain, atol=1e-5)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_activations_computed_again_give_the_same_gradient() -> None:
    network = _network("test_resnet")
    images = _pictures(network)
    plain = _gradients(network, network, images)
    network.checkpoint_gradients()
    for name, gradient in _gradients(network, network, images).items():
        assert torch.allclose(gradient, plain[name], rtol=1e-5, atol=1e-7), name


@pytest.mark.parametrize("backbone", ["zoo/resnet8", nn.Sequential(nn.Flatten(), nn.LazyLinear(4))])
def test_a_network_that_cannot_compute_activations_again_is_named(backbone: Any) -> None:
    network = SiameseEmbedder(backbone, 8, size=32)
    with pytest.raises(UserError, match=r"grad_checkpointing.*batches\.chunk"):
        network.checkpoint_gradients()
