"""Which images of a domain are trained on, and which are held out."""

import dataclasses
import hashlib
import itertools
import random
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from experiments.data.benchmarks import BENCHMARKS, DOMAIN_NET
from experiments.data.prepared import Prepared

Split = tuple[np.ndarray, np.ndarray]  # positions to train on, positions held out


@dataclasses.dataclass(frozen=True)
class SplitFiles:
    """The published lists of a benchmark, with a line `DOMAIN/CLASS/image LABEL` an image.

    Attributes:
      train: name of the list to train on; {} is the domain.
      heldout: name of the list held out.
      classes: names of the classes in the order of the labels.
      first_label: label of the first class.
      domains: domain -> its name in the lists, where that is another.
    """

    train: str
    heldout: str
    classes: tuple[str, ...]
    first_label: int = 0
    domains: Mapping[str, str] = dataclasses.field(default_factory=dict)


PUBLISHED = {
    "pacs": SplitFiles(
        "{}_train_kfold.txt",
        "{}_crossval_kfold.txt",
        BENCHMARKS["pacs"].classes,
        first_label=1,
    ),
    "vlcs": SplitFiles(
        "{}_train.txt",
        "{}_crossval.txt",
        BENCHMARKS["vlcs"].classes,
        domains={
            "Caltech101": "CALTECH",
            "LabelMe": "LABELME",
            "SUN09": "SUN",
            "VOC2007": "PASCAL",
        },
    ),
    "domain_net": SplitFiles("{}_train.txt", "{}_test.txt", tuple(DOMAIN_NET.split())),
}


# (images of a domain, holdout_fraction) -> how many of them are held out.
HELD_OUT: dict[str, Callable[[int, float], int]] = {
    "domainbed": lambda count, fraction: int(count * fraction),
    "release": lambda count, fraction: count - int(count * (1 - fraction)),
}


def least_images(split: str, holdout_fraction: float) -> int | None:
    """The fewest images of a domain of which some are trained on and some held out.

    Args:
      split: a key of `HELD_OUT`.
      holdout_fraction: in [0, 1).

    Returns:
      The number; None where nothing is held out of any number.
    """
    if not holdout_fraction:
        return None
    held_out = HELD_OUT[split]
    return next(n for n in itertools.count(2) if 0 < held_out(n, holdout_fraction) < n)


def seed_hash(*values: object) -> int:
    """DomainBed's seed, made of what the values print."""
    return int(hashlib.md5(str(values).encode()).hexdigest(), 16) % 2**31


def domainbed_split(
    count: int, trial_seed: int, domain_index: int, holdout_fraction: float = 0.2
) -> Split:
    """DomainBed's split of one domain (Gulrajani and Lopez-Paz, ICLR 2021).

    SWAD, SAGM and DISAM's experiments on DomainBed have the same.

    Args:
      count: images of the domain, N, in ImageFolder's order.
      trial_seed: 0, 1 or 2 in the papers.
      domain_index: of the domain among all of the benchmark, sorted, the unseen included.
      holdout_fraction: of the images, rounded down, held out.

    Returns:
      (in, out), int64: positions to train on, and held out.
    """
    positions = list(range(count))
    np.random.RandomState(seed_hash(trial_seed, domain_index)).shuffle(positions)
    held_out = HELD_OUT["domainbed"](count, holdout_fraction)
    return _array(positions[held_out:]), _array(positions[:held_out])


def release_split(count: int, holdout_fraction: float, seed: int = 0) -> Split:
    """The DISAM release's shuffle: 1/10 of OfficeHome held out, 1/5 of TerraIncognita.

    The release shuffles lists written in the order of an unsorted directory, which differs
    between machines, so that its very split cannot be had; this one shuffles the sorted
    files in the same way.

    Args:
      count: images of the domain, N.
      holdout_fraction: held out; the part to train on is rounded down.
      seed: of Python's generator; 0 in the release.

    Returns:
      Positions to train on, and held out, int64.
    """
    positions = list(range(count))
    random.Random(seed).shuffle(positions)
    trained = count - HELD_OUT["release"](count, holdout_fraction)
    return _array(positions[:trained]), _array(positions[trained:])


