"""The figures of the study of Theorem 1."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from experiments.results.figures import color_of, legend, save
from experiments.studies.kit.plots import errorbars, legend_below, panels
from experiments.studies.kit.study import Figure, Numbers
from experiments.studies.theorem.findings import DISAM_LAMS, PATHS, TITLES

STYLES = {"0": "-", "0.1": "-", "1": "--", "10": ":"}  # 0 is SAM
WIDTHS = {"0": 3.4, "0.1": 2.4, "1": 1.8, "10": 1.4}  # so that equal curves all show
MARKERS = {"0": "o", "0.1": "s", "1": "^", "10": "v"}
FLOOR = 1e-6  # levels below it are drawn there


def draw(numbers: Numbers, folder: Path) -> list[Figure]:
    """Writes the figures."""
    return [
        _draw_angles(numbers, folder),
        _draw_running(numbers, folder),
        _draw_levels(numbers, folder),
        _draw_heuristics(numbers, folder),
    ]


def _draw_angles(numbers: Numbers, folder: Path) -> Figure:
    figure, grid = plt.subplots(
        2, 3, figsize=(8.6, 5.2), sharey=True, sharex="col", layout="constrained"
    )
    for row, (path, title) in zip(grid, PATHS.items(), strict=True):
        for axes, name in zip(row, TITLES, strict=True):
            found = numbers[name]
            _lines(axes, found["shown"], found["gamma_curves"][path])
            axes.axhline(1, color="#000000", linewidth=0.8)
            axes.set_ylim(1e-3, 1e3)
        row[0].set_ylabel(r"$\phi_t\,/\,(\eta_t L)$" + f"\n{title}")
    for axes, title in zip(grid[0], TITLES.values(), strict=True):
        axes.set_title(title, fontsize=10)
    for axes in grid[1]:
        axes.set_xlabel("step t")
    legend_below(figure, grid[0, 0])
    save(figure, folder / "angles.png")
    return Figure(
        "angles.png",
        "How far the ascent direction turns in a step",
        "The angle of successive perturbations over the step size, in units of L, "
        "geometric means over seeds. By Eq. 17 SAM stays below 1, the black line. "
        "Smoothness alone gives no more than phi_t <= arcsin(eta_t L ‖grad L(w + eps)‖ / "
        "‖grad L(w)‖): once w is nearer to a minimum than w + eps, SAM's direction flips "
        "at every step and phi_t = pi. DISAM's keeps still where L - lam Var has no "
        "minimum nearby.",
    )


def _lines(axes: Any, shown: Sequence[int], curves: dict[str, list[float]]) -> None:
    for lam, curve in curves.items():
        style = {"linestyle": STYLES[lam], "linewidth": WIDTHS[lam], "label": _label(lam)}
        axes.loglog(shown, curve, color=_color(lam), **style)


def _color(lam: str) -> Any:
    return color_of("sam" if lam == "0" else "disam")


def _label(lam: str) -> str:
    return "SAM" if lam == "0" else f"DISAM, lam = {lam}"


def _draw_running(numbers: Numbers, folder: Path) -> Figure:
    figure, grid = plt.subplots(2, 2, figsize=(8.0, 6.0), layout="constrained")
    for axes, (name, title) in zip(grid.flat, TITLES.items(), strict=False):
        found = numbers[name]
        _lines(axes, found["shown"], found["running"])
        _draw_rate(axes, found)
        axes.set_title(title, fontsize=10)
    near, found = grid[1, 1], numbers["bound"]
    _lines(near, found["shown"], found["left"])
    near.loglog(found["shown"], found["right"]["0"], color="#000000", linewidth=1.2)
    style = {"xytext": (6, 6), "textcoords": "offset points", "fontsize": 9}
    near.annotate(
        "right side for SAM", (found["shown"][9], found["right"]["0"][9]), **style
    )
    near.set_ylim(found["left"]["0"][-1] / 30, found["right"]["0"][0] * 2)
    near.set_title("quadratics, from near the minimum", fontsize=10)
    for axes in grid[1]:
        axes.set_xlabel("steps T")
    for axes in grid[:, 0]:
        axes.set_ylabel("mean over t ≤ T of\n" + r"$|\nabla L(w_t+\epsilon_t)|^2$ (nats²)")
    legend_below(figure, grid[0, 0])
    save(figure, folder / "running_mean.png")
    return Figure(
        "running_mean.png",
        "What Theorem 1 bounds, against the number of steps",
        "The mean squared gradient at w + eps, means over seeds; grey: (1 + log T) / "
        "sqrt(T), the theorem's rate, through a point above SAM's last. On the quadratics "
        "SAM's stays at (rho L)^2, since w reaches the minimum and w + eps stays rho away "
        "from it. Last panel: from rho / 2 off the minimum, with the right side of the "
        "inequality, all its constants known and Gamma = L: SAM ends above it.",
    )


def _draw_rate(axes: Any, found: Numbers) -> None:
    """The theorem's rate over the last decade and a half."""
    shown, rate = np.array(found["shown"]), np.array(found["theorem_rate"])
    late = shown >= shown[-1] / 30
    through = 1.6 * found["running"]["0"][-1] / rate[-1]
    axes.loglog(shown[late], through * rate[late], color="#999999", linewidth=1.4)


