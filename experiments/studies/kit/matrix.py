"""Groups of runs that differ in seed and unseen domain alone, and their values per seed."""

import dataclasses
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from disam_jax import diagnostics
from experiments.config.run import RunConfig, make_config
from experiments.studies.kit.run import Spec, load_once
from experiments.studies.kit.runs import Run, Setting
from experiments.studies.kit.values import Value
from experiments.training.feed import with_steps

Key = TypeVar("Key", bound=Hashable)
Outcome = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs of one method on one data set: every seed with every unseen domain.

    Attributes:
      data: name of the data set.
      method: name of the method.
      overrides: fields of the config, as (name, value).
      gradients: of a batch that a run may take; None is the setting's of the data set.
      equal_steps: whether the run takes the steps that two gradients a step would allow,
        whatever its own cost, so that curves have one axis.
      unseen: the domains to leave out; empty is each in turn.
      first_seed: seeds count from here.
      seeds: how many; None is the setting's.
      spec: the config of a run -> the run; says what is measured, and on what data.
    """

    data: str
    method: str
    overrides: tuple[tuple[str, Any], ...] = ()
    gradients: int | None = None
    equal_steps: bool = False
    unseen: tuple[str, ...] = ()
    first_seed: int = 0
    seeds: int | None = None
    spec: Callable[[RunConfig], Run] = Spec

    def specs(self, setting: Setting) -> list[list[Run]]:
        """The runs, a row per seed and a column per unseen domain."""
        gradients = self.gradients or setting.gradients[self.data]
        base = self.spec(
            make_config(
                data=self.data,
                method=self.method,
                unseen="",
                seed=self.first_seed,
                overrides={"steps": gradients // 2, **dict(self.overrides)},
            )
        )
        data = load_once(self.data, options=base.data_options)

        def run(seed: int, unseen: str) -> Run:
            config = dataclasses.replace(base.config, seed=seed, unseen=unseen)
            if not self.equal_steps:
                config = with_steps(config, data, gradients)
            return dataclasses.replace(base, config=config)

        seeds = range(self.first_seed, self.first_seed + (self.seeds or setting.seeds))
        domains = self.unseen or data.domains
        return [[run(seed, unseen) for unseen in domains] for seed in seeds]


def run_groups(
    setting: Setting, groups: Mapping[Key, Group]
) -> dict[Key, list[list[Outcome]]]:
    """The outcomes of all groups, trained together.

    Args:
      setting: of the study.
      groups: by any key.

    Returns:
      Key -> outcomes, a row per seed and a column per unseen domain.
    """
    specs = {key: group.specs(setting) for key, group in groups.items()}
    flat = [spec for rows in specs.values() for row in rows for spec in row]
    found = iter(setting.outcomes(flat))
    return {
        key: [[next(found) for _ in row] for row in rows] for key, rows in specs.items()
    }


def values_of(
    condition: str,
    method: str,
    group: Group,
    rows: Sequence[Sequence[Outcome]],
    measures: Mapping[str, Callable[[Outcome], float]],
) -> list[Value]:
    """The values of a group's runs.

    Args:
      condition: of the values.
      method: of the values.
      group: of the runs.
      rows: their outcomes, a row per seed.
      measures: name -> outcome -> value; a run that diverged has NaN.

    Returns:
      A value for each run and measure.
    """
    domains = group.unseen or load_once(group.data).domains
    return [
        Value(
            condition,
            method,
            group.first_seed + i,
            domain,
            name,
            float("nan") if outcome["diverged"] else float(read(outcome)),
        )
        for i, row in enumerate(rows)
        for domain, outcome in zip(domains, row, strict=True)
        for name, read in measures.items()
    ]


def per_seed(
    outcomes: Sequence[Sequence[Outcome]], read: Callable[[Outcome], float]
) -> list[float]:
    """One value per seed, the mean over its unseen domains.

    Args:
      outcomes: a row per seed.
      read: outcome -> value.

    Returns:
      The values; NaN for a seed of which a run diverged.
    """
    return [
        float(np.mean([np.nan if o["diverged"] else read(o) for o in row]))
        for row in outcomes
    ]


def last(name: str) -> Callable[[Outcome], float]:
    """Reads what was measured last under this name."""
    return lambda outcome: outcome["looks"][-1][name]


ACCURACIES = {
    name: last(name)
    for name in ("unseen_concept_accuracy", "out_of_domain_accuracy", "in_domain_accuracy")
}


def spread(outcome: Outcome) -> np.ndarray:
    """The standard deviation over the source domains of their losses, [T]."""
    return np.asarray(diagnostics.loss_spread(np.asarray(outcome["losses"])))


def mean_loss(outcome: Outcome) -> np.ndarray:
    """The mean over the source domains of their losses, [T]."""
    return np.mean(np.asarray(outcome["losses"]), axis=1)
