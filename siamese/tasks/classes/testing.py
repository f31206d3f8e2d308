"""The test at the end of a run: once, with the checkpoint that counts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from siamese.config import LimitSettings
from siamese.files.fields import parse_json
from siamese.files.places import read_bytes
from siamese.files.writing import write_json
from siamese.models.checkpoint import read_checkpoint
from siamese.tasks.classes.class_task import ClassificationTask
from siamese.tasks.classes.judging import summarise_logits
from siamese.training.distribution import SINGLE

TEST = "test.json"
_LIMIT = 2**20  # bytes of it


def is_tested(path: Path, progress: Mapping[str, Any]) -> bool:
    """Whether the test in a JSON file of :func:`test_once` is that of the epoch which counts now.

    A run that was given more epochs keeps its test until the new one is there.
    """
    counts = progress.get("best_epoch") or progress["epoch"]  # 0: nothing selects
    try:
        saved = parse_json(read_bytes(path, limit=_LIMIT))
    except ValueError:  # not there, or damaged: it is tested anew
        return False
    return isinstance(saved, dict) and saved.get("epoch") == counts


def test_once(
    checkpoint: Path, out: Path, task: ClassificationTask, epoch: int, limits: LimitSettings
) -> str:
    """Judge the test images with a checkpoint's weights, write the figures; a line about them."""
    content = read_checkpoint(checkpoint, "classifier", keys=["model"], limits=limits)
    task.model.load_state_dict(content["model"])
    logits, labels = task.judge("test", SINGLE)
    figures = summarise_logits(logits, labels)
    origin = {"checkpoint": str(checkpoint), "epoch": epoch, "images": len(labels)}
    write_json(out, origin | figures)
    error, loss = figures["error"], figures["loss"]
    return f"test: error {error:.2f} % of {len(labels)} images, loss {loss:.4f}"
