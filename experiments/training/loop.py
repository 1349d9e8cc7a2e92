"""One run from its config to its record, interruptible at any moment."""

import contextlib
import functools
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import disam_jax as dj
from experiments.config.run import RunConfig
from experiments.data import DomainData
from experiments.data.batches import Batch
from experiments.data.prepare import Prepared
from experiments.devices import Layout, one_device
from experiments.methods.registry import find_method
from experiments.training.evaluation import evaluation_line, score
from experiments.training.feed import Feed, make_feed
from experiments.training.first_batch import first_batch
from experiments.training.metrics import MetricsLog, RunDivergedError, train_line
from experiments.training.run_folder import RunFolder, environment
from experiments.training.segments import Segments
from experiments.training.selection import SELECTION_RULES, Selected
from experiments.training.step import (
    Program,
    TrainState,
    learning_rate_schedule,
    make_program,
)

Progress = Callable[[int, dict[str, Any]], None]

IN_SPLIT = "in split"  # no name of a domain, which has no blank


def train(
    config: RunConfig,
    data: DomainData | Prepared,
    path: Path,
    progress: Progress = lambda step, line: None,
    layout: Layout | None = None,
) -> dict[str, Any]:
    """Runs `config` in the folder `path`, from its last checkpoint if there is one.

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
    data.domain_index(config.unseen)
    layout = layout or one_device()
    folder = RunFolder(path, config, layout)
    with contextlib.closing(folder):
        record = folder.result()
        if record is None:
            lines, seconds_per_step = _train(config, data, folder, progress, layout)
            record = make_record(config, lines, seconds_per_step)
            record["commit"] = environment()["commit"]
            record["first_batch"] = first_batch(config, data)
            folder.finish(record)
            Segments(path, layout).remove()
    return record


def _train(
    config: RunConfig,
    data: DomainData | Prepared,
    folder: RunFolder,
    progress: Progress,
    layout: Layout,
) -> tuple[list[dict[str, Any]], float | None]:
    """Takes the steps that are missing; returns all metrics, median seconds of a step."""
    preset = config.preset
    feed = make_feed(config, data, layout)
    program = make_program(
        config.method,
        config.hyperparameters,
        preset,
        len(data.classes),
        len(feed.sources),
        layout,
    )
    state = folder.restore(program.init(init_key(config)))
    rate = learning_rate_schedule(preset)
    done, times = int(state.step), []
    segments = Segments(folder.path, layout) if preset.swad else None
    with contextlib.closing(MetricsLog(folder.path, done, layout)) as log:
        batches = feed.batches(done) if done < preset.steps else iter(())
        while done < preset.steps:
            started = time.perf_counter()
            size = (preset.steps - done) % config.log_every or config.log_every
            state, window = _take_steps(program, state, batches, size, segments)
            times.append((time.perf_counter() - started) / len(window))
            done += size
            last_rate = float(jnp.asarray(rate(done - 1)))
            try:
                line = train_line(
                    done, feed.sources, window, last_rate, preset.dtype == "float16"
                )
            except RunDivergedError as error:
                raise RunDivergedError(f"{config.name}: {error}.{mend(folder)}") from None
            log.write(line)
            # Counted back from the last step, as DomainBed's steps 0, 300, ..., 5000 are.
            if (preset.steps - done) % config.checkpoint_every == 0:
                log.write(evaluate("evaluation", config.unseen, program, state, feed))
                if segments:
                    segments.end(done, log.lines)
                folder.save(state)
            progress(done, line)
        if segments:
            averaged = segments.average_over_valley(log.lines, state)
            log.write(evaluate("swad", config.unseen, program, averaged, feed))
    # The first window compiles; it counts only where there is no other.
    return log.lines, float(np.median(times[1:] or times)) if times else None


def _take_steps(
    program: Program,
    state: TrainState,
    batches: Iterator[Batch],
    size: int,
    segments: Segments | None,
) -> tuple[TrainState, list[dj.Evaluation]]:
    window = []
    for batch in itertools.islice(batches, size):
        state, evaluation = program.train_step(state, batch)
        if segments:
            segments.add(state)
        window.append(evaluation)
    return state, jax.device_get(window)


def init_key(config: RunConfig) -> jax.Array:
    """The key that a run's first weights are drawn with."""
    return jax.random.split(jax.random.key(config.seed))[0]


def mend(folder: RunFolder) -> str:
    """What is left of a run that diverged, and what to try."""
    step = folder.checkpoint_step()
    kept = "No checkpoint had been made yet"
    if step is not None:
        kept = f"The checkpoint of step {step} is kept in {folder.path}/checkpoints"
    return f" {kept}. Try a smaller rho or learning rate, in another folder."


def evaluate(
    kind: str, unseen: str, program: Program, state: TrainState, feed: Feed
) -> dict[str, Any]:
    """The line of metrics of an evaluation; see `evaluation_line`."""
    predict = functools.partial(program.predict, state)
    parts = {name: read() for name, read in feed.out_split.items()}
    found = score(predict, {**parts, IN_SPLIT: feed.in_split()})
    in_split = found.pop(IN_SPLIT)
    return evaluation_line(int(state.step), kind, unseen, found, in_split)


def make_record(
    config: RunConfig, lines: list[dict[str, Any]], seconds_per_step: float | None
) -> dict[str, Any]:
    """What a finished run leaves in the table of results.

    Args:
      config: of the run.
      lines: its metrics.
      seconds_per_step: median, or None.

    Returns:
      The record: accuracies at the last step, and under the name of each selection rule
      what it chose; `swad`, where it was asked for, is the averaged weights' score.
    """
    last_train = [line for line in lines if line["kind"] == "train"][-1]
    last_evaluation = [line for line in lines if line["kind"] == "evaluation"][-1]
    method = find_method(config.method)
    num_sources = sum(key.startswith("loss/") for key in last_train)
    record = {
        "method": method.name,
        "penalty": config.preset.penalty,
        "data": config.data,
        "unseen_domain": config.unseen,
        "seed": config.seed,
        "protocol": config.protocol,
        "model": config.preset.model,
        "batch_norm": config.preset.batch_norm,
        "steps": config.preset.steps,
        "gradients_per_step": method.gradients(config.hyperparameters, num_sources),
        **{k: v for k, v in last_evaluation.items() if k not in ("step", "kind")},
        **{k: v for k, v in last_train.items() if k.startswith("loss")},
        "seconds_per_step": seconds_per_step,
    }
    for name, rule in SELECTION_RULES.items():
        record[name] = _chosen(rule(lines))
    averaged = [line for line in lines if line["kind"] == "swad"]
    if averaged:
        as_last = [{**averaged[-1], "kind": "evaluation"}]
        record["swad"] = _chosen(SELECTION_RULES["last_step"](as_last))
    return record


def _chosen(selected: Selected) -> dict[str, Any]:
    names = ("step", "validation", "in_split", "whole")
    return {name: getattr(selected, name) for name in names}
