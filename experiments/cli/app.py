"""The command line: `python -m experiments train | compare | sweep | table | ...`."""

import logging
import sys

import typer

from experiments.cli import data as cli_data
from experiments.cli import studies as cli_studies
from experiments.cli.compare import compare_command
from experiments.cli.console import tell
from experiments.cli.errors import mendable
from experiments.cli.sweep import sweep_command
from experiments.cli.table import table_command
from experiments.cli.train import train_command
from experiments.methods import known_methods
from experiments.training.metrics import RunDivergedError

app = typer.Typer(
    help="Leave-one-domain-out experiments with sharpness-aware training.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
cli_data.add_to(app)
cli_studies.add_to(app)
app.command("table")(table_command)
app.command("sweep")(sweep_command)
app.command("train")(train_command)
app.command("compare")(compare_command)


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
