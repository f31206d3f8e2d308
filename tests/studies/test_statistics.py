"""The statistics of studies against scipy and by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from siamese.studies.statistics import against_best, corrected, holm, paired, summarise

VALUES = [7.61, 7.4, 8.02, 7.77, 7.5]


def test_the_interval_is_students():
    rng = np.random.default_rng(0)
    for n in (3, 5, 20):
        x = rng.normal(8, 0.3, n)
        found = summarise(x.tolist())
        low, high = stats.t.interval(0.95, n - 1, x.mean(), stats.sem(x))
        assert found.mean - found.half == pytest.approx(low)
        assert found.mean + found.half == pytest.approx(high)
        assert (found.n, found.median) == (n, pytest.approx(np.median(x)))


@pytest.mark.parametrize("values", [[7.0], [0.5, 15.5]])
def test_too_few_runs_have_no_interval_and_none_no_summary(values):
    found = summarise(values)  # two would have 8 +- 95.30
    assert (found.n, found.median, found.half) == (len(values), np.median(values), None)
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
    [({0: 1.0}, {1: 1.0}, 0), ({0: 1.0}, {0: 2.0}, 1), ({0: 1, 1: 2}, {0: 2, 1: 9}, 2),
     ({0: 1, 1: 2, 2: 3}, {0: 2, 1: 3, 2: 4}, 3)],
)  # fmt: skip
def test_nothing_is_tested_with_two_seeds_or_without_spread(first, second, n):
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


def test_the_best_is_compared_with_a_correction_for_all_pairs():
    rng = np.random.default_rng(3)
    arms = [dict(enumerate(rng.normal(mean, 0.1, 4))) for mean in (1, 0, 2, 1.5)]
    shown, others = against_best(arms, 1)
    assert (len(shown), len(others)) == (3, 3)
    p = [
        stats.ttest_rel([*a.values()], [*b.values()]).pvalue
        for a, b in [(arms[0], arms[1]), (arms[2], arms[1]), (arms[3], arms[1]),
                     (arms[0], arms[2]), (arms[0], arms[3]), (arms[2], arms[3])]
    ]  # fmt: skip
    assert [one.adjusted for one in corrected(shown, others)] == pytest.approx(holm(p)[:3])


@pytest.mark.parametrize("spreads", ["equal", "unequal"])
@pytest.mark.parametrize("seeds", [3, 4, 5])
@pytest.mark.parametrize("arms", [3, 8])
def test_equal_arms_differ_from_the_best_of_them_in_a_twentieth_of_studies(arms, seeds, spreads):
    """The family-wise error; scripts/bench_verdicts.py simulates more."""
    rng = np.random.default_rng([arms, seeds])
    studies = 200
    wide = np.ones(arms) if spreads == "equal" else np.geomspace(0.1, 10, arms)
    wrong = 0
    for _ in range(studies):
        x = rng.normal(size=seeds)[:, None] + rng.normal(size=(seeds, arms)) * wide
        values = [dict(enumerate(own)) for own in x.T]
        found = corrected(*against_best(values, int(np.argmin(np.median(x, axis=0)))))
        wrong += any(one.seen for one in found)
    assert wrong / studies <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / studies)
