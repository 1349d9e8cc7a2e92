"""Records -> the numbers of a table: means and deviations over seeds."""

import dataclasses
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments.config.run import full_name
from experiments.results.earlier import comparison_record
from experiments.results.paired import Difference, differences_to_first
from experiments.training.metrics import AVERAGES
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
      scores: unseen domain -> seed -> accuracy on unseen concepts, what was trained on in
        no domain, or with open classes on all images; of the seeds that finished on every
        unseen domain.
      in_domain: accuracy on the held-out part of the source domains.
      out_of_domain: accuracy on all images of the unseen domains.
      selected: selection rule -> accuracy on the unseen domains' scored part, at the
        checkpoint that the rule chose; `swad` and `bma` among them where asked for.
      halves: with open classes, selection rule -> `total`, `base`, `new` and the others of
        `half_accuracies` -> accuracy on all images of the unseen domains.
      loss_spread: standard deviation over the source domains of the training loss, at the
        end of the training.
      steps: of a run.
      gradients_per_step: of the whole batch, on average.
      difference: accuracy on unseen concepts less that of the first method; see
        `differences_to_first`.
    """

    method: str
    scores: dict[str, dict[int, float]]
    in_domain: Spread
    out_of_domain: Spread
    selected: dict[str, Spread]
    loss_spread: Spread | None
    steps: int
    gradients_per_step: float
    halves: dict[str, dict[str, Spread]]
    difference: Difference | None = None

    @property
    def seeds(self) -> int:
        """How many finished on every unseen domain."""
        return len(self.per_seed)

    @property
    def per_seed(self) -> dict[int, float]:
        """Seed -> accuracy on unseen concepts, the mean over the unseen domains."""
        domains = list(self.scores.values())
        return {seed: float(np.mean([d[seed] for d in domains])) for seed in domains[0]}

    @property
    def unseen_concepts(self) -> Spread:
        """Accuracy on unseen concepts of the unseen domains."""
        return over_seeds(list(self.per_seed.values()))

    @property
    def by_domain(self) -> dict[str, Spread]:
        """The same on each unseen domain."""
        return {name: over_seeds(list(own.values())) for name, own in self.scores.items()}

    @property
    def worst_domain(self) -> tuple[str, Spread]:
        """(name, accuracy) of the lowest of those."""
        return min(self.by_domain.items(), key=lambda item: item[1].mean)


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
    """The method with its tuning and penalty; see `full_name`."""
    tuning, penalty = record.get("tuning", "finetune"), record.get("penalty", "none")
    return full_name(tuning, record["method"], penalty)


def summarize(records: Records) -> list[Row]:
    """One row per method, in the order in which they come.

    A seed counts when it finished on every unseen domain; its value is the mean over them,
    so that a deviation is one over seeds and not over domains.

    Args:
      records: of finished runs.

    Returns:
      The rows, each with its difference to the first; a method without a whole seed has
      none.

    Raises:
      ValueError: a record does not say what was not trained on; see `earlier`.
    """
    records = [comparison_record(record) for record in records]
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
    differences = differences_to_first([row.per_seed for row in rows])
    return [
        dataclasses.replace(row, difference=difference)
        for row, difference in zip(rows, differences, strict=True)
    ]


def _row(method: str, seeds: list[int], unseen: list[str], records: dict) -> Row:
    def over(
        key: str | Callable[[dict[str, Any]], float], domains: Sequence[str] = unseen
    ) -> Spread:
        read = key if callable(key) else operator.itemgetter(key)
        return over_seeds(
            [float(np.mean([read(records[seed, d]) for d in domains])) for seed in seeds]
        )

    def having(rule: str) -> dict[str, list[str]]:
        """Half -> the unseen domains that have images of it; all have a total."""
        halves = {d: records[seeds[0], d].get(rule, {}).get("halves") or {} for d in unseen}
        names = dict.fromkeys(name for found in halves.values() for name in found)
        own = {name: [d for d in unseen if name in halves[d]] for name in names}
        return {"total": unseen, **own} if own else {}

    first = next(iter(records.values()))
    is_open = bool(first.get("last_step", {}).get("halves"))
    scored = "out_of_domain_accuracy" if is_open else "unseen_concept_accuracy"
    return Row(
        method=method,
        scores={d: {seed: records[seed, d][scored] for seed in seeds} for d in unseen},
        in_domain=over("in_domain_accuracy"),
        out_of_domain=over("out_of_domain_accuracy"),
        selected={
            rule: over(lambda record, rule=rule: record[rule]["scored"])
            for rule in (*SELECTION_RULES, *sorted(AVERAGES))
            if all("scored" in record.get(rule, {}) for record in records.values())
        },
        loss_spread=over("loss_spread") if "loss_spread" in first else None,
        steps=first["steps"],
        gradients_per_step=first["gradients_per_step"],
        halves={
            rule: {
                half: over(lambda r, rule=rule, half=half: _of_half(r[rule], half), domains)
                for half, domains in found.items()
            }
            for rule in (*SELECTION_RULES, *sorted(AVERAGES))
            if (found := having(rule))
        },
    )


def _of_half(selected: dict[str, Any], half: str) -> float:
    return selected["whole"] if half == "total" else selected["halves"][half]
