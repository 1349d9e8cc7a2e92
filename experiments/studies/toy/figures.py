"""The figures of the study of the toy."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from experiments.results.figures import color_of, save
from experiments.studies.kit.plots import legend_below, panels
from experiments.studies.kit.study import Figure, Numbers
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

FAMILIES = {
    "drawn": "the drawn toy, {} starts",
    "random": "{} random toys, a start on each",
}
SHOWN = np.array([[2.6, 2.1], [-2.4, 2.2], [1.6, -2.2]], np.float32)  # starts
ARROWS = np.array(
    [(x, y) for x in (-2.3, -0.8, 0.8, 2.3) for y in (-1.7, 0.0, 1.7)], np.float32
)
STYLES = {"erm": "-", "sam": "-", "disam 0.1": "-", "disam 1": "--"}
WIDTHS = {"erm": 3.2, "sam": 2.4, "disam 0.1": 1.8, "disam 1": 1.6}
DOMAIN_STYLES = ((0, (1, 1)), (0, (4, 1.5)))
Box = tuple[float, float, float, float]  # left, right, bottom, top
WHOLE = (-CORNER[0], CORNER[0], -CORNER[1], CORNER[1])


def draw(numbers: Numbers, folder: Path) -> list[Figure]:
    """Writes the figures."""
    return [
        _draw_arrows(numbers, folder),
        _draw_paths(numbers, folder),
        _draw_gaps(numbers, folder),
    ]


def toys_in_words(numbers: Numbers, family: str) -> str:
    """The toys of a family, and how many starts there are."""
    return FAMILIES[family].format(numbers["starts"])


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


def _draw_arrows(numbers: Numbers, folder: Path) -> Figure:
    figure, axes = plt.subplots(figsize=(8.0, 5.6), layout="constrained")
    _contours(axes, [0, 1], WHOLE)
    arrows = {name: np.array(values) for name, values in numbers["arrows"].items()}
    for i, style in enumerate(DOMAIN_STYLES):
        kind = {"linestyle": style, "linewidth": 1.4, "color": "#777777"}
        _arrows(axes, 0.6 * arrows["gradients"][:, i], f"gradient of domain {i + 1}", kind)
    for name in CLIMBED:
        kind = {"linestyle": STYLES[name], "linewidth": 2.0, "color": _color(name)}
        _arrows(axes, 0.6 * arrows[name], name_of(name), kind)
    axes.plot(*ARROWS.T, "o", color="#000000", ms=3)
    for i, center in enumerate(CENTERS, start=1):
        axes.plot(*center, "*", color="#000000", ms=9)
        axes.annotate(f"{i}", center, xytext=(6, 5), textcoords="offset points")
    axes.set_xlabel("first parameter")
    axes.set_ylabel("second parameter")
    legend_below(figure, axes, 3)
    save(figure, folder / "ascents.png")
    return Figure(
        "ascents.png",
        "Which way SAM and DISAM climb",
        "The perturbation at some points, drawn thrice as long as it is, and the gradients "
        "of both domains, over contours of the mean of their losses; stars: the minimum of "
        "each domain. SAM leans to the longer of the two gradients. DISAM leans to the "
        "domain of the lower loss: hardly with lam = 0.1, and with lam = 1 it climbs that "
        "domain alone where the losses are 1 nat apart, and descends the other one beyond.",
    )


def _arrows(axes: Any, arrows: np.ndarray, name: str, style: dict[str, Any]) -> None:
    shape = {"arrowstyle": "->", "shrinkA": 0, "shrinkB": 0, **style}
    for start, arrow in zip(ARROWS, arrows, strict=True):
        axes.annotate("", start + arrow, xytext=start, arrowprops=shape)
    axes.plot([], [], label=name, **style)


def _draw_paths(numbers: Numbers, folder: Path) -> Figure:
    figure, grid = plt.subplots(2, 2, figsize=(8.0, 6.6), layout="constrained")
    end = np.array(numbers["paths"]["erm"])[0, -1]
    near: Box = (end[0] - 0.6, end[0] + 0.6, end[1] - 0.5, end[1] + 0.5)
    views: dict[str, tuple[list[int], Box]] = {
        "domain 1": ([0], WHOLE),
        "domain 2": ([1], WHOLE),
        "mean of both": ([0, 1], WHOLE),
        "mean of both, near its minimum": ([0, 1], near),
    }
    for axes, (title, (domains, box)) in zip(grid.flat, views.items(), strict=True):
        _contours(axes, domains, box)
        for name, paths in numbers["paths"].items():
            style = {"linestyle": STYLES[name], "linewidth": WIDTHS[name]}
            style["color"] = _color(name)
            for i, path in enumerate(np.array(paths)):
                axes.plot(*path.T, label=None if i else name_of(name), **style)
        axes.plot(*SHOWN.T, "o", color="#000000", ms=4)
        axes.set_title(title, fontsize=10)
    for axes in grid[1]:
        axes.set_xlabel("first parameter")
    for axes in grid[:, 0]:
        axes.set_ylabel("second parameter")
    legend_below(figure, grid[0, 0], 4)
    save(figure, folder / "paths.png")
    return Figure(
        "paths.png",
        "Paths of ERM, SAM and DISAM over the losses of two domains",
        f"Three starts (dots), {numbers['steps']} steps of size {STEP_SIZE:g}, rho = "
        f"{RHO:g}. SAM ends jumping across the minimum of the mean. DISAM ends beside it, "
        "farther from domain 2, whose loss is the larger one there: with lam = 0.1 still "
        "jumping, with lam = 1 at rest, its perturbation pointing to the minimum.",
    )


def _draw_gaps(numbers: Numbers, folder: Path) -> Figure:
    figure, (left, right) = panels(2, width=4.0, height=3.6)
    families = {"drawn": "o", "random": "^"}
    for axes, key in ((left, "gap"), (right, "gap_ascended")):
        for i, name in enumerate(DISAMS):
            for j, (family, marker) in enumerate(families.items()):
                sam = np.array(numbers[family]["sam"][key])
                change = 100 * (np.array(numbers[family][name][key]) / sam - 1)
                x = i + 0.36 * j - 0.18 + np.linspace(-0.12, 0.12, len(change))
                style = {"ms": 4, "mfc": "none" if j else _color(name)}
                axes.plot(x, change, marker, color=_color(name), **style)
        axes.axhline(0, color="#000000", linewidth=0.8)
        axes.set_yscale("symlog", linthresh=3)
        ticks = (-100, -30, -10, -3, 0, 3, 10, 30, 100, 300)
        axes.set_yticks(ticks, [f"{tick:+d}" if tick else "0" for tick in ticks])
        axes.minorticks_off()
        axes.set_ylim(-110, 600)
        axes.set_xticks(range(len(DISAMS)), [name_of(name) for name in DISAMS])
        axes.set_xlim(-0.5, len(DISAMS) - 0.5)
    left.set_ylabel("$|L_1-L_2|$ along the path,\nagainst SAM's (%)")
    right.set_ylabel("$|L_1-L_2|$ at $w+\\epsilon$,\nagainst SAM's (%)")
    for j, (family, marker) in enumerate(families.items()):
        style = {"mfc": "none" if j else "#000000", "color": "#000000", "ms": 5}
        toys = toys_in_words(numbers, family)
        left.plot([], [], marker, label=toys, linestyle="none", **style)
    legend_below(figure, left, 2)
    save(figure, folder / "gaps.png")
    return Figure(
        "gaps.png",
        "How far apart the losses of the two domains are, DISAM against SAM",
        "A mark per start; above 0 the losses are farther apart with DISAM. Where "
        "curvature H is alike in all directions this must be so: to first order in rho and "
        "lam, a step of DISAM differs from SAM's by eta rho lam H v / ‖grad L‖, with v the "
        "part of grad Var across grad L, and so raises Var by eta rho lam v^T H v / |grad "
        "L|. The variance is subtracted at w + eps, not at w.",
    )
