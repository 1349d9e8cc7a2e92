"""Metrics of a run: JSON lines, and the same numbers for TensorBoard."""

import contextlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.summary import scalar

import disam_jax as dj
from experiments.devices import Layout
from experiments.files import naming, write_whole

AVERAGES = {"swad", "bma"}  # kinds of lines that evaluate averaged weights, at the end


class RunDivergedError(RuntimeError):
    """A loss or gradient is not finite; the last good checkpoint is kept."""


def train_line(
    step: int,
    domains: list[str],
    window: list[dj.Evaluation],
    learning_rate: float,
    may_overflow: bool = False,
) -> dict[str, Any]:
    """One line of the metrics: the means over a window of steps.

    Args:
      step: the last step of the window, counted from 1.
      domains: names of the source domains, in the order of the losses.
      window: the evaluations of the steps in the window, on the host.
      learning_rate: at the last step.
      may_overflow: whether steps in which a gradient overflowed were skipped, as float16's
        are; they are counted, and the means are over the others.

    Returns:
      A flat mapping; `loss/DOMAIN` is the loss at w and `perturbed_loss/DOMAIN` at w + eps.
      `ascended` is the share of the steps that moved away from w; `perturbation_norm` and
      `cosine` are the means over these.

    Raises:
      RunDivergedError: something in the window is not finite; the message names the first
        step and the domains. With may_overflow: every step was skipped.
    """
    line: dict[str, Any] = {"step": step, "kind": "train"}
    first = step - len(window) + 1
    if may_overflow:
        taken = [seen for seen in window if _gradients_are_finite(seen)]
        if not taken:
            raise RunDivergedError(f"all steps from {first} to {step} overflowed")
        line["skipped_steps"] = len(window) - len(taken)
        window = taken
    _refuse_not_finite(first, domains, window)
    losses = np.stack([e.losses for e in window])
    perturbed = np.stack([e.perturbed_losses for e in window])
    for i, domain in enumerate(domains):
        line[f"loss/{domain}"] = float(losses[:, i].mean())
    for i, domain in enumerate(domains):
        line[f"perturbed_loss/{domain}"] = float(perturbed[:, i].mean())
    line["loss_spread"] = float(losses.std(axis=1).mean())
    on = [seen for seen in window if np.mean(seen.perturbation_norm) > 0]
    line["ascended"] = len(on) / len(window)
    for name in ("gradient_norm", "perturbed_gradient_norm"):
        line[name] = float(np.mean([getattr(e, name) for e in window]))
    for name in ("perturbation_norm", "cosine"):  # where there was none: 0 and 1
        line[name] = float(np.mean([getattr(e, name) for e in on or window]))
    realized = [seen.realized for seen in window if seen.realized is not None]
    if realized:
        line["realized_length_ratio"] = float(np.mean([r.length_ratio for r in realized]))
        line["realized_cosine"] = float(np.mean([r.cosine for r in realized]))
    return line | {"learning_rate": learning_rate}


def perturbation_told(lines: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Whether a run was sharpness-aware: of all its lines what tells of the perturbation.

    Returns:
      ascended: the share of the steps that moved away from w. Of the windows that have such
      steps the medians of perturbation_norm, the length of eps, and of cosine, between the
      gradients at w and at w + eps; empty where no line tells.
    """
    told = [line for line in lines if "ascended" in line]
    if not told:
        return {}
    steps = np.diff([0, *(line["step"] for line in told)])
    shares = [line["ascended"] for line in told]
    found = {"ascended": float(np.average(shares, weights=steps))}
    on = [line for line in told if line["ascended"] > 0]
    for name in ("perturbation_norm", "cosine"):
        found[name] = float(np.median([line[name] for line in on])) if on else 0.0
    return found


def _gradients_are_finite(seen: dj.Evaluation) -> bool:
    norms = (seen.gradient_norm, seen.perturbation_norm, seen.perturbed_gradient_norm)
    return bool(np.isfinite(norms).all())


def _refuse_not_finite(
    first_step: int, domains: list[str], window: list[dj.Evaluation]
) -> None:
    for step, seen in enumerate(window, start=first_step):
        for what, values in (
            ("loss", seen.losses),
            ("perturbed loss", seen.perturbed_losses),
        ):
            wrong = np.array(domains)[~np.isfinite(values)]
            if len(wrong):
                raise RunDivergedError(
                    f"the {what} of domain {', '.join(wrong)} is not finite at step {step}"
                )
        norms = (seen.gradient_norm, seen.perturbed_gradient_norm)
        if not np.isfinite(norms).all():
            raise RunDivergedError(
                f"the gradient of {', '.join(domains)} is not finite at step {step}"
            )


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The whole lines of the metrics; a line cut short by a kill is left out.

    Raises:
      ValueError: a line is no JSON; the message names the file and the line.
    """
    file = folder / "metrics.jsonl"
    if not file.exists():
        return []
    *whole, _ = file.read_bytes().split(b"\n")
    lines = []
    for number, line in enumerate(whole, start=1):
        try:
            lines.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{file}, line {number}, is no JSON: {error}.") from None
    return lines


class MetricsLog:
    """A run's metrics; those of the writing process are `metrics.jsonl` and TensorBoard's.

    Args:
      folder: of the run.
      step: the step the run goes on from; what was logged after it is dropped, since it
        will be measured again.
      layout: of the run. All processes keep the lines, one writes them.

    Attributes:
      lines: all of them, the earlier ones too.
    """

    def __init__(self, folder: Path, step: int, layout: Layout) -> None:
        self.lines = [
            line
            for line in read_metrics(folder)
            if line["step"] <= step and line["kind"] not in AVERAGES  # made anew
        ]
        layout.wait("metrics were read")
        self._writes = layout.writes
        if not self._writes:
            return
        self._path = folder / "metrics.jsonl"
        write_whole(self._path, "".join(json.dumps(line) + "\n" for line in self.lines))
        self._file = self._path.open("a")
        self._board = folder / "tensorboard"
        with naming(self._board):
            self._board.mkdir(exist_ok=True)
            # Not a SummaryWriter: its thread ends where the disk is full, and its queue is
            # then waited for for ever.
            self._events = EventsWriter(str(self._board / "events"))
        # TensorBoard drops events from this step on when it reads the folder.
        self._tell(step + 1, session_log=SessionLog(status=SessionLog.START))

    def write(self, line: dict[str, Any]) -> None:
        """Appends one line; a process that is killed now does not lose it."""
        self.lines.append(line)
        if not self._writes:
            return
        with naming(self._path):
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        # One event for all numbers of a line: an event costs more than what is in it.
        numbers = [scalar(k, v) for k, v in line.items() if k not in ("step", "kind")]
        for other in numbers[1:]:
            numbers[0].MergeFrom(other)
        self._tell(line["step"], summary=numbers[0])

    def _tell(self, step: int, **what: Any) -> None:
        with naming(self._board):
            self._events.write_event(Event(step=step, wall_time=time.time(), **what))

    def keep(self) -> None:
        """All lines are on the disk when this returns, and the machine may fail.

        A checkpoint follows, from which the run will go on, and what it asks of the lines.
        """
        if not self._writes:
            return
        with naming(self._path):
            os.fsync(self._file.fileno())
        with naming(self._board):
            self._events.flush()

    def close(self) -> None:
        """Ends the files; what counts was kept before, and its error was told there."""
        if self._writes:
            for file in (self._file, self._events):
                with contextlib.suppress(OSError):  # of two errors, the first one tells
                    file.close()
