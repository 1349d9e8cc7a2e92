"""Training runs for studies: each is kept by what it is, and shared by all studies.

A run is a `Spec`. Its outcome is one JSON file in the store's folder, named by a digest of
the spec and written whole, so that a killed study goes on where it stopped and two studies
that need the same run train it once.
"""

import dataclasses
import functools
import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import disam_jax as dj
from experiments.config.run import RunConfig
from experiments.data import DATASETS, DomainData, load, split_groups
from experiments.data.batches import stack_domains
from experiments.devices import one_device
from experiments.fields import digest
from experiments.files import read_json, write_json
from experiments.studies.kit.changes import Change, apply_change
from experiments.studies.kit.probes import PROBES, Trained
from experiments.studies.kit.processes import work_in_processes
from experiments.training.first_batch import first_batch
from experiments.training.loop import take_window, windows
from experiments.training.numerics import changed_flags, refuse_other_flags
from experiments.training.population import Step, lane_step, make_lane, pattern
from experiments.training.program import Program, TrainState, init_state, make_program
from experiments.training.run import init_key
from experiments.training.run_folder import environment
from experiments.training.step import compile_predict

Watch = Callable[[int, int], None]


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
        """Of all fields: the name of the run's file."""
        return digest(self, length=24)


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
    outcome: dict[str, Any] = {
        "sources": [trained.train.domains[d] for d in trained.sources],
        "steps": [],
        "losses": [],
        "perturbed_losses": [],
        "looks": [],
        "diverged": None,
    }
    logged, measured = _stops(spec)
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
            look = {"step": stop}
            for name in spec.probes:
                look |= PROBES[name](trained)
            outcome["looks"].append(look)
    return outcome


def _begin(spec: Spec) -> tuple[Callable[[TrainState], Any], Trained]:
    """The step, state -> (state, evaluation), and the model before the first."""
    config, preset = spec.config, spec.config.preset
    data = load_once(config.data, preset.image_size, spec.data_options)
    train, heldout = split_groups(
        data, holdout_fraction=preset.holdout_fraction, seed=config.seed
    )
    train = apply_change(spec.change, train, config.unseen, config.seed)
    sources = [d for d, name in enumerate(train.domains) if name != config.unseen]
    program = make_program(pattern(config), len(data.classes), len(sources))
    lane = jax.device_put(make_lane(config, stack_domains(train, sources)))
    step = functools.partial(_compile_step(program, data.flip), lane)
    predict = compile_predict(program.model, one_device())
    state = init_state(program, init_key(config), one_device())
    return step, Trained(config, predict, state, train, heldout, sources)


def _mean_losses(window: Sequence[dj.Evaluation]) -> np.ndarray:
    """The losses at w and at w + eps, [2, M]."""
    return np.mean([(seen.losses, seen.perturbed_losses) for seen in window], axis=0)


def _stops(spec: Spec) -> tuple[set[int], set[int]]:
    """The steps at which losses are logged, from the first step on, and the looks'."""
    steps = spec.config.preset.steps
    looks = {round(steps * (i + 1) / spec.looks) for i in range(spec.looks)}
    return {*range(spec.log_every, steps, spec.log_every), steps}, looks - {0}


@functools.lru_cache(maxsize=8)  # rho, alpha, lam and the learning rate are traced
def _compile_step(program: Program, flip: bool) -> Step:
    return jax.jit(lane_step(program, flip), donate_argnums=1)


@functools.lru_cache(maxsize=8)
def load_once(
    name: str, image_size: int | None = None, options: tuple[tuple[str, Any], ...] = ()
) -> DomainData:
    """The data set, kept for the next run that needs it; see `load`."""
    return load(name, image_size=image_size, **dict(options))


