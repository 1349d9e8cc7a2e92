"""What is measured, how two methods are compared by it, and which difference matters.

The margins are the protocol's: they stood here before the runs that they judge. A claim
that two methods differ is answered "no difference that matters here" where the whole
interval lies within the margin.
"""

import dataclasses
from typing import Literal

from experiments.results.table import Table


@dataclasses.dataclass(frozen=True)
class Measure:
    """A quantity of a run.

    Attributes:
      title: what it is.
      compared: `difference`, of the values, or `ratio`, of their logarithms.
      margin: the smallest difference that matters: in the quantity's own unit, as 0.005
        of an accuracy; of a ratio its logarithm, as log(1.02).
      why: that margin.
      scale: factor from the values to `unit`.
      unit: of what is printed; empty of a ratio.
    """

    title: str
    compared: Literal["difference", "ratio"]
    margin: float
    why: str
    scale: float = 1.0
    unit: str = ""


def _points(title: str, why: str, margin: float = 0.005) -> Measure:
    return Measure(title, "difference", margin, why, 100.0, "points")


_HALF = "less than the smallest gain that the papers print, 0.6 points"
MEASURES: dict[str, Measure] = {
    "unseen_concept_accuracy": _points(
        "accuracy on unseen concepts of the unseen domain", _HALF
    ),
    "out_of_domain_accuracy": _points("accuracy on all images of the unseen domain", _HALF),
    "in_domain_accuracy": _points("accuracy on held-out images of the sources", _HALF),
}


def margins_table() -> Table:
    """Every margin, with its reason."""
    rows = []
    for name, measure in MEASURES.items():
        if measure.compared == "ratio":
            size = f"{100 * (2.718281828459045**measure.margin - 1):.0f} %"
        else:
            size = f"{measure.scale * measure.margin:g} {measure.unit}"
        rows.append((measure.title, f"`{name}`", measure.compared, size, measure.why))
    columns = ("what", "measure", "compared by", "smallest that matters", "why")
    return Table("What is measured, and which difference matters", columns, rows)
