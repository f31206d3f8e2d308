"""Scores in fixed bins: every pair once, and nothing else read from a file."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from siamese.verification.calibration import Calibration
from siamese.verification.counts import PairCounts, count_pairs
from siamese.verification.decision import Decision
from siamese.verification.histogram import BINS, ScoreHistogram


def test_every_pair_is_in_its_bin() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(8), 5)
    vectors = rng.normal(size=(40, 3))
    found = ScoreHistogram.of(count_pairs(vectors, labels))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    genuine, impostor = [0] * BINS, [0] * BINS
    for i in range(40):
        for j in range(i):
            score = round(float(unit[i] @ unit[j]) * 2**20) / 2**20
            place = min(int((score + 1) * BINS / 2), BINS - 1)
            (genuine if labels[i] == labels[j] else impostor)[place] += 1
    # A score beside an edge may fall to either side of it by float32's rounding.
    assert sum(abs(a - b) for a, b in zip(found.genuine, genuine, strict=True)) <= 2
    assert sum(abs(a - b) for a, b in zip(found.impostor, impostor, strict=True)) <= 2
    assert (sum(found.genuine), sum(found.impostor)) == (sum(genuine), sum(impostor))


def test_the_ends_and_the_edges() -> None:
    scores = np.array([-1.0, 0.0, 1 - 2.0 / BINS, 1.0])
    ones = np.ones(4, np.int64)
    found = ScoreHistogram.of(PairCounts(scores, ones, 2 * ones, 2, 4, 1))
    places = {n: count for n, count in enumerate(found.genuine) if count}
    assert places == {0: 1, BINS // 2: 1, BINS - 1: 2}
    assert sum(found.impostor) == 8


def decision(histogram: ScoreHistogram | None) -> dict:
    return Decision(0.5, 0.01, Calibration(1.0, 0.0), histogram=histogram).as_dict()


def test_it_stands_in_a_decision_and_may_be_missing() -> None:
    histogram = ScoreHistogram((1,) * BINS, (2,) * BINS)
    written = json.loads(json.dumps(decision(histogram)))
    assert Decision.from_dict(written).histogram == histogram
    assert Decision.from_dict(decision(None)).histogram is None
    old = decision(None)
    del old["histogram"]
    assert Decision.from_dict(old).histogram is None


@pytest.mark.parametrize(
    "bad", [None, [], [1] * (BINS - 1), [0] * BINS, [-1] * BINS, [1.0] * BINS, [True] * BINS,
            ["1"] * BINS, [2**63] * BINS, "1" * BINS]
)  # fmt: skip
@pytest.mark.parametrize("name", ["genuine", "impostor"])
def test_a_damaged_one_is_refused(bad: object, name: str) -> None:
    good = asdict(ScoreHistogram((1,) * BINS, (2,) * BINS))
    with pytest.raises((KeyError, TypeError, ValueError)):
        Decision.from_dict({**decision(None), "histogram": {**good, name: bad}})
    for whole in (1, [], {}, "x"):
        with pytest.raises((KeyError, TypeError, ValueError)):
            Decision.from_dict({**decision(None), "histogram": whole})
