"""Does any measure of sharpness tell which model is better on the unseen domain?"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

from experiments.results.figures import save
from experiments.results.statistics import estimate
from experiments.results.table import Table
from experiments.studies import convergence, rho
from experiments.studies.dose import arms
from experiments.studies.kit.claims import OURS, Arm, Claim
from experiments.studies.kit.margins import MEASURES
from experiments.studies.kit.matrix import Group, Outcome, last, mean_loss, run_groups
from experiments.studies.kit.plots import legend_below
from experiments.studies.kit.run import load_once
from experiments.studies.kit.runs import Setting
from experiments.studies.kit.study import Curves, Figure, Measured, Study
from experiments.studies.kit.values import Value, Values

TAU = "kendall_tau"
POOLED = "both data sets"
SCORE = last("unseen_concept_accuracy")
Read = Callable[[Outcome], float]


def _mean_of_sources(outcome: Outcome) -> float:
    return float(np.mean(last("source_sharpness")(outcome)))


# what it is called -> how it is read; the smaller, the better
SHARPNESS: dict[str, Read] = {
    "variance of the gradient": last("unseen_gradient_variance"),
    "increase of the loss": last("unseen_sharpness"),
    "increase, ten ascents": last("unseen_sharpness_10"),
    "top eigenvalue": last("unseen_top_eigenvalue"),
    "increase on the sources": _mean_of_sources,
}
HELD_OUT = "accuracy on held-out sources"
BASELINES: dict[str, Read] = {
    HELD_OUT: lambda outcome: -last("in_domain_accuracy")(outcome),
    "training loss": lambda outcome: float(mean_loss(outcome)[-1]),
    "loss on the same images": last("unseen_concept_loss"),
}
ALL = {**SHARPNESS, **BASELINES}

PROTOCOL = """\
All models at the end of the studies of convergence, of the dose and of rho: ERM in as many
steps and in twice as many, SAM and DISAM over rho and lam, their placebos. Of the models of
one seed and one unseen domain, which are scored on the same images and trained on the same
ones, Kendall's tau (tau-b) counts the pairs that a measure ranks as the accuracy on unseen
concepts of the unseen domain does, less those that it ranks the other way, as a share: 1
where the flattest model is the most accurate and so on, 0 where the measure says nothing.
A seed's value is the mean over the unseen domains, and the interval is Student's over
seeds. Models of different seeds are not compared with each other: another seed holds out
other concepts, some of them hard, and hard images make losses steep and accuracies low
whatever the model. A measure on the images of the unseen domain, but for the increase on
the sources, needs their labels and is no rule to choose a model by; the loss on the same
images says how much such a look tells by itself, and the accuracy on held-out images of the
sources what is known without."""


def groups(setting: Setting) -> dict[tuple[str, str], Group]:
    """(data, name) -> its runs; those that studies share come once."""
    found: dict[tuple[str, str], Group] = {}
    for study in (convergence, arms, rho):
        for key, group in study.groups(setting).items():
            if group not in found.values():
                found[key] = group
    return found


def measure(setting: Setting) -> Measured:
    """Kendall's tau for each seed and unseen domain, and the models of the first seed."""
    found = run_groups(setting, groups(setting))
    values, curves = [], {}
    for data in dict.fromkeys(data for data, _ in found):
        models = [rows for (of, _), rows in found.items() if of == data]
        values += _taus(data, models)
        curves[data] = {"models": len(models)}
    if len(curves) > 1:
        values += [
            row._replace(
                condition=POOLED, unseen_domain=f"{row.condition} {row.unseen_domain}"
            )
            for row in values
        ]
    return Measured(values, curves)


def _taus(data: str, models: Sequence[Sequence[Sequence[Outcome]]]) -> list[Value]:
    """A value for each measure, seed and unseen domain."""
    return [
        Value(data, name, seed, unseen, TAU, tau([rows[seed][i] for rows in models], read))
        for name, read in ALL.items()
        for seed in range(len(models[0]))
        for i, unseen in enumerate(load_once(data).domains)
    ]


