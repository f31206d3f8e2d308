"""The statistics of studies against scipy and by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from siamese.studies.statistics import holm, paired, summarise

VALUES = [7.61, 7.4, 8.02, 7.77, 7.5]


def test_the_interval_is_students():
    rng = np.random.default_rng(0)
    for n in (2, 3, 5, 20):
        x = rng.normal(8, 0.3, n)
        found = summarise(x.tolist())
        low, high = stats.t.interval(0.95, n - 1, x.mean(), stats.sem(x))
        assert found.mean - found.half == pytest.approx(low)
        assert found.mean + found.half == pytest.approx(high)
        assert (found.n, found.median) == (n, pytest.approx(np.median(x)))
        assert (found.low, found.high) == (x.min(), x.max())


def test_one_run_has_no_interval_and_none_no_summary():
    found = summarise([7.0])
    assert (found.n, found.median, found.half) == (1, 7.0, None)
    assert summarise([]) is None


def test_differences_are_paired_by_seed():
    first = dict(enumerate(VALUES))
    second = {4: 7.3, 2: 7.9, 0: 7.4, 1: 7.35, 9: 100.0}
    found = paired(first, second)
    seeds = [0, 1, 2, 4]
    a, b = ([values[seed] for seed in seeds] for values in (first, second))
    oracle = stats.ttest_rel(a, b)
    low, high = oracle.confidence_interval(0.95)
    assert found.n == 4
    assert found.p == pytest.approx(oracle.pvalue)
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high))
    # unpaired the same figures would show nothing
    assert found.p < 0.05 < stats.ttest_ind(a, b).pvalue


@pytest.mark.parametrize(
    ("first", "second", "n"),
    [({0: 1.0}, {1: 1.0}, 0), ({0: 1.0}, {0: 2.0}, 1), ({0: 1, 1: 2}, {0: 2, 1: 3}, 2)],
)
def test_nothing_is_tested_without_spread(first, second, n):
    found = paired(first, second)
    assert (found.n, found.p, found.seen) == (n, None, False)
    assert math.isnan(found.mean) == (n == 0)


def test_holm_by_hand():
    p = [0.01, 0.04, 0.03, 0.005]
    # sorted .005 .01 .03 .04 times 4 3 2 1, never falling
    assert holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_equals_its_definition():
    rng = np.random.default_rng(1)
    for _ in range(50):
        p = rng.uniform(0, 0.2, rng.integers(1, 9)).tolist()
        adjusted = holm(p)
        for level in (0.01, 0.05, 0.1):  # step down: refuse until the first that is too large
            rejected, order = set(), np.argsort(p)
            for rank, at in enumerate(order):
                if p[at] > level / (len(p) - rank):
                    break
                rejected.add(at)
            assert {at for at, value in enumerate(adjusted) if value <= level} == rejected
