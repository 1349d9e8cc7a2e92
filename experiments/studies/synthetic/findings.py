"""The claims that the synthetic study tests, and its tables."""

import numpy as np

from experiments.results.statistics import paired
from experiments.results.table import Table
from experiments.studies.kit.claims import OURS, PAPERS, Arm, Claim
from experiments.studies.kit.study import Curves
from experiments.studies.kit.values import Values

NAMES = {
    "erm": "ERM",
    "vrex": "V-REx",
    "sam": "SAM",
    "disam 0.1": "DISAM, lam 0.1",
    "disam 2": "DISAM, lam 2",
}
ERM, V_REX, SAM, DISAM, LARGE_DISAM = NAMES.values()
AS_SAM = "with SAM's learning rate and rho"
LARGE_AS_SAM = f"{LARGE_DISAM}, {AS_SAM}"
DIALS = {
    "gap": "domain gap {}",
    "contrast": "contrast 1 to 1/{}",
    "extra_noise": "{} more wrong labels in one domain",
    "noise": "{} wrong labels",
    "imbalance": "domain sizes 1 to {}",
    "domains": "{} source domains",
}
PERCENT = ("extra_noise", "noise")
CLOSER = ("default", "gap 3", "contrast 8", "extra_noise 0.35")
EVERYWHERE = "mean over all settings of the dials"
CLOSELY = "mean over four settings of the dials"
FAMILY = "synthetic"  # all claims of the study, adjusted together
MEASURE = "excess_error"
# setting -> (what is hard about it, source, whose)
HARD = {
    "contrast 8": (
        "some domains are learned later", "analogue of DISAM, section 1", PAPERS
    ),
    "gap 3": ("the domains lie far apart", "analogue of DISAM, section 1", PAPERS),
    "extra_noise 0.35": ("one domain's loss cannot become small", "ours", OURS),
    "imbalance 64": ("the domains differ in size", "ours", OURS),
    "domains 20": ("there are many domains", "ours", OURS),
}  # fmt: skip


def dials_in_words(name: str) -> str:
    """A setting of the dials in words."""
    dial, _, value = name.partition(" ")
    if dial == "default":
        return "the default dials"
    shown = f"{100 * float(value):g} %" if dial in PERCENT else value
    return DIALS[dial].format(shown)


def cell_of(climbed: str, descended: str, lam: float) -> str:
    """E.g. `climb L - 2 V, descend L` of `L-V` and `L`; nothing is climbed for `none`."""
    below, above = (
        what.replace("L-V", f"L - {lam:g} V").replace("L+V", f"L + {lam:g} V")
        for what in (climbed, descended)
    )
    return f"descend {above}" if climbed == "none" else f"climb {below}, descend {above}"


def swept(climbed: str, descended: str, lam: float) -> str:
    """A cell with what SAM chose."""
    return f"{cell_of(climbed, descended, lam)}, {AS_SAM}"


def claims(values: Values) -> list[Claim]:
    """All, in one family."""
    return [*_of_disam(), *_pooled(), *_of_the_place(), *_of_others()]


def _less(
    text: str,
    source: str,
    whose: str,
    where: str,
    more: str,
    less: str,
    measure: str = MEASURE,
    equal: bool = False,
) -> Claim:
    """That a method errs less than another, in one setting."""
    arms = Arm(where, more), Arm(where, less)
    return Claim(text, source, whose, where, measure, *arms, equal, FAMILY)


def _of_disam() -> list[Claim]:
    table = "analogue of DISAM, Table 1: 66.4 against 64.5"
    default = dials_in_words("default")
    found = [
        _less("DISAM errs less than SAM, lam = 0.1", table, PAPERS, default, SAM, DISAM)
    ]
    for name, (reason, source, whose) in HARD.items():
        text, where = f"DISAM errs less than SAM where {reason}, lam = 2", name
        where = dials_in_words(name)
        found += [
            _less(f"{text}, both tuned", source, whose, where, SAM, LARGE_DISAM),
            _less(f"{text}, {AS_SAM}", source, whose, where, SAM, LARGE_AS_SAM),
        ]
    return found


