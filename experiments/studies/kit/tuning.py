"""Hyperparameters of every method, found without a look at the unseen domain.

Every method starts at the protocol's values, learning rate 0.003 and the papers' own, and
is tried there and at the neighbours: each number a step up and a step down, the others as
they are. It moves to the best of these and looks around again, until none of the
neighbours is better: so no number that is chosen lies at an edge of what was tried.

A trial is trained with every unseen domain once, on three seeds in turn that no study
reports; its score is the mean accuracy on the held-out parts of the source domains.
"""

import dataclasses
from collections.abc import Hashable, Mapping
from typing import NamedTuple, TypeVar

import numpy as np

from experiments.studies.kit.matrix import Group, last, run_groups
from experiments.studies.kit.run import load_once
from experiments.studies.kit.runs import Setting

TUNING_SEEDS = (1000, 1001, 1002)
MOST_MOVES = 8
Overrides = tuple[tuple[str, float], ...]
Key = TypeVar("Key", bound=Hashable)

RATE = ("learning_rate", 3e-3, 10 / 3)
RHO = ("rho", 0.05, 2.0)
LAM = ("lam", 0.1, 10.0)
ALPHA = ("alpha", 1e-3, 10.0)
Dial = tuple[str, float, float]  # name, the value it starts at, the factor of a step
Dials = Mapping[str, tuple[Dial, ...]]  # by method
DIALS: Dials = {
    "erm": (RATE, ("weight_decay", 1e-2, 10.0)),
    "sam": (RATE, RHO),
    "disam": (RATE, RHO, LAM),
    "sagm": (RATE, RHO, ALPHA),
    "disam+sagm": (RATE, RHO, LAM, ALPHA),
}


class Tuned(NamedTuple):
    """What was found for a method.

    Attributes:
      overrides: of its config.
      trials: how many were tried.
      inside: whether all neighbours of what was chosen were tried.
    """

    overrides: Overrides
    trials: int
    inside: bool


Place = tuple[int, ...]  # steps from where the dials start


def tune(
    setting: Setting, groups: Mapping[Key, Group], dials: Dials = DIALS
) -> dict[Key, Tuned]:
    """The best hyperparameters of each group's method; all searches go on together.

    Args:
      setting: of the study.
      groups: by any key; of whatever seeds.
      dials: of their methods.

    Returns:
      Key -> what was found; see the module.
    """
    scores: dict[Key, dict[Place, float]] = {key: {} for key in groups}
    at = {key: (0,) * len(dials[group.method]) for key, group in groups.items()}
    settled: set[Key] = set()
    for _ in range(MOST_MOVES):
        asked = {
            (key, place): trial(groups[key], _overrides(dials[groups[key].method], place))
            for key in groups
            if key not in settled
            for place in (at[key], *_neighbours(at[key]))
            if place not in scores[key]
        }
        for (key, place), score in _scores(setting, asked).items():
            scores[key][place] = score
        for key in groups:
            around = (at[key], *_neighbours(at[key]))  # the first of equal ones is taken
            best = max(around, key=lambda place, key=key: scores[key][place])
            if best == at[key]:
                settled.add(key)
            at[key] = best
        if settled == groups.keys():
            break
    return {
        key: Tuned(
            _overrides(dials[group.method], at[key]), len(scores[key]), key in settled
        )
        for key, group in groups.items()
    }


def trial(group: Group, overrides: Overrides) -> list[Group]:
    """Its runs: every domain unseen once, the seeds in turn."""
    domains = group.unseen or load_once(group.data).domains
    count = len(TUNING_SEEDS)
    return [
        dataclasses.replace(
            group,
            overrides=(*group.overrides, *overrides),
            unseen=domains[i::count],
            first_seed=seed,
            seeds=1,
        )
        for i, seed in enumerate(TUNING_SEEDS)
        if domains[i::count]
    ]


def _scores(
    setting: Setting, trials: Mapping[tuple[Key, Place], list[Group]]
) -> dict[tuple[Key, Place], float]:
    """The mean accuracy of every trial's runs; -inf where one diverged."""
    parts = {
        (trial, i): group
        for trial, groups in trials.items()
        for i, group in enumerate(groups)
    }
    found: dict[tuple[Key, Place], list[float]] = {trial: [] for trial in trials}
    for (trial, _), [row] in run_groups(setting, parts).items():
        found[trial] += [
            -np.inf if o["diverged"] else last("in_domain_accuracy")(o) for o in row
        ]
    return {trial: float(np.mean(values)) for trial, values in found.items()}


def _neighbours(place: Place) -> list[Place]:
    """A step up and a step down of each dial."""
    return [
        (*place[:i], place[i] + step, *place[i + 1 :])
        for i in range(len(place))
        for step in (1, -1)
    ]


def _overrides(dials: tuple[Dial, ...], place: Place) -> Overrides:
    return tuple(
        (name, float(f"{start * factor**steps:.2g}"))
        for (name, start, factor), steps in zip(dials, place, strict=True)
    )
