"""What a step of a run costs when K runs train in one program, and when one after another.

The two take turns, round after round, as in `step_cost`. A step is all that training does
between two lines of the log: a batch is drawn and the state moves. A sweep is all of it,
with compilation, evaluations and checkpoints.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from experiments.config.run import RunConfig, make_config
from experiments.data import DomainData, load
from experiments.devices import one_device
from experiments.files import write_json
from experiments.training.feed import make_feed
from experiments.training.loop import train
from experiments.training.numerics import environment
from experiments.training.pattern import numbers_of
from experiments.training.population import (
    compile_population,
    make_lane,
    stack,
    train_population,
)
from experiments.training.program import begin, make_program
from experiments.training.run import init_key
from experiments.training.step import compile_predict, compile_step

METHOD = "disam"
MEMBERS = (1, 2, 4, 8, 16)


class Case(NamedTuple):
    """A training to measure; its model and batch size are the preset's by default."""

    data: str
    overrides: dict[str, Any]
    members: tuple[int, ...] = MEMBERS

    @property
    def config(self) -> RunConfig:
        """Of the first member."""
        return self.member(0)

    def member(self, seed: int, **changes: Any) -> RunConfig:
        """The run of a seed, on all domains but the last."""
        return make_config(
            data=self.data,
            method=METHOD,
            unseen=load(self.data).domains[-1],
            seed=seed,
            overrides=self.overrides | changes,
        )

    def opened(self) -> DomainData:
        """The data."""
        return load(self.data, image_size=self.config.preset.image_size)

    def described(self) -> dict[str, Any]:
        """What a record says of it."""
        preset = self.config.preset
        return {
            "data": self.data,
            "model": preset.model,
            "method": METHOD,
            "batch_size": preset.batch_size,
            "image_size": preset.image_size,
        }


# Small batches: there a step is short beside what it costs to start one. `resnet` has
# convolutions, which vmap makes convolutions in groups.
CASES = (
    Case("emoji_styles", {}),
    Case("rotated_digits", {}),
    Case("rotated_digits", {"batch_size": 4}),
    Case("rotated_digits", {"model": "resnet", "batch_size": 4}, (1, 2, 4)),
)
QUICK = tuple(case._replace(members=(1, 2, 4)) for case in CASES[:2])


def run(quick: bool) -> dict[str, Any]:
    """Measures every case.

    Args:
      quick: fewer members and rounds, within a minute on 2 cores.

    Returns:
      `records`, as `measure_steps` and `measure_sweep` return them, and `environment`.
    """
    records = []
    for case in track(QUICK if quick else CASES, description="steps"):
        records += measure_steps(case, rounds=5 if quick else 15, steps=5)
    if not quick:
        records.append(measure_sweep(CASES[1], members=4, rounds=3))
    return {"records": records, "environment": environment()}


def measure_steps(case: Case, rounds: int, steps: int) -> list[dict[str, Any]]:
    """One record per number of members.

    Args:
      case: the training.
      rounds: how often the two ways take turns.
      steps: steps of a way in its turn.

    Returns:
      Records with `milliseconds` of one step of one run in the population,
      `milliseconds_apart` by itself, `speedup` (median of the rounds' ratios),
      `speedup_low` and `_high` (quartiles) and `temporary_megabytes` of the program.
    """
    data = case.opened()
    apart = apart_turn(case.config, data)
    turns, temporary = {}, {}
    for members in case.members:
        turns[members], temporary[members] = together_turn(case, data, members)
    times = {members: [] for members in case.members}
    for turn in range(rounds + 1):
        for members, together in turns.items():
            pair = seconds(lambda: apart(steps)), seconds(lambda f=together: f(steps))
            if turn > 0:  # the first round warms up
                times[members].append((pair[0] / steps, pair[1] / steps / members))
    return [
        case.described()
        | {"what": "step", "members": members}
        | summary(found, "milliseconds", 1e3)
        | {"temporary_megabytes": temporary[members] / 1e6}
        for members, found in times.items()
    ]


