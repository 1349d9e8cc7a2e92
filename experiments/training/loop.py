"""The training loop, and one run from its config to its record."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

import disam_jax as dj
from experiments.config.run import RunConfig
from experiments.data import DomainData
from experiments.data.prepare import Prepared
from experiments.devices import Layout, one_device
from experiments.training.parts import unseen_positions
from experiments.training.program import TrainState
from experiments.training.run import Run
from experiments.training.run_folder import RunFolder, claimed
from experiments.training.step import compile_step

Progress = Callable[[int, dict[str, Any]], None]


def unwatched(step: int, line: dict[str, Any]) -> None:
    """Nobody is told how far a run is."""


def never() -> bool:
    """Nothing asks a run to stop."""
    return False


def train(
    config: RunConfig,
    data: DomainData | Prepared,
    path: Path,
    progress: Progress = unwatched,
    layout: Layout | None = None,
) -> dict[str, Any]:
    """Runs `config` in the folder `path`, from where it was left if it was begun.

    A run that was killed at any moment goes on with the same call and ends with the same
    bits: batches are functions of (seed, step), and what was logged after the checkpoint
    is measured again.

    Args:
      config: of the run.
      data: that the config names, with images of the preset's size if held in memory.
      path: its folder.
      progress: called with (steps done, last metrics line) after every logged window.
      layout: its devices; None is one. Of several processes all must make this call, and
        share the folder.

    Returns:
      The record: what was run, accuracies as fractions, seconds per step.

    Raises:
      ValueError: the unseen domain is not one of the data set's, or the folder holds a
        run of another config, or the devices do not divide a batch.
      RunDivergedError: a loss or gradient is not finite; the last good checkpoint is kept.
    """
    unseen_positions(config, data)
    with contextlib.closing(RunFolder(path, config, layout or one_device())) as folder:
        record = train_in(folder, data, progress)
    assert record is not None  # nothing stops it
    return record


def train_claimed(
    config: RunConfig, data: DomainData | Prepared, path: Path, stop: Callable[[], bool]
) -> dict[str, Any] | None:
    """Trains a run whose folder a claim guards, until it is to stop; see `train_in`."""
    opened = RunFolder(path, config, one_device(), guard=claimed)
    with contextlib.closing(opened) as folder:
        return train_in(folder, data, stop=stop)


def train_in(
    folder: RunFolder,
    data: DomainData | Prepared,
    progress: Progress = unwatched,
    stop: Callable[[], bool] = never,
) -> dict[str, Any] | None:
    """Trains the run of an open folder, to its end or until it is to stop; see `train`.

    Args:
      folder: of the run.
      data: that its config names.
      progress: called with (steps done, last metrics line) after every logged window.
      stop: asked then whether to leave the run there; the same call goes on from that
        step, with SWAD from the last checkpoint. Of several processes all must be told
        the same. Where it raises, nothing more is kept.

    Returns:
      The record; None where the run was stopped before its end.
    """
    record = folder.result()
    if record is None:
        with contextlib.closing(Run(folder.config, data, folder, folder.layout)) as run:
            if take_steps(run, progress, stop):
                record = run.finish()
    return record


def take_steps(run: Run, progress: Progress, stop: Callable[[], bool] = never) -> bool:
    """Takes the steps that a run has still to take; False where it was stopped before."""
    train_step = compile_step(run.program, run.layout)
    batches = run.feed.batches(run.done)

    def step(state: TrainState) -> tuple[TrainState, dj.Evaluation]:
        state, evaluation = train_step(run.numbers, run.frozen, state, next(batches))
        if run.segments:
            run.segments.add(state)
        return state, evaluation

    for size, end in windows(run.done, run.config.logged_steps):
        started = time.perf_counter()
        run.state, evaluations = take_window(step, run.state, size)
        line = run.log_window(evaluations, time.perf_counter() - started)
        if run.config.is_checkpoint(end):
            run.checkpoint()
        progress(run.done, line)
        if stop():
            run.keep()
            return False
    return True


def windows(done: int, stops: Iterable[int]) -> Iterator[tuple[int, int]]:
    """The windows of a run that has `done` steps: from stop to stop, (size, stop)."""
    for stop in sorted(stops):
        if stop > done:
            yield stop - done, stop
            done = stop


def take_window(
    step: Callable[[Any], tuple[Any, dj.Evaluation]], state: Any, size: int
) -> tuple[Any, list[dj.Evaluation]]:
    """Takes `size` steps; returns the state and what the steps saw, on the host."""
    evaluations = []
    for _ in range(size):
        state, evaluation = step(state)
        evaluations.append(evaluation)
    # On a CPU they are there: to ask for each of them takes longer than a small step.
    there = jax.default_backend() == "cpu"
    return state, (
        jax.tree.map(np.asarray, evaluations) if there else jax.device_get(evaluations)
    )
