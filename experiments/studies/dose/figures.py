"""Effect against angle, and angle against spread."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from experiments.results.figures import save
from experiments.results.statistics import estimate
from experiments.studies.dose.arms import LAMS, MEASURE, SMALL_RHO, TURN, effect
from experiments.studies.kit.margins import MEASURES
from experiments.studies.kit.plots import legend_below, log_ticks
from experiments.studies.kit.study import Curves, Figure
from experiments.studies.kit.values import Values


def draw(values: Values, curves: Curves, out: Path) -> list[Figure]:
    """Effect against angle, and angle against spread."""
    return [_draw_effects(values, out), _draw_turns(curves, out)]


def _draw_effects(values: Values, out: Path) -> Figure:
    trained = [data for data in values.conditions if (data, "SAM", MEASURE) in values]
    figure, axes = plt.subplots(
        len(trained), 1, figsize=(5.6, 2.7 * len(trained) + 0.7), layout="constrained",
        squeeze=False, sharex=True,
    )  # fmt: skip
    for panel, data in zip(axes[:, 0], trained, strict=True):
        for name, (lam, permuted) in LAMS.items():
            _draw_arm(panel, values, data, name, lam, permuted)
        _draw_smaller_rho(panel, values, data)
        margin = 100 * MEASURES[MEASURE].margin
        panel.axhspan(-margin, margin, color="#d9d9d9", lw=0, zorder=0)
        panel.axhline(0, color="black", lw=0.7, zorder=0)
        panel.set_title(data, fontsize=10)
        panel.set_ylabel("DISAM less SAM (points)", fontsize=9)
        panel.set_xscale("log")
    for panel in axes[:, 0]:  # when all is drawn: a limit that is set stays as it is
        panel.set_xlim(right=180)
        log_ticks(panel.xaxis)
    axes[-1, 0].set_xlabel("angle to SAM's perturbation (degrees)", fontsize=9)
    legend_below(figure, axes[0, 0], 3, fontsize=9)
    save(figure, out / "effects.png")
    return Figure(
        "effects.png",
        "Accuracy on unseen concepts, DISAM less SAM, against the angle between them",
        "A point is an arm, with its lam: the median angle over its own runs, and the mean "
        "of the paired differences with a 95 % interval; small dots: seeds. Open diamonds: "
        "the domain labels permuted, so that only the penalty is left. Star: SAM with "
        "rho 0.02, which has no angle. Shaded: differences that do not matter.",
    )


def _draw_arm(
    panel: Any, values: Values, data: str, name: str, lam: float, permuted: bool
) -> None:
    color = "#D55E00" if permuted else "#0072B2"
    effects = effect(values, data, name)
    found = estimate(effects)
    x = float(np.median(values.per_seed(data, name, TURN)))
    panel.plot(np.full(len(effects), x), effects, ".", ms=3, color=color, alpha=0.5)
    told = "permuted labels" if permuted else "domain labels"
    first = next(arm for arm, how in LAMS.items() if how[1] == permuted)
    panel.errorbar(
        x,
        found.mean,
        yerr=(found.high - found.low) / 2 if found.count > 1 else None,
        fmt="D" if permuted else "o",
        mfc="white" if permuted else color,
        color=color,
        capsize=2.5,
        ms=5,
        label=told if name == first else None,
    )
    end, side = (found.high, 1) if permuted else (found.low, -1)  # where is room
    panel.annotate(
        f"{lam:g}", (x, end if found.count > 1 else found.mean), xytext=(0, 4 * side),
        color=color, textcoords="offset points", fontsize=8, ha="center",
        va="bottom" if permuted else "top",
        bbox={"facecolor": "white", "alpha": 0.8, "lw": 0, "pad": 0.5},
    )  # fmt: skip


def _draw_smaller_rho(panel: Any, values: Values, data: str) -> None:
    """To the left of all angles: it has none."""
    effects = effect(values, data, SMALL_RHO)
    found = estimate(effects)
    x = 0.5 * min(np.median(values.per_seed(data, name, TURN)) for name in LAMS)
    color = "#444444"
    panel.plot(np.full(len(effects), x), effects, ".", ms=3, color=color, alpha=0.5)
    reach = (found.high - found.low) / 2 if found.count > 1 else None
    panel.errorbar(
        x, found.mean, yerr=reach, fmt="*", ms=8, capsize=2.5, color=color, label=SMALL_RHO
    )


def _draw_turns(curves: Curves, out: Path) -> Figure:
    figure, panel = plt.subplots(figsize=(5.6, 4.4), layout="constrained")
    per_nat = _of_settings(curves)
    spreads = np.geomspace(0.02, 3, 60)
    for i, lam in enumerate((0.1, 1.0, 10.0, 100.0)):
        for (data, told), marker in zip(curves.items(), "osx", strict=False):
            panel.plot(
                told["spread"], told["angles"][f"{lam:g}"], marker, ms=2.5, alpha=0.35,
                color=f"C{i}", mfc="none", label=data if i == 0 else None,
            )  # fmt: skip
        curve = np.degrees(np.arctan(2 * lam * spreads * per_nat))
        panel.plot(spreads, curve, color=f"C{i}", lw=1.4)
        panel.annotate(
            f"lam {lam:g}", (spreads[0], curve[0]), xytext=(0, 7), color=f"C{i}",
            textcoords="offset points", fontsize=8,
            bbox={"facecolor": "white", "alpha": 0.8, "lw": 0, "pad": 1},
        )  # fmt: skip
    for degrees in (10, 30):
        panel.axhline(degrees, color="#999999", lw=0.8, ls=":", zorder=0)
        panel.annotate(
            f"{degrees}°", (spreads[-1], degrees), fontsize=8, va="bottom", ha="right"
        )
    panel.axvline(1, color="#999999", lw=0.8, zorder=0)
    panel.set_xscale("log")
    panel.set_yscale("log")
    log_ticks(panel.xaxis)
    log_ticks(panel.yaxis)
    panel.set_xlabel("spread of the domain losses in a batch (nats)")
    panel.set_ylabel("angle to SAM's perturbation (degrees)")
    legend_below(figure, panel, 3, fontsize=8)
    save(figure, out / "turns.png")
    return Figure(
        "turns.png",
        "Angle between SAM's perturbation and DISAM's, against the spread of the losses",
        "At SAM's weights, a point for each look at each run; curves: "
        f"arctan(2 lam s k) with the median k, {per_nat:.2f}; the line at 1 nat is far "
        "beyond what was seen here.",
    )


def _of_settings(curves: Curves) -> float:
    """The median k, in which every setting counts alike."""
    return float(np.median([np.median(told["per_nat"]) for told in curves.values()]))
