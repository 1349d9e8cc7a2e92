import pytest

from experiments.training.selection import SELECTION_RULES, Selected


def line(step, source, rest, scored, whole=0.0, kind="evaluation"):
    return {
        "kind": kind,
        "step": step,
        "in_domain_accuracy": source,
        "validation_accuracy": rest,
        "scored_accuracy/a": scored,
        "scored_accuracy/b": 0.0,
        "in_split_accuracy/a": scored + 0.001,
        "out_of_domain_accuracy": whole,
    }


LINES = [
    {"kind": "train", "step": 1},
    line(1, source=0.5, rest=0.9, scored=0.91),
    line(2, source=0.8, rest=0.3, scored=0.31, whole=0.32),
    line(3, source=0.8, rest=0.6, scored=0.61),  # as good: the first one counts
    line(4, source=0.7, rest=0.4, scored=0.41, whole=0.42),
    line(4, source=0.99, rest=0.99, scored=0.99, kind="swad"),
]


def test_training_domain_validation_takes_the_first_best_checkpoint():
    rule = SELECTION_RULES["training_domain_validation"]
    assert rule(LINES, "a") == Selected(
        2, validation=0.8, scored=0.31, in_split=0.311, whole=0.32
    )


def test_the_oracle_sees_the_last_checkpoint_alone():
    found = SELECTION_RULES["oracle"](LINES, "a")
    assert found == Selected(4, validation=0.4, scored=0.41, in_split=0.411, whole=0.42)


def test_last_step():
    found = SELECTION_RULES["last_step"](LINES, "a")
    assert found == Selected(4, validation=0.7, scored=0.41, in_split=0.411, whole=0.42)


def best_run(runs, rule):
    """The position of the run that the rule validates best, the first on ties."""
    validated = [rule(lines, "a").validation for lines in runs]
    return validated.index(max(validated))


def test_rules_choose_different_runs_of_a_sweep():
    other = [
        line(1, source=0.9, rest=0.1, scored=0.11),
        line(4, 0.1, rest=0.5, scored=0.51),
    ]
    chosen = {n: best_run([LINES, other], rule) for n, rule in SELECTION_RULES.items()}
    assert chosen == {"training_domain_validation": 1, "oracle": 1, "last_step": 0}
    assert best_run([LINES, LINES], SELECTION_RULES["oracle"]) == 0


@pytest.mark.parametrize("rule", SELECTION_RULES.values())
def test_a_run_without_evaluations_is_refused(rule):
    with pytest.raises(ValueError, match="no evaluation to select from"):
        rule(LINES[:1], "a")
