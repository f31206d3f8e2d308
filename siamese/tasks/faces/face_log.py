"""What a face run leaves behind beside the common log: its curves, its people, its data report."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from siamese.config import TrainSettings
from siamese.data.split import Split
from siamese.data.split_lists import merged_folders
from siamese.drawing.figure import fix_margins
from siamese.files.shown import shown
from siamese.files.writing import write_json, writing
from siamese.report.verification_plots import pr_figure, roc_figure, score_figure
from siamese.tasks.faces.collapse import collapse_warning
from siamese.tasks.faces.face_task import FaceTask, Validation
from siamese.training.loop import Figures
from siamese.training.monitoring import RunLog, written
from siamese.verification.counts import PairCounts
from siamese.verification.metrics import curve

_PROJECTED = 400  # pictures in TensorBoard's projector
_SPRITE = 48  # side of each in pixels
_HISTOGRAM = 200  # bars of a histogram
_REDRAWN = 30.0  # seconds from one drawing of the curves to the next: it takes a third of one


class FaceLog(RunLog):
    """Watches a face run; the task has the pictures of the latest validation."""

    def __init__(
        self, folder: Path, task: FaceTask, settings: TrainSettings, step: int = 0, epoch: int = 0
    ):
        super().__init__(folder, settings, step, epoch)
        self.task = task
        self._best: Validation | None = None
        self._drawn = time.monotonic()
        self._undrawn: tuple[Figures, Validation] | None = None  # the newest epoch

    @written
    def epoch(self, row: Figures, best: bool) -> None:
        """Figures and histograms of a validated epoch, its table row and its line.

        Its curves, too, unless they were drawn a moment ago: short epochs would wait for them.
        """
        step = int(row["step"])
        validation = self.task.latest
        assert validation is not None, "the loop validates before it reports"
        self._undrawn = row, validation
        if time.monotonic() - self._drawn >= _REDRAWN:
            self.show_newest()
        for name in ("genuine", "impostor"):
            self._add_histogram(f"scores/{name}", validation.counts, name, step)
        if best:
            self._best = validation
        super().epoch(row, best)
        if warning := collapse_warning(self.task.loss, row):
            self.say(warning)
            self.writer.add_text("collapse", warning, step)

    @written
    def show_newest(self) -> None:
        """The curves of the newest epoch, unless they are drawn already."""
        if self._undrawn is None:
            return
        (row, validation), self._undrawn = self._undrawn, None
        validated = self.task.split.validation
        title = (
            f"{self.folder.name}, epoch {int(row['epoch'])}",
            f"{len(validated.names)} validation people of {validated.root.name}",
        )
        points = curve(validation.counts)
        for tag, figure in (
            ("roc", roc_figure(points, validation.figures, title)),
            ("pr", pr_figure(points, validation.figures, title)),
            ("scores", score_figure(validation.counts, title)),
        ):
            fix_margins(figure)
            self.writer.add_figure(tag, figure, int(row["step"]))
        self._drawn = time.monotonic()

    def _add_histogram(self, tag: str, counts: PairCounts, name: str, step: int) -> None:
        score, pairs = counts.score, getattr(counts, name)
        number, edges = np.histogram(score, _HISTOGRAM, weights=pairs)
        self.writer.add_histogram_raw(
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

    def line(self, row: Figures) -> str:
        """AUC and its kin on the validation people."""
        supported = row["lowest_supported_fmr"]
        tars = []
        for rate, text in ((1e-2, "1e-2"), (1e-3, "1e-3")):
            mark = "" if rate >= supported else " (unsupported)"
            tars.append(f"TAR@FAR={text} {row[f'tar_at_far_{text}']:.3f}{mark}")
        return (
            f", AUC {row['auc']:.4f}, AP {row['ap']:.4f}, "
            f"EER {row['eer']:.4f}, {', '.join(tars)}, genuine {row['genuine_mean']:.3f}, "
            f"impostor {row['impostor_mean']:.3f}"
        )

    @written
    def finish(self, epoch: int) -> None:
        """Projector and hyper-parameters with the best epoch's figures; closes the log.

        Where the best epoch lies before a resume, the projector shows the latest validation.
        """
        self.show_newest()
        shown = self._best or self.task.latest
        if shown is not None:
            self._projector(shown)
        self.add_settings(epoch, ("auc", "ap", "eer"), "best")
        self.close()

    def _projector(self, validation: Validation) -> None:
        folder = self.task.split.validation
        total = len(validation.indices)
        chosen = np.linspace(0, total - 1, min(total, _PROJECTED)).astype(np.int64)
        positions = validation.indices.numpy()[chosen]
        sprites = [self.task.thumbnail(folder, at, _SPRITE) for at in positions.tolist()]
        self.writer.add_embedding(
            torch.nn.functional.normalize(validation.embeddings[torch.from_numpy(chosen)]),
            metadata=[shown(folder.names[folder.labels[at]]) for at in positions],
            label_img=torch.from_numpy(np.stack(sprites)).permute(0, 3, 1, 2).float() / 255,
            tag="validation_people",
        )


def write_run_files(folder: Path, split: Split) -> None:
    """``split.json`` and ``data_report.txt`` of a new run."""
    people = {name: list(part.names) for name, part in split.parts().items()}
    write_json(folder / "split.json", people)
    lines = []
    for name, part in split.parts().items():
        lines.append(f"{name}: {len(part.names)} people, {len(part.paths)} pictures of {part.root}")
        singles = [person for person, count in part.counts().items() if count == 1]
        if singles:
            use = "never drawn in training" if name == "train" else "in impostor pairs only"
            lines.append(f"  {len(singles)} people with one picture ({use}): {', '.join(singles)}")
        for person, folders in merged_folders(part).items():
            lines.append(f"  {person}: pictures of {', '.join(folders)}")
    # Parts of one folder share its list of what was left out.
    for root, part in {part.root: part for part in split.parts().values()}.items():
        lines.append(f"left out of {root}: {len(part.left_out)}")
        lines += [f"  {item.path}: {item.reason}" for item in part.left_out]
    _append(folder / "data_report.txt", lines)


def failure_reporter(folder: Path, say: Callable[[str], None]) -> Callable[[str, str], None]:
    """A function that reports each picture that fails to decode, once, on screen and on disk."""
    reported: set[str] = set()

    def report(path: str, reason: str) -> None:
        if path not in reported:
            reported.add(path)
            say(f"left out from now on: {reason}")
            _append(folder / "data_report.txt", [f"failed later: {path}: {reason}"])

    return report


def _append(path: Path, lines: list[str]) -> None:
    with writing(path), open(path, "a", encoding="utf-8", errors="backslashreplace") as file:
        file.writelines(f"{line}\n" for line in lines)
