"""Many small runs at once: one program trains runs that differ in seed and in numbers.

The states of the runs are stacked and the step is vmapped; the runs' numbers, training
images and keys of the batches come in as arrays. Each run keeps the folder that it would
have by itself.
"""

import contextlib
import functools
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import disam_jax as dj
from experiments.config.run import RunConfig
from experiments.data import DomainData
from experiments.data.batches import DRAWS, TrainingImages
from experiments.data.prepare import Prepared
from experiments.devices import one_device
from experiments.fields import check_at_least
from experiments.models.tuning import Params
from experiments.training.compare import Outcome, Watch
from experiments.training.feed import batch_examples, batch_key
from experiments.training.loop import take_window, windows
from experiments.training.metrics import RunDivergedError
from experiments.training.parts import unseen_positions
from experiments.training.pattern import Numbers, numbers_of, pattern
from experiments.training.program import Program, TrainState, make_program
from experiments.training.run import Run
from experiments.training.run_folder import RunFolder
from experiments.training.step import train_step

# A program that needs more than 32 MB for itself is slow on a CPU: the C library gives so
# much back after every step, and the kernel clears it anew. The small models here need
# some 100 bytes for each pixel of a batch, so 4 runs of emoji_styles are too many.
PIXELS_ON_CPU = 200_000


class Lane(NamedTuple):
    """What a step reads of a run, and where members of a population may differ.

    Attributes:
      numbers: of the run.
      frozen: its weights that are not trained.
      images: of the source domains.
      key: of the batches.
    """

    numbers: Numbers
    frozen: Params
    images: TrainingImages
    key: jax.Array


def make_lane(config: RunConfig, frozen: Params, images: TrainingImages) -> Lane:
    """What a step reads of a run of `config`, which is trained on these images."""
    return Lane(numbers_of(config), frozen, images, batch_key(config))


Step = Callable[[Lane, TrainState], tuple[TrainState, dj.Evaluation]]


def train_population(
    runs: Mapping[Path, RunConfig],
    data: DomainData | Prepared,
    watch: Watch = lambda config, step, line: None,
    lanes: int | None = None,
) -> dict[Path, Outcome]:
    """Trains runs together, each in its own folder and from its own last checkpoint.

    Runs train in one program where they have one `pattern`: they differ in nothing but
    seed, unseen domain and numbers. Their folders are those of `train`, to rounding: it
    does not matter which of the two begins a run, goes on with it or reads it. Runs that
    stand at an earlier step train first, until they stand where others wait.

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
        unseen_positions(config, data)
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
    for paths in populations.values():
        on_cpu = jax.default_backend() == "cpu"
        most = lanes or (lanes_on_cpu(runs[paths[0]], data) if on_cpu else len(paths))
        for start in range(0, len(paths), most):
            members = {path: runs[path] for path in paths[start : start + most]}
            outcomes |= _train_members(members, data, watch)
    return {path: outcomes[path] for path in runs}


def train_together(
    configs: Sequence[RunConfig], data: DomainData | Prepared, out: Path, watch: Watch
) -> list[Outcome]:
    """Trains the runs of a matrix as populations, for `run_matrix`."""
    paths = [out / "runs" / config.name for config in configs]
    runs = dict(zip(paths, configs, strict=True))
    outcomes = train_population(runs, data, watch)
    return [outcomes[path] for path in paths]


def lanes_on_cpu(config: RunConfig, data: DomainData) -> int:
    """How many runs like this one a program trains there, at least 2."""
    preset = config.preset
    examples = batch_examples(config, data)
    return max(2, PIXELS_ON_CPU // (examples * preset.image_size**2))


def lane_step(program: Program, flip: bool) -> Step:
    """The step of a member, (lane, state) -> (state, evaluation), not compiled.

    It draws its own batch.

    Args:
      program: of the members' pattern; the numbers of a lane stand in for its own.
      flip: whether half of the images are mirrored.
    """
    preset = program.preset

    def step(lane: Lane, state: TrainState) -> tuple[TrainState, dj.Evaluation]:
        batch = DRAWS[preset.batching](
            lane.images, lane.key, state.step, preset.batch_size, preset.shift, flip
        )
        own = program.with_numbers(lane.numbers)
        return train_step(own, lane.frozen, state, batch)

    return step


@functools.lru_cache(maxsize=16)
def compile_population(program: Program, flip: bool) -> Step:
    """(lanes, states) -> (states, evaluations), all stacked; the states are donated."""
    return jax.jit(jax.vmap(lane_step(program, flip)), donate_argnums=1)


def _train_members(
    configs: Mapping[Path, RunConfig], data: DomainData, watch: Watch
) -> dict[Path, Outcome]:
    first = next(iter(configs.values()))
    program = make_program(first, data.classes, len(first.sources(data.domains)))
    step = compile_population(program, data.flip)
    layout = one_device()
    failures: dict[Run, RunDivergedError] = {}
    with contextlib.ExitStack() as opened:
        members: dict[Path, Run] = {}
        for path, config in configs.items():
            folder = contextlib.closing(RunFolder(path, config, layout))
            run = Run(config, data, opened.enter_context(folder), layout)
            members[path] = opened.enter_context(contextlib.closing(run))
        while training := [
            run
            for run in members.values()
            if run not in failures and run.done < first.preset.steps
        ]:
            done = min(run.done for run in training)
            behind = [run for run in training if run.done == done]
            failures |= _take_stretch(step, behind, watch)
        return {path: failures.get(run) or _finished(run) for path, run in members.items()}


def _finished(run: Run) -> Outcome:
    try:
        return run.finish()
    except RunDivergedError as error:
        return error


def _take_stretch(
    step: Step, members: list[Run], watch: Watch
) -> dict[Run, RunDivergedError]:
    """Trains members that stand at one step until their next checkpoint.

    Returns:
      The members that diverged, each with its error.
    """
    alive, failures = dict(enumerate(members)), {}
    lanes = stack(
        [
            make_lane(run.config, run.frozen, run.feed.images)
            for run in members
            if run.feed.images  # held in memory
        ]
    )
    states = stack([run.state for run in members])
    config = members[0].config
    for size, stop in windows(members[0].done, config.logged_steps):
        started = time.perf_counter()
        states, evaluations = take_window(functools.partial(step, lanes), states, size)
        seconds = (time.perf_counter() - started) / len(members)
        for i, run in list(alive.items()):
            try:
                line = run.log_window([_of_lane(seen, i) for seen in evaluations], seconds)
            except RunDivergedError as error:
                failures[run] = error
                del alive[i]
            else:
                watch(run.config, run.done, line)
        if config.is_checkpoint(stop) or not alive:
            break
    for i, run in alive.items():
        run.state = _of_lane_jitted(states, i)
        try:
            run.checkpoint()
        except RunDivergedError as error:
            failures[run] = error
    return failures


def stack(trees: Sequence[Any]) -> Any:
    """Trees of one structure as one, their leaves with one more axis in front."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _of_lane(stacked: Any, i: int | jax.Array) -> Any:
    return jax.tree.map(lambda leaf: leaf[i], stacked)


_of_lane_jitted = jax.jit(_of_lane)  # one call for all leaves
