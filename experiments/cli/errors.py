"""Errors that are the user's to mend are told in a line; others keep their traceback."""

import dis
import types
from collections.abc import Iterator

from experiments.training.metrics import RunDivergedError

OURS = ("experiments", "disam_jax")


def mendable(error: Exception) -> str | None:
    """What to tell the user of an error, or None where the fault is not the user's.

    The user's are a run that diverged, what the system says of a file, and a ValueError
    that a line of this project raises: every one of these names what was found and the
    mend. A ValueError that falls out of another package, or out of Python, is our fault.
    """
    if isinstance(error, RunDivergedError):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, ValueError) and _is_raised_by_us(error):
        return str(error)
    return None


def _is_raised_by_us(error: Exception) -> bool:
    steps = list(_steps(error.__traceback__))
    if not steps:
        return False
    code, last = steps[-1].tb_frame.f_code, steps[-1].tb_lasti
    package = steps[-1].tb_frame.f_globals.get("__name__", "").partition(".")[0]
    return package in OURS and dis.opname[code.co_code[last]] == "RAISE_VARARGS"


def _steps(step: types.TracebackType | None) -> Iterator[types.TracebackType]:
    while step is not None:
        yield step
        step = step.tb_next
