"""What a run leaves behind to watch and to read: TensorBoard, metrics.csv, lines."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import torch
import yaml
from torch.utils.tensorboard import SummaryWriter
from torchvision.utils import make_grid
from tqdm import tqdm

from siamese.config.reading import flatten
from siamese.errors import Diverged
from siamese.files.writing import CannotWrite, write_csv, write_text, writing
from siamese.training.loop import Figures
from siamese.training.runs import read_metrics

# Columns of metrics.csv that say how far the run is, and those that training itself gives.
_PROGRESS = frozenset({"epoch", "step", "images_seen", "seconds", "lr"})


_Method = TypeVar("_Method", bound=Callable[..., None])


def written(method: _Method) -> _Method:
    """A method of :class:`RunLog` in which a full disk is one line about the run's folder.

    TensorBoard writes in a thread of its own; what happened there is raised by the next call.
    """

    @wraps(method)
    def guarded(log: RunLog, *args: Any, **options: Any) -> None:
        with writing(log.folder):
            method(log, *args, **options)

    return cast(_Method, guarded)


class RunLog:
    """Watches a run; see :class:`siamese.training.loop.Observer`. Each task adds its own pictures.

    A log that continues drops TensorBoard's points beyond ``step`` and rows beyond ``epoch``.
    """

    def __init__(self, folder: Path, settings: Any, step: int = 0, epoch: int = 0):
        self.folder, self.settings = folder, settings
        with writing(folder):
            # What lies at `step` itself is the validation that the run goes on from: it stays.
            self.writer = SummaryWriter(folder, purge_step=step + 1 if step else None)
        self._metrics = folder / "metrics.csv"
        before = read_metrics(self._metrics, "move it away, the run then begins a new one")
        self.rows = [row for row in before if int(row["epoch"]) <= epoch]

    @written
    def step(self, step: int, figures: Figures) -> None:
        """Training curves."""
        for name, value in figures.items():
            if not math.isnan(value):
                self.writer.add_scalar(f"train/{name}", value, step)

    @written
    def epoch(self, row: Figures, best: bool) -> None:
        """Figures of an epoch: curves, its row in the table, its line."""
        step = int(row["step"])
        for name, value in row.items():
            if name in _PROGRESS or name.startswith("train_") or math.isnan(value):
                continue
            part = "test" if name.startswith("test_") else "validation"
            self.writer.add_scalar(f"{part}/{name.removeprefix(f'{part}_')}", value, step)
        self.rows.append({name: repr(value) for name, value in row.items()})
        _write_rows(self._metrics, self.rows)
        epochs = self.settings.trainer.epochs
        self.say(
            f"epoch {int(row['epoch'])}/{epochs}: loss {row['train_loss']:.4f}"
            f"{self.line(row)}" + ("  <- best" if best else "")
        )
        self.writer.flush()

    def line(self, row: Figures) -> str:
        """What a task tells of an epoch behind its loss; begins with a comma."""
        return ""

    def say(self, line: str) -> None:
        """A line for the terminal that leaves the progress bar whole."""
        tqdm.write(line)

    @written
    def training_grid(self, images: torch.Tensor) -> None:
        """One grid of augmented training pictures, uint8 or float in [0, 1], (N, C, H, W)."""
        if len(images):  # else not one of them could be decoded
            self.writer.add_image("augmented training pictures", make_grid(images[:64], nrow=8), 0)

    @written
    def add_settings(self, epoch: int, figures: Sequence[str], prefix: str) -> None:
        """TensorBoard's table of settings, with an epoch's figures as far as the run has them."""
        flat = flatten(type(self.settings), self.settings.as_dict())
        plain = {
            name: value if isinstance(value, (bool, int, float, str)) else str(value)
            for name, value in flat.items()
        }
        for row in self.rows:
            if int(row["epoch"]) == epoch:
                found = {f"{prefix}/{name}": float(row[name]) for name in figures if name in row}
                self.writer.add_hparams(plain, found, run_name=".")

    @written
    def note(self, line: str) -> None:
        """Keep a line that weakens the run's figures beside them, as text."""
        self.writer.add_text("note", line, 0)

    def finish(self, epoch: int) -> None:
        """What is left to write of a run that is over, whose figures are an epoch's."""
        self.close()

    def show_newest(self) -> None:
        """What of the newest epoch waits to be drawn; nothing here."""

    @written
    def close(self) -> None:
        """Flush and close the event file."""
        self.writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # After a stop there is time to draw, and where training went wrong one looks at it; any
        # other error is told at once.
        if isinstance(error, KeyboardInterrupt | Diverged):
            with suppress(CannotWrite):
                self.show_newest()
        # What ended the run is told, not that its log cannot be written either.
        with suppress(*() if error is None else (CannotWrite,)):
            self.close()


def write_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """``settings.yaml``: the resolved settings that the run goes by now, as plain values."""
    text = yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True)
    write_text(folder / "settings.yaml", text)


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """The whole table anew, so that a crash leaves the old or the new one."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    write_csv(path, columns, ([row.get(name, "") for name in columns] for row in rows), exact=True)
