import itertools

import numpy as np
import pytest
from scipy import stats

from experiments.results.statistics import (
    Estimate,
    detectable,
    equivalence,
    estimate,
    holm,
    paired,
    sign_flip,
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
    assert found == Estimate(3.0, -np.inf, np.inf, 1.0, 1, np.inf)
    assert equivalence(found, 10.0) == sign_flip([3.0]) == 1.0
    assert detectable(found) == np.inf


@pytest.mark.parametrize(("value", "p"), [(2.0, 0.0), (0.0, 1.0)])
def test_equal_values_leave_no_doubt(value, p):
    assert estimate([value] * 3) == Estimate(value, value, value, p, 3, 0.0)


def test_equivalence_is_two_one_sided_tests():
    for margin in (0.1, 1.0, 3.0):
        sides = (
            stats.ttest_1samp(A - B, margin, alternative="less").pvalue,
            stats.ttest_1samp(A - B, -margin, alternative="greater").pvalue,
        )
        found = paired(A, B)
        np.testing.assert_allclose(equivalence(found, margin), max(sides), rtol=1e-9)
        within = -margin < found.low and found.high < margin
        assert within == (equivalence(found, margin) < 0.025)


def test_sign_flips_are_counted():
    values = A - B
    signs = np.array(list(itertools.product((1, -1), repeat=len(values))))
    means = np.abs((signs * values).mean(1))
    assert sign_flip(values) == np.mean(means >= abs(values.mean()) * (1 - 1e-12))
    assert sign_flip(np.ones(10)) == 2 / 2**10  # the least that ten seeds can give


def test_power_is_that_of_many_studies():
    """With the true difference that is detectable, so many t-tests see one."""
    seeds, studies = 10, 20000
    drawn = np.random.default_rng(1).normal(0.0, 1.0, (studies, seeds))
    error = 1 / np.sqrt(seeds)
    known = Estimate(0.0, 0.0, 0.0, 1.0, seeds, error)
    p = stats.ttest_1samp(drawn + detectable(known), 0.0, axis=1).pvalue
    # Its formula takes the error for known, which is not so: a few percent of power.
    assert 0.75 < np.mean(p < 0.05) < 0.85


def test_holm_by_hand():
    # Sorted: 0.01 x 4, 0.02 x 3, 0.03 x 2 but not below 0.06, 0.9.
    np.testing.assert_allclose(holm([0.03, 0.01, 0.9, 0.02]), [0.06, 0.04, 0.9, 0.06])
    assert holm([0.6, 0.5]) == [1.0, 1.0]


def test_what_is_told():
    found = Estimate(0.0031, -0.0012, 0.0074, 0.1234, 5, 0.0015)
    assert found.text(100, 2, "points") == "+0.31 points [-0.12, +0.74], p = 0.123"


def test_errors():
    with pytest.raises(ValueError, match="at least one value; got none"):
        estimate([])
    with pytest.raises(ValueError, match="the same seeds on both sides; got 2 and 3"):
        paired([1, 2], [1, 2, 3])
