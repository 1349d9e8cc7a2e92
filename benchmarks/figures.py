"""Figures of what a step costs, as PNG; colours are those of the experiments' figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no screen is needed

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator

from experiments.results.figures import color_of, save
from experiments.results.labels import COLORS, label

Records = Sequence[dict[str, Any]]

TOP = 4.0  # of the axes; a bar that is longer is cut there and has its length written
LABEL_WIDTH = 9  # of a group's label, in bars
ERROR = {"elinewidth": 1.5, "ecolor": "#999999"}  # seen on black bars too

NAMES = {
    "mlp": "MLP",
    "patchnet": "PatchNet",
    "resnet": "small ResNet",
    "resnet50": "ResNet-50",
}
NAMES |= {"vit_s16": "ViT-S/16", "vit_b16": "ViT-B/16"}
HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\")


def step_times(records: Records, path: Path) -> None:
    """Time of a step relative to ERM's, a bar per method, grouped by model: Fig. 6c.

    A row of axes per dtype; only steps without rematerialization whose buffers are donated.

    Args:
      records: of `measure`.
      path: of the PNG.
    """
    shown = [r for r in records if r["donated"] and not r["remat"]]
    methods = list(dict.fromkeys(r["method"] for r in shown))
    styles = {method: style(method, methods) for method in methods}
    by_dtype: dict[str, list[list[dict[str, Any]]]] = {}
    for r in shown:
        groups = by_dtype.setdefault(r["dtype"], [])
        if not groups or groups[-1][0]["model"] != r["model"]:
            groups.append([])
        groups[-1].append(r)
    figure, rows = plt.subplots(
        len(by_dtype),
        figsize=(13, 0.6 + 2.9 * len(by_dtype)),
        squeeze=False,
        sharey=True,
        layout="constrained",
    )
    for axes, (dtype, groups) in zip(rows[:, 0], by_dtype.items(), strict=True):
        _groups(axes, groups, styles)
        text = f"{dtype}. Bars: medians, lines: quartiles over rounds. Below a model, with "
        text += "its parameters: domains x examples (x pixels), time of the ERM step"
        axes.set_title(text, fontsize=9, loc="left", pad=14)
    widest = max(axes.get_xlim()[1] for axes in rows[:, 0])
    for axes in rows[:, 0]:
        axes.set_xlim(-1, widest)  # so that a bar is as wide in every row
    handles = [plt.Rectangle((0, 0), 1, 1, **styles[method]) for method in methods]  # pyright: ignore[reportPrivateImportUsage]
    names = [method_label(method) for method in methods]
    figure.legend(handles, names, loc="outside right upper", frameon=False, fontsize=8)
    save(figure, path)


def family_times(records: Records, path: Path) -> None:
    """Time of every method's step relative to ERM's, cheapest first, one column per model.

    Args:
      records: of `measure`.
      path: of the PNG.
    """
    models = list(dict.fromkeys(r["model"] for r in records))
    of_model = {m: {r["method"]: r for r in records if r["model"] == m} for m in models}
    first = of_model[models[0]]
    order = sorted(first, key=lambda name: -first[name]["time_ratio"])
    figure, columns = plt.subplots(
        1,
        len(models),
        figsize=(4.6 * len(models) + 1.6, 0.22 * len(order) + 1.1),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axes, model in zip(columns[0], models, strict=True):
        found = [of_model[model][name] for name in order]
        middle = np.array([r["time_ratio"] for r in found])
        spread = np.abs(
            np.array([[r["time_ratio_low"], r["time_ratio_high"]] for r in found]).T
            - middle
        )
        colors = [color_of(name) for name in order]
        at = np.arange(len(order))
        axes.barh(at, middle, 0.8, xerr=spread, color=colors, error_kw=ERROR)
        axes.plot([r["flops_ratio"] for r in found], at, "|", color="#222222", ms=8)
        for ratio in (1, 2):
            axes.axvline(ratio, color="#bbbbbb", linewidth=0.8, zorder=0)
        axes.set_yticks(at, [label(name) for name in order], fontsize=8)
        axes.set_xlabel("time of a step / ERM's; tick: operations")
        axes.set_title(
            group_label(of_model[model]["erm"]).replace("\n", "; "), fontsize=9, loc="left"
        )
        axes.margins(y=0.01)
    save(figure, path)


def _groups(axes: Any, groups: list[list[dict[str, Any]]], styles: dict[str, Any]) -> None:
    start, ticks = 0.0, []
    for group in groups:
        # Room for the label below, however few the bars are.
        start += max(LABEL_WIDTH - len(group), 0) / 2
        at = start + np.arange(len(group))
        for x, r in zip(at, group, strict=True):
            middle = r["time_ratio"]
            spread = [[middle - r["time_ratio_low"]], [r["time_ratio_high"] - middle]]
            axes.bar(x, middle, 0.9, yerr=spread, error_kw=ERROR, **styles[r["method"]])
            if middle > TOP:
                axes.text(x, TOP, f"{middle:.0f}", ha="center", va="bottom", fontsize=8)
        ticks.append(at.mean())
        start = at[-1] + 2.5 + max(LABEL_WIDTH - len(group), 0) / 2
    for ratio in (1, 2):
        axes.axhline(ratio, color="#bbbbbb", linewidth=0.8, zorder=0)
    axes.set_xticks(ticks, [group_label(group[0]) for group in groups], fontsize=9)
    axes.tick_params(axis="x", length=0)
    axes.set_ylim(0, TOP)
    axes.set_ylabel("time of a step / ERM's")


def group_label(r: dict[str, Any]) -> str:
    """The model of a record, with what a step was given and how long ERM took for it."""
    batch = f"{r['domains']} x {r['batch_size'] // r['domains']}"
    size = f"{batch} x {r['image_size']} px" if r["image_size"] else batch
    name = NAMES.get(r["model"], r["model"])
    ms = r["milliseconds"]
    time = f"{ms:.3g} ms" if ms < 1000 else f"{ms / 1000:.2f} s"
    return f"{name}, {short(r['parameters'])}\n{size}\nERM: {time}"


def style(method: str, methods: Sequence[str]) -> dict[str, Any]:
    """The colour of the method it is a form of; forms of one method differ in hatching."""
    family = family_of(method)
    forms = [name for name in methods if family_of(name) == family]
    hatch = HATCHES[forms.index(method) % len(HATCHES)]
    return {
        "facecolor": COLORS[family],
        "hatch": hatch,
        "edgecolor": "white",
        "linewidth": 0,
    }


def family_of(method: str) -> str:
    """`disam` for `disam by jacrev`, `sam` for `optax.contrib.sam`."""
    return "sam" if method.startswith("optax") else method.split()[0]


def method_label(method: str) -> str:
    """As the papers write it; what comes after the name stays as it is."""
    family = family_of(method)
    if not method.startswith(family):
        return method
    return label(family) + method.removeprefix(family)


AXIS_LABELS = {
    "batch_size": ("batch grows ({parameters:,} parameters)", "examples in a batch"),
    "parameters": ("model grows (batch of {batch_size})", "parameters"),
    "domains": ("domains grow (batch stays {batch_size})", "domains"),
}
RATIOS = {
    "time_ratio": "time / ERM's",
    "flops_ratio": "FLOPs / ERM's",
    "memory_ratio": "memory / ERM's",
}
LINES = {"disam by jacrev": "--", "disam by vmap(grad)": ":"}
MARKERS = "osv^DX*"


def growth_panels(records: Records, path: Path) -> None:
    """Ratios to ERM against what grows: a column per axis, a row per ratio.

    Args:
      records: of `measure`, each with its `axis`.
      path: of the PNG.
    """
    axis_names = list(dict.fromkeys(r["axis"] for r in records))
    figure, grid = plt.subplots(
        len(RATIOS),
        len(axis_names),
        figsize=(3.6 * len(axis_names), 2.3 * len(RATIOS)),
        sharex="col",
        squeeze=False,
        layout="constrained",
    )
    lines = {}
    for column, name in zip(grid.T, axis_names, strict=True):
        shown = [r for r in records if r["axis"] == name and r["method"] != "erm"]
        for axes, ratio in zip(column, RATIOS, strict=True):
            lines |= _curves(axes, shown, name, ratio)
            _ratio_scale(axes, [r[ratio] for r in shown])
        title, unit = AXIS_LABELS[name]
        column[0].set_title(title.format(**shown[0]), fontsize=10)
        column[-1].set_xlabel(unit)
        column[-1].set_xscale("log")
        ticks = sorted({r[name] for r in shown})
        column[-1].set_xticks(ticks, [short(value) for value in ticks], fontsize=8)
        column[-1].minorticks_off()
    for axes, text in zip(grid[:, 0], RATIOS.values(), strict=True):
        axes.set_ylabel(text)
    names = [method_label(method) for method in lines]
    figure.legend(lines.values(), names, loc="outside upper center", ncols=5, frameon=False)
    save(figure, path)


def short(count: int) -> str:
    """17k for 16,832; a count below 10,000 as it is."""
    if count < 10_000:
        return str(count)
    return f"{count / 1e3:.0f}k" if count < 1e6 else f"{count / 1e6:.2g}M"


def _curves(axes: Any, records: Records, name: str, ratio: str) -> dict[str, Any]:
    """Draws a curve per method, later ones thinner so that equal ones all show."""
    lines = {}
    methods = list(dict.fromkeys(r["method"] for r in records))
    for i, method in enumerate(methods):
        points = [r for r in records if r["method"] == method]
        at, values = [r[name] for r in points], [r[ratio] for r in points]
        color = COLORS[family_of(method)]
        lines[method] = axes.plot(
            at,
            values,
            LINES.get(method, "-"),
            marker=MARKERS[i % len(MARKERS)],
            markersize=max(8 - 2 * i, 3),
            linewidth=max(3.2 - 0.9 * i, 1.2),
            color=color,
        )[0]
        if ratio == "time_ratio":
            low, high = ([r[ratio + end] for r in points] for end in ("_low", "_high"))
            axes.fill_between(at, low, high, color=color, alpha=0.15, linewidth=0)
    return lines


def _ratio_scale(axes: Any, values: Sequence[float]) -> None:
    axes.axhline(2, color="#bbbbbb", linewidth=0.8, zorder=0)
    if max(values) < 5:
        axes.set_ylim(0, max(2.6, 1.15 * max(values)))
        return
    axes.set_yscale("log")
    axes.set_ylim(bottom=1)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
