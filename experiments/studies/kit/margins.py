"""What is measured, how two methods are compared by it, and which difference matters.

The margins are the protocol's: those of networks trained on data stood here before the
runs that they judge; those of Theorem 1, the toy and the synthetic problem were set when
earlier runs of these studies had been seen. A claim that two methods differ is answered
"no difference that matters here" where the whole interval lies within the margin.
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
        of an accuracy; of a ratio its logarithm, as log(1.02); 0 of an inequality, which
        any difference decides.
      why: that margin.
      scale: factor from the values to `unit`.
      unit: of what is printed; empty of a ratio.
      lower_bound: whether the values bound the quantity from below: then they can show
        that it is large enough, and never that it is not.
    """

    title: str
    compared: Literal["difference", "ratio"]
    margin: float
    why: str
    scale: float = 1.0
    unit: str = ""
    lower_bound: bool = False


def _points(title: str, why: str, margin: float = 0.005) -> Measure:
    return Measure(title, "difference", margin, why, 100.0, "points")


_INEQUALITY = "an inequality is decided by any difference"
_DRAWN = "a line of a drawing is about 1 % of its width"
_HALF = "less than the smallest gain that the papers print, 0.6 points"
MEASURES: dict[str, Measure] = {
    "unseen_concept_accuracy": _points(
        "accuracy on unseen concepts of the unseen domain", _HALF
    ),
    "out_of_domain_accuracy": _points("accuracy on all images of the unseen domain", _HALF),
    "in_domain_accuracy": _points("accuracy on held-out images of the sources", _HALF),
    "base_accuracy": _points(
        "accuracy on images of base classes in the unseen domain, among all", _HALF
    ),
    "new_accuracy": _points("the same on images of new classes", _HALF),
    "harmonic_accuracy": _points("harmonic mean of the two", _HALF),
    # Theorem 1.
    "bound_over_angle": Measure(
        "eta_t L / phi_t, the least over the steps", "ratio", 0.0, _INEQUALITY
    ),
    "least_bound_over_angle": Measure(
        "the same with a lower bound of L", "ratio", 0.0, _INEQUALITY, lower_bound=True
    ),
    "mean_turn": Measure(
        "phi_t / (eta_t L), the mean over the steps", "ratio", 0.0, _INEQUALITY
    ),
    "right_over_left": Measure(
        "right side / left side of Theorem 1", "ratio", 0.0, _INEQUALITY
    ),
    "faster_than_rate": Measure(
        "exponent of T in (1 + log T) / sqrt(T) less that in the left side of Theorem 1",
        "difference",
        0.05,
        "over the decade that it is fitted to it is 12 %",
    ),
    "runs_at_rest": _points(
        "share of the runs whose ascended point comes to rest",
        "less than one of the 28 runs of a seed",
        0.03,
    ),
    "loss_and_gradient": Measure(
        "correlation over the domains of L_i and its gradient's norm",
        "difference",
        0.1,
        "explains 1 % of the variance",
    ),
    "gradient_and_change": Measure(
        "cosine of grad L(w + eps) and the change of eps",
        "difference",
        0.05,
        "3 degrees from a right angle",
    ),
    "weights_fall": _points(
        "share of the steps at which the weights of large gradients fall, less the share "
        "at which they rise",
        "45 against 55 % of the steps",
        0.1,
    ),
    # The toy.
    "dominance": Measure(
        "cosine of the ascent with the longer gradient less that with the shorter one",
        "difference",
        0.01,
        "a turn of 0.6 degrees",
    ),
    "losses_apart": Measure(
        "difference of the two domains' losses along the path",
        "ratio",
        math.log(1.01),
        _DRAWN,
    ),
    "ascended_losses_apart": Measure(
        "the same at w + eps", "ratio", math.log(1.01), _DRAWN
    ),
    "visibly_apart": _points(
        "distance from SAM's path in per cent of a path's length, less 1",
        f"{_INEQUALITY}; {_DRAWN}",
        0.0,
    ),
    # The synthetic problem.
    "excess_error": _points(
        "error on a new domain above the least one",
        "less than half of the smallest gain that the papers print, 0.6 points",
        0.0025,
    ),
    "training_spread": Measure(
        "standard deviation of the domains' training losses",
        "ratio",
        math.log(1.05),
        "5 % of a spread of 0.1 nats turns a domain's weight by 0.02 at lam = 2",
    ),
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
        shown = size if measure.margin else "any"
        rows.append((measure.title, f"`{name}`", measure.compared, shown, measure.why))
    columns = ("what", "measure", "compared by", "smallest that matters", "why")
    return Table("What is measured, and which difference matters", columns, rows)
