"""Throughput of training as ratios, in one run: the product, its ceiling, and other ways.

    .venv/bin/python scripts/bench_train.py --data FACES [--size 112] [--backbone NAME] ...
    .venv/bin/python scripts/bench_train.py --cifar [ROOT] [--models preact20 wrn16_2] ...

`product`: images per second of whole training steps (loading, decoding and augmentation included)
by the run's own clock. After each epoch of it the others do as many steps:
`resident batch`  the same steps on one batch that stays on the device: the ceiling.
`pipeline`        batches loaded and augmented, and not used.
`plain loop`      faces: PIL transforms in the training process, fp32, contiguous layout (what
                  articles show); CIFAR: torchvision's data set with two loader processes.
`PML trainer`     pytorch-metric-learning's MetricLossOnly with as many loader processes (faces).
The first round warms up and does not count. `judging` is recalibration, validation and checkpoints,
as a share of an epoch of 10,000 pictures, and how long each takes; in the first round pictures are
decoded for it that are kept then. The log is not in it. With --later training pictures are in
memory from the start, as far as a run keeps them: its later epochs. What a step spends its time on
tells siamese-train --trainer.profile true.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the commands set it, see cli/parsing.py

import numpy as np
import torch
from PIL import Image
from pytorch_metric_learning import distances, losses, samplers, trainers
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from siamese.config import (
    BatchSettings,
    ClassificationSettings,
    ClassifierSettings,
    ClassTrainerSettings,
    DatasetSettings,
    ImageSettings,
    ModelSettings,
    OptimizerSettings,
    SplitSettings,
    TrainerSettings,
    TrainSettings,
)
from siamese.data.folder import FaceFolder, scan_folder
from siamese.data.labelled_pictures import Pictures as LabelledPictures
from siamese.data.loaders import default_workers
from siamese.data.split import Split, make_split
from siamese.models.device import choose_device
from siamese.models.embedder import SiameseEmbedder
from siamese.tasks.classes.class_task import ClassificationTask
from siamese.tasks.classes.classifier import ClassifierSpec
from siamese.tasks.classes.datasets import ImageSet, load_part
from siamese.tasks.classes.parts import Parts
from siamese.tasks.faces.face_runs import FaceRuns, recalibration_batches
from siamese.tasks.faces.face_task import FaceTask
from siamese.training import loop
from siamese.training.distribution import SINGLE
from siamese.training.launch import RunContext
from siamese.training.loop import Figures, Loop, LoopOptions
from siamese.training.optimizers import PairedOptimizer, build_optimizer, parameter_groups
from siamese.zoo import create_network

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
Way = Iterator[float]  # images per second of one round after the other


class Clock:
    """A function that remembers how long it took."""

    def __init__(self, function: Callable[..., Any]):
        self.function, self.seconds = function, 0.0

    def __call__(self, *given: Any) -> Any:
        started = time.perf_counter()
        try:
            return self.function(*given)
        finally:
            self.seconds += time.perf_counter() - started

    def taken(self) -> float:
        """Seconds since it was asked last."""
        taken, self.seconds = self.seconds, 0.0
        return taken


class TakingTurns:
    """Observer: after each epoch of the run the other ways do a round."""

    def __init__(self, others: dict[str, Way], clocks: dict[str, Clock]):
        self.others, self.clocks, self.before = others, clocks, (0.0, 0.0)
        self.rounds: list[dict[str, float]] = []
        self.judging: list[float] = []
        self.first_judging = 0.0
        self.judged: list[dict[str, float]] = []
        self.since = time.perf_counter()

    def step(self, step: int, figures: Figures) -> None:
        pass

    def epoch(self, row: Figures, best: bool) -> None:
        seconds, images = (row[name] - b for name, b in zip(_CLOCK, self.before, strict=True))
        self.before = (row["seconds"], row["images_seen"])
        judging = max(time.perf_counter() - self.since - seconds, 0.0)
        judged = {part: clock.taken() for part, clock in self.clocks.items()}
        speeds = {"product": images / seconds} | {name: next(w) for name, w in self.others.items()}
        told = ", ".join(f"{name} {speed:.1f}" for name, speed in speeds.items())
        warm_up = row["epoch"] == 1
        share = judging / (judging + 10_000 / speeds["product"])
        print(f"round {int(row['epoch'])}: img/s: {told}" + "  (warm-up)" * warm_up, flush=True)
        if warm_up:
            self.first_judging = share
        else:
            self.rounds.append(speeds)
            self.judging.append(share)
            self.judged.append(judged)
        self.since = time.perf_counter()

    def tell(self, name: str) -> None:
        for other in self.others:
            ratios = [speeds["product"] / speeds[other] for speeds in self.rounds]
            print(f"{name}: product / {other}: {_middle(ratios)}")
        medians = {p: statistics.median(row[p] for row in self.judged) for p in self.clocks}
        told = ", ".join(f"{part} {seconds:.2f} s" for part, seconds in medians.items())
        first = f"first {self.first_judging:.3f}"
        print(f"{name}: judging: {_middle(self.judging)}, {first}; {told}", flush=True)


_CLOCK = ("seconds", "images_seen")


def _middle(values: list[float]) -> str:
    least, most = min(values), max(values)
    return f"{statistics.median(values):.3f} [{least:.3f}, {most:.3f}] (median of {len(values)})"


def resident(task: Any, optimizer: PairedOptimizer, scaler: Any, steps: int) -> Way:
    """Steps of a task of its own on one batch that stays where it is."""
    batch = next(iter(task.batches(0, 0)))
    tensors = {n: v.to(task.device) for n, v in vars(batch).items() if torch.is_tensor(v)}
    batch = replace(batch, **tensors)
    while True:
        optimizer.train()
        task.model.train()
        started = time.perf_counter()
        for _ in range(steps):
            result = task.step_loss(batch, False)
            scaler.scale(result.value).backward()
            optimizer.step(scaler)
            optimizer.inner.zero_grad(set_to_none=True)
        float(result.value.detach())  # a GPU is done then, too
        yield steps * len(batch.labels) / (time.perf_counter() - started)


def pipeline(task: Any) -> Way:
    """Batches of a task of its own, without steps."""
    epoch = 0
    while True:
        started, images = time.perf_counter(), 0
        for batch in task.batches(epoch, 0):
            images += len(batch.labels)
        epoch += 1
        yield images / (time.perf_counter() - started)


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """Face pictures by PIL and torchvision's classic transforms."""

    def __init__(self, folder: FaceFolder, size: int, mean: Any, std: Any):
        self.folder = folder
        self.change = transforms.Compose(
            [
                transforms.Resize((size, size)),
                transforms.RandomResizedCrop(size, scale=(0.8, 1.0)),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(mean, std),
            ]
        )

    def __len__(self) -> int:
        return len(self.folder.paths)

    def __getitem__(self, at: int) -> tuple[torch.Tensor, int]:
        picture = Image.open(self.folder.root / self.folder.paths[at]).convert("RGB")
        return self.change(picture), self.folder.labels[at]


