"""Processes that train for this one, and end with it."""

import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import Any


def work_in_processes(
    work: Callable[..., None],
    tasks: Iterable[tuple[Any, ...]],
    jobs: int,
    report: Callable[[], None],
) -> None:
    """Calls `work(*task)` for every task in `jobs` processes, and `report` now and then.

    Raises:
      ValueError: a process was killed.
    """
    with workers(jobs) as pool:
        with _without_ctrl_c():
            waiting = {pool.submit(work, *task) for task in tasks}
            # A submit wakes the pool before it begins a process, whose death the pool then
            # may not wait for. Woken once more it waits for the process begun last, too.
            pool.submit(int)
        while waiting:
            done, waiting = concurrent.futures.wait(
                waiting, 2, concurrent.futures.FIRST_COMPLETED
            )
            for future in done:
                future.result()
            report()


@contextlib.contextmanager
def workers(jobs: int) -> Iterator[concurrent.futures.ProcessPoolExecutor]:
    """Processes that work for this one, and end with the block or with this process.

    An error ends them at once: what they are at is lost, what they have kept is whole, and
    nothing that waits is begun.
    """
    before = set(multiprocessing.active_children())
    # Spawned: a forked process would share the threads of the compiler.
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(
        jobs, context, initializer=_end_with_parent
    )
    try:
        yield pool
    except BaseException as error:
        for worker in set(multiprocessing.active_children()) - before:
            worker.kill()
        pool.shutdown(wait=False, cancel_futures=True)
        if isinstance(error, BrokenProcessPool):
            raise ValueError(
                "a process that trained was killed, as the system does when memory runs "
                "out; ask for fewer --jobs. What was finished is kept."
            ) from None
        raise
    pool.shutdown()


@contextlib.contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """The processes that are begun in the block do not hear Ctrl-C.

    A terminal sends it to all of them; this one acts on it, and they end with this one.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _end_with_parent() -> None:
    """Ends this process when the one that began it is gone, even by SIGKILL."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
