"""Means, paired differences and corrections, against scipy's and cases solved by hand."""

import math
import random

import pytest
from scipy import stats

from orchestrator.results.columns import column_of
from orchestrator.results.comparison import Delta
from orchestrator.results.estimates import estimate, holm, is_number, judge, paired_delta

TOP1, LOSS, MACS = column_of("top1"), column_of("loss"), column_of("macs")


def test_mean_and_deviation_of_one_training():
    found = estimate([1.0, 2.0, 6.0])
    assert (found.mean, found.n, found.values) == (3.0, 3, (1.0, 2.0, 6.0))
    assert found.deviation == pytest.approx(math.sqrt((4 + 1 + 9) / 2))
    assert estimate([5.0]).deviation is None


def test_a_case_solved_by_hand():
    # mean 2, s = 1, s / sqrt(3) = 0.57735, t(0.975; 2) = 4.302653, t = 3.464102
    found = paired_delta([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.low == pytest.approx(2 - 4.302653 * 0.5773503, abs=1e-5)
    assert found.high == pytest.approx(2 + 4.302653 * 0.5773503, abs=1e-5)
    # With 2 degrees of freedom, P(|T| > t) = 1 - t / sqrt(t^2 + 2) exactly.
    assert found.p == pytest.approx(1 - 3.4641016 / math.sqrt(12 + 2), abs=1e-7)


@pytest.mark.parametrize("n", [3, 4, 8, 30])
def test_intervals_and_p_are_those_of_scipy(n):
    draw = random.Random(n)
    ours = [draw.gauss(0.5, 1.0) for _ in range(n)]
    theirs = [draw.gauss(0.0, 1.0) for _ in range(n)]
    found = paired_delta([a - b for a, b in zip(ours, theirs, strict=True)])
    wanted = stats.ttest_rel(ours, theirs)
    low, high = wanted.confidence_interval(0.95)
    assert found.p == pytest.approx(wanted.pvalue, rel=1e-9)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-9)


def test_two_seeds_give_an_interval_and_no_p():
    found = paired_delta([1.0, 2.0])
    low, high = stats.t.interval(0.95, 1, loc=1.5, scale=0.5)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert (found.p, found.verdict) == (None, "too few seeds")


def test_one_seed_gives_the_difference_alone():
    found = paired_delta([1.5])
    assert (found.mean, found.low, found.high, found.p) == (1.5, None, None, None)
    assert found.verdict == "too few seeds"


def test_differences_without_scatter_prove_nothing():
    # 97.3 - 96.1 and 98.3 - 97.1 differ in their last bits only: no scatter either.
    for equal in ([0.5, 0.5, 0.5], [97.3 - 96.1, 98.3 - 97.1, 99.3 - 98.1]):
        found = paired_delta(equal)
        assert (found.low, found.p, found.verdict) == (None, None, "unclear")
    same = paired_delta([0.0, 0.0, 0.0])
    assert (same.low, same.high, same.p) == (0.0, 0.0, 1.0)


def test_holm_worked_example():
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.04 -> 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("mean", "p", "column", "verdict"),
    [
        (1.0, 0.049, TOP1, "better"),
        (-1.0, 0.049, TOP1, "worse"),
        (-1.0, 0.049, LOSS, "better"),
        (1.0, 0.049, LOSS, "worse"),
        (1.0, 0.051, TOP1, "unclear"),
        (1.0, 0.001, MACS, ""),
    ],
)
def test_verdicts(mean, p, column, verdict):
    assert judge(Delta(mean, None, None, 3, p, "unclear"), p, column).verdict == verdict


def test_no_verdict_below_three_seeds_whatever_p():
    few = Delta(5.0, 4.9, 5.1, 2, None, "too few seeds")
    assert judge(few, 1e-9, TOP1).verdict == "too few seeds"


def test_infinities_as_the_database_stores_them_are_no_numbers():
    assert is_number(0.0)
    stored = 1.7976931348623157e308
    for value in (None, math.nan, math.inf, stored, -stored):
        assert not is_number(value)
