"""Training runs for studies: each is kept by what it is, and shared by all studies.

A run is a `Run`, as `Spec` is one. Its outcome is a record in the store's folder, whose id
is the run's digest, so that a killed study goes on where it stopped and two studies that
need the same run train it once.
"""

import dataclasses
import functools
import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from experiments.config.run import RunConfig
from experiments.data import DATASETS, STUDIED
from experiments.files import read_json
from experiments.runs.claims import Claims
from experiments.runs.compiled import keep_compiled
from experiments.runs.node import run_node
from experiments.runs.plan import Outcome, Plan, Stop, Trainer
from experiments.runs.records import (
    FINISHED,
    GIVEN_UP,
    Record,
    Records,
    forget_given_up,
    records_in_files,
)
from experiments.runs.worker import RunFailedError, work
from experiments.training.numerics import changed_flags, environment, refuse_other_flags
from experiments.training.pattern import pattern

Watch = Callable[[int, int], None]


class Run(Protocol):
    """What is trained and measured: a frozen dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def config(self) -> RunConfig:
        """How it is trained."""
        ...

    @property
    def data_options(self) -> tuple[tuple[str, Any], ...]:
        """Of `load`, as (name, value)."""
        ...

    @property
    def digest(self) -> str:
        """Of all that its outcome follows from: the id of its record."""
        ...

    def train(self, folder: Path) -> dict[str, Any]:
        """Its outcome; what several runs need may be kept in the store's folder."""
        ...

    def first_batch(self) -> str | None:
        """A digest of the first batch that it draws; None where no other run draws it."""
        ...


class Store:
    """The runs of a folder.

    Args:
      path: the folder.
      jobs: processes that train at once.

    Attributes:
      seconds_used: of training, summed over the runs that were asked for, each once.
      commits_used: that those runs were trained with.
      configs_used: of those runs.
      batches_used: the first ones that those runs drew, `data/unseen/seed/examples/pixels`,
        and `/name=value` of wrong labels and open classes, -> digest, where nothing else
        was changed.
    """

    def __init__(self, path: Path, jobs: int = 1) -> None:
        self.path = path
        self.jobs = jobs
        self.seconds_used = 0.0
        self.commits_used: set[str] = set()
        self.configs_used: set[RunConfig] = set()
        self.batches_used: dict[str, str] = {}
        self._counted: set[str] = set()

    def outcomes(
        self, specs: Sequence[Run], watch: Watch = lambda done, total: None
    ) -> list[dict[str, Any]]:
        """The outcome of every run, trained where it is not there yet.

        Args:
          specs: of the runs; the same one may come twice.
          watch: called with (runs there, runs in all) whenever there are more.

        Returns:
          The outcomes, in the order of the specs.

        Raises:
          ValueError: a run was trained under other flags of JAX, or given up, for its
            process ended again and again.
        """
        wanted = {spec.digest: spec for spec in specs}
        kept = self._kept(wanted)
        watch(len(kept), len(wanted))
        missing = {name: spec for name, spec in wanted.items() if name not in kept}
        if missing:
            plan = _plan(self.path, missing)
            self._train(plan, lambda ended: watch(len(kept) + ended, len(wanted)))
            kept = self._kept(wanted)
            _refuse_given_up(plan, kept)
        for name, run in kept.items():
            if name not in self._counted:
                self.seconds_used += run["seconds"]
            self._counted.add(name)
            self.commits_used.add(run["commit"])
            self.configs_used.add(wanted[name].config)
            if run.get("first_batch"):  # a run of older code has none
                self.batches_used[_batch_name(wanted[name].config)] = run["first_batch"]
        return [kept[spec.digest]["outcome"] for spec in specs]

    def _kept(self, names: Iterable[str]) -> dict[str, Record]:
        """The runs of these that were trained, under the flags of now."""
        found = records_in_files(self.path / "records")
        # Before there were records, a run was a file of its own.
        old = {name: self.path / f"{name}.json" for name in names}
        found |= {n: (file, read_json(file)) for n, file in old.items() if file.exists()}
        ended = {name: found[name] for name in names if name in found}
        kept = {n: run for n, run in ended.items() if run[1].get("state") != GIVEN_UP}
        for file, run in kept.values():
            refuse_other_flags(file, run.get("flags", {}))
        return {name: run for name, (_, run) in kept.items()}

    def _train(self, plan: Plan, watch: Callable[[int], None]) -> None:
        claims, records, seen = Claims(plan.claims), Records(plan.records), [0]
        forget_given_up(plan.records, plan.runs.keys(), claims)
        for name in plan.runs:
            claims.forget(name)  # a call that was ended is no failure

        def report() -> None:
            records.refresh()
            ended = len(plan.runs.keys() & records.heads.keys())
            if ended != seen[0]:
                watch(ended)
            seen[0] = ended

        if self.jobs == 1:
            _train_here(plan, report)
        else:
            run_node(plan, self.jobs, watch=report)


