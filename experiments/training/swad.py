"""SWAD: which weights of a run to average (Cha et al., NeurIPS 2021).

A run is cut into segments by its evaluations; segment k is all steps between evaluation
k - 1 and k, and its weights are averaged as they pass. LossValley looks at the validation
losses and says which segments make the final model. In the folder of a run,
segments/000300.npz holds the mean over the steps since the evaluation before.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.devices import Layout
from experiments.files import writing
from experiments.training.program import TrainState

Lines = list[dict[str, Any]]

N_CONVERGE = 3  # evaluations without a lower loss: converged
N_TOLERANCE = 6  # evaluations that may be above the threshold before the valley ends
TOLERANCE_RATIO = 0.3  # the threshold is this much above the loss at convergence


def loss_valley(
    losses: Sequence[float],
    n_converge: int = N_CONVERGE,
    n_tolerance: int = N_TOLERANCE,
    tolerance_ratio: float = TOLERANCE_RATIO,
) -> list[int]:
    """The segments whose mean is SWAD's model, as its release chooses them.

    The valley begins at the first loss c that none of the n_converge - 1 next is below. The
    threshold is the mean of these n_converge losses, times 1 + tolerance_ratio. It ends
    before n_tolerance losses in a row lie above that.

    Args:
      losses: validation loss at each evaluation.
      n_converge: at least 1.
      n_tolerance: at least 1.
      tolerance_ratio: >= 0.

    Returns:
      Segments, each with weight 1 every time it is named: the release takes some near c
      twice, once when it looks back from the moment it knows of the convergence and once
      when its window comes by. The last segment alone where the losses never converge.

    References:
      Cha et al., NeurIPS 2021, algorithm 1; class LossValley of the release, whose window
      also reaches up to n_tolerance - n_converge segments back before c.
    """
    last = len(losses) - 1
    c = _convergence(losses, n_converge)
    if c is None:
        return [last] if losses else []
    known = c + n_converge - 1
    threshold = float(np.mean(losses[c : known + 1])) * (1.0 + tolerance_ratio)
    chosen = _looking_back(losses, c, known, n_tolerance, threshold)
    for now in range(known + 1, last + 1):
        window = _window(now, n_tolerance)
        if window[0] < c:
            continue
        if min(losses[i] for i in window) > threshold:
            return chosen or [c]
        chosen.append(window[0])
    for first in _window(last, n_tolerance)[1:]:
        if min(losses[first:]) > threshold:
            break
        chosen.append(first)
    return chosen or [c]


def segments_needed(
    losses: Sequence[float],
    n_converge: int = N_CONVERGE,
    n_tolerance: int = N_TOLERANCE,
    tolerance_ratio: float = TOLERANCE_RATIO,
) -> set[int]:
    """The segments so far that may still be part of the mean, whatever losses follow.

    Args:
      losses: validation loss at each evaluation so far.
      n_converge: as in `loss_valley`.
      n_tolerance: as in `loss_valley`.
      tolerance_ratio: as in `loss_valley`.

    Returns:
      Their positions; the others can be forgotten.
    """
    last = len(losses) - 1
    recent = set(_window(last, max(n_converge, n_tolerance)))
    c = _convergence(losses, n_converge)
    if c is None:
        return recent
    now = loss_valley(losses, n_converge, n_tolerance, tolerance_ratio)
    return recent | {c} | set(now)


def running_mean(mean: Any, tree: Any, count: jax.Array | int) -> Any:
    """The mean of count + 1 trees, from the mean of the first count and the next one.

    mean + (tree - mean) / (count + 1), leaf by leaf, in the leaves' dtype.
    """
    share = 1.0 / (jnp.asarray(count, jnp.float32) + 1.0)
    return jax.tree.map(lambda m, w: m + ((w - m) * share).astype(m.dtype), mean, tree)


def _convergence(losses: Sequence[float], n_converge: int) -> int | None:
    """The first loss that none of the n_converge - 1 after it is below."""
    for c in range(len(losses) - n_converge + 1):
        if losses[c] <= min(losses[c : c + n_converge]):
            return c
    return None


def _window(now: int, size: int) -> list[int]:
    """The last `size` evaluations at `now`, fewer at the beginning."""
    return list(range(max(0, now - size + 1), now + 1))


def _looking_back(
    losses: Sequence[float], c: int, known: int, n_tolerance: int, threshold: float
) -> list[int]:
    """What the release takes at once when it learns of the convergence."""
    n_converge = known - c + 1
    if n_tolerance < n_converge:
        return list(range(c + 1, c + 1 + n_converge - n_tolerance))
    if n_tolerance == n_converge:
        return []
    reached = _window(known, n_tolerance)[: n_tolerance - n_converge + 1]
    above = [i for i, segment in enumerate(reached) if losses[segment] > threshold]
    start = above[-1] + 1 if above else 0
    # One more is left out: the release means it for the model it began with, and then
    # overwrites that one.
    return reached[start + 1 :]


_take_in = jax.jit(running_mean, donate_argnums=0)


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
            self._mean = jax.tree.map(jnp.zeros_like, state.scored)
        self._mean = _take_in(self._mean, state.scored, self._count)
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
        weights = state.scored
        mean = jax.tree.map(jnp.zeros_like, weights)
        for count, k in enumerate(loss_valley(losses)):
            with np.load(self._file(steps[k])) as file:
                leaves = [file[name] for name in file.files]
            segment = jax.tree.unflatten(jax.tree.structure(weights), leaves)
            placed = jax.tree.map(lambda leaf: leaf.sharding, weights)
            mean = _take_in(mean, self._layout.put(segment, placed), count)
        return state.with_scored(mean)

    def remove(self) -> None:
        """Deletes the segments of a run that is finished."""
        if self._layout.writes:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _file(self, step: int) -> Path:
        return self._folder / f"{step:06d}.npz"


def _validation(lines: Lines) -> tuple[list[int], list[float]]:
    """The steps of the evaluations and the source domains' validation losses there."""
    rows = [line for line in lines if line["kind"] == "evaluation"]
    return [row["step"] for row in rows], [row["in_domain_loss"] for row in rows]