class Network(torch.nn.Module):
    """Backbone and head of an embedder, for pictures that are normalised already."""

    def __init__(self, model: SiameseEmbedder):
        super().__init__()
        self.backbone, self.head = model.backbone, model.head

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(self.backbone(images))
        return result


class Faces:
    """Tasks, and other ways, that train with one folder's training people."""

    def __init__(self, arguments: argparse.Namespace, device: torch.device):
        self.device, self.arguments = device, arguments
        self.drawn = arguments.people * arguments.images
        self.settings = TrainSettings(
            images=ImageSettings(size=arguments.size),
            batches=BatchSettings(
                arguments.people,
                arguments.images,
                arguments.steps * self.drawn,
                default_workers(device.type) if arguments.workers is None else arguments.workers,
            ),
            model=ModelSettings(arguments.backbone, pretrained=False),
            split=SplitSettings(validation=0.2),
            # `auto` chooses by the length of the run, which no step else depends on.
            trainer=TrainerSettings(
                epochs=10**6 if arguments.long else arguments.rounds + 1,
                precision=arguments.precision,
            ),
            optimizer=OptimizerSettings(lr=1e-4),
            runs=arguments.runs,
            name="bench",
        )
        folder = scan_folder(Path(arguments.data))
        self.split: Split = make_split(folder, validation=0.2, test=0, seed=0)

    def model(self) -> SiameseEmbedder:
        name, width = self.settings.model.backbone, self.settings.model.embedding_dim
        return SiameseEmbedder(name, width, size=self.settings.images.size)

    def task(self) -> FaceTask:
        """As a run makes it; what a long run chooses by measurement is chosen with ``--long``."""
        context = RunContext(self.device, SINGLE, lambda line: print(line, flush=True))
        task = FaceRuns().prepare(self.settings, context, self.split).task
        assert isinstance(task, FaceTask)
        return task

    def _plain(self) -> tuple[Dataset[Any], Any]:
        model = self.model()
        size = self.settings.images.size
        pictures = Pictures(self.split.train, size, model.mean.tolist(), model.std.tolist())
        sampler = samplers.MPerClassSampler(
            self.split.train.labels, self.arguments.images, self.drawn, self.drawn * 10_000
        )
        return pictures, sampler

    def plain_loop(self) -> Way:
        network = Network(self.model()).to(self.device).train()
        pictures, sampler = self._plain()
        loss = losses.TripletMarginLoss(margin=0.1, distance=distances.CosineSimilarity())
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
        batches = iter(DataLoader(pictures, self.drawn, sampler=sampler, num_workers=0))
        while True:
            started = time.perf_counter()
            for _ in range(self.arguments.steps):
                images, labels = next(batches)
                value = loss(network(images.to(self.device)), labels.to(self.device))
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
                value.item()
            yield self.arguments.steps * self.drawn / (time.perf_counter() - started)

    def pml(self) -> Way:
        logging.getLogger("PML").setLevel(logging.ERROR)
        workers = self.settings.batches.workers or 0
        pictures, sampler = self._plain()
        model = self.model().to(self.device)
        parts = {"trunk": model.backbone, "embedder": model.head}
        marks: list[float] = []
        trainer = trainers.MetricLossOnly(
            parts,
            {
                f"{name}_optimizer": torch.optim.AdamW(part.parameters(), lr=1e-4)
                for name, part in parts.items()
            },
            self.drawn,
            {
                "metric_loss": losses.TripletMarginLoss(
                    margin=0.1, distance=distances.CosineSimilarity()
                )
            },
            pictures,
            sampler=sampler,
            iterations_per_epoch=self.arguments.steps + 1,
            data_device=self.device,
            dataloader_num_workers=workers,
            end_of_iteration_hook=lambda trainer: marks.append(time.perf_counter()),
        )
        while True:
            marks.clear()
            trainer.train(num_epochs=1)  # the first step waits for loader processes: not counted
            yield self.arguments.steps * self.drawn / (marks[-1] - marks[0])


