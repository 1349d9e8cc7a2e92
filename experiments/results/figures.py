"""Figures of a comparison, as PNG. One colour per method everywhere (Okabe and Ito)."""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no screen is needed

import matplotlib.pyplot as plt
import numpy as np

from experiments.files import writing
from experiments.methods.registry import METHODS
from experiments.results.summary import Row

PALETTE = (
    "#7f7f7f", "#0072B2", "#56B4E9", "#CC79A7", "#009E73", "#D55E00", "#E69F00", "#000000",
)  # fmt: skip
CORE = tuple(METHODS)[: len(PALETTE)]
COLORS = dict(zip(CORE, PALETTE, strict=True))
OTHERS = plt.get_cmap("tab20b")
DOMAIN_STYLES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
Curves = dict[str, list[dict[str, Any]]]


def color_of(method: str) -> Any:
    """The method's colour, the same in every figure."""
    if method in COLORS:
        return COLORS[method]
    known = list(METHODS)[len(PALETTE) :]
    index = known.index(method) if method in known else zlib.crc32(method.encode())
    return OTHERS(index * 7 % OTHERS.N)


def label(method: str) -> str:
    """The method's name as the papers write it."""
    return method.upper().replace("_", " ")


def bars(rows: Sequence[Row], path: Path) -> None:
    """Out-of-domain accuracy of every method on each unseen domain, and on average.

    Args:
      rows: of the methods.
      path: of the PNG.
    """
    domains = list(rows[0].by_domain)
    figure, axes = plt.subplots(
        figsize=(1.6 * (len(domains) + 1) + 1.2, 3.4), layout="constrained"
    )
    width = 0.8 / len(rows)
    for i, row in enumerate(rows):
        spreads = [*row.by_domain.values(), row.out_of_domain]
        at = np.arange(len(spreads)) + (i - (len(rows) - 1) / 2) * width
        axes.bar(
            at,
            [100 * spread.mean for spread in spreads],
            width,
            yerr=[100 * (spread.std or 0) for spread in spreads],
            color=color_of(row.method),
            error_kw={"elinewidth": 1, "ecolor": "#222222"},
            label=label(row.method),
        )
    axes.set_xticks(range(len(domains) + 1), [*domains, "average"])
    axes.axvline(len(domains) - 0.5, color="#bbbbbb", linewidth=0.8)
    axes.set_xlabel("unseen domain")
    axes.set_ylabel("out-of-domain accuracy (%)")
    axes.set_title(
        f"Mean over {_seeds(rows)}, error bars: one standard deviation", fontsize=9
    )
    legend(axes, figure, loc="outside right upper")
    save(figure, path)


def ranking(rows: Sequence[Row], path: Path) -> None:
    """Many methods: accuracy on the unseen domains, best first, and the loss spread.

    Args:
      rows: of the methods.
      path: of the PNG.
    """
    order = sorted(rows, key=lambda row: row.out_of_domain.mean)
    at = np.arange(len(order))
    figure, axes = plt.subplots(
        1,
        2,
        figsize=(8.6, 0.21 * len(order) + 1.2),
        sharey=True,
        gridspec_kw={"width_ratios": (3, 2)},
        layout="constrained",
    )
    values = {
        f"out-of-domain accuracy (%), mean over {_seeds(rows)}": lambda row: (
            100 * row.out_of_domain.mean, 100 * (row.out_of_domain.std or 0)
        ),
        "std of the domain losses (nats)": lambda row: (
            row.loss_spread.mean, row.loss_spread.std or 0
        ),
    }  # fmt: skip
    for panel, (name, read) in zip(axes, values.items(), strict=True):
        for x, row in zip(at, order, strict=True):
            mean, std = read(row)
            panel.errorbar(
                mean, x, xerr=std, fmt="o", ms=4, color=color_of(row.method), elinewidth=1
            )
        for row in order:
            if row.method == "erm":
                mean, std = read(row)
                panel.axvspan(mean - std, mean + std, color="#e4e4e4", zorder=0)
        panel.set_xlabel(name)
        panel.grid(axis="y", color="#eeeeee", linewidth=0.6)
        panel.set_axisbelow(True)
    # The cost of a step stands with the name: it is what the methods differ in most.
    names = [f"{label(r.method)}  ({r.gradients_per_step:.2f})" for r in order]
    axes[0].set_yticks(at, names, fontsize=8)
    axes[0].margins(y=0.02)
    axes[0].set_title(
        "Bars: one standard deviation; band: ERM's; in brackets: gradients per step",
        fontsize=9,
        loc="left",
    )
    save(figure, path)


