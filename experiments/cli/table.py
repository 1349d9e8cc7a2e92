"""The command `table`: results beside the papers' numbers."""

import contextlib
from pathlib import Path
from typing import Annotated, Any

import typer

from experiments.config.protocols import find_protocol
from experiments.fields import check_known
from experiments.files import read_json
from experiments.results.beside_papers import domain_table, overview_table

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
    """Print results beside the papers' numbers; what is missing stays empty.

    Runs of different configurations stand in rows of their own, e.g. `sam (rho 0.1)`.
    """
    check_known("format", format, FORMATS)
    records = [record for path in results or [] for record in read_records(path)]
    if data:
        table = domain_table(records, data, rule=selection, part=part)
    else:
        table = overview_table(records, rule=selection, part=part)
    print(getattr(table, format)(), end="")


def read_records(path: Path) -> list[dict]:
    """The records in a `results.json`, or in the folder that holds one.

    Those of an older version, which do not say their config, get what the file says of it.

    Raises:
      ValueError: there is none, or it holds something else.
    """
    file = path / "results.json" if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"{path} holds no results.json of a comparison")
    results = read_json(file)
    records = results.get("records")
    if not isinstance(records, list) or not all(map(_is_record, records)):
        raise ValueError(f"{file} holds no records of a comparison")
    return [
        {"config": _config_of(record, results), **record, "file": str(file)}
        for record in records
    ]


def _is_record(value: Any) -> bool:
    names = {"method", "data", "unseen_domain", "seed"}
    return isinstance(value, dict) and names <= value.keys()


def _config_of(record: dict[str, Any], results: dict[str, Any]) -> dict[str, Any]:
    """What a file of an older version says of a record's config."""
    presets = [
        preset
        for preset in results.get("presets", [])
        if all(preset.get(name) == record[name] for name in preset.keys() & record.keys())
    ]
    config = {
        "preset": presets[0] if presets else {},
        "hyperparameters": results.get("hyperparameters", {}).get(record["method"], {}),
    }
    with contextlib.suppress(ValueError):  # a protocol that this version does not have
        name, protocol = find_protocol(record["data"], record.get("protocol"))
        config |= {"protocol": name, "checkpoint_every": protocol.checkpoint_every}
    return config
