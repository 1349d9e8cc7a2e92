"""Many small runs at once: one program trains runs that differ in seed and in numbers.

The states of the runs are stacked and the step is vmapped; rho, alpha, lam, the learning
rate, the training images and the key of the batches come in as arrays. Each run keeps the
folder that it would have by itself.
"""

import contextlib
import dataclasses
import functools
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import disam_jax as dj
from experiments.config.run import RunConfig
from experiments.data import DomainData
from experiments.data.batches import DRAWS, Array, TrainingImages
from experiments.data.prepare import Prepared
from experiments.devices import one_device
from experiments.fields import check_at_least
from experiments.training.compare import Outcome, Watch
from experiments.training.feed import batch_examples, batch_key, make_feed
from experiments.training.first_batch import first_batch
from experiments.training.loop import evaluate, init_key, make_record, mend
from experiments.training.metrics import MetricsLog, RunDivergedError, train_line
from experiments.training.run_folder import RunFolder, environment
from experiments.training.step import (
    Program,
    TrainState,
    build_program,
    learning_rate_schedule,
    make_program,
)

# A program that needs more than 32 MB for itself is slow on a CPU: the C library gives so
# much back after every step, and the kernel clears it anew. The small models here need
# some 100 bytes for each pixel of a batch, so 4 runs of emoji_styles are too many.
PIXELS_ON_CPU = 200_000


class Lane(NamedTuple):
    """What a step reads of a run, and where members of a population may differ.

    Attributes:
      rho: float32 scalar.
      alpha: float32 scalar.
      lam: float32 scalar.
      learning_rate: float32 scalar, the peak of the schedule.
      sources: the training images.
      key: of the batches.
    """

    rho: jax.Array
    alpha: jax.Array
    lam: jax.Array
    learning_rate: jax.Array
    sources: TrainingImages
    key: jax.Array


def make_lane(config: RunConfig, sources: TrainingImages) -> Lane:
    """What a step reads of a run of `config`, whose training images are `sources`."""
    h, rate = config.hyperparameters, config.preset.learning_rate
    rho, alpha, lam, peak = map(jnp.float32, (h.rho, h.alpha, h.lam, rate))
    return Lane(rho, alpha, lam, peak, sources, batch_key(config))


Step = Callable[[Lane, TrainState], tuple[TrainState, dj.Evaluation]]


def train_population(
    runs: Mapping[Path, RunConfig],
    data: DomainData | Prepared,
    watch: Watch = lambda config, step, line: None,
    lanes: int | None = None,
) -> dict[Path, Outcome]:
    """Trains runs together, each in its own folder and from its own last checkpoint.

    Runs train in one program where they differ in nothing but seed, unseen domain, rho,
    alpha, lam and learning rate. Their folders are those of `train`, to rounding: it does
    not matter which of the two begins a run, goes on with it or reads it. Runs that stand
    at an earlier step train first, until they stand where others wait.

    A sweep over rho, three seeds each:

      runs = {
          Path(f"runs/sweep/rho{rho}/seed{seed}"): make_config(
              data="emoji_styles", method="sam", unseen="mono", seed=seed,
              overrides={"rho": rho},
          )
          for rho in (0.01, 0.02, 0.05, 0.1)
          for seed in range(3)
      }
      outcomes = train_population(runs, load("emoji_styles"))

    Args:
      runs: folder -> config.
      data: that the configs name, held in memory.
      watch: called with (config, steps done, metrics line) after every logged window.
      lanes: the most runs in one program, one such population after another; None is
        all of them, and on a CPU as many as `lanes_on_cpu` says.

    Returns:
      Folder -> the run's record, or the error of a run that diverged; it disturbs no
      other. The `seconds_per_step` of a record are the run's share of a step.

    Raises:
      ValueError: the data is on the disk, a run asks for SWAD or for a domain that the data
        has not, `lanes` is not positive, or a folder holds a run of another config.
    """
    if lanes is not None:
        check_at_least("lanes", lanes, 1)
    if isinstance(data, Prepared):
        raise ValueError(
            f"--vectorize needs images held in memory, and those of {data.name} are on the "
            "disk: leave --vectorize out."
        )
    for config in runs.values():
        data.domain_index(config.unseen)
        if config.preset.swad:
            raise ValueError(
                "--vectorize cannot average weights, and swad is True: leave --vectorize "
                "or --swad out."
            )
    outcomes: dict[Path, Outcome] = {}
    populations: dict[RunConfig, list[Path]] = defaultdict(list)
    for path, config in runs.items():
        with contextlib.closing(RunFolder(path, config, one_device())) as folder:
            record = folder.result()
        if record is None:
            populations[pattern(config)].append(path)
        else:
            outcomes[path] = record
    for common, paths in populations.items():
        on_cpu = jax.default_backend() == "cpu"
        most = lanes or (lanes_on_cpu(common, data) if on_cpu else len(paths))
        for start in range(0, len(paths), most):
            members = {path: runs[path] for path in paths[start : start + most]}
            outcomes |= _train_members(common, members, data, watch)
    return {path: outcomes[path] for path in runs}