def _draw_levels(numbers: Numbers, folder: Path) -> Figure:
    figure, (left, right) = panels(2, width=4.1, height=3.5)
    for within, name in ((True, "a minimum within rho"), (False, "none")):
        kept = [
            (shift, max(level, FLOOR))
            for cell in numbers["settling"]["cells"]
            for shift, level, near in zip(
                cell["shift"], cell["level"], cell["within"], strict=True
            )
            if near == within and shift > 0
        ]
        x, y = np.reshape(kept, (-1, 2)).T
        style = {"color": color_of("sam" if within else "disam"), "mfc": "none", "ms": 4}
        left.loglog(x, y, "o" if within else "x", label=name, linestyle="none", **style)
    left.set_xlabel(r"$\lambda\,|H^{-1}\nabla$Var$|\,/\,\rho$")
    left.set_ylabel(r"$|\nabla L(w+\epsilon)|^2\,/\,(\rho L)^2$")
    title = r"$L-\lambda\,$Var has"
    legend(left, fontsize=9, loc="lower left", title=title)
    for i, (name, title) in enumerate(TITLES.items()):
        levels = numbers[name]["levels"]
        values = [by_lam["0"] for by_lam in levels.values()]
        style = {"marker": "os^"[i], "linestyle": ("-", "--", ":")[i], "ms": 5}
        rhos = [float(rho) for rho in levels]
        errorbars(right, rhos, values, color=color_of("sam"), label=title, **style)
    rhos = np.array([float(rho) for rho in numbers["quadratics"]["levels"]])
    smoothness = np.array(numbers["quadratics"]["smoothness"])
    floor = rhos**2 * np.mean(smoothness**2)
    right.loglog(rhos, floor, color="#000000", linewidth=0.8, zorder=9)
    right.set_xticks(rhos, [f"{rho:g}" for rho in rhos])
    right.minorticks_off()
    right.set_xlabel("rho")
    right.set_ylabel(r"SAM's $|\nabla L(w+\epsilon)|^2$ (nats²)")
    right.set_ylim(top=20 * right.get_ylim()[1])
    legend(right, fontsize=9, loc="upper left")
    save(figure, folder / "levels.png")
    return Figure(
        "levels.png",
        "When the ascended point comes to rest, and how high SAM's gradient stays",
        "Over the last tenth of the runs. Left: every DISAM run on the quadratics, all "
        f"rho, lam and seeds (levels below {FLOOR:g} are drawn there), against how far the "
        "minimum of L - lam Var moves away from that of L, to first order. w + eps rests "
        "at the minimum of L where that of L - lam Var is farther than rho, and jumps to "
        "and fro, as SAM's does, where it is nearer. Right: SAM, means over seeds with "
        "95 % intervals; black: (rho L)^2 of the quadratics.",
    )


def _draw_heuristics(numbers: Numbers, folder: Path) -> Figure:
    figure, axes = panels(3, width=2.9, height=3.6)
    at = np.arange(len(TITLES))
    correlations = {
        "over domains": ("correlation_of_domains", "o"),
        "over steps": ("correlation_over_time", "D"),
    }
    for i, (name, (key, marker)) in enumerate(correlations.items()):
        values = [numbers[name][key] for name in TITLES]
        style = {"fmt": marker, "color": "#000000", "mfc": ("#000000", "#ffffff")[i]}
        errorbars(axes[0], (at + 0.2 * i - 0.1).tolist(), values, ms=5, label=name, **style)
    for panel, key in zip(axes[1:], ("cosine", "turns_up"), strict=True):
        for i, lam in enumerate(STYLES if key == "cosine" else DISAM_LAMS):
            values = [numbers[name][key][lam] for name in TITLES]
            style = {"fmt": MARKERS[lam], "color": _color(lam), "mfc": "#ffffff"}
            x = (at + 0.16 * (i - 1)).tolist()
            errorbars(panel, x, values, ms=5, label=_label(lam), **style)
    axes[0].set_ylabel("correlation of the domains' losses\nwith their gradients' norms")
    axes[1].set_ylabel("cosine of the gradient at w + eps\nand the change of eps")
    axes[2].set_ylabel("share of the steps at which the\nweights move to large gradients")
    names = [
        title.removeprefix("digits ").replace(", ", ",\n") for title in TITLES.values()
    ]
    for panel, level in zip(axes, (0, 0, 0.5), strict=True):
        panel.axhline(level, color="#000000", linewidth=0.8)
        panel.set_xticks(at, names, fontsize=8)
        panel.set_xlim(-0.5, len(at) - 0.5)
        panel.set_ylim(-1.1, 1.1)
    axes[2].set_ylim(-0.05, 1.05)
    legend(axes[0], fontsize=9, loc="lower left")
    legend_below(figure, axes[1])
    save(figure, folder / "heuristics.png")
    return Figure(
        "heuristics.png",
        "What the proof assumes, measured",
        "Means over seeds with 95 % intervals. Left: the proof needs that at a step the "
        "domains of larger loss have larger gradients (black, above 0; DISAM, lam = 0.1). "
        "Middle: it sets the product with the change of eps to 0; at -1 eps turns round at "
        "every step. Right: it lets the weights of large gradients fall; above one half "
        "they rise at most steps. To first order the sum in question is 2 lam eta times "
        "the covariance, over the domains, of grad L_i · g and grad L_i · grad L(w + eps): "
        "a variance, and so above 0, where g and grad L(w + eps) agree.",
    )
