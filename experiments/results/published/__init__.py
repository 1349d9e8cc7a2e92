"""The papers' printed numbers, as data with the table each stands in."""

import csv
import dataclasses
from pathlib import Path

TABLES = Path(__file__).with_name("tables.csv")


@dataclasses.dataclass(frozen=True)
class Published:
    """One printed number.

    Attributes:
      paper: it is printed in, e.g. `Zhang et al. 2024`.
      table: of the paper.
      printed: the method as the paper writes it.
      method: the same in this project's names, a penalty after the last plus; empty where
        there is none here.
      backbone: e.g. `ResNet-50`.
      score: `out_of_domain` or `in_domain`.
      data: a benchmark, or `average` over the five.
      domain: the unseen one; empty for the average over domains as it is printed.
      accuracy: percent, as printed.
      std: over 3 seeds, percent; None where none is printed.
      note: what is known to be odd about the number.
    """

    paper: str
    table: str
    printed: str
    method: str
    backbone: str
    score: str
    data: str
    domain: str
    accuracy: float
    std: float | None
    note: str


def load_published(path: Path = TABLES) -> list[Published]:
    """All of them, in the papers' order."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        Published(
            **{
                **row,
                "accuracy": float(row["accuracy"]),
                "std": float(row["std"]) if row["std"] else None,
            }
        )
        for row in rows
    ]