def bench_faces(arguments: argparse.Namespace, device: torch.device) -> None:
    faces = Faces(arguments, device)
    trainer = faces.settings.trainer

    def optimizer_of(task: FaceTask) -> PairedOptimizer:
        groups = parameter_groups({"model": task.model}, 0.0, 1e-4, {})
        return build_optimizer(
            faces.settings.optimizer, faces.settings.schedule, groups, 1e-4, 1, 1
        )[0]

    task, twin = faces.task(), faces.task()
    scaler = _scaler(device, task.precision == torch.float16)
    others = {"resident batch": resident(twin, optimizer_of(twin), scaler(), arguments.steps)}
    loading = faces.task()
    others["pipeline"] = pipeline(loading)
    if arguments.later:
        for one in (task, loading):
            pictures = one._loader.dataset
            assert isinstance(pictures, LabelledPictures)
            for position in range(len(pictures)):
                pictures.read(position)
    if not arguments.alone:
        others["plain loop"], others["PML trainer"] = faces.plain_loop(), faces.pml()
    recalibration = recalibration_batches(trainer, faces.drawn)
    options = (arguments.rounds + 1, 1, None, "auc", recalibration, 10)
    name = f"{arguments.backbone}, {arguments.size} px"
    _run(name, task, optimizer_of(task), scaler(), options, others)


class PlainSet(Dataset[tuple[torch.Tensor, int]]):
    """What torchvision.datasets.CIFAR10 does with each image."""

    def __init__(self, images: ImageSet):
        self.images = images.images.permute(0, 2, 3, 1).numpy()
        self.labels = images.labels.tolist()
        self.change = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, at: int) -> tuple[torch.Tensor, int]:
        return self.change(Image.fromarray(self.images[at])), self.labels[at]


