"""Naive verification figures: one pair at a time, exact fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np


def pair_lists(scores: np.ndarray, labels: np.ndarray) -> tuple[list[float], list[float]]:
    """Genuine and impostor scores of a full score matrix, each unordered pair once."""
    genuine, impostor = [], []
    for i in range(len(labels)):
        for j in range(i + 1, len(labels)):
            (genuine if labels[i] == labels[j] else impostor).append(float(scores[i, j]))
    return genuine, impostor


def auc(genuine: list[float], impostor: list[float]) -> float:
    won = sum(2 * (g > i) + (g == i) for g in genuine for i in impostor)
    return float(Fraction(won, 2 * len(genuine) * len(impostor)))


def average_precision(genuine: list[float], impostor: list[float]) -> float:
    total = Fraction(0)
    for threshold in set(genuine):
        gained = sum(g == threshold for g in genuine)
        accepted = sum(g >= threshold for g in genuine)
        false = sum(i >= threshold for i in impostor)
        total += Fraction(gained, len(genuine)) * Fraction(accepted, accepted + false)
    return float(total)


def rates(
    genuine: list[float], impostor: list[float], threshold: float
) -> tuple[Fraction, Fraction]:
    fmr = Fraction(sum(i >= threshold for i in impostor), len(impostor))
    fnmr = Fraction(sum(g < threshold for g in genuine), len(genuine))
    return fmr, fnmr


def equal_error_rates(genuine: list[float], impostor: list[float]) -> set[float]:
    """Every (FMR + FNMR) / 2 at which the difference of the two is least."""
    thresholds = [*genuine, *impostor, float("inf")]
    both = [rates(genuine, impostor, threshold) for threshold in thresholds]
    least = min(abs(fmr - fnmr) for fmr, fnmr in both)
    return {float((fmr + fnmr) / 2) for fmr, fnmr in both if abs(fmr - fnmr) == least}


def tar_at(genuine: list[float], impostor: list[float], wanted: float) -> float:
    """The best TAR over all thresholds whose FMR does not exceed the wanted one."""
    tars = []
    for threshold in [*genuine, *impostor, float("inf")]:
        fmr, fnmr = rates(genuine, impostor, threshold)
        if float(fmr) <= wanted:
            tars.append(float(1 - fnmr))
    return max(tars)
