"""How far a plan is: counts, rate, time left, from the heads of the records alone."""

import dataclasses
import datetime
import heapq
from collections import Counter
from collections.abc import Collection

from experiments.runs.claims import Claims
from experiments.runs.plan import Plan
from experiments.runs.records import DIVERGED, FINISHED, GIVEN_UP, Records

LAST = 100  # runs, that the rate is of


@dataclasses.dataclass(frozen=True)
class Status:
    """How many runs are where.

    Attributes:
      total: of the plan.
      finished: with accuracies.
      diverged: something was not finite.
      given_up: ids of those that ended their process again and again.
      running: that are claimed.
      per_hour: runs that ended lately; None before two have.
    """

    total: int
    finished: int
    diverged: int
    given_up: tuple[str, ...]
    running: int
    per_hour: float | None

    @property
    def ended(self) -> int:
        """Finished, diverged or given up."""
        return self.finished + self.diverged + len(self.given_up)

    @property
    def waiting(self) -> int:
        """Neither ended nor running."""
        return self.total - self.ended - self.running

    @property
    def hours_left(self) -> float | None:
        """At the rate of late; None where it is not known, or nothing runs."""
        if not self.per_hour or not self.running:
            return None
        return (self.total - self.ended) / self.per_hour

    def counts(self) -> str:
        """In words, e.g. `12 finished, 2 running, 10 waiting, 0 diverged, 0 given up`."""
        return (
            f"{self.finished} finished, {self.running} running, {self.waiting} waiting, "
            f"{self.diverged} diverged, {len(self.given_up)} given up"
        )

    def speed(self) -> str:
        """In words, e.g. `360 an hour, 0.2 h left`."""
        if self.per_hour is None:
            return "no rate yet"
        left = "" if self.hours_left is None else f", {self.hours_left:.1f} h left"
        return f"{self.per_hour:.0f} an hour{left}"


def read_status(plan: Plan, records: Records | None = None) -> Status:
    """How far the plan is; of records that were read before, only what is new is read."""
    records = records or Records(plan.records)
    records.refresh()
    heads = {run: head for run, head in records.heads.items() if run in plan.runs}
    states = Counter(state for state, _ in heads.values())
    held = [run for run in Claims(plan.claims).held() if run not in heads]
    return Status(
        total=len(plan.runs),
        finished=states[FINISHED],
        diverged=states[DIVERGED],
        given_up=tuple(run for run, (state, _) in heads.items() if state == GIVEN_UP),
        running=len(held),
        per_hour=_rate([ended for _, ended in heads.values()], bool(held)),
    )


def _rate(ended: Collection[str], running: bool) -> float | None:
    """Runs in an hour: of the last ones, up to now where more are being trained."""
    last = [datetime.datetime.fromisoformat(text) for text in heapq.nlargest(LAST, ended)]
    if len(last) < 2:
        return None
    newest, oldest = last[0], last[-1]
    until = max(newest, datetime.datetime.now(datetime.UTC)) if running else newest
    seconds = max(1.0, (until - oldest).total_seconds())
    return 3600 * (len(last) - 1) / seconds
