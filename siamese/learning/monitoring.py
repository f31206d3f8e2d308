"""What a run leaves behind to watch and to read: TensorBoard, metrics.csv, lines and a report."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch.utils.tensorboard import SummaryWriter
from torchvision.utils import make_grid
from tqdm import tqdm

from siamese.config import TrainSettings
from siamese.data.batches import thumbnail
from siamese.data.split import Split
from siamese.learning.collapse import collapse_warning
from siamese.learning.face_task import FaceTask, Validation
from siamese.learning.loop import Figures
from siamese.report.figures import pr_figure, roc_figure, score_figure
from siamese.report.files import write_csv
from siamese.verification.counts import PairCounts
from siamese.verification.figures import curve

_PROJECTED = 400  # pictures in TensorBoard's projector
_SPRITE = 48  # side of each in pixels
_HISTOGRAM = 200  # bars of a histogram


class RunLog:
    """Watches a face run; see :class:`siamese.learning.loop.Observer`.

    Args:
        folder: the run's folder under ``runs/``.
        task: for the pictures of the latest validation.
        settings: the run's settings, resolved.
        step: step to continue from; TensorBoard's points beyond it are dropped.
        epoch: epoch to continue from; rows of metrics.csv beyond it are dropped.
    """

    def __init__(
        self, folder: Path, task: FaceTask, settings: TrainSettings, step: int = 0, epoch: int = 0
    ):
        self.folder, self.task, self.settings = folder, task, settings
        # What lies at `step` itself is the validation that the run goes on from: it stays.
        self._writer = SummaryWriter(folder, purge_step=step + 1 if step else None)
        self._metrics = folder / "metrics.csv"
        self._rows = [row for row in _read_rows(self._metrics) if int(row["epoch"]) <= epoch]
        self._best: Validation | None = None

    def step(self, step: int, figures: Figures) -> None:
        """Training curves."""
        for name, value in figures.items():
            if not math.isnan(value):
                self._writer.add_scalar(f"train/{name}", value, step)

    def epoch(self, row: Figures, best: bool) -> None:
        """Figures, curves and histograms of a validated epoch, its table row and its line."""
        step = int(row["step"])
        validation = self.task.latest
        assert validation is not None, "the loop validates before it reports"
        for name, value in validation.figures.items():
            if not math.isnan(value):
                self._writer.add_scalar(f"validation/{name}", value, step)
        title = f"{len(self.task.split.validation.names)} unseen people, epoch {int(row['epoch'])}"
        points = curve(validation.counts)
        self._writer.add_figure("roc", roc_figure(points, validation.figures, title), step)
        self._writer.add_figure("pr", pr_figure(points, validation.figures, title), step)
        self._writer.add_figure("scores", score_figure(validation.counts, title), step)
        for name in ("genuine", "impostor"):
            self._add_histogram(f"scores/{name}", validation.counts, name, step)
        self._rows.append({name: repr(value) for name, value in row.items()})
        _write_rows(self._metrics, self._rows)
        if best:
            self._best = validation
        self.say(self._line(row, best))
        if warning := collapse_warning(self.task.loss, row):
            self.say(warning)
            self._writer.add_text("collapse", warning, step)
        self._writer.flush()

    def _add_histogram(self, tag: str, counts: PairCounts, name: str, step: int) -> None:
        score, pairs = counts.score, getattr(counts, name)
        number, edges = np.histogram(score, _HISTOGRAM, weights=pairs)
        self._writer.add_histogram_raw(
            tag,
            min=float(score[0]),
            max=float(score[-1]),
            num=int(pairs.sum()),
            sum=float(score @ pairs),
            sum_squares=float(score**2 @ pairs),
            bucket_limits=edges[1:].tolist(),
            bucket_counts=number.tolist(),
            global_step=step,
        )

    def _line(self, row: Figures, best: bool) -> str:
        supported = row["lowest_supported_fmr"]
        tars = []
        for rate, text in ((1e-2, "1e-2"), (1e-3, "1e-3")):
            mark = "" if rate >= supported else " (unsupported)"
            tars.append(f"TAR@FAR={text} {row[f'tar_at_far_{text}']:.3f}{mark}")
        return (
            f"epoch {int(row['epoch'])}/{self.settings.trainer.epochs}: "
            f"loss {row['train_loss']:.4f}, AUC {row['auc']:.4f}, AP {row['ap']:.4f}, "
            f"EER {row['eer']:.4f}, {', '.join(tars)}, genuine {row['genuine_mean']:.3f}, "
            f"impostor {row['impostor_mean']:.3f}" + ("  <- best" if best else "")
        )

    def say(self, line: str) -> None:
        """A line for the terminal that leaves the progress bar whole."""
        tqdm.write(line)

    def training_grid(self, images: torch.Tensor) -> None:
        """One grid of augmented training pictures, uint8 (N, 3, H, W)."""
        self._writer.add_image("augmented training pictures", make_grid(images[:64], nrow=8), 0)

    def finish(self, best_epoch: int) -> None:
        """Projector and hyper-parameters with the best epoch's figures; closes the log.

        Where the best epoch lies before a resume, the projector shows the latest validation.
        """
        shown = self._best or self.task.latest
        if shown is not None:
            self._projector(shown)
        for row in self._rows:
            if int(row["epoch"]) == best_epoch:
                metrics = {f"best/{name}": float(row[name]) for name in ("auc", "ap", "eer")}
                self._writer.add_hparams(_plain_settings(self.settings), metrics, run_name=".")
        self.close()

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()

    def _projector(self, validation: Validation) -> None:
        folder = self.task.split.validation
        total = len(validation.indices)
        chosen = np.linspace(0, total - 1, min(total, _PROJECTED)).astype(np.int64)
        positions = validation.indices.numpy()[chosen]
        sprites = [
            np.asarray(thumbnail(folder.root / folder.paths[at], _SPRITE)) for at in positions
        ]
        self._writer.add_embedding(
            torch.nn.functional.normalize(validation.embeddings[torch.from_numpy(chosen)]),
            metadata=[_printable(folder.names[folder.labels[at]]) for at in positions],
            label_img=torch.from_numpy(np.stack(sprites)).permute(0, 3, 1, 2).float() / 255,
            tag="validation_people",
        )


def write_run_files(folder: Path, settings: TrainSettings, split: Split) -> None:
    """``settings.yaml``, ``split.json`` and ``data_report.txt`` of a new run."""
    folder.mkdir(parents=True, exist_ok=True)
    write_settings(folder, settings)
    people = {name: list(part.names) for name, part in split.parts().items()}
    (folder / "split.json").write_text(json.dumps(people, indent=1), encoding="utf-8")
    lines = []
    for name, part in split.parts().items():
        lines.append(f"{name}: {len(part.names)} people, {len(part.paths)} pictures of {part.root}")
        singles = [person for person, count in part.counts().items() if count == 1]
        if singles:
            use = "never drawn in training" if name == "train" else "in impostor pairs only"
            lines.append(f"  {len(singles)} people with one picture ({use}): {', '.join(singles)}")
    # Parts of one folder share its list of what was left out.
    for root, part in {part.root: part for part in split.parts().values()}.items():
        lines.append(f"left out of {root}: {len(part.left_out)}")
        lines += [f"  {item.path}: {item.reason}" for item in part.left_out]
    _append(folder / "data_report.txt", lines)


def write_settings(folder: Path, settings: TrainSettings) -> None:
    """``settings.yaml``: the resolved settings that the run goes by now."""
    text = yaml.safe_dump(settings.as_dict(), sort_keys=False, allow_unicode=True)
    (folder / "settings.yaml").write_text(text, encoding="utf-8")


def failure_reporter(folder: Path, say: Callable[[str], None]) -> Callable[[str, str], None]:
    """A function that reports each picture that fails to decode, once, on screen and on disk."""
    reported: set[str] = set()

    def report(path: str, reason: str) -> None:
        if path not in reported:
            reported.add(path)
            say(f"left out from now on: {reason}")
            _append(folder / "data_report.txt", [f"failed later: {path}: {reason}"])

    return report


def _printable(name: str) -> str:
    """A name for a UTF-8 table: characters that would break it are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def _append(path: Path, lines: list[str]) -> None:
    with open(path, "a", encoding="utf-8", errors="backslashreplace") as file:
        file.writelines(f"{line}\n" for line in lines)


def _read_rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """The whole table anew, so that a crash leaves the old or the new one."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    write_csv(path, columns, ([row.get(name, "") for name in columns] for row in rows))


def _plain_settings(settings: TrainSettings) -> dict[str, Any]:
    """Settings as TensorBoard's table wants them: flat, numbers and text."""
    flat: dict[str, Any] = {}
    for group, value in settings.as_dict().items():
        items = value.items() if isinstance(value, dict) else [(None, value)]
        for name, item in items:
            key = group if name is None else f"{group}.{name}"
            flat[key] = item if isinstance(item, (bool, int, float, str)) else str(item)
    return flat
