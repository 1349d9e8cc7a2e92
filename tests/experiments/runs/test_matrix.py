"""A comparison trained side by side, killed in part and whole, and what it refuses."""

import os
import re
import signal
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from experiments.cli import compare as cli_compare
from experiments.cli.app import app
from experiments.config.run import make_config
from experiments.data import load
from experiments.data.opening import Where
from experiments.devices import Layout
from experiments.files import read_json
from experiments.runs import matrix
from experiments.runs.matrix import ENOUGH, fitting_jobs, side_by_side
from experiments.runs.records import Records, read_records
from experiments.training.compare import run_matrix
from experiments.training.metrics import RunDivergedError
from experiments.training.run_folder import checkpoint_step
from tests.commands import begun, done, wait_until
from tests.experiments.runs.sweeps import starts

WHAT = (
    *("compare", "--data", "rotated_digits", "--methods", "erm,sam", "--unseen", "0,15"),
    *("--seeds", 2, "--steps", 60, "--batch-size", 4, "--checkpoint-every", 20),
)
RUNS = 8
MEASURED = ("seconds_per_step",)  # and not computed


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    done(*WHAT, "--out", out)
    found = records(out)
    assert len(found) == RUNS
    return found


def records(out):
    found = read_json(out / "results.json")
    assert not found["failures"]
    return [{k: r[k] for k in r if k not in MEASURED} for r in found["records"]]


def results(out):
    """Of the finished runs, when they were."""
    return {f: f.stat().st_mtime_ns for f in out.glob("runs/*/*/*/result.json")}


def half_way(out):
    folders = [file.parent for file in out.glob("runs/*/*/*/config.json")]
    return [f for f in folders if checkpoint_step(f) and not (f / "result.json").exists()]


def holders(out):
    """The run that each process trains, process -> id."""
    found = {}
    for claim in (out / "node" / "claims").glob("[0-9a-f]*"):
        told = re.search(r"pid=(\d+)", claim.read_text()) if "." not in claim.name else None
        if told:
            found[int(told[1])] = claim.name
    return found


@pytest.mark.slow
def test_a_killed_process_is_replaced_and_its_run_goes_on(tmp_path, undisturbed):
    with begun(*WHAT, "--jobs", 2, "--out", tmp_path) as process:
        wait_until(lambda: half_way(tmp_path) and holders(tmp_path), process)
        worker, run = next(iter(holders(tmp_path).items()))
        finished = results(tmp_path)
        os.kill(worker, signal.SIGKILL)
        ended = tmp_path / "node" / "records"
        wait_until(
            lambda: (
                [name for name, _ in starts(tmp_path / "node")].count(run) == 2
                or run in read_records(ended)  # it had just ended
            ),
            process,
        )
        said = process.communicate()[0]
        assert process.returncode == 0, said
    assert len(re.findall(r"^\w+/\d+/seed\d: run \d of 8$", said, re.MULTILINE)) == RUNS
    assert records(tmp_path) == undisturbed
    assert finished.items() <= results(tmp_path).items()
    assert not (tmp_path / "node").exists()


@pytest.mark.slow
def test_a_killed_command_goes_on_and_repeats_nothing(tmp_path, undisturbed):
    with begun(*WHAT, "--jobs", 2, "--out", tmp_path) as process:
        wait_until(lambda: results(tmp_path) and half_way(tmp_path), process)
        process.kill()
        process.communicate()  # which ends with the last of its processes
    finished = results(tmp_path)
    assert 0 < len(finished) < RUNS and (tmp_path / "node").exists()
    said = done(*WHAT, "--jobs", 2, "--out", tmp_path)
    assert "run 8 of 8" in said
    assert records(tmp_path) == undisturbed
    assert finished.items() <= results(tmp_path).items()
    assert not (tmp_path / "node").exists()


def configs(**changes):
    small = {"steps": 4, "batch_size": 4, "log_every": 2, "checkpoint_every": 2, **changes}
    return [
        make_config(
            data="rotated_digits", method="erm", unseen=unseen, seed=0, overrides=small
        )
        for unseen in ("0", "15", "30")
    ]


def compared(out, **changes):
    train_all = side_by_side(2, Where())
    return run_matrix(configs(**changes), load("rotated_digits"), out, train_all=train_all)


