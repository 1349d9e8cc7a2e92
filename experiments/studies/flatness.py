"""Flatness on the unseen domain: the paper's Fig. 6a, 6b and 2."""

import functools
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import ticker

from experiments.results.figures import save
from experiments.results.statistics import (
    Estimate,
    estimate,
    holm,
    p_text,
    paired,
    ratio_text,
    verdict,
)
from experiments.results.table import Table
from experiments.studies.convergence import groups, line
from experiments.studies.kit.matrix import Group, Outcome, per_seed, run_groups
from experiments.studies.kit.plots import legend_below, log_ticks, panels
from experiments.studies.kit.probes import RADIUS, SURFACE_AXIS
from experiments.studies.kit.run import Spec, load_once
from experiments.studies.kit.runs import Setting
from experiments.studies.kit.study import Figure, Finding, Numbers, Study

MEASURES = {
    "unseen_gradient_variance": "variance of the gradient",
    "unseen_sharpness": f"loss increase within {RADIUS} (nats)",
    "unseen_sharpness_10": "the same, 10 ascents (nats)",
    "unseen_top_eigenvalue": "top Hessian eigenvalue",
}
COLUMNS = {
    "unseen_gradient_variance": "gradient variance",
    "unseen_sharpness": "increase",
    "unseen_sharpness_10": "increase, 10 ascents",
    "unseen_top_eigenvalue": "top eigenvalue",
    "surface_increase": "surface's increase",
    "source_sharpness_mean": "increase of the sources' own losses",
    "source_sharpness_spread": "its std over sources",
}
COMPARED = {
    "unseen_gradient_variance": "variance of the gradient",
    "unseen_sharpness": "loss increase",
    "surface_increase": "random surface",
}
MARGIN = 0.05  # 5 %
SURFACE_MARGIN = 0.01  # nats
PAIRS = (
    ("DISAM", "SAM", "DISAM, Fig. 6a and 6b"),
    ("DISAM, lam 10", "SAM", "ours"),
    ("SAM", "ERM", "SAM, Foret et al."),
    ("DISAM", "ERM", "DISAM, Fig. 2"),
)

PROTOCOL = f"""\
The runs of the study of convergence (as many steps for each method, the paper's rho and
lam), measured five times over their training on up to 512 images of the unseen domain, in
evaluation mode: the variance of the gradient over 8 batches of 64, which is what the paper
calls sharpness (its Fig. 6; the size of a batch changes its level); the increase of the
loss within rho = {RADIUS}, by one ascent and by ten; and the top eigenvalue of the Hessian
(Lanczos, 12 iterations). Compared are ratios at the end of the training, paired by seed, p
adjusted by Holm over the pairs; 5 % does not matter, nor 0.01 nats on the surfaces. The
surfaces are of the loss on the unseen domain along two random directions whose filters are
as long as the weights' (Li et al., 2018), the same two for every run; a surface's increase
is its mean within half that length, less its middle."""


def _surface_groups(setting: Setting) -> dict[tuple[str, str], Group]:
    return {
        key: Group(
            group.data,
            group.method,
            group.overrides,
            equal_steps=True,
            unseen=_last_domain(group.data),
            spec=functools.partial(Spec, probes=("surface",)),
        )
        for key, group in groups(setting).items()
    }


def _last_domain(data: str) -> tuple[str, ...]:
    return (load_once(data).domains[-1],)


def measure(setting: Setting) -> Numbers:
    """Measures per seed and look, and surfaces of the last domain."""
    numbers: Numbers = {}
    for (data, name), rows in run_groups(setting, groups(setting)).items():
        kept = over_training(rows, tuple(MEASURES))
        own = [[o["looks"][-1]["source_sharpness"] for o in row] for row in rows]
        kept["source_sharpness_mean"] = _sparse([np.mean(row) for row in own])
        kept["source_sharpness_spread"] = _sparse(
            [np.mean([np.std(sources) for sources in row]) for row in own]
        )
        numbers.setdefault(data, {})[name] = kept
    for (data, name), rows in run_groups(setting, _surface_groups(setting)).items():
        surfaces = np.array([row[0]["looks"][-1]["surface"] for row in rows])
        numbers[data][name]["surface"] = _sparse(surfaces.mean(0))
        numbers[data][name]["surface_increase"] = per_seed(rows, _increase)
    return numbers


def over_training(rows: list[list[Outcome]], measures: tuple[str, ...]) -> Numbers:
    """What is kept of a method's runs: each measure at every look, [seeds, looks]."""
    kept: Numbers = {"steps": [look["step"] for look in rows[0][0]["looks"]]}
    for key in measures:
        found = [np.mean([[k[key] for k in o["looks"]] for o in row], 0) for row in rows]
        kept[key] = _sparse(found)
    return kept


