"""Throughput as ratios, in one run: training against a resident batch, embedding against batch 1.

    .venv/bin/python scripts/bench_train.py --data faces/ [--size 96] [--backbone NAME] ...

Training: pictures per second of whole training steps (loading, decoding and augmentation
included, from the run's own clock) over those of the same model's forward, loss, backward and
optimizer step on one batch that stays on the device. The two take turns, epoch by epoch.
Embedding: pictures per second of the batched embedding, decoding included, over those of the
classic loop: one picture decoded, transformed and embedded at a time, in fp32.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the commands set it, see cli/parsing.py

import torch

from siamese.config import (
    BatchSettings,
    ImageSettings,
    ModelSettings,
    SplitSettings,
    TrainerSettings,
    TrainSettings,
)
from siamese.data.batches import default_workers, evaluation_loader
from siamese.data.decode import decode
from siamese.data.folder import FaceFolder, scan_folder
from siamese.data.split import make_split
from siamese.data.transforms import Preprocess
from siamese.models.device import choose_device, choose_precision
from siamese.models.embedder import EmbedderSpec, SiameseEmbedder
from siamese.models.embedding import embed
from siamese.tasks.faces.face_task import FaceTask
from siamese.tasks.faces.metric_losses import MetricLoss
from siamese.training.loop import Figures, Loop, LoopOptions
from siamese.training.optimizers import build_optimizer, parameter_groups


class _TakingTurns:
    """Observer that runs the resident steps between two epochs."""

    def __init__(self, resident: _Resident, steps: int):
        self.resident, self.steps = resident, steps
        self.before = (0.0, 0.0)
        self.speeds: list[tuple[float, float]] = []

    def step(self, step: int, figures: Figures) -> None:
        pass

    def say(self, line: str) -> None:
        print(line)

    def epoch(self, row: Figures, best: bool) -> None:
        seconds, images = self.before
        self.before = (row["seconds"], row["images_seen"])
        training = (row["images_seen"] - images) / (row["seconds"] - seconds)
        resident = self.resident.speed(self.steps)
        warm_up = "  (warm-up, not counted)" if row["epoch"] == 1 else ""
        print(
            f"round {int(row['epoch'])}: training {training:.1f} img/s, resident batch "
            f"{resident:.1f} img/s, ratio {training / resident:.3f}{warm_up}"
        )
        if not warm_up:
            self.speeds.append((training, resident))


class _Resident:
    """The same step on one batch that stays on the device."""

    def __init__(self, task: FaceTask):
        self.task = copy.copy(task)
        self.task.model = copy.deepcopy(task.model)
        groups = parameter_groups({"model": self.task.model}, 0.0, 1e-4, {})
        self.optimizer, _ = build_optimizer(
            task.settings.optimizer, task.settings.schedule, groups, 1e-4, 1, 1
        )
        self.batch = next(iter(task.batches(0, 0)))
        self.batch.images = self.batch.images.to(task.device)
        self.batch.labels = self.batch.labels.to(task.device)

    def speed(self, steps: int) -> float:
        self.optimizer.train()
        self.task.model.train()
        started = time.perf_counter()
        for _ in range(steps):
            result = self.task.step_loss(self.batch, False)
            result.value.backward()
            self.optimizer.inner.step()
            self.optimizer.inner.zero_grad(set_to_none=True)
            float(result.value.detach())
        return steps * len(self.batch.labels) / (time.perf_counter() - started)


def bench_training(settings: TrainSettings, folder: FaceFolder, device: torch.device) -> None:
    split = make_split(folder, validation=0.1, test=0, seed=0)
    model = SiameseEmbedder(settings.model.backbone, settings.model.embedding_dim)
    layout = torch.channels_last if settings.trainer.channels_last else torch.contiguous_format
    model = model.to(device, memory_format=layout)
    mean, std = (tuple(values.tolist()) for values in (model.mean, model.std))
    spec = EmbedderSpec(
        settings.model.backbone, settings.model.embedding_dim, settings.images.size,
        "squash", mean, std,
    )  # fmt: skip
    workers = settings.batches.workers
    workers = default_workers(device.type) if workers is None else workers
    precision = choose_precision(settings.trainer.precision, device)
    loss = MetricLoss(settings.loss, len(split.train.names), spec.embedding_dim)
    task = FaceTask(settings, split, model, spec, loss, device, precision, workers, print)
    groups = parameter_groups({"model": model}, 0.0, 1e-4, {})
    optimizer, schedule = build_optimizer(settings.optimizer, settings.schedule, groups, 1e-4, 1, 1)
    turns = _TakingTurns(_Resident(task), task.batches_per_epoch())
    with tempfile.TemporaryDirectory() as place:
        options = LoopOptions(settings.trainer.epochs, 1, None, "auc", 0, 10, Path(place))
        scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)
        Loop(task, optimizer, schedule, scaler, options).run(turns)
    ratio = statistics.median(training / resident for training, resident in turns.speeds)
    print(
        f"training / resident batch: {ratio:.3f} (median of {len(turns.speeds)}), {workers} workers"
    )


def bench_embedding(
    settings: TrainSettings, folder: FaceFolder, device: torch.device, pictures: int
) -> None:
    size = settings.images.size
    model = SiameseEmbedder(settings.model.backbone, settings.model.embedding_dim).to(device).eval()
    classic = copy.deepcopy(model)
    model = model.to(memory_format=torch.channels_last)
    some = folder.paths[:: max(1, len(folder.paths) // pictures)]
    part = FaceFolder(folder.root, folder.names, some, tuple(0 for _ in some), ())
    prepare = Preprocess(size, "squash")
    ratios = []
    for number in range(4):
        started = time.perf_counter()
        loader = evaluation_loader(
            part, prepare, size, batch_size=settings.trainer.embed_batch,
            workers=default_workers(device.type),
        )  # fmt: skip
        embed(model, loader, device=device, precision=choose_precision("auto", device))
        batched = len(some) / (time.perf_counter() - started)
        started = time.perf_counter()
        with torch.inference_mode():
            for path in some:
                picture = prepare(decode(part.root / path))
                classic(picture[None].to(device)).cpu()
        single = len(some) / (time.perf_counter() - started)
        if number:  # the first round warms up
            ratios.append(batched / single)
            print(f"embedding: batched {batched:.1f} img/s, one by one {single:.1f} img/s")
    print(f"embedding, batched / one by one: {statistics.median(ratios):.2f} (median of 3)")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--backbone", default="tf_efficientnetv2_b0.in1k")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--people", type=int, default=16)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--steps", type=int, default=40, help="steps per round")
    parser.add_argument("--rounds", type=int, default=4, help="the first one warms up")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--pictures", type=int, default=1000, help="pictures to embed")
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    settings = TrainSettings(
        images=ImageSettings(size=arguments.size),
        split=SplitSettings(validation=0.1),
        batches=BatchSettings(
            arguments.people,
            arguments.images,
            arguments.steps * arguments.people * arguments.images,
            arguments.workers,
        ),
        model=ModelSettings(arguments.backbone, pretrained=False),
        trainer=TrainerSettings(epochs=arguments.rounds, recalibration_batches=0),
    )
    folder = scan_folder(arguments.data)
    print(f"{arguments.backbone}, {arguments.size} px, {device}, {torch.get_num_threads()} threads")
    bench_training(settings, folder, device)
    bench_embedding(settings, folder, device, arguments.pictures)


if __name__ == "__main__":
    main()
