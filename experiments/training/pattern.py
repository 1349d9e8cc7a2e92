"""What runs may differ in and still share a compiled program: seed, domains, and numbers.

The numbers of a run enter its step as arrays; all else of its method and its preset is what
the step is compiled for.
"""

import copy
import dataclasses
from typing import Any, NamedTuple, TypeVar

import numpy as np

from experiments.config.run import RunConfig
from experiments.methods.registry import find_method

# Fields of the preset, and the value that leaves a field's part out of the program.
PRESET = {
    "learning_rate": None,
    "weight_decay": None,
    "dropout": 0.0,
    "penalty_weight": None,
    "penalty_start": None,
}
PLACE = 0.5  # stands in a pattern for any of them
T = TypeVar("T")


class Numbers(NamedTuple):
    """The numbers of a run, or of several, stacked.

    Attributes:
      hyperparameters: by name, those that the method reads; float32 scalars.
      preset: by name, those of `PRESET` that the run has.
    """

    hyperparameters: dict[str, Any]
    preset: dict[str, Any]


def numbers_of(config: RunConfig) -> Numbers:
    """The numbers of a run of `config`."""
    method, h = find_method(config.method), config.hyperparameters
    traced = [name for name in method.reads if name not in method.static]
    return Numbers(
        {name: np.float32(getattr(h, name)) for name in traced},
        {name: np.float32(getattr(config.preset, name)) for name in _there(config)},
    )


def pattern(config: RunConfig) -> RunConfig:
    """The config with all that runs of one program may differ in made alike."""
    method, h = find_method(config.method), config.hyperparameters
    static = {name: getattr(h, name) for name in method.static}
    return dataclasses.replace(
        config,
        seed=0,
        unseen="",
        also_unseen="another" if config.also_unseen else "",  # the step counts the sources
        hyperparameters=dataclasses.replace(method.defaults, **static),
        preset=dataclasses.replace(config.preset, **dict.fromkeys(_there(config), PLACE)),
    )


def with_arrays(instance: T, arrays: dict[str, Any]) -> T:
    """A copy of a dataclass with arrays in fields, which no check could look at."""
    made = copy.copy(instance)
    for name, array in arrays.items():
        object.__setattr__(made, name, array)
    return made


def _there(config: RunConfig) -> list[str]:
    preset = config.preset
    return [name for name, left_out in PRESET.items() if getattr(preset, name) != left_out]
