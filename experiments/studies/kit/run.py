"""A training run of a study, and what is measured of it."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import disam_jax as dj
from experiments.config.run import RunConfig
from experiments.data import DomainData, load
from experiments.data.batches import stack_domains
from experiments.devices import one_device
from experiments.fields import digest
from experiments.studies.kit.changes import Change, apply_change
from experiments.studies.kit.probes import PROBES, Trained
from experiments.training.first_batch import first_batch
from experiments.training.loop import take_window, windows
from experiments.training.parts import memory_parts
from experiments.training.population import Step, lane_step, make_lane
from experiments.training.program import Program, TrainState, begin, make_program
from experiments.training.run import init_key
from experiments.training.step import compile_predict


@dataclasses.dataclass(frozen=True)
class Spec:
    """A run, and what is measured of it.

    Attributes:
      config: of the run.
      looks: how many times it is measured, evenly over the steps, the last one at the end;
        1 measures the trained model alone.
      probes: names in `PROBES`: what is measured at each look.
      data_options: of `load`, as (name, value).
      change: made to the training images before the run; see `changes.py`.
      log_every: steps that a logged loss is the mean of.
    """

    config: RunConfig
    looks: int = 1
    probes: tuple[str, ...] = ("scores",)
    data_options: tuple[tuple[str, Any], ...] = ()
    change: Change | None = None
    log_every: int = 10

    @property
    def digest(self) -> str:
        """Of all fields: the id of the run's record."""
        return digest(self, length=24)

    def train(self, folder: Path) -> dict[str, Any]:
        """The outcome, see `train_spec`; nothing else is kept in the folder."""
        return train_spec(self)

    def first_batch(self) -> str | None:
        """Its digest, of what the data set gives as it stands; none of a changed one."""
        if self.change or self.data_options:
            return None
        config = self.config
        return first_batch(config, load_once(config.data, config.preset.image_size))


def train_spec(spec: Spec) -> dict[str, Any]:
    """Trains the run and measures it.

    Args:
      spec: of the run.

    Returns:
      steps [T] and, of the windows that end there, losses [T][M] and perturbed_losses
      [T][M]; looks, a mapping per look with `step` and what the probes found; diverged, the
      step at which a loss was not finite, or None. A run that diverges ends there.
    """
    step, trained = _begin(spec)

    def look(at: int) -> dict[str, Any]:
        found = [PROBES[name](trained) for name in spec.probes]
        return {"step": at, **{k: v for part in found for k, v in part.items()}}

    logged, measured = _stops(spec)
    outcome: dict[str, Any] = {
        "sources": [trained.train.domains[d] for d in trained.sources],
        "steps": [],
        "losses": [],
        "perturbed_losses": [],
        "looks": [look(0)] if 0 in measured else [],
        "diverged": None,
    }
    window = []
    for size, stop in windows(0, logged | measured):
        state, evaluations = take_window(step, trained.state, size)
        trained = trained._replace(state=state)
        window += evaluations
        if stop in logged:
            means = _mean_losses(window)
            if not np.isfinite(means).all():
                return {**outcome, "diverged": stop}
            outcome["steps"].append(stop)
            for name, losses in zip(("losses", "perturbed_losses"), means, strict=True):
                outcome[name].append([float(f"{x:.6g}") for x in losses])
            window = []
        if stop in measured:
            outcome["looks"].append(look(stop))
    return outcome


def _begin(spec: Spec) -> tuple[Callable[[TrainState], Any], Trained]:
    """The step, state -> (state, evaluation), and the model before the first."""
    config, preset = spec.config, spec.config.preset
    data = load_once(config.data, preset.image_size, spec.data_options)
    train, heldout = memory_parts(config, data)
    train = apply_change(spec.change, train, config.unseen, config.seed)
    sources = [d for d, name in enumerate(train.domains) if name != config.unseen]
    program = make_program(config, data.classes, len(sources))
    state, frozen = begin(program, init_key(config), one_device())
    room = int(data.counts().sum())
    images = stack_domains(train, sources, room)
    lane = jax.device_put(make_lane(config, frozen, images))
    step = functools.partial(_compile_step(program, data.flip), lane)
    predict = functools.partial(compile_predict(program.model, one_device()), frozen)
    return step, Trained(config, predict, state, train, heldout, sources)


def _mean_losses(window: Sequence[dj.Evaluation]) -> np.ndarray:
    """The losses at w and at w + eps, [2, M]."""
    return np.mean([(seen.losses, seen.perturbed_losses) for seen in window], axis=0)


def _stops(spec: Spec) -> tuple[set[int], set[int]]:
    """The steps at which losses are logged, from the first step on, and the looks'."""
    steps = spec.config.preset.steps
    looks = {round(steps * (i + 1) / spec.looks) for i in range(spec.looks)}
    return {*range(spec.log_every, steps, spec.log_every), steps} - {0}, looks


@functools.lru_cache(maxsize=8)  # runs of a pattern compile once
def _compile_step(program: Program, flip: bool) -> Step:
    return jax.jit(lane_step(program, flip), donate_argnums=1)


@functools.lru_cache(maxsize=8)
def load_once(
    name: str, image_size: int | None = None, options: tuple[tuple[str, Any], ...] = ()
) -> DomainData:
    """The data set, kept for the next run that needs it; see `load`."""
    return load(name, image_size=image_size, **dict(options))
