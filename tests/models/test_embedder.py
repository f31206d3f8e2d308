"""The embedder: shapes, normalisation inside, freezing, and what it starts from."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from siamese.errors import UserError
from siamese.models.checkpoint import KEYS, read_checkpoint, write_checkpoint
from siamese.models.embedder import EmbedderSpec, SiameseEmbedder, require_backbone
from siamese.models.loading import embedder_of, load_start_weights
from siamese.zoo import create_network

NET = "test_resnet"


def _pictures(count: int = 4, size: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)


def test_normalises_like_torchvision_and_ends_in_a_linear_head() -> None:
    torch.manual_seed(0)
    model = SiameseEmbedder(NET, 24, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7)).eval()
    pictures = _pictures()
    from torchvision.transforms import v2

    pixels = v2.Normalize([0.1, 0.2, 0.3], [0.5, 0.6, 0.7])(pictures.float() / 255)
    expected = model.head(model.backbone(pixels))
    torch.testing.assert_close(model(pictures), expected)
    assert model(pictures).shape == (4, 24)


def test_what_it_was_not_made_for_is_refused() -> None:
    model = SiameseEmbedder(NET, 8, size=32).eval()
    model(_pictures(2, 32))
    with pytest.raises(UserError, match=r"40 x 48 pixels: .* made for 32 x 32"):
        model(torch.zeros(1, 3, 48, 40, dtype=torch.uint8))
    with pytest.raises(UserError, match=r"float32: this network takes uint8"):
        model(_pictures(2, 32).float() / 255)


def test_takes_the_backbones_own_mean_and_std() -> None:
    model = SiameseEmbedder("tf_efficientnetv2_s", 8)
    own = timm.get_pretrained_cfg("tf_efficientnetv2_s")
    assert tuple(model.mean.tolist()) == pytest.approx(own.mean)
    assert tuple(model.std.tolist()) == pytest.approx(own.std)


@pytest.mark.parametrize(
    "backbone", ["mobilenetv3_small_050", "test_efficientnet", "test_convnext"]
)
def test_backbones_of_other_families_fit_the_head(backbone: str) -> None:
    assert SiameseEmbedder(backbone, 8).eval()(_pictures(2, 64)).shape == (2, 8)


def test_unknown_backbone_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean tf_efficientnetv2_b"):
        SiameseEmbedder("tf_efficientnetv2_bo")


def test_missing_weights_name_both_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **options: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("timm.create_model", offline)
    with pytest.raises(UserError) as caught:
        SiameseEmbedder("tf_efficientnetv2_b0.in1k", pretrained=True)
    assert "`model.pretrained` false" in str(caught.value)
    assert "`model.weights` FILE" in str(caught.value)


def test_without_internet_only_the_cache_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's client alone would try again for a minute."""
    from huggingface_hub import constants

    from siamese.zoo import timm_models

    offline: list[bool] = []
    create = timm.create_model

    def watched(*arguments: Any, **options: Any) -> Any:
        offline.append(constants.HF_HUB_OFFLINE)
        return create(*arguments, **options)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(timm_models, "why_unreachable", lambda *_: "no connection to the hub")
    monkeypatch.setattr(timm, "create_model", watched)
    with pytest.raises(
        UserError, match=r"cannot be loaded \(no connection to the hub\); go online"
    ):
        SiameseEmbedder("tf_efficientnetv2_b0.in1k", pretrained=True)
    assert offline == [True]
    assert constants.HF_HUB_OFFLINE is False
    SiameseEmbedder("test_resnet", 8)  # needs no weights: no server is asked
    assert offline == [True, False]


def test_with_internet_the_hub_is_used_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    from siamese.zoo import timm_models

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(timm_models, "why_unreachable", lambda *_: None)
    seen: list[bool] = []

    def loads(*arguments: Any, **options: Any) -> Any:
        seen.append(constants.HF_HUB_OFFLINE)
        raise OSError("the link broke")

    monkeypatch.setattr(timm, "create_model", loads)
    with pytest.raises(UserError, match=r"cannot be loaded \(OSError\)"):
        SiameseEmbedder("tf_efficientnetv2_b0.in1k", pretrained=True)
    assert seen == [False]


def test_frozen_backbone_stays_in_eval_mode_without_gradients() -> None:
    model = SiameseEmbedder(NET, 8)
    model.freeze_backbone(True)
    model.train()
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    model(_pictures()).sum().backward()
    assert all(p.grad is None for p in model.backbone.parameters())
    assert model.head.weight.grad is not None
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, before[name])
    model.freeze_backbone(False)
    assert model.backbone.training
    assert all(p.requires_grad for p in model.backbone.parameters())


