"""The command line: `python -m experiments train | compare | prepare | table | ...`."""

import itertools
import logging
import shlex
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from experiments.cli import data as cli_data
from experiments.cli import machines as cli_machines
from experiments.cli import studies as cli_studies
from experiments.cli.console import bars, console, line_without_bars, tell
from experiments.cli.errors import mendable
from experiments.cli.options import TRAINING, Machines, Where, with_options
from experiments.cli.table import table_command
from experiments.config.run import RunConfig, make_config
from experiments.methods.registry import find_method, known_methods
from experiments.results.report import HEADLINE, write_report
from experiments.training.compare import one_after_another, run_matrix, write_results
from experiments.training.feed import batch_examples, with_steps
from experiments.training.loop import train
from experiments.training.metrics import RunDivergedError
from experiments.training.population import train_together

app = typer.Typer(
    help="Leave-one-domain-out experiments with sharpness-aware training.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
cli_data.add_to(app)
cli_studies.add_to(app)
app.command("table")(table_command)

Data = Annotated[str, typer.Option(help="Data set; `datasets` lists them.")]
ProtocolName = Annotated[
    str | None, typer.Option(help="Preset of the data set (default: its first).")
]


@app.command("train")
@with_options("where", Where)
@with_options("machines", Machines)
@with_options("overrides", *TRAINING)
def train_command(
    where: dict,
    machines: dict,
    overrides: dict,
    data: Data = "emoji_styles",
    protocol: ProtocolName = None,
    method: Annotated[str, typer.Option(help="Method; `methods` lists them.")] = "disam",
    unseen: Annotated[
        str, typer.Option(help="Domain to leave out (default: the last).")
    ] = "",
    seed: Annotated[int, typer.Option(help="Of weights, batches and hold-out.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/train"),
) -> None:
    """Train one method on all domains but one; run again, it goes on where it stopped."""
    layout = cli_machines.start(machines)
    opened = cli_machines.writer_first(
        layout,
        lambda: cli_data.open_for(data, protocol, overrides["image_size"], where),
    )
    config = make_config(
        data=data,
        method=method,
        unseen=unseen or opened.domains[-1],
        seed=seed,
        protocol=protocol,
        data_fingerprint=opened.fingerprint,
        overrides=overrides,
    )
    config = with_steps(config, opened)
    layout = cli_machines.fit(layout, machines, batch_examples(config, opened))
    with (
        cli_machines.all_or_none(layout),
        bars(layout) as progress,
    ):
        bar = progress.add_task(config.name, total=config.preset.steps, note="")

        def watch(step: int, line: dict) -> None:
            losses = [value for key, value in line.items() if key.startswith("loss/")]
            note = f"loss {sum(losses) / len(losses):.3f}"
            progress.update(bar, completed=step, note=note)
            steps = config.preset.steps
            if (steps - step) % config.checkpoint_every == 0:
                line_without_bars(f"{config.name}: step {step} of {steps}, {note}", layout)

        record = train(config, opened, out, watch, layout)
        progress.update(bar, completed=config.preset.steps)
    if not layout.writes:
        return
    table = Table("metric", "value", title=f"{config.name}, {config.preset.steps} steps")
    for name, value in record.items():
        if name.endswith("accuracy") or "_accuracy/" in name:
            table.add_row(name, f"{100 * value:.1f} %")
    console.print(table)
    console.print(_how(config))
    console.print(f"Everything is in {out}; TensorBoard: tensorboard --logdir {out}")


@app.command("compare")
@with_options("where", Where)
@with_options("machines", Machines)
@with_options("overrides", *TRAINING)
def compare_command(
    where: dict,
    machines: dict,
    overrides: dict,
    data: Data = "emoji_styles",
    protocol: ProtocolName = None,
    methods: Annotated[
        str, typer.Option(help="Methods, with commas between.")
    ] = "erm,sam,sagm,disam",
    unseen: Annotated[
        str, typer.Option(help="Domains to leave out, with commas between (default: all).")
    ] = "",
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 0, 1, ...")] = 3,
    out: Annotated[Path, typer.Option(help="Folder of the comparison.")] = Path(
        "runs/compare"
    ),
    gradients: Annotated[
        float | None,
        typer.Option(
            help="Gradients of a batch that every run may take, in place of steps: a "
            "method of 2 per step is trained for half as many steps as ERM."
        ),
    ] = None,
    vectorize: Annotated[
        bool,
        typer.Option(
            "--vectorize",
            help="Train the runs of a method in one program (data held in memory). "
            "On a CPU it helps small batches and harms models with convolutions.",
        ),
    ] = False,
) -> None:
    """Compare methods on every unseen domain; the same command finishes what is missing."""
    names = _split(methods)
    for name in names:
        find_method(name)
    layout = cli_machines.start(machines)
    opened = cli_machines.writer_first(
        layout,
        lambda: cli_data.open_for(data, protocol, overrides["image_size"], where),
    )
    domains = _split(unseen) or list(opened.domains)
    for domain in domains:
        opened.domain_index(domain)
    configs = [
        with_steps(
            make_config(
                data=data,
                method=method,
                unseen=domain,
                seed=seed,
                protocol=protocol,
                data_fingerprint=opened.fingerprint,
                overrides=overrides,
            ),
            opened,
            gradients,
        )
        for method, domain, seed in itertools.product(names, domains, range(seeds))
    ]
    layout = cli_machines.fit(layout, machines, batch_examples(configs[0], opened))
    total = sum(config.preset.steps for config in configs)
    if vectorize and layout.process_count > 1:
        raise ValueError(
            f"--vectorize trains in one process; got {layout.process_count}. Leave it, "
            "or the other processes, out."
        )
    command = "python -m experiments " + shlex.join(sys.argv[1:])
    started, finished = time.perf_counter(), {}
    with (
        cli_machines.all_or_none(layout),
        cli_machines.alone(layout, out),
        bars(layout) as progress,
    ):
        whole = progress.add_task(f"{len(configs)} runs", total=total, note="")

        def watch(config: RunConfig, step: int, line: dict) -> None:
            if step == config.preset.steps != finished.get(config.name):
                there = sum(c.preset.steps == finished.get(c.name) for c in configs)
                line_without_bars(
                    f"{config.name}: run {there + 1} of {len(configs)}", layout
                )
            finished[config.name] = step
            progress.update(whole, completed=sum(finished.values()), note=config.name)

        train_all = train_together if vectorize else one_after_another(layout)
        comparison = run_matrix(configs, opened, out, watch, train_all)
        rows = []
        if layout.writes:
            write_results(comparison, out, command)
            rows = write_report(comparison, out, command)
    if not layout.writes:
        raise typer.Exit(1 if comparison.failures else 0)
    if rows:
        title = f"{data}, seeds: {rows[0].seeds}, mean ± std"
        table = Table(title=title)
        for name, _ in HEADLINE:  # blanks for hyphens: a narrow terminal breaks lines there
            table.add_column(name.replace("-", " "), no_wrap=name == "method")
        for row in rows:
            table.add_row(*(cell(row) for _, cell in HEADLINE))
        console.print(table)
    console.print(_how(configs[0]))
    console.print(f"Report: {out / 'report.md'}   numbers: {out / 'results.json'}")
    console.print(_fuller(comparison.records, seeds, configs[0].preset.steps))
    console.print(f"This call took {time.perf_counter() - started:.0f} s.")
    if comparison.failures:
        for config, why in comparison.failures:
            console.print(f"{config.name} did not finish:", style="red", end=" ")
            console.print(why)
        raise typer.Exit(1)


@app.command("methods")
def methods_command() -> None:
    """List the methods, one name a line first."""
    methods = known_methods()
    width = max(map(len, methods))
    for name, method in methods.items():
        defaults = method.defaults
        values = ", ".join(f"{key} {getattr(defaults, key)}" for key in method.reads)
        print(f"{name:<{width}}  {method.description}{f' ({values})' if values else ''}")


def main() -> None:
    """Runs the command line; what the user can mend is one line, not a traceback."""
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax raises what it logs, too
    try:
        app()
    except Exception as error:
        told = mendable(error)
        if told is None:
            raise
        tell("error", told, "red")
        sys.exit(1 if isinstance(error, RunDivergedError) else 2)


def _split(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _how(config: RunConfig) -> str:
    preset = config.preset
    return (
        f"Protocol {config.protocol}: {preset.model}, weights {preset.weights}, "
        f"{preset.trained} trained, BatchNorm {preset.batch_norm}, {preset.dtype}."
    )


def _fuller(records: list[dict[str, Any]], seeds: int, steps: int) -> str:
    """What five times the steps and five seeds would take on this machine."""
    seconds = sum(record["seconds_per_step"] or 0.0 for record in records)
    minutes = seconds * 5 * steps * 5 / seeds / 60
    return (
        f"A fuller run, --seeds 5 --steps {5 * steps}, would take about {minutes:.0f} "
        "minutes on this machine."
    )
