"""A process that trains: it claims a run, trains it, keeps its record, takes the next."""

import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from experiments.runs.claims import MOST_STARTS, ClaimLostError, Claims
from experiments.runs.plan import Outcome, Plan, Stop, Trainer
from experiments.runs.records import GIVEN_UP, Records, node_name
from experiments.training.run_folder import NOT_WRITTEN, checkpoint_step

PAUSE = 1.0  # seconds between looks at runs that others have claimed


class RunFailedError(RuntimeError):
    """A run went wrong, (its id, why); another try may come."""


def work(
    plan: Plan,
    stop: Callable[[], bool] = lambda: False,
    log: Callable[[str], None] = lambda line: None,
    begin: float | None = None,
) -> None:
    """Trains the runs of a plan, those that no other process trains, until all ended.

    Args:
      plan: of the runs.
      stop: whether to stop; a run that is being trained is kept as it stands.
      log: called with a line for every start and every end.
      begin: at which share of the plan, in [0, 1); None is anywhere. Processes that begin
        apart seldom meet, and go on with programs that they have compiled.

    Raises:
      RunFailedError: something went wrong in a run, which keeps its last checkpoint.
      OSError: a file cannot be written, as on a full disk.
    """
    train = plan.open()
    worker = _Worker(plan, train, stop, log, begin)
    while not stop() and (run := worker.claim()) is not None:
        worker.train(run)


class _Worker:
    """One process's way through a plan."""

    def __init__(
        self,
        plan: Plan,
        train: Trainer,
        stop: Stop,
        log: Callable[[str], None],
        begin: float | None,
    ) -> None:
        self._plan = plan
        self._train = train
        self._stop = stop
        self._log = log
        self._records = Records(plan.records)
        self._claims = Claims(plan.claims, plan.lease)
        self._order = list(plan.runs)
        begin = random.SystemRandom().random() if begin is None else begin
        self._next = int(begin * len(self._order))

    def claim(self) -> str | None:
        """The next run that is this process's; None where all ended, or it is to stop."""
        while not self._stop():
            self._records.refresh()
            waiting = False
            for i in range(len(self._order)):
                at = (self._next + i) % len(self._order)
                run = self._order[at]
                if run in self._records.heads:
                    continue
                waiting = True
                if self._claims.take(run):
                    self._next = at + 1
                    if not self._ended_meanwhile(run):
                        return run
            if not waiting:
                return None
            time.sleep(min(PAUSE, self._plan.lease / 4))
        return None

    def _ended_meanwhile(self, run: str) -> bool:
        """Another may have kept its record between the look and the claim."""
        self._records.refresh()
        if run in self._records.heads:
            self._claims.release(run)
            return True
        return False

    def train(self, run: str) -> None:
        """Trains a claimed run, keeps what became of it, and lets go of it."""
        folder = self._plan.place(run, self._plan.runs[run])
        try:
            step = checkpoint_step(folder)
            starts = self._claims.begin(run, step)
            if starts > MOST_STARTS:
                self._give_up(run, folder, step)
                return
            self._log(f"start {run} at step {step}, try {starts}")
            outcome = self._outcome(run, folder)
            if outcome is None:
                self._claims.undo(run)
                self._log(f"stop {run}")
            else:
                self._keep(run, folder, outcome)
        except ClaimLostError:
            self._log(f"lost {run}")
        finally:
            self._claims.release(run)

    def _outcome(self, run: str, folder: Path) -> Outcome | None:
        def stop() -> bool:
            self._claims.check(run)
            return self._stop()

        try:
            return self._train(self._plan.runs[run], folder, stop)
        except ClaimLostError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in NOT_WRITTEN:
                raise
            raise RunFailedError(run, f"{type(error).__name__}: {error}") from error

    def _keep(self, run: str, folder: Path, outcome: Outcome) -> None:
        self._claims.check(run)
        described = self._plan.describe(self._plan.runs[run])
        content = {"node": node_name(), **described, **outcome.content}
        self._records.append(run, outcome.state, **content)
        self._log(f"{outcome.state} {run}")
        if not self._plan.keeps_folders:
            shutil.rmtree(folder, ignore_errors=True)
        self._claims.forget(run)

    def _give_up(self, run: str, folder: Path, step: int) -> None:
        why = (
            f"its process ended {MOST_STARTS} times at step {step} without a checkpoint "
            "between; the logs of the nodes say why"
        )
        self._keep(run, folder, Outcome(GIVEN_UP, {"why": why, "step": step}))
