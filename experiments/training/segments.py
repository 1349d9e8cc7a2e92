"""SWAD's averages of a run's weights, one per segment between two evaluations.

segments/000300.npz holds the mean over the steps since the evaluation before.
"""

import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.devices import Layout
from experiments.files import writing
from experiments.training.step import TrainState
from experiments.training.swad import loss_valley, running_mean, segments_needed

take_in = jax.jit(running_mean, donate_argnums=0)

Lines = list[dict[str, Any]]


class Segments:
    """Averages the weights while a run goes on, and keeps what may still be needed.

    With live BatchNorm the running statistics are averaged like the weights; SWAD's
    release passes over training data again instead, and freezes them by default.

    Args:
      path: the folder of the run.
      layout: of the run.
    """

    def __init__(self, path: Path, layout: Layout) -> None:
        self._folder = path / "segments"
        self._layout = layout
        self._mean: Any = None
        self._count = 0

    def add(self, state: TrainState) -> None:
        """Takes in the weights after one more step."""
        if self._mean is None:
            self._mean = jax.tree.map(jnp.zeros_like, _weights(state))
        self._mean = take_in(self._mean, _weights(state), self._count)
        self._count += 1

    def end(self, step: int, lines: Lines) -> None:
        """Keeps the segment that ends at `step`, and drops those no longer needed.

        Args:
          step: of the evaluation just made.
          lines: the metrics so far, that evaluation included.
        """
        leaves = jax.tree.leaves(self._layout.whole(self._mean))
        self._mean, self._count = None, 0
        if self._layout.writes:
            self._write(step, leaves)
            steps, losses = _validation(lines)
            needed = {steps[k] for k in segments_needed(losses)}
            for old in steps:
                if old not in needed:
                    self._file(old).unlink(missing_ok=True)
        self._layout.wait(f"segment {step} was written")

    def _write(self, step: int, leaves: list[np.ndarray]) -> None:
        with writing(self._file(step)) as file:
            np.savez(file, *leaves)

    def average_over_valley(self, lines: Lines, state: TrainState) -> TrainState:
        """The state with the weights averaged over the loss valley.

        Args:
          lines: the metrics of the whole run.
          state: the last one.

        Returns:
          The state to evaluate.
        """
        steps, losses = _validation(lines)
        weights = _weights(state)
        mean = jax.tree.map(jnp.zeros_like, weights)
        for count, k in enumerate(loss_valley(losses)):
            with np.load(self._file(steps[k])) as file:
                leaves = [file[name] for name in file.files]
            segment = jax.tree.unflatten(jax.tree.structure(weights), leaves)
            placed = jax.tree.map(lambda leaf: leaf.sharding, weights)
            mean = take_in(mean, self._layout.put(segment, placed), count)
        return state._replace(params=mean[0], batch_stats=mean[1])

    def remove(self) -> None:
        """Deletes the segments of a run that is finished."""
        if self._layout.writes:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _file(self, step: int) -> Path:
        return self._folder / f"{step:06d}.npz"


def _weights(state: TrainState) -> tuple[Any, Any]:
    return state.params, state.batch_stats


def _validation(lines: Lines) -> tuple[list[int], list[float]]:
    """The steps of the evaluations and the source domains' validation losses there."""
    found = [line for line in lines if line["kind"] == "evaluation"]
    return [line["step"] for line in found], [line["in_domain_loss"] for line in found]
