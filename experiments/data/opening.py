"""Any data set by its name: held in memory, or prepared from images on the disk."""

import dataclasses
import functools
from pathlib import Path

from experiments.data import DATASETS, DomainData, load
from experiments.data.prepare import Prepared, Progress, open_prepared, prepare
from experiments.fields import option


@dataclasses.dataclass(frozen=True)
class Where:
    """Where the images are that do not come with this package."""

    data_dir: Path | None = option(None, "images, DATA_DIR/DOMAIN/CLASS/image")
    prepared_dir: Path | None = option(None, "where they are prepared (default: TFDS's)")
    split_dir: Path | None = option(None, "folder of the published split files")
    skip_corrupt: bool = option(False, "leave out corrupt images and list them")
    allow_missing: bool = option(False, "go on although images of a benchmark are missing")


def open_data(
    name: str,
    image_size: int,
    where: Where,
    progress: Progress = lambda stage, done, total: None,
) -> DomainData | Prepared:
    """The data set of this name, prepared if it has to be.

    Args:
      name: a key of `DATASETS`, a benchmark's, or `folder`.
      image_size: pixels along a side, for data sets held in memory.
      where: its images are.
      progress: called with (stage, done, total) while it is prepared.

    Returns:
      The data set; one in memory is kept for the next call.

    Raises:
      ValueError: there is no such data set, or its images are missing.
    """
    if name in DATASETS:
        if where.data_dir is not None:
            raise ValueError(
                f"data_dir is not read for {name}, which comes with the package"
            )
        return _load_once(name, image_size)
    if where.data_dir is None and name == "folder":
        raise ValueError(
            "--data folder needs --data-dir DIR, a tree DIR/DOMAIN/CLASS/image"
        )
    if where.data_dir is None:
        return open_prepared(name, where.prepared_dir, split_dir=where.split_dir)
    return prepare(
        name,
        where.data_dir,
        where.prepared_dir,
        split_dir=where.split_dir,
        skip_corrupt=where.skip_corrupt,
        allow_missing=where.allow_missing,
        progress=progress,
    )


def open_same_data(
    name: str, image_size: int, where: Where, fingerprint: str
) -> DomainData | Prepared:
    """The data set in a process that trains; it must be what its runs were planned with.

    Arguments and errors are those of `open_data`.

    Raises:
      ValueError: also where its fingerprint is another.
    """
    data = open_data(name, image_size, where)
    if data.fingerprint != fingerprint:
        raise ValueError(
            f"the images of {name} here are not those that its runs were planned with; "
            "bring the same, or begin again in another folder."
        )
    return data


@functools.lru_cache(maxsize=8)
def _load_once(name: str, image_size: int) -> DomainData:
    return load(name, image_size=image_size)
