"""Flatness on the unseen domain: the paper's Fig. 6a and 6b."""

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from experiments.results.figures import save
from experiments.results.statistics import estimate
from experiments.results.table import Table
from experiments.studies.convergence import DATA, LAM_10, groups, line
from experiments.studies.kit.claims import OURS, PAPERS, Arm, Claim
from experiments.studies.kit.forest import draw_forest
from experiments.studies.kit.matrix import Outcome, last, mean_loss, run_groups, values_of
from experiments.studies.kit.plots import legend_below, log_ticks
from experiments.studies.kit.probes import RADIUS
from experiments.studies.kit.runs import Setting
from experiments.studies.kit.study import Curves, Figure, Measured, Study
from experiments.studies.kit.values import Value, Values

# measure -> what it is called
SHARPNESS = {
    "unseen_gradient_variance": "variance of the gradient",
    "unseen_sharpness": "increase of the loss",
    "unseen_top_eigenvalue": "top eigenvalue",
}
MEASURED = {
    **SHARPNESS,
    "unseen_sharpness_10": "increase, ten ascents",
    "source_sharpness": "increase of the sources' own losses",
}
# flatter, sharper, source; the paper itself claims the first, by the first measure
PAIRS = (
    ("DISAM", "SAM", "expected from DISAM, Fig. 6a and 6b"),
    (LAM_10, "SAM", "ours: the same at a lam that turns more"),
    ("SAM", "ERM", "expected from SAM, Foret et al."),
)
OF_PAPER = "DISAM", "unseen_gradient_variance"
MATCHED = "ERM at SAM's loss"

PROTOCOL = f"""\
The runs of the study of convergence (as many steps for each method, the paper's rho and
lam), measured five times over their training in evaluation mode on up to 512 images of the
unseen domain that show what was trained on in no domain: the variance of the gradient over
8 batches, which is what the paper calls sharpness (the size of a batch changes its level);
the increase of the loss within rho = {RADIUS} by one ascent; and the top eigenvalue of the
Hessian (Lanczos, 12 iterations). Compared are ratios at the end of the training, seed by
seed. Foret et al. claim neither these measures nor unseen domains, and the paper claims the
first alone. A loss that is smaller is flatter by itself, so ERM is compared with SAM at
equal training loss too: its measures are interpolated (logarithms of both) between the
looks at its own run to where its training loss was SAM's last one. Surfaces along two
random directions are not drawn: of a hundred thousand directions two say least."""


def _final(name: str) -> Callable[[Outcome], float]:
    """The last value, or the mean of the last values of the sources."""
    return lambda outcome: float(np.mean(last(name)(outcome)))


def measure(setting: Setting) -> Measured:
    """Values at the end and at equal training loss, and curves."""
    asked = groups(setting)
    found = run_groups(setting, asked)
    values: list[Value] = []
    curves: Curves = {}
    ends = {name: _final(name) for name in MEASURED}
    for (data, name), rows in found.items():
        values += values_of(data, name, asked[data, name], rows, ends)
        curves.setdefault(data, {})[name] = _over_training(rows)
    for data in curves:
        erm, sam = found[data, "ERM"], found[data, "SAM"]
        pairs = [
            [{"diverged": a["diverged"] or b["diverged"], "pair": (a, b)} for a, b in row]
            for row in (zip(*both, strict=True) for both in zip(erm, sam, strict=True))
        ]
        at_equal_loss = {name: _matched(name) for name in SHARPNESS}
        group = asked[data, "ERM"]
        values += values_of(data, MATCHED, group, pairs, at_equal_loss)
    return Measured(values, curves)


def _matched(name: str) -> Callable[[Outcome], float]:
    return lambda both: at_loss(both["pair"][0], name, loss=mean_loss(both["pair"][1])[-1])


def at_loss(outcome: Outcome, name: str, loss: float) -> float:
    """A measure where the training loss was as given; NaN if it was not between looks."""
    steps = [look["step"] for look in outcome["looks"]]
    losses = np.interp(steps, outcome["steps"], mean_loss(outcome))
    order = np.argsort(losses)
    known = np.log([outcome["looks"][i][name] for i in order])
    at, losses = np.log(loss), np.log(losses[order])
    return float(np.exp(np.interp(at, losses, known, left=np.nan, right=np.nan)))