def read_split_files(data: Prepared, domain: str) -> Split:
    """The published lists of a domain: train and crossval, for DomainNet train and test.

    The DISAM release validates and tests on DomainNet's test list. It ships the lists of
    PACS alone. Those of VLCS that Carlucci et al. (CVPR 2019) ship name the files of
    another package, `CALTECH/full/0/train_imgs_1.jpg`, and do not fit DomainBed's. A class
    folder that is a number is taken for the class of the label.

    Args:
      data: prepared, with its split_dir.
      domain: its name.

    Returns:
      Positions to train on, and held out, int64. Images that were left out as corrupt are
      in neither.

    Raises:
      ValueError: there are no such lists; a line names an unknown image, one that was
        listed before, or a label that is not its class's; or an image stands in no list.
        The message has file and line.
    """
    if data.name not in PUBLISHED:
        raise ValueError(
            f"split 'files': {data.name} has no published lists, only "
            f"{', '.join(PUBLISHED)} have; take 'domainbed'."
        )
    if data.split_dir is None:
        raise ValueError(
            f"split 'files' reads the published lists of {data.name}: give their folder, "
            "--split-dir DIR, or take 'domainbed'."
        )
    published = PUBLISHED[data.name]
    seen: dict[str, str] = {}
    train, heldout = (
        _read_list(Path(data.split_dir), template, published, data, domain, seen)
        for template in (published.train, published.heldout)
    )
    unlisted = [file for file in data.filenames(domain) if file not in seen]
    if unlisted:
        raise ValueError(
            f"{len(unlisted)} images of {domain} stand in no list of {data.split_dir}, "
            f"first {unlisted[0]}; the lists are of another version of {data.name}."
        )
    return train, heldout


def _array(positions: list[int]) -> np.ndarray:
    return np.array(positions, np.int64)


def _read_list(
    split_dir: Path,
    template: str,
    published: SplitFiles,
    data: Prepared,
    domain: str,
    seen: dict[str, str],
) -> np.ndarray:
    """Positions of the images of a list; `seen` gets file -> where it is listed."""
    path = split_dir / template.format(published.domains.get(domain, domain))
    if not path.is_file():
        raise ValueError(f"split_dir holds no {path.name}: expected {path}")
    positions = {file: position for position, file in enumerate(data.filenames(domain))}
    skipped = set(data.skipped(domain))
    part = []
    try:
        lines = path.read_text("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        file = _file_of(line, published, domain, where)
        if file in seen:
            raise ValueError(f"{where}: {file} is already in {seen[file]}")
        seen[file] = where
        if file in positions:
            part.append(positions[file])
        elif file not in skipped:
            raise ValueError(f"{where}: {file} is not among the images of {domain}")
    return _array(part)


def _file_of(line: str, published: SplitFiles, domain: str, where: str) -> str:
    """`CLASS/image` of a line, its domain, class and label checked."""
    words = line.rsplit(maxsplit=1)
    if len(words) != 2 or not words[1].isdecimal() or words[0].count("/") < 2:
        raise ValueError(f"{where}: expected DOMAIN/CLASS/image LABEL, found '{line}'")
    *before, folder, image = words[0].split("/")
    if not {domain, published.domains.get(domain)} & set(before):
        raise ValueError(f"{where}: {words[0]} is not of domain {domain}")
    index = int(words[1]) - published.first_label
    if not 0 <= index < len(published.classes):
        raise ValueError(f"{where}: label {words[1]} is not that of any class")
    if folder not in (published.classes[index], words[1]):
        raise ValueError(
            f"{where}: label {words[1]} is {published.classes[index]}, not {folder}"
        )
    return f"{published.classes[index]}/{image}"
