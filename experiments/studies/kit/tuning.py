"""The same number of trials for every method, chosen without a look at the unseen domain.

Every method is tried with each learning rate and each setting of its own dial. Those of
ERM, which has no rho, are of its weight decay. A trial trains with every unseen domain on
a seed that no study reports; the best mean accuracy on the held-out parts of the source
domains is taken, the first of equal ones.
"""

import dataclasses
import itertools
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from experiments.studies.kit.matrix import Group, last, per_seed, run_groups
from experiments.studies.kit.runs import Setting

LEARNING_RATES = (3e-3, 1e-2)
TUNING_SEED = 1000
Overrides = tuple[tuple[str, float], ...]
Key = TypeVar("Key", bound=Hashable)

_SAM = tuple((("rho", rho),) for rho in (0.02, 0.05, 0.1, 0.2))
_DISAM = tuple(
    (("rho", rho), ("lam", lam)) for rho, lam in itertools.product((0.05, 0.2), (0.1, 10.0))
)
DIALS: dict[str, tuple[Overrides, ...]] = {
    "erm": tuple((("weight_decay", decay),) for decay in (1e-3, 1e-2, 1e-1, 1.0)),
    "sam": _SAM,
    "disam": _DISAM,
    "sagm": tuple(
        (("rho", rho), ("alpha", alpha))
        for rho, alpha in itertools.product((0.05, 0.2), (1e-3, 1e-2))
    ),
    "disam+sagm": _DISAM,
}


def trials(method: str) -> list[Overrides]:
    """The settings that a method is tried with, as many for each method."""
    return [
        (("learning_rate", rate), *dial)
        for rate, dial in itertools.product(LEARNING_RATES, DIALS[method])
    ]


def tuned(
    setting: Setting, data: Sequence[str], methods: Sequence[str]
) -> dict[tuple[str, str], Overrides]:
    """(data, method) -> the best of its trials.

    Args:
      setting: of the study.
      data: names of the data sets.
      methods: keys of `DIALS`.

    Returns:
      The overrides of the config.
    """
    return choose(
        setting,
        {
            (name, method): {trial: Group(name, method, trial) for trial in trials(method)}
            for name in data
            for method in methods
        },
    )


def choose(
    setting: Setting, tried: Mapping[Key, Mapping[Overrides, Group]]
) -> dict[Key, Overrides]:
    """The best trial of each, on the seed that no study reports.

    Args:
      setting: of the study.
      tried: by any key, trial -> its runs, of whatever seeds.

    Returns:
      Key -> the trial of the highest mean accuracy on the held-out parts of the source
      domains, the first of equal ones. One that diverged is not taken.
    """
    groups = {
        (key, trial): dataclasses.replace(group, first_seed=TUNING_SEED, seeds=1)
        for key, groups in tried.items()
        for trial, group in groups.items()
    }
    found = {
        at: per_seed(outcomes, last("in_domain_accuracy"))[0]
        for at, outcomes in run_groups(setting, groups).items()
    }
    best = {}
    for key, trials_of_key in tried.items():
        listed = list(trials_of_key)
        best[key] = listed[int(np.nanargmax([found[key, trial] for trial in listed]))]
    return best
