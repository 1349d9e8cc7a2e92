import numpy as np
import pytest

from experiments.results.summary import over_seeds, summarize
from tests.experiments.results.records import record

RECORDS = [
    record("erm", "a", 0, 0.5),
    record("erm", "b", 0, 0.7),
    record("erm", "a", 1, 0.6),
    record("erm", "b", 1, 1.0),
    record("sam", "a", 0, 0.4),
    record("sam", "b", 0, 0.2),
    record("sam", "a", 1, 0.9),  # seed 1 did not finish on b
]


def test_summary_by_hand():
    erm, sam = summarize(RECORDS)
    assert (erm.method, erm.seeds, sam.method, sam.seeds) == ("erm", 2, "sam", 1)
    assert erm.out_of_domain.mean == pytest.approx(0.7)  # seeds 0.6 and 0.8
    assert erm.out_of_domain.std == pytest.approx(np.sqrt(0.02))
    assert erm.out_of_domain.percent() == "70.0 ± 14.1"
    assert erm.unseen_concepts.percent() == "35.0 ± 7.1"
    assert erm.by_domain["b"].mean == pytest.approx(0.425)
    assert erm.worst_domain[0] == "a"
    assert erm.worst_domain[1].mean == pytest.approx(0.275)
    assert erm.loss_spread.mean == pytest.approx(0.15)
    assert sam.out_of_domain.percent() == "30.0"
    assert sam.unseen_concepts.mean == pytest.approx(0.15)
    assert erm.difference is None
    assert sam.difference.points() == "-15.0, one seed tells nothing"
    assert sam.worst_domain[0] == "b"


def test_a_half_is_the_mean_over_the_domains_that_have_it():
    def opened(domain, halves):
        chosen = {"scored": 0.5, "whole": 0.4, "halves": halves}
        return record("erm", domain, 0, 0.5) | {"last_step": chosen}

    of_b = {"base": 0.6, "new": 0.2}
    for records in ([{"base": 0.8}, of_b], [{"base": 0.8, "new": 0.4}, of_b]):
        (row,) = summarize([opened(*own) for own in zip("ab", records, strict=True)])
        found = {half: spread.mean for half, spread in row.halves["last_step"].items()}
        new = np.mean([own["new"] for own in records if "new" in own])
        assert found == pytest.approx({"total": 0.4, "base": 0.7, "new": new})


def test_over_seeds_divides_by_n_minus_one():
    assert over_seeds([0.0, 2.0]).std == pytest.approx(2**0.5)
    assert over_seeds([0.3]).std is None


def test_domainbed_s_error_of_three_accuracies_by_hand():
    values = [0.1, 0.2, 0.3]
    assert over_seeds(values, "domainbed").percent() == "20.0 ± 4.7"
    assert over_seeds(values).percent() == "20.0 ± 10.0"
    assert over_seeds([0.3], "domainbed").percent() == "30.0"
