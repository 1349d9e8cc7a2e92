import pytest

from experiments.training.selection import SELECTION_RULES, Selected


def line(step, source, out, inside, whole=0.0, kind="evaluation"):
    return {
        "kind": kind,
        "step": step,
        "in_domain_accuracy": source,
        "out_of_domain_heldout_accuracy": out,
        "out_of_domain_in_split_accuracy": inside,
        "out_of_domain_accuracy": whole,
    }


LINES = [
    {"kind": "train", "step": 1},
    line(1, source=0.5, out=0.9, inside=0.91),
    line(2, source=0.8, out=0.3, inside=0.31, whole=0.32),
    line(3, source=0.8, out=0.6, inside=0.61),  # as good: the first one counts
    line(4, source=0.7, out=0.4, inside=0.41, whole=0.42),
    line(4, source=0.99, out=0.99, inside=0.99, kind="swad"),
]


def test_training_domain_validation_takes_the_first_best_checkpoint():
    rule = SELECTION_RULES["training_domain_validation"]
    assert rule(LINES) == Selected(2, validation=0.8, in_split=0.31, whole=0.32)


def test_the_oracle_sees_the_last_checkpoint_alone():
    found = SELECTION_RULES["oracle"](LINES)
    assert found == Selected(4, validation=0.4, in_split=0.41, whole=0.42)


def test_last_step():
    found = SELECTION_RULES["last_step"](LINES)
    assert found == Selected(4, validation=0.7, in_split=0.41, whole=0.42)


def best_run(runs, rule):
    """The position of the run that the rule validates best, the first on ties."""
    validated = [rule(lines).validation for lines in runs]
    return validated.index(max(validated))


def test_rules_choose_different_runs_of_a_sweep():
    other = [line(1, source=0.9, out=0.1, inside=0.11), line(4, 0.1, out=0.5, inside=0.51)]
    chosen = {n: best_run([LINES, other], rule) for n, rule in SELECTION_RULES.items()}
    assert chosen == {"training_domain_validation": 1, "oracle": 1, "last_step": 0}
    assert best_run([LINES, LINES], SELECTION_RULES["oracle"]) == 0


@pytest.mark.parametrize("rule", SELECTION_RULES.values())
def test_a_run_without_evaluations_is_refused(rule):
    with pytest.raises(ValueError, match="no evaluation to select from"):
        rule(LINES[:1])
