"""The collapse alarm: a loss at its margin while every two faces look alike."""

from __future__ import annotations

from collections.abc import Mapping

from siamese.tasks.faces.own_parts import FaceLoss

# Told apart by the same run's AUC: a network that learns in a narrow cone has means as close, but
# ranks pairs far better than chance.
_LOSS_NEAR = 0.1
_MEANS_NEAR = 0.02
_AUC_NEAR_CHANCE = 0.6
_STEPS = 100  # nobody has learnt much before


def collapse_warning(loss: FaceLoss, row: Mapping[str, float]) -> str | None:
    """Plain words when triplet training sits at the margin, else None.

    With all embeddings in one place every triplet's loss is exactly the margin, and the mean
    genuine and impostor scores are equal.
    """
    margin = loss.triplet_margin
    if margin is None or row["step"] < _STEPS:
        return None
    at_margin = abs(row["train_loss"] - margin) <= _LOSS_NEAR * margin
    gap = row["genuine_mean"] - row["impostor_mean"]
    if not (at_margin and gap < _MEANS_NEAR and row["auc"] < _AUC_NEAR_CHANCE):
        return None
    return (
        f"COLLAPSE? The loss ({row['train_loss']:.4f}) sits at the margin ({margin:g}), and "
        f"genuine and impostor pairs score the same ({row['genuine_mean']:.3f} and "
        f"{row['impostor_mean']:.3f}): the network tells no faces apart. Usual remedies: another "
        "`lr` (from random weights a higher one, 1e-2 with radam_schedulefree; from pretrained "
        "ones a lower one), no hard mining at first (`loss.miner` none), pretrained weights, or "
        "some epochs with `loss` arcface first and its best.pt as `model.weights`."
    )
