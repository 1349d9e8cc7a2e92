"""The figures of the study of Theorem 1."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from experiments.results.figures import color_of, legend, save
from experiments.studies.kit.plots import legend_below, log_ticks
from experiments.studies.kit.study import Curves, Figure
from experiments.studies.kit.values import Values
from experiments.studies.theorem.findings import LAMS, TITLES, method_of

STYLES = {"0": "-", "0.1": "--", "1": "-.", "10": ":"}  # 0 is SAM
MARKERS = {"0": "o", "0.1": "s", "1": "^", "10": "v"}
SHORT = {
    "quadratics": "quadratics",
    "small": "network,\nsmall steps",
    "large": "network,\nlarge steps",
}
FLOOR = 1e-6  # levels below it are drawn there
WIDTH = 5.6  # inches


def draw(values: Values, curves: Curves, out: Path) -> list[Figure]:
    """Writes the figures."""
    return [
        _draw_running(curves, out),
        _draw_angles(curves, out),
        _draw_levels(curves, out),
        _draw_heuristics(values, out),
    ]


def _draw_angles(curves: Curves, out: Path) -> Figure:
    figure, grid = plt.subplots(3, 2, figsize=(WIDTH, 6.6), layout="constrained")
    for (left, right), (name, title) in zip(grid, SHORT.items(), strict=True):
        shown = curves[name]["shown"]
        turns = {lam: np.array(found) for lam, found in curves[name]["turns"].items()}
        _lines(left, shown, {lam: _geometric(found) for lam, found in turns.items()})
        left.axhline(1, color="#000000", linewidth=0.8)
        left.set_ylim(1e-3, 1e3)
        left.set_ylabel(title)
        ratios = turns["0.1"] / turns["0"]
        right.semilogx(shown, ratios.T, color=_color("0.1"), linewidth=0.6, alpha=0.5)
        _lines(right, shown, {"0.1": _geometric(ratios)})
        right.axhline(1, color=_color("0"), linewidth=1.2)
        right.set(yscale="linear", ylim=(0.4, 1.6))
    at = {"xytext": (3, 3), "textcoords": "offset points", "fontsize": 8}
    grid[0, 0].annotate("bound of Eq. 17", (1, 1), **at)
    grid[0, 1].annotate("SAM", (1, 1), **at)
    grid[0, 0].set_title(r"$\phi_t\,/\,(\eta_t L)$", fontsize=10)
    grid[0, 1].set_title("DISAM's, lam = 0.1, over SAM's", fontsize=10)
    for axes in grid[2]:
        axes.set_xlabel("step t")
    legend_below(figure, grid[0, 0], 2)
    save(figure, out / "angles.png")
    return Figure(
        "angles.png",
        "How far the ascent direction turns in a step, and DISAM's turn over SAM's",
        "Left: the angle of successive perturbations over the step size, in units of L, "
        "geometric means over seeds. By Eq. 17 it stays below the line at 1; on the "
        "network L is a lower bound, so that only a curve below the line decides. Right: "
        "at the paper's lam DISAM's over SAM's, each on its own run; thin: the seeds. Once "
        "w is nearer to a minimum than w + eps, SAM's direction flips at every step and "
        "phi_t = pi; DISAM's keeps still where L - lam Var has no minimum nearby.",
    )


def _geometric(seeds: np.ndarray) -> np.ndarray:
    return np.exp(np.log(seeds).mean(0))


def _lines(axes: Any, shown: Sequence[int], curves: dict[str, Any]) -> None:
    for lam, curve in curves.items():
        style = {"linestyle": STYLES[lam], "linewidth": 1.6, "label": method_of(lam)}
        axes.loglog(shown, curve, color=_color(lam), **style)


def _color(lam: str) -> Any:
    return color_of("sam" if lam == "0" else "disam")


def _draw_running(curves: Curves, out: Path) -> Figure:
    figure, grid = plt.subplots(2, 2, figsize=(WIDTH, 5.2), layout="constrained")
    for axes, (name, title) in zip(grid.flat[1:], TITLES.items(), strict=True):
        found = curves[name]
        _lines(axes, found["shown"], found["running"])
        _draw_rate(axes, found)
        axes.set_title(title, fontsize=9)
    near, found = grid[0, 0], curves["bound"]
    _lines(near, found["shown"], found["left"])
    near.loglog(found["shown"], found["right"]["0"], color="#000000", linewidth=1.4)
    near.axhline(found["floor"], color="#000000", linewidth=0.8, linestyle=(0, (1, 2)))
    at = {"xytext": (4, 4), "textcoords": "offset points", "fontsize": 8}
    near.annotate(
        "right side of the theorem", (found["shown"][3], found["right"]["0"][3]), **at
    )
    at = at | {"xytext": (0, -10), "ha": "right"}
    near.annotate("SAM stays above, by proof", (found["shown"][-1], found["floor"]), **at)
    near.set_ylim(found["floor"] / 30, found["right"]["0"][0] * 4)
    near.set_title("quadratics, from near the minimum", fontsize=9)
    for axes in grid[1]:
        axes.set_xlabel("steps T")
        log_ticks(axes.yaxis)
    for axes in grid[:, 0]:
        axes.set_ylabel("mean over t ≤ T of\n" + r"$|\nabla L(w_t+\epsilon_t)|^2$ (nats²)")
    legend_below(figure, grid[0, 1], 2)
    save(figure, out / "running_mean.png")
    return Figure(
        "running_mean.png",
        "What Theorem 1 bounds, against the number of steps",
        "The mean squared gradient at w + eps, means over seeds. First panel: from rho / 2 "
        "off the minimum, with the right side of the inequality, all its constants known "
        "and Gamma = L, and the proof's (rho lambda_min)^2, dotted: the right side falls "
        "below SAM's curve, and for more steps it falls below the dotted line. The others: "
        "grey is (1 + log T) / sqrt(T), the theorem's rate, through a point above SAM's "
        "last; on the quadratics SAM's curve levels off, since w reaches the minimum and "
        "w + eps stays rho away from it.",
    )


def _draw_rate(axes: Any, found: Curves) -> None:
    """The theorem's rate over the last decade and a half."""
    shown, rate = np.array(found["shown"]), np.array(found["theorem_rate"])
    late = shown >= shown[-1] / 30
    through = 1.6 * found["running"]["0"][-1] / rate[-1]
    axes.loglog(shown[late], through * rate[late], color="#999999", linewidth=1.4)


