"""The figures of the study of the toy."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from experiments.results.figures import color_of, save
from experiments.studies.kit.plots import legend_below, panels
from experiments.studies.kit.study import Curves, Figure
from experiments.studies.kit.values import Values
from experiments.studies.toy.problem import (
    CENTERS,
    CLIMBED,
    CORNER,
    CURVATURES,
    DISAMS,
    RHO,
    STEP_SIZE,
    domain_losses,
    name_of,
)

DRAWN = "the drawn toy, starts at random"
RANDOM = "random toys, a start on each"
SHOWN = np.array([[2.6, 2.1], [-2.4, 2.2], [1.6, -2.2]], np.float32)  # starts
ARROWS = np.array(
    [(x, y) for x in (-2.3, -0.8, 0.8, 2.3) for y in (-1.7, 0.0, 1.7)], np.float32
)
STYLES = {"erm": ":", "sam": "-", "disam 0.1": "--", "disam 1": "-."}
ARROW_STYLES = {"sam": "-", "disam 0.1": "-", "disam 1": (0, (1.2, 1.4))}
MARKERS = {"erm": "s", "sam": "o", "disam 0.1": "x", "disam 1": "D"}
WIDTH = 5.6  # inches
DOMAIN_STYLES = ((0, (1, 1)), (0, (4, 1.5)))
Box = tuple[float, float, float, float]  # left, right, bottom, top
WHOLE = (-CORNER[0], CORNER[0], -CORNER[1], CORNER[1])


def draw(values: Values, curves: Curves, out: Path) -> list[Figure]:
    """Writes the figures."""
    return [_draw_arrows(curves, out), _draw_paths(curves, out), _draw_gaps(values, out)]


def _color(method: str) -> Any:
    return color_of(method.partition(" ")[0])


def _contours(axes: Any, domains: list[int], box: Box) -> None:
    """Those of the mean of some domains' losses on the drawn toy."""
    x, y = np.linspace(*box[:2], 100), np.linspace(*box[2:], 100)
    toy = jnp.asarray(CENTERS), jnp.asarray(CURVATURES)
    points = jnp.stack(jnp.meshgrid(x, y), axis=-1).reshape(-1, 2)
    losses = np.asarray(jax.vmap(lambda w: domain_losses(w, *toy))(points))
    surface = losses[:, domains].mean(-1).reshape(100, 100)
    axes.contour(x, y, surface, levels=14, colors="#bbbbbb", linewidths=0.7)
    axes.set_xlim(*box[:2])
    axes.set_ylim(*box[2:])
    axes.set_aspect("equal")


def _draw_arrows(curves: Curves, out: Path) -> Figure:
    figure, axes = plt.subplots(figsize=(WIDTH, 4.8), layout="constrained")
    _contours(axes, [0, 1], WHOLE)
    arrows = {name: np.array(values) for name, values in curves["arrows"].items()}
    for i, style in enumerate(DOMAIN_STYLES):
        kind = {"linestyle": style, "linewidth": 1.4, "color": "#777777"}
        _arrows(axes, 0.6 * arrows["gradients"][:, i], f"gradient of domain {i + 1}", kind)
    for name in CLIMBED:
        kind = {"linestyle": ARROW_STYLES[name], "linewidth": 2.0, "color": _color(name)}
        _arrows(axes, 0.6 * arrows[name], name_of(name), kind)
    axes.plot(*ARROWS.T, "o", color="#000000", ms=3)
    for i, center in enumerate(CENTERS, start=1):
        axes.plot(*center, "*", color="#000000", ms=9)
        axes.annotate(f"{i}", center, xytext=(6, 5), textcoords="offset points")
    axes.set_xlabel("first parameter")
    axes.set_ylabel("second parameter")
    legend_below(figure, axes, 2)
    save(figure, out / "ascents.png")
    return Figure(
        "ascents.png",
        "Which way SAM and DISAM climb",
        "The perturbation at some points, drawn thrice as long as it is, and the gradients "
        "of both domains, over contours of the mean of their losses; stars: the minimum of "
        "each domain. SAM leans to the longer of the two gradients. DISAM leans to the "
        "domain of the lower loss: a little at lam = 0.1, and with lam = 1 it climbs that "
        "domain alone where the losses are 1 nat apart, and descends the other one beyond.",
    )


def _arrows(axes: Any, arrows: np.ndarray, name: str, style: dict[str, Any]) -> None:
    shape = {"arrowstyle": "->", "shrinkA": 0, "shrinkB": 0, **style}
    for start, arrow in zip(ARROWS, arrows, strict=True):
        axes.annotate("", start + arrow, xytext=start, arrowprops=shape)
    axes.plot([], [], label=name, **style)


