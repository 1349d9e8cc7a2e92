"""The command `compare`: methods on every unseen domain, with several seeds."""

import dataclasses
import itertools
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from experiments.cli import machines as cli_machines
from experiments.cli.console import bars, console, line_without_bars
from experiments.cli.data import open_for, protocol_line, warn_of_perturbations
from experiments.cli.options import (
    TRAINING,
    Machines,
    TrainedOn,
    split,
    split_methods,
    with_options,
)
from experiments.config.protocols import WRONG_LABELS
from experiments.config.run import RunConfig, make_config
from experiments.data import DomainData
from experiments.data.opening import Where
from experiments.data.prepare import Prepared
from experiments.devices import Layout
from experiments.results.report import headline, unfinished, verdict, write_report
from experiments.results.summary import Row
from experiments.runs.matrix import ENOUGH, SMALL, fitting_jobs, side_by_side
from experiments.runs.node import leaving_memory
from experiments.training.compare import (
    Comparison,
    TrainAll,
    one_after_another,
    run_matrix,
    write_results,
)
from experiments.training.feed import batch_examples, with_steps
from experiments.training.population import train_together

MORE = "More is better; differences are paired by seed, with 95 % intervals (Holm)."


@dataclasses.dataclass(frozen=True)
class Asked(TrainedOn):
    """The comparison that is asked for."""

    data: Annotated[
        str,
        typer.Option(
            help="Data set; `datasets` lists them (default: rotated_digits with wrong "
            "labels, where methods can be told apart in minutes)."
        ),
    ] = ""
    methods: Annotated[str, typer.Option(help="Methods, with commas between.")] = (
        "erm,sam,sagm,disam"
    )
    unseen: Annotated[
        str, typer.Option(help="Domains to leave out, with commas between (default: all).")
    ] = ""
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 0, 1, ...")] = 3
    out: Annotated[Path, typer.Option(help="Folder of the comparison.")] = Path(
        "runs/compare"
    )
    gradients: Annotated[
        float | None,
        typer.Option(
            help="Gradients of a batch that every run may take, in place of steps: a "
            "method of 2 per step is trained for half as many steps as ERM."
        ),
    ] = None
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Processes that train at once, each a run on a device of its own "
            "(default: 1; on a CPU, where a batch has fewer than "
            f"{SMALL:,} pixels, one for each core and each {ENOUGH:,} steps to take).",
        ),
    ] = None
    vectorize: Annotated[
        bool,
        typer.Option(
            "--vectorize",
            help="Train the runs of a method in one program (data held in memory). "
            "On a CPU it helps small batches and harms models with convolutions.",
        ),
    ] = False

    @property
    def at_once(self) -> int:
        """How many runs are trained at a time, each in a process of its own."""
        return self.jobs or 1


@with_options(asked=Asked, overrides=TRAINING, machines=Machines, where=Where)
def compare_command(
    asked: Asked, overrides: dict[str, Any], machines: Machines, where: Where
) -> None:
    """Compare methods on every unseen domain; the same command finishes what is missing."""
    if not asked.data:
        protocol = asked.protocol or WRONG_LABELS
        asked = dataclasses.replace(asked, data="rotated_digits", protocol=protocol)
    split_methods(asked.methods)  # what is wrong with it is said before data are opened
    _refuse_two_lengths(asked, overrides)
    layout = _start(asked, machines)
    opened = cli_machines.writer_first(layout, lambda: open_for(asked, overrides, where))
    configs = _configs(asked, overrides, opened)
    layout = cli_machines.fit(layout, machines, batch_examples(configs[0], opened))
    if asked.vectorize and layout.process_count > 1:
        raise ValueError(
            f"--vectorize trains in one process; got {layout.process_count}. Leave it, "
            "or the other processes, out."
        )
    if layout.writes:
        warn_of_perturbations(configs)
    started = time.perf_counter()
    if asked.jobs is None and not asked.vectorize and machines == Machines():
        jobs = fitting_jobs(configs, opened, layout)
        asked = dataclasses.replace(asked, jobs=jobs)
    train_all = _way_to_train(asked, where, layout)
    comparison, rows = _compare(asked, configs, opened, layout, train_all)
    if layout.writes:
        _print(asked, comparison, rows, time.perf_counter() - started)
    if comparison.failures or not layout.writes:
        raise typer.Exit(1 if comparison.failures else 0)


def _refuse_two_lengths(asked: Asked, overrides: dict[str, Any]) -> None:
    for name in ("steps", "epochs"):
        if asked.gradients is not None and overrides.get(name):
            raise ValueError(
                f"--gradients is {asked.gradients:g} and --{name} {overrides[name]:g}: a "
                "run's length is said by one of them; leave the other out."
            )