def train_together(
    configs: Sequence[RunConfig], data: DomainData | Prepared, out: Path, watch: Watch
) -> list[Outcome]:
    """Trains the runs of a matrix as populations, for `run_matrix`."""
    paths = [out / "runs" / config.name for config in configs]
    runs = dict(zip(paths, configs, strict=True))
    outcomes = train_population(runs, data, watch)
    return [outcomes[path] for path in paths]


def pattern(config: RunConfig) -> RunConfig:
    """The config with all that members of a population may differ in made alike."""
    return dataclasses.replace(
        config,
        seed=0,
        unseen="",
        hyperparameters=dataclasses.replace(
            config.hyperparameters, rho=0.0, alpha=0.0, lam=0.0
        ),
        preset=dataclasses.replace(config.preset, learning_rate=1.0),
    )


def lanes_on_cpu(common: RunConfig, data: DomainData) -> int:
    """How many runs of a pattern one program trains there, at least 2."""
    preset = common.preset
    examples = batch_examples(common, data)
    return max(2, PIXELS_ON_CPU // (examples * preset.image_size**2))


def lane_step(common: RunConfig, num_classes: int, num_domains: int, flip: bool) -> Step:
    """Returns the step of one member of a population, which draws its own batch.

    Args:
      common: the pattern of the members.
      num_classes: length of the logits.
      num_domains: M, the source domains.
      flip: whether half of the images are mirrored.

    Returns:
      (lane, state) -> (state, evaluation), not compiled.
    """
    preset = common.preset

    def step(lane: Lane, state: TrainState) -> tuple[TrainState, dj.Evaluation]:
        hyperparameters = dataclasses.replace(
            common.hyperparameters, rho=lane.rho, alpha=lane.alpha, lam=lane.lam
        )
        program = build_program(
            common.method,
            hyperparameters,
            preset,
            num_classes,
            num_domains,
            lane.learning_rate,
        )
        batch = DRAWS[preset.batching](
            lane.sources, lane.key, state.step, preset.batch_size, preset.shift, flip
        )
        return program.train_step(state, batch)

    return step


@functools.lru_cache(maxsize=16)
def make_step(common: RunConfig, num_classes: int, num_domains: int, flip: bool) -> Step:
    """Returns the compiled step of a population, its arguments as `lane_step`'s.

    Returns:
      (lanes, states) -> (states, evaluations), all of them stacked; states are donated.
    """
    step = lane_step(common, num_classes, num_domains, flip)
    return jax.jit(jax.vmap(step), donate_argnums=1)


class Member:
    """A run of a population, between two of its checkpoints.

    Args:
      path: its folder.
      config: of the run.
      data: held in memory.
      program: of any member; first weights and predictions are the same for all.
      watch: see `train_population`.
    """

    def __init__(
        self,
        path: Path,
        config: RunConfig,
        data: DomainData,
        program: Program,
        watch: Watch,
    ) -> None:
        self.config = config
        self.failure: RunDivergedError | None = None
        self._data = data
        self._program = program
        self._watch = watch
        self._rate = learning_rate_schedule(config.preset)
        self._feed = make_feed(config, data)
        self._folder = RunFolder(path, config, one_device())
        self.state = self._folder.restore(program.init(init_key(config)))
        self.done = int(self.state.step)
        self._log = MetricsLog(path, self.done, one_device())
        self._times: list[float] = []

    @property
    def trains(self) -> bool:
        """Whether steps are missing that can be taken."""
        return self.failure is None and self.done < self.config.preset.steps

    def lane(self) -> Lane:
        """What its steps read."""
        assert self._feed.held is not None
        return make_lane(self.config, self._feed.held)

    def end_window(self, window: list[dj.Evaluation], seconds_per_step: float) -> None:
        """Logs a window of steps; one that is not finite ends the run."""
        self.done += len(window)
        self._times.append(seconds_per_step)
        rate = float(jnp.asarray(self._rate(self.done - 1)))
        try:
            half = self.config.preset.dtype == "float16"
            line = train_line(self.done, self._feed.sources, window, rate, half)
        except RunDivergedError as error:
            told = f"{self.config.name}: {error}.{mend(self._folder)}"
            self.failure = RunDivergedError(told)
            return
        self._log.write(line)
        self._watch(self.config, self.done, line)

    def end_stretch(self, state: TrainState) -> None:
        """Evaluates the state and keeps it."""
        self.state = state
        feed, unseen = self._feed, self.config.unseen
        self._log.write(evaluate("evaluation", unseen, self._program, state, feed))
        self._folder.save(state)

    def outcome(self) -> Outcome:
        """The record, or why there is none."""
        if self.failure:
            return self.failure
        # The first window compiles; it counts only where there is no other.
        times = self._times[1:] or self._times
        seconds = float(np.median(times)) if times else None
        record = make_record(self.config, self._log.lines, seconds)
        record["commit"] = environment()["commit"]
        record["first_batch"] = first_batch(self.config, self._data)
        self._folder.finish(record)
        return record

    def close(self) -> None:
        """Ends its files."""
        self._log.close()
        self._folder.close()


def _train_members(
    common: RunConfig, runs: Mapping[Path, RunConfig], data: DomainData, watch: Watch
) -> dict[Path, Outcome]:
    num_classes, num_domains = len(data.classes), len(data.domains) - 1
    step = make_step(common, num_classes, num_domains, data.flip)
    program = make_program(
        common.method, common.hyperparameters, common.preset, num_classes, num_domains
    )
    with contextlib.ExitStack() as opened:
        members = {
            path: opened.enter_context(
                contextlib.closing(Member(path, config, data, program, watch))
            )
            for path, config in runs.items()
        }
        while training := [member for member in members.values() if member.trains]:
            done = min(member.done for member in training)
            _take_stretch(step, [member for member in training if member.done == done])
        return {path: member.outcome() for path, member in members.items()}


def _take_stretch(step: Step, members: list[Member]) -> None:
    """Trains members that stand at one step until their next checkpoint."""
    config = members[0].config
    missing = config.preset.steps - members[0].done
    # Windows and checkpoints are counted back from the last step, as in `train`.
    last = missing - (missing % config.checkpoint_every or config.checkpoint_every)
    lanes = stack_lanes([member.lane() for member in members])
    states = stack([member.state for member in members])
    while missing > last and any(member.trains for member in members):
        size = missing % config.log_every or config.log_every
        started = time.perf_counter()
        window = []
        for _ in range(size):
            states, evaluations = step(lanes, states)
            window.append(evaluations)
        window = jax.device_get(window)
        seconds = (time.perf_counter() - started) / (size * len(members))
        missing -= size
        for i, member in enumerate(members):
            if not member.failure:
                member.end_window([_of_lane(seen, i) for seen in window], seconds)
    for i, member in enumerate(members):
        if not member.failure:
            member.end_stretch(_of_lane_jitted(states, i))


def stack(trees: Sequence[Any]) -> Any:
    """Trees of one structure as one, their leaves with one more axis in front."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def stack_lanes(lanes: Sequence[Lane]) -> Lane:
    """Stacked; fewer images are filled up behind the last, where no batch draws."""
    most = max(len(lane.sources.labels) for lane in lanes)

    def filled(x: Array) -> jax.Array:
        return jnp.pad(x, [(0, most - len(x))] + [(0, 0)] * (x.ndim - 1))

    def widened(sources: TrainingImages) -> TrainingImages:
        images, labels = filled(sources.images), filled(sources.labels)
        return sources._replace(images=images, labels=labels)

    return stack([lane._replace(sources=widened(lane.sources)) for lane in lanes])


def _of_lane(stacked: Any, i: int | jax.Array) -> Any:
    return jax.tree.map(lambda leaf: leaf[i], stacked)


_of_lane_jitted = jax.jit(_of_lane)  # one call for all leaves
