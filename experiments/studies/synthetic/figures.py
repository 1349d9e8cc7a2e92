"""Figures of the synthetic study, from its values alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from experiments.results.figures import color_of, legend, save
from experiments.results.statistics import estimate
from experiments.studies.kit.margins import MEASURES
from experiments.studies.kit.plots import errorbars, legend_below
from experiments.studies.kit.study import Curves, Figure
from experiments.studies.kit.values import Values
from experiments.studies.synthetic.findings import (
    LARGE_AS_SAM,
    MEASURE,
    NAMES,
    PERCENT,
    SAM,
    cell_of,
    dials_in_words,
    swept,
)
from experiments.studies.synthetic.problem import name_of

AXES = {
    "gap": "domain gap (the signal is 1.5)",
    "contrast": "contrast, largest / smallest",
    "extra_noise": "more wrong labels in one (%)",
    "noise": "wrong labels in all domains (%)",
    "imbalance": "domain sizes, largest / smallest",
    "domains": "source domains",
}
STYLES = {
    "erm": {"linestyle": "-", "marker": "s"},
    "vrex": {"linestyle": ":", "marker": "^"},
    "sam": {"linestyle": "-", "marker": "o"},
    "disam 2": {"linestyle": "--", "marker": "D"},
}
CLIMBED = {"none": "no ascent", "L": "L", "L-V": "L \N{MINUS SIGN} 2V"}
DESCENDED = {
    "L": ("L", "#000000", "o"),
    "L+V": ("L + 2V", color_of("vrex"), "^"),
    "L-V": ("L \N{MINUS SIGN} 2V", color_of("sam"), "v"),
}
NAMED = {("none", "L"): "erm", ("L", "L"): "sam", ("L-V", "L"): "disam 2"}
# (climbed, descended) -> (name, colour, marker)
SWEPT = {
    ("L-V", "L"): ("climb L \N{MINUS SIGN} lam V, descend L (DISAM)", "disam", "o"),
    ("L", "L+V"): ("climb L, descend L + lam V", "vrex", "^"),
    ("L", "L-V"): ("climb L, descend L \N{MINUS SIGN} lam V", "sam", "v"),
}
APART = 0.13  # of two methods at the same value of a dial
LOWEST, HIGHEST = -4.0, 2.0  # points that the axis of a swept weight reaches
MARGIN = 100 * MEASURES[MEASURE].margin  # points
WIDTH = 5.6  # inches


def draw(values: Values, curves: Curves, out: Path) -> list[Figure]:
    """Writes the figures."""
    return [
        _draw_against_sam(values, curves, out),
        _draw_dials(values, curves, out),
        _draw_parts(values, curves, out),
    ]


def _draw_against_sam(values: Values, curves: Curves, out: Path) -> Figure:
    figure, grid = _panels(curves, 6.8, sharey=True)
    shown = {
        NAMES["disam 0.1"]: ("lam 0.1, both tuned", {"marker": "x", "linestyle": "--"}),
        NAMES["disam 2"]: ("lam 2, both tuned", {"marker": "D", "linestyle": "-"}),
        LARGE_AS_SAM: (
            "lam 2, SAM's learning rate and rho",
            {"marker": "D", "linestyle": ":", "fillstyle": "none"},
        ),
    }
    for axes, dial in zip(grid.flat, curves["sweeps"], strict=True):
        _margin(axes)
        for i, (method, (name, style)) in enumerate(shown.items()):
            fewer = [_fewer(values, c, method) for c in _along(curves, dial)]
            x = [at + APART * (i - 1) for at in range(len(fewer))]
            style |= {"linewidth": 1.2, "ms": 4, "color": color_of("disam")}
            errorbars(axes, x, fewer, label=name, **style)
    for axes in grid[:, 0]:
        axes.set_ylabel("fewer errors than\nSAM (points)", fontsize=9)
    legend_below(figure, grid[0, 0], 1, fontsize=9)
    save(figure, out / "against_sam.png")
    return Figure(
        "against_sam.png",
        "How many fewer errors DISAM makes than SAM on a new domain, problem by problem",
        "Above 0 DISAM is better. Paired differences over the problems with 95 % intervals "
        f"that are not adjusted; grey: less than {MARGIN:g} points, which would not "
        "matter; dotted upright: where the dial stands in the other panels. Open: nothing "
        "but lam differs from SAM.",
    )


def _fewer(values: Values, condition: str, method: str, than: str = SAM) -> np.ndarray:
    """By how many points a method errs less than another, per seed."""
    sam, other = (values.per_seed(condition, m, MEASURE) for m in (than, method))
    return 100 * (sam - other)


def _margin(axes: Any) -> None:
    axes.axhspan(-MARGIN, MARGIN, color="#e4e4e4", lw=0, zorder=0)
    axes.axhline(0, color=color_of("sam"), linewidth=1.2, zorder=1)


def _draw_dials(values: Values, curves: Curves, out: Path) -> Figure:
    figure, grid = _panels(curves, 5.0)
    for axes, dial in zip(grid.flat, curves["sweeps"], strict=True):
        for method, style in STYLES.items():
            errors = [
                100 * np.mean(values.per_seed(condition, NAMES[method], MEASURE))
                for condition in _along(curves, dial)
            ]
            color = color_of(method.partition(" ")[0])
            style = style | {"linewidth": 1.2, "ms": 4, "mfc": "none", "color": color}
            axes.plot(errors, label=NAMES[method], **style)
        axes.set_ylim(bottom=0)
    for axes in grid[:, 0]:
        axes.set_ylabel("excess error\n(points)", fontsize=9)
    legend_below(figure, grid[0, 0], 2, fontsize=9)
    save(figure, out / "dials.png")
    return Figure(
        "dials.png",
        "Error on a new domain above the best possible, one dial at a time",
        "How hard the settings are: means over the problems, each method tuned; 0 is the "
        "best predictor there is. Methods are compared in the figure above, problem by "
        "problem, for problems differ more than methods. DISAM with lam = 0.1 lies on SAM.",
    )


def _draw_parts(values: Values, curves: Curves, out: Path) -> Figure:
    closer = [dials_in_words(name) for name in curves["closer"]]
    figure, grid = plt.subplots(
        len(closer),
        2,
        figsize=(WIDTH, 2.1 * len(closer) + 1.2),
        sharex="col",
        squeeze=False,
        layout="constrained",
    )
    for (left, right), condition in zip(grid, closer, strict=True):
        _draw_cells(left, values, condition)
        _draw_weights(right, values, condition, curves["lams"])
        left.set_title(condition, fontsize=9, fontweight="bold", loc="left")
        left.set_ylabel("excess error\n(points)", fontsize=9)
        right.set_ylabel("fewer than SAM\n(points)", fontsize=9)
    grid[-1, 0].set_xlabel("climbed", fontsize=9)
    grid[-1, 1].set_xlabel("lam", fontsize=9)
    small = {"fontsize": 8, "title_fontsize": 8, "labelspacing": 0.2}
    legend(grid[0, 0], title="descended", loc="upper right", **small)
    legend_below(figure, grid[0, 1], 1, fontsize=8)
    save(figure, out / "parts.png")
    return Figure(
        "parts.png",
        "The variance V of the domain losses in what is climbed and in what is descended",
        "Left: all nine pairs, V with weight 2, each tuned: black circles are ERM (no "
        "ascent), SAM (over L) and DISAM, a triangle without ascent V-REx with weight 2. "
        "About 43 points are a guess. Right: one place of V at a time, its weight swept "
        f"with SAM's learning rate and rho; means below {with_minus(LOWEST)} are written "
        "at the edge, grey as above. 95 % intervals over the problems.",
    )


def _draw_cells(axes: Any, values: Values, condition: str) -> None:
    for x, climbed in enumerate(CLIMBED):
        for i, (descended, (name, color, marker)) in enumerate(DESCENDED.items()):
            errors = 100 * values.per_seed(condition, _cell(climbed, descended), MEASURE)
            style = {"color": color, "marker": marker, "linestyle": "none", "ms": 5}
            label = None if x else name
            errorbars(axes, [x + 0.22 * (i - 1)], [errors], label=label, **style)
    axes.set_xticks(range(len(CLIMBED)), CLIMBED.values())
    axes.set_ylim(0, 45)
    axes.tick_params(labelsize=8)


def _cell(climbed: str, descended: str) -> str:
    named = NAMED.get((climbed, descended))
    return NAMES[named] if named else cell_of(climbed, descended, 2)


def _draw_weights(axes: Any, values: Values, condition: str, lams: Sequence[float]) -> None:
    _margin(axes)
    for i, ((climbed, descended), (name, method, marker)) in enumerate(SWEPT.items()):
        fewer = [_fewer(values, condition, swept(climbed, descended, x)) for x in lams]
        found = [estimate(seeds) for seeds in fewer]
        style = {"color": color_of(method), "marker": marker, "ms": 4, "linewidth": 1.2}
        kept = [e.mean >= LOWEST for e in found]
        shown = [s for s, keep in zip(fewer, kept, strict=True) if keep]
        at = [x for x, keep in enumerate(kept) if keep]
        errorbars(axes, [x + APART * (i - 1) for x in at], shown, label=name, **style)
        for x, e in enumerate(found):
            if e.mean < LOWEST:
                at = x + APART * (i - 1), LOWEST
                _write_at_the_edge(axes, at, 1.6 - 0.6 * i, e.mean, color_of(method))
    axes.set_xticks(range(len(lams)), [f"{lam:g}" for lam in lams])
    axes.set_xlim(-0.4, len(lams) - 0.5)
    axes.set_ylim(LOWEST, HIGHEST)
    axes.tick_params(labelsize=8)


def _write_at_the_edge(
    axes: Any, at: tuple[float, float], above: float, points: float, color: Any
) -> None:
    axes.annotate(
        with_minus(points), at, xytext=(at[0], at[1] + above), color=color, fontsize=8,
        ha="center", arrowprops={"arrowstyle": "->", "color": color},
    )  # fmt: skip


def with_minus(points: float) -> str:
    """A whole number with a real minus sign."""
    return f"{points:.0f}".replace("-", "\N{MINUS SIGN}")


def _panels(curves: Curves, height: float, **options: Any) -> tuple[Any, np.ndarray]:
    figure, grid = plt.subplots(
        3, 2, figsize=(WIDTH, height), layout="constrained", **options
    )
    for axes, (dial, found) in zip(grid.flat, curves["sweeps"].items(), strict=True):
        scale = 100 if dial in PERCENT else 1
        axes.set_xticks(range(len(found)), [f"{scale * value:g}" for value in found])
        axes.set_xlabel(AXES[dial], fontsize=9)
        axes.tick_params(labelsize=8)
        for x, value in enumerate(found):
            if name_of(dial, value) == "default":
                axes.axvline(x, color="#bbbbbb", linestyle=":", linewidth=1, zorder=0)
    return figure, grid


def _along(curves: Curves, dial: str) -> list[str]:
    """The conditions at each value of a dial."""
    return [dials_in_words(name_of(dial, value)) for value in curves["sweeps"][dial]]
