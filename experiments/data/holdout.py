"""Train and held-out parts that share no group, in any domain."""

from collections import defaultdict

import numpy as np

from experiments.data.domain_data import DomainData


def split_groups(
    data: DomainData, *, holdout_fraction: float = 0.2, seed: int
) -> tuple[DomainData, DomainData]:
    """Parts of the data in which whole groups are held out, stratified by class.

    Groups that occur in the same domains with the same labels form a stratum, and
    `round(holdout_fraction * size)` groups of every stratum are held out. Where all
    domains show the same groups, a stratum is a class: every domain then holds out the
    same groups and trains on equally many images. Where each group occurs in one domain,
    a stratum is a class within a domain.

    Args:
      data: the data to split; the order of its images is kept.
      holdout_fraction: share of the groups to hold out, between 0 and 1.
      seed: the split is a function of the data and this number.

    Returns:
      train: the images of the groups kept.
      heldout: the images of the groups held out.

    Raises:
      ValueError: if the fraction is not between 0 and 1, or so small that no group at
        all, or none of a domain, would be held out, or so large that none would be left.
    """
    if not 0 < holdout_fraction < 1:
        raise ValueError(
            f"holdout_fraction must be between 0 and 1, both excluded, "
            f"not {holdout_fraction}"
        )
    rng = np.random.default_rng(seed)
    held_out: list[int] = []
    strata = _strata(data)
    for groups in strata:
        number = round(holdout_fraction * len(groups))
        held_out += rng.permutation(groups)[:number].tolist()
    if len(held_out) in (0, sum(map(len, strata))):
        raise ValueError(
            f"holdout_fraction {holdout_fraction} holds out {len(held_out)} of the "
            f"groups of {data.name}, which leaves one of the two parts empty"
        )
    masks = [np.isin(groups, held_out) for groups in data.groups]
    for domain, mask in zip(data.domains, masks, strict=True):
        if mask.sum() in (0, len(mask)):
            raise ValueError(
                f"domain {domain} of {data.name} has {len(mask)} images, of which "
                f"holdout_fraction {holdout_fraction} holds out {mask.sum()}; one at least "
                "must be held out, and one left: give it more images of each class, or "
                f"take a {'smaller' if mask.any() else 'larger'} holdout_fraction"
            )
    return data.subset([~mask for mask in masks]), data.subset(masks)


def _strata(data: DomainData) -> list[list[int]]:
    """The groups of each stratum, in an order that does not depend on the images'."""
    occurrences = defaultdict(set)
    for domain, (groups, labels) in enumerate(zip(data.groups, data.labels, strict=True)):
        for group, label in zip(groups.tolist(), labels.tolist(), strict=True):
            occurrences[group].add((label, domain))
    strata = defaultdict(list)
    for group in sorted(occurrences):
        strata[tuple(sorted(occurrences[group]))].append(group)
    return [strata[key] for key in sorted(strata)]
