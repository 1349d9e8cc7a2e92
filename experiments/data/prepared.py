"""A data set that was prepared on the disk: its names, labels and records.

PREPARED_DIR/NAME/              for a folder: PREPARED_DIR/folders/ITS_NAME-HASH/folder/
  checked.jsonl                 a line for every image that was decoded
  DOMAIN/1.0.0/*.array_record*  the images and labels, written by TFDS
  DOMAIN.json                   their file names, written last: the domain is prepared
  data.json                     domains, classes and warnings: all domains are prepared
  .data.json                    in place of DOMAIN.json, for a domain called data
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from experiments.data.benchmarks import BENCHMARKS
from experiments.data.builder import RELEASE, SPLIT
from experiments.data.check_images import content_of
from experiments.data.folders import class_of
from experiments.fields import check_known
from experiments.files import read_json

DATA = "data.json"


@dataclasses.dataclass(frozen=True, eq=False)  # a key of caches, by identity
class Prepared:
    """A data set on the disk, read at random.

    Attributes:
      name: of the data set.
      folder: where it is prepared.
      domains: names of the domains, sorted, as DomainBed counts them.
      classes: names of the classes; a label is an index into them.
      warnings: what was let pass when it was prepared, one a line.
      split_dir: folder of the published split files, or None.
    """

    name: str
    folder: Path
    domains: tuple[str, ...]
    classes: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    split_dir: Path | None = None

    @property
    def fingerprint(self) -> str:
        """Of classes, file names, contents and split files, wherever they lie."""
        contents = [self._index[d]["content"] for d in self.domains]
        lists = sorted(Path(self.split_dir).glob("*.txt")) if self.split_dir else []
        split = [[file.name, content_of(file.read_bytes())] for file in lists]
        return digest([self.classes, contents, *split])

    @property
    def counts(self) -> dict[str, int]:
        """Images of each domain."""
        return {domain: len(self.filenames(domain)) for domain in self.domains}

    def domain_index(self, name: str) -> int:
        """The position of the domain of this name.

        Raises:
          ValueError: if there is no such domain; the message lists those there are.
        """
        check_known(f"domain of {self.name}", name, self.domains)
        return self.domains.index(name)

    def filenames(self, domain: str) -> list[str]:
        """`CLASS/...`, below the domain's folder, in the order of the records."""
        return self._index[domain]["files"]

    def skipped(self, domain: str) -> list[str]:
        """The files that could not be decoded and were left out."""
        return self._index[domain]["skipped"]

    def labels(self, domain: str) -> np.ndarray:
        """The labels, int32 [N], in the order of the records."""
        positions = {name: position for position, name in enumerate(self.classes)}
        classes = map(class_of, self.filenames(domain))
        return np.array([positions[name] for name in classes], np.int32)

    def records(self, domain: str) -> Any:
        """The records of a domain.

        Returns:
          A sequence; `source[i]` is a mapping of `image`, the bytes of a file in RGB or
          gray, `label`, an int, and `filename`, bytes.

        Raises:
          ValueError: its folder is not there, or no longer whole.
        """
        where = self.folder / domain / RELEASE
        with quiet():
            try:
                builder = tfds.builder_from_directory(where)
            except Exception as error:  # TFDS has several kinds of them, none documented
                raise ValueError(
                    f"{where} is damaged: delete {index_file(self.folder, domain)} and "
                    f"prepare {self.name} again"
                ) from error
            return builder.as_data_source(
                split=SPLIT,  # pyright: ignore[reportCallIssue] (hidden by a decorator)
                decoders={"image": tfds.decode.SkipDecoding()},
            )

    @functools.cached_property
    def _index(self) -> dict[str, dict[str, Any]]:
        found = {d: read_if_whole(index_file(self.folder, d)) for d in self.domains}
        for domain, index in found.items():
            if not index:
                raise ValueError(
                    f"{index_file(self.folder, domain)} is missing or damaged: prepare "
                    f"{self.name} again, --data-dir DIR."
                )
        return found


def open_prepared(
    name: str, prepared_dir: Path | None = None, *, split_dir: Path | None = None
) -> Prepared:
    """Opens a benchmark that was prepared before; its images are no longer needed.

    Args:
      name: a key of `BENCHMARKS`.
      prepared_dir: where it was prepared; None is TFDS's own.
      split_dir: folder of the published split files.

    Returns:
      The data set.

    Raises:
      ValueError: it was not prepared there.
    """
    folder = place(name, prepared_dir, None)
    found = read_if_whole(folder / DATA)
    if not found:
        raise ValueError(
            f"{name} is not prepared in {folder}: give the folder of its images, "
            "--data-dir DIR, or the place where it was prepared, --prepared-dir DIR."
        )
    return Prepared(
        name,
        folder,
        tuple(found["domains"]),
        tuple(found["classes"]),
        tuple(found["warnings"]),
        split_dir,
    )


def place(name: str, prepared_dir: Path | None, root: Path | None) -> Path:
    """Where a data set is prepared; two folders of the same name do not collide."""
    base = prepared_base(prepared_dir)
    if name in BENCHMARKS or root is None:
        return base / name
    root = root.resolve()
    return base / "folders" / f"{root.name}-{digest(str(root))[:8]}" / name


def prepared_base(prepared_dir: Path | None) -> Path:
    """Where all data sets are prepared: TFDS's own place, where none is given."""
    default = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    return Path(prepared_dir or default).expanduser()


def index_file(folder: Path, domain: str) -> Path:
    """Where the names of a domain's files are."""
    file = folder / f"{domain}.json"
    # No domain's name begins with a dot.
    return file.with_name(f".{DATA}") if file.name == DATA else file


def read_if_whole(file: Path) -> dict[str, Any]:
    """What a file of `prepare` holds; nothing where it is missing or damaged."""
    try:
        return read_json(file)
    except (FileNotFoundError, ValueError):
        return {}


def digest(value: Any) -> str:
    """16 hexadecimal digits that tell a value of JSON's from another."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """TFDS without its progress bars and its warnings about optional packages."""
    tfds.disable_progress_bar()
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
