"""A node: a supervisor and the processes that train for it, on one machine."""

import contextlib
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from experiments.runs.compiled import keep_compiled
from experiments.runs.cores import usable_cores
from experiments.runs.plan import Plan
from experiments.runs.records import Records, node_name
from experiments.runs.worker import RunFailedError, work
from experiments.training.numerics import environment

LOOK = 1.0  # seconds between two looks at the processes
MOST_IN_A_ROW = 3  # that fail before one succeeds: then it is not the runs, it is the node
# Spawned: a forked process would share the threads of the compiler.
SPAWN = multiprocessing.get_context("spawn")
GOLDEN = (5**0.5 - 1) / 2  # of a circle: as many such steps as you like keep apart


def run_node(
    plan: Plan,
    jobs: int,
    stop: Callable[[], bool] = lambda: False,
    watch: Callable[[], None] = lambda: None,
) -> None:
    """Trains a plan's runs in so many processes, beside what other nodes train of it.

    A process that dies is replaced; its run goes on from its last checkpoint.

    Args:
      plan: of the runs.
      jobs: processes that train at once.
      stop: whether to stop; what is being trained is kept as it stands.
      watch: called now and then.

    Returns:
      When all runs ended, here or elsewhere, or it was to stop.

    Raises:
      ValueError: nothing can be trained here, with the reason.
      OSError: a file cannot be written.
    """
    records = Records(plan.records)
    records.refresh()
    missing = len(plan.runs.keys() - records.heads.keys())
    if missing:
        _Node(plan, min(jobs, missing)).run(stop, watch)
    watch()
    _remove_what_is_left(plan, records)


def _remove_what_is_left(plan: Plan, records: Records) -> None:
    """The folders of runs whose process was killed after it had kept their record."""
    records.refresh()
    for folder in (plan.folder / "runs").glob("*/*"):
        if folder.name in records.heads and not plan.keeps_folders:
            shutil.rmtree(folder, ignore_errors=True)


class _Process:
    """A process that trains, and what it has told."""

    def __init__(self, plan: Plan, log: Path, slot: int, jobs: int, begin: float) -> None:
        self.slot = slot
        self.told, telling = SPAWN.Pipe(duplex=False)
        args = plan, log, telling, begin
        self.process = SPAWN.Process(target=_work, args=args, daemon=True)
        with _without_ctrl_c(), _changed(os.environ, of_slot(slot, jobs)):
            self.process.start()
        telling.close()

    def messages(self) -> Iterator[tuple[str, Any]]:
        """What it has told since."""
        with contextlib.suppress(EOFError, OSError):
            while self.told.poll():
                yield self.told.recv()


class _Node:
    """The processes of a plan on this machine."""

    def __init__(self, plan: Plan, jobs: int) -> None:
        self._plan = plan
        self._jobs = jobs
        self._log = plan.logs / f"{node_name()}.log"
        self._failed: dict[str, str] = {}  # since the last run that ended: id -> why
        self._stillborn = 0
        # Anywhere, for other nodes may work on the plan.
        self._at = random.SystemRandom().random()

    def run(self, stop: Callable[[], bool], watch: Callable[[], None]) -> None:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        processes = [self._begin(slot) for slot in range(self._jobs)]
        stopping = False
        try:
            while processes:
                wait([p.process.sentinel for p in processes], LOOK)
                if stop() and not stopping:
                    stopping = True
                    for each in processes:
                        each.process.terminate()
                processes = [
                    kept for each in processes if (kept := self._look(each, stopping))
                ]
                watch()
        except BaseException:
            for each in processes:
                each.process.kill()
            raise

    def _begin(self, slot: int) -> _Process:
        # Far from where any before it began, that of the process in whose place it is too.
        self._at = (self._at + GOLDEN) % 1
        return _Process(self._plan, self._log, slot, self._jobs, self._at)

    def _look(self, each: _Process, stopping: bool) -> _Process | None:
        """The process, or the one in its place; None where no more is to do."""
        ended = each.process.exitcode is not None  # before its last words are read
        for kind, what in each.messages():
            self._hear(kind, what)
        if not ended:
            return each
        status = each.process.exitcode
        if status == 0 or stopping:
            return None
        how = f"by signal {-status}" if status and status < 0 else f"with status {status}"
        _write(self._log, f"a process ended {how}; another begins")
        self._stillborn += 1
        if self._stillborn > MOST_IN_A_ROW:
            raise ValueError(
                f"{self._stillborn} processes ended one after another before they could "
                f"train, the last one {how}; {self._log} says more. Too many --jobs for "
                "the memory end this way."
            )
        return self._begin(each.slot)

    def _hear(self, kind: str, what: Any) -> None:
        if kind == "begun":
            self._stillborn = 0
        elif kind == "ended":
            self._failed.clear()
        elif kind == "failed":
            self._failed[what[0]] = what[1]
            if len(self._failed) >= MOST_IN_A_ROW:
                raise ValueError(
                    f"{len(self._failed)} runs failed one after another, the last one "
                    f"with {what[1]}; {self._log} says more. What was finished is kept."
                )
        else:
            raise what


def _work(plan: Plan, log: Path, telling: Connection, begin: float) -> None:
    """What a process of a node does."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, lambda number, frame: stopping.set())
    _end_with_parent()
    _speak_into(log)

    def tell(line: str) -> None:
        _write(log, line)
        kind = line.partition(" ")[0]
        if kind == "start":
            telling.send(("begun", None))
        elif kind not in ("stop", "lost"):
            telling.send(("ended", None))

    try:
        keep_compiled(plan.folder / "compiled")
        _write(log, f"environment {environment()}")
        work(plan, stopping.is_set, tell, begin)
    except RunFailedError as error:
        traceback.print_exc()
        telling.send(("failed", error.args))
        sys.exit(1)
    except (OSError, ValueError) as error:
        telling.send(("error", error))
        sys.exit(2)


def of_slot(slot: int, jobs: int) -> dict[str, str]:
    """The environment of a node's process: one GPU each, where there are any."""
    devices = visible_gpus()
    if not devices:
        return {}
    own = {"CUDA_VISIBLE_DEVICES": devices[slot % len(devices)]}
    if jobs > len(devices):  # several share one; none takes most of its memory at once
        own["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    return own


def default_jobs() -> int:
    """A process for each GPU, or for each core that this one may use.

    A process is not bound to its core: the last digits of a sum depend on how many there
    are, and a run shall not depend on how many others are trained beside it.
    """
    return len(visible_gpus()) or usable_cores()


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, found without taking one of them."""
    if os.environ.get("JAX_PLATFORMS", "cuda").split(",")[0] not in ("cuda", "gpu"):
        return []
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    if told is not None:
        return [name for name in told.split(",") if name and name != "-1"]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    count = sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
    return [str(i) for i in range(count)]


def leaving_memory() -> contextlib.AbstractContextManager[None]:
    """In the block JAX finds devices and leaves their memory to a node's processes."""
    return _changed(os.environ, {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"})


@contextlib.contextmanager
def _changed(environ: Any, values: Mapping[str, str]) -> Iterator[None]:
    """The environment with values, for a process that is begun in the block."""
    before = {name: environ.get(name) for name in values}
    environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del environ[name]
            else:
                environ[name] = value


@contextlib.contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """The processes that are begun in the block do not hear Ctrl-C.

    A terminal sends it to all of them; the node acts on it, and tells them.
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


def _speak_into(log: Path) -> None:
    """What the process prints, warnings and tracebacks too, goes into the node's log."""
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def _write(log: Path, line: str) -> None:
    with log.open("a") as file:
        file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {line}\n")
