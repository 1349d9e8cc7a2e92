"""Changes to the domains that are trained on: what a data set's labels seldom are, clean.

A change is a name and a number, so that a run can be told by what it is. The unseen domain
is never changed.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from experiments.data import DomainData
from experiments.fields import check_known


class Change(NamedTuple):
    """A change of the training images.

    Attributes:
      name: a key of `CHANGES`.
      amount: see there.
    """

    name: str
    amount: float


def apply_change(
    change: Change | None, data: DomainData, unseen: str, seed: int
) -> DomainData:
    """The data with its source domains changed.

    Args:
      change: None leaves all as it is.
      data: the training images of all domains.
      unseen: the domain that stays as it is.
      seed: of what is drawn.

    Returns:
      The data; its domains may be others.

    Raises:
      ValueError: there is no such change.
    """
    if change is None:
        return data
    check_known("change", change.name, tuple(CHANGES))
    sources = [d for d, name in enumerate(data.domains) if name != unseen]
    ids = np.concatenate([np.full(len(data.labels[d]), i) for i, d in enumerate(sources)])
    rng = np.random.default_rng([seed, len(ids)])
    dealt = CHANGES[change.name](ids, change.amount, rng)
    return _dealt_anew(data, sources, dealt)


def _dealt_anew(data: DomainData, sources: list[int], ids: np.ndarray) -> DomainData:
    """The source images in domains 0, 1, ... as `ids` say; negative ones are left out."""
    kept = [d for d in range(len(data.domains)) if d not in sources]
    count = int(ids.max()) + 1
    names = [data.domains[d] for d in sources]
    names = (names + [f"part {i}" for i in range(len(names), count)])[:count]

    def deal(arrays: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        whole = np.concatenate([arrays[d] for d in sources])
        return (*(whole[ids == i] for i in range(count)), *(arrays[d] for d in kept))

    return dataclasses.replace(
        data,
        domains=(*names, *(data.domains[d] for d in kept)),
        images=deal(data.images),
        labels=deal(data.labels),
        groups=deal(data.groups),
    )


def wrong_labels(ids: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """That share of the images gets the domain of another image, all drawn at random."""
    moved = rng.random(len(ids)) < share
    dealt = ids.copy()
    dealt[moved] = rng.permutation(ids[moved])
    return dealt


def missing_labels(ids: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """That share of the images has no domain label: they make up one domain more."""
    missing = rng.random(len(ids)) < share
    if missing.all():
        return np.zeros_like(ids)
    return np.where(missing, ids.max() + 1, ids)


def merged_domains(ids: np.ndarray, count: float, rng: np.random.Generator) -> np.ndarray:
    """Domains that could not be told apart: `count` remain, neighbours merged."""
    return ids * int(count) // (ids.max() + 1)


def imbalance(ids: np.ndarray, ratio: float, rng: np.random.Generator) -> np.ndarray:
    """The first domain keeps its images, the others 1/ratio of theirs."""
    kept = (ids == 0) | (rng.random(len(ids)) < 1 / ratio)
    return np.where(kept, ids, -1)


CHANGES: dict[str, Callable[[np.ndarray, float, np.random.Generator], np.ndarray]] = {
    "wrong_labels": wrong_labels,
    "missing_labels": missing_labels,
    "merged_domains": merged_domains,
    "imbalance": imbalance,
}