def _draw_levels(curves: Curves, out: Path) -> Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.3), layout="constrained")
    for within, name in ((True, "a minimum within rho"), (False, "none")):
        kept = [
            (shift, max(level, FLOOR))
            for cell in curves["settling"]["cells"]
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
    legend(left, fontsize=8, loc="lower left", title=title, title_fontsize=8)
    _draw_levels_of_sam(right, curves)
    save(figure, out / "levels.png")
    return Figure(
        "levels.png",
        "When the ascended point comes to rest, and how high SAM's gradient stays",
        "Over the last tenth of the runs. Left: every DISAM run on the quadratics, all "
        f"rho, lam and seeds (levels below {FLOOR:g} are drawn there), against how far the "
        "minimum of L - lam Var moves away from that of L, to first order. w + eps rests "
        "at the minimum of L where that of L - lam Var is farther than rho, and jumps to "
        "and fro, as SAM's does, where it is nearer. Right: SAM, a mark per seed, filled "
        "at their geometric means; black: (rho L)^2 of the quadratics.",
    )


def _draw_levels_of_sam(axes: Any, curves: Curves) -> None:
    for i, (name, title) in enumerate(SHORT.items()):
        levels = curves[name]["levels"]
        seeds = np.array([by_lam["0"] for by_lam in levels.values()])
        rhos, style = [float(rho) for rho in levels], {"color": color_of("sam"), "ms": 4}
        axes.plot(rhos, seeds, "os^"[i], mfc="none", alpha=0.4, **style)
        style |= {"marker": "os^"[i], "linestyle": ("-", "--", ":")[i]}
        axes.plot(rhos, _geometric(seeds.T), label=title.replace("\n", " "), **style)
    rhos = np.array([float(rho) for rho in curves["quadratics"]["levels"]])
    smoothness = np.array(curves["quadratics"]["smoothness"])
    floor = rhos**2 * np.mean(smoothness**2)
    axes.loglog(rhos, floor, color="#000000", linewidth=0.8, zorder=9)
    axes.set_xticks(rhos, [f"{rho:g}" for rho in rhos])
    axes.minorticks_off()
    axes.set_xlabel("rho")
    axes.set_ylabel(r"SAM's $|\nabla L(w+\epsilon)|^2$ (nats²)")
    axes.set_ylim(top=60 * axes.get_ylim()[1])
    legend(axes, fontsize=8, loc="upper left")


def _draw_heuristics(values: Values, out: Path) -> Figure:
    figure, grid = plt.subplots(3, 1, figsize=(WIDTH, 6.8), layout="constrained")
    shown = {
        "loss_and_gradient": (
            "correlation of domains'\nlosses and gradients",
            LAMS[1:],
        ),
        "gradient_and_change": (
            "cosine of the gradient at\nw + eps and the change of eps",
            LAMS,
        ),
        "weights_fall": ("weights of large gradients\nfall (+1) or rise (-1)", LAMS[1:]),
    }
    for axes, (measure, (title, lams)) in zip(grid, shown.items(), strict=True):
        for i, name in enumerate(TITLES.values()):
            for lam in lams:
                seeds = values.per_seed(name, method_of(lam), measure)
                _seeds(axes, i + 0.19 * (LAMS.index(lam) - 1.5), seeds, lam, not i)
        axes.axhline(0, color="#000000", linewidth=0.8)
        axes.set_xticks(range(len(SHORT)), SHORT.values(), fontsize=9)
        axes.set_ylim(-1.1, 1.1)
        axes.set_ylabel(title.replace("-1", "\N{MINUS SIGN}1"), fontsize=9)
    legend_below(figure, grid[1], 2)
    save(figure, out / "heuristics.png")
    return Figure(
        "heuristics.png",
        "What the proof of Theorem 1 assumes, measured",
        "A mark per seed, a bar at their mean. Above: the proof needs that at a step the "
        "domains of larger loss have larger gradients (above 0). Middle: it sets the "
        "product with the change of eps to 0; at -1 eps turns round at every step. Below: "
        "it lets the weights of large gradients fall; shares of the steps, those at which "
        "they fall less those at which they rise. To first order the sum in question is 2 "
        "lam eta times the covariance, over the domains, of grad L_i · g and grad L_i · "
        "grad L(w + eps): a variance, and so a rise, where g and grad L(w + eps) agree.",
    )


def _seeds(axes: Any, x: float, seeds: np.ndarray, lam: str, labelled: bool) -> None:
    apart = np.linspace(-0.06, 0.06, len(seeds))
    style = {"color": _color(lam), "mfc": "none", "ms": 4}
    label = method_of(lam) if labelled else None
    axes.plot(x + apart, seeds, MARKERS[lam], label=label, **style)
    axes.hlines(np.mean(seeds), x - 0.09, x + 0.09, color="#000000", linewidth=1.6)
