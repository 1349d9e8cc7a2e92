"""Every value that a study measured: a row for each seed, unseen domain and measure.

The findings follow from these rows alone, so that anyone can test them again without
training anything.
"""

import csv
import gzip
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.files import write_whole

COLUMNS = ("study", "condition", "method", "seed", "unseen_domain", "measure", "value")


class Value(NamedTuple):
    """One number.

    Attributes:
      condition: the data, and what was done about it, e.g. `emoji_styles, equal steps`.
      method: e.g. `DISAM, lam 10`.
      seed: of the run.
      unseen_domain: that was left out of the training; empty where nothing is.
      measure: a key of `MEASURES`.
      value: in the measure's own unit; NaN where the run diverged.
    """

    condition: str
    method: str
    seed: int
    unseen_domain: str
    measure: str
    value: float


class Values:
    """The values of a study.

    Args:
      rows: in any order.
    """

    def __init__(self, rows: Iterable[Value]) -> None:
        self.rows = list(rows)
        self._found: dict[tuple[str, str, str], dict[int, dict[str, float]]] = {}
        for row in self.rows:
            key = row.condition, row.method, row.measure
            seeds = self._found.setdefault(key, {})
            seeds.setdefault(row.seed, {})[row.unseen_domain] = row.value

    def __contains__(self, key: tuple[str, str, str]) -> bool:
        return key in self._found

    @property
    def conditions(self) -> list[str]:
        """In the order in which they come."""
        return list(dict.fromkeys(row.condition for row in self.rows))

    def methods(self, condition: str) -> list[str]:
        """Of a condition, in the order in which they come."""
        return list(dict.fromkeys(r.method for r in self.rows if r.condition == condition))

    def cells(self, condition: str, method: str, measure: str) -> set[tuple[int, str]]:
        """(seed, unseen domain) of all that was measured."""
        seeds = self._found[condition, method, measure]
        return {(seed, domain) for seed, found in seeds.items() for domain in found}

    def per_seed(self, condition: str, method: str, measure: str) -> np.ndarray:
        """One value per seed, in their order: the mean over the unseen domains, [seeds]."""
        seeds = self._found[condition, method, measure]
        return np.array([np.mean(list(seeds[seed].values())) for seed in sorted(seeds)])

    def by_domain(self, condition: str, method: str, measure: str) -> dict[str, np.ndarray]:
        """Unseen domain -> one value per seed, [seeds]."""
        seeds = self._found[condition, method, measure]
        domains = dict.fromkeys(domain for found in seeds.values() for domain in found)
        return {
            domain: np.array([seeds[seed][domain] for seed in sorted(seeds)])
            for domain in domains
        }


def write_values(file: Path, studies: Iterable[tuple[str, Sequence[Value]]]) -> None:
    """Writes the values of studies as gzipped CSV with the columns `COLUMNS`.

    Args:
      file: its place.
      studies: (name, values) of each.
    """
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(COLUMNS)
    for study, values in studies:
        for row in values:
            lines.writerow((study, *row[:-1], f"{row.value:.6g}"))
    packed = io.BytesIO()
    # No time and no name inside: the same values are the same bytes.
    with gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0) as stream:
        stream.write(text.getvalue().encode())
    write_whole(file, packed.getvalue())


def read_values(file: Path) -> dict[str, Values]:
    """Study -> its values, from such a file."""
    rows: dict[str, list[Value]] = {}
    with gzip.open(file, "rt", newline="") as stream:
        for row in csv.DictReader(stream):
            value = Value(
                row["condition"],
                row["method"],
                int(row["seed"]),
                row["unseen_domain"],
                row["measure"],
                float(row["value"]),
            )
            rows.setdefault(row["study"], []).append(value)
    return {study: Values(values) for study, values in rows.items()}
