"""A trainer that trains nothing: it writes what a real one leaves behind, and can be stopped."""

import csv
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from siamese.config import ClassificationSettings
from siamese.errors import Diverged, UserError
from siamese.studies.expand import learning_rate

BEST_LR = {"sgd": 0.1, "adam": 1e-3, "adamw": 2e-3, "radam": 2e-3, "adabound": 3e-3}


def fake_row(settings: Any, epoch: int) -> dict[str, float]:
    """A row of metrics.csv as a run of these settings might have it."""
    lr, total = learning_rate(settings), settings.trainer.epochs
    name = settings.optimizer.name
    seed = crc32(f"{settings.seed} {name} {lr:g}".encode())
    run, step = np.random.default_rng([seed]), np.random.default_rng([seed, epoch])
    off = abs(math.log10(lr / BEST_LR.get(name, 1e-2)))
    off += 0.1 * abs(math.log10((settings.optimizer.weight_decay or 1e-5) / 1e-4))
    end = 6 + 4 * off + 0.25 * run.normal() + (0.4 if name.startswith("ada") else 0)
    pace = 3 + off
    error = end + (85 - end) * math.exp(-pace * epoch / total) + step.normal() * 0.2
    steps = 100 * epoch
    row = {
        "epoch": epoch,
        "step": steps,
        "images_seen": 128 * steps,
        "seconds": round((20 + run.normal()) * epoch * (1.3 if name != "sgd" else 1), 3),
        "lr": lr * (1 + math.cos(math.pi * epoch / total)) / 2,
        "train_loss": error / 40,
    }
    if isinstance(settings, ClassificationSettings):
        row["train_error"] = max(0.0, error - 3)
        if settings.data.validation:
            row["validation_loss"] = error / 30
            row["validation_error"] = error + 0.3 * step.normal()
        if settings.trainer.test_curve:
            row["test_loss"], row["test_error"] = error / 31, round(error, 2)
    else:
        auc = 1 - error / 120
        row |= {"auc": auc, "ap": auc - 0.1, "eer": 1 - auc}
        if settings.trainer.test_curve:
            row |= {
                "test_auc": auc - 0.01 * abs(step.normal()),
                "test_ap": auc,
                "test_eer": 1 - auc,
            }
    return row


@dataclass
class FakeTrainer:
    """Trains nothing, epoch by epoch, and notes each epoch in a journal.

    Attributes:
        journal: file that gets a line per start and per epoch.
        pause: seconds that an epoch takes.
        diverges_from: learning rate from which a run diverges after two epochs.
        refuses: seed whose runs raise a UserError.
        stops: (seed, epoch) at which Ctrl-C is pressed.
        crashes: seed whose process dies.
        refuses_rank: of several processes the one that raises a UserError.
    """

    journal: Path
    pause: float = 0.0
    diverges_from: float = math.inf
    refuses: int | None = None
    stops: tuple[int, int] | None = None
    crashes: int | None = None
    refuses_rank: int | None = None

    def note(self, *words: object) -> None:
        with open(self.journal, "a", encoding="utf-8") as file:
            file.write(" ".join(map(str, words)) + "\n")

    def noted(self) -> list[list[str]]:
        return [line.split() for line in self.journal.read_text("utf-8").splitlines()]

    def wait_for(self, *words: object) -> None:
        while not self.journal.exists() or list(map(str, words)) not in [
            noted[: len(words)] for noted in self.noted()
        ]:
            time.sleep(0.05)

    def train(self, settings: Any) -> Path:
        rank = int(os.environ.get("RANK", "0"))
        if rank == self.refuses_rank:
            raise UserError("there is no second GPU")
        if rank:
            world, host = os.environ["WORLD_SIZE"], os.environ["MASTER_ADDR"]
            self.note("joined", settings.name, rank, world, host)
            if self.diverges_from == 0:
                raise Diverged("the loss is nan at step 3")
            return Path()
        if "WORLD_SIZE" in os.environ and self.refuses_rank is None:
            self.wait_for("joined", settings.name, 1)
        folder = Path(settings.runs) / settings.name
        assert not folder.exists(), f"{folder} exists, as a real trainer would say"
        assert not (Path(settings.checkpoints) / settings.name).exists()
        self.note("train", settings.name)
        return self._go(settings, 0)

    def resume(self, name: str, checkpoints: str, parse: Callable[..., Any]) -> Path:
        last = json.loads((Path(checkpoints) / name / "last.pt").read_text())
        settings = parse(last["settings"])
        assert settings.optimizer.lr is not None, "resolved when the run began"
        assert last["epoch"] < settings.trainer.epochs, "all epochs are done, a real one would say"
        self.note("resume", name, last["epoch"])
        return self._go(settings, last["epoch"])

    def is_over(self, settings: Any, checkpoint: Path) -> bool:
        return bool(json.loads(checkpoint.read_text())["epoch"] >= settings.trainer.epochs)

    def _go(self, settings: Any, done: int) -> Path:
        runs, home = (Path(root) / settings.name for root in (settings.runs, settings.checkpoints))
        runs.mkdir(parents=True, exist_ok=True)
        home.mkdir(parents=True, exist_ok=True)
        if settings.seed == self.refuses:
            raise UserError("data.root: no images here")
        if settings.seed == self.crashes:
            os._exit(7)
        settings.optimizer.lr = learning_rate(settings)
        for epoch in range(done + 1, settings.trainer.epochs + 1):
            time.sleep(self.pause)
            if self.stops == (settings.seed, epoch):
                raise KeyboardInterrupt
            if learning_rate(settings) >= self.diverges_from and epoch > 2:
                raise Diverged("the loss is nan at step 3")
            self._row(runs / "metrics.csv", fake_row(settings, epoch), epoch)
            self.note("epoch", settings.name, epoch)
            temporary = home / "last.tmp"
            temporary.write_text(json.dumps({"epoch": epoch, "settings": settings.as_dict()}))
            os.replace(temporary, home / "last.pt")
        return home / "last.pt"

    def _row(self, path: Path, row: dict[str, float], epoch: int) -> None:
        rows = []
        if path.exists():
            with open(path, newline="") as file:
                rows = [old for old in csv.DictReader(file) if int(old["epoch"]) < epoch]
        temporary = path.with_name(".metrics.tmp")
        with open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            writer.writeheader()
            writer.writerows([*rows, row])
        os.replace(temporary, path)
