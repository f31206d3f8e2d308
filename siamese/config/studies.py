"""Settings of ``siamese-zoo compare``; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from siamese.config.ranges import PositiveInt, check_values
from siamese.errors import UserError


@dataclass
class StudySettings:
    """All settings of siamese-zoo compare."""

    study: str | None = None
    """The study file (configs/studies/*.yaml)."""
    out: str | None = None
    """Folder for tables, plots and verdict; null: runs/studies/<name of the study file>."""
    jobs: PositiveInt = 1
    """Runs at the same time, each in a process of its own that has its share of the cores."""
    dry_run: bool = False
    """Only print every run, its settings and an estimate of its cost."""
    budget: str | None = None
    """Run it reduced: small (a part of the data, two epochs, two seeds), or a budget that the study
    file names; tables and plots are marked as reduced."""
    only_report: bool = False
    """Draw tables, plots and verdict from what there is; train nothing."""
    device: str = "auto"
    """auto (a GPU when there is one), cpu, cuda, cuda:1, mps."""
    threads: PositiveInt | None = None
    """CPU threads of each run; null: torch's own choice, with jobs the cores divided by them."""
    root: str | None = None
    """Where the image set lies, or is downloaded to; null: what the study says."""
    data: str | None = None
    """face studies: the folder with one folder per person; null: what the study says."""
    runs: str = "runs"
    """Folder for logs, settings and metrics of every run."""
    checkpoints: str = "checkpoints"
    """Folder for the checkpoints of every run."""


def check_study(settings: StudySettings) -> None:
    """Refuse settings that cannot work.

    Raises:
        UserError: one line that names the setting and the fix.
    """
    if not settings.study:
        raise UserError("`study`: give the study file first")
    check_values(settings)
    if settings.dry_run and settings.only_report:
        raise UserError("`dry_run` and `only_report` exclude each other: give one of them")
