"""The oracle is DomainBed's own code, commit b93c22a, on made-up accuracies with two
decimals, so that there are ties, and with one run missing; and the table that it printed.
"""

import itertools
import json
import random
from pathlib import Path

import pytest

from experiments.methods.registry import METHODS
from experiments.results.beside_papers import domain_table
from experiments.results.over_draws import RULES, count_states, select_over_draws
from tests.experiments.results.records import DOMAINS, ended

ORACLE = json.loads(Path(__file__).with_name("selection_oracle.json").read_text())
NAMES = {
    "training_domain_validation": "training-domain validation set",
    "leave_one_domain_out": "leave-one-domain-out cross-validation",
    "oracle": "test-domain validation set (oracle)",
}


def oracle_records():
    runs = itertools.groupby(ORACLE["records"], key=lambda record: record[:4])
    return [
        ended(
            method.lower(),
            trial,
            draw,
            [DOMAINS[i] for i in unseen],
            [(step, accuracies) for *_, step, accuracies in lines],
        )
        for (method, trial, draw, unseen), lines in runs
    ]


@pytest.mark.parametrize("rule", RULES)
def test_selections_are_domainbed_s(rule):
    expected = ORACLE["expected"][NAMES[rule]]["selected"]
    found = {
        f"{r['method'].upper()}/trial{r['seed']}/{r['unseen_domain']}": r[rule]["scored"]
        for r in select_over_draws(oracle_records(), rule)
    }
    assert len(expected) == 24 and found == expected


@pytest.mark.parametrize("rule", RULES)
def test_the_table_is_domainbed_s(rule):
    selected = select_over_draws(oracle_records(), rule)
    table = domain_table(selected, "d", rule=rule, spread="domainbed")
    rows = {method: cells for method, _, *cells in table.rows}
    expected = ORACLE["expected"][NAMES[rule]]["table"]
    assert len(rows) == len(expected) == 2
    for method, by_domain in expected.items():
        cells = [f"{mean:.1f} ± {error:.1f} (3)" for mean, error in by_domain.values()]
        assert rows[method.lower()] == cells


def test_the_order_of_the_records_changes_nothing():
    records = oracle_records()
    for rule in RULES:
        selected = select_over_draws(records, rule)
        shuffled = random.Random(0).sample(records, len(records))
        assert select_over_draws(shuffled, rule) == selected
        assert [r["unseen_domain"] for r in selected[:4]] == list(DOMAINS)
        assert [r["seed"] for r in selected] == [t for t in (0, 1, 2) for _ in DOMAINS] * 2


def evaluation(step, *accuracies):
    """Equal on both splits of a domain."""
    return step, [(accuracy, accuracy) for accuracy in accuracies]


def test_of_equal_draws_the_highest_is_taken_and_of_equal_checkpoints_the_first():
    same = [evaluation(step, 0.5, 0.5, 0.5, 0.5) for step in (0, 300)]
    records = [ended("erm", 0, draw, ["env0"], same) for draw in (10, 2, 9)]
    (found,) = select_over_draws(records, "training_domain_validation")
    assert (found["draw"], found["training_domain_validation"]["step"]) == (10, 0)
    (found,) = select_over_draws(records, "oracle")
    assert (found["draw"], found["oracle"]["step"]) == (10, 300)


def test_cross_validation_takes_steps_that_all_its_runs_have():
    def of(unseen, *evaluations):
        return ended("erm", 0, 1, unseen, evaluations)

    records = [
        of(["env0"], evaluation(0, 0.1, 0, 0, 0), evaluation(3, 0.2, 0, 0, 0)),
        of(["env0", "env1"], evaluation(0, 0, 0.3, 0, 0), evaluation(3, 0, 0.9, 0, 0)),
        of(["env0", "env2"], evaluation(0, 0, 0, 0.6, 0)),  # it has not reached step 3
        of(["env0", "env3"], evaluation(0, 0, 0, 0, 0.9), evaluation(3, 0, 0, 0, 0.9)),
    ]
    (found,) = select_over_draws(records, "leave_one_domain_out")
    chosen = found["leave_one_domain_out"]
    assert chosen["step"] == 0 and chosen["scored"] == 0.1
    assert chosen["validation"] == pytest.approx(0.6)  # of 0.3, 0.6 and 0.9
    assert select_over_draws(records[:-1], "leave_one_domain_out") == []


def test_runs_that_did_not_finish_are_skipped_and_counted():
    best = [evaluation(0, 0.9, 0.9, 0.9, 0.9)]
    records = [
        ended("sam", 0, 0, ["env0"], best),
        ended("sam", 0, 1, ["env0"], state="diverged"),
        ended("sam", 1, 0, ["env0"], state="given up"),
    ]
    for rule in ("training_domain_validation", "oracle"):
        (found,) = select_over_draws(records, rule)
        assert (found["draw"], found["seed"]) == (0, 0)
    assert count_states(records) == {"finished": 1, "diverged": 1, "given up": 1}


def test_methods_stand_in_the_order_of_their_registry_and_others_after_them():
    score = [evaluation(0, 0.5, 0.5, 0.5, 0.5)]
    records = [ended(m, 0, 0, ["env0"], score) for m in ("own", *reversed(METHODS))]
    found = [r["method"] for r in select_over_draws(records, "oracle")]
    assert found == [*METHODS, "own"]


def test_cross_validation_without_pairs_names_the_option():
    records = [ended("erm", 0, 0, ["env0"], [evaluation(0, 0.5, 0.5, 0.5, 0.5)])]
    with pytest.raises(
        ValueError, match=r"leave out two domains, .* none: .* with --pairs"
    ):
        select_over_draws(records, "leave_one_domain_out")
    assert select_over_draws([], "leave_one_domain_out") == []


def test_an_unknown_rule_lists_the_known():
    with pytest.raises(ValueError, match=r"over draws 'swad'; there are: training_d.*, l"):
        select_over_draws([], "swad")
