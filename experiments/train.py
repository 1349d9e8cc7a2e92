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

from experiments.batches import draw_batch, put_on_device
from experiments.config import RunConfig
from experiments.data import DomainData, load, split_groups
from experiments.metrics import MetricsLog, RunDivergedError, train_line
from experiments.run_folder import RunFolder
from experiments.training import accuracies, learning_rate_schedule, make_program

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
      The record: config, accuracies as fractions, seconds per step.

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
            record = _train(config, data, unseen, folder, progress)
            folder.finish(record)
    return record


def _train(
    config: RunConfig, data: DomainData, unseen: int, folder: RunFolder, progress: Progress
) -> dict[str, Any]:
    preset = config.preset
    train_data, heldout = split_groups(
        data, holdout_fraction=config.holdout_fraction, seed=config.seed
    )
    sources = [d for d in range(len(data.domains)) if d != unseen]
    names = [data.domains[d] for d in sources]
    program = make_program(config.method, config.hyperparameters, preset, len(data.classes))
    init_key, batch_key = jax.random.split(jax.random.key(config.seed))
    state = folder.restore(program.init(init_key, data.images[0].shape[1:]))
    on_device = put_on_device(train_data, sources)
    rate = learning_rate_schedule(preset)
    first_step = int(state.step)
    window, line, times = [], {}, []
    log = MetricsLog(folder.path, first_step)
    with contextlib.closing(log):
        started = time.perf_counter()
        for step in range(first_step, preset.steps):
            batch = draw_jitted(
                on_device,
                batch_key,
                step,
                batch_size=preset.batch_size,
                shift=preset.shift,
                flip=data.flip,
            )
            state, evaluation = program.train_step(state, batch)
            window.append(evaluation)
            done = step + 1
            if done % config.log_every == 0 or done == preset.steps:
                try:
                    line = train_line(
                        done, names, jax.device_get(window), float(jnp.asarray(rate(step)))
                    )
                except RunDivergedError as error:
                    raise RunDivergedError(
                        f"{config.name}: {error}.{_mend(folder)}"
                    ) from None
                times.append((time.perf_counter() - started) / len(window))
                log.write(line)
                progress(done, line)
                window = []
            if done % config.checkpoint_every == 0 or done == preset.steps:
                log.write(_evaluate(program, state, data, heldout, unseen, done))
                folder.save(state)
            if not window:
                started = time.perf_counter()
    final = _evaluate(program, state, data, heldout, unseen, preset.steps)
    return _record(config, final, line, names, times)


def _mend(folder: RunFolder) -> str:
    return (
        f" The checkpoint before it is kept in {folder.path}/checkpoints. "
        "Try a smaller rho or learning rate, in another folder."
    )


def _evaluate(program, state, data, heldout, unseen: int, step: int) -> dict[str, Any]:
    """A line of accuracies: each domain's held-out part, and the unseen domain whole."""
    parts = list(zip(heldout.images, heldout.labels, strict=True))
    parts.append((data.images[unseen], data.labels[unseen]))
    *by_domain, whole = accuracies(program, state, parts)
    line: dict[str, Any] = {"step": step, "kind": "evaluation"}
    line |= {
        f"heldout_accuracy/{domain}": accuracy
        for domain, accuracy in zip(data.domains, by_domain, strict=True)
    }
    line["in_domain_accuracy"] = float(np.mean(np.delete(by_domain, unseen)))
    line["out_of_domain_accuracy"] = whole
    line["out_of_domain_heldout_accuracy"] = by_domain[unseen]
    return line


def _record(
    config: RunConfig,
    final: dict[str, Any],
    line: dict[str, Any],
    names: list[str],
    times: list[float],
) -> dict[str, Any]:
    return {
        "method": config.method,
        "data": config.data,
        "unseen_domain": config.unseen,
        "seed": config.seed,
        "steps": config.preset.steps,
        "in_domain_accuracy": final["in_domain_accuracy"],
        "out_of_domain_accuracy": final["out_of_domain_accuracy"],
        "out_of_domain_heldout_accuracy": final["out_of_domain_heldout_accuracy"],
        "in_domain_accuracies": {d: final[f"heldout_accuracy/{d}"] for d in names},
        "final_losses": {d: line[f"loss/{d}"] for d in names} if line else {},
        "seconds_per_step": float(np.median(times)) if times else None,
    }
