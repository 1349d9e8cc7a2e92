"""A method whose runs end their process, as where memory runs out."""

import multiprocessing
import os
import signal

import disam_jax as dj


def poison(rho: float = 0.05):
    if multiprocessing.parent_process() is not None:  # where it is trained, not planned
        os.kill(os.getpid(), signal.SIGKILL)
    return dj.sam(rho)
