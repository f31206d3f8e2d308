"""The classification loss against torch's and timm's on the same targets."""

import numpy as np
import pytest
import torch
from timm.data.mixup import mixup_target
from timm.loss import BinaryCrossEntropy, LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch.nn import functional

from siamese.config import ClassLossSettings
from siamese.tasks.classes.class_losses import ClassLoss
from siamese.tasks.classes.mixing import Mixed, one_hot

CLASSES, COUNT = 6, 8
LABELS = torch.tensor([0, 1, 2, 3, 4, 5, 0, 2])
SHARE = 0.3


def logits(rows: int = COUNT, seed: int = 0) -> torch.Tensor:
    return 2 * torch.randn(rows, CLASSES, generator=torch.Generator().manual_seed(seed))


def plain(views: int = 1) -> Mixed:
    empty = torch.empty(views * COUNT, 0)
    return Mixed(empty, one_hot(LABELS, CLASSES), LABELS, views)


def mixed() -> Mixed:
    targets = mixup_target(LABELS, CLASSES, SHARE)
    return Mixed(torch.empty(COUNT, 0), targets, targets.argmax(dim=1))


def test_cross_entropy_of_labels() -> None:
    loss = ClassLoss(ClassLossSettings())(logits(), plain())
    torch.testing.assert_close(loss, functional.cross_entropy(logits(), LABELS))


def test_smoothing_of_labels_equals_timms_and_torchs() -> None:
    loss = ClassLoss(ClassLossSettings(smoothing=0.1))(logits(), plain())
    torch.testing.assert_close(loss, LabelSmoothingCrossEntropy(0.1)(logits(), LABELS))
    torchs = functional.cross_entropy(logits(), LABELS, label_smoothing=0.1)
    torch.testing.assert_close(loss, torchs)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_of_mixed_targets(smoothing: float) -> None:
    loss = ClassLoss(ClassLossSettings(smoothing=smoothing))(logits(), mixed())
    timms = mixup_target(LABELS, CLASSES, SHARE, smoothing)
    torch.testing.assert_close(loss, SoftTargetCrossEntropy()(logits(), timms))
    # lambda times the one label's loss and 1 - lambda times the other's, in float64
    values = logits().double().numpy()
    values -= np.log(np.exp(values).sum(axis=1, keepdims=True))
    soft = np.zeros((COUNT, CLASSES))
    for row, (one, other) in enumerate(zip(LABELS, LABELS.flip(0), strict=True)):
        soft[row, one] += SHARE
        soft[row, other] += 1 - SHARE
    soft = soft * (1 - smoothing) + smoothing / CLASSES
    assert float(loss) == pytest.approx(-(soft * values).sum(axis=1).mean(), rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_bce_equals_timms(smoothing: float) -> None:
    own = ClassLoss(ClassLossSettings("bce", smoothing))
    theirs = BinaryCrossEntropy(smoothing)(logits(), LABELS)
    torch.testing.assert_close(own(logits(), plain()), theirs)
    soft = mixup_target(LABELS, CLASSES, SHARE, smoothing)
    torch.testing.assert_close(own(logits(), mixed()), BinaryCrossEntropy()(logits(), soft))


def test_timm_smooths_no_mixed_targets() -> None:
    """As the docstring says: what its Mixup has not smoothed stays as it is."""
    own = ClassLoss(ClassLossSettings("bce", 0.1))(logits(), mixed())
    theirs = BinaryCrossEntropy(0.1)(logits(), mixed().targets)
    assert torch.equal(theirs, BinaryCrossEntropy(0.0)(logits(), mixed().targets))
    assert abs(float(own - theirs)) > 1e-3
    both = BinaryCrossEntropy(0.1, target_threshold=0.0)(logits(), LABELS)
    ones = functional.binary_cross_entropy_with_logits(logits(), torch.ones(COUNT, CLASSES))
    torch.testing.assert_close(both, ones)


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.5])
def test_target_threshold_equals_timms(threshold: float) -> None:
    own = ClassLoss(ClassLossSettings("bce", target_threshold=threshold))(logits(), mixed())
    theirs = BinaryCrossEntropy(target_threshold=threshold)(logits(), mixed().targets)
    torch.testing.assert_close(own, theirs)


def test_at_threshold_0_each_mixed_class_is_a_1_and_smoothing_stays() -> None:
    own = ClassLoss(ClassLossSettings("bce", 0.1, 0.0))(logits(), mixed())
    values, total = logits().double().numpy(), 0.0
    for row, (one, other) in enumerate(zip(LABELS, LABELS.flip(0), strict=True)):
        for label in range(CLASSES):
            target = (0.9 if label in (one, other) else 0.0) + 0.1 / CLASSES
            yes = 1 / (1 + np.exp(-values[row, label]))
            total -= target * np.log(yes) + (1 - target) * np.log(1 - yes)
    assert float(own) == pytest.approx(total / (COUNT * CLASSES), rel=1e-5)


def test_dual_cutout() -> None:
    values = logits(2 * COUNT)
    own = ClassLoss(ClassLossSettings(smoothing=0.1), dual_cutout=0.3)(values, plain(2))
    first, second = values[:COUNT].double().numpy(), values[COUNT:].double().numpy()
    total = 0.0
    for row, label in enumerate(LABELS.tolist()):
        for view in (first, second):
            logs = view[row] - np.log(np.exp(view[row]).sum())
            total -= (0.9 * logs[label] + 0.1 * logs.mean()) / 2 / COUNT
        total += 0.3 * ((first[row] - second[row]) ** 2).mean() / COUNT
    assert float(own) == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("name", ["cross_entropy", "bce"])
def test_low_precision_logits_are_judged_in_float32(name: str) -> None:
    low = logits().bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        own = ClassLoss(ClassLossSettings(name))(low, mixed())
    assert own.dtype == torch.float32
    assert torch.equal(own, ClassLoss(ClassLossSettings(name))(low.float(), mixed()))


def test_gradient_reaches_both_views() -> None:
    values = logits(2 * COUNT).requires_grad_()
    ClassLoss(ClassLossSettings(), 0.1)(values, plain(2)).backward()
    assert (values.grad.abs().sum(dim=1) > 0).all()
    assert not list(ClassLoss(ClassLossSettings()).parameters())