def tau(models: Sequence[Outcome], read: Read) -> float:
    """Kendall's tau between the accuracy of models and less of a measure.

    Args:
      models: their outcomes; those that diverged are left out.
      read: the measure, the smaller the better.

    Returns:
      In [-1, 1]; 0 where all models are equal in either.
    """
    there = [outcome for outcome in models if not outcome["diverged"]]
    measured = [-read(outcome) for outcome in there]
    found, _ = np.array(stats.kendalltau(measured, [SCORE(o) for o in there]))
    return float(found) if np.isfinite(found) else 0.0


def claims(values: Values) -> list[Claim]:
    """That each measure tells something, and more than held-out accuracy does."""
    return [
        claim
        for condition in values.conditions
        for claim in (*_tells(condition), *_tells_more(condition))
    ]


def _tells(condition: str) -> list[Claim]:
    return [
        Claim(
            f"By the {name}: the flatter, the more accurate on the unseen domain",
            "expected from Jiang et al., 2020, who rank models by such measures in-domain",
            OURS,
            condition,
            TAU,
            Arm(condition, name),
            None,
        )
        for name in SHARPNESS
    ]


def _tells_more(condition: str) -> list[Claim]:
    return [
        Claim(
            f"The {name} tells more than the accuracy on held-out sources",
            "ours",
            OURS,
            condition,
            TAU,
            Arm(condition, name),
            Arm(condition, HELD_OUT),
        )
        for name in SHARPNESS
    ]


def draw(values: Values, curves: Curves, out: Path) -> list[Figure]:
    """Kendall's tau of every measure with its interval."""
    figure, panel = plt.subplots(figsize=(5.6, 4.8), layout="constrained")
    for i, condition in enumerate(values.conditions):
        _draw_taus(panel, values, condition, i)
    margin = MEASURES[TAU].margin
    panel.axvspan(-margin, margin, color="#d9d9d9", lw=0, zorder=0)
    panel.axvline(0, color="black", lw=0.7, zorder=0)
    panel.axhline(0.5 - len(SHARPNESS), color="#999999", lw=0.7, linestyle="--")
    panel.set_yticks([-row for row in range(len(ALL))], list(ALL), fontsize=9)
    panel.set_xlabel("Kendall's tau with accuracy on unseen concepts", fontsize=9)
    legend_below(figure, panel, 3, fontsize=9)
    save(figure, out / "taus.png")
    return [
        Figure(
            "taus.png",
            "How well each measure ranks models by accuracy on the unseen domain",
            "Kendall's tau between a measure, small ones first, and the accuracy, among "
            "the models of a seed and unseen domain: 1 is the same order, 0 none, -1 the "
            "reverse. Dots: seeds; bars: 95 % intervals; shaded: what does not matter. "
            "Above the dashed line measures of sharpness, below it what they compete with.",
        )
    ]


def _draw_taus(panel: Any, values: Values, condition: str, i: int) -> None:
    """A row for each measure, the condition's own place in it."""
    style = {"color": f"C{i}", "fmt": "os^"[i], "ms": 4.5, "capsize": 2}
    for row, name in enumerate(ALL):
        dots = values.per_seed(condition, name, TAU)
        found = estimate(dots)
        at = -row - 0.22 * (i - 1)
        panel.plot(dots, np.full(len(dots), at), ".", ms=2.5, color=f"C{i}", alpha=0.5)
        reach = (found.high - found.low) / 2 if len(dots) > 1 else None
        label = condition if row == 0 else None
        panel.errorbar(found.mean, at, xerr=reach, label=label, **style)


def tables(values: Values, curves: Curves) -> list[Table]:
    """Every tau, and of how many models."""
    rows = [
        [
            condition,
            name,
            "sharpness" if name in SHARPNESS else "baseline",
            estimate(values.per_seed(condition, name, TAU)).interval("+.2f"),
        ]
        for condition in values.conditions
        for name in ALL
    ]
    models = ", ".join(f"{told['models']} on {data}" for data, told in curves.items())
    columns = ("data", "measure", "kind", "Kendall's tau")
    caption = f"Mean over seeds with its 95 % interval, among {models} models"
    return [Table(caption, columns, rows)]


STUDY = Study(
    "prediction",
    "Does any measure of sharpness predict accuracy on the unseen domain?",
    PROTOCOL,
    measure,
    claims,
    draw,
    tables,
    data=convergence.DATA,
)
