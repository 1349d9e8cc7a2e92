"""A sweep: methods x draws of hyperparameters x trials x unseen domains, as a plan.

sweep.json        the plan, written once
records/          a line for every run that ended
claims/           of the runs that are being trained
runs/ab/ID        a run's folder, while it is trained
compiled/         compiled programs, by kind of machine
nodes/            a log for every node
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.config.preset import Preset
from experiments.config.run import RunConfig, replace_known
from experiments.fields import digest
from experiments.files import read_json, write_json
from experiments.methods.registry import Hyperparameters
from experiments.runs.claims import LEASE
from experiments.training.pattern import pattern

FILE = "sweep.json"


class SweepRun(NamedTuple):
    """A run of a sweep.

    Attributes:
      method: its name.
      trial: the seed of split, weights and batches, and of the draws.
      draw: 0 is the default.
      unseen: the domains left out, one; or two, for cross-validation.
    """

    method: str
    trial: int
    draw: int
    unseen: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What `sweep.json` holds.

    Attributes:
      data: name of the data set.
      where: its images are, the fields of `Where` that are not at their defaults.
      domains: all of the data's, in its order.
      unseen: those that are left out, in the data's order.
      pairs: whether each of them is also left out together with every other.
      draws: of every method and trial, the default among them.
      trials: seeds 0, 1, ...
      space: name or file that was drawn from.
      methods: name -> the config of draw 0 in trial 0, as a mapping.
      drawn: name -> by trial, by draw: the fields that differ from that config.
      lease: seconds; see `claims`.
      command: that made the plan.
      commit: of the code that did.
    """

    data: str
    where: Mapping[str, Any]
    domains: Sequence[str]
    unseen: Sequence[str]
    pairs: bool
    draws: int
    trials: int
    space: str
    methods: Mapping[str, Mapping[str, Any]]
    drawn: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]
    lease: float = LEASE
    command: str = ""
    commit: str = ""

    @functools.cached_property
    def runs(self) -> dict[str, SweepRun]:
        """Id -> run; those of one program follow one another."""
        settings = [
            (method, trial, draw)
            for method in self.methods
            for trial, draw in itertools.product(range(self.trials), range(self.draws))
        ]
        alike: dict[RunConfig, list[tuple[str, int, int]]] = {}
        ids = {}
        for setting in settings:
            config = self._setting(*setting)
            alike.setdefault(pattern(config), []).append(setting)
            ids[setting] = digest(config)
        return {
            digest({"setting": ids[setting], "unseen": unseen}): SweepRun(*setting, unseen)
            for several in alike.values()
            for count in (1, 2)
            for setting in several
            for unseen in self.left_out
            if len(unseen) == count
        }

    @property
    def left_out(self) -> list[tuple[str, ...]]:
        """The domains of each test: one; and two, where there are pairs."""
        one = [(name,) for name in self.unseen]
        if not self.pairs:
            return one
        # Every other domain, also those that are not among the unseen, is validated on.
        return one + [
            pair
            for pair in itertools.combinations(self.domains, 2)
            if any(name in self.unseen for name in pair)
        ]

    def _setting(self, method: str, trial: int, draw: int) -> RunConfig:
        fields = self.methods[method]
        preset = Preset(**fields["preset"])
        chosen = Hyperparameters(**fields["hyperparameters"])
        drawn = self.drawn[method][trial][draw]
        return RunConfig(
            **{
                **fields,
                "seed": trial,
                "preset": replace_known(preset, drawn),
                "hyperparameters": replace_known(chosen, drawn),
            }
        )

    def config(self, run: SweepRun) -> RunConfig:
        """Of a run; steps that epochs ask for are not counted yet."""
        first, *second = run.unseen
        setting = self._setting(run.method, run.trial, run.draw)
        return dataclasses.replace(setting, unseen=first, also_unseen="".join(second))

    def describe(self, run: SweepRun) -> dict[str, Any]:
        """What a record says of its run, however it ended."""
        config = self.config(run)
        return {
            "method": config.method,
            "penalty": config.preset.penalty,
            "data": config.data,
            "unseen_domain": config.unseen,
            "also_unseen_domain": config.also_unseen,
            "seed": run.trial,
            "trial": run.trial,
            "draw": run.draw,
            "config": dataclasses.asdict(config),
        }


def keep_sweep(folder: Path, sweep: Sweep) -> None:
    """Writes the plan into the folder, or sees that it is the one that is there.

    Raises:
      ValueError: another plan is there; the message lists what differs.
    """
    file = folder / FILE
    if not file.exists():
        write_json(file, dataclasses.asdict(sweep))
        return
    there = read_sweep(folder)
    of_no_run = ("command", "commit", "lease")
    differing = [
        difference
        for field in dataclasses.fields(Sweep)
        if field.name not in of_no_run
        for difference in _differences(
            field.name, getattr(there, field.name), getattr(sweep, field.name)
        )
    ]
    if differing:
        raise ValueError(
            f"{folder} holds another sweep ({'; '.join(differing)}). Choose another "
            f"folder, or go on with it: python -m experiments sweep {folder}"
        )


def _differences(name: str, then: Any, now: Any) -> Iterator[str]:
    """Where two values differ; of mappings of the same keys every value by itself."""
    both = isinstance(then, Mapping) and isinstance(now, Mapping)
    if both and then.keys() == now.keys():
        for key in now:
            yield from _differences(f"{name}.{key}", then[key], now[key])
    elif then != now:
        yield f"{name}: {_told(then)} there, {_told(now)} asked"


def _told(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{', '.join(value)} ({digest(value, 6)})"
    if not isinstance(value, list):
        return repr(value)
    if all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return f"draws ({digest(value, 6)})"


def is_sweep(folder: Path) -> bool:
    """Whether a folder holds a sweep."""
    return (folder / FILE).is_file()


def read_sweep(folder: Path) -> Sweep:
    """The plan of the sweep in a folder.

    Raises:
      ValueError: there is none, or it is of another version of the code.
    """
    if not is_sweep(folder):
        raise ValueError(
            f"{folder} holds no sweep; begin one: python -m experiments sweep {folder} "
            "--data NAME --methods erm,sam,disam"
        )
    found = read_json(folder / FILE)
    known = {field.name for field in dataclasses.fields(Sweep)}
    if found.keys() - known:
        raise ValueError(
            f"{folder / FILE} has fields that this version does not know: "
            f"{', '.join(sorted(found.keys() - known))}."
        )
    return Sweep(**found)
