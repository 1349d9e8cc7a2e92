"""Records -> the numbers of a table: means and deviations over seeds."""

import dataclasses
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.training.selection import SELECTION_RULES

Records = list[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Spread:
    """A mean over seeds with its spread.

    Attributes:
      mean: over seeds.
      std: over seeds, one of `SPREADS`; None for a single seed.
    """

    mean: float
    std: float | None

    def percent(self) -> str:
        """E.g. `61.1 ± 0.4`."""
        if self.std is None:
            return f"{100 * self.mean:.1f}"
        return f"{100 * self.mean:.1f} ± {100 * self.std:.1f}"

    def plain(self) -> str:
        """E.g. `0.196 ± 0.004`."""
        if self.std is None:
            return f"{self.mean:.3f}"
        return f"{self.mean:.3f} ± {self.std:.3f}"


@dataclasses.dataclass(frozen=True)
class Row:
    """A method's row.

    Attributes:
      method: its name, see `method_of`.
      seeds: how many seeds finished on every unseen domain.
      in_domain: accuracy on the held-out part of the source domains.
      out_of_domain: accuracy on the unseen domains, all their images.
      out_of_domain_heldout: the same on the groups that were held out in every domain.
      by_domain: out-of-domain accuracy on each unseen domain.
      worst_domain: (name, accuracy) of the lowest of those.
      selected: selection rule -> accuracy on the unseen domains' in-split part, at the
        checkpoint that the rule chose; `swad` among them where it was asked for.
      loss_spread: standard deviation over the source domains of the training loss, at the
        end of the training.
      steps: of a run.
      gradients_per_step: of the whole batch, on average.
    """

    method: str
    seeds: int
    in_domain: Spread
    out_of_domain: Spread
    out_of_domain_heldout: Spread
    by_domain: dict[str, Spread]
    worst_domain: tuple[str, Spread]
    selected: dict[str, Spread]
    loss_spread: Spread
    steps: int
    gradients_per_step: float


# What stands behind ±. On the same three numbers, DomainBed's is less than half.
SPREADS: dict[str, tuple[str, Callable[[list[float]], float]]] = {
    "std": ("standard deviation", lambda values: float(np.std(values, ddof=1))),
    "domainbed": (
        "population standard deviation / sqrt(n), as DomainBed's,",
        lambda values: float(np.std(values) / np.sqrt(len(values))),
    ),
}


def over_seeds(values: list[float], spread: str = "std") -> Spread:
    """The mean and the spread of one value per seed, by default the sample deviation."""
    _, measure = SPREADS[spread]
    return Spread(float(np.mean(values)), measure(values) if len(values) > 1 else None)


def method_of(record: dict[str, Any]) -> str:
    """The method with the penalty added to its losses, e.g. `disam+coral`."""
    penalty = record.get("penalty", "none")
    return record["method"] + ("" if penalty == "none" else f"+{penalty}")


def summarize(records: Records) -> list[Row]:
    """One row per method, in the order in which they come.

    A seed counts when it finished on every unseen domain; its value is the mean over them,
    so that a deviation is one over seeds and not over domains.

    Args:
      records: of finished runs.

    Returns:
      The rows; a method without a whole seed has none.
    """
    unseen = list(dict.fromkeys(r["unseen_domain"] for r in records))
    rows = []
    for method in dict.fromkeys(map(method_of, records)):
        own = {
            (r["seed"], r["unseen_domain"]): r for r in records if method_of(r) == method
        }
        seeds = [
            seed
            for seed in dict.fromkeys(seed for seed, _ in own)
            if all((seed, domain) in own for domain in unseen)
        ]
        if seeds:
            rows.append(_row(method, seeds, unseen, own))
    return rows


def _row(method: str, seeds: list[int], unseen: list[str], records: dict) -> Row:
    def over(key: str | Callable[[dict[str, Any]], float]) -> Spread:
        read = key if callable(key) else operator.itemgetter(key)
        return over_seeds(
            [float(np.mean([read(records[seed, d]) for d in unseen])) for seed in seeds]
        )

    by_domain = {
        domain: over_seeds(
            [records[seed, domain]["out_of_domain_accuracy"] for seed in seeds]
        )
        for domain in unseen
    }
    return Row(
        method=method,
        seeds=len(seeds),
        in_domain=over("in_domain_accuracy"),
        out_of_domain=over("out_of_domain_accuracy"),
        out_of_domain_heldout=over("out_of_domain_heldout_accuracy"),
        by_domain=by_domain,
        worst_domain=min(by_domain.items(), key=lambda item: item[1].mean),
        selected={
            rule: over(lambda record, rule=rule: record[rule]["in_split"])
            for rule in (*SELECTION_RULES, "swad")
            if all(rule in record for record in records.values())
        },
        loss_spread=over("loss_spread"),
        steps=next(iter(records.values()))["steps"],
        gradients_per_step=next(iter(records.values()))["gradients_per_step"],
    )
