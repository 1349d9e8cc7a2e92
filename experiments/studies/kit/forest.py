"""Effects with their intervals, a row for each claim, those of a setting together."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from experiments.results.figures import save
from experiments.studies.kit.claims import (
    CANNOT_TELL,
    NO_DIFFERENCE,
    OPPOSITE,
    SEEN,
    Claim,
    Finding,
    answer_claims,
    differences,
    is_measured,
)
from experiments.studies.kit.margins import MEASURES
from experiments.studies.kit.plots import ratio_ticks
from experiments.studies.kit.study import Figure
from experiments.studies.kit.values import Values

WIDTH = 5.6  # inches: legible on a phone
# Told apart without colour too.
STYLES = {
    SEEN: ("#1b7837", "o"),
    OPPOSITE: ("#b2182b", "D"),
    NO_DIFFERENCE: ("#2166ac", "s"),
    CANNOT_TELL: ("#555555", "o"),
}
KEY = (
    "A row is a claim, its point the mean of the paired differences, with a 95 % interval, "
    "to the right where the claim says so; shaded: differences that do not matter. Green "
    "circle: seen here; red diamond: the opposite seen; blue square: no difference that "
    "matters; open circle: cannot be told."
)


def draw_forest(
    claims: Sequence[Claim], values: Values, measure: str, file: Path, title: str
) -> Figure:
    """Draws the paired difference of every claim about a measure, with a dot per seed.

    Args:
      claims: all of the study, so that a family is answered whole, as on the page.
      values: of the study.
      measure: whose claims are drawn.
      file: of the PNG.
      title: of the figure.

    Returns:
      The figure.
    """
    drawn = [c for c in claims if c.measure == measure and is_measured(c, values)]
    dots = {(c.where, c.contrast): differences(c, values) for c in drawn}
    answered = [f for f in answer_claims(claims, values) if f.measure == measure]
    draw_rows(answered, file, lambda finding: dots[finding.where, finding.contrast])
    return Figure(file.name, title, f"{KEY} Dots below: the seeds.")


def draw_rows(
    findings: Sequence[Finding],
    file: Path,
    dots: Callable[[Finding], np.ndarray] | None = None,
) -> None:
    """Draws findings of one measure under each other.

    Args:
      findings: in their order; those of a setting follow one another.
      file: of the PNG.
      dots: finding -> what its mean is of; None draws none.
    """
    measure = MEASURES[findings[0].measure]
    rows = _rows(findings)
    step = 0.3 if dots else 0.24
    figure, panel = plt.subplots(
        figsize=(WIDTH, step * len(rows) + 0.8), layout="constrained"
    )
    for at, (_, finding) in enumerate(rows):
        if finding:
            _draw_row(panel, -at, finding, measure.scale)
        if finding and dots:
            seeds = measure.scale * dots(finding)
            panel.plot(seeds, np.full(len(seeds), -at - 0.3), ".", ms=2.5, color="#999999")
    margin = measure.scale * findings[0].margin
    panel.axvspan(-margin, margin, color="#d9d9d9", alpha=0.7, lw=0, zorder=0)
    panel.axvline(0, color="black", lw=0.7, zorder=0)
    told = [(-at, finding.contrast) for at, (_, finding) in enumerate(rows) if finding]
    panel.set_yticks(*zip(*told, strict=True), fontsize=9)
    for at, (setting, finding) in enumerate(rows):
        if not finding:  # its name runs over the panel
            left = panel.annotate(
                setting, (0.01, -at), xycoords=("figure fraction", "data"), va="center",
                fontsize=9, fontweight="bold",
            )  # fmt: skip
            left.set_in_layout(False)
    panel.set_ylim(-len(rows) + 0.4, 0.5)
    if measure.compared == "ratio":  # told as such, drawn as its logarithm
        ratio_ticks(panel.xaxis)
        panel.set_xlabel("ratio")
    else:
        panel.set_xlabel(f"difference ({measure.unit})")
    panel.spines[["top", "right", "left"]].set_visible(False)
    save(figure, file)


def _rows(findings: Sequence[Finding]) -> list[tuple[str, Finding | None]]:
    """(name, finding), and before those of a setting its name."""
    rows: list[tuple[str, Finding | None]] = []
    for i, finding in enumerate(findings):
        if i == 0 or findings[i - 1].where != finding.where:
            rows.append((finding.where, None))
        rows.append((finding.contrast, finding))
    return rows


def _draw_row(panel: Any, at: float, finding: Finding, scale: float) -> None:
    color, marker = STYLES[finding.answer]
    below, above = finding.mean - finding.low, finding.high - finding.mean
    panel.errorbar(
        scale * finding.mean,
        at,
        xerr=None if np.isinf(below) else [[scale * below], [scale * above]],
        fmt=marker,
        color=color,
        mfc="white" if finding.answer == CANNOT_TELL else None,
        capsize=2.5,
        ms=5,
    )
