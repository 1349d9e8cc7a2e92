"""What the numbers of the study of Theorem 1 answer."""

import numpy as np

from experiments.results.statistics import (
    Estimate,
    equal,
    estimate,
    holm,
    paired,
    verdict,
)
from experiments.results.table import Table
from experiments.studies.kit.study import Finding, Numbers

DISAM_LAMS = ("0.1", "1", "10")
TITLES = {
    "quadratics": "quadratics",
    "small": "digits network, small steps",
    "large": "digits network, large steps",
}
PATHS = {"own": "each on its own run", "shared": "both along SAM's run"}
MARGIN = 0.05  # the smallest relative difference that would matter
AT_REST = 0.01  # of rho^2 L^2: below it the ascended point counts as at rest
SOURCE = "DISAM, Theorem 1"
PROOF = "DISAM, proof of Theorem 1"
OWN = "our own"


def find(numbers: Numbers) -> list[Finding]:
    """The claims and their answers."""
    problems = [(numbers[name], name) for name in TITLES]
    return [
        *(_find_angle(*problem) for problem in problems),
        *(_find_gamma(*problem, "own") for problem in problems),
        *(_find_gamma(*problem, "shared") for problem in problems),
        *(_find_rate_of_sam(*problem) for problem in problems),
        *(_find_rate_of_disam(*problem) for problem in problems),
        _find_bound(numbers["bound"]),
        _find_rest(numbers["settling"]),
        *(_find_level(*problem) for problem in problems),
        *(_find_correlation(*problem) for problem in problems),
        *(_find_cosine(*problem) for problem in problems),
        *(_find_turn(*problem) for problem in problems),
        *(_find_spread(*problem) for problem in problems),
    ]


def problem_in_words(found: Numbers, name: str) -> str:
    """The data of a finding."""
    return f"{TITLES[name]}, rho = {found['rho']:g}, {found['steps']} steps"


def relative_drop(found: dict[str, list[float]], lam: str) -> Estimate:
    """(SAM - DISAM) / SAM, over seeds."""
    sam, disam = np.array(found["0"]), np.array(found[lam])
    return paired(sam / sam, disam / sam)


def by_lam(found: dict[str, list[float]], digits: int = 2, scale: float = 1.0) -> str:
    """Every DISAM's mean over seeds with its interval."""
    return "; ".join(
        f"{estimate(found[lam]).interval(f'.{digits}f', scale)} for lam = {lam}"
        for lam in DISAM_LAMS
    )


def drops_by_lam(found: dict[str, list[float]]) -> str:
    """By how many per cent each DISAM is below SAM."""
    return "; ".join(
        f"{relative_drop(found, lam).text(100, 1, '%')} for lam = {lam}"
        for lam in DISAM_LAMS
    )


def _find_angle(found: Numbers, name: str) -> Finding:
    largest = found["gamma"]["own"]["max"]["0"]
    above = 100 * np.mean(found["steps_above"])
    return Finding(
        "With SAM the ascent direction turns by phi_t <= eta_t L in a step",
        "DISAM, Theorem 1, Eq. 16 and 17",
        problem_in_words(found, name),
        verdict(estimate(1 - np.array(largest)), MARGIN),
        f"largest phi_t / (eta_t L) {estimate(largest).interval()}; above 1 at "
        f"{above:.1f} % of the steps",
    )


def _find_gamma(found: Numbers, name: str, path: str) -> Finding:
    means = found["gamma"][path]["mean"]
    return Finding(
        "The mean of phi_t / eta_t is smaller with DISAM (lam = 0.1) than with SAM, "
        + PATHS[path],
        "DISAM, Theorem 1: Gamma <= L for DISAM",
        problem_in_words(found, name),
        verdict(relative_drop(means, "0.1"), MARGIN),
        f"below SAM's by {drops_by_lam(means)}",
    )


def _find_rate_of_sam(found: Numbers, name: str) -> Finding:
    slopes, rate = found["slopes"]["0"], found["slope_of_theorem"]
    return Finding(
        "SAM's mean of ‖grad L(w_t + eps_t)‖^2 over t <= T falls at least as fast as "
        "(1 + log T) / sqrt(T)",
        SOURCE,
        problem_in_words(found, name),
        verdict(estimate(rate - np.array(slopes)), MARGIN),
        f"exponent of T in the last decade {estimate(slopes).interval()}; that of the "
        f"rate is {rate:.2f}",
    )


def _find_rate_of_disam(found: Numbers, name: str) -> Finding:
    slopes, rate = found["slopes"], found["slope_of_theorem"]
    return Finding(
        "DISAM's mean of ‖grad L(w_t + eps_t)‖^2 over t <= T falls at least as fast as "
        "(1 + log T) / sqrt(T), lam = 0.1",
        SOURCE,
        problem_in_words(found, name),
        verdict(estimate(rate - np.array(slopes["0.1"])), MARGIN),
        f"exponent of T in the last decade {by_lam(slopes)}; that of the rate is "
        f"{rate:.2f}",
    )


def _find_bound(found: Numbers) -> Finding:
    sam, disam = (np.array(found["ratio"][lam]) for lam in ("0", "10"))
    return Finding(
        "The inequality of Theorem 1 holds for SAM with Gamma = L",
        SOURCE,
        f"quadratics from rho / 2 off the minimum, rho = {found['rho']:g}, "
        f"{found['shown'][-1]} steps",
        verdict(estimate(1 - sam), MARGIN),
        f"left side / right side {estimate(sam).interval()}; with DISAM, lam = 10, "
        f"{estimate(disam).interval('.4f')}",
    )


