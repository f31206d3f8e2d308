"""Strided 1 x 1 convolutions of few channels, which a CPU library gets wrong."""

import copy

import pytest
import torch
from torch import nn

from siamese.training.narrow_convolutions import mend_narrow_convolutions
from siamese.zoo import create_preset, require_preset

CPU = torch.device("cpu")


@pytest.fixture(params=["AVX2", "DEFAULT", "AVX512"])
def capability(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: request.param)
    return str(request.param)


def test_the_result_and_the_gradients_are_the_same(capability: str) -> None:
    torch.manual_seed(0)
    usual = nn.Sequential(nn.Conv2d(4, 8, 1, stride=(2, 3), bias=False), nn.Conv2d(8, 4, 1))
    mended = copy.deepcopy(usual)
    assert mend_narrow_convolutions(mended, CPU) == (capability != "AVX512")
    assert mended.state_dict().keys() == usual.state_dict().keys()
    pictures = torch.randn(3, 4, 9, 11)  # in memory plane by plane: there it is right anyway
    for network in (usual, mended):
        network(pictures).square().sum().backward()
    torch.testing.assert_close(mended(pictures), usual(pictures))
    for one, other in zip(usual.parameters(), mended.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5)


def test_others_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    wide, square = nn.Conv2d(16, 8, 1, stride=2), nn.Conv2d(4, 8, 3, stride=2)
    padded, even = nn.Conv2d(4, 8, 1, stride=2, padding=1), nn.Conv2d(4, 8, 1)
    assert mend_narrow_convolutions(nn.ModuleList([wide, square, padded, even]), CPU) == 0
    assert wide.stride == square.stride == padded.stride == (2, 2)
    assert mend_narrow_convolutions(nn.Conv2d(4, 8, 1, stride=2), torch.device("cuda")) == 0


def test_a_narrow_network_trains_channels_last() -> None:
    """Unmended, its heap is broken on CPUs without AVX-512, and the process ends."""
    torch.manual_seed(0)
    network = create_preset(require_preset("resnet8"), num_classes=10, in_channels=1, width=4)
    mend_narrow_convolutions(network, CPU)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for _ in range(20):
        pictures = torch.randn(20, 1, 28, 28).contiguous(memory_format=torch.channels_last)
        network(pictures).square().mean().backward()
    assert all(bool(torch.isfinite(one.grad).all()) for one in network.parameters())
