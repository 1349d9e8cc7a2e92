"""Processes that train, killed and replaced."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.runs import node
from experiments.runs.node import of_slot, run_node, visible_gpus
from experiments.runs.records import FINISHED, Records, read_records
from tests.experiments.runs import made_up

ROOT = Path(__file__).parents[3]


def log_of(folder):
    (file,) = (folder / "nodes").glob("*.log")
    return file.read_text()


@pytest.mark.slow
def test_processes_that_die_are_replaced_and_their_runs_go_on(tmp_path):
    plan = made_up.plan(tmp_path, count=8, r1=made_up.die_once, r5=made_up.die_once)
    looks = []
    run_node(plan, 2, watch=lambda: looks.append(1))
    assert read_records(plan.records).keys() == plan.runs.keys()
    steps = made_up.steps_taken(tmp_path)
    assert len(steps) == len(set(steps)) == 8 * made_up.STEPS - 2 * 2
    log = log_of(tmp_path)
    assert log.count(" start ") == 8 + 2
    assert log.count("ended by signal 9; another begins") == 2
    assert "start r1 at step 2, try 1" in log and "start r5 at step 2, try 1" in log
    assert looks
    run_node(plan, 2)  # nothing is left, and nothing is begun
    assert log_of(tmp_path) == log


def test_a_folder_whose_record_was_kept_is_removed(tmp_path):
    """Its process was killed between the two."""
    plan = made_up.plan(tmp_path, count=1)
    Records(plan.records).append("r0", FINISHED)
    (tmp_path / "runs" / "r" / "r0" / "checkpoints").mkdir(parents=True)
    run_node(plan, 1)
    assert not (tmp_path / "runs" / "r" / "r0").exists()


@pytest.mark.slow
def test_a_poison_run_is_given_up_and_ends_no_other(tmp_path):
    plan = made_up.plan(tmp_path, count=4, r0=made_up.die, r2=made_up.fail)
    run_node(plan, 1)
    found = read_records(plan.records)
    assert {name: record["state"] for name, record in found.items()} == {
        "r0": "given up",
        "r1": "finished",
        "r2": "given up",
        "r3": "finished",
    }


@pytest.mark.slow
def test_a_node_where_every_run_fails_ends_and_says_why(tmp_path):
    plan = made_up.plan(tmp_path, **{f"r{i}": made_up.fail for i in range(6)})
    with pytest.raises(ValueError, match=r"3 runs failed .* RuntimeError: out of memory"):
        run_node(plan, 1)
    assert not any(read_records(plan.records)) if plan.records.exists() else True


@pytest.mark.slow
def test_a_stop_keeps_what_is_trained_and_the_next_node_goes_on(tmp_path):
    plan = made_up.plan(tmp_path, count=2, r0=made_up.slowly, r1=made_up.slowly)
    run_node(plan, 2, stop=(tmp_path / "steps").exists)
    begun = made_up.steps_taken(tmp_path)
    assert 0 < len(begun) < 2 * made_up.STEPS
    run_node(plan, 2)
    steps = made_up.steps_taken(tmp_path)
    assert len(steps) == len(set(steps)) == 2 * made_up.STEPS


@pytest.mark.slow
def test_data_that_are_not_there_end_the_node_with_their_error(tmp_path):
    plan = made_up.plan(tmp_path)
    object.__setattr__(plan, "open", no_data)
    with pytest.raises(ValueError, match="no such images"):
        run_node(plan, 1)


def no_data():
    raise ValueError("no such images")


@pytest.mark.slow
def test_a_frozen_holder_is_told_and_the_run_is_another_ones(tmp_path):
    """Two nodes on one folder; the only process of the first is frozen beyond its lease."""
    code = (
        "import sys, pathlib; from experiments.runs.node import run_node\n"
        "from tests.experiments.runs import made_up\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "run_node(made_up.plan(folder, count=1, r0=made_up.slowly), 1)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT) as first:
        while not (tmp_path / "steps").exists():
            time.sleep(0.05)
        (worker,) = children(first.pid)
        os.kill(worker, signal.SIGSTOP)
        plan = made_up.plan(tmp_path, count=1, r0=made_up.slowly)
        run_node(plan, 1)
        assert read_records(plan.records).keys() == {"r0"}
        os.kill(worker, signal.SIGCONT)
        assert first.wait(60) == 0
    assert len(read_records(plan.records)) == 1
    written = [file.read_text().count("\n") for file in plan.records.glob("*.jsonl")]
    assert sum(written) == 1


def children(pid):
    """The processes that train, of a node."""
    tasks = Path(f"/proc/{pid}/task")
    found = [int(c) for t in tasks.iterdir() for c in (t / "children").read_text().split()]
    said = {child: Path(f"/proc/{child}/cmdline").read_bytes() for child in found}
    return [child for child, line in said.items() if b"spawn_main" in line]


def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert visible_gpus() == ["2", "5"] and node.default_jobs() == 2
    assert of_slot(1, 2) == {"CUDA_VISIBLE_DEVICES": "5"}
    assert of_slot(2, 3) == {
        "CUDA_VISIBLE_DEVICES": "2",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert of_slot(1, 2) == {} and node.default_jobs() == len(os.sched_getaffinity(0))
