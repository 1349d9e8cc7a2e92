"""Figures of a comparison, as PNG."""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no screen is needed

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import Normalize

from experiments.files import writing
from experiments.methods.registry import METHODS
from experiments.results.labels import COLORS, PALETTE, label
from experiments.results.paired import Difference, differences_to_first
from experiments.results.statistics import estimate
from experiments.results.summary import Row

OTHERS = plt.get_cmap("tab20b")
# One for each method that has a colour.
LINES = (
    "-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (8, 2)), (0, (3, 3)),
)  # fmt: skip
NARROW = 4.4  # inches: figures are read on phones too
Curves = dict[str, list[dict[str, Any]]]


def color_of(method: str) -> Any:
    """The method's colour, the same in every figure."""
    if method in COLORS:
        return COLORS[method]
    known = list(METHODS)[len(PALETTE) :]
    index = known.index(method) if method in known else zlib.crc32(method.encode())
    return OTHERS(index * 7 % OTHERS.N)


HOW = "95 % intervals, paired by seed; open circle: not told apart"


def differences(rows: Sequence[Row], path: Path) -> None:
    """Accuracy on unseen concepts less the first method's, paired by seed.

    Args:
      rows: of the methods, two at least.
      path: of the PNG.
    """
    first, *others = rows
    groups = {"all unseen": [row.per_seed for row in rows]}
    groups |= {
        f"unseen: {verbatim(d)}": [row.scores[d] for row in rows] for d in first.scores
    }
    height = 0.23 * len(groups) * (len(rows) + 0.4) + 0.8
    figure, panel = plt.subplots(figsize=(NARROW, height), layout="constrained")
    names: dict[float, str] = {}
    at, reach = 0.0, 1.0
    for name, scores in groups.items():
        mean = 100 * np.mean(list(scores[0].values()))
        head = f"{name} ({label(first.method)}: {mean:.1f} %)"
        panel.text(
            -0.3, at, head, va="center", fontweight="bold",
            transform=panel.get_yaxis_transform(),
        )  # fmt: skip
        of_others = differences_to_first(scores)[1:]
        for row, difference in zip(others, of_others, strict=True):
            at -= 1
            names[at] = label(row.method)
            if difference:
                seeds = 100 * np.array(difference.values)
                panel.plot(seeds, np.full(len(seeds), at - 0.3), ".", ms=3, color="#999999")
                _draw_difference(panel, at, difference, color_of(row.method))
                reach = max(reach, _reach(difference))
        at -= 1.4
    panel.set_yticks(list(names), list(names.values()))
    panel.set_ylim(at + 0.8, 0.6)
    _finish(figure, panel, first, reach, path)


def ranking(rows: Sequence[Row], path: Path) -> None:
    """Many methods beside the first, the best on top; those far below stand at the edge.

    Args:
      rows: of the methods, two at least.
      path: of the PNG.
    """
    compared = [(row, row.difference) for row in rows if row.difference]
    compared.sort(key=lambda pair: pair[1].estimate.mean)
    reach = 200 * float(np.quantile([abs(d.estimate.mean) for _, d in compared], 0.75)) + 3
    colors = plt.get_cmap("viridis_r")
    scale = Normalize(1.0, max(3.0, *(row.gradients_per_step for row, _ in compared)))
    height = 0.2 * len(compared) + 1.4
    figure, panel = plt.subplots(figsize=(NARROW, height), layout="constrained")
    for at, (row, difference) in enumerate(compared):
        color = colors(scale(row.gradients_per_step))
        if 100 * difference.estimate.mean > -reach:
            _draw_difference(panel, at, difference, color)
        else:
            panel.plot(-reach, at, "<", color=color, clip_on=False)
            mean = f"{100 * difference.estimate.mean:.1f}".replace("-", "\N{MINUS SIGN}")
            panel.text(-0.95 * reach, at, mean, va="center")
    panel.set_yticks(range(len(compared)), [label(row.method) for row, _ in compared])
    panel.set_ylim(-0.6, len(compared) - 0.4)
    shown = plt.cm.ScalarMappable(scale, colors)
    bar = figure.colorbar(shown, ax=panel, location="bottom", aspect=40, pad=0.01)
    bar.set_label("gradients per step")
    _finish(figure, panel, rows[0], reach, path)


def _reach(difference: Difference) -> float:
    """How far from 0 a difference is drawn, in points; two seeds' interval may be huge."""
    found, seeds = difference.estimate, 110 * float(np.abs(difference.values).max())
    if found.count < 2:
        return seeds
    return max(seeds, min(105 * max(abs(found.low), abs(found.high)), 2.5 * seeds))


def _draw_difference(panel: Any, at: float, difference: Difference, color: Any) -> None:
    found = difference.estimate
    if found.count > 1:
        ends = [100 * found.low, 100 * found.high]
        panel.plot(ends, [at, at], color=color, linewidth=1.4)
    fill = color if difference.told_apart else "white"
    panel.plot(100 * found.mean, at, "o", ms=5, color=color, mfc=fill)


def _finish(figure: Any, panel: Any, first: Row, reach: float, path: Path) -> None:
    panel.axvline(0, color="#222222", linewidth=0.8, zorder=0)
    panel.spines["left"].set_visible(False)
    panel.tick_params(axis="y", length=0)
    panel.set_xlim(-reach, reach)
    panel.set_xlabel(f"accuracy less {label(first.method)}'s (points)")
    better = f"Right of the line: better than {label(first.method)} on unseen domains"
    figure.suptitle(f"{better}\n{HOW}", fontsize=9)
    save(figure, path)


