import numpy as np
import pytest
from scipy import stats

from experiments.results.statistics import (
    CANNOT_TELL,
    DOES_NOT,
    HOLDS,
    Estimate,
    equal,
    estimate,
    holm,
    paired,
    verdict,
)

RNG = np.random.default_rng(0)
A, B = RNG.normal(1.0, 1.0, 7), RNG.normal(0.4, 1.0, 7)


def test_a_paired_test_is_scipys():
    found = paired(A, B)
    expected = stats.ttest_rel(A, B)
    interval = expected.confidence_interval(0.95)
    assert found.count == 7
    np.testing.assert_allclose(
        [found.mean, found.p, found.low, found.high],
        [(A - B).mean(), expected.pvalue, interval.low, interval.high],
        rtol=1e-12,
    )


def test_one_value_tells_nothing():
    found = estimate([3.0])
    assert found == Estimate(3.0, -np.inf, np.inf, 1.0, 1)
    assert verdict(found, 0.1) == CANNOT_TELL


@pytest.mark.parametrize(("value", "p"), [(2.0, 0.0), (0.0, 1.0)])
def test_equal_values_leave_no_doubt(value, p):
    assert estimate([value] * 3) == Estimate(value, value, value, p, 3)


@pytest.mark.parametrize(
    ("low", "high", "answer"),
    [
        (0.1, 0.4, HOLDS),
        (0.001, 0.006, HOLDS),
        (0.001, 0.004, DOES_NOT),  # there, but too small to matter
        (-0.4, -0.1, DOES_NOT),
        (-0.004, 0.004, DOES_NOT),  # too small to matter
        (-0.4, 0.4, CANNOT_TELL),
        (0.0, 0.0, DOES_NOT),
    ],
)
def test_verdicts(low, high, answer):
    assert verdict(Estimate((low + high) / 2, low, high, 0.5, 5), margin=0.005) == answer


def test_one_of_many_tests_needs_a_smaller_p():
    found = Estimate(0.2, 0.1, 0.3, 0.01, 5)
    assert [verdict(found, 0.0, p) for p in (0.04, 0.06)] == [HOLDS, CANNOT_TELL]
    assert verdict(found, 0.4, 0.9) == DOES_NOT  # too small to matter at any p


@pytest.mark.parametrize(
    ("low", "high", "answer"),
    [
        (-0.09, 0.09, HOLDS),
        (0.01, 0.09, HOLDS),  # there, but too small to matter
        (0.05, 0.15, CANNOT_TELL),
        (0.11, 0.15, DOES_NOT),
        (-0.15, -0.11, DOES_NOT),
    ],
)
def test_equality_is_within_the_margin(low, high, answer):
    assert equal(Estimate((low + high) / 2, low, high, 0.5, 5), margin=0.1) == answer


def test_holm_by_hand():
    # Sorted: 0.01 x 4, 0.02 x 3, 0.03 x 2 but not below 0.06, 0.9.
    np.testing.assert_allclose(holm([0.03, 0.01, 0.9, 0.02]), [0.06, 0.04, 0.9, 0.06])
    assert holm([0.6, 0.5]) == [1.0, 1.0]


def test_what_is_told():
    found = Estimate(0.0031, -0.0012, 0.0074, 0.1234, 5)
    assert found.text(100, 2, "points") == "+0.31 points [-0.12, +0.74], p = 0.123"


def test_errors():
    with pytest.raises(ValueError, match="at least one value; got none"):
        estimate([])
    with pytest.raises(ValueError, match="the same seeds on both sides; got 2 and 3"):
        paired([1, 2], [1, 2, 3])
