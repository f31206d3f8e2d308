"""Every family: shapes, sizes and channels, how weights start, low precision, memory layout."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from siamese.zoo import count_cost, create_network
from siamese.zoo.densenet import DenseNet
from siamese.zoo.network import Network
from siamese.zoo.preact import PreActResNet
from siamese.zoo.pyramidnet import PyramidNet
from siamese.zoo.resnet import ResNet
from siamese.zoo.resnext import ResNeXt
from siamese.zoo.shake_shake import ShakeShake
from siamese.zoo.vgg import VGG
from siamese.zoo.wide_resnet import WideResNet

SMALL: dict[str, tuple[Callable[..., Network], dict[str, Any], int]] = {
    "vgg": (VGG, {"widths": (4, 4, 8, 8, 8)}, 1),
    "vgg without batch norm": (VGG, {"layers": (1, 1), "widths": (4, 8), "batch_norm": False}, 8),
    "resnet": (ResNet, {"depth": 8, "width": 4}, 8),
    "resnet bottleneck": (ResNet, {"depth": 11, "width": 4, "block": "bottleneck"}, 8),
    "preact": (PreActResNet, {"depth": 14, "width": 4}, 8),
    "preact bottleneck": (PreActResNet, {"depth": 11, "width": 4, "block": "bottleneck"}, 8),
    "preact, all options": (
        PreActResNet,
        {
            "depth": 20,
            "width": 4,
            "block": "bottleneck",
            "remove_first_relu": True,
            "add_last_bn": True,
            "preact_stage": (True, False, False),
            "narrow_first_stage": True,
            "se_reduction": 4,
        },
        8,
    ),
    "wide resnet": (WideResNet, {"depth": 10, "widen": 1, "dropout": 0.3}, 8),
    "densenet": (DenseNet, {"depth": 10, "block": "basic", "growth": 4, "compression": 1.0}, 8),
    "densenet-bc": (DenseNet, {"depth": 16, "growth": 4, "compression": 0.4, "dropout": 0.2}, 8),
    "pyramidnet": (PyramidNet, {"depth": 14, "alpha": 10, "width": 4}, 8),
    "pyramidnet bottleneck": (PyramidNet, {"depth": 11, "alpha": 9, "block": "bottleneck"}, 8),
    "resnext": (ResNeXt, {"depth": 11, "cardinality": 2, "base_width": 4}, 8),
    "shake-shake": (ShakeShake, {"depth": 8, "width": 4}, 8),
}


@pytest.mark.parametrize("kind", SMALL)
def test_shapes_for_images_of_32_and_28_pixels_and_of_one_channel(kind: str) -> None:
    torch.manual_seed(0)
    family, options, side = SMALL[kind]
    network = family(7, 1, **options)
    for size in (32, 28):
        images = torch.randn(2, 1, size, size)
        maps = network.forward_features(images)
        assert maps.shape[:2] == (2, network.num_features)
        if size == 32:
            assert maps.shape[2:] == (side, side)
        assert network(images).shape == (2, 7)
    network.eval()
    pooled = family(0, 1, **options).eval()
    pooled.load_state_dict(network.state_dict(), strict=False)
    features = pooled(images)
    assert features.shape == (2, network.num_features)
    torch.testing.assert_close(features, network.forward_features(images).mean((2, 3)))
    torch.testing.assert_close(network.head(features), network(images))


@pytest.mark.parametrize("kind", SMALL)
def test_every_parameter_learns_also_in_bf16(kind: str) -> None:
    torch.manual_seed(0)
    family, options, _ = SMALL[kind]
    network = family(5, 3, **options)
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8) % 5
    for low in (False, True):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            loss = nn.functional.cross_entropy(network(images).float(), labels)
        loss.backward()
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        assert len(gradients) == len(list(network.parameters()))
        assert all(torch.isfinite(g).all() for g in gradients)
        weights = [p.grad for p in network.parameters() if p.grad is not None and p.ndim == 4]
        assert all(bool(g.any()) for g in weights)


@pytest.mark.parametrize("kind", SMALL)
def test_channels_last_changes_nothing(kind: str) -> None:
    torch.manual_seed(0)
    family, options, _ = SMALL[kind]
    network = family(5, 3, **options).eval()
    images = torch.randn(2, 3, 28, 28)
    expected = network(images)
    layout = torch.channels_last
    found = network.to(memory_format=layout)(images.to(memory_format=layout))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_vgg_of_28_pixels_ends_at_one() -> None:
    with torch.device("meta"):
        network = create_network("vgg15_bn_64", in_channels=1)
        assert network.forward_features(torch.empty(2, 1, 28, 28)).shape == (2, 512, 1, 1)
    assert count_cost(network, 1, 28)[0] == 14728266 - 2 * 9 * 64


@pytest.mark.parametrize("kind", ["vgg", "resnext", "preact, all options"])
def test_weights_start_as_in_the_papers(kind: str) -> None:
    torch.manual_seed(0)
    family, options, _ = SMALL[kind]
    wide = {"widths": (64,) * 5} if kind == "vgg" else {}
    network = family(100, 3, **{**options, **wide})
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 2000:
            fan_out = module.out_channels * module.kernel_size[0] * module.kernel_size[1]
            expected = (2 / fan_out) ** 0.5
            assert module.weight.std().item() == pytest.approx(expected, rel=0.1)
            assert module.bias is None or not module.bias.any()
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert not module.bias.any()
    head = network.head
    assert isinstance(head, nn.Linear)
    assert head.weight.std().item() == pytest.approx(network.num_features**-0.5, rel=0.1)
    assert not head.bias.any()


def test_dropout_is_for_training_only() -> None:
    torch.manual_seed(0)
    network = WideResNet(5, 3, depth=10, widen=1, dropout=0.5)
    images = torch.randn(4, 3, 16, 16)
    network(images)  # statistics
    assert not torch.equal(network(images), network(images))
    network.eval()
    assert torch.equal(network(images), network(images))


def test_compression_keeps_whole_maps() -> None:
    # 0.29 x 100 is 28.999999999999996 in floating point.
    network = DenseNet(depth=10, block="basic", growth=2, stem=96, compression=0.29)
    transition = network.features.get_submodule("transition1.conv")
    assert (transition.in_channels, transition.out_channels) == (100, 29)