class _Net(torch.nn.Module):
    """A network that a program would bring, with parts that it keeps fixed."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.fixed = torch.nn.Conv2d(3, 4, 3, stride=2).requires_grad_(False)
        self.norm = torch.nn.BatchNorm2d(4)
        self.learns = torch.nn.Conv2d(4, width, 3, stride=2)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.learns(self.norm(self.fixed(pixels))).mean((2, 3))


def test_any_module_is_a_backbone() -> None:
    torch.manual_seed(0)
    net = _Net()
    net.norm.eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    model = SiameseEmbedder(net, 8, size=32)
    assert (net.training, net.norm.training) == (True, False)  # looking changed nothing
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    pictures = _pictures()
    features = net.eval()(pictures.float() / 127.5 - 1)
    torch.testing.assert_close(model.eval()(pictures), model.head(features))
    name = f"own:{_Net.__module__}._Net"
    assert model.spec("crop") == EmbedderSpec(name, 8, 32, "crop", (0.5,) * 3, (0.5,) * 3)
    given = SiameseEmbedder(net, 8, features=12, mean=(0.25,) * 3, std=(0.5,) * 3)
    torch.testing.assert_close(
        given.eval()(pictures), given.head(net((pictures.float() / 255 - 0.25) / 0.5))
    )


def test_a_frozen_module_thaws_to_what_it_was() -> None:
    model = SiameseEmbedder(_Net(), 8, size=32)
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    for frozen in (False, True, True, False):
        model.freeze_backbone(frozen)
        left = {name for name, p in model.named_parameters() if p.requires_grad}
        assert left == ({"head.weight", "head.bias"} if frozen else learning)
        assert model.backbone.training != frozen
    assert "backbone.fixed.weight" not in learning


@pytest.mark.parametrize(
    ("backbone", "options", "message"),
    [
        (_Net, {}, r"must be a name or a torch\.nn\.Module; give a module of the class, _Net"),
        (3, {}, "`backbone`: must be a name"),
        (torch.nn.Conv2d(3, 4, 3), {}, r"but gives \(1, 4, 30, 30\) for one; .*Flatten"),
        (torch.nn.Linear(3, 4), {}, r"fails on pictures \(1, 3, 32, 32\)"),
        (_Net(), {"size": None}, "give `size`, or the width of its `features`"),
        (_Net(), {"drop_path": 0.1}, "`drop_path` 0.1: .*module"),
    ],
)
def test_a_module_that_is_no_backbone_is_refused(
    backbone: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        SiameseEmbedder(backbone, 8, **{"size": 32, **options})


def _checkpoint(path: Path, model: SiameseEmbedder) -> Path:
    content: dict[str, object] = {key: {} for key in KEYS}
    content |= {
        "model": model.state_dict(),
        "embedder": model.spec("squash").as_dict(),
        "train_weights": [],
        "progress": {"epoch": 1},
        "split": {"train": {"folder": "faces", "pictures": 0, "identities": []}},
    }
    write_checkpoint(path, content)
    return path


def test_an_embedder_of_a_module_comes_back_with_the_module_only(tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = SiameseEmbedder(_Net(), 16, size=32)
    model.train()(_pictures())  # so that batch norms have statistics of their own
    path = _checkpoint(tmp_path / "best.pt", model)
    content = read_checkpoint(path)
    pictures = _pictures()
    again = embedder_of(content, path, backbone=_Net())
    assert torch.equal(again(pictures), model.eval()(pictures))
    with pytest.raises(UserError, match=r"module of the class .*\._Net.*backbone=MODULE"):
        embedder_of(content, path)
    other = _Net(13)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(UserError, match=r"best\.pt: its weights do not fit .*backbone\.learns"):
        embedder_of(content, path, backbone=other)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())
    content["model"]["head.weight"] = torch.zeros(16)
    with pytest.raises(UserError, match=r"head\.weight has another shape"):
        embedder_of(content, path, backbone=_Net())
    named = _checkpoint(tmp_path / "named.pt", SiameseEmbedder(NET, 16, size=32))
    with pytest.raises(UserError, match="known by its name, test_resnet; leave `backbone` out"):
        embedder_of(read_checkpoint(named), named, backbone=_Net())


def test_stochastic_depth_where_there_is_none_is_refused() -> None:
    with pytest.raises(UserError, match="drop_path"):
        SiameseEmbedder("vgg11", 8, drop_path=0.1)


def test_starts_from_backbone_weights_of_timm_and_of_a_file(tmp_path: Path) -> None:
    torch.manual_seed(1)
    classifier = timm.create_model(NET, num_classes=7)
    file = tmp_path / "weights.pth"
    torch.save({"state_dict": classifier.state_dict()}, file)
    model = SiameseEmbedder(NET, 8)
    load_start_weights(model, file)
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, classifier.state_dict()[name])


@pytest.mark.parametrize("content", [b"", b"not a torch file", None])
def test_unusable_start_weights_are_one_line(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "weights.pth"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=r"weights\.pth"):
        load_start_weights(SiameseEmbedder(NET, 8), file)


@pytest.mark.parametrize("option", [{"neck": "batch_norm"}, {"pooling": "gem"}])
def test_start_weights_lose_no_neck_and_no_pooling(tmp_path: Path, option: dict[str, str]) -> None:
    more, fewer, file = (
        SiameseEmbedder(NET, 8, **option),
        SiameseEmbedder(NET, 8),
        tmp_path / "w.pth",
    )
    before = {name: value.clone() for name, value in fewer.state_dict().items()}
    torch.save(more.state_dict(), file)
    with pytest.raises(UserError, match=r"w\.pth: .* check `model.neck` and `model.pooling`"):
        load_start_weights(fewer, file)
    assert all(torch.equal(value, before[name]) for name, value in fewer.state_dict().items())
    load_start_weights(SiameseEmbedder(NET, 8, **option), file)
    torch.save(fewer.state_dict(), file)
    with pytest.raises(UserError, match=r"is missing\); check `model.neck` and `model.pooling`"):
        load_start_weights(more, file)


def test_start_weights_of_another_net_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save(timm.create_model("test_efficientnet", num_classes=0).state_dict(), file)
    with pytest.raises(UserError, match="does not fit"):
        load_start_weights(SiameseEmbedder(NET, 8), file)


def test_a_network_of_the_zoo_is_a_backbone() -> None:
    torch.manual_seed(0)
    model = SiameseEmbedder("zoo/resnet8", 24).eval()
    pictures = _pictures()
    features = model.backbone(pictures.float() / 127.5 - 1)
    assert features.shape == (4, 64)
    torch.testing.assert_close(model(pictures), model.head(features))
    other = SiameseEmbedder("zoo/resnet8", 24, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    assert other.mean.tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert other.std.tolist() == pytest.approx([0.4, 0.5, 0.6])


@pytest.mark.parametrize("size", [28, 45, 96])
def test_the_zoo_takes_faces_of_any_size(size: int) -> None:
    assert SiameseEmbedder("zoo/preact20", 8).eval()(_pictures(2, size)).shape == (2, 8)


def test_the_zoo_has_no_pretrained_weights_and_no_stochastic_depth() -> None:
    with pytest.raises(UserError, match=r"`model\.pretrained` false"):
        SiameseEmbedder("zoo/resnet8", 8, pretrained=True)
    with pytest.raises(UserError, match=r"drop_path` 0\.1: resnet8 has no stochastic depth; set 0"):
        SiameseEmbedder("zoo/resnet8", 8, drop_path=0.1)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("zoo/preakt20", "zoo/preact20"), ("preact20", "zoo/preact20"), ("resnet-18", "resnet18")],
)
def test_unknown_backbones_name_the_nearest_of_timm_and_zoo(name: str, nearest: str) -> None:
    with pytest.raises(UserError, match=rf"{name}: .*did you mean {nearest}\?"):
        require_backbone(name)


def test_an_embedder_of_the_zoo_comes_back_from_its_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(2)
    model = SiameseEmbedder("zoo/resnet8", 16, size=32)
    model.train()(_pictures())  # so that batch norms have statistics of their own
    pictures = _pictures()
    path = _checkpoint(tmp_path / "best.pt", model)
    again = embedder_of(read_checkpoint(path), path)
    assert torch.equal(again(pictures), model.eval()(pictures))


def test_starts_from_the_features_of_a_classifier_of_the_zoo(tmp_path: Path) -> None:
    classifier = create_network("resnet8", num_classes=7)
    file = tmp_path / "weights.pth"
    torch.save(classifier.state_dict(), file)
    model = SiameseEmbedder("zoo/resnet8", 8)
    load_start_weights(model, file)
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, classifier.state_dict()[name])
