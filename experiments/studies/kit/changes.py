"""Changes to the domains that are trained on: the placebo of what uses domain labels.

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
      The data, in domains of the same names and sizes.

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
    """The source images in the domains that `ids` say: positions in `sources`."""

    def deal(arrays: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        whole = np.concatenate([arrays[d] for d in sources])
        dealt = {d: whole[ids == i] for i, d in enumerate(sources)}
        return tuple(dealt.get(d, array) for d, array in enumerate(arrays))

    return dataclasses.replace(
        data,
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


CHANGES: dict[str, Callable[[np.ndarray, float, np.random.Generator], np.ndarray]] = {
    "wrong_labels": wrong_labels,
}
