import pytest

from experiments.results.beside_papers import domain_table
from experiments.results.earlier import comparison_record
from experiments.results.over_draws import select_over_draws
from tests.experiments.results.records import ended


def comparison(data):
    """As it was before what was not trained on was scored."""
    chosen = {"step": 1, "validation": 0.5, "in_split": 0.7, "whole": 0.6}
    return {
        "method": "erm",
        "data": data,
        "unseen_domain": "photo",
        "seed": 0,
        "out_of_domain_accuracy": 0.6,
        "out_of_domain_heldout_accuracy": 0.4,
        "last_step": chosen,
    }


def sweep(data):
    run = ended("erm", 0, 0, ["env0"], [(1, [(0.7, 0.4)] * 4)], data=data)
    for name in ("scored_accuracy/env0", "validation_accuracy"):
        del run["evaluations"][name]
    return run


@pytest.mark.parametrize(
    ("data", "unseen", "scored", "rest"),
    [("pacs", 0.6, 0.7, 0.4), ("emoji_styles", 0.4, 0.4, 0.7)],
)
def test_what_was_not_trained_on_follows_from_the_data(data, unseen, scored, rest):
    assert comparison_record(comparison(data))["unseen_concept_accuracy"] == unseen
    (chosen,) = select_over_draws([sweep(data)], "oracle")
    assert chosen["oracle"]["scored"] == scored
    assert chosen["oracle"]["validation"] == rest


def test_what_a_comparison_did_not_keep_is_named_and_the_rest_shown():
    shown = {"rule": "last_step"}
    assert "70.0 (1)" in domain_table([comparison("pacs")], "pacs", **shown).csv()
    emoji = [comparison("emoji_styles")]
    with pytest.raises(ValueError, match=r"not trained on.* again.* --part in_split"):
        domain_table(emoji, "emoji_styles", **shown)
    assert "70.0 (1)" in domain_table(emoji, "emoji_styles", part="in_split", **shown).csv()
    with pytest.raises(ValueError, match="a record on own does not say what was not"):
        comparison_record(comparison("own"))


@pytest.mark.parametrize(
    ("data", "missing"),
    [
        ("pacs", "out_of_domain_accuracy"),
        ("emoji_styles", "out_of_domain_heldout_accuracy"),
    ],
)
def test_a_record_without_accuracies_is_named(data, missing):
    record = comparison(data) | {"file": "A/results.json"}
    del record[missing]
    message = f"A/results.json: a record on {data} has neither .* nor {missing}, .* again"
    with pytest.raises(ValueError, match=message):
        comparison_record(record)