def convergence(curves: Curves, methods: Sequence[str], unseen: str, path: Path) -> None:
    """Training loss of every source domain, raw and scaled to [0, 1]: paper Fig. 1b and 7.

    The upper row holds the losses; in the lower row each is less its minimum and divided
    by its maximum after that, as the paper scales them. Means over seeds.

    Args:
      curves: run name (`method/unseen/seedN`) -> lines of metrics.
      methods: a column each.
      unseen: the domain left out.
      path: of the PNG.
    """
    figure, axes = plt.subplots(
        2,
        len(methods),
        figsize=(2.6 * len(methods) + 0.6, 4.6),
        sharex=True,
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    for column, method in enumerate(methods):
        steps, losses = mean_losses(curves, method, unseen)
        for i, (domain, loss) in enumerate(losses.items()):
            scaled = loss - loss.min()
            for row, values in enumerate((loss, scaled / max(scaled.max(), 1e-12))):
                axes[row, column].plot(
                    steps,
                    values,
                    linestyle=DOMAIN_STYLES[i % len(DOMAIN_STYLES)],
                    color=color_of(method),
                    linewidth=1.3,
                    label=domain,
                )
        axes[0, column].set_title(label(method), fontsize=10)
        legend(axes[0, column], fontsize=8, handlelength=2.8)
        axes[1, column].set_xlabel("step")
        axes[0, column].set_ylim(bottom=0)
    axes[0, 0].set_ylabel("training loss (nats)")
    axes[1, 0].set_ylabel("scaled to [0, 1]")
    figure.suptitle(f"Convergence of the source domains; '{unseen}' unseen", fontsize=10)
    save(figure, path)


def spread(
    curves: Curves, methods: Sequence[str], unseen: Sequence[str], path: Path
) -> None:
    """How far the source domains' losses lie apart over the training, per method.

    Args:
      curves: run name (`method/unseen/seedN`) -> lines of metrics.
      methods: a line each.
      unseen: the domains left out; a line is the mean over them and the seeds.
      path: of the PNG.
    """
    figure, axes = plt.subplots(figsize=(5.2, 3.4), layout="constrained")
    for i, method in enumerate(methods):
        runs = [
            _train_lines(lines)
            for name, lines in curves.items()
            if name.rsplit("/", 2)[0] == method and name.split("/")[-2] in unseen
        ]
        if runs:
            values = np.mean(
                [[line["loss_spread"] for line in run] for run in runs], axis=0
            )
            steps = [line["step"] for line in runs[0]]
            # Each line is thinner than those under it, so that equal ones all show.
            width = 3.5 - 2.5 * i / max(len(methods) - 1, 1)
            color = color_of(method)
            axes.plot(steps, values, color=color, label=label(method), linewidth=width)
    axes.set_xlabel("step")
    axes.set_ylabel("std of the domain losses (nats)")
    axes.set_ylim(bottom=0)
    legend(axes)
    save(figure, path)


def mean_losses(
    curves: Curves, method: str, unseen: str
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Steps [T], and the training loss [T] of each source domain, means over seeds."""
    runs = [
        _train_lines(lines)
        for name, lines in curves.items()
        if name.rsplit("/", 1)[0] == f"{method}/{unseen}"
    ]
    if not runs:
        return np.zeros(0), {}
    keys = [key for key in runs[0][0] if key.startswith("loss/")]
    return np.array([line["step"] for line in runs[0]]), {
        key.removeprefix("loss/"): np.mean(
            [[line[key] for line in run] for run in runs], axis=0
        )
        for key in keys
    }


def _train_lines(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in lines if line["kind"] == "train"]


def _seeds(rows: Sequence[Row]) -> str:
    counts = sorted({row.seeds for row in rows})
    number = "-".join(str(count) for count in counts)
    return f"{number} seed{'s' if counts[-1] > 1 else ''}"


def legend(panel: Any, figure: Any = None, **style: Any) -> None:
    """Tells what is labelled in a panel; where nothing is, there is no legend.

    Args:
      panel: whose labels are told.
      figure: that the legend is put in; None is the panel.
      **style: of the legend.
    """
    handles, labels = panel.get_legend_handles_labels()
    if handles:
        (figure or panel).legend(handles, labels, frameon=False, **style)


def save(figure: Any, path: Path) -> None:
    """Writes a figure as PNG, whole or not at all, and closes it."""
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    with writing(path) as file:
        figure.savefig(file, dpi=150, format="png")
    plt.close(figure)