def _start(asked: Asked, machines: Machines) -> Layout:
    """The devices of this process; beside others that train it only looks at one."""
    if asked.at_once == 1:
        return cli_machines.start(machines)
    given = {
        "vectorize": asked.vectorize,
        "devices": machines.devices not in (None, 1),
        "parameters": machines.parameters != Machines.parameters,
        "distributed": machines.distributed,
        "coordinator": machines.coordinator,
        "processes": machines.processes,
        "process": machines.process is not None,
    }
    for name, value in given.items():
        if value:
            raise ValueError(
                f"--jobs {asked.jobs} trains every run in a process and on a device of "
                f"its own; leave --{name} out, or --jobs."
            )
    with leaving_memory():
        return cli_machines.start(dataclasses.replace(machines, devices=1))


def _way_to_train(asked: Asked, where: Where, layout: Layout) -> TrainAll:
    if asked.vectorize:
        return train_together
    if asked.at_once > 1:
        return side_by_side(asked.at_once, where)
    return one_after_another(layout)


def _configs(
    asked: Asked, overrides: dict[str, Any], data: DomainData | Prepared
) -> list[RunConfig]:
    """Every run: tunings by methods by unseen domains by seeds."""
    domains = split(asked.unseen) or list(data.domains)
    for domain in domains:
        data.domain_index(domain)
    tunings = split(overrides.get("tuning", "")) or [None]
    methods = split_methods(asked.methods)
    runs = itertools.product(tunings, methods, domains, range(asked.seeds))
    configs = [
        with_steps(
            make_config(
                data=asked.data,
                method=method,
                unseen=domain,
                seed=seed,
                protocol=asked.protocol,
                data_fingerprint=data.fingerprint,
                overrides={**overrides, "tuning": tuning},
            ),
            data,
            asked.gradients,
        )
        for tuning, method, domain, seed in runs
    ]
    # Where nothing is trained, all methods are one.
    return list({config.name: config for config in configs}.values())


def _compare(
    asked: Asked,
    configs: Sequence[RunConfig],
    data: DomainData | Prepared,
    layout: Layout,
    train_all: TrainAll,
) -> tuple[Comparison, list[Row]]:
    """The comparison, its files written, and the rows of its report."""
    command = "python -m experiments " + shlex.join(sys.argv[1:])
    total, finished = sum(config.preset.steps for config in configs), {}
    with (
        cli_machines.all_or_none(layout),
        cli_machines.alone(layout, asked.out),
        bars(layout) as progress,
    ):
        at_once = f", {asked.at_once} at once" if asked.at_once > 1 else ""
        bar = progress.add_task(f"{len(configs)} runs{at_once}", total=total, note="")

        def watch(config: RunConfig, step: int, line: dict) -> None:
            if step == config.preset.steps != finished.get(config.name):
                there = sum(c.preset.steps == finished.get(c.name) for c in configs)
                done = f"{config.name}: run {there + 1} of {len(configs)}"
                line_without_bars(done, layout)
            finished[config.name] = step
            progress.update(bar, completed=sum(finished.values()), note=config.name)

        comparison = run_matrix(configs, data, asked.out, watch, train_all)
        if not layout.writes:
            return comparison, []
        write_results(comparison, asked.out, command)
        return comparison, write_report(comparison, asked.out, command)


def _print(
    asked: Asked, comparison: Comparison, rows: Sequence[Row], seconds: float
) -> None:
    first, out = comparison.configs[0], asked.out
    if rows:
        console.print(_table(asked.data, rows))
        console.print(verdict(rows), style="bold")
        if missing := unfinished(comparison, rows):
            console.print(missing, style="red")
        console.print(comparison.about, MORE)
    console.print(protocol_line(first))
    console.print(f"Report: {out / 'report.md'}   numbers: {out / 'results.json'}")
    console.print(_fuller(comparison, asked))
    console.print(f"This call took {seconds:.0f} s.")
    for config, why in comparison.failures:
        console.print(f"{config.name} did not finish:", style="red", end=" ")
        console.print(why)


def _table(data: str, rows: Sequence[Row]) -> Table:
    title = f"{data}, seeds: {rows[0].seeds}, mean ± std"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    # Without the loss spread, which the report has, it fits into 80 columns.
    columns = [column for column in headline(rows) if column[0] != "loss spread"]
    for name, _ in columns:  # blanks for hyphens: a narrow terminal breaks lines there
        whole = name == "method" or name.startswith("less")
        table.add_column(name.replace("-", " "), no_wrap=whole)
    for row in rows:
        table.add_row(*(cell(row).replace("] ", "]\n") for _, cell in columns))
    return table


def _fuller(comparison: Comparison, asked: Asked) -> str:
    """What more seeds would take on this machine: intervals shrink with their number."""
    seconds = sum((r["seconds_per_step"] or 0.0) * r["steps"] for r in comparison.records)
    seeds = 2 * max(5, asked.seeds)
    minutes = seconds * seeds / asked.seeds / asked.at_once / 60
    return (
        f"A fuller run, --seeds {seeds}, would take about {minutes:.0f} minutes on this "
        "machine."
    )