def _pooled() -> list[Claim]:
    errs, ours = "DISAM errs less than SAM", "ours: an estimate in place of votes"
    return [
        _less(f"{errs}, lam = 0.1, both tuned", ours, OURS, EVERYWHERE, SAM, DISAM),
        _less(f"{errs}, lam = 2, both tuned", ours, OURS, EVERYWHERE, SAM, LARGE_DISAM),
        _less(f"{errs}, lam = 2, {AS_SAM}", ours, OURS, EVERYWHERE, SAM, LARGE_AS_SAM),
        _less(
            f"DISAM keeps the domains' training losses closer together than SAM, lam = 2, "
            f"{AS_SAM}",
            "analogue of DISAM, Fig. 1b and section 3",
            PAPERS,
            EVERYWHERE,
            SAM,
            LARGE_AS_SAM,
            "training_spread",
        ),
    ]


def _of_the_place() -> list[Claim]:
    settings = [(0.3, dials_in_words(name)) for name in CLOSER]
    return [
        _less(
            f"L - lam V is better climbed than descended, lam = {lam:g}",
            "ours; DISAM, Eq. 7, climbs it",
            OURS,
            where,
            swept("L", "L-V", lam),
            swept("L-V", "L", lam),
        )
        for lam, where in (*settings, (2.0, CLOSELY))
    ]


def _of_others() -> list[Claim]:
    return [
        _less(
            "SAM errs less than ERM",
            "ours: at equal cost",
            OURS,
            dials_in_words("default"),
            ERM,
            SAM,
        ),
        _less(
            "V-REx errs less than ERM where the domains lie far apart",
            "analogue of Krueger et al.",
            PAPERS,
            dials_in_words("gap 3"),
            ERM,
            V_REX,
        ),
        _less(
            f"DISAM's error does not change between lam = 0.1 and 0.7, {AS_SAM}",
            "analogue of DISAM, Fig. 5c and d",
            PAPERS,
            CLOSELY,
            swept("L-V", "L", 0.1),
            swept("L-V", "L", 0.7),
            equal=True,
        ),
    ]


def tables(values: Values, curves: Curves) -> list[Table]:
    """Errors and what was chosen."""
    conditions = [dials_in_words(name) for name in curves["medians"]] + [EVERYWHERE]
    errors = [
        [
            condition,
            *(_mean(values, condition, method) for method in NAMES.values()),
            _fewer_than_sam(values, condition, LARGE_DISAM),
            _fewer_than_sam(values, condition, LARGE_AS_SAM),
        ]
        for condition in conditions
    ]
    chosen = [
        [
            dials_in_words(name),
            *(_chosen(curves["medians"][name][method]) for method in NAMES),
        ]
        for name in curves["closer"]
    ]
    methods = NAMES.values()
    return [
        Table(
            "Error on a new domain above the best, in points, and at the end SAM's less "
            "DISAM's, lam = 2, with 95 % intervals that are not adjusted",
            ("dials", *methods, "both tuned", AS_SAM),
            errors,
        ),
        Table(
            "Learning rate, then rho or beta, medians over the seeds",
            ("dials", *methods),
            chosen,
        ),
    ]


def _mean(values: Values, condition: str, method: str) -> str:
    return f"{100 * np.mean(values.per_seed(condition, method, MEASURE)):.2f}"


def _fewer_than_sam(values: Values, condition: str, method: str) -> str:
    sam, other = (values.per_seed(condition, m, MEASURE) for m in (SAM, method))
    return paired(sam, other).interval("+.2f", 100)


def _chosen(median: dict[str, float]) -> str:
    second = median["rho"] or median["descended"]
    rate = f"{median['learning_rate']:.3g}"
    return f"{rate}, {second:g}" if second else rate
