"""A run in its folder: all that its config asks for, found once, and how far it is."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import disam_jax as dj
from experiments.config.run import RunConfig
from experiments.data import DomainData
from experiments.data.prepare import Prepared
from experiments.devices import Layout
from experiments.training.evaluation import evaluation_line, score
from experiments.training.feed import make_feed
from experiments.training.first_batch import first_batch
from experiments.training.metrics import (
    AVERAGES,
    MetricsLog,
    RunDivergedError,
    perturbation_told,
    train_line,
)
from experiments.training.numerics import environment
from experiments.training.optimizer import learning_rate_schedule
from experiments.training.pattern import numbers_of
from experiments.training.program import TrainState, begin, make_program
from experiments.training.run_folder import RunFolder
from experiments.training.selection import SELECTION_RULES
from experiments.training.step import compile_predict
from experiments.training.swad import Segments


class Run:
    """A run, from where it was last kept; whoever trains it takes the steps.

    Args:
      config: of the run.
      data: that it names.
      folder: that it is kept in.
      layout: of its devices.

    Attributes:
      config: of the run.
      layout: of its devices.
      feed: what it reads.
      program: what its steps compute, with any numbers.
      numbers: its own.
      segments: SWAD's averages, where the config asks for them.
      done: the steps that are logged.
      frozen: the weights that are not trained.
      state: as it was last kept, and whatever is set since.
    """

    def __init__(
        self,
        config: RunConfig,
        data: DomainData | Prepared,
        folder: RunFolder,
        layout: Layout,
    ) -> None:
        self.config = config
        self.layout = layout
        self.feed = make_feed(config, data, layout)
        self.program = make_program(config, data.classes, len(self.feed.sources))
        self.numbers = layout.put(numbers_of(config), layout.replicated)
        self.segments = Segments(folder.path, layout) if config.preset.swad else None
        first, self.frozen = begin(self.program, init_key(config), layout)
        self.state = folder.restore(first)
        self.done = int(self.state.step)
        self._data = data
        self._folder = folder
        peak = self.program.method.peak_rate(config.hyperparameters)
        self._learning_rate = learning_rate_schedule(config.preset, peak)
        self._predict = compile_predict(self.program.model, layout)
        self._log = MetricsLog(folder.path, self.done, layout)
        self._seconds_per_step: list[float] = []

    @property
    def evaluated(self) -> bool:
        """Whether there is an evaluation."""
        return any(line["kind"] == "evaluation" for line in self._log.lines)

    def log_window(
        self, evaluations: list[dj.Evaluation], seconds: float
    ) -> dict[str, Any]:
        """Logs the next steps, which took so many seconds; returns the line of metrics.

        Raises:
          RunDivergedError: something is not finite; nothing is logged.
        """
        self.done += len(evaluations)
        self._seconds_per_step.append(seconds / len(evaluations))
        rate = float(jnp.asarray(self._learning_rate(self.done - 1)))
        half = self.config.preset.dtype == "float16"
        try:
            line = train_line(self.done, self.feed.sources, evaluations, rate, half)
        except RunDivergedError as error:
            message = f"{self.config.name}: {error}.{self._way_out()}"
            raise RunDivergedError(message) from None
        self._log.write(line)
        return line

    def checkpoint(self) -> None:
        """Evaluates the state and keeps it.

        Raises:
          RunDivergedError: a loss is not finite; nothing is logged or kept.
        """
        self._write_evaluation("evaluation", self.state)
        if self.segments:
            self.segments.end(self.done, self._log.lines)
        self._save()

    def keep(self) -> None:
        """Keeps the state where the run is left, without an evaluation.

        SWAD averages from checkpoint to checkpoint: there the run goes on from the last.
        """
        if not (self.segments or self.config.is_checkpoint(self.done)):
            self._save()

    def _save(self) -> None:
        self._log.keep()
        self._folder.save(self.state)

    def finish(self) -> dict[str, Any]:
        """Keeps the record, and returns it: from here on the run is finished.

        Raises:
          RunDivergedError: a loss at averaged weights is not finite; there is no record.
        """
        if not self.evaluated:  # no step was taken, of zero-shot
            self.checkpoint()
        for kind, averaged in self._averages().items():
            self._write_evaluation(kind, averaged)
            self._log.keep()
        record = self._record()
        self._folder.finish(record)
        if self.segments:
            self.segments.remove()
        return record

    def close(self) -> None:
        """Ends the files of the metrics."""
        self._log.close()

    def _averages(self) -> dict[str, TrainState]:
        """The state with averaged weights, by each way of averaging that is asked for."""
        found = {}
        if self.segments:
            found["swad"] = self.segments.average_over_valley(self._log.lines, self.state)
        if self.config.preset.bma:
            found["bma"] = self.state.with_scored(self.state.average)
        return found

    def _way_out(self) -> str:
        """What is left of a run that diverged, and what to try."""
        step = self._folder.checkpoint_step()
        left = "No checkpoint had been made yet"
        if step is not None:
            path = self._folder.path / "checkpoints"
            left = f"The checkpoint of step {step} is kept in {path}"
        return f" {left}. Try a smaller rho or learning rate, in another folder."

    def _write_evaluation(self, kind: str, state: TrainState) -> None:
        line = self._evaluate(kind, state)
        wrong = [
            domain
            for domain in self.feed.sources
            if not np.isfinite(line[f"out_split_loss/{domain}"])
        ]
        if wrong:  # the last step's weights are those that no window has seen
            raise RunDivergedError(
                f"{self.config.name}: the loss of the held-out images of domain "
                f"{', '.join(wrong)} is not finite after step {self.done}."
                f"{self._way_out()}"
            )
        self._log.write(line)

    def _evaluate(self, kind: str, state: TrainState) -> dict[str, Any]:
        """The line of metrics of an evaluation; see `evaluation_line`."""
        parts = {("held out", name): read for name, read in self.feed.out_split.items()}
        parts |= {("new", name): read for name, read in self.feed.new_split.items()}
        for name, reads in self.feed.in_split.items():
            parts |= {(which, name): read for which, read in reads.items()}
        found = score(
            self._predict(self.frozen, state),
            {key: read() for key, read in parts.items()},
            self.program.seen,
        )
        in_split = {
            name: {which: found.pop((which, name)) for which in reads}
            for name, reads in self.feed.in_split.items()
        }
        new = [found.pop(("new", name)) for name in self.feed.new_split]
        out_split = {name: part for (_, name), part in found.items()}
        line = evaluation_line(self.done, kind, self.config.unseen, out_split, in_split)
        if new:
            line["in_domain_new_accuracy"] = float(np.mean([p.accuracy for p in new]))
        return line

    def _record(self) -> dict[str, Any]:
        """What the finished run leaves in the table of results.

        Accuracies are those at the last step, and under the name of each selection rule
        what it chose; `swad` and `bma`, where asked for, are averaged weights' scores.
        """
        config, preset, lines = self.config, self.config.preset, self._log.lines
        last = {line["kind"]: line for line in lines}
        method, h = self.program.method, config.hyperparameters
        # The first window compiles; it counts only where there is no other.
        seconds = self._seconds_per_step[1:] or self._seconds_per_step
        record = {
            "method": method.name,
            "penalty": preset.penalty,
            "tuning": preset.tuning,
            "data": config.data,
            "unseen_domain": config.unseen,
            "also_unseen_domain": config.also_unseen,
            "seed": config.seed,
            "protocol": config.protocol,
            "model": preset.model,
            "batch_norm": preset.batch_norm,
            "steps": preset.steps,
            "gradients_per_step": method.gradients(h, self.program.num_domains),
            **{k: v for k, v in last["evaluation"].items() if k not in ("step", "kind")},
            **{k: v for k, v in last.get("train", {}).items() if k.startswith("loss")},
            "seconds_per_step": float(np.median(seconds)) if seconds else None,
        }
        record |= perturbation_told(lines)
        for name, rule in SELECTION_RULES.items():
            record[name] = rule(lines, config.unseen).as_record()
        for kind in AVERAGES & last.keys():
            as_last = [{**last[kind], "kind": "evaluation"}]
            chosen = SELECTION_RULES["last_step"](as_last, config.unseen)
            record[kind] = chosen.as_record()
        record["commit"] = environment()["commit"]
        record["first_batch"] = first_batch(config, self._data)
        return record


def init_key(config: RunConfig) -> jax.Array:
    """The key that a run's first weights are drawn with."""
    return jax.random.split(jax.random.key(config.seed))[0]
