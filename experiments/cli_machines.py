"""From the command line's options to a layout: devices, and other processes."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import jax
from rich.console import Console

from experiments.fields import check_known
from experiments.layout import PARAMETERS, Layout, all_devices

LOST_PROCESS = 3  # exit status


def start(machines: dict[str, Any]) -> Layout:
    """Joins the other processes, where there are any, and takes the devices.

    Args:
      machines: the options of `Machines`.

    Returns:
      The layout.

    Raises:
      ValueError: an option cannot be, or one of several that belong together is missing.
    """
    parameters = machines["parameters"] or "replicated"
    check_known("parameters", parameters, PARAMETERS)
    named = {name: machines[name] for name in ("coordinator", "processes", "process")}
    given = [name for name, value in named.items() if value is not None]
    if given and len(given) < len(named):
        missing = ", ".join(f"--{name}" for name in named if name not in given)
        raise ValueError(f"--{given[0]} needs {missing} beside it.")
    if given:
        jax.distributed.initialize(
            machines["coordinator"], machines["processes"], machines["process"]
        )
    elif machines["distributed"]:
        jax.distributed.initialize()
    return all_devices(machines["devices"], parameters)


@contextlib.contextmanager
def lost_processes_named(layout: Layout) -> Iterator[None]:
    """Ends this process with one clear line when another one has ended before its time.

    At once, without Python's or JAX's leave-taking, which would wait for the lost one.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, RuntimeError, ValueError) as error:
        if layout.process_count == 1 or not isinstance(error, jax.errors.JaxRuntimeError):
            raise
        first_line = str(error).splitlines()[0]
        Console(stderr=True).print(
            f"[red]error:[/red] another of the {layout.process_count} processes has ended "
            f"or cannot be reached ({first_line}). What was finished and the last "
            "checkpoint are kept: the same command, on all of them, goes on from there.",
            highlight=False,
        )
        os._exit(LOST_PROCESS)
