"""From the command line's options to a layout: devices, and other processes."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from experiments.cli.console import stderr, tell
from experiments.cli.options import Machines
from experiments.devices import PARAMETERS, Layout, all_devices
from experiments.fields import check_known
from experiments.files import locked
from experiments.training.metrics import RunDivergedError

ONE_FAILED = 3  # exit status


def start(machines: Machines) -> Layout:
    """Joins the other processes, where there are any, and takes the devices.

    Returns:
      The layout.

    Raises:
      ValueError: an option cannot be, or one of several that belong together is missing.
    """
    check_known("parameters", machines.parameters, PARAMETERS)
    named = {
        "coordinator": machines.coordinator,
        "processes": machines.processes,
        "process": machines.process,
    }
    given = [name for name, value in named.items() if value is not None]
    if given and len(given) < len(named):
        missing = ", ".join(f"--{name}" for name in named if name not in given)
        raise ValueError(f"--{given[0]} needs {missing} beside it.")
    if given or machines.distributed:
        jax.distributed.initialize(*named.values())
        # It has taken TERM, to tell of a preemption those who ask; nobody asks here.
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
    layout = all_devices(machines.devices, machines.parameters)
    # Now, while they are together: devices that meet for the first time wait 30 s at most.
    layout.wait("all processes have come")
    return layout


def fit(layout: Layout, machines: Machines, size: int) -> Layout:
    """The layout for batches of that size, and a line about devices left idle.

    One process that was not told how many devices to take leaves out those that cannot
    have as many examples as the others.
    """
    if machines.devices is not None or layout.process_count > 1:
        return layout
    taken = layout.dividing(size)
    if len(taken.devices) < len(layout.devices):
        stderr.print(
            f"A batch of {size} examples takes {len(taken.devices)} of the "
            f"{len(layout.devices)} devices."
        )
    return taken


def writer_first(layout: Layout, call: Callable[[], Any]) -> Any:
    """What `call` returns; the process that writes makes it first, then the others do."""
    with all_or_none(layout):
        found = call() if layout.writes else None
        layout.wait("the first has been here")
        return found if layout.writes else call()


def alone(layout: Layout, out: Path) -> contextlib.AbstractContextManager:
    """Holds the folder for this command, in the process that writes."""
    if layout.writes:
        return locked(out, wait=False, what="training")
    return contextlib.nullcontext()


@contextlib.contextmanager
def all_or_none(layout: Layout) -> Iterator[None]:
    """Of several processes none goes on, or waits, when one has failed.

    A process that fails, or sees that another one is gone, says so and ends at once:
    Python's and JAX's leave-taking would wait for the others. A run that diverges does so
    on all of them, and ends as on one.
    """
    try:
        yield
    except Exception as error:
        if layout.process_count == 1 or isinstance(error, RunDivergedError):
            raise
        first_line = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        tell(
            "error",
            f"one of the {layout.process_count} processes has failed or cannot be reached; "
            f"process {jax.process_index()} saw: {first_line}. What was finished and the "
            "last checkpoint are kept: the same command, on all of them, goes on from "
            "there.",
            "red",
        )
        os._exit(ONE_FAILED)