def apart_turn(config: RunConfig, data: DomainData) -> Callable[[int], None]:
    """Takes steps of one run, as `train` does."""
    feed, layout = make_feed(config, data), one_device()
    program = make_program(config, data.classes, len(feed.sources))
    train_step, batches = compile_step(program, layout), feed.batches(0)
    numbers = layout.put(numbers_of(config), layout.replicated)
    first, frozen = begin(program, init_key(config), layout)
    held = [first]

    def take(steps: int) -> None:
        for _ in range(steps):
            held[0], _ = train_step(numbers, frozen, held[0], next(batches))
        jax.block_until_ready(held[0])

    return take


def together_turn(
    case: Case, data: DomainData, members: int
) -> tuple[Callable[[int], None], int]:
    """Takes steps of a population; and the bytes that its program needs for itself."""
    configs = [case.member(seed) for seed in range(members)]
    feeds = [make_feed(config, data) for config in configs]
    program = make_program(case.config, data.classes, len(feeds[0].sources))
    first = [begin(program, init_key(config), one_device()) for config in configs]
    lanes = stack(
        [
            make_lane(config, frozen, feed.images)
            for config, feed, (_, frozen) in zip(configs, feeds, first, strict=True)
            if feed.images
        ]
    )
    held = [stack([state for state, _ in first])]
    jitted = compile_population(program, data.flip)
    step = jitted.lower(lanes, held[0]).compile()  # pyright: ignore[reportFunctionMemberAccess]

    def take(steps: int) -> None:
        for _ in range(steps):
            held[0], _ = step(lanes, held[0])
        jax.block_until_ready(held[0])

    return take, step.memory_analysis().temp_size_in_bytes


def measure_sweep(case: Case, members: int, rounds: int) -> dict[str, Any]:
    """A whole sweep over rho, each value with a seed of its own, compilation included.

    Args:
      case: the training.
      members: runs of the sweep.
      rounds: how often the two ways take turns.

    Returns:
      A record with `seconds` of one run in the population, `seconds_apart` by itself, and
      `speedup` as in `measure_steps`.
    """
    data = case.opened()
    configs = [case.member(seed, rho=0.01 * (seed + 1)) for seed in range(members)]

    def apart(folder: Path) -> None:
        for i, config in enumerate(configs):
            train(config, data, folder / str(i))

    def together(folder: Path) -> None:
        runs = {folder / str(i): config for i, config in enumerate(configs)}
        train_population(runs, data)

    times = []
    for _ in range(rounds):
        pair = []
        for way in (apart, together):
            for compiled in (compile_step, compile_population, compile_predict):
                compiled.cache_clear()
            with tempfile.TemporaryDirectory() as folder:
                pair.append(seconds(lambda way=way, at=Path(folder): way(at)) / members)
        times.append(tuple(pair))
    described = case.described() | {"what": "sweep", "members": members}
    described["steps"] = case.config.preset.steps
    return described | summary(times, "seconds", 1.0)


def seconds(work: Callable[[], None]) -> float:
    """What it takes, by the clock."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def summary(
    times: list[tuple[float, float]], unit: str, per_second: float
) -> dict[str, float]:
    """Medians of (apart, together), and of their ratio with its quartiles."""
    ratios = [apart / together for apart, together in times]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {
        unit: per_second * statistics.median(together for _, together in times),
        f"{unit}_apart": per_second * statistics.median(apart for apart, _ in times),
        "speedup": middle,
        "speedup_low": low,
        "speedup_high": high,
    }


def population(
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    quick: Annotated[bool, typer.Option(help="Within a minute on 2 cores.")] = False,
) -> None:
    """Time of a run's step among K runs in one program, beside one run after another."""
    results = run(quick)
    write_json(out, results)
    table = Table("data", "model", "batch", "what", "K", "speed-up", "quartiles", "apart")
    for r in results["records"]:
        step = r["what"] == "step"
        table.add_row(
            r["data"],
            r["model"],
            str(r["batch_size"]),
            r["what"],
            str(r["members"]),
            f"{r['speedup']:.2f}",
            f"{r['speedup_low']:.2f}-{r['speedup_high']:.2f}",
            f"{r['milliseconds_apart']:.2f} ms" if step else f"{r['seconds_apart']:.1f} s",
        )
    Console().print(table)
