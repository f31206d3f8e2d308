"""The collapse alarm: rings at the margin without a difference of means, and only there."""

import pytest

from siamese.config import LossSettings
from siamese.tasks.faces.collapse import collapse_warning
from siamese.tasks.faces.metric_losses import MetricLoss


def _row(**changes: float) -> dict[str, float]:
    stuck = {"step": 500, "train_loss": 0.1003, "genuine_mean": 0.95, "impostor_mean": 0.949}
    return {**stuck, "auc": 0.53, **changes}


def test_rings_in_plain_words_with_remedies() -> None:
    warning = collapse_warning(MetricLoss(LossSettings(), 4, 8), _row())
    assert warning is not None
    for word in ("margin", "`lr`", "`loss.miner` none", "pretrained", "arcface"):
        assert word in warning


@pytest.mark.parametrize(
    "changes",
    [
        {"train_loss": 0.05},
        {"train_loss": 0.2},
        {"genuine_mean": 0.99, "impostor_mean": 0.6},
        {"auc": 0.7},
        {"step": 20},
    ],
)
def test_keeps_quiet_otherwise(changes: dict[str, float]) -> None:
    assert collapse_warning(MetricLoss(LossSettings(), 4, 8), _row(**changes)) is None


def test_other_losses_have_no_margin_to_sit_at() -> None:
    assert collapse_warning(MetricLoss(LossSettings(name="supcon"), 4, 8), _row()) is None
