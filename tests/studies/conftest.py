"""A study file, and a place where its runs lie."""

from pathlib import Path

import pytest

from siamese.config.studies import StudySettings
from siamese.studies.estimate import Cost

SHORT = """\
title: Rates
settings: {data.validation: 0, trainer.epochs: 3}
seeds: [0, 1]
runs:
  - {label: low, settings: {optimizer.lr: 0.01}}
  - {label: high, settings: {optimizer.lr: 0.1}, published: 7.5, published_runs: 3}
"""


@pytest.fixture
def write_study(tmp_path):
    """Function that writes a study file and gives its path."""

    def write(text: str = SHORT, name: str = "rates.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def placed(tmp_path):
    """Function that gives the command's settings, with everything below one folder."""

    def settings(study: Path, **others) -> StudySettings:
        runs, checkpoints = str(tmp_path / "runs"), str(tmp_path / "checkpoints")
        return StudySettings(study=str(study), runs=runs, checkpoints=checkpoints, **others)

    return settings


@pytest.fixture
def free_of_cost(monkeypatch):
    """No network is built to count what it costs."""
    cost = Cost(272_282, 40_813_184, 6e12)
    monkeypatch.setattr("siamese.studies.compare.run_cost", lambda run: cost)
    monkeypatch.setattr("siamese.studies.compare.machine_speed", lambda device, threads: 1e9)
