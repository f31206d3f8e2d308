"""Folded batch norms: the embeddings of the network as it is, or the network itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from siamese.models import embedding, folding
from siamese.models.embedder import SiameseEmbedder, batch_norms
from siamese.models.folding import folded
from siamese.models.inference import Embedder


def with_statistics(network: SiameseEmbedder) -> SiameseEmbedder:
    """In eval mode, with batch norms that are far from the identity."""
    draw = torch.Generator().manual_seed(1)
    for norm in batch_norms(network):
        norm.running_mean.normal_(0, 0.3, generator=draw)
        norm.running_var.uniform_(0.3, 3, generator=draw)
        if norm.weight is not None:
            with torch.no_grad():
                norm.weight.uniform_(0.5, 1.5, generator=draw)
                norm.bias.normal_(0, 0.2, generator=draw)
    return network.eval()


def pictures(size: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(2)
    return torch.randint(256, (8, 3, size, size), dtype=torch.uint8, generator=draw)


def unit(network: nn.Module, size: int) -> torch.Tensor:
    with torch.inference_mode():
        return nn.functional.normalize(network(pictures(size)))


class Net(nn.Module):
    """A program's own network: a convolution and a batch norm, and what is told to come of them."""

    def __init__(self, use: Callable[["Net", torch.Tensor], torch.Tensor], bias: bool = True):
        super().__init__()
        self.use = use
        self.first = nn.Conv2d(3, 6, 3, bias=bias)
        self.norm = nn.BatchNorm2d(6, affine=bias)
        self.second = nn.Conv2d(6, 6, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.use(self, images).mean((2, 3))


def own(use: Callable[[Net, torch.Tensor], torch.Tensor], **options: Any) -> SiameseEmbedder:
    torch.manual_seed(0)
    return with_statistics(SiameseEmbedder(Net(use, **options), 4, size=16, features=6))


@pytest.mark.parametrize(
    ("backbone", "left"),
    [
        ("test_resnet", 0),
        ("test_efficientnet", 0),  # its activations are parts of the batch norms
        ("mobilenetv3_small_050", 0),  # some of its convolutions pad as they see fit
        ("tf_mobilenetv3_small_minimal_100", 0),
        ("zoo/preact20", 9),  # half of its batch norms come before the convolutions
        ("repvgg_a0", None),  # some batch norms follow nothing
    ],
)
def test_embeddings_are_those_of_the_network_as_it_is(backbone: str, left: int | None) -> None:
    torch.manual_seed(0)
    network = with_statistics(SiameseEmbedder(backbone, 16, size=32))
    state = {name: value.clone() for name, value in network.state_dict().items()}
    made = folded(network, 1000)
    assert made is not network
    count = len(list(batch_norms(made)))
    assert count < len(list(batch_norms(network))) if left is None else count == left
    assert unit(made, 32) == pytest.approx(unit(network, 32).numpy(), abs=2e-6)
    # In float64 alike: what differs is the rounding of the folded weights.
    double = unit(network.double(), 32), unit(made.double(), 32)
    assert double[0].numpy() == pytest.approx(double[1].numpy(), abs=2e-6)
    for name, value in network.state_dict().items():
        assert torch.equal(value.float(), state[name].float()), name


def test_what_stays_as_it_is_is_shared() -> None:
    network = with_statistics(SiameseEmbedder("test_resnet", 16, size=32))
    made = folded(network, 1000)
    assert isinstance(made, SiameseEmbedder)
    assert made.head.weight is network.head.weight
    assert made.backbone.conv1[0].weight is not network.backbone.conv1[0].weight


@pytest.mark.parametrize("bias", [True, False])
def test_a_plain_batch_norm_of_a_program_s_own_network(bias: bool) -> None:
    network = own(lambda net, x: net.norm(net.first(x)).relu(), bias=bias)
    made = folded(network, 1000)
    assert not list(batch_norms(made))
    assert unit(made, 16).numpy() == pytest.approx(unit(network, 16).numpy(), abs=2e-6)


@pytest.mark.parametrize(
    "use",
    [
        lambda net, x: net.norm(net.first(x)) + net.first(x),  # the convolution works twice
        lambda net, x: net.norm(net.norm(net.first(x))),  # the batch norm does
        lambda net, x: (lambda y: net.norm(y) + y)(net.first(x)),  # its result is used twice
        lambda net, x: net.norm(net.first(x).relu()),  # something lies between them
        lambda net, x: net.second(net.norm(x.repeat(1, 2, 1, 1))),  # no convolution before it
    ],
)
def test_what_cannot_be_folded_stays(use: Callable[[Net, torch.Tensor], torch.Tensor]) -> None:
    network = own(use)
    assert folded(network, 1000) is network


def test_a_module_that_cannot_be_copied_stays() -> None:
    network = own(lambda net, x: net.norm(net.first(x)))
    network.backbone.lock = (one for one in ())  # a generator
    assert folded(network, 1000) is network


def test_a_few_pictures_and_other_networks_are_left_alone() -> None:
    network = with_statistics(SiameseEmbedder("test_resnet", 16, size=32))
    assert folded(network, 255) is network
    assert folded(network, 256) is not network
    assert folded(network, 256, torch.bfloat16) is network
    other = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval()
    assert folded(other, 1000) is other


def test_folders_are_embedded_by_the_folded_network(
    face_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = with_statistics(SiameseEmbedder("test_resnet", 16, size=32))
    model = Embedder(network, network.spec("squash"), device=torch.device("cpu"), batch=8)
    before = model.embed_folder(face_folder).vectors
    seen = list[int]()

    def spy(batch: Any, images: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen.append(len(list(batch_norms(batch))))
        return embed_batch(batch, images, *rest)

    embed_batch = embedding.embed_batch
    monkeypatch.setattr(embedding, "embed_batch", spy)
    monkeypatch.setattr(folding, "_FEW", 36)
    after = model.embed_folder(face_folder).vectors
    assert seen == [0] * 5
    assert after == pytest.approx(before, rel=1e-4, abs=1e-5)
    assert not np.array_equal(after, before)
    # What is changed between two folders is seen.
    with torch.no_grad():
        network.head.bias += 1
        next(batch_norms(network)).bias += 1
    assert np.abs(model.embed_folder(face_folder).vectors - after).max() > 0.5
