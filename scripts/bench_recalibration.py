"""How many pictures batch norms are measured on before validation, by what the figure then varies.

    .venv/bin/python scripts/bench_recalibration.py --data FACES [--backbone NAME] [--size 64] ...

Trains a network, then measures its batch norms anew with more and more batches, five times each
with other pictures, and prints the validation AUC of each time and their standard deviation.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from siamese.config import ImageSettings, ModelSettings, OptimizerSettings, TrainSettings
from siamese.data.folder import scan_folder
from siamese.data.split import make_split
from siamese.models.device import choose_device
from siamese.tasks.faces.face_runs import FaceRuns
from siamese.tasks.faces.face_task import FaceTask
from siamese.training.distribution import SINGLE
from siamese.training.launch import RunContext
from siamese.training.optimizers import build_optimizer, parameter_groups
from siamese.training.recalibration import recalibrate

BATCHES, DRAWS = (4, 8, 16, 32, 50), 5


def main() -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--backbone", default="test_resnet")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=800, help="of 64 pictures")
    parser.add_argument("--lr", type=float, default=1e-2)
    given = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as place:
        settings = TrainSettings(
            name="bench",
            runs=place,
            images=ImageSettings(given.size),
            model=ModelSettings(given.backbone, pretrained=False),
            optimizer=OptimizerSettings(lr=given.lr),
        )
        drawn = replace(settings.batches, people=16, images_per_epoch=64 * given.steps)
        settings = replace(settings, batches=drawn)
        split = make_split(scan_folder(given.data), validation=0.2, test=0, seed=0)
        context = RunContext(choose_device("auto"), SINGLE, print)
        prepared = FaceRuns().prepare(settings, context, split)
    task = prepared.task
    assert isinstance(task, FaceTask)
    groups = parameter_groups(prepared.modules, 0.0, given.lr, {})
    optimizer, _ = build_optimizer(
        settings.optimizer, settings.schedule, groups, given.lr, given.steps, 1
    )
    scaler = torch.amp.GradScaler(context.device.type, enabled=prepared.scales_loss)
    optimizer.train()
    task.model.train()
    for batch in task.batches(0, 0):
        scaler.scale(task.step_loss(batch, False).value).backward()
        optimizer.step(scaler)
        optimizer.inner.zero_grad(set_to_none=True)
    optimizer.eval()
    print(f"not measured anew: AUC {task.validate()['auc']:.4f}", flush=True)
    for number in BATCHES:
        found = []
        for seed in range(DRAWS):
            task.draws.seed = seed
            recalibrate(task.model, task.recalibration_inputs(number))
            found.append(task.validate()["auc"])
        told = ", ".join(f"{auc:.4f}" for auc in found)
        print(f"{64 * number} pictures: AUC {told}; sd {statistics.stdev(found):.4f}", flush=True)


if __name__ == "__main__":
    main()
