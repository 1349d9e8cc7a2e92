import numpy as np
import pytest
from scipy import stats

from experiments.results.paired import differences_to_first

ERM = {0: 0.50, 1: 0.60, 2: 0.55, 3: 0.58}
SAM = {0: 0.52, 1: 0.63, 2: 0.57, 3: 0.61}  # above by 2, 3, 2 and 3 points


def test_pairs_are_of_the_same_seed_and_the_test_is_scipys():
    turned = dict(reversed(SAM.items()))  # the order in which seeds finished
    none, found = differences_to_first([ERM, turned])
    assert none is None
    expected = stats.ttest_rel(list(SAM.values()), list(ERM.values()))
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9) and found.told_apart
    interval = expected.confidence_interval(0.95)
    np.testing.assert_allclose(
        [found.estimate.low, found.estimate.high], [interval.low, interval.high]
    )
    assert found.points() == "+2.5 [+1.6, +3.4]"


def test_of_many_methods_each_needs_a_smaller_p():
    """A difference of 2, 0 and 3 points, alone and beside seven others."""
    method = {0: 0.52, 1: 0.62, 2: 0.56, 3: 0.61}
    (_, alone), (_, *many) = (differences_to_first([ERM, *[method] * n]) for n in (1, 8))
    assert alone.told_apart and not many[0].told_apart
    assert many[0].p == pytest.approx(8 * alone.p)
    assert many[0].points() == f"{alone.points()} not told apart"


def test_means_that_differ_by_rounding_alone_are_ties():
    """0.1 + 0.2 + 0.3 in either order: as an exact difference it would be beyond chance."""
    one, other = np.mean([0.1, 0.2, 0.3]), np.mean([0.3, 0.2, 0.1])
    assert one != other
    seeds = range(5)
    _, found = differences_to_first([dict.fromkeys(seeds, x) for x in (one, other)])
    assert found.values == [0.0] * 5 and found.p == 1.0 and not found.told_apart


def test_only_seeds_that_both_finished_are_compared():
    _, one, none = differences_to_first([ERM, {1: 0.7, 9: 0.0}, {9: 0.5}])
    assert one.points() == "+10.0, one seed tells nothing" and not one.told_apart
    assert none is None
    assert differences_to_first([]) == []
