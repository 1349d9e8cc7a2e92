"""One run from its config to its record, interruptible at any moment."""

import contextlib
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import disam_jax as dj
from experiments.batches import Batch, draw_batch, put_on_device
from experiments.config import RunConfig
from experiments.data import DomainData, load, split_groups
from experiments.metrics import MetricsLog, RunDivergedError, read_metrics, train_line
from experiments.run_folder import RunFolder, environment
from experiments.training import (
    Program,
    TrainState,
    accuracies,
    learning_rate_schedule,
    make_program,
)

Progress = Callable[[int, dict[str, Any]], None]

load_cached = functools.lru_cache(maxsize=4)(load)
draw_jitted = jax.jit(draw_batch, static_argnames=("batch_size", "shift", "flip"))


def train(
    config: RunConfig, path: Path, progress: Progress = lambda step, line: None
) -> dict[str, Any]:
    """Runs `config` in the folder `path`, from its last checkpoint if there is one.

    A run that was killed at any moment goes on with the same call and ends with the same
    bits: batches are functions of (seed, step), and what was logged after the checkpoint
    is measured again.

    Args:
      config: of the run.
      path: its folder.
      progress: called with (steps done, last metrics line) after every logged window.

    Returns:
      The record: what was run, accuracies as fractions, seconds per step.

    Raises:
      ValueError: the unseen domain is not one of the data set's, or the folder holds a
        run of another config.
      RunDivergedError: a loss or gradient is not finite; the last good checkpoint is kept.
    """
    data = load_cached(config.data, image_size=config.preset.image_size)
    unseen = data.domain_index(config.unseen)
    folder = RunFolder(path, config)
    with contextlib.closing(folder):
        record = folder.result()
        if record is None:
            seconds_per_step = _train(config, data, unseen, folder, progress)
            record = _record(config, read_metrics(path), seconds_per_step)
            record["commit"] = environment()["commit"]
            folder.finish(record)
    return record


def _train(
    config: RunConfig, data: DomainData, unseen: int, folder: RunFolder, progress: Progress
) -> float | None:
    """Takes the steps that are missing; returns the median seconds of one."""
    preset = config.preset
    train_data, heldout = split_groups(
        data, holdout_fraction=config.holdout_fraction, seed=config.seed
    )
    sources = [d for d in range(len(data.domains)) if d != unseen]
    names = [data.domains[d] for d in sources]
    program = make_program(config.method, config.hyperparameters, preset, len(data.classes))
    init_key, batch_key = jax.random.split(jax.random.key(config.seed))
    draw = functools.partial(
        draw_jitted,
        put_on_device(train_data, sources),
        batch_key,
        batch_size=preset.batch_size,
        shift=preset.shift,
        flip=data.flip,
    )
    state = folder.restore(program.init(init_key, data.images[0].shape[1:]))
    rate = learning_rate_schedule(preset)
    done, times = int(state.step), []
    with contextlib.closing(MetricsLog(folder.path, done)) as log:
        while done < preset.steps:
            started = time.perf_counter()
            end = min(done + config.log_every, preset.steps)
            state, window = _take_steps(program, state, draw, range(done, end))
            times.append((time.perf_counter() - started) / len(window))
            done = end
            last_rate = float(jnp.asarray(rate(done - 1)))
            try:
                line = train_line(done, names, window, last_rate)
            except RunDivergedError as error:
                raise RunDivergedError(f"{config.name}: {error}.{_mend(folder)}") from None
            log.write(line)
            if done % config.checkpoint_every == 0 or done == preset.steps:
                log.write(_evaluation_line(program, state, data, heldout, unseen))
                folder.save(state)
            progress(done, line)
    # The first window compiles; it counts only where there is no other.
    return float(np.median(times[1:] or times)) if times else None


def _take_steps(
    program: Program, state: TrainState, draw: Callable[[int], Batch], steps: range
) -> tuple[TrainState, list[dj.Evaluation]]:
    window = []
    for step in steps:
        state, evaluation = program.train_step(state, draw(step))
        window.append(evaluation)
    return state, jax.device_get(window)


def _mend(folder: RunFolder) -> str:
    step = folder.checkpoint_step()
    kept = "No checkpoint had been made yet"
    if step is not None:
        kept = f"The checkpoint of step {step} is kept in {folder.path}/checkpoints"
    return f" {kept}. Try a smaller rho or learning rate, in another folder."


def _evaluation_line(
    program: Program, state: TrainState, data: DomainData, heldout: DomainData, unseen: int
) -> dict[str, Any]:
    """Accuracies on each domain's held-out part, and on the whole unseen domain."""
    parts = list(zip(heldout.images, heldout.labels, strict=True))
    parts.append((data.images[unseen], data.labels[unseen]))
    *by_domain, whole = accuracies(program, state, parts)
    line: dict[str, Any] = {"step": int(state.step), "kind": "evaluation"}
    for domain, accuracy in zip(data.domains, by_domain, strict=True):
        line[f"heldout_accuracy/{domain}"] = accuracy
    line["in_domain_accuracy"] = float(np.mean(np.delete(by_domain, unseen)))
    line["out_of_domain_accuracy"] = whole
    line["out_of_domain_heldout_accuracy"] = by_domain[unseen]
    return line


def _record(
    config: RunConfig, lines: list[dict[str, Any]], seconds_per_step: float | None
) -> dict[str, Any]:
    last_train = [line for line in lines if line["kind"] == "train"][-1]
    last_evaluation = [line for line in lines if line["kind"] == "evaluation"][-1]
    return {
        "method": config.method,
        "data": config.data,
        "unseen_domain": config.unseen,
        "seed": config.seed,
        "steps": config.preset.steps,
        **{k: v for k, v in last_evaluation.items() if k not in ("step", "kind")},
        **{k: v for k, v in last_train.items() if k.startswith("loss")},
        "seconds_per_step": seconds_per_step,
    }
