"""Train and held-out parts that share no group, in any domain."""

from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from experiments.data.domain_data import DomainData


def split_groups(
    data: DomainData, *, holdout_fraction: float = 0.2, seed: int
) -> tuple[DomainData, DomainData]:
    """Parts of the data in which whole groups are held out, stratified by class.

    The groups stand in one shuffled order, whatever the seed, and a seed holds out those
    that follow on its predecessor's: with a fifth, seeds 0 to 4 are five folds, each
    group is held out once by them, and the fold of a seed is seed mod 5.

    Groups that occur in the same domains with the same labels form a stratum, and of each
    stratum `holdout_fraction` is held out, to rounding. Where all domains show the same
    groups, a stratum is a class: every domain then holds out the same groups and trains
    on equally many images. Where each group occurs in one domain, a stratum is a class
    within a domain. Of a stratum of one group no share can be held out: such groups form
    strata by their domains alone, whatever their classes.

    Args:
      data: the data to split; the order of its images is kept.
      holdout_fraction: share of the groups to hold out, between 0 and 1.
      seed: >= 0; the split is a function of the data and this number.

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
    shuffle = np.random.default_rng(0).permutation
    held_out: list[int] = []
    strata = _strata(data)
    for groups in strata:
        held_out += _fold(shuffle(groups).tolist(), holdout_fraction, seed)
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


def _fold(groups: list[int], fraction: float, seed: int) -> list[int]:
    """That share of the groups, from where the seed before ended; round and round."""
    share = Fraction(fraction).limit_denominator(10**6)  # 0.2 is a fifth: folds meet
    start, count = seed * share % 1, len(groups)
    window = range(round(start * count), round((start + share) * count))
    return [groups[i % count] for i in window]


def concepts_seen(train: DomainData, sources: Sequence[int]) -> list[np.ndarray]:
    """Which images show what is trained on, drawn otherwise, per domain, bool [N_d].

    Args:
      train: the images that are not held out.
      sources: positions of the domains that are trained on.

    Returns:
      True where an image's group occurs in a source.
    """
    seen = np.concatenate([train.groups[d] for d in sources])
    return [np.isin(groups, seen) for groups in train.groups]


def _strata(data: DomainData) -> list[list[int]]:
    """The groups of each stratum, in an order that does not depend on the images'."""
    occurrences = defaultdict(set)
    for domain, (groups, labels) in enumerate(zip(data.groups, data.labels, strict=True)):
        for group, label in zip(groups.tolist(), labels.tolist(), strict=True):
            occurrences[group].add((label, domain))
    strata = defaultdict(list)
    for group in sorted(occurrences):
        strata[tuple(sorted(occurrences[group]))].append(group)
    whole = [strata[key] for key in sorted(strata) if len(strata[key]) > 1]
    single = defaultdict(list)
    for key in sorted(strata):
        if len(strata[key]) == 1:
            single[tuple(domain for _, domain in key)] += strata[key]
    return whole + [single[domains] for domains in sorted(single)]
