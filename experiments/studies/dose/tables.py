"""Spreads and angles of each setting, what an angle would need, and every arm."""

import numpy as np

from experiments.results.statistics import estimate
from experiments.results.table import Table
from experiments.studies.dose.arms import LAMS, MEASURE, SHOWN, SMALL_RHO, TURN, effect
from experiments.studies.kit.study import Curves
from experiments.studies.kit.turns import spread_for
from experiments.studies.kit.values import Values


def tables(values: Values, curves: Curves) -> list[Table]:
    """Spreads and angles of each setting, what an angle would need, and every arm."""
    return [_turns_table(curves), _needs_table(curves), _arms_table(values)]


def _turns_table(curves: Curves) -> Table:
    rows = []
    for data, told in curves.items():
        for of, images in (("", "batch"), ("_of_all", "all together")):
            medians = [np.median(told[f"angles{of}"][f"{lam:g}"]).item() for lam in SHOWN]
            spread, per_nat = (np.median(told[f"{x}{of}"]) for x in ("spread", "per_nat"))
            angles = [f"{x:.1f}" for x in medians]
            rows.append([data, images, f"{spread:.3f}", f"{per_nat:.2f}", *angles])
    lams = (f"lam {lam:g}" for lam in SHOWN)
    columns = ("data", "images", "spread (nats)", "k", *lams)
    caption = "Angle at SAM's weights in degrees, medians over runs and looks"
    return Table(caption, columns, rows)


def _needs_table(curves: Curves) -> Table:
    rows = []
    for data, told in curves.items():
        spread, per_nat = np.median(told["spread"]), np.median(told["per_nat"])
        for degrees in (10.0, 30.0):
            needed = spread_for(degrees, 0.1, per_nat)
            # tan(angle) = 2 lam s k: a lam and a spread stand in for each other.
            lam = spread_for(degrees, spread, per_nat)
            cells = [f"{x:.2f}" for x in (per_nat, needed, lam)]
            rows.append([data, f"{degrees:g}", *cells])
    for degrees in (10.0, 30.0):
        needed = f"{spread_for(degrees, 0.1, 1.0):.2f}"
        rows.append(["gradients at right angles", f"{degrees:g}", "1", needed, ""])
    columns = ("data", "degrees", "k", "spread at lam 0.1 (nats)", "lam at this spread")
    caption = (
        "What an angle would need, by tan(angle) = 2 lam s k; a ResNet-50 needs the same "
        "product, and its spread and k are not measured here"
    )
    return Table(caption, columns, rows)


def _arms_table(values: Values) -> Table:
    there = [
        (data, name)
        for data in values.conditions
        for name in ("SAM", SMALL_RHO, *LAMS)
        if (data, name, MEASURE) in values
    ]
    rows = []
    for data, name in there:
        turns = values.per_seed(data, name, TURN) if name in LAMS else []
        accuracy = estimate(100 * values.per_seed(data, name, MEASURE)).interval(".1f")
        less_sam = estimate(effect(values, data, name)).interval("+.2f")
        rows.append(
            [
                data,
                name,
                f"{np.median(turns):.1f}" if len(turns) else "",
                accuracy,
                "" if name == "SAM" else less_sam,
            ]
        )
    columns = ("data", "arm", "angle (degrees)", "unseen concepts %", "less SAM (points)")
    return Table("Every arm, mean over seeds with its 95 % interval", columns, rows)
