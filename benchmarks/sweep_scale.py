"""What a sweep of 100,000 runs costs to look at: files opened, bytes, processor time.

The records are made up, in the form that real ones have; nothing is trained.
"""

import contextlib
import datetime
import functools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from experiments.data import load
from experiments.data.opening import Where
from experiments.files import write_json
from experiments.methods.registry import METHODS
from experiments.results.beside_papers import domain_table
from experiments.results.over_draws import RULES, select_over_draws
from experiments.runs.claims import Claims
from experiments.runs.records import FINISHED, read_records
from experiments.runs.status import read_status
from experiments.runs.sweep import Sweep, SweepRun, keep_sweep, read_sweep
from experiments.runs.sweep_planning import make_sweep
from experiments.runs.sweep_training import sweep_plan
from experiments.training.numerics import environment

FILES = 100  # of records, as of so many processes
EVALUATIONS = 6
CLAIMED = 1000

_watched: list[tuple[str, list[str]]] = []


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _watched:
        root, opened = _watched[-1]
        if str(arguments[0]).startswith(root):
            opened.append(str(arguments[0]))


@functools.cache  # a hook cannot be taken off again
def _listen() -> None:
    sys.addaudithook(_hear)


@contextlib.contextmanager
def opened_under(root: Path) -> Iterator[list[str]]:
    """The files under a folder that are opened in the block, as often as they are."""
    _listen()
    opened: list[str] = []
    _watched.append((str(root), opened))
    try:
        yield opened
    finally:
        _watched.pop()


def make_up(folder: Path, draws: int, files: int = FILES) -> Sweep:
    """A finished sweep of all methods, pairs too, that nothing was trained for.

    Args:
      folder: that it is written to.
      draws: of each method and trial; 43 make 100,233 runs.
      files: of records.

    Returns:
      The sweep.
    """
    data = load("rotated_digits")
    sweep = make_sweep(
        data, Where(), methods=list(METHODS), draws=draws, trials=3, pairs=True
    )
    keep_sweep(folder, sweep)
    (folder / "records").mkdir()
    random = np.random.default_rng(0)
    names = np.array_split(list(sweep.runs), files)
    for i, own in enumerate(names):
        lines = (_line(sweep, str(name), sweep.runs[str(name)], random) for name in own)
        (folder / "records" / f"node-{i}.jsonl").write_text("".join(lines))
    return sweep


def _line(sweep: Sweep, name: str, run: SweepRun, random: np.random.Generator) -> str:
    columns = {"step": [50 * (i + 1) for i in range(EVALUATIONS)]}
    accuracies = [f"out_split_accuracy/{domain}" for domain in sweep.domains]
    parts = ("in_split", "scored")
    accuracies += [f"{part}_accuracy/{d}" for part in parts for d in run.unseen]
    whole = ("in_domain", "unseen_concept", "out_of_domain", "validation")
    for column in (*accuracies, *(f"{name}_accuracy" for name in whole)):
        columns[column] = list(random.integers(0, 240, EVALUATIONS) / 240)
    ended = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    head = {"id": name, "state": FINISHED, "ended": ended, "node": "node-1"}
    return json.dumps({**head, **sweep.describe(run), "evaluations": columns}) + "\n"


def run(draws: int) -> dict[str, Any]:
    """Makes a sweep up, and looks at it in every way.

    Args:
      draws: of each method and trial.

    Returns:
      `runs`, `bytes`, `files`, `records`, a list with `what`, `files_opened` and
      `cpu_seconds`; and `environment`.
    """
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made).resolve()
        records = []

        def measured(what: str, call: Callable[[], Any]) -> Any:
            started = time.process_time()
            with opened_under(folder) as opened:
                found = call()
            seconds = time.process_time() - started
            records.append(
                {"what": what, "files_opened": len(opened), "cpu_seconds": seconds}
            )
            return found

        make_up(folder, draws)
        sweep = measured("the plan, its runs and their ids", lambda: _planned(folder))
        measured("--status", lambda: read_status(sweep_plan(folder, sweep)))
        read = measured("all records", lambda: read_records(folder / "records"))
        for rule in RULES:
            measured(
                f"table by {rule}, of records that were read",
                lambda rule=rule: domain_table(
                    select_over_draws(list(read.values()), rule), sweep.data, rule=rule
                ),
            )
        claims = Claims(folder / "claims")
        names = list(sweep.runs)[:CLAIMED]
        measured(f"{CLAIMED} claims, taken and let go", lambda: _claim_all(claims, names))
        sizes = [file.stat().st_size for file in (folder / "records").iterdir()]
        return {
            "runs": len(sweep.runs),
            "bytes": sum(sizes),
            "plan_bytes": (folder / "sweep.json").stat().st_size,
            "files": len(sizes),
            "records": records,
            "environment": environment(),
        }


def _claim_all(claims: Claims, names: Sequence[str]) -> None:
    for name in names:
        assert claims.take(name)
        claims.release(name)


def _planned(folder: Path) -> Sweep:
    sweep = read_sweep(folder)
    assert sweep.runs
    return sweep


def sweep_scale(
    out: Annotated[Path, typer.Option(help="FILE.json of the results.")],
    quick: Annotated[bool, typer.Option("--quick", help="Of 4,662 runs.")] = False,
) -> None:
    """Looks at a finished sweep of 100,233 made-up runs: files opened, processor time."""
    result = run(draws=2 if quick else 43)
    write_json(out, result)
    title = f"{result['runs']} runs, {result['bytes'] / 1e6:.0f} MB of records"
    table = Table("what", "files opened", "CPU seconds", title=title)
    for record in result["records"]:
        seconds = f"{record['cpu_seconds']:.1f}"
        table.add_row(record["what"], str(record["files_opened"]), seconds)
    Console().print(table)
