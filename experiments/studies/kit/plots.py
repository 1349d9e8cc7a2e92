"""What the studies' figures share beside colours and legends: panels, bands, bars."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import ticker

from experiments.results.figures import legend
from experiments.results.statistics import estimate


def panels(
    count: int, height: float = 2.9, width: float | None = None, **options: Any
) -> Any:
    """A figure with `count` panels in a row, and the panels."""
    if width is None:
        width = 2.9 if count > 1 else 4.6  # what stands below one panel needs room
    figure, axes = plt.subplots(
        1,
        count,
        figsize=(width * count + 0.4, height),
        squeeze=False,
        layout="constrained",
        **options,
    )
    return figure, axes[0]


def band(
    axes: Any, x: Sequence[float] | np.ndarray, values: np.ndarray, **options: Any
) -> None:
    """Draws the mean over seeds with its 95 % interval.

    Args:
      axes: the panel.
      x: [T].
      values: [seeds, T].
      **options: of the line.
    """
    found = [estimate(column[np.isfinite(column)]) for column in np.asarray(values).T]
    (line,) = axes.plot(x, [e.mean for e in found], **options)
    if len(values) > 1:
        low, high = [e.low for e in found], [e.high for e in found]
        axes.fill_between(x, low, high, color=line.get_color(), alpha=0.13, linewidth=0)


def legend_below(figure: Any, panel: Any, columns: int = 9, **style: Any) -> None:
    """Tells below a figure what is labelled in a panel, in so many columns at most."""
    legend(panel, figure, loc="outside lower center", ncols=columns, **style)


def log_ticks(axis: Any) -> None:
    """Gives a logarithmic axis plain numbers for ticks, also within a decade."""
    low, high = axis.get_view_interval()
    steps = (1, 1.5, 2, 3, 4, 5, 6, 8) if high < 10 * low else (1, 2, 5)
    axis.set_major_locator(ticker.LogLocator(subs=steps, numticks=8))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(ticker.NullFormatter())


# Ticks of ratios; the first of these that puts at most 7 into an axis.
ROUND_RATIOS = (
    (0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.7, 2),
    (0.5, 0.6, 0.7, 0.8, 1, 1.2, 1.5, 1.75, 2, 2.5, 3),
    (0.25, 0.5, 0.7, 1, 1.4, 2, 3, 4),
    (0.1, 0.2, 0.5, 1, 2, 5, 10, 20),
    tuple(10.0**k for k in range(-6, 7)),
)


def ratio_ticks(axis: Any) -> None:
    """Gives an axis of logarithms of ratios round ratios for ticks, its limits kept."""
    low, high = axis.get_view_interval()
    shown: list[float] = []
    for ratios in map(np.log, ROUND_RATIOS):
        shown = [ratio for ratio in ratios if low <= ratio <= high]
        if len(shown) <= 7 and ratios[0] <= low and high <= ratios[-1]:
            break
    axis.set_major_locator(ticker.FixedLocator(shown))
    axis.set_major_formatter(lambda x, _: f"{np.exp(x):.3g}")


def errorbars(
    axes: Any,
    x: Sequence[float] | np.ndarray,
    values: Sequence[Sequence[float] | np.ndarray],
    **options: Any,
) -> None:
    """Draws means over seeds with their 95 % intervals; NaN, a run diverged, is left out.

    Args:
      axes: the panel.
      x: a position per point.
      values: per point, one value per seed.
      **options: of the line.
    """
    kept = [(at, v) for at, v in zip(x, values, strict=True) if np.isfinite(v).all()]
    if not kept:
        return
    found = [estimate(v) for _, v in kept]
    reach = [(e.high - e.low) / 2 if e.count > 1 else 0.0 for e in found]
    axes.errorbar(
        [at for at, _ in kept],
        [e.mean for e in found],
        yerr=reach,
        capsize=2,
        elinewidth=1,
        **options,
    )
