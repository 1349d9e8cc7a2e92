"""Figures and tables of the study."""

from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from experiments.results.figures import save
from experiments.results.statistics import estimate
from experiments.results.table import Table
from experiments.studies.kit.claims import Claim, answer_claims
from experiments.studies.kit.forest import draw_forest
from experiments.studies.kit.margins import MEASURES
from experiments.studies.kit.matrix import ACCURACIES
from experiments.studies.kit.plots import legend_below
from experiments.studies.kit.study import Curves, Figure
from experiments.studies.kit.values import Values

Claims = Callable[[Values], list[Claim]]
MEASURE, TURN = "unseen_concept_accuracy", "turn"
MARKS = (("#1b7837", "o"), ("#b2182b", "D"), ("#2166ac", "s"), ("#555555", "^"))


def draw(claims: Claims, values: Values, curves: Curves, out: Path) -> list[Figure]:
    """Paired differences, and the accuracies of every unseen style."""
    forest = draw_forest(
        claims(values),
        values,
        MEASURE,
        out / "differences.png",
        "Paired differences in accuracy on unseen concepts of the unseen style",
    )
    return [forest, _draw_styles(values, out / "styles.png")]


def _draw_styles(values: Values, file: Path) -> Figure:
    condition = values.conditions[0]
    names = [n for n in values.methods(condition) if (condition, n, MEASURE) in values]
    figure, panel = plt.subplots(
        figsize=(5.6, 0.42 * len(names) + 1.1), layout="constrained"
    )
    for at, name in enumerate(names):
        found = values.by_domain(condition, name, MEASURE)
        for i, (style, accuracies) in enumerate(found.items()):
            told = estimate(100 * accuracies[np.isfinite(accuracies)])
            half = 0.0 if np.isinf(told.low) else told.mean - told.low
            color, marker = MARKS[i]
            panel.errorbar(
                told.mean, -at - 0.16 * (i - 1.5), xerr=half, fmt=marker, color=color,
                ms=4, capsize=2, label=style if at == 0 else None,
            )  # fmt: skip
    panel.set_yticks([-at for at in range(len(names))], names, fontsize=9)
    panel.set_xlabel("accuracy on unseen concepts (%)")
    panel.grid(axis="x", alpha=0.3)
    panel.spines[["top", "right", "left"]].set_visible(False)
    legend_below(figure, panel, columns=4)
    save(figure, file)
    return Figure(
        file.name,
        "Accuracy on unseen concepts, by the style that is unseen",
        "Mean over seeds with its 95 % interval, which is of the arm by itself: what two "
        "arms share, as concepts and batches, is in it, and is not in their paired "
        "differences.",
    )


def tables(claims: Claims, values: Values, curves: Curves) -> list[Table]:
    """Accuracies and what was chosen, angles, and power."""
    return [_accuracies(values, curves), _angles(values, curves), _power(claims, values)]


def _accuracies(values: Values, curves: Curves) -> Table:
    condition = values.conditions[0]
    rows = []
    for name, how in curves.items():
        cells = [
            estimate(100 * values.per_seed(condition, name, measure)).interval(".1f")
            for measure in ACCURACIES
        ]
        chosen = ", ".join(f"{k} {v:g}" for k, v in how["chosen"].items())
        edge = "" if how["inside"] else ", stopped before the end of the search"
        trained = f"{100 * how['training_accuracy']:.1f}"
        rows.append(
            [name, *cells, trained, str(how["steps"]), chosen, f"{how['trials']}{edge}"]
        )
    columns = (
        "arm", "unseen concepts %", "all images of the unseen style %",
        "held-out images of the sources %", "training images %", "steps",
        "chosen", "trials",
    )  # fmt: skip
    return Table("Accuracy, mean over seeds with its 95 % interval", columns, rows)


def _angles(values: Values, curves: Curves) -> Table:
    condition = values.conditions[0]
    rows = []
    for name, how in curves.items():
        if (condition, name, TURN) in values:
            found = values.by_domain(condition, name, TURN)
            every = estimate(values.per_seed(condition, name, TURN)).interval(".1f")
            each = [f"{np.mean(degrees):.1f}" for degrees in found.values()]
            rows.append([name, f"{how['chosen']['lam']:g}", every, *each])
    styles = values.by_domain(condition, next(iter(curves)), MEASURE)
    return Table(
        "Angle between SAM's perturbation and that of DISAM, at its own weights and by the "
        "labels it is given, degrees: median over ten steps of a run, mean over seeds",
        ("arm", "lam", "mean with its 95 % interval", *(f"{s} unseen" for s in styles)),
        rows,
    )


def _power(claims: Claims, values: Values) -> Table:
    rows = []
    for f in answer_claims(claims(values), values):
        scale = MEASURES[f.measure].scale
        told = (scale * x for x in (f.detectable, (f.high - f.low) / 2, f.margin))
        rows.append([f.contrast, f.where, str(f.seeds), *(f"{x:.2f}" for x in told)])
    return Table(
        "Power: the smallest true difference that as many such seeds show in 80 % of all "
        "studies, by a test at 5 % that stands alone, in points",
        ("contrast", "on", "seeds", "seen in 80 %", "half of the interval", "margin"),
        rows,
    )
