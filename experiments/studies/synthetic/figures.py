"""Figures of the synthetic study, from its numbers alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from experiments.results.figures import color_of, legend, save
from experiments.studies.kit.plots import errorbars, legend_below
from experiments.studies.kit.study import Figure, Numbers
from experiments.studies.synthetic.findings import MARGIN, NAMES, PERCENT, dials_in_words
from experiments.studies.synthetic.problem import name_of

AXES = {
    "gap": "domain gap (the signal is 1.5)",
    "contrast": "contrast, largest / smallest",
    "extra_noise": "more wrong labels in one domain (%)",
    "noise": "wrong labels in all domains (%)",
    "imbalance": "examples, largest / smallest domain",
    "domains": "source domains (160 examples in all)",
}
STYLES = {
    "erm": {"linestyle": "-", "marker": "s"},
    "vrex": {"linestyle": ":", "marker": "^"},
    "sam": {"linestyle": "-", "marker": "o"},
    "disam 0.1": {"linestyle": "--", "marker": "x"},
    "disam 2": {"linestyle": "-", "marker": "D"},
}
CLIMBED = {"none": ("no ascent", "erm"), "L": ("L", "sam"), "L-V": ("L - 2V", "disam")}
DESCENDED = {"L": ("L", "o"), "L+V": ("L + 2V", "^"), "L-V": ("L - 2V", "v")}
PUT = {
    "L-V/L": ("climb L - lam V, descend L (DISAM)", "disam", "o"),
    "L/L+V": ("climb L, descend L + lam V", "vrex", "^"),
    "L/L-V": ("climb L, descend L - lam V", "sam", "v"),
}
APART = 0.13  # of two methods at the same value of a dial
LINEAR = 1  # point, up to which the axis of small and large differences is linear


def draw(numbers: Numbers, folder: Path) -> list[Figure]:
    """Writes the figures."""
    return [
        _draw_dials(numbers, folder),
        _draw_against_sam(numbers, folder),
        _draw_parts(numbers, folder),
    ]


def _draw_dials(numbers: Numbers, folder: Path) -> Figure:
    figure, grid = _panels(numbers)
    methods = ("erm", "vrex", "sam", "disam 2")
    for axes, dial in zip(grid.flat, numbers["sweeps"], strict=True):
        for i, method in enumerate(methods):
            _line(
                axes,
                [found["tuned"][method]["excess"] for found in _along(numbers, dial)],
                APART * (i - 1.5),
                color=color_of(method.partition(" ")[0]),
                label=NAMES[method],
                **STYLES[method],
            )
        axes.set_ylim(bottom=0)
    for axes in grid[:, 0]:
        axes.set_ylabel("excess error (points)")
    legend_below(figure, grid[0, 0])
    save(figure, folder / "dials.png")
    return Figure(
        "dials.png",
        "Error on a new domain above the best possible, one dial at a time",
        f"0 is the best predictor there is. Means over {numbers['seeds']} problems, each "
        "method tuned, with 95 % intervals; these mostly show that problems differ, and "
        "the next figure compares problem by problem. Dotted: where the dial stands in "
        "the other panels. DISAM with lam = 0.1 would lie on SAM.",
    )


def _draw_against_sam(numbers: Numbers, folder: Path) -> Figure:
    figure, grid = _panels(numbers, sharey=True)
    shown = (
        ("lam = 0.1, tuned", "disam 0.1", _gain, {}),
        ("lam = 2, tuned", "disam 2", _gain, {}),
        (
            "lam = 2, SAM's learning rate and rho",
            "disam 2",
            _gain_of_lam,
            {"linestyle": ":", "fillstyle": "none"},
        ),
    )
    for axes, dial in zip(grid.flat, numbers["sweeps"], strict=True):
        axes.axhspan(-MARGIN, MARGIN, color="#eeeeee", zorder=0)
        axes.axhline(0, color=color_of("sam"), linewidth=1.2)
        for i, (name, method, read, changed) in enumerate(shown):
            gains = [read(found, method) for found in _along(numbers, dial)]
            style = STYLES[method] | changed
            _line(
                axes, gains, APART * (i - 1), color=color_of("disam"), label=name, **style
            )
    for axes in grid[:, 0]:
        axes.set_ylabel("fewer errors than SAM (points)")
    legend_below(figure, grid[0, 0])
    save(figure, folder / "against_sam.png")
    return Figure(
        "against_sam.png",
        "How many fewer errors DISAM makes than SAM on a new domain, problem by problem",
        f"Above 0 DISAM is better. Paired differences over {numbers['seeds']} problems "
        f"with 95 % intervals; grey: less than {MARGIN:g} points, which would not matter. "
        "Open: nothing but lam differs from SAM.",
    )


def _gain(found: Numbers, method: str) -> list[float]:
    tuned = found["tuned"]
    return _less(tuned["sam"]["excess"], tuned[method]["excess"])


def _gain_of_lam(found: Numbers, method: str) -> list[float]:
    return _less(found["as_sam"]["sam"], found["as_sam"][method])


def _less(a: Sequence[float], b: Sequence[float]) -> list[float]:
    return np.subtract(a, b).tolist()


def _draw_parts(numbers: Numbers, folder: Path) -> Figure:
    closer = numbers["closer"]
    figure, grid = plt.subplots(
        2,
        len(closer),
        figsize=(8.4, 6.2),
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    for (upper, lower), (name, found) in zip(grid.T, closer.items(), strict=True):
        sam = numbers["settings"][name]["as_sam"]["sam"]
        _draw_cells(upper, found["ablation"])
        _draw_weights(lower, found["weights"], sam)
        upper.set_title(dials_in_words(name).replace(" labels", " labels\n"), fontsize=9)
    grid[0, 0].set_ylabel("excess error (points)")
    grid[1, 0].set_ylabel("fewer errors than SAM (points)")
    small = {"fontsize": 8, "title_fontsize": 8}
    legend(grid[0, 0], title="descended", loc="upper left", **small)
    legend_below(figure, grid[1, 0], fontsize=8)
    save(figure, folder / "parts.png")
    return Figure(
        "parts.png",
        "The variance V of the domain losses in what is climbed and in what is descended",
        "Above: all nine pairs, V with weight 2, each tuned; a circle without ascent is "
        "ERM, over L SAM and over L - 2V DISAM, a triangle without ascent V-REx. About 43 "
        "points are a guess. Below: one place of V at a time, its weight swept with SAM's "
        f"learning rate and rho; the axis is linear within {LINEAR} point. "
        f"{numbers['seeds']} problems, 95 % intervals.",
    )


def _draw_cells(axes: Any, cells: dict[str, list[float]]) -> None:
    for x, (climbed, (_, method)) in enumerate(CLIMBED.items()):
        for i, (descended, (name, marker)) in enumerate(DESCENDED.items()):
            errorbars(
                axes,
                [x + 0.22 * (i - 1)],
                [cells[f"{climbed}/{descended}"]],
                color=color_of(method),
                marker=marker,
                linestyle="none",
                label=name if x == 0 else None,
            )
    axes.set_xticks(range(len(CLIMBED)), [name for name, _ in CLIMBED.values()])
    axes.set_xlabel("climbed", fontsize=9)
    axes.tick_params(labelsize=8)


def _draw_weights(
    axes: Any, weights: dict[str, dict[str, list[float]]], sam: list[float]
) -> None:
    axes.axhline(0, color=color_of("sam"), linewidth=1.2)
    for cell, (name, method, marker) in PUT.items():
        by_lam = weights[cell]
        errorbars(
            axes,
            [float(lam) for lam in by_lam],
            [_less(sam, excess) for excess in by_lam.values()],
            color=color_of(method),
            marker=marker,
            label=name,
        )
    axes.set_xscale("log")
    axes.set_yscale("symlog", linthresh=LINEAR)
    ticks = (-30, -10, -3, -1, 0, 1)
    axes.set_yticks(ticks, [str(tick) for tick in ticks])
    axes.set_yticks([], minor=True)
    axes.set_xticks([float(lam) for lam in weights["L-V/L"]], weights["L-V/L"], fontsize=8)
    axes.set_xticks([], minor=True)
    axes.set_xlabel("lam", fontsize=9)
    axes.tick_params(labelsize=8)


def _panels(numbers: Numbers, **options: Any) -> tuple[Any, np.ndarray]:
    figure, grid = plt.subplots(2, 3, figsize=(8.4, 5.6), layout="constrained", **options)
    for axes, (dial, values) in zip(grid.flat, numbers["sweeps"].items(), strict=True):
        scale = 100 if dial in PERCENT else 1
        axes.set_xticks(range(len(values)), [f"{scale * value:g}" for value in values])
        axes.set_xlabel(AXES[dial], fontsize=9)
        axes.tick_params(labelsize=8)
        for x, value in enumerate(values):
            if name_of(dial, value) == "default":
                axes.axvline(x, color="#bbbbbb", linestyle=":", linewidth=1, zorder=0)
    return figure, grid


def _along(numbers: Numbers, dial: str) -> list[Numbers]:
    """What was found at each value of a dial."""
    values = numbers["sweeps"][dial]
    return [numbers["settings"][name_of(dial, value)] for value in values]


def _line(axes: Any, values: Sequence[Any], offset: float, **style: Any) -> None:
    style = {"linewidth": 1.4, "markersize": 4, **style}
    errorbars(axes, [x + offset for x in range(len(values))], values, **style)