def _draw_paths(curves: Curves, out: Path) -> Figure:
    figure, panels = plt.subplots(2, 1, figsize=(WIDTH, 7.6), layout="constrained")
    end = np.array(curves["paths"]["erm"])[0, -1]
    near: Box = (end[0] - 0.6, end[0] + 0.6, end[1] - 0.5, end[1] + 0.5)
    for axes, box in zip(panels, (WHOLE, near), strict=True):
        _contours(axes, [0, 1], box)
        for name, paths in curves["paths"].items():
            style = {"linestyle": STYLES[name], "color": _color(name), "linewidth": 1.4}
            style |= {"marker": MARKERS[name], "mfc": "white", "ms": 6, "mew": 1.4}
            for i, path in enumerate(np.array(paths)):
                label = None if i else name_of(name)
                axes.plot(*path.T, markevery=[-1], label=label, **style)
        axes.set_ylabel("second parameter")
    panels[0].plot(*SHOWN.T, "*", color="#000000", ms=7)
    for i, center in enumerate(CENTERS, start=1):
        panels[0].annotate(f"{i}", center, ha="center", va="center", fontweight="bold")
    panels[0].set_title("mean of both domains' losses", fontsize=10)
    panels[1].set_title("the same, near its minimum", fontsize=10)
    panels[1].set_xlabel("first parameter")
    legend_below(figure, panels[0], 2)
    save(figure, out / "paths.png")
    return Figure(
        "paths.png",
        "Paths of ERM, SAM and DISAM over the mean of two domains' losses",
        f"Three starts (stars), steps of size {STEP_SIZE:g}, rho = {RHO:g}; a mark at the "
        "end of each path, a number at the minimum of each domain. SAM ends jumping across "
        "the minimum of the mean. DISAM ends beside it, farther from domain 2, whose loss "
        "is the larger one there: with lam = 0.1 still jumping, with lam = 1 at rest, its "
        "perturbation pointing to the minimum.",
    )


def _draw_gaps(values: Values, out: Path) -> Figure:
    figure, (left, right) = panels(2, width=WIDTH / 2 - 0.2, height=3.6, sharey=True)
    families = {DRAWN: "o", RANDOM: "^"}
    for axes, key in ((left, "losses_apart"), (right, "ascended_losses_apart")):
        for i, name in enumerate(DISAMS):
            for j, (family, marker) in enumerate(families.items()):
                ours, sams = (
                    values.per_seed(family, name_of(n), key) for n in (name, "sam")
                )
                x = i + 0.4 * j - 0.2 + np.linspace(-0.14, 0.14, len(ours))
                style = {"ms": 4, "mfc": "none" if j else _color(name)}
                axes.plot(x, 100 * (ours / sams - 1), marker, color=_color(name), **style)
        axes.axhline(0, color="#000000", linewidth=0.8)
        axes.set_yscale("symlog", linthresh=3)
        ticks = (-100, -30, -10, -3, 0, 3, 10, 30, 100, 300)
        shown = [f"{tick:+d}".replace("-", "\N{MINUS SIGN}") for tick in ticks]
        axes.set_yticks(ticks, [text.replace("+0", "0") for text in shown])
        axes.minorticks_off()
        axes.set_ylim(-110, 600)
        axes.set_xticks(range(len(DISAMS)), [name_of(n) for n in DISAMS], fontsize=9)
        axes.set_xlim(-0.5, len(DISAMS) - 0.5)
    left.set_title("along the path", fontsize=10)
    right.set_title("at w + eps", fontsize=10)
    left.set_ylabel("$|L_1-L_2|$ against SAM's (%)")
    for j, (family, marker) in enumerate(families.items()):
        style = {"mfc": "none" if j else "#000000", "color": "#000000", "ms": 5}
        left.plot([], [], marker, label=family, linestyle="none", **style)
    legend_below(figure, left, 1)
    save(figure, out / "gaps.png")
    return Figure(
        "gaps.png",
        "How far apart the losses of the two domains are, DISAM against SAM",
        "A mark per start; above 0 the losses are farther apart with DISAM; the axis is "
        "linear within 3 %. Where curvature H is alike in all directions this must be so: "
        "to first order in rho and lam, a step of DISAM differs from SAM's by eta rho lam "
        "H v / ‖grad L‖, with v the part of grad Var across grad L, and so raises Var by "
        "eta rho lam v^T H v / ‖grad L‖. The variance is subtracted at w + eps, not at w.",
    )
