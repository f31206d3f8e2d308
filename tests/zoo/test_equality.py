"""The families compute what timm's and torchvision's networks do, given the same weights."""

import re
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d, create_conv2d
from timm.layers.squeeze_excite import SEModule
from timm.models.resnetv2 import ResNetV2
from torch import nn
from torchvision.models import densenet, resnet, vgg

from siamese.zoo import create_network
from siamese.zoo.densenet import DenseNet
from siamese.zoo.network import Network
from siamese.zoo.preact import PreActBlock, PreActResNet, SqueezeExcitation
from siamese.zoo.pyramidnet import PaddedShortcut, PyramidNet
from siamese.zoo.resnet import ResNet
from siamese.zoo.resnext import ResNeXt
from siamese.zoo.vgg import VGG
from siamese.zoo.wide_resnet import WideResNet


def _used(network: nn.Module) -> nn.Module:
    """With batch norms as after training: statistics, scales and shifts of all sizes."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean, 0, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    return network.eval()


def _copy(reference: nn.Module, network: Network, names: Sequence[tuple[str, str]]) -> None:
    """All weights of the reference, under our names (patterns replaced one after the other)."""
    state = {}
    for key, value in reference.state_dict().items():
        for pattern, replacement in names:
            key = re.sub(pattern, replacement, key)
        state[key] = value
    wanted = network.state_dict()
    assert state.keys() == wanted.keys()
    network.load_state_dict({key: state[key].reshape(wanted[key].shape) for key in wanted})


@torch.no_grad()
def _assert_same(reference: nn.Module, network: Network, size: int = 32) -> None:
    network.eval()
    images = torch.randn(3, 3, size, size)
    expected = reference(images)
    assert expected.std() > 0.01
    worst = (network(images) - expected).abs().max() / expected.abs().max()
    assert worst.item() <= 1e-5


def _resnet_v2(blocks: int, channels: Sequence[int], stem: int, basic: bool) -> nn.Module:
    network = ResNetV2(
        layers=[blocks] * 3,
        channels=tuple(channels),
        num_classes=10,
        stem_chs=stem,
        basic=basic,
        bottle_ratio=1.0 if basic else 0.25,
        norm_layer=BatchNormAct2d,
        conv_layer=create_conv2d,
    )
    network.stem = nn.Sequential(nn.Conv2d(3, stem, 3, padding=1, bias=False))
    network.init_weights(zero_init_last=False)
    return _used(network)


RESNET_V2_NAMES = (
    (r"^stem\.0", "features.stem"),
    (r"^stages\.(\d)\.blocks\.", lambda match: f"features.stage{int(match[1]) + 1}."),
    (r"\.norm(\d)", r".bn\1"),
    (r"downsample\.conv", "shortcut"),
    (r"^norm\.", "features.bn."),
    (r"^head\.fc\.", "head."),
)


@pytest.mark.parametrize("size", [32, 28])
def test_preact_bottleneck_is_timms_resnet_v2(size: int) -> None:
    torch.manual_seed(0)
    reference = _resnet_v2(2, (64, 128, 256), 16, basic=False)
    network = PreActResNet(depth=20, block="bottleneck")
    _copy(reference, network, RESNET_V2_NAMES)
    _assert_same(reference, network, size)


@pytest.mark.parametrize("size", [32, 28])
def test_wide_resnet_is_timms_resnet_v2(size: int) -> None:
    torch.manual_seed(0)
    reference = _resnet_v2(2, (32, 64, 128), 16, basic=True)
    network = WideResNet(depth=16, widen=2)
    _copy(reference, network, RESNET_V2_NAMES)
    _assert_same(reference, network, size)


RESNET_NAMES = (
    (r"^conv1", "features.stem.conv"),
    (r"^bn1", "features.stem.bn"),
    (r"^layer(\d)", r"features.stage\1"),
    (r"downsample\.0", "shortcut.conv"),
    (r"downsample\.1", "shortcut.bn"),
    (r"^fc", "head"),
)


def _for_small_images(network: nn.Module, stages: int = 4) -> nn.Module:
    network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    network.maxpool = nn.Identity()
    if stages == 3:
        network.fc = nn.Linear(network.layer4[0].conv1.in_channels, 10)
        network.layer4 = nn.Identity()
    return _used(network)


def test_resnet50_for_small_images_is_torchvisions() -> None:
    torch.manual_seed(0)
    reference = _for_small_images(resnet.resnet50(num_classes=10))
    network = create_network("resnet50_32px")
    assert isinstance(network, Network)
    _copy(reference, network, RESNET_NAMES)
    _assert_same(reference, network)


@pytest.mark.parametrize("size", [32, 28])
def test_resnet_of_basic_blocks_is_torchvisions(size: int) -> None:
    torch.manual_seed(0)
    reference = _for_small_images(resnet.ResNet(resnet.BasicBlock, [2, 2, 2, 1]), stages=3)
    network = ResNet(depth=14, width=64)
    _copy(reference, network, RESNET_NAMES)
    _assert_same(reference, network, size)


def test_resnext_is_torchvisions() -> None:
    torch.manual_seed(0)
    reference = resnet.ResNet(resnet.Bottleneck, [1, 1, 1, 1], groups=4, width_per_group=8)
    reference = _for_small_images(reference, stages=3)
    network = ResNeXt(depth=11, cardinality=4, base_width=8)
    _copy(reference, network, RESNET_NAMES)
    _assert_same(reference, network)


def test_densenet_bc_is_torchvisions() -> None:
    torch.manual_seed(0)
    reference = densenet.DenseNet(
        growth_rate=12, block_config=(4, 4, 4), num_init_features=24, num_classes=10
    )
    reference.features.conv0 = nn.Conv2d(3, 24, 3, padding=1, bias=False)
    for name in ("norm0", "relu0", "pool0"):
        setattr(reference.features, name, nn.Identity())
    _used(reference)
    network = DenseNet(depth=28, growth=12)
    names = (
        (r"^features\.conv0", "features.stem"),
        (
            r"denseblock(\d)\.denselayer(\d)\.",
            lambda match: f"stage{match[1]}.{int(match[2]) - 1}.",
        ),
        (r"norm1", "bn1"),
        (r"norm2", "second.bn"),
        (r"conv2", "second.conv"),
        (r"(transition\d)\.norm", r"\1.bn"),
        (r"norm5", "bn"),
        (r"^classifier", "head"),
    )
    _copy(reference, network, names)
    _assert_same(reference, network)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_vgg_is_torchvisions(batch_norm: bool) -> None:
    torch.manual_seed(0)
    layers, widths = (2, 2, 3, 3, 3), (16, 32, 32, 64, 64)
    plan: list[str | int] = []
    for count, width in zip(layers, widths, strict=True):
        plan += [*[width] * count, "M"]
    reference = nn.Sequential(
        vgg.make_layers(plan, batch_norm), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)
    )
    for module in reference.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    _used(reference)
    network = VGG(layers=layers, widths=widths, batch_norm=batch_norm)
    values = list(reference.state_dict().values())  # a plain sequence: the order says what is what
    wanted = network.state_dict()
    network.load_state_dict(dict(zip(wanted, values, strict=True)))
    _assert_same(reference, network)


def test_squeeze_and_excitation_is_timms() -> None:
    torch.manual_seed(0)
    ours, theirs = SqueezeExcitation(32, 8), SEModule(32, rd_channels=4)
    for linear, convolution in ((ours.squeeze, theirs.fc1), (ours.excite, theirs.fc2)):
        nn.init.normal_(linear.bias)
        convolution.weight.data.copy_(linear.weight.data[:, :, None, None])
        convolution.bias.data.copy_(linear.bias.data)
    maps = torch.randn(3, 32, 5, 6)
    torch.testing.assert_close(ours(maps), theirs(maps))


@torch.no_grad()
def test_squeeze_and_excitation_ends_a_block() -> None:
    torch.manual_seed(0)
    block = PreActBlock(8, 8, 1, last_bn=True, se_reduction=4)
    _used(block)
    x = torch.randn(2, 8, 6, 6)
    plain = PreActBlock(8, 8, 1, last_bn=True).eval()
    plain.load_state_dict(block.state_dict(), strict=False)
    torch.testing.assert_close(block(x) - x, block.se(plain(x) - x))


def _norm(state: dict[str, torch.Tensor], name: str, x: torch.Tensor) -> torch.Tensor:
    """Batch norm in eval mode, written out."""
    mean, variance, scale, shift = (
        state[f"{name}.{part}"][:, None, None]
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (variance + 1e-5).sqrt() * scale + shift


def _block(first: nn.Module) -> tuple[PreActBlock, dict[str, torch.Tensor]]:
    assert isinstance(first, PreActBlock)
    return first, first.state_dict()


@pytest.mark.parametrize("preact", [True, False])
@pytest.mark.parametrize("remove_first_relu", [True, False])
@pytest.mark.parametrize("add_last_bn", [True, False])
@torch.no_grad()
def test_options_of_preact_blocks(preact: bool, remove_first_relu: bool, add_last_bn: bool) -> None:
    torch.manual_seed(0)
    network = PreActResNet(
        depth=14,
        width=4,
        preact_stage=(preact, False, preact),
        remove_first_relu=remove_first_relu,
        add_last_bn=add_last_bn,
    ).double()
    _used(network)
    stages = dict(network.features.named_children())
    for name, index, stride in (
        ("stage1", 0, 1),
        ("stage2", 0, 2),
        ("stage3", 0, 2),
        ("stage3", 1, 1),
    ):
        block, state = _block(stages[name][index])
        x = torch.randn(2, state["bn1.weight"].numel(), 9, 9, dtype=torch.float64)
        preactivated = preact and index == 0 and name != "stage2"
        first = _norm(state, "bn1", x)
        if preactivated or not remove_first_relu:
            first = first.clamp(min=0)
        y = F.conv2d(first, state["conv1.weight"], stride=stride, padding=1)
        y = F.conv2d(_norm(state, "bn2", y).clamp(min=0), state["conv2.weight"], padding=1)
        if add_last_bn:
            y = _norm(state, "last_bn", y)
        beside = first if preactivated else x
        if "shortcut.weight" in state:
            beside = F.conv2d(beside, state["shortcut.weight"], stride=stride)
        torch.testing.assert_close(block(x), y + beside)


@torch.no_grad()
def test_pyramid_blocks_and_their_shortcut() -> None:
    torch.manual_seed(0)
    network = PyramidNet(depth=14, alpha=12, width=4).double()
    _used(network)
    widths = []
    for stage in ("stage1", "stage2", "stage3"):
        for module in network.features.get_submodule(stage):
            block, state = _block(module)
            widths.append(state["conv2.weight"].shape[0])
            size = 8
            x = torch.randn(2, state["bn1.weight"].numel(), size, size, dtype=torch.float64)
            stride = 2 if stage != "stage1" and len(widths) % 2 else 1
            y = F.conv2d(_norm(state, "bn1", x), state["conv1.weight"], stride=stride, padding=1)
            y = F.conv2d(_norm(state, "bn2", y).clamp(min=0), state["conv2.weight"], padding=1)
            expected = _norm(state, "last_bn", y)
            for row in range(size // stride):
                for column in range(size // stride):
                    rows = slice(row * stride, (row + 1) * stride)
                    columns = slice(column * stride, (column + 1) * stride)
                    pixel = x[:, :, rows, columns].mean((2, 3))
                    expected[:, : x.shape[1], row, column] += pixel
            torch.testing.assert_close(block(x), expected)
    assert widths == [6, 8, 10, 12, 14, 16]
    assert PaddedShortcut(4, 6, 2)(torch.ones(1, 4, 7, 7))[0, 0].tolist() == [[1.0] * 4] * 4
