"""The command `table`: results beside the papers' numbers."""

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from experiments.cli.console import tell
from experiments.cli.options import split
from experiments.config.protocols import find_protocol
from experiments.fields import check_known
from experiments.files import read_json
from experiments.models.registry import TUNINGS
from experiments.results.beside_papers import domain_table, overview_table
from experiments.results.configurations import RULES
from experiments.results.domainbed import SOURCE, is_domainbed, read_domainbed
from experiments.results.over_draws import count_states, select_over_draws
from experiments.results.summary import Records
from experiments.runs.records import read_records as read_ended
from experiments.runs.sweep import Sweep, is_sweep, read_sweep

FORMATS = ("markdown", "csv", "latex")


def table_command(
    results: Annotated[
        list[Path] | None,
        typer.Argument(
            help="results.json of comparisons, their folders, or sweeps'; DomainBed's "
            "folders of results beside either."
        ),
    ] = None,
    data: Annotated[
        str,
        typer.Option(
            help="Data set by domain (default: a sweep's or DomainBed's, else an overview)."
        ),
    ] = "",
    selection: Annotated[
        str,
        typer.Option(
            help="training_domain_validation, oracle; last_step, swad, bma of a "
            "comparison; leave_one_domain_out of a sweep or DomainBed's."
        ),
    ] = "training_domain_validation",
    spread: Annotated[
        str, typer.Option(help="Behind ±: std, of a sample, or domainbed, its error.")
    ] = "std",
    part: Annotated[
        str,
        typer.Option(
            help="Of the unseen domain: scored, what was not trained on (of folders 80 %, "
            "as the papers); in_split, 80 % whatever was trained on; whole. With open "
            "classes: total, base, new, harmonic, base_within, new_within."
        ),
    ] = "scored",
    tuning: Annotated[
        str, typer.Option(help="Of the methods shown, with commas between (default: all).")
    ] = "",
    format: Annotated[str, typer.Option(help="markdown, csv or latex.")] = "markdown",
) -> None:
    """Print results beside the papers' numbers; what is missing stays empty.

    Runs of different configurations stand in rows of their own, e.g. `sam (rho 0.1)`.
    """
    check_known("format", format, FORMATS)
    paths = results or []
    readers = [_reader(path) for path in paths]
    if _read_sweep in readers and _read_comparison in readers:
        raise ValueError(
            f"{paths[readers.index(_read_sweep)]} holds a sweep, and others a comparison: "
            "print a table of each."
        )
    theirs = [path for path, read in zip(paths, readers, strict=True) if not read]
    found = [read(p, selection) for p, read in zip(paths, readers, strict=True) if read]
    if theirs:
        found.append(_read_domainbed(theirs, selection))
    records = [record for several, _ in found for record in several]
    of_draws = set() if _read_comparison in readers else {r["data"] for r in records}
    tunings = split(tuning)
    for name in tunings:
        check_known("tuning", name, TUNINGS)
    shown: dict[str, Any] = {"rule": selection, "part": part, "spread": spread}
    shown["tunings"] = tunings
    if data or len(of_draws) == 1:
        table = domain_table(records, data or of_draws.pop(), **shown)
    else:
        table = overview_table(records, **shown)
    caption = " ".join([table.caption, *(note for _, note in found if note)])
    print(getattr(dataclasses.replace(table, caption=caption), format)(), end="")


def _reader(path: Path) -> Callable[[Path, str], tuple[Records, str]] | None:
    """What reads the records of a path, by what is there; DomainBed's are read together."""
    if is_sweep(path):
        return _read_sweep
    return None if is_domainbed(path) else _read_comparison


def _read_sweep(path: Path, rule: str) -> tuple[Records, str]:
    """The selected records, and what a caption says of the sweep."""
    ended = read_ended(path / "records").values()
    sweep, states = read_sweep(path), count_states(ended)
    note = (
        f"{path}: {sweep.draws} draws x {sweep.trials} trials, {states['finished']} of "
        f"{len(sweep.runs)} runs finished, {states['diverged']} diverged, "
        f"{states['given up']} given up."
    )
    selected = select_over_draws(ended, rule)
    if not selected:
        raise ValueError(f"{rule} has nothing to select from yet. {note}")
    return [
        {**record, **_planned(sweep, record["method"]), "file": str(path)}
        for record in selected
    ], note


def _planned(sweep: Sweep, method: str) -> dict[str, Any]:
    """What tells a sweep's runs of a method from another sweep's, beside what was drawn."""
    config = sweep.methods[method]
    drawn = {"space": sweep.space, "draws": sweep.draws}
    return {"tuning": config["preset"]["tuning"], "config": {**config, **drawn}}


def _read_domainbed(paths: list[Path], rule: str) -> tuple[Records, str]:
    """The records selected of DomainBed's runs, and what a caption says of them."""
    ended, unfinished = read_domainbed(*paths)
    named = ", ".join(map(str, paths))
    note = f"{SOURCE}: {named}, {len(ended)} finished runs, {len(unfinished)} left out."
    if unfinished:
        left = ", ".join(unfinished)
        tell("warning", f"left out, without a file `done`: {left}.", "yellow")
    selected = select_over_draws(ended, rule)
    if not selected:
        raise ValueError(f"{rule} has nothing to select from. {note}")
    return [{**record, "source": SOURCE, "file": named} for record in selected], note


def _read_comparison(path: Path, rule: str) -> tuple[Records, str]:
    """The records, and no more to say of them."""
    records = read_records(path)
    if rule == "leave_one_domain_out":
        raise ValueError(
            f"leave_one_domain_out needs a sweep made with --pairs; {path} is a comparison."
        )
    return records, ""


def read_records(path: Path) -> list[dict]:
    """The records in a `results.json`, or in the folder that holds one.

    Those of an older version, which do not say their config, get what the file says of it.

    Raises:
      ValueError: there is none, or it holds something else.
    """
    file = path / "results.json" if path.is_dir() else path
    if not file.is_file():
        raise ValueError(
            f"{path} holds no results.json of a comparison, no sweep, and no folder with a "
            "results.jsonl of DomainBed's."
        )
    results = read_json(file)
    records = results.get("records")
    if not isinstance(records, list) or not all(map(_is_record, records)):
        raise ValueError(f"{file} holds no records of a comparison")
    return [
        {"config": _config_of(record, results), **record, "file": str(file)}
        for record in records
    ]


def _is_record(value: Any) -> bool:
    """Whether it says whose it is, and of a selection rule what the rule chose."""
    names = {"method", "data", "unseen_domain", "seed"}
    return (
        isinstance(value, dict)
        and names <= value.keys()
        and all(isinstance(value.get(rule, {}), dict) for rule in RULES)
    )


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
