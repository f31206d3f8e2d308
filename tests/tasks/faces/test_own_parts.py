"""``siamese.train``: a program's own network, loss, sampler, augmentation and data set."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_metric_learning import losses
from pytorch_metric_learning.samplers import MPerClassSampler
from torch import nn

import siamese
from siamese.config import ImageSettings
from siamese.errors import UserError
from siamese.models.checkpoint import read_checkpoint
from tests.conftest import draw_person

SMALL: dict[str, Any] = {
    "name": "run", "device": "cpu", "size": 32, "epochs": 1, "workers": 0,
    "optimizer": "adamw", "lr": 1e-2,
    "split": {"validation": 2}, "batches": {"people": 2, "images": 2},
    "model.embedding_dim": 8, "trainer.recalibration_batches": 1,
}  # fmt: skip


class TinyNetwork(nn.Module):
    """Features of three colours."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 6, 3, stride=2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layer(images).relu().mean(dim=(2, 3))


class DrawnPeople:
    """A data set of (picture, label), in three forms of pictures."""

    labels = np.repeat(["b", "a", "c", "dd"], 4)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, str]:
        picture: Any = draw_person(index // 4, index % 4)
        if index % 3 == 1:
            picture = np.asarray(picture)
        if index % 3 == 2:
            picture = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)
        return picture, self.labels[index]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"loss.margin": 0.2}, "`loss.margin` 0.2: does nothing beside a loss of your own"),
        (
            {"loss.name": "normalized_softmax", "loss.triplet_weight": 1.0},
            "`loss.name` normalized_softmax: does nothing beside a loss of your own",
        ),
        ({"augment.mixup": 0.2}, "`augment.mixup`: must be 0 beside a loss of your own"),
    ],
)
def test_settings_of_a_loss_beside_ones_own_are_refused(
    face_folder: Path, given: dict[str, Any], message: str
) -> None:
    loss = losses.TripletMarginLoss()
    with pytest.raises(UserError) as caught:
        siamese.train(face_folder, loss=loss, **given)
    assert message in str(caught.value)


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("places")
def test_a_folder_with_settings_by_keyword(face_folder: Path) -> None:
    run = siamese.train(
        face_folder, backbone="test_resnet", loss="contrastive", optimizer="adamw",
        images=ImageSettings(size=32), model={"embedding_dim": 8, "pretrained": False},
        epochs=2, lr=1e-3, workers=0, split={"validation": 2}, device="cpu", name="mine",
        batches={"people": 2, "images": 2}, **{"trainer.recalibration_batches": 1},
    )  # fmt: skip
    assert (run.name, run.best) == ("mine", Path("checkpoints/mine/best.pt"))
    content = read_checkpoint(run.best)
    settings = content["settings"]
    assert settings["optimizer"]["name"] == "adamw"
    assert settings["optimizer"]["lr"] == 1e-3
    assert settings["loss"]["name"] == "contrastive"
    assert settings["model"]["embedding_dim"] == 8
    assert run.figures["auc"] == content["figures"]["auc"]
    assert run.figures["epoch"] == content["progress"]["best_epoch"]
    assert (run.folder / "metrics.csv").exists()
    more = siamese.train(resume="mine", epochs=3)
    assert read_checkpoint(more.best.with_name("last.pt"))["progress"]["epoch"] == 3


