"""Effects with their intervals, a row for each claim and setting."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from experiments.results.figures import save
from experiments.studies.kit.claims import (
    ANSWERS,
    Claim,
    Finding,
    differences,
    is_measured,
    test_claims,
)
from experiments.studies.kit.margins import MEASURES
from experiments.studies.kit.study import Figure
from experiments.studies.kit.values import Values

# Told apart without colour too.
STYLES = dict(
    zip(
        ANSWERS,
        (("#1b7837", "o"), ("#b2182b", "D"), ("#2166ac", "s"), ("#777777", "o")),
        strict=True,
    )
)


def draw_forest(claims: Sequence[Claim], values: Values, file: Path, title: str) -> Figure:
    """Draws the paired difference of every claim, one dot per seed, the margin shaded.

    Args:
      claims: of one measure.
      values: of the study.
      file: of the PNG.
      title: of the figure.

    Returns:
      The figure.
    """
    findings = test_claims(claims, values)
    dots = {
        (c.text, c.where): differences(c, values) for c in claims if is_measured(c, values)
    }
    draw_rows(findings, file, dots)
    return Figure(
        file.name,
        title,
        "Difference seed by seed: a dot per seed, its mean with a 95 % interval, larger "
        "where the claim says so. Shaded: differences that do not matter. Green circle: "
        "seen; red diamond: the opposite seen; blue square: no difference that matters; "
        "grey open circle: cannot be told.",
    )


def draw_rows(
    findings: Sequence[Finding], file: Path, dots: dict[tuple[str, str], np.ndarray]
) -> None:
    """Draws findings of one measure under each other, those of a setting together."""
    measure = MEASURES[findings[0].measure]
    settings = list(dict.fromkeys(f.where for f in findings))
    height = 0.34 * (len(findings) + 1.2 * len(settings)) + 0.9
    figure, panel = plt.subplots(figsize=(7.2, height), layout="constrained")
    at, ticks, names = 0.0, [], []
    for setting in settings:
        panel.text(
            0, at, setting, fontsize=9, fontweight="bold", va="center",
            transform=panel.get_yaxis_transform(),
        )  # fmt: skip
        at -= 1
        for finding in (f for f in findings if f.where == setting):
            color, marker = STYLES[finding.answer]
            seeds = measure.scale * dots[finding.claim, finding.where]
            panel.plot(seeds, np.full(len(seeds), at - 0.22), ".", ms=3, color="#aaaaaa")
            panel.errorbar(
                measure.scale * finding.mean,
                at,
                xerr=[
                    [measure.scale * (finding.mean - finding.low)],
                    [measure.scale * (finding.high - finding.mean)],
                ],
                fmt=marker,
                color=color,
                mfc="white" if finding.answer == ANSWERS[-1] else None,
                capsize=3,
                ms=5,
            )
            ticks.append(at)
            names.append(finding.claim)
            at -= 1
        at -= 0.2
    margin = measure.scale * findings[0].margin
    panel.axvspan(-margin, margin, color="#dddddd", alpha=0.6, lw=0, zorder=0)
    panel.axvline(0, color="black", lw=0.7, zorder=0)
    panel.set_yticks(ticks, names, fontsize=8)
    panel.set_ylim(at + 0.4, 0.7)
    panel.set_xlabel(f"difference ({measure.unit})")
    save(figure, file)