class Store:
    """The runs of a folder.

    Args:
      path: the folder.
      jobs: processes that train at once.

    Attributes:
      seconds_used: of training, summed over the runs that were asked for.
      commits_used: that those runs were trained with.
      batches_used: the first ones that those runs drew, `data/unseen/seed/examples/pixels`
        -> digest, where nothing of the data was changed.
    """

    def __init__(self, path: Path, jobs: int = 1) -> None:
        self.path = path
        self.jobs = jobs
        self.seconds_used = 0.0
        self.commits_used: set[str] = set()
        self.batches_used: dict[str, str] = {}

    def outcomes(
        self, specs: Sequence[Spec], watch: Watch = lambda done, total: None
    ) -> list[dict[str, Any]]:
        """The outcome of every run, trained where it is not there yet.

        Args:
          specs: of the runs; the same one may come twice.
          watch: called with (runs there, runs in all), now and then.

        Returns:
          The outcomes, in the order of the specs.

        Raises:
          ValueError: a run was trained under other flags of JAX, or a process that trained
            was killed.
        """
        wanted = {spec.digest: spec for spec in specs}
        missing = [spec for spec in wanted.values() if not self._file(spec).exists()]
        for spec in wanted.values():
            if self._file(spec).exists():
                self._read(spec)

        def report() -> None:
            there = sum(self._file(spec).exists() for spec in missing)
            watch(len(wanted) - len(missing) + there, len(wanted))

        report()
        # One after another by method: it is compiled once for all of its runs.
        alike = defaultdict(list)
        for spec in missing:
            alike[pattern(spec.config)].append(spec)
        if self.jobs == 1:
            for spec in itertools.chain.from_iterable(alike.values()):
                _train_and_keep([spec], self.path)
                report()
        else:
            tasks = [(specs, self.path) for specs in alike.values()]
            work_in_processes(_train_and_keep, tasks, self.jobs, report)
        read = {name: self._read(spec) for name, spec in wanted.items()}
        for name, run in read.items():
            self.seconds_used += run["seconds"]
            self.commits_used.add(run["commit"])
            if run.get("first_batch"):  # a run of older code has none
                self.batches_used[_batch_name(wanted[name].config)] = run["first_batch"]
        return [read[spec.digest]["outcome"] for spec in specs]

    def _file(self, spec: Spec) -> Path:
        return self.path / f"{spec.digest}.json"

    def _read(self, spec: Spec) -> dict[str, Any]:
        run = read_json(self._file(spec))
        refuse_other_flags(self._file(spec), run.get("flags", {}))
        return run


def _train_and_keep(specs: Sequence[Spec], path: Path) -> None:
    _keep_compiled(path)
    for spec in specs:
        started = time.perf_counter()
        outcome = train_spec(spec)
        run = {
            "spec": dataclasses.asdict(spec),
            "outcome": outcome,
            "seconds": time.perf_counter() - started,
            "commit": environment()["commit"],
            "flags": changed_flags(),
            "first_batch": _first_batch(spec),
        }
        write_json(path / f"{spec.digest}.json", run)


def _batch_name(config: RunConfig) -> str:
    preset = config.preset
    parts = config.data, config.unseen, config.seed, preset.batch_size, preset.image_size
    return "/".join(map(str, parts))


def _first_batch(spec: Spec) -> str | None:
    """Of what the data set gives as it stands; a change of it is tested by itself."""
    if spec.change or spec.data_options:
        return None
    config = spec.config
    return first_batch(config, load_once(config.data, config.preset.image_size))


def _keep_compiled(path: Path) -> None:
    """Lets all processes and studies share what was compiled; it takes 20 s a method."""
    known = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    if known is None:  # else the user has one
        jax.config.update("jax_compilation_cache_dir", str(path / "compiled"))


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a study is run with.

    Attributes:
      store: of the runs.
      seeds: how many; they are 0, 1, ...
      data: names of the data sets; a study takes those of its own that are among them.
      gradients: of a batch that every run may take, for each data set.
      watch: of the runs.
    """

    store: Store
    seeds: int = 5
    data: tuple[str, ...] = tuple(DATASETS)
    gradients: dict[str, int] = dataclasses.field(
        default_factory=lambda: {name: data.gradients for name, data in DATASETS.items()},
        hash=False,
    )
    watch: Watch = lambda done, total: None

    def outcomes(self, specs: Sequence[Spec]) -> list[dict[str, Any]]:
        """The outcome of every run; see `Store`."""
        return self.store.outcomes(specs, self.watch)
