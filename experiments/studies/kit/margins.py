"""What is measured, how two methods are compared by it, and which difference matters.

The margins are the protocol's: they stood here before the runs that they judge. A claim
that two methods differ is answered "no difference that matters here" where the whole
interval lies within the margin.
"""

import dataclasses
import math
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


def _ratio(title: str, percent: float, why: str) -> Measure:
    return Measure(title, "ratio", math.log1p(percent / 100), why)


_SPREAD = (
    "lam = 0.1 moves the weights of the domains by about as much at a spread of 0.1 nats"
)
_LIKE_RHO = "as the increase of the loss changes where rho is 0.0525 in place of 0.05"
_LOSS = "as the spread, which is told in the same unit"
MEASURES |= {
    "mean_spread": _ratio("spread of the domain losses, mean over the run", 2, _SPREAD),
    "early_spread": _ratio("the same over the first quarter of the run", 2, _SPREAD),
    "mean_loss": _ratio("training loss, mean over the run", 2, _LOSS),
    "unseen_gradient_variance": _ratio(
        "variance of the gradient on unseen concepts", 5, _LIKE_RHO
    ),
    "unseen_sharpness": _ratio(
        "increase of their loss within rho 0.05, one ascent", 5, _LIKE_RHO
    ),
    "unseen_sharpness_10": _ratio("the same, ten ascents", 5, _LIKE_RHO),
    "unseen_top_eigenvalue": _ratio("top eigenvalue of their Hessian", 5, _LIKE_RHO),
    "source_sharpness": _ratio(
        "increase of the sources' training losses within rho 0.05", 5, _LIKE_RHO
    ),
    "turn": Measure(
        "angle between SAM's perturbation and DISAM's",
        "difference",
        0.5,
        "a tenth of 5 degrees, by which a perturbation moves by 9 % of its length",
        unit="degrees",
    ),
    "kendall_tau": Measure(
        "Kendall's tau between flatness and accuracy",
        "difference",
        0.1,
        "of two models, the flatter one is the more accurate in 55 % and not in 50 %",
    ),
}


def margins_table() -> Table:
    """Every margin, with its reason."""
    rows = []
    for name, measure in MEASURES.items():
        if measure.compared == "ratio":
            size = f"{100 * math.expm1(measure.margin):.0f} %"
        else:
            size = f"{measure.scale * measure.margin:g} {measure.unit}"
        rows.append((measure.title, f"`{name}`", measure.compared, size, measure.why))
    columns = ("what", "measure", "compared by", "smallest that matters", "why")
    return Table("What is measured, and which difference matters", columns, rows)