def two_trained_one_given_up(plan, jobs, watch):
    """In place of a node."""
    plan.logs.mkdir(parents=True)
    train, kept = plan.open(), Records(plan.records)
    for name, config in list(plan.runs.items())[:2]:
        state, content = train(config, plan.place(name, config), lambda: False)
        kept.append(name, state, **content)
    for name in list(plan.runs)[2:]:
        kept.append(name, "given up", why="its process ended 3 times")
    watch()


@pytest.mark.slow
def test_failed_runs_are_named_and_the_next_call_tries_them_again(tmp_path, monkeypatch):
    real = matrix.train_claimed

    def second_diverges(config, *rest):
        if config.unseen == "15":
            raise RunDivergedError("erm/15/seed0: the loss is not finite")
        return real(config, *rest)

    monkeypatch.setattr(matrix, "run_node", two_trained_one_given_up)
    monkeypatch.setattr(matrix, "train_claimed", second_diverges)
    found = compared(tmp_path)
    assert [record["unseen_domain"] for record in found.records] == ["0"]
    told = {config.unseen: why for config, why in found.failures}
    assert told["15"] == "erm/15/seed0: the loss is not finite"
    assert told["30"] == f"its process ended 3 times ({tmp_path / 'node' / 'nodes'})"
    assert (tmp_path / "node" / "nodes").exists()
    monkeypatch.setattr(matrix, "train_claimed", real)
    again = compared(tmp_path)
    assert [r["unseen_domain"] for r in again.records] == ["0", "15", "30"]
    assert again.records[0] == found.records[0] and not again.failures
    assert not (tmp_path / "node").exists()


def test_another_config_is_refused_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(matrix, "run_node", two_trained_one_given_up)
    compared(tmp_path)
    monkeypatch.setattr(matrix, "run_node", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(ValueError, match=r"another config.*steps: 4 there, 8 asked"):
        compared(tmp_path, steps=8)


def test_images_that_were_changed_end_the_node(tmp_path):
    with pytest.raises(ValueError, match="images of rotated_digits here are not those"):
        matrix._open("rotated_digits", 8, Where(), "another")


@pytest.mark.parametrize(
    "option",
    [
        ("--vectorize",),
        ("--devices", "2"),
        ("--parameters", "sharded"),
        ("--distributed",),
        ("--coordinator", "localhost:1", "--processes", "2", "--process", "0"),
    ],
)
def test_processes_of_one_device_take_no_other_devices(tmp_path, option):
    with pytest.raises(ValueError, match=f"--jobs 2 .*leave {option[0]} out, or --jobs"):
        CliRunner().invoke(
            app,
            ["compare", "--jobs", "2", "--out", str(tmp_path), *option],
            catch_exceptions=False,
        )
    assert not any(tmp_path.iterdir())


CPU, GPU = (SimpleNamespace(platform=name) for name in ("cpu", "gpu"))
STEPS = {"steps": ENOUGH}


@pytest.mark.parametrize(
    ("changes", "devices", "jobs"),
    [
        (STEPS, (CPU,), 3),  # 3 runs on 4 cores
        ({"steps": ENOUGH // 2, "log_every": 1}, (CPU,), 1),
        ({**STEPS, "batch_size": 512}, (CPU,), 1),  # 5 domains x 512 x 16 x 16 pixels
        (STEPS, (CPU, CPU), 1),
        (STEPS, (GPU,), 1),
    ],
)
def test_small_steps_of_a_cpu_are_taken_side_by_side(monkeypatch, changes, devices, jobs):
    monkeypatch.setattr(matrix, "usable_cores", lambda: 4)
    asked = configs(**changes)
    data = load("rotated_digits")
    assert fitting_jobs(asked, data, Layout(devices)) == jobs


@pytest.mark.parametrize(
    ("options", "jobs"),
    [
        ((), 7),
        (("--jobs", "1"), 1),
        (("--jobs", "3"), 3),
        (("--vectorize",), None),
        (("--devices", "1"), None),
    ],
)
def test_the_rule_decides_where_nobody_does(tmp_path, monkeypatch, options, jobs):
    class Told(Exception):
        pass

    def told(asked, where, layout):
        raise Told(asked.jobs)

    monkeypatch.setattr(cli_compare, "fitting_jobs", lambda *_: 7)
    monkeypatch.setattr(cli_compare, "_way_to_train", told)
    with pytest.raises(Told) as raised:
        CliRunner().invoke(
            app, ["compare", "--out", str(tmp_path), *options], catch_exceptions=False
        )
    assert raised.value.args == (jobs,)
