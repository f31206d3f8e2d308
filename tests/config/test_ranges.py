"""Ranges: settings made in Python are refused like those of a command line, in the same words."""

import math
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest

from siamese.config import (
    CheckSettings,
    ClassificationSettings,
    ClassifierEvalSettings,
    CurveSettings,
    TrainSettings,
    check_classification,
    check_classifier_evaluation,
    check_curation,
    check_evaluation,
    check_settings,
)
from siamese.config.ranges import check_values, share_or_count
from siamese.config.studies import StudySettings, check_study
from siamese.errors import UserError


def changed(settings: Any, name: str, value: Any) -> Any:
    """Settings with another value of the dotted name."""
    head, _, rest = name.partition(".")
    inner = changed(getattr(settings, head), rest, value) if rest else value
    return replace(settings, **{head: inner})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("trainer.epochs", 0, "`trainer.epochs` 0: must be at least 1"),
        ("trainer.epochs", "many", "`trainer.epochs` many: must be at least 1"),
        ("trainer.embed_batch", None, "`trainer.embed_batch` null: must be given a value"),
        ("optimizer.lr", math.nan, "`optimizer.lr` nan: must be above 0, or null"),
        ("optimizer.betas", (0.9, 1.0), "`optimizer.betas` [0.9, 1.0]: must be two numbers"),
        ("optimizer.betas", (0.9,), "`optimizer.betas` [0.9]: must be two numbers"),
        ("augment.crop_scale", (0.9, 0.5), "two rising shares, or null"),
        ("augment.crop_scale", (), "two rising shares, or null"),
        ("loss.name", "tripplet", "`loss.name` tripplet: must be one of triplet, contrastive"),
        ("loss.miner", None, "`loss.miner` null: must be given a value"),
        ("images.size", 15, "`images.size` 15: must be from 16 to 2048 pixels"),
        ("schedule.milestones", (0.5, 0.5), "`schedule.milestones` [0.5, 0.5]: must be rising"),
        ("limits.weights", 0, "`limits.weights` 0: must be above 0, and finite"),
        ("data", "", "`data` '': must be a folder, or null"),
        ("name", "a/b", "`name` a/b: must be a plain name without folders, or null"),
        ("seed", 2**63, "must be between 0 and 2**63 - 1"),
    ],
)
def test_settings_made_in_python_are_checked(name, value, message):
    with pytest.raises(UserError) as caught:
        check_settings(changed(TrainSettings(), name, value))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("check", "settings", "message"),
    [
        (check_curation, CheckSettings(near=None), "`near` null: must be given a value"),
        (check_curation, CheckSettings(max_aspect=0.5), "`max_aspect` 0.5: must be at least 1"),
        (check_evaluation, CurveSettings(resamples=50), "`resamples` 50: must be 0, or from 100"),
        (check_classifier_evaluation, ClassifierEvalSettings("c.pt", bins=0), "`bins` 0: must"),
        (check_study, StudySettings("s.yaml", jobs=0), "`jobs` 0: must be at least 1"),
        (
            check_classification,
            changed(ClassificationSettings(), "batches.ghost", 48),
            "`batches.ghost` 48: must be a divisor of `batches.size` (128)",
        ),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_every_command_s_settings_are_checked(check, settings, message):
    with pytest.raises(UserError) as caught:
        check(settings)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("least", "good", "bad"),
    [(0, (0, 0.5, 1, 7.0), (-0.1, 1.5, math.nan)), (2, (0.5, 2), (0, 1, 2.5))],
)
def test_a_share_or_a_whole_number(least, good, bad):
    allowed = share_or_count("people", least)
    assert all(allowed.holds(value) for value in good)
    assert not any(allowed.holds(value) for value in bad)


def test_the_defaults_are_in_their_ranges():
    for settings in (TrainSettings(), ClassificationSettings(), CurveSettings(), CheckSettings()):
        check_values(settings)


def test_groups_are_dataclasses_whose_names_the_messages_give():
    for field in fields(TrainSettings()):
        value = getattr(TrainSettings(), field.name)
        if is_dataclass(value):
            with pytest.raises(UserError, match=f"^`{field.name}[.]"):
                check_values(replace(TrainSettings(), **{field.name: _with_no_numbers(value)}))


def _with_no_numbers(group: Any) -> Any:
    return replace(group, **{field.name: math.nan for field in fields(group)})
