"""The real commands, begun as a user begins them."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
PATIENT = 300  # seconds, on any machine


def arguments(*told):
    return [sys.executable, "-m", "experiments", *map(str, told)]


@contextlib.contextmanager
def begun(*told, before=(), **environment):
    """The command, in a group of processes of its own."""
    with subprocess.Popen(
        [*before, *arguments(*told)],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def done(*told, status=0, before=(), **environment):
    """What the command says, which ends with this status."""
    with begun(*told, before=before, **environment) as process:
        said = process.communicate(timeout=PATIENT)[0]
    assert process.returncode == status, said
    return said


def wait_until(true, process=None):
    deadline = time.monotonic() + PATIENT
    while not true():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None, process.stdout.read()
        time.sleep(0.02)


def is_gone(group):
    """Whether no process of a group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False
