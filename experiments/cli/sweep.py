"""The command `sweep`: draws of hyperparameters, on one machine or on many."""

import dataclasses
import itertools
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from experiments.cli.console import console, line_without_bars
from experiments.cli.data import open_for
from experiments.cli.options import (
    TRAINING,
    TrainedOn,
    split,
    split_methods,
    with_options,
)
from experiments.cli.signals import stopping_first
from experiments.data.opening import Where
from experiments.fields import check_known
from experiments.files import locked
from experiments.runs.claims import Claims
from experiments.runs.node import default_jobs, leaving_memory, run_node
from experiments.runs.plan import Plan
from experiments.runs.records import Records, forget_given_up
from experiments.runs.status import Status, read_status
from experiments.runs.sweep import Sweep, keep_sweep, read_sweep
from experiments.runs.sweep_planning import make_sweep
from experiments.runs.sweep_training import sweep_plan

ENGINES = ("local", "slurm", "ray")
COMMAND = "python -m experiments"


@dataclasses.dataclass(frozen=True)
class Asked:
    """The plan that is asked for; nothing where the folder's own goes on."""

    data: Annotated[
        str | None, typer.Option(help="Data set; begins a sweep. `datasets` lists them.")
    ] = None
    protocol: Annotated[
        str | None, typer.Option(help="Preset of the data set (default: its first).")
    ] = None
    methods: Annotated[
        str | None,
        typer.Option(help="Methods, commas between (default: erm,sam,sagm,disam)."),
    ] = None
    draws: Annotated[
        int | None, typer.Option(help="Of hyperparameters, the default one first (20).")
    ] = None
    trials: Annotated[int | None, typer.Option(help="Seeds 0, 1, ... (3).")] = None
    unseen: Annotated[
        str | None, typer.Option(help="Domains to leave out, commas between (all).")
    ] = None
    pairs: Annotated[
        bool | None,
        typer.Option(
            "--pairs", help="Leave out pairs too, as leave-one-domain-out selection needs."
        ),
    ] = None
    space: Annotated[
        str | None, typer.Option(help="domainbed, swad or a FILE.json (domainbed).")
    ] = None


@dataclasses.dataclass(frozen=True)
class Started:
    """Where, and by what, the runs are trained."""

    on: Annotated[str, typer.Option(help="local, slurm or ray.")] = "local"
    nodes: Annotated[int, typer.Option(min=1, help="On slurm or ray.")] = 1
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Processes of a node (default: one a GPU, or a core)."),
    ] = None
    slurm: Annotated[
        str, typer.Option(help="Of SLURM, KEY=VALUE,..., e.g. partition=gpu,time=720.")
    ] = ""
    node: Annotated[
        bool, typer.Option("--node", help="Be a node: what every engine starts.")
    ] = False


@with_options(asked=Asked, overrides=TRAINING, where=Where, started=Started)
def sweep_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Of the sweep.")],
    asked: Asked,
    overrides: dict[str, Any],
    where: Where,
    started: Started,
    status: Annotated[bool, typer.Option("--status", help="Tell how far it is.")] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Tell what it consists of, and train nothing.")
    ] = False,
    retry: Annotated[
        bool, typer.Option("--retry", help="Try again what was given up.")
    ] = False,
) -> None:
    """Search hyperparameters at random, as DomainBed; again, on any machine, goes on."""
    check_known("engine", started.on, ENGINES)
    with leaving_memory():
        if asked.data is not None:
            _begin(folder, asked, overrides, where)
        else:
            _refuse_without_data(asked, overrides, where)
        sweep = read_sweep(folder)
        planned = sweep_plan(folder, sweep)
    if retry:
        claims = Claims(planned.claims, planned.lease)
        forget_given_up(planned.records, planned.runs.keys(), claims)
    if plan:
        console.print(_plan_table(sweep))
    elif status:
        _print_status(planned, sweep, read_status(planned))
    elif started.on == "slurm":
        _submit(folder, started)
    elif started.on == "ray":
        _work_on_ray(planned, sweep, started)
    else:
        _work(planned, sweep, started)


def _begin(folder: Path, asked: Asked, overrides: dict[str, Any], where: Where) -> None:
    """Writes the plan, or sees that the folder has this one."""
    usual = "erm,sam,sagm,disam"
    methods = split_methods(usual if asked.methods is None else asked.methods)
    trained_on = TrainedOn(data=str(asked.data), protocol=asked.protocol)
    opened = open_for(trained_on, overrides, where)
    sweep = make_sweep(
        opened,
        where,
        methods=methods,
        draws=20 if asked.draws is None else asked.draws,
        trials=3 if asked.trials is None else asked.trials,
        unseen=split(asked.unseen or ""),
        pairs=bool(asked.pairs),
        space=asked.space or "domainbed",
        protocol=asked.protocol,
        overrides=overrides,
        command="python -m experiments " + shlex.join(sys.argv[1:]),
    )
    with locked(folder, wait=True, what="planning a sweep"):
        keep_sweep(folder, sweep)


def _refuse_without_data(asked: Asked, overrides: Mapping[str, Any], where: Where) -> None:
    given = [*_changed(asked), *overrides, *_changed(where)]
    if given:
        name = given[0].replace("_", "-")
        raise ValueError(
            f"--{name} is of a new sweep, which begins with --data NAME; a sweep that goes "
            "on has its plan in its folder. Give --data too, or leave it out."
        )


