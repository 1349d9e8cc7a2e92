"""Spaces of hyperparameters: what a sweep's draws change in the protocol's default.

Draw 0 changes nothing, in any space and trial. The draws of a random search are those of
Gulrajani and Lopez-Paz, ICLR 2021, as DomainBed makes them: equal for all methods and
unseen domains of a trial, different between trials, and each value from a random state of
its own, so that one hyperparameter more leaves the others as they are.

    domainbed   DomainBed's ranges. A data set held in memory takes those of its small
                images (no weight decay, and no dropout, which its MNIST network has not);
                DomainNet has its own batch sizes. For the dials of SAM and its kin, which
                are not in DomainBed: rho is the method's default times one of `FACTORS`,
                which for 0.05 are SWAD's choices; alpha is one of SWAD's choices for SAGM
                and likewise a multiple of the default for the others; lam is one of 0.1,
                0.2, 0.5, 0.7, the range of the DISAM paper's sensitivity study.
    swad        Cha et al., NeurIPS 2021: the 18 points of their reduced grid.
    FILE.json   ranges of one's own, `{"learning_rate": {"log10": [-5, -3.5]},
                "dropout": [0, 0.1, 0.5]}`: bounds of the exponent, or values with equal
                chances.
"""

import dataclasses
import hashlib
import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.config.run import RunConfig
from experiments.data import DATASETS
from experiments.fields import check_at_least, check_known
from experiments.files import read_json
from experiments.methods.registry import METHODS, find_method

# A draw's order of operations is DomainBed's: values are equal to the bit.
KINDS = {
    "uniform": lambda state, values: state.uniform(*values),
    "log10": lambda state, values: 10 ** state.uniform(*values),
    "log2": lambda state, values: 2 ** state.uniform(*values),
    "choice": lambda state, values: state.choice(values),
}
WHOLE = ("batch_size", "penalty_start")  # cut to integers
DIALS = ("rho", "alpha", "lam", "own_rate")
PENALTY = ("penalty_weight", "penalty_start")
FIELDS = ("learning_rate", "weight_decay", "batch_size", "dropout", *PENALTY, *DIALS)

Range = tuple[str, tuple[float, ...]]  # a key of KINDS, and its bounds or choices
Ranges = Mapping[str, Range]  # by field

# DomainBed, hparams_registry.py at b93c22a.
SMALL_IMAGES: Ranges = {
    "learning_rate": ("log10", (-4.5, -2.5)),
    "weight_decay": ("choice", (0.0,)),
    "batch_size": ("log2", (3, 9)),
}
LARGE_IMAGES: Ranges = {
    "learning_rate": ("log10", (-5, -3.5)),
    "weight_decay": ("log10", (-6, -2)),
    "batch_size": ("log2", (3, 5.5)),
    "dropout": ("choice", (0.0, 0.1, 0.5)),
}
DOMAIN_NET: Ranges = {**LARGE_IMAGES, "batch_size": ("log2", (3, 5))}
PENALTY_RANGES: Mapping[str, Ranges] = {
    "coral": {"penalty_weight": ("log10", (-1, 1))},
    "vrex": {"penalty_weight": ("log10", (-1, 5)), "penalty_start": ("log10", (0, 4))},
    "fishr": {"penalty_weight": ("log10", (1, 4)), "penalty_start": ("uniform", (0, 5000))},
}
PENALTY_NAMES: Mapping[str, Mapping[str, str]] = {
    "coral": {"penalty_weight": "mmd_gamma"},
    "vrex": {
        "penalty_weight": "vrex_lambda",
        "penalty_start": "vrex_penalty_anneal_iters",
    },
    "fishr": {"penalty_weight": "lambda", "penalty_start": "penalty_anneal_iters"},
}
FACTORS = (0.2, 0.4, 1.0, 2.0)
SAGM_ALPHAS = (0.01, 0.02, 0.05, 0.1)
LAMS = (0.1, 0.2, 0.5, 0.7)
SWAD_GRID: Mapping[str, tuple[float, ...]] = {
    "learning_rate": (1e-5, 3e-5, 5e-5),
    "dropout": (0.0, 0.1, 0.5),
    "weight_decay": (1e-4, 1e-6),
    "batch_size": (32,),
}


@dataclasses.dataclass(frozen=True)
class Distribution:
    """Of one field.

    Attributes:
      name: DomainBed's for it, of which the seed of its random state is made.
      kind: a key of `KINDS`.
      values: the bounds, or what is chosen among.
      whole: whether the value is cut to an integer.
    """

    name: str
    kind: str
    values: tuple[float, ...]
    whole: bool

    def draw(self, seed: int) -> float | int:
        """The value of a draw of this seed."""
        state = np.random.RandomState(seed_hash(seed, self.name))
        value = KINDS[self.kind](state, self.values)
        return int(value) if self.whole else float(value)


@dataclasses.dataclass(frozen=True)
class RandomSearch:
    """Independent draws, as many as are asked for.

    Attributes:
      distributions: by field.
    """

    distributions: Mapping[str, Distribution]

    def draw(self, draw: int, trial: int) -> dict[str, Any]:
        """What a draw changes, field -> value; nothing for draw 0."""
        if draw == 0:
            return {}
        seed = seed_hash(draw, trial)
        return {field: d.draw(seed) for field, d in self.distributions.items()}

    def check(self, draws: int) -> None:
        """Raises a ValueError unless there can be so many draws, the default among them."""
        check_at_least("draws", draws, 1)