@pytest.mark.usefixtures("places")
def test_own_network_loss_sampler_and_augmentation(face_folder: Path) -> None:
    seen: list[torch.Tensor] = []

    def darker(picture: torch.Tensor) -> torch.Tensor:
        seen.append(picture)
        return picture // 2

    network = TinyNetwork()
    before = network.layer.weight.detach().clone()
    loss = losses.ArcFaceLoss(4, 8)
    weights = loss.W.detach().clone()

    def sampler(labels: Any) -> MPerClassSampler:
        return MPerClassSampler(labels, m=2, batch_size=4, length_before_new_iter=16)

    run = siamese.train(
        face_folder, backbone=network, loss=loss, sampler=sampler, augment=darker, **SMALL
    )
    assert seen
    assert seen[0].dtype == torch.uint8
    assert seen[0].shape == (3, 32, 32)
    assert not torch.equal(before, network.layer.weight)
    assert not torch.equal(weights, loss.W)  # its own weights learn, too
    content = read_checkpoint(run.best)
    assert content["versions"]["own_backbone"].endswith("TinyNetwork")
    assert content["versions"]["own_loss"].endswith("ArcFaceLoss")
    assert content["loss"]
    assert read_checkpoint(run.best)["progress"]["images"] == 16
    fresh = TinyNetwork()
    embedder = siamese.Embedder.load(run.best, backbone=fresh)
    picture = next(face_folder.glob("*/0.png"))
    assert embedder.embed(picture).shape == (1, 8)
    with pytest.raises(UserError, match="TinyNetwork"):
        siamese.Embedder.load(run.best)


@pytest.mark.usefixtures("places")
def test_a_resumed_run_asks_for_its_own_parts(face_folder: Path) -> None:
    def cosine_loss(embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        same = (labels[:, None] == labels[None]).float()
        unit = nn.functional.normalize(embeddings, dim=1)
        return ((unit @ unit.T - same) ** 2).mean()

    siamese.train(face_folder, backbone=TinyNetwork(), loss=cosine_loss, **SMALL)
    with pytest.raises(
        UserError, match=r"its backbone was .*TinyNetwork.*train\(resume=..., backbone=...\)"
    ):
        siamese.train(resume="run", epochs=2)
    with pytest.raises(UserError, match=r"its loss was .*cosine_loss.*loss=\.\.\.\)"):
        siamese.train(resume="run", backbone=TinyNetwork(), epochs=2)
    siamese.train(resume="run", backbone=TinyNetwork(), loss=cosine_loss, epochs=2)
    whole = siamese.train(
        face_folder, backbone=TinyNetwork(), loss=cosine_loss, **{**SMALL, "name": "w", "epochs": 2}
    )
    assert read_checkpoint(whole.best)["versions"]["own_loss"].endswith("cosine_loss")


@pytest.mark.usefixtures("places")
def test_a_data_set_instead_of_a_folder() -> None:
    run = siamese.train(DrawnPeople(), backbone=TinyNetwork(), **SMALL)
    split = read_checkpoint(run.best)["split"]
    assert sorted(split["train"]["identities"] + split["validation"]["identities"]) == [
        "a", "b", "c", "dd"
    ]  # fmt: skip
    assert split["train"]["pictures"] + split["validation"]["pictures"] == 16
    again = siamese.train(DrawnPeople(), backbone=TinyNetwork(), resume="run", epochs=2)
    assert again.figures["epoch"] in (1, 2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epoch": 3}, "unknown setting epoch"),
        ({"images": {"side": 64}}, "unknown setting images.side"),
        ({"images": {"size": "big"}}, "size"),
        ({"data": object()}, "has no `labels`"),
        ({"data": "nowhere"}, "nowhere: no such folder"),
        ({"sampler": lambda _: range(3)}, "less than one batch"),
    ],
)
@pytest.mark.usefixtures("places")
def test_what_cannot_work_is_refused_in_python_words(
    wrong: dict[str, Any], message: str, face_folder: Path
) -> None:
    arguments = {"data": face_folder, "backbone": TinyNetwork(), **SMALL, **wrong}
    with pytest.raises(UserError, match=message) as caught:
        siamese.train(**arguments)
    assert "--" not in str(caught.value)


def test_a_broken_item_gives_way_to_the_next_of_its_person(tmp_path: Path) -> None:
    class Broken(DrawnPeople):
        def __getitem__(self, index: int) -> tuple[Any, str]:
            if index == 1:
                raise OSError("no disk")
            return super().__getitem__(index)

    run = siamese.train(
        Broken(), backbone=TinyNetwork(), runs=str(tmp_path / "r"),
        checkpoints=str(tmp_path / "c"), **SMALL,
    )  # fmt: skip
    report = (run.folder / "data_report.txt").read_text(encoding="utf-8")
    assert "Broken[1]: cannot be decoded (no disk)" in report