def _increase(outcome: Outcome) -> float:
    """The mean of the surface within radius 1/2, less its middle."""
    surface = np.asarray(outcome["looks"][-1]["surface"])
    x, y = np.meshgrid(SURFACE_AXIS, SURFACE_AXIS)
    middle = surface[len(SURFACE_AXIS) // 2, len(SURFACE_AXIS) // 2]
    return float(surface[np.hypot(x, y) <= 0.5].mean() - middle)


def _sparse(values: object) -> list:
    found = np.asarray(values, float)
    return np.vectorize(lambda v: float(f"{v:.5g}"))(found).tolist()


def draw(numbers: Numbers, out: Path) -> list[Figure]:
    """The measures over the training, and the surfaces."""
    figures = [_draw_measures(numbers, out)]
    figures += [_draw_surfaces(data, runs, out) for data, runs in numbers.items()]
    return figures


def _draw_measures(numbers: Numbers, out: Path) -> Figure:
    shown = ("unseen_gradient_variance", "unseen_sharpness", "unseen_top_eigenvalue")
    figure, axes = plt.subplots(
        len(shown), len(numbers), figsize=(9.2, 7.4), layout="constrained", squeeze=False
    )
    for column, (data, runs) in enumerate(numbers.items()):
        for row, key in enumerate(shown):
            panel = axes[row, column]
            for name, run in runs.items():
                line(panel, run["steps"], run[key], name)
            panel.set_yscale("log")
            log_ticks(panel.yaxis)
            if column == 0:
                panel.set_ylabel(MEASURES[key])
        axes[0, column].set_title(data, fontsize=10)
        axes[-1, column].set_xlabel("step")
    legend_below(figure, axes[0, 0], 4)
    save(figure, out / "over_training.png")
    return Figure(
        "over_training.png",
        "Three measures of sharpness on the unseen domain over the training",
        "Mean over the unseen domains; bands: 95 % intervals over seeds; logarithmic axes.",
    )


def _draw_surfaces(data: str, runs: Numbers, out: Path) -> Figure:
    figure, axes = panels(len(runs), width=2.5, height=2.9, sharey=True)
    surfaces = {name: np.array(run["surface"]) for name, run in runs.items()}
    low = min(surface.min() for surface in surfaces.values())
    high = max(np.quantile(surface, 0.97) for surface in surfaces.values())
    levels = ticker.MaxNLocator(14).tick_values(low, high)
    drawn = None
    for panel, (name, surface) in zip(axes, surfaces.items(), strict=True):
        drawn = panel.contourf(
            SURFACE_AXIS, SURFACE_AXIS, surface.T, levels, cmap="viridis", extend="max"
        )
        panel.plot(0, 0, "o", color="white", ms=4)
        panel.set_title(name, fontsize=10)
        panel.set_xlabel("first direction")
        panel.set_xticks((-1, 0, 1))
        panel.set_aspect("equal")
    axes[0].set_ylabel("second direction")
    figure.colorbar(drawn, ax=axes, label="loss (nats)", shrink=0.8)
    file = f"surface_{data}.png"
    save(figure, out / file)
    return Figure(
        file,
        f"Loss on the last domain of {data}, unseen, around the trained weights",
        "Mean over seeds. The dot is the trained model; 1 on an axis is a step as long as "
        "each filter of the weights. One scale for all panels.",
    )


def final(run: Numbers, key: str) -> np.ndarray:
    """A measure at the end, one value per seed."""
    found = np.array(run[key])
    return found[:, -1] if found.ndim == 2 else found


def _measured(numbers: Numbers) -> set[str]:
    """What all runs were measured by."""
    runs = [run for runs in numbers.values() for run in runs.values()]
    return set.intersection(*(set(run) for run in runs))


def find(numbers: Numbers) -> list[Finding]:
    """Every pair with every measure."""
    return [
        finding
        for data, runs in numbers.items()
        for key, what in COMPARED.items()
        if key in _measured(numbers)
        for finding in _find(data, runs, key, what)
    ]


def _find(data: str, runs: Numbers, key: str, what: str) -> list[Finding]:
    # The surface may fall away from its middle, and then a ratio means nothing.
    as_ratio = key != "surface_increase"
    scale, in_words = (np.log, _ratio) if as_ratio else (np.asarray, _difference)
    tests = [
        paired(scale(final(runs[b], key)), scale(final(runs[a], key))) for a, b, _ in PAIRS
    ]
    adjusted = holm([test.p for test in tests])
    return [
        Finding(
            f"{a} is flatter on the unseen domain than {b}, by the {what}",
            source,
            data,
            verdict(test, MARGIN if as_ratio else SURFACE_MARGIN, p),
            f"{in_words(a, b, test)}, Holm p {p_text(p)}",
        )
        for (a, b, source), test, p in zip(PAIRS, tests, adjusted, strict=True)
    ]


def _ratio(a: str, b: str, test: Estimate) -> str:
    return f"{b} / {a} = {ratio_text(test)}"


def _difference(a: str, b: str, test: Estimate) -> str:
    return f"{b} - {a} = {test.interval('+.3f')} nats"


def tables(numbers: Numbers) -> list[Table]:
    """All measures at the end."""
    shown = {key: what for key, what in COLUMNS.items() if key in _measured(numbers)}
    rows = []
    for data, runs in numbers.items():
        for name, run in runs.items():
            cells = [estimate(final(run, key)).interval(".4g") for key in shown]
            rows.append([data, name, *cells])
    columns = ("data", "run", *shown.values())
    return [Table("At the end, mean over seeds with its 95 % interval", columns, rows)]


STUDY = Study(
    "flatness",
    "Is the minimum flatter on the domain that was not seen?",
    PROTOCOL,
    measure,
    draw,
    find,
    tables,
)