def _find_rest(found: Numbers) -> Finding:
    at_rest = np.array([cell["level"] for cell in found["cells"]]) < AT_REST
    within = np.array([cell["within"] for cell in found["cells"]])
    agree = (at_rest != within).mean(0)
    return Finding(
        "w + eps comes to rest at the minimum of L if, and only if, L - lam Var has no "
        "minimum closer than rho to it (for SAM it always has: L's own)",
        OWN,
        f"quadratics, {len(within)} pairs of rho and lam for each seed",
        verdict(estimate(agree - (1 - MARGIN)), 0.0),
        f"so in {estimate(agree).interval('.1f', 100)} % of the runs, of which "
        f"{100 * at_rest.mean():.0f} % come to rest: ‖grad L(w + eps)‖^2 below "
        f"{AT_REST:g} (rho L)^2",
    )


def _find_level(found: Numbers, name: str) -> Finding:
    rhos, exponents = list(found["levels"]), estimate(found["exponents_of_rho"])
    return Finding(
        "The larger rho is, the larger SAM's ‖grad L(w_t + eps_t)‖^2 at the end of the run",
        "DISAM, Theorem 1: the term rho^2 L Gamma^2",
        f"{TITLES[name]}, rho = {rhos[0]} to {rhos[-1]}, {found['steps']} steps",
        verdict(exponents, 0.1),
        f"it grows as rho to the power {exponents.interval()}",
    )


def _find_correlation(found: Numbers, name: str) -> Finding:
    over_time = estimate(found["correlation_over_time"])
    across = estimate(found["correlation_of_domains"])
    return Finding(
        "At a step, the domains of larger loss have larger gradients (DISAM, lam = 0.1)",
        PROOF,
        problem_in_words(found, name),
        verdict(across, 0.1),
        f"correlation of L_i and ‖grad L_i‖ over the domains of a step {across.text()}; "
        f"over the steps of a domain {over_time.text()}",
    )


def _find_cosine(found: Numbers, name: str) -> Finding:
    cosines = estimate(found["cosine"]["0"])
    return Finding(
        "The inner product of grad L(w_t + eps_t) and eps_{t+1} - eps_t is 0 on average, "
        "with SAM",
        PROOF,
        problem_in_words(found, name),
        equal(cosines, MARGIN),
        f"mean cosine {cosines.text()}; with DISAM {by_lam(found['cosine'])}",
    )


def _find_turn(found: Numbers, name: str) -> Finding:
    shares = found["turns_up"]
    return Finding(
        "DISAM's weights beta move away from large gradients, sum_i (beta_{t+1,i} - "
        "beta_{t,i}) grad L_i · g < 0, at most steps, lam = 0.1",
        PROOF,
        problem_in_words(found, name),
        verdict(estimate(0.5 - np.array(shares["0.1"])), MARGIN),
        f"per cent of the steps at which they move toward them: {by_lam(shares, 1, 100)}",
    )


def _find_spread(found: Numbers, name: str) -> Finding:
    return Finding(
        "At the end of the run the losses of the domains lie closer together with DISAM "
        "(lam = 0.1) than with SAM",
        "DISAM, section 3.2",
        problem_in_words(found, name),
        verdict(relative_drop(found["spreads"], "0.1"), MARGIN),
        f"standard deviation below SAM's by {drops_by_lam(found['spreads'])}",
    )


def tables(numbers: Numbers) -> list[Table]:
    """The angles of every method on every problem and path, and where the runs end."""
    return [_table_of_angles(numbers), _table_of_ends(numbers)]


def _table_of_angles(numbers: Numbers) -> Table:
    keys = [(name, path, lam) for name in TITLES for path in PATHS for lam in DISAM_LAMS]
    drops = [relative_drop(numbers[n]["gamma"][p]["mean"], lam) for n, p, lam in keys]
    adjusted = holm([drop.p for drop in drops])
    rows = []
    for (name, path, lam), drop, p in zip(keys, drops, adjusted, strict=True):
        found = numbers[name]["gamma"][path]
        sizes = [f"{np.mean(found[of][x]):.3g}" for of in found for x in ("0", lam)]
        less = drop.interval("+.1f", 100)
        rows.append([TITLES[name], PATHS[path], lam, *sizes, less, f"{p:.2g}"])
    return Table(
        "phi_t / (eta_t L), mean and largest over the steps of a run, means over seeds, "
        "and by how much DISAM's mean is below SAM's, with Holm's p over all rows",
        ("problem", "path", "lam", "SAM, mean", "DISAM, mean", "SAM, largest",
         "DISAM, largest", "below by (%)", "p"),
        rows,
    )  # fmt: skip


def _table_of_ends(numbers: Numbers) -> Table:
    rows = []
    for name, title in TITLES.items():
        found = numbers[name]
        levels = found["levels"][f"{found['rho']:g}"]
        for lam in ("0", *DISAM_LAMS):
            row = [title, "SAM" if lam == "0" else f"DISAM, lam = {lam}"]
            row += [f"{np.mean(found[key][lam]):.4f}" for key in ("losses", "spreads")]
            row += [f"{np.mean(levels[lam]):.2g}"]
            row += [f"{np.mean(found[key][lam]):.2f}" for key in ("slopes", "cosine")]
            rows.append(row)
    return Table(
        "The last tenth of the runs, means over seeds. Exponent: of T in the mean of "
        "‖grad L(w + eps)‖^2 over t <= T, last decade. Cosine: of grad L(w + eps) and the "
        "change of eps, mean over the run",
        ("problem", "method", "loss (nats)", "std of the domain losses (nats)",
         "squared gradient at w + eps", "exponent", "cosine"),
        rows,
    )  # fmt: skip
