"""The command `table`: results beside the papers' numbers."""

import json
from pathlib import Path
from typing import Annotated

import typer

from experiments.fields import check_known
from experiments.table import domain_table, overview_table

FORMATS = ("markdown", "csv", "latex")


def table_command(
    results: Annotated[
        list[Path] | None,
        typer.Argument(help="results.json of comparisons, or their folders."),
    ] = None,
    data: Annotated[
        str, typer.Option(help="Data set by domain (default: an overview of all).")
    ] = "",
    selection: Annotated[
        str,
        typer.Option(help="training_domain_validation, oracle, last_step or swad."),
    ] = "training_domain_validation",
    part: Annotated[
        str, typer.Option(help="in_split, as the papers, or whole.")
    ] = "in_split",
    format: Annotated[str, typer.Option(help="markdown, csv or latex.")] = "markdown",
) -> None:
    """Print results beside the papers' numbers; what is missing stays empty."""
    check_known("format", format, FORMATS)
    records = [record for path in results or [] for record in read_records(path)]
    if data:
        table = domain_table(records, data, rule=selection, part=part)
    else:
        table = overview_table(records, rule=selection, part=part)
    print(getattr(table, format)(), end="")


def read_records(path: Path) -> list[dict]:
    """The records in a `results.json`, or in the folder that holds one.

    Raises:
      ValueError: there is none.
    """
    file = path / "results.json" if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"{path} holds no results.json of a comparison")
    return json.loads(file.read_text())["records"]
