"""What is to be trained: a list of runs, each a value with a digest, and how one is."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from experiments.runs.claims import LEASE

Stop = Callable[[], bool]  # whether to stop now; raises where nothing more may be written


class Outcome(NamedTuple):
    """How a run ended.

    Attributes:
      state: one of `records.STATES`.
      content: of its record, beside what describes the run.
    """

    state: str
    content: Mapping[str, Any]


class Trainer(Protocol):
    """What trains the runs of a plan in a process, data and all."""

    def __call__(self, run: Any, folder: Path, stop: Stop, /) -> Outcome | None:
        """Trains a run in its folder, from its last checkpoint; None where it stopped."""
        ...


@dataclasses.dataclass(frozen=True)
class Plan:
    """Runs, in a folder that says which of them ended.

    It is sent to the processes that train.

    Attributes:
      folder: of claims, records, logs and compiled programs.
      runs: id -> run, those of one program one after another.
      open: called once in every process that trains. What it raises ends the node: the
        data are not there, say. What the trainer raises is its run's fault.
      place: (id, run) -> the run's own folder.
      describe: run -> what its record says of it, however it ended.
      keeps_folders: whether a run's folder stays when its record is kept.
      lease: seconds; see `claims`.
    """

    folder: Path
    runs: Mapping[str, Any]
    open: Callable[[], Trainer]
    place: Callable[[str, Any], Path]
    describe: Callable[[Any], Mapping[str, Any]]
    keeps_folders: bool = False
    lease: float = LEASE

    @property
    def records(self) -> Path:
        """The folder of the records."""
        return self.folder / "records"

    @property
    def logs(self) -> Path:
        """The folder of the nodes' logs."""
        return self.folder / "nodes"

    @property
    def claims(self) -> Path:
        """The folder of the claims."""
        return self.folder / "claims"
