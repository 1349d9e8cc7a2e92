"""The arms of the study: runs, accuracies, turns."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.studies import convergence, rho
from experiments.studies.kit.changes import Change
from experiments.studies.kit.matrix import (
    ACCURACIES,
    Group,
    Outcome,
    run_groups,
    values_of,
)
from experiments.studies.kit.run import Spec
from experiments.studies.kit.runs import Setting
from experiments.studies.kit.study import Curves, Measured
from experiments.studies.kit.turns import Turn, angle, turn_of
from experiments.studies.kit.values import Value, Values

MEASURE = "unseen_concept_accuracy"
TURN = "turn"
SMALL_RHO = rho.name_of("SAM", 0.02)
PERMUTED = functools.partial(convergence.LOOKED_AT, change=Change("wrong_labels", 1.0))
# DISAM's arms: name -> (lam, whether the domain labels are permuted)
LAMS = {
    "DISAM": (0.1, False),
    "DISAM, lam 1": (1.0, False),
    "DISAM, lam 10": (10.0, False),
    "DISAM, lam 100": (100.0, False),
    "DISAM, lam 10, permuted labels": (10.0, True),
    "DISAM, lam 100, permuted labels": (100.0, True),
}
SHOWN = (0.1, 0.7, 1.0, 10.0, 100.0)  # lams whose turn is told at SAM's weights
LIMIT, LIMIT_NAME = 5.0, "a turn by 5 degrees"
LITE0 = "emoji_styles, EfficientNet-Lite0"
BACKBONE = (
    ("model", "efficientnet_lite0"),
    ("weights", "package"),
    ("image_size", 64),
    ("batch_size", 8),
    ("optimizer", "adam"),
    ("weight_decay", 0.0),
    ("learning_rate", 1e-3),
)
OF_BACKBONE = functools.partial(Spec, looks=4, probes=("domain_gradients",))


def groups(setting: Setting) -> dict[tuple[str, str], Group]:
    """(data, name) -> its runs."""
    shared = {**convergence.groups(setting), **rho.groups(setting)}
    asked = {}
    for data in dict.fromkeys(data for data, _ in shared):
        asked[data, "SAM"] = shared[data, "SAM"]
        asked[data, SMALL_RHO] = shared[data, SMALL_RHO]
        for name, (lam, permuted) in LAMS.items():
            asked[data, name] = shared.get((data, name)) or dataclasses.replace(
                shared[data, "DISAM"],
                overrides=(("lam", lam),),
                spec=PERMUTED if permuted else convergence.LOOKED_AT,
            )
    return asked


def measure(setting: Setting) -> Measured:
    """Accuracies, turns, and what lets them be told for every lam."""
    asked = groups(setting)
    found = run_groups(setting, asked)
    values: list[Value] = []
    curves: Curves = {}
    for (data, name), rows in found.items():
        group = asked[data, name]
        values += values_of(data, name, group, rows, ACCURACIES)
        if name in LAMS:
            own = functools.partial(median_angle, lam=LAMS[name][0])
            values += values_of(data, name, group, rows, {TURN: own})
    for data in dict.fromkeys(data for data, _ in asked):
        group, rows = asked[data, "SAM"], found[data, "SAM"]
        values += values_of(data, LIMIT_NAME, group, rows, {TURN: lambda outcome: LIMIT})
        curves[data] = seen_by_sam(rows)
    if "emoji_styles" in setting.data:
        group = _backbone(setting)
        rows = run_groups(setting, {LITE0: group})[LITE0]
        own = functools.partial(median_angle, lam=0.1)
        values += values_of(LITE0, "DISAM", group, rows, {TURN: own})
        values += values_of(LITE0, LIMIT_NAME, group, rows, {TURN: lambda outcome: LIMIT})
        curves[LITE0] = seen_by_sam(rows)
    return Measured(values, curves)


def _backbone(setting: Setting) -> Group:
    gradients = min(40, setting.gradients["emoji_styles"])
    return Group(
        "emoji_styles",
        "sam",
        BACKBONE,
        gradients=gradients,
        seeds=min(3, setting.seeds),
        spec=OF_BACKBONE,
    )


def turns(outcome: Outcome) -> Turn:
    """What turns the perturbations of a run's batches, arrays [looks, batches]."""
    looks = outcome["looks"]
    return turn_of(
        np.array([look["batch_losses"] for look in looks]),
        np.array([look["batch_grams"] for look in looks]),
    )


def median_angle(outcome: Outcome, lam: float) -> float:
    """Over looks and batches, in degrees."""
    return float(np.median(angle(turns(outcome), lam)))


def seen_by_sam(rows: Sequence[Sequence[Outcome]]) -> Curves:
    """At SAM's weights: of each look of each run, medians over the batches, [runs looks].

    `spread` and `angles` by lam are of batches, `spread_of_all` and `angles_of_all` of all
    their images together.
    """
    ended = [o for row in rows for o in row if not o["diverged"]]
    of_batches = [turns(outcome) for outcome in ended]
    of_all = [
        turn_of(look["domain_losses"], look["domain_gram"])
        for outcome in ended
        for look in outcome["looks"]
    ]
    whole = Turn(*(np.array(x) for x in zip(*of_all, strict=True)))
    return {
        "spread": _medians(of_batches, lambda turn: turn.spread),
        "per_nat": _medians(of_batches, lambda turn: turn.per_nat),
        "angles": {
            f"{lam:g}": _medians(of_batches, lambda turn, lam=lam: angle(turn, lam))
            for lam in SHOWN
        },
        "spread_of_all": _short(whole.spread),
        "per_nat_of_all": _short(whole.per_nat),
        "angles_of_all": {f"{lam:g}": _short(angle(whole, lam)) for lam in SHOWN},
    }


def _medians(of_batches: Sequence[Turn], read: Any) -> list[float]:
    return _short(np.concatenate([np.median(read(turn), axis=1) for turn in of_batches]))


def _short(values: np.ndarray) -> list[float]:
    return [float(f"{value:.4g}") for value in values]


def effect(values: Values, data: str, name: str) -> np.ndarray:
    """Points of accuracy above SAM, one per seed."""
    found, sam = (values.per_seed(data, arm, MEASURE) for arm in (name, "SAM"))
    return 100 * (found - sam)