def _plan(path: Path, runs: Mapping[str, Run]) -> Plan:
    """The runs of one method one after another: it is compiled once for all of them."""
    alike = defaultdict(list)
    for name, spec in runs.items():
        alike[pattern(spec.config)].append(name)
    return Plan(
        folder=path,
        runs={name: runs[name] for name in itertools.chain.from_iterable(alike.values())},
        open=functools.partial(_opened, path),
        place=functools.partial(_place, path),
        describe=_described,
    )


def _opened(path: Path) -> Trainer:
    return functools.partial(_train_and_measure, path)


def _place(path: Path, name: str, spec: Run) -> Path:
    """A run of a study keeps no checkpoint, and makes no folder."""
    return path / "runs" / name


def _described(spec: Run) -> dict[str, Any]:
    return {"spec": dataclasses.asdict(spec)}


def _train_and_measure(path: Path, spec: Run, folder: Path, stop: Stop) -> Outcome:
    started = time.perf_counter()
    outcome = spec.train(path)
    content = {
        "outcome": outcome,
        "seconds": time.perf_counter() - started,
        "commit": environment()["commit"],
        "flags": changed_flags(),
        "first_batch": spec.first_batch(),
    }
    return Outcome(FINISHED, content)


def _train_here(plan: Plan, report: Callable[[], None]) -> None:
    """Trains in this process; an error is that of the run itself."""
    keep_compiled(plan.folder / "compiled")
    try:
        work(plan, log=lambda line: report())
    except RunFailedError as failed:
        raise failed.__cause__ or failed from None


def _refuse_given_up(plan: Plan, kept: Collection[str]) -> None:
    given_up = [name for name in plan.runs if name not in kept]
    if given_up:
        config = plan.runs[given_up[0]].config
        raise ValueError(
            f"{len(given_up)} of {len(plan.runs)} runs were given up, for their process "
            f"ended again and again; the first is {config.name} on {config.data} "
            f"({given_up[0]}), and the logs in {plan.logs} say why. Where memory ran out, "
            "ask for fewer --jobs. The same command tries them again; what was finished "
            "is kept."
        )


def _batch_name(config: RunConfig) -> str:
    preset = config.preset
    parts = [config.data, config.unseen, config.seed, preset.batch_size, preset.image_size]
    decide = ["label_noise", "noisy_sources"] if preset.label_noise else []
    decide += ["open_classes", "class_order", "model"] if preset.open_classes else []
    parts += [f"{name}={getattr(preset, name)}" for name in decide]
    return "/".join(map(str, parts))


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a study is run with.

    Attributes:
      store: of the runs.
      seeds: how many; they are 0, 1, ...
      data: names of the data sets; a study takes those of its own that are among them.
      gradients: of a batch that every run may take, for each data set.
      watch: of the runs.
    """

    store: Store
    seeds: int = 10
    data: tuple[str, ...] = STUDIED
    gradients: dict[str, int] = dataclasses.field(
        default_factory=lambda: {name: data.gradients for name, data in DATASETS.items()},
        hash=False,
    )
    watch: Watch = lambda done, total: None

    def outcomes(self, specs: Sequence[Run]) -> list[dict[str, Any]]:
        """The outcome of every run; see `Store`."""
        return self.store.outcomes(specs, self.watch)
