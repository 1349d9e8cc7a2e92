"""What a sweep's plan holds; nothing is trained here."""

import dataclasses
import itertools
import json

import pytest

from experiments.config.run import make_config
from experiments.data import load
from experiments.data.opening import Where
from experiments.runs.sweep import keep_sweep, read_sweep
from experiments.runs.sweep_planning import make_sweep
from experiments.training.pattern import pattern

SMALL = {"steps": 6, "batch_size": 4, "log_every": 2, "checkpoint_every": 2}


@pytest.fixture(scope="module")
def data():
    return load("rotated_digits")


def planned(data, **changes):
    asked = {"methods": ["erm", "disam"], "draws": 3, "trials": 2, "overrides": SMALL}
    return make_sweep(data, Where(), **{**asked, **changes})


def test_runs_are_methods_by_draws_by_trials_by_domains(data):
    sweep = planned(data)
    assert len(sweep.runs) == 2 * 3 * 2 * 6
    assert len(set(sweep.runs.values())) == len(sweep.runs)
    assert {len(name) for name in sweep.runs} == {16}
    some = planned(data, unseen=["45", "0"])
    assert some.unseen == ["0", "45"] and len(some.runs) == 2 * 3 * 2 * 2
    assert some.runs.keys() < sweep.runs.keys()  # of the same digests


def test_pairs_are_every_domain_with_every_other(data):
    sweep = planned(data, pairs=True, methods=["erm"], draws=1, trials=1)
    assert len(sweep.runs) == 6 + 6 * 5 // 2
    one = planned(data, pairs=True, methods=["erm"], draws=1, trials=1, unseen=["15"])
    pairs = [run.unseen for run in one.runs.values() if len(run.unseen) == 2]
    # In the data's order, for the pair of two domains is one run.
    assert sorted(pairs) == [("0", "15"), *(("15", d) for d in ("30", "45", "60", "75"))]
    config = one.config(next(r for r in one.runs.values() if r.unseen == ("0", "15")))
    assert config.unseen_domains == ("0", "15")


def test_draw_0_is_the_default_and_trial_the_seed(data):
    sweep = planned(data)
    for run in sweep.runs.values():
        config = sweep.config(run)
        if run.draw == 0:
            assert config == make_config(
                data=data.name,
                method=run.method,
                unseen=run.unseen[0],
                seed=run.trial,
                overrides=SMALL,
            )
        else:
            assert config.preset.learning_rate != 3e-3
        assert config.seed == run.trial and config.preset.batch_size == 4  # not drawn


def test_draws_are_those_of_domainbed(data):
    """RotatedMNIST, trial 0, of its own registry."""
    free = {name: value for name, value in SMALL.items() if name != "batch_size"}
    sweep = planned(data, methods=["erm"], trials=1, overrides=free)
    presets = [
        sweep.config(run).preset
        for run in sweep.runs.values()
        if run.unseen == ("0",) and run.draw
    ]
    by_rate = {f"{p.learning_rate:.5e}": p.batch_size for p in presets}
    assert by_rate == {"1.19062e-04": 372, "3.20793e-04": 126}


def test_runs_of_one_program_follow_one_another(data):
    sweep = planned(data, methods=["erm", "sam", "disam"], draws=4)
    patterns = [pattern(sweep.config(run)) for run in sweep.runs.values()]
    changes = sum(a != b for a, b in itertools.pairwise(patterns))
    assert changes == len(set(patterns)) - 1


def test_the_plan_is_read_as_it_was_written(tmp_path, data):
    sweep = planned(data, pairs=True)
    keep_sweep(tmp_path, sweep)
    there = read_sweep(tmp_path)
    assert there == sweep and there.runs == sweep.runs
    assert [there.config(r) for r in there.runs.values()] == [
        sweep.config(r) for r in sweep.runs.values()
    ]
    keep_sweep(tmp_path, dataclasses.replace(sweep, command="again", commit="later"))
    assert read_sweep(tmp_path) == sweep


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"draws": 4}, "draws: 3 there, 4 asked"),
        ({"trials": 1}, "trials: 2 there, 1 asked"),
        ({"methods": ["erm"]}, r"methods: erm, disam \(\w+\) there, erm \(\w+\) asked"),
        ({"unseen": ["15"]}, "unseen: 0, 15, .* there, 15 asked"),
        (
            {"overrides": {**SMALL, "steps": 8}},
            r"methods.erm.preset.steps: 6 there, 8 asked; methods.disam.preset.steps: 6 th",
        ),
        (
            {"overrides": {**SMALL, "rho": 0.2}},
            r"methods.erm.hyperparameters.rho: 0.05 there, 0.2 asked; .*drawn.disam: draws",
        ),
    ],
)
def test_another_plan_for_the_folder_is_refused(tmp_path, data, changes, message):
    keep_sweep(tmp_path, planned(data))
    with pytest.raises(ValueError, match=rf"another sweep \(.*{message}.*go on with it"):
        keep_sweep(tmp_path, planned(data, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"draws": 0}, "draws must be at least 1; got 0"),
        ({"trials": 0}, "trials must be at least 1; got 0"),
        ({"unseen": ["90"]}, "90"),
        ({"methods": ["smad"]}, "unknown method 'smad'"),
        ({"space": "nowhere"}, "nowhere"),
        ({"space": "swad", "draws": 30}, "30"),
        ({"overrides": {"batch_size": 0}}, "batch_size must be at least 1"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(data, changes, message):
    with pytest.raises(ValueError, match=message):
        planned(data, **changes)


def test_a_folder_without_a_sweep_says_how_to_begin(tmp_path):
    with pytest.raises(ValueError, match=r"holds no sweep; begin one: .* --data NAME"):
        read_sweep(tmp_path)
    (tmp_path / "sweep.json").write_text(json.dumps({"colour": "red"}))
    with pytest.raises(ValueError, match="does not know: colour"):
        read_sweep(tmp_path)