def _changed(options: Asked | Where) -> list[str]:
    """Those that were given; 0 may be one of them."""
    return [
        field.name
        for field in dataclasses.fields(options)
        if getattr(options, field.name) != field.default
    ]


def _work(plan: Plan, sweep: Sweep, started: Started) -> None:
    """Is a node, until nothing is left or a signal comes."""
    with stopping_first() as told, _shown(plan, started.node) as show:
        run_node(plan, started.jobs or default_jobs(), told, show)
    status = read_status(plan)
    _print_status(plan, sweep, status)
    if told():
        console.print("Stopped; the same command goes on.")
        raise typer.Exit(128 + told.number)
    if status.given_up and not started.node:  # a node has done what there was to do
        raise typer.Exit(1)


def _submit(folder: Path, started: Started) -> None:
    """Tops up the nodes that wait or run on SLURM."""
    from experiments.runs.engines import slurm

    options = dict(_key_and_value(given) for given in split(started.slurm))
    if started.jobs is not None:
        options.setdefault("cpus_per_task", str(started.jobs))
    there, submitted = slurm.start(
        folder, started.nodes, _node_command(folder, started), options
    )
    console.print(f"{there} nodes were there, {submitted} are submitted now.")
    console.print(
        f"How far it is: {COMMAND} sweep {shlex.quote(str(folder))} --status",
        soft_wrap=True,
    )


def _work_on_ray(plan: Plan, sweep: Sweep, started: Started) -> None:
    """Keeps nodes at work on Ray until nothing is left."""
    from experiments.runs.engines import ray

    jobs = started.jobs or 1
    command = _node_command(plan.folder, dataclasses.replace(started, jobs=jobs))
    failed = ray.start(started.nodes, command, jobs, console.print)
    _print_status(plan, sweep, read_status(plan))
    if failed:
        raise typer.Exit(1)


def _node_command(folder: Path, started: Started) -> list[str]:
    jobs = () if started.jobs is None else ("--jobs", str(started.jobs))
    place = str(folder.resolve())
    return [sys.executable, "-m", "experiments", "sweep", place, "--node", *jobs]


def _key_and_value(given: str) -> tuple[str, str]:
    key, _, value = given.partition("=")
    return key, value


@contextmanager
def _shown(plan: Plan, quiet: bool) -> Iterator[Callable[[], None]]:
    """A view that lives, or a line for each run that ended where there is no terminal."""
    records, seen = Records(plan.records), [read_status(plan)]

    def view() -> Group:
        bar = ProgressBar(seen[-1].total, seen[-1].ended)
        return Group(bar, seen[-1].counts(), seen[-1].speed())

    def show() -> None:
        seen.append(read_status(plan, records))
        if seen[-1].ended != seen[-2].ended and not quiet:
            line_without_bars(f"{seen[-1].ended} of {seen[-1].total}: {seen[-1].counts()}")
        del seen[:-1]

    live = Live(get_renderable=view, console=console, transient=True)
    with live if console.is_terminal and not quiet else nullcontext():
        yield show


def _print_status(plan: Plan, sweep: Sweep, status: Status) -> None:
    counts = f"{status.ended} of {status.total} runs ended: {status.counts()}."
    console.print(counts, f"{status.speed()}.", sep="\n", soft_wrap=True)
    for name in status.given_up:
        run = sweep.runs[name]
        console.print(
            f"Given up: {name}, {run.method} on {' and '.join(run.unseen)}, trial "
            f"{run.trial}, draw {run.draw}; see {plan.logs}.",
            style="red",
        )
    if status.finished:
        table = f"{COMMAND} table {shlex.quote(str(plan.folder))}"
        rule = "--selection training_domain_validation"
        console.print(f"The table: {table} {rule}", soft_wrap=True)


def _plan_table(sweep: Sweep) -> Table:
    """A row for each draw of a trial; what methods draw alike is one column."""
    tests = "tests, of one domain or two" if sweep.pairs else "unseen domains"
    title = (
        f"{len(sweep.runs)} runs: {len(sweep.methods)} methods x {sweep.draws} draws x "
        f"{sweep.trials} trials x {len(sweep.left_out)} {tests}, on {sweep.data}"
    )
    columns = _columns(sweep)
    table = Table("trial", "draw", *columns, title=title)
    for trial, draw in itertools.product(range(sweep.trials), range(sweep.draws)):
        cells = (column.get((trial, draw)) for column in columns.values())
        told = ("default" if cell is None else f"{cell:.4g}" for cell in cells)
        table.add_row(str(trial), str(draw), *told)
    return table


def _columns(sweep: Sweep) -> dict[str, dict[tuple[int, int], Any]]:
    """Name of a field, with its method where methods differ -> (trial, draw) -> value."""
    by_field: dict[str, dict[str, dict[tuple[int, int], Any]]] = {}
    at = list(itertools.product(range(sweep.trials), range(sweep.draws)))
    for method, (trial, draw) in itertools.product(sweep.methods, at):
        for name, value in sweep.drawn[method][trial][draw].items():
            own = by_field.setdefault(name.replace("_", " "), {}).setdefault(method, {})
            own[trial, draw] = value
    columns = {}
    for name, by_method in by_field.items():
        first, *others = by_method.values()
        if all(other == first for other in others) and len(by_method) > 1:
            columns[name] = first
        else:
            columns |= {f"{method} {name}": own for method, own in by_method.items()}
    return columns
