"""Nodes as jobs of SLURM: one array, whose jobs are requeued when they are preempted.

submitit writes the batch script, and requeues a job that is told that it ends soon.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from submitit import SlurmExecutor
from submitit.core.utils import FailedJobError
from submitit.helpers import DelayedSubmission

from experiments.fields import digest

# What submitit acts on itself; all other options are for sbatch, which knows them.
NUMBERS = {"time": 60, "signal_delay_s": 120, "array_parallelism": 1000}
# Of these there is one choice: a job is a node, and is found again by its name.
FIXED = ("job_name", "nodes", "ntasks", "ntasks_per_node", "array", "signal", "requeue")
# How a node ends that was told to stop, also before it could listen.
STOPPED = {s for n in (signal.SIGTERM, signal.SIGUSR2) for s in (-n, 128 + n)}


class Node:
    """A node in a job: runs its command, and tells it when the job ends soon."""

    def __init__(self, command: list[str]) -> None:
        self.command = command
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> None:
        """Runs the command to its end."""
        self._process = subprocess.Popen(self.command)
        status = self._process.wait()
        if status in STOPPED:
            # By SLURM itself, which requeues a job that it ends, and not one that ends
            # before.
            time.sleep(NUMBERS["signal_delay_s"])
        if status:
            raise subprocess.CalledProcessError(status, self.command)

    def checkpoint(self) -> DelayedSubmission:
        """Stops the command, which saves its runs; returns what the requeued job does."""
        if self._process is not None:
            # As SLURM may have done: told so twice, a node still saves its runs.
            self._process.send_signal(signal.SIGUSR2)
            # Not `wait`, whose lock the call that this interrupts may hold.
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        return DelayedSubmission(Node(self.command))


def start(
    folder: Path, nodes: int, command: list[str], options: Mapping[str, str]
) -> tuple[int, int]:
    """Submits what a sweep lacks of its nodes, and waits for none.

    Args:
      folder: of the sweep, on a disk that all machines share.
      nodes: how many shall wait or run.
      command: of a node. It ends by itself when nothing is left; told TERM or USR2, it
        keeps what it trains and ends.
      options: of sbatch, e.g. `{"partition": "gpu", "time": "720"}`, in minutes; those
        without a value have "".

    Returns:
      How many there were, and how many were submitted.

    Raises:
      ValueError: SLURM is not here, or refuses; an option has no such value.
    """
    parameters = executor_parameters(options)
    if shutil.which("sbatch") is None:
        raise ValueError("There is no sbatch in PATH; --on slurm is for a SLURM cluster.")
    name = job_name(folder)
    there = count_jobs(name)
    missing = max(0, nodes - there)
    if missing:
        # submitit counts what a time limit ends, and stops at a number: here, at none.
        executor = SlurmExecutor(folder=folder.resolve() / "slurm", max_num_timeout=10**6)
        executor.update_parameters(job_name=name, stderr_to_stdout=True, **parameters)
        try:
            executor.submit_array([Node(command) for _ in range(missing)])
        except FailedJobError as error:
            raise ValueError(f"sbatch refused: {error}") from None
    return there, missing


def executor_parameters(options: Mapping[str, str]) -> dict[str, Any]:
    """Options in submitit's form: numbers of its own, and the rest of sbatch.

    Raises:
      ValueError: a number is none, or the option is not the user's to choose.
    """
    numbers, rest = dict(NUMBERS), {}
    for name, value in options.items():
        key = name.strip().removeprefix("--").replace("-", "_")
        if key in FIXED:
            raise ValueError(f"--slurm {name}: sweeps set this themselves; leave it out.")
        if key not in NUMBERS:
            rest[key] = value or True
        elif value.isdecimal() and int(value) > 0:
            numbers[key] = int(value)
        else:
            raise ValueError(f"--slurm {name}={value}: this must be a whole number.")
    return {**numbers, "additional_parameters": {**rest, "requeue": True}}


def job_name(folder: Path) -> str:
    """Of the nodes of the sweep in a folder."""
    return f"sweep-{digest(str(folder.resolve()), 12)}"


def count_jobs(name: str) -> int:
    """How many of this name wait or run; each of an array counts."""
    query = ["squeue", "--noheader", "--array", f"--name={name}", "--format=%i"]
    done = subprocess.run(query, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"squeue refused: {done.stderr.strip()}")
    return len(done.stdout.split())