def convergence(
    curves: Curves, methods: Sequence[str], unseen: Sequence[str], path: Path
) -> None:
    """Training loss of every source domain, means over runs: paper Fig. 1b and 7.

    Args:
      curves: run name (`method/unseen/seedN`) -> lines of metrics.
      methods: a panel each.
      unseen: the domains left out, in the order that the others are told in.
      path: of the PNG.
    """
    figure, axes = plt.subplots(
        len(methods),
        1,
        figsize=(NARROW, 1.5 * len(methods) + 1.2),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for panel, method in zip(axes[:, 0], methods, strict=True):
        steps, losses = mean_losses(curves, method)
        names = [name for name in dict.fromkeys((*unseen, *losses)) if name in losses]
        for i, name in enumerate(names):
            color = PALETTE[(i + 1) % len(PALETTE)]
            panel.plot(
                steps, losses[name], color=color, linewidth=1.2, label=verbatim(name)
            )
        panel.set_title(label(method), loc="left")
    axes[-1, 0].set_xlabel("step")
    figure.supylabel("training loss (nats)", fontsize=9)
    style = {"loc": "outside lower center", "ncols": 4, "title": "source domain"}
    legend(axes[0, 0], figure, **style)
    save(figure, path)


def spread(
    curves: Curves, methods: Sequence[str], unseen: Sequence[str], path: Path
) -> None:
    """How far the source domains' losses lie apart, as a ratio to the first method.

    Args:
      curves: run name (`method/unseen/seedN`) -> lines of metrics.
      methods: a line each; of the first what the others are divided by is shown above.
      unseen: the domains left out; a seed's value is the mean over them.
      path: of the PNG.
    """
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(NARROW, 4.4), height_ratios=(1, 2), sharex=True, layout="constrained"
    )
    first, *others = methods
    spreads = loss_spreads(curves, first, unseen)
    if spreads:
        steps = list(next(iter(spreads.values())))
        means = np.mean([[own[step] for step in steps] for own in spreads.values()], axis=0)
        above.plot(steps, means, color=color_of(first))
    for method, dash in zip(others, LINES, strict=False):
        _ratio(below, loss_spreads(curves, method, unseen), spreads, method, dash)
    above.set_ylim(bottom=0)
    above.set_ylabel("nats")
    above.set_title(f"{label(first)}: std of the source domains' losses", loc="left")
    below.axhline(1, color=color_of(first), linewidth=1, zorder=0)
    below.set_title(f"divided by {label(first)}'s (band: 95 % over seeds)", loc="left")
    below.set_ylabel("ratio, below 1: closer")
    below.set_xlabel("step")
    legend(below)
    save(figure, path)


Spreads = dict[str, dict[int, float]]  # seed -> step -> std of the domain losses


def _ratio(panel: Any, own: Spreads, first: Spreads, method: str, dash: Any) -> None:
    """A method's line of ratios, of the seeds and steps that both have."""
    seeds = [seed for seed in own if seed in first and min(first[seed].values()) > 0]
    if not seeds:
        return
    steps = [step for step in own[seeds[0]] if step in first[seeds[0]]]
    ratios = [[np.log(own[s][step] / first[s][step]) for step in steps] for s in seeds]
    found = [estimate(column) for column in np.transpose(ratios)]
    color = color_of(method)
    means = np.exp([e.mean for e in found])
    panel.plot(steps, means, color=color, linestyle=dash, label=label(method))
    if len(seeds) > 1:
        low, high = (np.exp([getattr(e, end) for e in found]) for end in ("low", "high"))
        panel.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)


def loss_spreads(curves: Curves, method: str, unseen: Sequence[str]) -> Spreads:
    """Seed -> step -> std of the source domains' losses, the mean over unseen domains."""
    found: dict[str, list[dict[int, float]]] = {}
    for name, lines in curves.items():
        own, domain, seed = name.rsplit("/", 2)
        if own == method and domain in unseen:
            spreads = {line["step"]: line["loss_spread"] for line in _train_lines(lines)}
            found.setdefault(seed, []).append(spreads)
    return {
        seed: {step: float(np.mean([run[step] for run in runs])) for step in runs[0]}
        for seed, runs in found.items()
        if len(runs) == len(unseen)
    }


def mean_losses(curves: Curves, method: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Steps [T], and a method's training loss [T] on each source domain.

    It is the mean over the runs that train on the domain: over seeds and unseen domains.
    """
    own = [name for name in curves if name.rsplit("/", 2)[0] == method]
    runs = [_train_lines(curves[name]) for name in own]
    if not runs:
        return np.zeros(0), {}
    keys = dict.fromkeys(k for run in runs for k in run[0] if k.startswith("loss/"))
    return np.array([line["step"] for line in runs[0]]), {
        key.removeprefix("loss/"): np.mean(
            [[line[key] for line in run] for run in runs if key in run[0]], axis=0
        )
        for key in keys
    }


def _train_lines(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in lines if line["kind"] == "train"]


def _seeds(rows: Sequence[Row]) -> str:
    counts = sorted({row.seeds for row in rows})
    number = "-".join(str(count) for count in counts)
    return f"{number} seed{'s' if counts[-1] > 1 else ''}"


def verbatim(name: str) -> str:
    """A name to be drawn as it is: dollars begin no formula, and `_` hides no label."""
    name = name.replace("$", r"\$")
    return f"\N{ZERO WIDTH SPACE}{name}" if name.startswith("_") else name


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