def plain_images(images: ImageSet, model: str, batch: int, device: torch.device) -> Way:
    network = create_network(model).to(device)
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4
    )
    loader = DataLoader(
        PlainSet(images), batch, shuffle=True, num_workers=2, drop_last=True,
        persistent_workers=True, pin_memory=device.type == "cuda",
    )  # fmt: skip
    while True:
        network.train()
        started = time.perf_counter()
        for pixels, labels in loader:
            logits = network(pixels.to(device))
            loss = torch.nn.functional.cross_entropy(logits, labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
        yield len(loader) * batch / (time.perf_counter() - started)


def bench_images(arguments: argparse.Namespace, device: torch.device) -> None:
    images = _images(arguments)
    for model in arguments.models:
        settings = ClassificationSettings(
            data=DatasetSettings(validation=0),
            model=ClassifierSettings(name=model),
            trainer=ClassTrainerSettings(
                epochs=arguments.rounds + 1, precision=arguments.precision
            ),
        )
        settings = replace(settings, batches=replace(settings.batches, size=arguments.batch))
        few = images.only(torch.arange(10))
        parts = Parts(images, None, few, images.mean, images.std, 32)
        spec = ClassifierSpec(
            model, {}, 0.0, images.classes, 3, 32, 32, 1.0, images.mean, images.std
        )

        def optimizer_of(task: ClassificationTask, chosen: Any = settings) -> PairedOptimizer:
            groups = parameter_groups({"network": task.model}, 1e-4, 0.1, {}, True)
            steps = task.batches_per_epoch()
            return build_optimizer(chosen.optimizer, chosen.schedule, groups, 0.1, steps, 1)[0]

        task, twin, third = (
            ClassificationTask(settings, parts, spec.build(), spec, device, SINGLE)
            for _ in range(3)
        )
        scaler = _scaler(device, task.scales_loss)
        others = {"resident batch": resident(twin, optimizer_of(twin), scaler(), arguments.steps)}
        others["pipeline"] = pipeline(third)
        if not arguments.alone:
            others["plain loop"] = plain_images(images, model, arguments.batch, device)
        options = (settings.trainer.epochs, 1, None, None, 0, 50)
        _run(model, task, optimizer_of(task), scaler(), options, others)


def _images(arguments: argparse.Namespace) -> ImageSet:
    """CIFAR-10's first ones; without its folder random images: the work is the same."""
    number = arguments.steps * arguments.batch
    if arguments.cifar:
        whole = load_part(DatasetSettings(root=arguments.cifar), "train")
        return whole.only(torch.from_numpy(np.arange(number)))
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (number, 3, 32, 32), dtype=torch.uint8, generator=draw)
    labels = torch.randint(10, (number,), generator=draw)
    return ImageSet(pixels, labels, tuple("0123456789"), MEAN, STD)


def _scaler(device: torch.device, enabled: bool) -> Callable[[], torch.amp.GradScaler]:
    return lambda: torch.amp.GradScaler(device.type, enabled=enabled)


def _run(
    name: str,
    task: Any,
    optimizer: PairedOptimizer,
    scaler: torch.amp.GradScaler,
    options: tuple[Any, ...],
    others: dict[str, Way],
) -> None:
    with tempfile.TemporaryDirectory() as place, ExitStack() as patches:
        run = Loop(task, optimizer, None, scaler, LoopOptions(*options, Path(place)))
        judging = {"recalibration": (loop, "recalibrate"), "validation": (task, "validate")}
        clocks = {}
        for part, (owner, function) in {**judging, "checkpoints": (run, "_save")}.items():
            clocks[part] = Clock(getattr(owner, function))
            patches.enter_context(mock.patch.object(owner, function, clocks[part]))
        turns = TakingTurns(others, clocks)
        run.run(turns)
    turns.tell(name)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="a face folder")
    parser.add_argument("--backbone", default="tf_efficientnetv2_b0.in1k")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--people", type=int, default=16)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--cifar", nargs="?", const="", help="32 px images; where CIFAR-10 lies")
    parser.add_argument("--models", nargs="+", default=["preact20", "wrn16_2"])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=20, help="steps per round")
    parser.add_argument("--rounds", type=int, default=3, help="after one that warms up")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--long", action="store_true", help="choose by measurement as long runs do")
    parser.add_argument("--later", action="store_true", help="with pictures in memory")
    parser.add_argument("--alone", action="store_true", help="without the plain loop and PML")
    arguments = parser.parse_args()
    place = tempfile.TemporaryDirectory()
    arguments.runs = place.name
    if (arguments.data is None) == (arguments.cifar is None):
        parser.error("give either --data FACES or --cifar")
    device = choose_device(arguments.device)
    print(f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}", flush=True)
    if arguments.data is not None:
        bench_faces(arguments, device)
    else:
        bench_images(arguments, device)


if __name__ == "__main__":
    main()
