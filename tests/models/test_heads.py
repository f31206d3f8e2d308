"""Pooling before the linear head and the neck behind it."""

from pathlib import Path

import pytest
import torch
from torch import nn

from siamese.errors import UserError
from siamese.models.embedder import EmbedderSpec, SiameseEmbedder
from siamese.models.heads import GeM
from siamese.models.loading import embedder_of


def _pictures(number: int = 6, side: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (number, 3, side, side), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("exponent", [1.0, 3.0, 5.5])
def test_gem_is_the_generalised_mean(exponent: float) -> None:
    maps, pooling = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)), GeM()
    with torch.no_grad():
        pooling.exponent.fill_(exponent)
    found = pooling(maps)
    for n in range(2):
        for c in range(3):
            values = [max(v, 1e-6) ** exponent for v in maps[n, c].double().flatten().tolist()]
            assert float(found[n, c]) == pytest.approx(
                (sum(values) / 20) ** (1 / exponent), rel=1e-5
            )


def test_gem_starts_at_three_and_learns_in_float32_under_autocast() -> None:
    model = SiameseEmbedder("test_resnet", 8, size=64, pooling="gem")
    assert isinstance(model.pooling, GeM)
    assert float(model.pooling.exponent) == 3.0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model.train()(_pictures(side=64)).float().square().sum().backward()
    assert float(model.pooling.exponent.grad) != 0.0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model.pooling(torch.rand(1, 2, 3, 3).bfloat16()).dtype == torch.float32


@pytest.mark.parametrize(("learnt", "used"), [(-2.0, 1.0), (0.0, 1.0), (40.0, 6.0)])
def test_gem_stays_where_float32_holds_its_powers(learnt: float, used: float) -> None:
    maps = torch.zeros(2, 3, 4, 4)
    maps[:, 0] = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(0))
    wild, tame = GeM(), GeM()
    with torch.no_grad():
        wild.exponent.fill_(learnt)
        tame.exponent.fill_(used)
    maps.requires_grad_()
    assert torch.equal(wild(maps), tame(maps))
    wild(maps).sum().backward()
    assert maps.grad is not None
    assert bool(torch.isfinite(maps.grad).all())


def test_gem_needs_feature_maps() -> None:
    for backbone in ("vit_tiny_patch16_224", "zoo/resnet8"):
        with pytest.raises(UserError, match=r"`model\.pooling` gem: .* use avg"):
            SiameseEmbedder(backbone, 8, pooling="gem")


def test_an_exponent_of_one_gives_what_the_backbone_pools() -> None:
    torch.manual_seed(0)
    usual = SiameseEmbedder("test_resnet", 8, size=64).eval()
    gem = SiameseEmbedder("test_resnet", 8, size=64, pooling="gem").eval()
    gem.load_state_dict(usual.state_dict(), strict=False)
    with torch.no_grad():
        gem.pooling.exponent.fill_(1.0)  # its maps end in a ReLU
        found, expected = gem(_pictures(side=64)), usual(_pictures(side=64))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_neck_normalises_and_its_bias_stays() -> None:
    model = SiameseEmbedder("test_resnet", 8, size=32, neck="batch_norm").train()
    embeddings = model(_pictures(32))
    torch.testing.assert_close(embeddings.mean(0), torch.zeros(8), rtol=0, atol=1e-5)
    torch.testing.assert_close(embeddings.std(0, correction=0), torch.ones(8), rtol=0, atol=1e-3)
    embeddings.square().sum().backward()
    assert isinstance(model.neck, nn.BatchNorm1d)
    assert model.neck.bias.grad is None
    names = {name for name, _ in model.top().named_parameters()}
    assert {"head.weight", "neck.weight"} <= names


def test_training_gives_both_sides_where_a_loss_wants_them() -> None:
    model = SiameseEmbedder("test_resnet", 8, size=32, neck="batch_norm").train()
    model.both_sides = True
    wide = model(_pictures(8))
    assert wide.shape == (8, 16)
    before = wide[:, :8]
    normed = (before - before.mean(0)) / (before.var(0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(wide[:, 8:], normed, rtol=1e-4, atol=1e-4)
    assert model.eval()(_pictures(8)).shape == (8, 8)


def test_embedding_dropout_is_of_training_only() -> None:
    model = SiameseEmbedder("test_resnet", 64, size=32, embedding_dropout=0.5)
    with torch.no_grad():
        assert 0.3 < float((model.train()(_pictures()) == 0).float().mean()) < 0.7
        assert not (model.eval()(_pictures()) == 0).any()


@pytest.mark.parametrize(("pooling", "neck"), [("gem", "batch_norm"), ("avg", "none")])
def test_a_description_builds_the_same_embedder(pooling: str, neck: str) -> None:
    torch.manual_seed(0)
    model = SiameseEmbedder("test_resnet", 8, size=32, pooling=pooling, neck=neck)
    spec = model.spec("squash")
    assert (spec.pooling, spec.neck) == (pooling, neck)
    # What is not used is not written: fingerprints of earlier models stay.
    assert ("pooling" in spec.as_dict(), "neck" in spec.as_dict()) == (
        pooling != "avg",
        neck != "none",
    )
    content = {"embedder": spec.as_dict(), "model": model.state_dict()}
    again = embedder_of(content, Path("x.pt"))
    assert torch.equal(again(_pictures()), model.eval()(_pictures()))


def test_weights_without_the_neck_that_is_described_are_refused() -> None:
    model = SiameseEmbedder("test_resnet", 8, size=32)
    spec = EmbedderSpec("test_resnet", 8, 32, "squash", (0.5,) * 3, (0.5,) * 3, neck="batch_norm")
    content = {"embedder": spec.as_dict(), "model": model.state_dict()}
    with pytest.raises(UserError, match=r"x\.pt: its weights do not fit"):
        embedder_of(content, Path("x.pt"))
