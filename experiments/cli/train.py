"""The command `train`: one run."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from experiments.cli import machines as cli_machines
from experiments.cli.console import bars, console, line_without_bars
from experiments.cli.data import open_for, protocol_line, warn_of_perturbations
from experiments.cli.options import TRAINING, Machines, TrainedOn, with_options
from experiments.config.run import RunConfig, make_config
from experiments.data import DomainData
from experiments.data.opening import Where
from experiments.data.prepare import Prepared
from experiments.devices import Layout
from experiments.training.feed import batch_examples, with_steps
from experiments.training.loop import train


@dataclasses.dataclass(frozen=True)
class Asked(TrainedOn):
    """The run that is asked for."""

    method: Annotated[str, typer.Option(help="Method; `methods` lists them.")] = "disam"
    unseen: Annotated[
        str, typer.Option(help="Domain to leave out (default: the last).")
    ] = ""
    seed: Annotated[int, typer.Option(help="Of weights, batches and hold-out.")] = 0
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/train")


@with_options(asked=Asked, overrides=TRAINING, machines=Machines, where=Where)
def train_command(
    asked: Asked, overrides: dict[str, Any], machines: Machines, where: Where
) -> None:
    """Train one method on all domains but one; run again, it goes on where it stopped."""
    layout = cli_machines.start(machines)
    opened = cli_machines.writer_first(layout, lambda: open_for(asked, overrides, where))
    config = make_config(
        data=asked.data,
        method=asked.method,
        unseen=asked.unseen or opened.domains[-1],
        seed=asked.seed,
        protocol=asked.protocol,
        data_fingerprint=opened.fingerprint,
        overrides=overrides,
    )
    config = with_steps(config, opened)
    layout = cli_machines.fit(layout, machines, batch_examples(config, opened))
    if layout.writes:
        warn_of_perturbations([config])
    record = _train(config, opened, asked.out, layout)
    if layout.writes:
        _print(config, record, asked.out)


def _train(
    config: RunConfig, data: DomainData | Prepared, out: Path, layout: Layout
) -> dict[str, Any]:
    """The record of the run, which is watched while it is made."""
    steps = config.preset.steps
    with cli_machines.all_or_none(layout), bars(layout) as progress:
        bar = progress.add_task(config.name, total=steps, note="")

        def watch(step: int, line: dict) -> None:
            losses = [value for key, value in line.items() if key.startswith("loss/")]
            note = f"loss {sum(losses) / len(losses):.3f}"
            progress.update(bar, completed=step, note=note)
            if config.is_checkpoint(step):
                line_without_bars(f"{config.name}: step {step} of {steps}, {note}", layout)

        record = train(config, data, out, watch, layout)
        progress.update(bar, completed=steps)
    return record


def _print(config: RunConfig, record: dict[str, Any], out: Path) -> None:
    table = Table("metric", "value", title=f"{config.name}, {config.preset.steps} steps")
    for name, value in record.items():
        if name.endswith("accuracy") or "_accuracy/" in name:
            table.add_row(name, f"{100 * value:.1f} %")
    console.print(table)
    if record.get("ascended"):
        console.print(
            f"{100 * record['ascended']:.0f} % of the steps ascended, by "
            f"{record['perturbation_norm']:.3g}; the cosine of the gradients at w and at "
            f"w + eps was {record['cosine']:.2f}."
        )
    console.print(protocol_line(config))
    console.print(f"Everything is in {out}; TensorBoard: tensorboard --logdir {out}")
