"""Mixup of faces: against naive loops, exact when a run goes on, the same in several processes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from siamese.config import (
    CLASS_WEIGHT_LOSSES,
    LossSettings,
    TrainSettings,
    check_settings,
)
from siamese.data.folder import FaceFolder
from siamese.data.loaders import Batch
from siamese.data.split import Split
from siamese.errors import UserError
from siamese.models.checkpoint import read_checkpoint
from siamese.models.embedder import SiameseEmbedder
from siamese.tasks.faces.face_runs import resume_training, train_faces
from siamese.tasks.faces.face_task import FaceTask
from siamese.tasks.faces.input_mixup import InputMixup, MixedBatch
from siamese.tasks.faces.metric_losses import MetricLoss
from siamese.training.distribution import Distribution, joined
from tests.forked import in_processes
from tests.runs import interrupt_at, same, short_run

PEOPLE, SIDE = 8, 32


def _pictures(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (PEOPLE, 3, 5, 5), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_pictures_are_mixed_as_a_naive_loop_does(memory_format: Any) -> None:
    images = _pictures().contiguous(memory_format=memory_format)
    mixed = InputMixup(1.0, seed=3).mix(images, torch.arange(PEOPLE))
    assert mixed.images.dtype == torch.uint8
    assert mixed.images.is_contiguous(memory_format=memory_format)
    assert sorted(mixed.partners.tolist()) == list(range(PEOPLE))
    assert mixed.partners.tolist() != list(range(PEOPLE))
    for at in range(PEOPLE):
        own, other = images[at].double(), images[mixed.partners[at]].double()
        exact = mixed.share * own + (1 - mixed.share) * other
        assert float((mixed.images[at].double() - exact).abs().max()) <= 0.5 + 1e-4


@pytest.mark.parametrize("rate", [1.0, 0.5])
@pytest.mark.parametrize("name", sorted(CLASS_WEIGHT_LOSSES - {"adaface"}))
def test_the_loss_is_that_of_both_people_by_their_shares(name: Any, rate: float) -> None:
    def loss() -> MetricLoss:
        torch.manual_seed(1)
        return MetricLoss(LossSettings(name=name, sample_rate=rate), 40, 4, seed=7)

    torch.manual_seed(0)
    embeddings, labels = torch.randn(6, 4), torch.tensor([0, 0, 9, 9, 30, 30])
    partners = labels[torch.tensor([2, 5, 0, 3, 4, 1])]
    whole, mixup = loss(), InputMixup(0.2, seed=7)
    mixup.start_epoch(2, 4)
    whole.start_epoch(2, 4)
    for batch in (4, 5):  # the second one draws other classes, if any are drawn
        own, other = loss(), loss()
        own.start_epoch(2, batch)
        other.start_epoch(2, batch)
        expected = 0.3 * own(embeddings, labels) + 0.7 * other(embeddings, partners)
        mixed = MixedBatch(torch.zeros(0), partners, 0.3)
        torch.testing.assert_close(mixup.loss(whole, embeddings, labels, mixed), expected)


def _drawn(mixup: InputMixup, epoch: int, first: int, number: int) -> list[Any]:
    mixup.start_epoch(epoch, first)
    loss = MetricLoss(LossSettings(name="cosface"), PEOPLE, 4)
    drawn = []
    for _ in range(number):
        mixed = mixup.mix(_pictures(), torch.arange(PEOPLE))
        mixup.loss(loss, torch.ones(PEOPLE, 4), torch.arange(PEOPLE), mixed)
        drawn.append((mixed.share, mixed.partners.tolist()))
    return drawn


def test_draws_follow_seed_epoch_and_batch() -> None:
    whole = _drawn(InputMixup(0.4, seed=5), 1, 0, 5)
    torch.manual_seed(99)
    np.random.seed(99)
    assert _drawn(InputMixup(0.4, seed=5), 1, 3, 2) == whole[3:]
    others = _drawn(InputMixup(0.4, seed=5), 2, 0, 5) + _drawn(InputMixup(0.4, seed=6), 1, 0, 5)
    assert len({share for share, _ in whole + others}) == 15
    partners = [tuple(order) for _, order in whole + others]
    assert len(set(partners)) == 15


def test_other_processes_mix_by_the_same_share_with_an_order_of_their_own() -> None:
    one, other = (_drawn(InputMixup(0.4, 5, rank), 1, 0, 3) for rank in (0, 1))
    assert [share for share, _ in one] == [share for share, _ in other]
    assert all(a[1] != b[1] for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_shares_are_drawn_from_the_beta_distribution(alpha: float) -> None:
    mixup, shares = InputMixup(alpha, seed=0), []
    for batch in range(4000):
        mixup.start_epoch(0, batch)
        shares.append(mixup.mix(torch.zeros(1, 3, 1, 1), torch.zeros(1)).share)
    assert np.mean(shares) == pytest.approx(0.5, abs=0.035)  # five standard errors at most
    assert np.var(shares) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


@pytest.mark.parametrize(("kind", "number", "workers"), [("step", 4, 2), ("epoch", 1, 0)])
def test_a_resumed_run_equals_the_uninterrupted_one(
    face_folder: Path, tmp_path: Path, kind: str, number: int, workers: int
) -> None:
    settings = short_run(face_folder, tmp_path / "whole")
    settings.augment = replace(
        settings.augment, mixup=0.3, low_resolution=0.5, jpeg=0.5, randaugment=1
    )
    settings.loss = LossSettings(name="arcface", sample_rate=0.9, scale=4.0)
    settings.optimizer.lr = 1e-2
    settings.batches = replace(settings.batches, people=3, images=2, images_per_epoch=18)
    settings.trainer = replace(settings.trainer, epochs=2, recalibration_batches=2, log_every=1)
    train_faces(settings)
    stopped = replace(
        settings,
        runs=str(tmp_path / "stopped/runs"),
        checkpoints=str(tmp_path / "stopped/checkpoints"),
    )
    # What was drawn depends on no number of loaders either; this one is not kept.
    stopped.batches = replace(settings.batches, workers=workers)
    with pytest.MonkeyPatch.context() as patch:
        interrupt_at(patch, kind, number)
        with pytest.raises(KeyboardInterrupt):
            train_faces(stopped)
    torch.manual_seed(999)
    resume_training("run", stopped.checkpoints, lambda saved: stopped)
    contents = [
        read_checkpoint(Path(run.checkpoints) / "run" / "last.pt") for run in (settings, stopped)
    ]
    for content in contents:
        content["settings"]["batches"].pop("workers")
    same(*contents)
    plain = replace(settings, name="plain", augment=replace(settings.augment, mixup=0.0))
    train_faces(plain)
    last = read_checkpoint(Path(plain.checkpoints) / "plain" / "last.pt")
    assert not torch.equal(last["model"]["head.weight"], contents[0]["model"]["head.weight"])


def _step(place: str) -> None:
    """A mixed step of one of two processes against all of it in one."""
    with joined("cpu") as processes:
        paths = tuple(f"{person}/{at}.png" for person in range(4) for at in range(2))
        labels = tuple(person for person in range(4) for _ in range(2))
        faces = FaceFolder(Path(place), ("a", "b", "c", "d"), paths, labels, ())
        settings = TrainSettings(device="cpu", loss=LossSettings(name="arcface"))
        settings.augment.mixup, settings.images.size = 1.0, SIDE
        settings.batches.people, settings.batches.images = 3, 2  # one person here, two there

        def parts(distribution: Distribution) -> tuple[SiameseEmbedder, MetricLoss]:
            torch.manual_seed(0)
            model = SiameseEmbedder("zoo/resnet20", 8, size=SIDE)
            return model.eval(), MetricLoss(settings.loss, 4, 8, distribution)

        model, loss = parts(processes)
        task = FaceTask(
            settings,
            Split(faces, faces, None),
            model,
            model.spec("squash"),
            loss,
            torch.device("cpu"),
            torch.float32,
            0,
            lambda path, reason: None,
            distribution=processes,
        )
        task.batches(1, 2)
        generator = torch.Generator().manual_seed(5)
        size = (6, 3, SIDE, SIDE)
        images = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
        people = torch.tensor([0, 0, 2, 2, 3, 3])
        shares = [slice(0, 2), slice(2, 6)]
        mine = shares[processes.rank]
        batch = Batch(images[mine], people[mine], torch.arange(6)[mine], [], 6)
        value = task.step_loss(batch, True)

        whole, alone = parts(Distribution())
        expected, embeddings, partners = torch.zeros(()), [], []
        for other, share in enumerate(shares):
            mixup = InputMixup(1.0, settings.seed, other)
            mixup.start_epoch(1, 2)
            mixed = mixup.mix(images[share], people[share])
            embeddings.append(whole(mixed.images))
            partners.append(mixed.partners)
        rows, others = torch.cat(embeddings), torch.cat(partners)
        expected = mixed.share * alone(rows, people) + (1 - mixed.share) * alone(rows, others)
        torch.testing.assert_close(value.value, expected, rtol=1e-4, atol=1e-5)
        assert not torch.equal(others, people)


def test_processes_mix_their_own_pictures_and_share_the_loss(tmp_path: Path) -> None:
    in_processes(2, _step, str(tmp_path))


def test_mixed_people_need_class_weights() -> None:
    settings = TrainSettings()
    settings.augment.mixup = 0.2
    for name in ("arcface", "subcenter_arcface", "cosface", "normalized_softmax"):
        settings.loss = LossSettings(name=name)  # type: ignore[arg-type]
        check_settings(settings)
    settings.loss = LossSettings(name="arcface", triplet_weight=0.5)
    with pytest.raises(UserError, match=r"^`augment\.mixup` 0\.2: must be 0 beside `loss\.trip"):
        check_settings(settings)
    for name in ("triplet", "supcon", "adaface"):
        settings.loss = LossSettings(name=name)  # type: ignore[arg-type]
        with pytest.raises(UserError, match=rf"^`augment\.mixup` 0\.2: must be 0 for the {name}"):
            check_settings(settings)
