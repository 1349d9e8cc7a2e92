"""Ctrl-C and TERM end the program at once, whatever it is at, unless it asks to be told."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

SHOW_CURSOR = b"\x1b[?25h"  # progress bars hide it
ENDING = (signal.SIGINT, signal.SIGTERM)
STOPPING = (*ENDING, signal.SIGUSR2)  # the last one is SLURM's, before it preempts

_asked: list["Told"] = []  # who wants to be told first


class Told:
    """Whether this process was told to stop, and by which signal."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self) -> bool:
        """Whether to stop."""
        return self.number != 0


def end_at_once() -> None:
    """Makes Ctrl-C and TERM end the process without taking leave.

    That loses nothing: what is finished is on the disk, and no file is there in part.
    Exceptions in their place would reach the threads that write a checkpoint, and Python
    raises none before a compiler that may work for minutes has returned; a thread that
    the system tells of the signal needs to wait for neither.
    """
    told, telling = os.pipe()
    os.set_blocking(telling, False)
    signal.set_wakeup_fd(telling, warn_on_full_buffer=False)
    for number in ENDING:
        # Also where a script started it with `&`, and so told it to ignore Ctrl-C.
        signal.signal(number, lambda number, frame: None)
    threading.Thread(target=_listen, args=(told,), daemon=True).start()


@contextlib.contextmanager
def stopping_first() -> Iterator[Told]:
    """In the block the first signal, USR2 too, asks to stop; another one ends at once."""
    told = Told()
    before = signal.signal(signal.SIGUSR2, lambda number, frame: None)
    _asked.append(told)
    try:
        yield told
    finally:
        _asked.remove(told)
        signal.signal(signal.SIGUSR2, before)


def _listen(told: int) -> None:
    while True:
        (number,) = os.read(told, 1)
        if number in STOPPING and _asked and not _asked[-1]():
            _asked[-1].number = number
            _say(number, "stopping; what is trained is being kept. Again ends at once.")
        elif number in ENDING:
            _say(number, "ended. The same command goes on from there.")
            os._exit(128 + number)


def _say(number: int, what: str) -> None:
    with contextlib.suppress(OSError):  # e.g. of a pipe that nobody reads
        os.set_blocking(2, False)
        if sys.stderr.isatty():
            os.write(2, SHOW_CURSOR)
        os.write(2, f"\n{signal.Signals(number).name}: {what}\n".encode())
