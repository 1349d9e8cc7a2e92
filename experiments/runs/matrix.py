"""The runs of a comparison, trained side by side on this machine."""

import functools
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from experiments.config.run import RunConfig
from experiments.data import DomainData
from experiments.data.opening import Where, open_same_data
from experiments.data.prepare import Prepared
from experiments.devices import Layout
from experiments.fields import digest
from experiments.runs.cores import usable_cores
from experiments.runs.node import run_node
from experiments.runs.plan import Outcome, Plan, Stop, Trainer
from experiments.runs.records import DIVERGED, FINISHED, GIVEN_UP, read_records
from experiments.training import compare
from experiments.training.compare import TrainAll, Watch
from experiments.training.feed import batch_examples
from experiments.training.loop import train_claimed
from experiments.training.metrics import RunDivergedError
from experiments.training.run_folder import read_result

SMALL = 2**18  # pixels of a batch: one core is what a step of fewer keeps busy
ENOUGH = 1000  # steps that make up for the seconds in which a process begins and compiles


class RunGivenUpError(RuntimeError):
    """The process that trained a run ended again and again."""


def fitting_jobs(
    configs: Sequence[RunConfig], data: DomainData | Prepared, layout: Layout
) -> int:
    """How many processes train a matrix where nobody says it.

    On a CPU whose runs have small steps, of fewer than `SMALL` pixels, it is one for each
    core, and at least `ENOUGH` steps for each of them; else one for all.

    Args:
      configs: of the runs, finished or not.
      data: that they name.
      layout: the devices.

    Returns:
      The number, at least 1.
    """
    platforms = [device.platform for device in layout.devices]
    pixels = [batch_examples(c, data) * c.preset.image_size**2 for c in configs]
    if platforms != ["cpu"] or isinstance(data, Prepared) or max(pixels) >= SMALL:
        return 1
    steps = sum(config.preset.steps for config in configs)
    return max(1, min(usable_cores(), steps // ENOUGH))


def side_by_side(jobs: int, where: Where) -> TrainAll:
    """Trains the runs of a matrix in processes of a node, each run under `out/runs`.

    What the node keeps is in `out/node`, of one call alone: a run is finished where its
    folder says so. It stays, for its logs, where a run was given up or the node ended.

    Args:
      jobs: processes that train at once, a device each.
      where: the images are, which every process opens.

    Returns:
      What trains them; `watch` is called when a run is finished.
    """

    def train_all(
        configs: Sequence[RunConfig], data: DomainData | Prepared, out: Path, watch: Watch
    ) -> list[compare.Outcome]:
        plan = _plan(configs, data, where, out)
        if plan.folder.exists():
            shutil.rmtree(plan.folder)
        run_node(plan, jobs, watch=_told_of_finished(configs, out, watch))
        ended = read_records(plan.records)
        if all(record["state"] != GIVEN_UP for record in ended.values()):
            shutil.rmtree(plan.folder, ignore_errors=True)
        return [
            _result(out, config) or _failure(plan, ended[digest(config)])
            for config in configs
        ]

    return train_all


def _plan(
    configs: Sequence[RunConfig], data: DomainData | Prepared, where: Where, out: Path
) -> Plan:
    """The runs that are not finished."""
    first = configs[0]
    image_size = first.preset.image_size
    return Plan(
        folder=out / "node",
        runs={digest(c): c for c in configs if _result(out, c) is None},
        open=functools.partial(_open, first.data, image_size, where, data.fingerprint),
        place=functools.partial(_place, out),
        describe=_described,
        keeps_folders=True,
    )


def _place(out: Path, run_id: str, config: RunConfig) -> Path:
    return out / "runs" / config.name


def _result(out: Path, config: RunConfig) -> dict[str, Any] | None:
    return read_result(_place(out, digest(config), config))


def _described(config: RunConfig) -> dict[str, Any]:
    return {"run": config.name}


def _open(name: str, image_size: int, where: Where, fingerprint: str) -> Trainer:
    """The data, and what trains on them."""
    data = open_same_data(name, image_size, where, fingerprint)
    return functools.partial(_train, data)


def _train(
    data: DomainData | Prepared, config: RunConfig, folder: Path, stop: Stop
) -> Outcome | None:
    try:
        record = train_claimed(config, data, folder, stop)
    except RunDivergedError as error:
        return Outcome(DIVERGED, {"why": str(error)})
    return None if record is None else Outcome(FINISHED, {})


def _told_of_finished(
    configs: Iterable[RunConfig], out: Path, watch: Watch
) -> Callable[[], None]:
    """Calls `watch` for the runs that were finished since it was called last."""
    waiting = list(configs)

    def look() -> None:
        for config in list(waiting):
            if _result(out, config) is not None:
                waiting.remove(config)
                watch(config, config.preset.steps, {})

    return look


def _failure(plan: Plan, record: dict[str, Any]) -> RuntimeError:
    if record["state"] == DIVERGED:
        return RunDivergedError(record["why"])
    return RunGivenUpError(f"{record['why']} ({plan.logs})")
