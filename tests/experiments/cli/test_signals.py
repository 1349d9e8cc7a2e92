"""Ctrl-C, TERM and SIGKILL, sent to the real commands."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from experiments.runs.records import read_records
from experiments.training.metrics import read_metrics
from tests.commands import PATIENT, ROOT, begun, is_gone, wait_until

TINY = ("--batch-size", "4", "--log-every", "2", "--checkpoint-every", "2")

pytestmark = pytest.mark.slow


def said_at_its_end(process):
    """All that was said; it comes when no process is left that could say more."""
    return process.communicate(timeout=PATIENT)[0]


@pytest.mark.parametrize(
    ("number", "whole_group", "status"),
    [
        (signal.SIGINT, True, 130),  # Ctrl-C, which a terminal sends to all of them
        (signal.SIGTERM, False, 143),
        (signal.SIGKILL, False, -9),
    ],
)
def test_a_study_of_several_processes_leaves_none(tmp_path, number, whole_group, status):
    runs = tmp_path / "runs"
    what = ("convergence", "--data", "rotated_digits", "--gradients", 40, "--seeds", 2)
    where = ("--jobs", 2, "--out", tmp_path / "out", "--runs", runs)
    with begun("study", *what, *where) as process:
        wait_until(lambda: read_records(runs / "records"), process)
        (os.killpg if whole_group else os.kill)(process.pid, number)
        assert process.wait(60) == status
        said = said_at_its_end(process)
        wait_until(lambda: is_gone(process.pid))
        assert 0 < len(read_records(runs / "records")) < 48  # of what was queued
        assert "Traceback" not in said and "error" not in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_told_to_end_goes_on_later(tmp_path, number):
    what = ("train", "--data", "rotated_digits", "--method", "sam", *TINY)
    with begun(*what, "--steps", 100_000, "--out", tmp_path) as process:
        wait_until(lambda: len(read_metrics(tmp_path)) > 3, process)
        process.send_signal(number)
        assert process.wait(60) == 128 + number
        said = said_at_its_end(process)
        assert f"\n{number.name}: ended. The same command goes on" in said
        assert "Traceback" not in said
    done = len(read_metrics(tmp_path))
    with begun(*what, "--steps", 100_000, "--out", tmp_path) as process:
        wait_until(lambda: len(read_metrics(tmp_path)) > done, process)


def test_a_run_of_several_processes_ends_too(tmp_path):
    """Though JAX takes TERM to itself there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meet = ("--coordinator", f"127.0.0.1:{free.getsockname()[1]}", "--processes", 2)
    what = ("train", "--data", "rotated_digits", "--method", "erm", *TINY, *meet)
    told = (*what, "--steps", 100_000, "--out", tmp_path)
    with begun(*told, "--process", 0) as one, begun(*told, "--process", 1) as other:
        wait_until(lambda: len(read_metrics(tmp_path)) > 3, one)
        for process in (one, other):
            process.send_signal(signal.SIGTERM)
        assert one.wait(60) == 143
        assert other.wait(60) != 0  # 143 too, unless it saw first that the other is gone


def test_a_second_comparison_of_one_folder_is_refused_in_a_line(tmp_path):
    what = ("compare", "--data", "rotated_digits", "--methods", "sam", "--unseen", "0")
    told = (*what, *TINY, "--steps", 100_000, "--out", tmp_path)
    with begun(*told) as first:
        # Of any seed: a node begins anywhere in its plan.
        runs = tmp_path / "runs/sam/0"
        wait_until(lambda: any(len(read_metrics(r)) > 3 for r in runs.glob("*")), first)
        with begun(*told) as second:
            assert second.wait(PATIENT) == 2
            (line,) = said_at_its_end(second).splitlines()
        assert line.startswith(f"error: {tmp_path} is taken: process {first.pid} on ")
        assert "experiments compare" in line and "is training there since" in line
        assert first.poll() is None


def test_a_process_that_python_cannot_reach_ends_all_the_same():
    """As while it compiles; here it is in a call of C's that goes on after a signal."""
    code = (
        "import ctypes, os, threading, signal\n"
        "from experiments.cli import signals\n"
        "signals.end_at_once()\n"
        "kill = lambda: os.kill(os.getpid(), signal.SIGTERM)\n"
        "threading.Timer(0.5, kill).start()\n"
        "signal.siginterrupt(signal.SIGTERM, False)\n"
        "ctypes.CDLL(None).read(os.pipe()[0], ctypes.create_string_buffer(1), 1)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=PATIENT)
    assert ended.returncode == 128 + signal.SIGTERM
