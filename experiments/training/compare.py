"""Methods x unseen domains x seeds, each a run in its own folder, gathered into records."""

import csv
import dataclasses
import functools
import io
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments.config.run import RunConfig, settings
from experiments.data import DomainData
from experiments.data.prepare import Prepared
from experiments.devices import Layout
from experiments.files import write_json, write_whole
from experiments.training.loop import train
from experiments.training.metrics import RunDivergedError, read_metrics
from experiments.training.numerics import changed_flags, environment
from experiments.training.run_folder import flatten, refuse_another_run

Watch = Callable[[RunConfig, int, dict[str, Any]], None]
Outcome = dict[str, Any] | RuntimeError  # the record of a run, or why there is none
TrainAll = Callable[
    [Sequence[RunConfig], DomainData | Prepared, Path, Watch], Iterable[Outcome]
]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes:
      configs: of the runs asked for, finished or not.
      records: one per finished run, in the order of the configs.
      failures: (run, reason) of the runs that diverged, or were given up.
      curves: run -> its lines of metrics.
      about: the data, what they are and what guessing would reach.
    """

    configs: list[RunConfig]
    records: list[dict[str, Any]]
    failures: list[tuple[RunConfig, str]]
    curves: dict[str, list[dict[str, Any]]]
    about: str = ""


def one_after_another(layout: Layout | None = None) -> TrainAll:
    """Trains the runs of a matrix by themselves, each under `out/runs`.

    Args:
      layout: the devices of each run; None is one.

    Returns:
      What trains them.
    """

    def train_all(
        configs: Sequence[RunConfig], data: DomainData | Prepared, out: Path, watch: Watch
    ) -> Iterator[Outcome]:
        for config in configs:
            progress = functools.partial(watch, config)
            try:
                yield train(config, data, out / "runs" / config.name, progress, layout)
            except RunDivergedError as error:
                yield error

    return train_all


def run_matrix(
    configs: Iterable[RunConfig],
    data: DomainData | Prepared,
    out: Path,
    watch: Watch = lambda config, step, line: None,
    train_all: TrainAll | None = None,
) -> Comparison:
    """Finishes every run of the matrix under `out/runs`; finished ones are only read.

    Args:
      configs: of the runs.
      data: that they name.
      out: the folder of the comparison.
      watch: called with (config, steps done, metrics line) after every logged window.
      train_all: how the runs are trained; None is `one_after_another()`;
        `population.train_together` and `runs.matrix.side_by_side` are other ways.

    Returns:
      The comparison. A run that diverges is named among the failures and does not stop
      the others.

    Raises:
      ValueError: a run's folder holds a run of another config; nothing was trained.
    """
    configs = list(configs)
    for config in configs:
        refuse_another_run(out / "runs" / config.name, config)
    records, failures, curves = [], [], {}
    train_all = train_all or one_after_another()
    outcomes = train_all(configs, data, out, watch)
    for config, outcome in zip(configs, outcomes, strict=True):
        if isinstance(outcome, RuntimeError):
            failures.append((config, str(outcome)))
            continue
        setup = {"config": settings(config), "flags": changed_flags()}
        records.append(outcome | setup)
        watch(config, config.preset.steps, {})
        curves[config.name] = read_metrics(out / "runs" / config.name)
    return Comparison(configs, records, failures, curves, _about(data))


def _about(data: DomainData | Prepared) -> str:
    described = data.description if isinstance(data, DomainData) else ""
    classes = len(data.classes)
    guessed = f"{classes} classes: guessing is right in {100 / classes:.2g} %."
    return f"{described[:1].upper()}{described[1:]}. {guessed}" if described else guessed


def write_results(comparison: Comparison, out: Path, command: str) -> None:
    """Writes `results.json` and `results.csv`, each whole or not at all.

    Args:
      comparison: to write.
      out: the folder.
      command: that makes the results again.
    """
    presets = {
        json.dumps(dataclasses.asdict(c.preset), sort_keys=True) for c in comparison.configs
    }
    hyperparameters = {
        c.method: dataclasses.asdict(c.hyperparameters) for c in comparison.configs
    }
    write_json(
        out / "results.json",
        {
            "command": command,
            "records": comparison.records,
            "failures": [
                {"run": config.name, "reason": why} for config, why in comparison.failures
            ],
            "presets": [json.loads(text) for text in sorted(presets)],
            "hyperparameters": hyperparameters,
            "environment": environment(),
        },
    )
    write_whole(out / "results.csv", _as_csv(comparison.records))


def _as_csv(records: list[dict[str, Any]]) -> str:
    rows = [flatten(record) for record in records]
    columns = list(dict.fromkeys(itertools.chain.from_iterable(rows)))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
