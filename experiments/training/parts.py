"""Which images of each domain are trained on, and which are held out."""

import functools
from collections.abc import Sequence

import numpy as np

from experiments.config.run import RunConfig
from experiments.data import DomainData, split_groups
from experiments.data.label_noise import with_wrong_labels
from experiments.data.open_classes import base_classes
from experiments.data.prepare import Prepared
from experiments.data.splits import (
    domainbed_split,
    least_images,
    read_split_files,
    release_split,
)


def check_parts(config: RunConfig, data: DomainData | Prepared) -> None:
    """Raises a ValueError unless the data is enough for the config's split and batches."""
    if isinstance(data, Prepared):
        prepared_parts(config, data)
    elif config.preset.open_classes:
        memory_parts(config, data)
    else:
        _check_groups(data, config.preset.holdout_fraction, config.seed)


def unseen_positions(config: RunConfig, data: DomainData | Prepared) -> dict[str, int]:
    """Position in the data of each domain left out; a ValueError where it has none."""
    return {name: data.domain_index(name) for name in config.unseen_domains}


def source_positions(config: RunConfig, data: DomainData) -> list[int]:
    """Positions in the data of the domains that are trained on."""
    return [data.domain_index(name) for name in config.sources(data.domains)]


def memory_parts(config: RunConfig, data: DomainData) -> tuple[DomainData, DomainData]:
    """The part to train on, its labels as the config wants them, and the part held out.

    No label that is held out, or of a domain left out, is ever wrong. With open classes the
    part to train on has images of the base classes alone in the source domains.
    """
    preset = config.preset
    if preset.split != "groups":
        raise ValueError(
            f"{data.name} is held in memory: split must be 'groups'; got '{preset.split}'."
        )
    train, heldout = split_groups(
        data, holdout_fraction=preset.holdout_fraction, seed=config.seed
    )
    noisy = source_positions(config, data)
    if preset.noisy_sources == "first":
        noisy = noisy[:1]
    train = with_wrong_labels(train, preset.label_noise, noisy, config.seed)
    parts = [known_classes(config, data, part.labels) for part in (train, heldout)]
    for d in source_positions(config, data):
        _check_known(config, data, d, *(int(known[d].sum()) for known in parts))
    return train.subset(parts[0]), heldout


def known_classes(
    config: RunConfig, data: DomainData | Prepared, labels: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Which images of each domain are of classes that are trained on, bool [N_d].

    Of the domains left out all are.
    """
    seen = seen_classes(config, data.classes)
    unseen = unseen_positions(config, data).values()
    return [
        np.ones(len(own), bool) if seen is None or d in unseen else np.isin(own, seen)
        for d, own in enumerate(labels)
    ]


def seen_classes(config: RunConfig, classes: Sequence[str]) -> tuple[int, ...] | None:
    """Labels of the classes that are trained on; None is all."""
    preset = config.preset
    if not preset.open_classes:
        return None
    return base_classes(classes, preset.open_classes, preset.class_order, config.data)


def prepared_parts(
    config: RunConfig, data: Prepared
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The two parts of each domain, seen to be enough for the batches."""
    preset = config.preset
    if preset.label_noise:
        raise ValueError(
            f"label_noise is for data held in memory; {data.name} is on the disk: leave "
            "--label-noise out."
        )
    parts = [_split_domain(config, data, d) for d in range(len(data.domains))]
    unseen = unseen_positions(config, data).values()
    known, known_held = (known_at(config, data, own) for own in zip(*parts, strict=True))
    for d in range(len(parts)):
        if d not in unseen:
            _check_known(config, data, d, int(known[d].sum()), int(known_held[d].sum()))
    parts = [(train[of], held) for (train, held), of in zip(parts, known, strict=True)]
    images = sum(len(train) for d, (train, _) in enumerate(parts) if d not in unseen)
    if preset.batching == "merged" and images < preset.batch_size:
        raise ValueError(
            f"batch_size must be at most {images}, the images of {data.name} to train on "
            f"when {' is unseen and '.join(config.unseen_domains)} is unseen; "
            f"got {preset.batch_size}: take a smaller --batch-size, or --batching "
            "balanced, which repeats images."
        )
    return parts


def _check_known(
    config: RunConfig, data: DomainData | Prepared, domain: int, train: int, heldout: int
) -> None:
    """Refuses a source without an image of the base classes in one of its parts."""
    if not config.preset.open_classes or (train and heldout):
        return
    raise ValueError(
        f"domain {data.domains[domain]} of {data.name} has {train} images of the base "
        f"classes to train on and {heldout} held out, where each must be one at least: "
        f"take another --open-classes than {config.preset.open_classes:g}, another "
        "--class-order, or leave the domain out of the data."
    )


def known_at(
    config: RunConfig, data: Prepared, parts: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Of each domain's images at these positions, see `known_classes`."""
    if not config.preset.open_classes:  # no label has to be read
        return [np.ones(len(part), bool) for part in parts]
    labels = [data.labels(d)[part] for d, part in zip(data.domains, parts, strict=True)]
    return known_classes(config, data, labels)


def _split_domain(
    config: RunConfig, data: Prepared, domain: int
) -> tuple[np.ndarray, np.ndarray]:
    """Positions of a domain's images, (the part to train on, the part held out).

    Domains are counted in sorted order, the unseen one too, as DomainBed counts them.
    """
    preset, name = config.preset, data.domains[domain]
    parts = _split(data, preset.split, preset.holdout_fraction, config.seed, domain)
    train, heldout = map(len, parts)
    if train and heldout:
        return parts
    counts = (
        f"domain {name} of {data.name} has {data.counts[name]} images, {heldout} of them "
        f"held out and {train} to train on, where each must be one at least: "
    )
    if preset.split == "files":
        raise ValueError(
            f"{counts}mend the lists in {data.split_dir}, or take 'domainbed'."
        )
    least = least_images(preset.split, preset.holdout_fraction)
    more = f"give it {least} images or more, or " if least else ""
    other = "smaller" if heldout else "larger"
    raise ValueError(
        f"{counts}{more}take a {other} --holdout-fraction than {preset.holdout_fraction:g}."
    )


@functools.lru_cache(maxsize=256)
def _split(
    data: Prepared, split: str, fraction: float, seed: int, domain: int
) -> tuple[np.ndarray, np.ndarray]:
    """Kept, as all runs of a comparison ask for the same few."""
    name = data.domains[domain]
    count = data.counts[name]
    if split == "domainbed":
        return domainbed_split(count, seed, domain, fraction)
    if split == "release":
        return release_split(count, fraction, seed=0)
    if split == "files":
        return read_split_files(data, name)
    raise ValueError(
        f"split '{split}' needs groups, which a folder of images does not have; "
        "take 'domainbed'."
    )


@functools.lru_cache(maxsize=256)
def _check_groups(data: DomainData, fraction: float, seed: int) -> None:
    split_groups(data, holdout_fraction=fraction, seed=seed)
