"""Ctrl-C and TERM end the program within seconds, whatever it is at."""

import os
import signal
import sys
import threading
import time

PATIENCE = 5.0  # seconds to take leave in


def end_within_seconds() -> None:
    """Makes TERM an exit like Ctrl-C, and both of them sure.

    Python comes to its handlers between two of its own instructions, and compiling a
    model may take minutes without one. The process then ends without taking leave, which
    loses nothing: what is finished is on the disk, and no file is there in part.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    told, telling = os.pipe()
    os.set_blocking(telling, False)
    signal.set_wakeup_fd(telling, warn_on_full_buffer=False)
    threading.Thread(target=_insist, args=(told,), daemon=True).start()


def _insist(told: int) -> None:
    number = 0
    while number not in (signal.SIGINT, signal.SIGTERM):
        (number,) = os.read(told, 1)
    time.sleep(PATIENCE)
    os._exit(128 + number)
