"""How the runs of a sweep are trained, and what is kept of each."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.data import DomainData
from experiments.data.opening import Where, open_same_data
from experiments.data.prepare import Prepared
from experiments.runs.plan import Outcome, Plan, Stop, Trainer
from experiments.runs.records import DIVERGED, FINISHED
from experiments.runs.sweep import Sweep, SweepRun
from experiments.training.feed import with_steps
from experiments.training.loop import train_claimed
from experiments.training.metrics import RunDivergedError, read_metrics

OF_DOMAINS = ("out_split_accuracy/", "in_split_accuracy/", "scored_accuracy/")
OF_THE_RUN = (
    "step",
    "in_domain_accuracy",
    "unseen_concept_accuracy",
    "out_of_domain_accuracy",
    "validation_accuracy",
)
OF_THE_RECORD = (
    "swad",
    "bma",
    "gradients_per_step",
    "seconds_per_step",
    "commit",
    "first_batch",
)


def sweep_plan(folder: Path, sweep: Sweep) -> Plan:
    """The plan of the runs, to be trained in the folder."""
    return Plan(
        folder=folder,
        runs=sweep.runs,
        open=functools.partial(_open, sweep),
        place=functools.partial(_place, folder),
        describe=sweep.describe,
        lease=sweep.lease,
    )


def _place(folder: Path, run_id: str, run: SweepRun) -> Path:
    return folder / "runs" / run_id[:2] / run_id


def _open(sweep: Sweep) -> Trainer:
    """The data, and what trains on them."""
    first = next(iter(sweep.methods.values()))
    size, fingerprint = first["preset"]["image_size"], first["data_fingerprint"]
    data = open_same_data(sweep.data, size, _where(sweep), fingerprint)
    return functools.partial(_train, sweep, data)


def _where(sweep: Sweep) -> Where:
    paths = ("data_dir", "prepared_dir", "split_dir")
    values: dict[str, Any] = {
        name: Path(value) if name in paths else value for name, value in sweep.where.items()
    }
    return Where(**values)


def _train(
    sweep: Sweep, data: DomainData | Prepared, run: SweepRun, folder: Path, stop: Stop
) -> Outcome | None:
    config = with_steps(sweep.config(run), data)
    described = {"config": dataclasses.asdict(config)}
    try:
        record = train_claimed(config, data, folder, stop)
    except RunDivergedError as error:
        why = str(error).partition(". ")[0]
        return Outcome(DIVERGED, {**described, "why": why})
    if record is None:
        return None
    kept = {name: record[name] for name in OF_THE_RECORD if name in record}
    columns = evaluation_columns(read_metrics(folder))
    return Outcome(FINISHED, {**described, "evaluations": columns, **kept})


def evaluation_columns(lines: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The accuracies of a run's evaluations, a column for each."""
    evaluated = [line for line in lines if line["kind"] == "evaluation"]
    names = [
        name for name in evaluated[0] if name in OF_THE_RUN or name.startswith(OF_DOMAINS)
    ]
    return {name: [line[name] for line in evaluated] for name in names}
