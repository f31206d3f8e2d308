"""Training throughput of classification as ratios, in one run.

    .venv/bin/python scripts/bench_zoo.py [--root DATA] [--models preact20 wrn16_2] [--rounds 5]

`train`: images per second of whole training steps, from the run's own clock: crop, flip and
normalisation of resident uint8 images, forward, loss, backward, optimizer step. Against
(a) the same network's forward, loss, backward and optimizer step on one batch that stays on the
    device, in the same memory layout and precision: what is left for the data;
(b) the classic loop: torchvision's data set, PIL crop and flip, ToTensor, Normalize, a DataLoader
    with two workers, fp32, contiguous memory layout, one `.item()` a step.
The three take turns, round by round; the first round warms up and does not count. CIFAR-10 from
--root; without it random images of the same kind, the work is the same.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the commands set it, see cli/parsing.py

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from siamese.config import (
    ClassificationSettings,
    ClassifierSettings,
    ClassTrainerSettings,
    DatasetSettings,
)
from siamese.models.device import choose_device
from siamese.tasks.classes.class_task import ClassificationTask
from siamese.tasks.classes.classifier import ClassifierSpec
from siamese.tasks.classes.datasets import ImageSet, load_part
from siamese.tasks.classes.parts import Parts
from siamese.training.distribution import SINGLE
from siamese.training.loop import Figures, Loop, LoopOptions
from siamese.training.optimizers import build_optimizer, parameter_groups
from siamese.zoo import create_network

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


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


def plain_loop(images: ImageSet, model: str, batch: int, device: torch.device) -> Iterator[float]:
    """Images per second of each epoch of the classic loop."""
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


def resident_loop(task: ClassificationTask, steps: int) -> Iterator[float]:
    """Images per second of steps on one batch that stays where it is."""
    network = create_network(task.spec.network).to(task.device)
    if task.settings.trainer.channels_last:
        network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4
    )
    batch = next(iter(task.batches(0, 0)))
    pixels = batch.images.contiguous(memory_format=torch.channels_last)
    while True:
        network.train()
        started = time.perf_counter()
        for _ in range(steps):
            loss = torch.nn.functional.cross_entropy(network(pixels), batch.targets)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            loss.item()
        yield steps * len(batch.labels) / (time.perf_counter() - started)


class TakingTurns:
    """Observer: after each epoch of the run the two others do as many steps."""

    def __init__(self, others: dict[str, Iterator[float]]):
        self.others, self.before = others, (0.0, 0.0)
        self.rounds: list[dict[str, float]] = []

    def step(self, step: int, figures: Figures) -> None:
        pass

    def say(self, line: str) -> None:
        print(line)

    def epoch(self, row: Figures, best: bool) -> None:
        seconds, images = self.before
        self.before = (row["seconds"], row["images_seen"])
        speeds = {"train": (row["images_seen"] - images) / (row["seconds"] - seconds)}
        speeds |= {name: next(other) for name, other in self.others.items()}
        told = ", ".join(f"{name} {speed:.0f} img/s" for name, speed in speeds.items())
        warm_up = row["epoch"] == 1
        print(f"round {int(row['epoch'])}: {told}" + "  (warm-up)" * warm_up, flush=True)
        if not warm_up:
            self.rounds.append(speeds)


def bench(model: str, images: ImageSet, arguments: argparse.Namespace) -> None:
    device = choose_device(arguments.device)
    settings = ClassificationSettings(
        data=DatasetSettings(validation=0),
        model=ClassifierSettings(name=model),
        trainer=ClassTrainerSettings(epochs=arguments.rounds + 1, precision=arguments.precision),
    )
    settings = replace(settings, batches=replace(settings.batches, size=arguments.batch))
    parts = Parts(images, None, images.only(torch.arange(10)), images.mean, images.std, 32)
    spec = ClassifierSpec(model, {}, 0.0, images.classes, 3, 32, 32, 1.0, images.mean, images.std)
    task = ClassificationTask(settings, parts, spec.build(), spec, device, SINGLE)
    groups = parameter_groups({"network": task.model}, 1e-4, 0.1, {}, True)
    steps = task.batches_per_epoch()
    optimizer, schedule = build_optimizer(
        settings.optimizer, settings.schedule, groups, 0.1, steps, settings.trainer.epochs
    )
    others: dict[str, Any] = {"resident batch": resident_loop(task, steps)}
    others["plain loop"] = plain_loop(images, model, arguments.batch, device)
    turns = TakingTurns(others)
    print(f"{model}, batch {arguments.batch}, {steps} steps a round, {device}", flush=True)
    with tempfile.TemporaryDirectory() as place:
        options = LoopOptions(settings.trainer.epochs, 1, None, None, 0, 50, Path(place))
        scaler = torch.amp.GradScaler(device.type, enabled=task.scales_loss)
        Loop(task, optimizer, schedule, scaler, options).run(turns)
    for name in others:
        ratios = [speeds["train"] / speeds[name] for speeds in turns.rounds]
        print(
            f"{model}: train / {name}: {statistics.median(ratios):.3f} "
            f"(median of {len(ratios)}, {min(ratios):.3f} to {max(ratios):.3f})"
        )


def random_images(number: int) -> ImageSet:
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (number, 3, 32, 32), dtype=torch.uint8, generator=draw)
    labels = torch.randint(10, (number,), generator=draw)
    return ImageSet(pixels, labels, tuple("0123456789"), MEAN, STD)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", help="where CIFAR-10 lies; without it: random images")
    parser.add_argument("--models", nargs="+", default=["preact20", "wrn16_2"])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=20, help="steps per round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="fp32")
    arguments = parser.parse_args()
    number = arguments.steps * arguments.batch
    if arguments.root is None:
        images = random_images(number)
    else:
        whole = load_part(DatasetSettings(root=arguments.root), "train")
        images = whole.only(torch.from_numpy(np.arange(number)))
    for model in arguments.models:
        bench(model, images, arguments)


if __name__ == "__main__":
    main()
