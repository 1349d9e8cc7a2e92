"""Do the claims hold where a pretrained network is fine-tuned?"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.studies.kit.claims import OURS, PAPERS, Arm, Claim
from experiments.studies.kit.matrix import (
    ACCURACIES,
    Group,
    Outcome,
    last,
    run_groups,
    values_of,
)
from experiments.studies.kit.runs import Setting
from experiments.studies.kit.study import Measured, Study
from experiments.studies.kit.tuning import Dials, trial, tune
from experiments.studies.kit.turns import angle, turn_of
from experiments.studies.kit.values import Value, Values
from experiments.studies.pretrained.figures import draw, tables
from experiments.studies.pretrained.frozen import MODEL
from experiments.studies.pretrained.protocol import ANGLE, PROTOCOL, STEPS, TOLD
from experiments.studies.pretrained.training import TailSpec

DATA = "emoji_styles"
WHERE = f"{DATA}, EfficientNet-Lite0"
MONO = f"{WHERE}, mono among the sources"
MEASURE = "unseen_concept_accuracy"
TURN = "turn"
TAIL = (
    ("model", MODEL),
    ("weights", "package"),
    ("image_size", 64),
    ("batch_size", 16),
    ("optimizer", "adam"),
    ("schedule", "constant"),
    ("weight_decay", 0.0),
    ("dropout", 0.5),
    ("batch_norm", "frozen"),
)
RATE = ("learning_rate", 3e-4, 10 / 3)
DIALS: Dials = {"erm": (RATE,), "sam": (RATE, ("rho", 0.02, 2.0))}

ERM, HALF, SAM = "ERM", "ERM, equal steps", "SAM"
DISAM, STAR = "DISAM", "DISAM, lam*"
PLACEBO, EVAL = "DISAM, lam*, permuted labels", "SAM, evaluation mode"
ALONE = Group(DATA, "", TAIL, gradients=2 * STEPS, spec=TailSpec)
# Tuned each on its own.
TUNED = {
    HALF: dataclasses.replace(ALONE, method="erm", gradients=STEPS),
    ERM: dataclasses.replace(ALONE, method="erm"),
    SAM: dataclasses.replace(ALONE, method="sam"),
}

# (larger, smaller, claim, source, whose)
PRIMARY = (
    (STAR, SAM, "DISAM is more accurate than SAM where it turns its perturbation by much",
     "ours: DISAM, Table 1, at a lam that changes something", OURS),
    (STAR, PLACEBO, "DISAM owes it to the domains: permuted ones do worse",
     "ours: the placebo", OURS),
    (SAM, HALF, "SAM is more accurate than ERM after as many steps",
     "analogue of DISAM, Table 1: 64.5 against 63.9", PAPERS),
    (SAM, EVAL, "SAM is more accurate in training mode than in evaluation mode",
     "ours: the release trains SAM, and no other method, in evaluation mode", OURS),
)  # fmt: skip
EXPLORATORY = (
    (DISAM, HALF, "DISAM is more accurate than ERM after as many steps",
     "analogue of DISAM, Table 1: 66.4 against 63.9", PAPERS),
    (STAR, HALF, "DISAM with lam* is more accurate than ERM after as many steps",
     "ours", OURS),
    (SAM, ERM, "SAM is more accurate than ERM at equal cost", "ours", OURS),
    (STAR, ERM, "DISAM with lam* is more accurate than ERM at equal cost", "ours", OURS),
    (DISAM, EVAL, "DISAM is more accurate than SAM in evaluation mode",
     "ours: as the release compares them", OURS),
    (PLACEBO, SAM, "DISAM with permuted labels is more accurate than SAM", "ours", OURS),
)  # fmt: skip


def measure(setting: Setting) -> Measured:
    """Tunes, finds lam*, trains every arm."""
    tuned = tune(setting, TUNED, DIALS)
    star = find_lam(_trial_of_sam(setting, tuned[SAM].overrides))
    groups = arms({name: found.overrides for name, found in tuned.items()}, star)
    found = run_groups(setting, groups)
    values: list[Value] = []
    for name, rows in found.items():
        values += values_of(WHERE, name, groups[name], rows, ACCURACIES)
        if groups[name].method == "disam":
            lam = dict(groups[name].overrides)["lam"]
            reached = functools.partial(median_angle, lam=lam)
            values += values_of(WHERE, name, groups[name], rows, {TURN: reached})
    values += [v._replace(condition=MONO) for v in values if v.unseen_domain != "mono"]
    curves = {
        name: {
            "chosen": {k: v for k, v in group.overrides if (k, v) not in TAIL},
            "trials": tuned[name].trials if name in tuned else 0,
            "inside": tuned[name].inside if name in tuned else True,
            "steps": found[name][0][0]["looks"][-1]["step"],
            "training_accuracy": _mean(found[name], last("training_accuracy")),
        }
        for name, group in groups.items()
    }
    return Measured(values, curves)


def arms(tuned: dict[str, Any], star: float) -> dict[str, Group]:
    """Name -> its runs, with what was found for those that were tuned."""
    made = {
        name: dataclasses.replace(group, overrides=group.overrides + tuned[name])
        for name, group in TUNED.items()
    }

    def like_sam(method: str, *changes: tuple[str, float], permuted: bool = False) -> Group:
        return dataclasses.replace(
            made[SAM],
            method=method,
            overrides=made[SAM].overrides + changes,
            spec=functools.partial(TailSpec, permuted=permuted),
        )

    made[DISAM] = like_sam("disam", ("lam", 0.1))
    made[STAR] = like_sam("disam", ("lam", star))
    made[PLACEBO] = like_sam("disam", ("lam", star), permuted=True)
    made[EVAL] = like_sam("sam", ("dropout", 0.0))
    return made


def _trial_of_sam(setting: Setting, overrides: Any) -> list[Outcome]:
    """The tuning runs of what was chosen."""
    parts = dict(enumerate(trial(TUNED[SAM], overrides)))
    found = run_groups(setting, parts).values()
    return [outcome for rows in found for row in rows for outcome in row]


def median_angle(outcome: Outcome, lam: float) -> float:
    """Between SAM's perturbation and DISAM's, in degrees, over the looks of a run."""
    look = outcome["looks"][-1]
    turn = turn_of(np.array(look["batch_losses"]), np.array(look["batch_grams"]))
    return float(np.median(angle(turn, lam)))


def find_lam(outcomes: Sequence[Outcome], degrees: float = ANGLE) -> float:
    """The lam, to two digits, whose angle is so large in the median over runs."""
    lams = [float(f"{lam:.2g}") for lam in np.geomspace(0.1, 1000, 401)]
    reached = [np.median([median_angle(o, lam) for o in outcomes]) for lam in lams]
    return lams[int(np.argmin(np.abs(np.array(reached) - degrees)))]


def _mean(rows: Sequence[Sequence[Outcome]], read: Any) -> float:
    return float(np.mean([read(o) for row in rows for o in row if not o["diverged"]]))


def claims(values: Values) -> list[Claim]:
    """The primary ones, equality, and what is exploratory."""

    def of(condition: str, told: Any, family: str, equal: bool = False) -> list[Claim]:
        return [
            Claim(text, source, whose, condition, MEASURE, Arm(condition, larger),
                  Arm(condition, smaller), equal, family)
            for larger, smaller, text, source, whose in told
        ]  # fmt: skip

    equal = (DISAM, SAM, "DISAM with lam 0.1 is as accurate as SAM",
             "ours: that lam turns the perturbation by little", OURS)  # fmt: skip
    return [
        *of(WHERE, PRIMARY, "primary"),
        *of(WHERE, [equal], "equality", equal=True),
        *of(WHERE, EXPLORATORY, "exploratory"),
        *of(MONO, PRIMARY, "mono, exploratory"),
    ]


STUDY = Study(
    "pretrained",
    "And where a pretrained network is fine-tuned?",
    PROTOCOL,
    measure,
    claims,
    functools.partial(draw, claims),
    functools.partial(tables, claims),
    told=TOLD,
    data=(DATA,),
    headline=True,
)
