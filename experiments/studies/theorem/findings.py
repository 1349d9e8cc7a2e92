"""The claims that the study of Theorem 1 tests, and its table."""

import numpy as np

from experiments.results.table import Table
from experiments.studies.kit.claims import OURS, PAPERS, Arm, Claim
from experiments.studies.kit.study import Curves
from experiments.studies.kit.values import Values

LAMS = ("0", "0.1", "1", "10")  # 0 is SAM, 0.1 the paper's
SAM, DISAM = "SAM", "DISAM, lam 0.1"
TITLES = {
    "quadratics": "quadratics",
    "small": "digits network, small steps",
    "large": "digits network, large steps",
}
NEAR = "quadratics, from rho / 2 off the minimum"
WITHIN, FARTHER = "a minimum within rho", "no minimum within rho"
SOURCE = "DISAM, Theorem 1"
PROOF = "DISAM, proof of Theorem 1"
ANGLE = "the ascent direction turns by phi_t <= eta_t L in a step"
SHOWN = {
    "mean_turn": ".3g",
    "faster_than_rate": "+.2f",
    "gradient_and_change": "+.2f",
    "weights_fall": "+.2f",
}
OF_LOWER_BOUND = "with a lower bound of L, so that only a ratio above 1 decides"
REFUTED = "refuted by the proof above for any constant rho"


def method_of(lam: str) -> str:
    """E.g. `DISAM, lam 0.1` of `0.1`."""
    return SAM if lam == "0" else f"DISAM, lam {lam}"


def bound_of(name: str) -> str:
    """The measure of Eq. 17: L is known on the quadratics and bounded from below else."""
    return "bound_over_angle" if name == "quadratics" else "least_bound_over_angle"


def claims(values: Values) -> list[Claim]:
    """Those of each problem, one family each."""
    return [
        claim
        for name in TITLES
        for claim in (
            *_of_angles(name),
            _of_rate(name),
            *(_of_the_minimum() if name == "quadratics" else ()),
            *_of_the_proof(name),
        )
    ]


def _of_angles(name: str) -> list[Claim]:
    where, sam, disam = TITLES[name], Arm(TITLES[name], SAM), Arm(TITLES[name], DISAM)
    # (claim, source, arm)
    eq_17 = (
        (f"With SAM {ANGLE}", f"{SOURCE}, Eq. 17", sam),
        (f"With DISAM (lam = 0.1) {ANGLE}", f"{SOURCE}: Gamma <= L for DISAM", disam),
    )
    note = "" if name == "quadratics" else OF_LOWER_BOUND
    return [
        *(
            Claim(text, source, PAPERS, where, bound_of(name), arm, None, note=note)
            for text, source, arm in eq_17
        ),
        Claim(
            "The mean of phi_t / eta_t is smaller with DISAM (lam = 0.1) than with SAM",
            f"ours; {SOURCE} says no more than Gamma <= L",
            OURS,
            where,
            "mean_turn",
            sam,
            disam,
        ),
    ]


def _of_rate(name: str) -> Claim:
    where = TITLES[name]
    return Claim(
        "SAM's mean of ‖grad L(w_t + eps_t)‖^2 over t <= T falls at least as fast as "
        "(1 + log T) / sqrt(T) in the last decade",
        SOURCE,
        PAPERS,
        where,
        "faster_than_rate",
        Arm(where, SAM),
        None,
        note=REFUTED if name == "quadratics" else "",
    )


def _of_the_minimum() -> list[Claim]:
    where = TITLES["quadratics"]
    return [
        Claim(
            "The inequality of Theorem 1 holds for SAM with Gamma = L",
            SOURCE,
            PAPERS,
            NEAR,
            "right_over_left",
            Arm(NEAR, SAM),
            None,
            family=where,
            note=REFUTED,
        ),
        Claim(
            "w + eps comes to rest where L - lam Var has no minimum within rho of L's, and "
            "not where it has one (as for SAM: L's own)",
            "ours",
            OURS,
            where,
            "runs_at_rest",
            Arm(where, FARTHER),
            Arm(where, WITHIN),
        ),
    ]


def _of_the_proof(name: str) -> list[Claim]:
    where = TITLES[name]
    sam, disam = Arm(where, SAM), Arm(where, DISAM)
    return [
        Claim(
            "At a step of DISAM (lam = 0.1) domains of larger loss have larger gradients",
            PROOF,
            PAPERS,
            where,
            "loss_and_gradient",
            disam,
            None,
        ),
        Claim(
            "The inner product of grad L(w_t + eps_t) and eps_{t+1} - eps_t is 0 on "
            "average, with SAM",
            PROOF,
            PAPERS,
            where,
            "gradient_and_change",
            sam,
            None,
            equal=True,
        ),
        Claim(
            "DISAM's weights beta move away from large gradients, sum_i (beta_{t+1,i} - "
            "beta_{t,i}) grad L_i · g < 0, at most steps, lam = 0.1",
            PROOF,
            PAPERS,
            where,
            "weights_fall",
            disam,
            None,
        ),
    ]


def tables(values: Values, curves: Curves) -> list[Table]:
    """Every method on every problem."""
    rows = [
        [
            title,
            method_of(lam),
            _range(1 / values.per_seed(title, method_of(lam), bound_of(name)), ".3g"),
            *(_cell(values, title, method_of(lam), *shown) for shown in SHOWN.items()),
        ]
        for name, title in TITLES.items()
        for lam in LAMS
    ]
    columns = (
        "problem", "method", "largest phi_t / (eta_t L)", "its mean",
        "exponent of the rate less the curve's", "cosine of grad L(w + eps) and the change "
        "of eps", "steps at which the weights of large gradients fall, less those at which "
        "they rise",
    )  # fmt: skip
    return [Table("Means over seeds, and from the least to the largest", columns, rows)]


def _cell(values: Values, condition: str, method: str, measure: str, form: str) -> str:
    if (condition, method, measure) not in values:
        return ""
    return _range(values.per_seed(condition, method, measure), form)


def _range(seeds: np.ndarray, form: str) -> str:
    """E.g. `0.3 (0.1 to 0.4)`."""
    return f"{seeds.mean():{form}} ({seeds.min():{form}} to {seeds.max():{form}})"
