"""batches.people auto: the number that was found is the run's; what is tried is what trains."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from siamese.config import LossSettings, TrainSettings, check_settings
from siamese.config.reading import build_settings, flatten
from siamese.errors import UserError
from siamese.models.checkpoint import read_checkpoint
from siamese.tasks.faces import face_fitting, face_runs
from siamese.tasks.faces.face_calls import train
from siamese.tasks.faces.face_fitting import TrialStep
from siamese.tasks.faces.face_runs import resume_training, train_faces
from siamese.tasks.faces.metric_losses import MetricLoss
from siamese.tasks.faces.own_parts import OwnLoss
from siamese.training.probing import Arithmetic
from tests.runs import same


@pytest.fixture
def settings(face_folder: Path, tmp_path: Path) -> TrainSettings:
    made = TrainSettings(data=str(face_folder), name="run", device="cpu")
    made.runs, made.checkpoints = str(tmp_path / "runs"), str(tmp_path / "checkpoints")
    made.images.size, made.split.validation, made.batches.workers = 32, 2, 0
    made.model.backbone, made.model.pretrained, made.model.embedding_dim = "test_resnet", False, 8
    made.model.dropout, made.loss.name = 0.3, "arcface"
    made.batches.people, made.batches.images = "auto", 2
    made.trainer.epochs, made.trainer.recalibration_batches = 1, 2
    return made


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Let a CPU stand in for a GPU that has room for so many people."""
    room = {"people": 3}
    step = TrialStep.__call__

    def within(trial: TrialStep, people: int) -> None:
        step(trial, people)
        if people > room["people"]:
            raise torch.OutOfMemoryError("CUDA out of memory")

    for module in (face_fitting, face_runs):
        monkeypatch.setattr(module, "require_gpu", lambda device: None)
    monkeypatch.setattr(face_fitting, "spare_bytes", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "H1")
    monkeypatch.setattr(TrialStep, "__call__", within)
    return room


def test_the_number_found_is_the_run_s_and_trying_leaves_no_trace(
    settings: TrainSettings, gpu: dict[str, int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    best = train_faces(settings)
    printed = capsys.readouterr().out.splitlines()
    assert "batches.people auto: 3 (as many as fit the H1), 4 batches per epoch" in printed
    found = read_checkpoint(best)
    assert found["settings"]["batches"]["people"] == 3
    written = yaml.safe_load((tmp_path / "runs" / "run" / "settings.yaml").read_text())
    assert written["batches"]["people"] == 3
    settings.batches.people = 3
    settings.runs, settings.checkpoints = str(tmp_path / "runs2"), str(tmp_path / "checkpoints2")
    same(found, read_checkpoint(train_faces(settings)))


def test_a_run_goes_on_with_the_number_that_it_began_with(
    settings: TrainSettings, gpu: dict[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    train_faces(settings)
    gpu["people"] = 2
    capsys.readouterr()

    def longer(saved: dict[str, Any], people: object) -> TrainSettings:
        flat = flatten(TrainSettings, saved) | {"trainer.epochs": 2, "batches.people": people}
        return build_settings(TrainSettings, flat, "test")

    with pytest.raises(UserError, match=r"`batches.people` was 3 and cannot become 4"):
        resume_training("run", settings.checkpoints, lambda saved: longer(saved, 4))
    resume_training("run", settings.checkpoints, lambda saved: longer(saved, "auto"))
    assert "batches of 3 people x 2 pictures" in capsys.readouterr().out


def test_no_more_people_than_may_be_drawn(
    settings: TrainSettings,
    gpu: dict[str, int],
    capsys: pytest.CaptureFixture[str],
    face_folder: Path,
) -> None:
    gpu["people"] = 99
    for person in sorted(face_folder.iterdir())[:3]:  # one of them trains at least
        for picture in sorted(person.iterdir())[1:]:
            picture.unlink()
    found = read_checkpoint(train_faces(settings))
    train_people = found["split"]["train"]["identities"]
    drawn = sum(len(list((face_folder / name).iterdir())) >= 2 for name in train_people)
    assert 2 <= drawn < len(train_people)
    assert found["settings"]["batches"]["people"] == drawn
    assert f"{drawn} (all that may be drawn fit the H1)" in capsys.readouterr().out


def test_where_nothing_fits_the_settings_that_need_less_are_named(
    settings: TrainSettings, gpu: dict[str, int]
) -> None:
    gpu["people"] = 1
    with pytest.raises(UserError, match=r"not even 2 people x 2 pictures fit the H1; lower `batch"):
        train_faces(settings)


def test_a_cpu_is_refused_before_anything_is_loaded(settings: TrainSettings) -> None:
    settings.data, settings.model.backbone = "no such folder", "no_such_network"
    with pytest.raises(UserError, match=r"`batches.people` auto: needs a GPU.*set a number"):
        train_faces(settings)
    assert not Path(settings.runs).exists()


def test_settings_that_make_it_needless_are_refused() -> None:
    settings = TrainSettings()
    settings.batches.people, settings.batches.chunk = "auto", 8
    with pytest.raises(UserError, match=r"`batches.people` auto: must be a number beside `batch"):
        check_settings(settings)
    settings.batches.chunk = None
    check_settings(settings)


def test_an_own_loss_is_as_before(
    settings: TrainSettings, gpu: dict[str, int], face_folder: Path
) -> None:
    class Counting(nn.Module):
        asked = 0

        def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            self.asked += 1
            return embeddings.square().mean()

    loss = Counting()
    groups = {name: getattr(settings, name) for name in ("images", "split", "batches", "trainer")}
    places = {"runs": settings.runs, "checkpoints": settings.checkpoints, "device": "cpu"}
    network = {"backbone": "test_resnet", "pretrained": False, "embedding_dim": 8}
    train(face_folder, loss=loss, model=network, **groups, **places)
    assert loss.asked == 4  # one epoch of the run itself


# The step that is tried


@pytest.mark.parametrize(
    ("world", "people", "own"), [(1, 5, 5), (2, 5, 3), (2, 4, 2), (3, 4, 2), (4, 5, 2)]
)
def test_a_trial_is_the_share_of_a_process_and_the_loss_of_the_whole_batch(
    world: int, people: int, own: int
) -> None:
    seen: dict[str, torch.Tensor] = {}

    def loss(embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        seen["embeddings"], seen["labels"] = embeddings, labels
        return embeddings.square().sum()

    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 8))
    network.register_forward_pre_hook(lambda _, given: given[0].float())
    network.register_forward_hook(lambda _, given, made: seen.update(own=made))
    plain = Arithmetic(torch.float32, channels_last=False)
    TrialStep(network, OwnLoss(loss), 100, world, 3, 16, torch.device("cpu"), plain)(people)
    assert len(seen["own"]) == 3 * own
    assert seen["embeddings"].shape == (3 * people, 8)
    assert seen["labels"].tolist() == [person for person in range(people) for _ in range(3)]
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("rate", [1.0, 0.5])
def test_a_trial_of_several_processes_has_one_process_s_class_weights(rate: float) -> None:
    loss = MetricLoss(LossSettings(name="arcface", sample_rate=rate), 4, 8)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 8))
    network.register_forward_pre_hook(lambda _, given: given[0].float())
    plain = Arithmetic(torch.float32, channels_last=False)
    TrialStep(network, loss, 4, 2, 3, 16, torch.device("cpu"), plain)(7)
    assert loss.loss.W.grad is not None
