"""Accuracy over rho: the paper's Fig. 1a, 5a and 5b."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import ticker

from experiments.results.figures import color_of, save
from experiments.results.statistics import estimate
from experiments.results.table import Table
from experiments.studies.convergence import AT_THE_END, DATA
from experiments.studies.convergence import groups as watched
from experiments.studies.kit.claims import PAPERS, Arm, Claim
from experiments.studies.kit.margins import MEASURES
from experiments.studies.kit.matrix import ACCURACIES, Group, run_groups, values_of
from experiments.studies.kit.plots import errorbars, legend_below
from experiments.studies.kit.run import load_once
from experiments.studies.kit.runs import Setting
from experiments.studies.kit.study import Curves, Figure, Measured, Study
from experiments.studies.kit.values import Values

MEASURE = "unseen_concept_accuracy"
RHOS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
METHODS = {"SAM": "sam", "DISAM": "disam"}
ERM, ERM_TWICE = "ERM", "ERM, twice the steps"

PROTOCOL = """\
SAM and DISAM (lam 0.1) over rho, and ERM in as many steps, as the paper compares them;
every other hyperparameter as the data set's protocol has it, nothing tuned. ERM in twice
the steps, which costs as much as SAM, is shown beside them. Each rho is a claim of its own,
adjusted by Holm with the others of a data set; accuracy is that on unseen concepts of the
unseen domain. The paper also finds that DISAM can use a larger rho than SAM (0.2 against
0.09, its Fig. 3c), by a criterion that it does not state, chosen on the unseen domain; that
it should then be above SAM at the large ones is tested here. That the deviation over seeds
grows with lam (its Fig. 5) is not: ten seeds know a standard deviation to a factor of 0.7
to 1.8. `colored_digits` is left out: there the accuracy tells which colour rule was
learned, chance and that rule alone decide it."""


def name_of(method: str, rho: float) -> str:
    """Of SAM or DISAM with a rho, in the values."""
    return f"{method}, rho {rho:g}"


def groups(setting: Setting) -> dict[tuple[str, str], Group]:
    """(data, name) -> its runs; those of rho 0.05 are the study of convergence's."""
    shared = watched(setting)
    asked = {}
    for data in dict.fromkeys(data for data, _ in shared):
        asked[data, ERM] = shared[data, "ERM"]
        asked[data, ERM_TWICE] = Group(data, "erm", spec=AT_THE_END)
        for name, method in METHODS.items():
            for rho in RHOS:
                asked[data, name_of(name, rho)] = Group(
                    data, method, (("rho", rho),), equal_steps=True, spec=AT_THE_END
                )
            asked[data, name_of(name, 0.05)] = shared[data, name]
    return asked


def measure(setting: Setting) -> Measured:
    """Accuracies for every rho."""
    asked = groups(setting)
    values, curves = [], {}
    for (data, name), rows in run_groups(setting, asked).items():
        values += values_of(data, name, asked[data, name], rows, ACCURACIES)
        told = curves.setdefault(
            data, {"chance": 1 / len(load_once(data).classes), "diverged": {}}
        )
        ends = [outcome["diverged"] is not None for row in rows for outcome in row]
        told["diverged"][name] = f"{sum(ends)} of {len(ends)}"
    return Measured(values, curves)


def claims(values: Values) -> list[Claim]:
    """ERM above SAM, and DISAM above SAM, at every rho."""
    pairs = [(ERM, "SAM", rho, "analogue of DISAM, Fig. 1a") for rho in RHOS]
    pairs += [("DISAM", "SAM", rho, "analogue of DISAM, Fig. 5a and 5b") for rho in RHOS]
    return [
        Claim(
            f"{larger} is more accurate on unseen domains than {smaller} with rho {rho:g}",
            source,
            PAPERS,
            f"{data}, {larger} and {smaller} over rho",
            MEASURE,
            Arm(data, larger if larger == ERM else name_of(larger, rho)),
            Arm(data, name_of(smaller, rho)),
            family=data,
        )
        for data in values.conditions
        for larger, smaller, rho, source in pairs
    ]


