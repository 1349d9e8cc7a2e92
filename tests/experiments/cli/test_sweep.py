"""The command `sweep` as far as it trains nothing; tests of runs/ train."""

import pytest
from typer.testing import CliRunner

from experiments.cli.app import app
from experiments.cli.sweep import _columns
from experiments.runs.claims import Claims
from experiments.runs.records import DIVERGED, FINISHED, GIVEN_UP, Records
from experiments.runs.sweep import read_sweep

PLANNED = (
    *("--data", "rotated_digits", "--methods", "erm,sam,disam", "--unseen", "0,15"),
    *("--draws", "2", "--trials", "2", "--steps", "6", "--batch-size", "4"),
)


def run(*arguments):
    return CliRunner().invoke(app, ["sweep", *map(str, arguments)])


def test_the_plan_is_told_before_anything_runs(tmp_path):
    told = run(tmp_path, *PLANNED, "--plan")
    assert told.exit_code == 0, told.output
    assert "24 runs: 3 methods x 2 draws x 2 trials x 2 unseen domains" in " ".join(
        told.output.split()
    )
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".json"] == [
        "sweep.json"
    ]
    assert run(tmp_path, "--plan").output == told.output


def test_what_methods_draw_alike_is_one_column(tmp_path):
    run(tmp_path, *PLANNED, "--plan")
    columns = _columns(read_sweep(tmp_path))
    assert list(columns) == ["learning rate", "weight decay", "rho", "disam lam"]
    assert columns["rho"].keys() == {(0, 1), (1, 1)}  # the default draws nothing


def test_the_status_names_what_was_given_up(tmp_path):
    run(tmp_path, *PLANNED, "--plan")
    runs = read_sweep(tmp_path).runs
    states = [FINISHED, FINISHED, DIVERGED, GIVEN_UP]
    for name, state in zip(runs, states, strict=False):
        Records(tmp_path / "records").append(name, state)
    told = run(tmp_path, "--status")
    assert told.exit_code == 0
    assert (
        "4 of 24 runs ended: 2 finished, 0 running, 20 waiting, 1 diverged, 1 given up."
        in told.output
    )
    given_up = list(runs)[3]
    words = " ".join(told.output.split())
    assert f"Given up: {given_up}, {runs[given_up].method} on " in words


def test_what_was_given_up_is_tried_again_when_nobody_trains(tmp_path):
    run(tmp_path, *PLANNED, "--plan")
    first, second, third, *_ = read_sweep(tmp_path).runs
    for name, state in ((first, FINISHED), (second, GIVEN_UP)):
        Records(tmp_path / "records").append(name, state)
    claims = Claims(tmp_path / "claims")
    assert claims.take(third)
    refused = run(tmp_path, "--retry", "--status")
    assert "1 runs are being trained; stop their nodes" in str(refused.exception)
    claims.release(third)
    told = run(tmp_path, "--retry", "--status").output
    assert "1 finished, 0 running, 23 waiting, 0 diverged, 0 given up" in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "holds no sweep; begin one"),
        (("--status",), "holds no sweep; begin one"),
        (("--draws", "3"), "--draws is of a new sweep, which begins with --data"),
        (("--batch-size", "3"), "--batch-size is of a new sweep"),
        (("--pairs",), "--pairs is of a new sweep"),
        (("--draws", "0"), "--draws is of a new sweep"),
        (("--weight-decay", "0"), "--weight-decay is of a new sweep"),
        ((*PLANNED, "--methods", ","), "--methods is ',', which names none: give some"),
        ((*PLANNED, "--epochs", "2"), "steps is 6 and epochs 2: a run's length is said"),
        (("--on", "moon"), "unknown engine 'moon'; there are: local, slurm, ray"),
        (("--data", "mars"), "unknown data set 'mars'"),
        ((*PLANNED, "--methods", "smad"), "unknown method 'smad'"),
        ((*PLANNED, "--draws", "0"), "draws must be at least 1; got 0"),
    ],
)
def test_what_cannot_be_is_told_and_leaves_nothing(tmp_path, arguments, message):
    told = run(tmp_path / "sweep", *arguments)
    assert isinstance(told.exception, ValueError) and message in str(told.exception)
    assert not (tmp_path / "sweep").exists()


def test_a_sweep_that_is_there_takes_no_options_of_another(tmp_path):
    run(tmp_path, *PLANNED, "--plan")
    told = run(tmp_path, *PLANNED, "--trials", "3")
    assert "trials: 2 there, 3 asked" in str(told.exception)
    assert "--trials is of a new sweep" in str(run(tmp_path, "--trials", "3").exception)
