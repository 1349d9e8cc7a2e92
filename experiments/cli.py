"""The command line: `python -m experiments train | compare | methods | datasets`."""

import itertools
import shlex
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from experiments.compare import run_matrix, write_results
from experiments.config import PRESETS, make_config
from experiments.data import DATASETS
from experiments.methods import METHODS, find_method
from experiments.metrics import RunDivergedError
from experiments.report import headline_columns, write_report
from experiments.train import load_cached, train

app = typer.Typer(
    help="Leave-one-domain-out experiments with sharpness-aware training.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
console = Console()

Data = Annotated[str, typer.Option(help="Data set; `datasets` lists them.")]
Steps = Annotated[
    int | None, typer.Option(help="Optimizer steps (default: the data set's).")
]
Rho = Annotated[float | None, typer.Option(help="Radius (default: the method's).")]
Alpha = Annotated[
    float | None, typer.Option(help="Of SAGM and GSAM (default: the method's).")
]
Lam = Annotated[float | None, typer.Option(help="Of DISAM (default: the method's).")]
Model = Annotated[
    str | None, typer.Option(help="patchnet or resnet (default: the data set's).")
]
ImageSize = Annotated[
    int | None, typer.Option(help="Pixels along a side (default: the data set's).")
]
BatchSize = Annotated[
    int | None, typer.Option(help="Images of each domain (default: the data set's).")
]
Optimizer = Annotated[
    str | None, typer.Option(help="adamw or sgd (default: the data set's).")
]
LearningRate = Annotated[
    float | None, typer.Option(help="Peak of the schedule (default: the data set's).")
]
LogEvery = Annotated[
    int | None,
    typer.Option(help="Steps averaged into a line of the metrics (default: 10)."),
]
CheckpointEvery = Annotated[
    int | None,
    typer.Option(help="Steps between evaluations and checkpoints (default: 200)."),
]


@app.command("train")
def train_command(
    data: Data = "emoji_styles",
    method: Annotated[str, typer.Option(help="Method; `methods` lists them.")] = "disam",
    unseen: Annotated[
        str, typer.Option(help="Domain to leave out (default: the last).")
    ] = "",
    seed: Annotated[int, typer.Option(help="Of weights, batches and hold-out.")] = 0,
    steps: Steps = None,
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/train"),
    rho: Rho = None,
    alpha: Alpha = None,
    lam: Lam = None,
    model: Model = None,
    image_size: ImageSize = None,
    batch_size: BatchSize = None,
    optimizer: Optimizer = None,
    learning_rate: LearningRate = None,
    log_every: LogEvery = None,
    checkpoint_every: CheckpointEvery = None,
) -> None:
    """Train one method on all domains but one; run again, it goes on where it stopped."""
    overrides = _overrides(locals())
    config = make_config(
        data=data,
        method=method,
        unseen=unseen or _domains(data)[-1],
        seed=seed,
        overrides=overrides,
    )
    with _progress() as progress:
        bar = progress.add_task(config.name, total=config.preset.steps, loss="")

        def watch(step: int, line: dict) -> None:
            losses = [value for key, value in line.items() if key.startswith("loss/")]
            progress.update(
                bar, completed=step, loss=f"loss {sum(losses) / len(losses):.3f}"
            )

        record = train(config, out, watch)
        progress.update(bar, completed=config.preset.steps)
    table = Table("metric", "value", title=f"{config.name}, {config.preset.steps} steps")
    for name, value in record.items():
        if name.endswith("accuracy") or name.startswith("heldout_accuracy"):
            table.add_row(name, f"{100 * value:.1f} %")
    console.print(table)
    console.print(f"Everything is in {out}; TensorBoard: tensorboard --logdir {out}")


@app.command("compare")
def compare_command(
    data: Data = "emoji_styles",
    methods: Annotated[
        str, typer.Option(help="Methods, with commas between.")
    ] = "erm,sam,sagm,disam",
    unseen: Annotated[
        str, typer.Option(help="Domains to leave out, with commas between (default: all).")
    ] = "",
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 0, 1, ...")] = 3,
    steps: Steps = None,
    out: Annotated[Path, typer.Option(help="Folder of the comparison.")] = Path(
        "runs/compare"
    ),
    rho: Rho = None,
    alpha: Alpha = None,
    lam: Lam = None,
    model: Model = None,
    image_size: ImageSize = None,
    batch_size: BatchSize = None,
    optimizer: Optimizer = None,
    learning_rate: LearningRate = None,
    log_every: LogEvery = None,
    checkpoint_every: CheckpointEvery = None,
) -> None:
    """Compare methods on every unseen domain; the same command finishes what is missing."""
    overrides = _overrides(locals())
    domains = _split(unseen) or _domains(data)
    names = _split(methods)
    for name in names:
        find_method(name)
    for domain in domains:
        load_cached(data, image_size=overrides["image_size"]).domain_index(domain)
    matrix = list(itertools.product(names, domains, range(seeds)))
    configs = [
        make_config(data=data, method=m, unseen=d, seed=s, overrides=overrides)
        for m, d, s in matrix
    ]
    total = sum(config.preset.steps for config in configs)
    command = "python -m experiments " + shlex.join(sys.argv[1:])
    started, finished = time.perf_counter(), {}
    with _progress() as progress:
        whole = progress.add_task(f"{len(configs)} runs", total=total, loss="")

        def watch(config, step: int, line: dict) -> None:
            finished[config.name] = step
            progress.update(whole, completed=sum(finished.values()), loss=config.name)

        comparison = run_matrix(configs, out, watch)
    out.mkdir(parents=True, exist_ok=True)
    write_results(comparison, out, command)
    rows = write_report(comparison, out, command)
    if rows:
        columns = headline_columns(rows)
        title = f"{data}, seeds: {rows[0].seeds}, mean ± std"
        table = Table(title=title)
        for name, _ in columns:  # blanks for hyphens: a narrow terminal breaks lines there
            table.add_column(name.replace("-", " "), no_wrap=name == "method")
        for row in rows:
            table.add_row(*(cell(row) for _, cell in columns))
        console.print(table)
    console.print(f"Report: {out / 'report.md'}   numbers: {out / 'results.json'}")
    console.print(_fuller(rows, len(domains), configs[0].preset.steps))
    console.print(f"This call took {time.perf_counter() - started:.0f} s.")
    if comparison.failures:
        for config, why in comparison.failures:
            console.print(f"[red]{config.name} did not finish:[/red] {why}")
        raise typer.Exit(1)


@app.command("methods")
def methods_command() -> None:
    """List the methods, one name a line first."""
    width = max(map(len, METHODS))
    for name, method in METHODS.items():
        defaults = method.defaults
        values = ", ".join(f"{key} {getattr(defaults, key)}" for key in method.reads)
        print(f"{name:<{width}}  {method.description}{f' ({values})' if values else ''}")


@app.command("datasets")
def datasets_command() -> None:
    """List the data sets, one name a line first."""
    width = max(map(len, DATASETS))
    for name in DATASETS:
        data = load_cached(name, image_size=PRESETS[name].image_size)
        print(f"{name:<{width}}  {data.description} Domains: {', '.join(data.domains)}.")


def main() -> None:
    """Runs the command line; what the user can mend is one line, not a traceback."""
    try:
        app()
    except (ValueError, RunDivergedError) as error:
        Console(stderr=True).print(f"[red]error:[/red] {error}", highlight=False)
        sys.exit(2 if isinstance(error, ValueError) else 1)


def _overrides(arguments: dict) -> dict:
    names = (
        "steps", "rho", "alpha", "lam", "model", "image_size", "batch_size", "optimizer",
        "learning_rate", "log_every", "checkpoint_every",
    )  # fmt: skip
    return {name: arguments[name] for name in names}


def _split(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _domains(data: str) -> list[str]:
    return list(load_cached(data, image_size=None).domains)


def _fuller(rows: list, num_domains: int, steps: int) -> str:
    """What five times the steps and five seeds would take on this machine."""
    times = [row.seconds_per_step for row in rows if row.seconds_per_step]
    minutes = sum(times) * num_domains * 5 * 5 * steps / 60
    return (
        f"A fuller run, --seeds 5 --steps {5 * steps}, would take about {minutes:.0f} "
        "minutes on this machine."
    )


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[loss]}"),
        console=console,
    )