def draw(values: Values, curves: Curves, out: Path) -> list[Figure]:
    """Accuracy over rho, and below it the paired differences to SAM."""
    figure, axes = plt.subplots(
        2, len(curves), figsize=(6.6, 5.6), layout="constrained", squeeze=False,
        sharex=True, sharey="row",
    )  # fmt: skip
    for column, (data, told) in enumerate(curves.items()):
        _draw_accuracy(axes[0, column], values, data, told["chance"])
        _draw_differences(axes[1, column], values, data)
        axes[0, column].set_title(data, fontsize=10)
        axes[1, column].set_xlabel("rho")
    axes[0, 0].set_ylabel("accuracy, unseen concepts (%)")
    axes[1, 0].set_ylabel("difference to SAM (points)")
    legend_below(figure, axes[0, 0], 3, fontsize=9)
    save(figure, out / "rho.png")
    return [
        Figure(
            "rho.png",
            "Accuracy on unseen concepts over rho, and the paired differences to SAM",
            "Above, means over seeds and unseen domains with 95 % intervals; ERM has no "
            "rho. Below, the differences to SAM with the same rho, seed by seed (dots), "
            "with 95 % intervals; shaded: differences that do not matter. All in as many "
            "steps, but for ERM in twice the steps, which costs what SAM costs. Points of "
            "one rho are moved apart to show both.",
        )
    ]


# name -> (colour, marker, place beside the rho, line style)
STYLES = {
    "SAM": (color_of("sam"), "o", 0.94, "-"),
    "DISAM": (color_of("disam"), "s", 1.06, "-"),
    ERM: (color_of("erm"), "^", 0.94, "--"),
    ERM_TWICE: ("#333333", "v", 1.0, ":"),
}


def _draw_accuracy(panel: Any, values: Values, data: str, chance: float) -> None:
    for name, (color, marker, moved, style) in STYLES.items():
        options = {"color": color, "label": name}
        if name in METHODS:
            found = [
                100 * values.per_seed(data, name_of(name, rho), MEASURE) for rho in RHOS
            ]
            at = moved * np.array(RHOS)
            errorbars(panel, at, found, marker=marker, ms=4, lw=1.2, **options)
            continue
        found = estimate(100 * values.per_seed(data, name, MEASURE))
        panel.axhline(found.mean, lw=1.2, linestyle=style, zorder=0, **options)
    panel.axhline(100 * chance, color="#999999", lw=0.8, zorder=0)
    panel.annotate("chance", (RHOS[0], 100 * chance), fontsize=8, va="bottom")
    panel.set_xscale("log")
    panel.set_xticks(RHOS, [f"{rho:g}" for rho in RHOS], fontsize=8)
    panel.xaxis.set_minor_locator(ticker.NullLocator())


def _draw_differences(panel: Any, values: Values, data: str) -> None:
    for name in (ERM, "DISAM"):
        color, marker, moved, _ = STYLES[name]
        differences = []
        for rho in RHOS:
            other = name if name == ERM else name_of(name, rho)
            sam = values.per_seed(data, name_of("SAM", rho), MEASURE)
            differences.append(100 * (values.per_seed(data, other, MEASURE) - sam))
        at = moved * np.array(RHOS)
        for x, dots in zip(at, differences, strict=True):
            panel.plot(np.full(len(dots), x), dots, ".", ms=2.5, color=color, alpha=0.5)
        options = {"marker": marker, "ms": 4, "linestyle": "none", "color": color}
        errorbars(panel, at, differences, **options)
    margin = 100 * MEASURES[MEASURE].margin
    panel.axhspan(-margin, margin, color="#d9d9d9", lw=0, zorder=0)
    panel.axhline(0, color="black", lw=0.7, zorder=0)


def tables(values: Values, curves: Curves) -> list[Table]:
    """Every point."""
    rows = [
        [
            data,
            name,
            *(
                estimate(100 * values.per_seed(data, name, what)).interval(".1f")
                for what in ACCURACIES
            ),
            told["diverged"][name],
        ]
        for data, told in curves.items()
        for name in values.methods(data)
    ]
    columns = (
        "data", "method", "unseen concepts %", "all images of the unseen domain %",
        "held-out images of the sources %", "diverged",
    )  # fmt: skip
    return [Table("Every point, mean over seeds with its 95 % interval", columns, rows)]


STUDY = Study(
    "rho",
    "How much does rho matter?",
    PROTOCOL,
    measure,
    claims,
    draw,
    tables,
    data=DATA,
)