@dataclasses.dataclass(frozen=True)
class Grid:
    """The same points in every trial.

    Attributes:
      name: of the space.
      points: field -> value, of draw 1, 2, ...
    """

    name: str
    points: tuple[dict[str, Any], ...]

    def draw(self, draw: int, trial: int) -> dict[str, Any]:
        """What a draw changes, field -> value; nothing for draw 0."""
        del trial
        return dict(self.points[draw - 1]) if draw else {}

    def check(self, draws: int) -> None:
        """Raises a ValueError unless there can be so many draws, the default among them."""
        check_at_least("draws", draws, 1)
        if draws > len(self.points) + 1:
            raise ValueError(
                f"space {self.name} has {len(self.points) + 1} draws, the default and "
                f"{len(self.points)} points of a grid; got {draws}."
            )


Space = RandomSearch | Grid
NAMED = ("domainbed", "swad")


def find_space(
    name_or_path: str, config: RunConfig, fixed: frozenset[str] = frozenset()
) -> Space:
    """The space of a method's draws on a data set.

    Args:
      name_or_path: one of `NAMED`, or the path of a FILE.json.
      config: of draw 0. What its method does not read, and the weight of a penalty that it
        does not have, is not drawn.
      fixed: fields that keep their value.

    Returns:
      The space.

    Raises:
      ValueError: there is none; or the file holds something else, and the message names
        the field, what was found and the mend.
    """
    if name_or_path == "swad":
        return _grid("swad", SWAD_GRID, fixed)
    if name_or_path == "domainbed":
        ranges = _domainbed(config)
    elif Path(name_or_path).is_file():
        ranges = _read_ranges(Path(name_or_path))
    else:
        raise ValueError(
            f"unknown space '{name_or_path}'; there are: {', '.join(NAMED)}, or the path "
            "of a JSON file."
        )
    return RandomSearch(
        {
            field: Distribution(_hashed_as(field, config), *ranged, field in WHOLE)
            for field, ranged in ranges.items()
            if field not in fixed and _is_read(field, config)
        }
    )


def seed_hash(*args: Any) -> int:
    """DomainBed's seed of anything that prints."""
    return int(hashlib.md5(str(args).encode()).hexdigest(), 16) % 2**31


def _grid(name: str, values: Mapping[str, tuple], fixed: frozenset[str]) -> Grid:
    free = {field: of_field for field, of_field in values.items() if field not in fixed}
    points = itertools.product(*free.values())
    return Grid(name, tuple(dict(zip(free, point, strict=True)) for point in points))


def _domainbed(config: RunConfig) -> Ranges:
    if config.data in DATASETS:
        ranges = SMALL_IMAGES
    else:
        ranges = DOMAIN_NET if config.data == "domain_net" else LARGE_IMAGES
    of_penalty = PENALTY_RANGES.get(config.preset.penalty, {})
    return {**ranges, **of_penalty, **_dials(config.method)}


def _dials(name: str) -> Ranges:
    method = find_method(name)
    is_sagm = method.function is METHODS["sagm"].function
    alphas = SAGM_ALPHAS if is_sagm else _multiples(method.defaults.alpha)
    rhos, rates = map(_multiples, (method.defaults.rho, method.defaults.own_rate))
    values = {"rho": rhos, "alpha": alphas, "lam": LAMS, "own_rate": rates}
    return {field: ("choice", chosen) for field, chosen in values.items()}


def _multiples(default: float) -> tuple[float, ...]:
    return tuple(float(f"{factor * default:.6g}") for factor in FACTORS)


def _is_read(field: str, config: RunConfig) -> bool:
    if field in PENALTY:
        return config.preset.penalty != "none"
    method = find_method(config.method)
    if field == "learning_rate":
        return method.optimizer is None
    return field not in DIALS or field in method.reads


def _hashed_as(field: str, config: RunConfig) -> str:
    """DomainBed's name of a field, and the field's own where it has none."""
    if field == "dropout":
        return "vit_dropout" if config.preset.model.startswith("vit") else "resnet_dropout"
    of_penalty = PENALTY_NAMES.get(config.preset.penalty, {})
    return {"learning_rate": "lr", **of_penalty}.get(field, field)


def _read_ranges(file: Path) -> Ranges:
    found = read_json(file)
    if not found:
        raise ValueError(f"{file} says of no field how it is drawn: name one or more.")
    for field in found:
        check_known(f"field of {file}", field, FIELDS)
    return {field: _range(f"{file}: {field}", field, v) for field, v in found.items()}


def _range(where: str, field: str, found: Any) -> Range:
    """What a file says of a field; `where` begins the message of an error."""
    kind, values = "choice", found
    if isinstance(found, dict) and len(found) == 1:
        ((kind, values),) = found.items()
    if kind not in KINDS or not _are_numbers(values):
        raise ValueError(
            f'{where} must be a list of numbers, or one of {{"uniform": [low, high]}}, '
            f'{{"log10": [low, high]}} and {{"log2": [low, high]}}; got {found}.'
        )
    if kind == "choice":
        _check_choices(where, field, values)
    elif len(values) != 2 or values[0] > values[1]:
        raise ValueError(
            f"{where}, {kind}, must have two bounds, the lower one first; got {values}."
        )
    return kind, tuple(values)


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(
        type(value) in (int, float) and math.isfinite(value) for value in values
    )


def _check_choices(where: str, field: str, values: list[float]) -> None:
    if not values:
        raise ValueError(
            f"{where} has nothing to choose among, []: give one or more numbers."
        )
    if field in WHOLE and not all(isinstance(value, int) for value in values):
        raise ValueError(f"{where} must be a list of integers; got {values}.")
