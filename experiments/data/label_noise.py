"""Wrong labels: what people give, and what a sharpness-aware step is known to resist."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from experiments.data.domain_data import DomainData


def with_wrong_labels(
    data: DomainData, share: float, domains: Sequence[int], seed: int
) -> DomainData:
    """The data with the labels of some images replaced by another class, any as likely.

    Every image of the domains is mislabelled with probability `share`, each drawing of a
    thing by itself.

    Args:
      data: whose labels are right.
      share: of the images, in [0, 1).
      domains: positions of the domains; the labels of others stay as they are.
      seed: of what is drawn, which depends on it and the domain alone.

    Returns:
      The data.
    """
    labels, classes = list(data.labels), len(data.classes)
    for d in domains:
        rng = np.random.default_rng([seed, d])
        wrong = rng.random(len(labels[d])) < share
        step = rng.integers(1, classes, len(labels[d]))  # to another class, none to its own
        labels[d] = np.where(wrong, (labels[d] + step) % classes, labels[d]).astype(
            np.int32
        )
    return dataclasses.replace(data, labels=tuple(labels))
