"""Ctrl-C and TERM end the program at once, whatever it is at."""

import contextlib
import os
import signal
import sys
import threading

SHOW_CURSOR = b"\x1b[?25h"  # progress bars hide it


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
    for number in (signal.SIGINT, signal.SIGTERM):
        # Also where a script started it with `&`, and so told it to ignore Ctrl-C.
        signal.signal(number, lambda number, frame: None)
    threading.Thread(target=_end_when_told, args=(told,), daemon=True).start()


def _end_when_told(told: int) -> None:
    number = 0
    while number not in (signal.SIGINT, signal.SIGTERM):
        (number,) = os.read(told, 1)
    with contextlib.suppress(OSError):  # e.g. of a pipe that nobody reads
        os.set_blocking(2, False)
        if sys.stderr.isatty():
            os.write(2, SHOW_CURSOR)
        name = signal.Signals(number).name
        os.write(2, f"\n{name}: ended. The same command goes on from there.\n".encode())
    os._exit(128 + number)