def _over_training(rows: Sequence[Sequence[Outcome]]) -> Curves:
    """Each measure at every look, [seeds, looks], the mean over the unseen domains."""
    kept: Curves = {"steps": [look["step"] for look in rows[0][0]["looks"]]}
    for name in SHARPNESS:
        found = [np.mean([[k[name] for k in o["looks"]] for o in row], 0) for row in rows]
        kept[name] = [[float(f"{x:.5g}") for x in seed] for seed in found]
    return kept


def claims(values: Values) -> list[Claim]:
    """Every pair by every measure at the end, then ERM and SAM at equal training loss."""
    return [
        claim
        for data in values.conditions
        for claim in (*_at_the_end(data), *_at_equal_loss(data))
    ]


def _at_the_end(data: str) -> list[Claim]:
    return [
        Claim(
            f"{flat} is flatter than {sharp}, by the {what}",
            source.replace("expected from", "analogue of") if of_paper else source,
            PAPERS if of_paper else OURS,
            data,
            name,
            Arm(data, sharp),
            Arm(data, flat),
        )
        for name, what in SHARPNESS.items()
        for flat, sharp, source in PAIRS
        for of_paper in ((flat, name) == OF_PAPER,)
    ]


def _at_equal_loss(data: str) -> list[Claim]:
    return [
        Claim(
            f"At equal training loss SAM is flatter than ERM, by the {what}",
            "ours: whether a smaller loss explains it",
            OURS,
            f"{data}, equal training loss",
            name,
            Arm(data, MATCHED),
            Arm(data, "SAM"),
        )
        for name, what in SHARPNESS.items()
    ]


def draw(values: Values, curves: Curves, out: Path) -> list[Figure]:
    """The answers by each measure, and the measures over the training."""
    asked = claims(values)
    answers = [
        draw_forest(
            asked,
            values,
            name,
            out / f"{name}.png",
            f"Sharpness on unseen concepts of the unseen domain, by the {what}",
        )
        for name, what in SHARPNESS.items()
    ]
    return [*answers, _draw_over_training(curves, out)]


def _draw_over_training(curves: Curves, out: Path) -> Figure:
    figure, axes = plt.subplots(
        len(SHARPNESS), len(curves), figsize=(6.4, 6.6), layout="constrained", squeeze=False
    )
    for column, (data, runs) in enumerate(curves.items()):
        for row, (name, what) in enumerate(SHARPNESS.items()):
            panel = axes[row, column]
            for method, run in runs.items():
                line(panel, run["steps"], run[name], method)
            panel.set_yscale("log")
            log_ticks(panel.yaxis)
            if column == 0:
                panel.set_ylabel(what)
        axes[0, column].set_title(data, fontsize=10)
        axes[-1, column].set_xlabel("step")
    legend_below(figure, axes[0, 0], 4)
    save(figure, out / "over_training.png")
    return Figure(
        "over_training.png",
        "Three measures of sharpness on unseen concepts over the training",
        "Mean over the unseen domains; bands: 95 % intervals over seeds, which are wider "
        "than those of the paired ratios above; logarithmic axes. SAM and DISAM lie on "
        "each other where one of them cannot be seen.",
    )


def tables(values: Values, curves: Curves) -> list[Table]:
    """All measures at the end."""
    rows = []
    for data in values.conditions:
        for name in values.methods(data):
            cells = [
                estimate(values.per_seed(data, name, what)).interval(".4g")
                if (data, name, what) in values
                else ""
                for what in MEASURED
            ]
            rows.append([data, name, *cells])
    columns = ("data", "run", *MEASURED.values())
    return [Table("At the end, mean over seeds with its 95 % interval", columns, rows)]


STUDY = Study(
    "flatness",
    "Is the minimum flatter on the domain that was not seen?",
    PROTOCOL,
    measure,
    claims,
    draw,
    tables,
    data=DATA,
)
