"""What the numbers of the synthetic study answer."""

from collections.abc import Sequence

import numpy as np

from experiments.results.statistics import (
    CANNOT_TELL,
    DOES_NOT,
    HOLDS,
    Estimate,
    equal,
    holm,
    paired,
    verdict,
)
from experiments.results.table import Table
from experiments.studies.kit.study import Finding, Numbers
from experiments.studies.synthetic.problem import name_of

MARGIN = 0.25  # points of error: the smallest difference that would matter
SPREAD_MARGIN = 0.005  # nats
SAME = 1e-7
LEVEL = 0.05
STABLE = ("0.1", "0.7")  # ends of the range of lam in which the paper finds no change
PLACED = ("0.3", "2")  # lam of the variance in either place
NAMES = {
    "erm": "ERM",
    "vrex": "V-REx",
    "sam": "SAM",
    "disam 0.1": "DISAM, lam = 0.1",
    "disam 2": "DISAM, lam = 2",
}
DIALS = {
    "gap": "domain gap {}",
    "contrast": "contrast 1 to 1/{}",
    "extra_noise": "{} more wrong labels in one domain",
    "noise": "{} wrong labels",
    "imbalance": "domain sizes 1 to {}",
    "domains": "{} source domains",
}
PERCENT = ("extra_noise", "noise")
OWN = "our own"


def find(numbers: Numbers) -> list[Finding]:
    """The claims and their answers."""
    return [
        _find_one_domain(numbers),
        _find_sam(numbers),
        _find_disam(numbers, "default", "0.1", "", "DISAM, Table 1"),
        *(
            _find_disam(numbers, _last(numbers, dial), "2", f" where {reason}", source)
            for dial, reason, source in (
                ("contrast", "some domains are learned later", "DISAM, section 1"),
                ("gap", "the domains lie far apart", "DISAM, section 1"),
                ("extra_noise", "one domain's loss cannot become small", OWN),
                ("imbalance", "the domains differ in size", OWN),
                ("domains", "there are many domains", OWN),
            )
        ),
        _find_growth(numbers),
        _find_nowhere_worse(numbers),
        *(_find_spread(numbers, name) for name in numbers["closer"]),
        *(_find_place(numbers, name, lam) for lam in PLACED for name in numbers["closer"]),
        _find_v_rex(numbers),
        *(_find_stable(numbers, name) for name in numbers["closer"]),
    ]


def dials_in_words(name: str) -> str:
    """A setting of the dials in words."""
    dial, _, value = name.partition(" ")
    if dial == "default":
        return "the default dials"
    shown = f"{100 * float(value):g}%" if dial in PERCENT else value
    return DIALS[dial].format(shown)


def gain(numbers: Numbers, name: str, method: str, against: str) -> Estimate:
    """By how many points a method errs less than another, both tuned, seed by seed."""
    found = numbers["settings"][name]["tuned"]
    return paired(found[against]["excess"], found[method]["excess"])


def gain_of_lam(numbers: Numbers, name: str, method: str) -> Estimate:
    """The same of DISAM against SAM, both with what SAM chose."""
    found = numbers["settings"][name]["as_sam"]
    return paired(found["sam"], found[method])


def _last(numbers: Numbers, dial: str) -> str:
    return name_of(dial, numbers["sweeps"][dial][-1])


def _points(found: Estimate) -> str:
    return found.text(unit="points")


def _find_one_domain(numbers: Numbers) -> Finding:
    found = numbers["one_domain"]
    listed = ", ".join(f"{found[lam]:.1g} (lam = {lam})" for lam in found)
    return Finding(
        "With one source domain DISAM is SAM",
        "DISAM, Eq. 6: the variance is 0",
        "1 source domain",
        HOLDS if max(found.values()) <= SAME else DOES_NOT,
        f"the largest difference of a weight after {numbers['gradients'] // 2} steps, over "
        f"{numbers['seeds']} seeds: {listed}",
    )


def _find_sam(numbers: Numbers) -> Finding:
    found = gain(numbers, "default", "sam", "erm")
    return Finding(
        "SAM errs less than ERM at equal cost",
        "Foret et al.; DISAM, Table 1",
        dials_in_words("default"),
        verdict(found, MARGIN),
        f"fewer errors on a new domain: {_points(found)}",
    )


def _find_disam(numbers: Numbers, name: str, lam: str, reason: str, source: str) -> Finding:
    compared = (
        gain(numbers, name, f"disam {lam}", "sam"),
        gain_of_lam(numbers, name, f"disam {lam}"),
    )
    # It is told where both comparisons say the same.
    answers = {verdict(found, MARGIN) for found in compared}
    return Finding(
        f"DISAM errs less than SAM{reason}, lam = {lam}",
        source,
        dials_in_words(name),
        answers.pop() if len(answers) == 1 else CANNOT_TELL,
        f"fewer errors on a new domain, both tuned: {_points(compared[0])}; with SAM's "
        f"learning rate and rho: {_points(compared[1])}",
    )


def _find_growth(numbers: Numbers) -> Finding:
    values = numbers["sweeps"]["gap"]
    gains = []
    for value in (values[-1], values[0]):
        found = numbers["settings"][name_of("gap", value)]["tuned"]
        pairs = zip(found["sam"]["excess"], found["disam 2"]["excess"], strict=True)
        gains.append([sam - disam for sam, disam in pairs])
    found = paired(*gains)
    return Finding(
        "DISAM's gain over SAM grows with the gap between the domains, lam = 2",
        OWN,
        f"domain gap {values[0]:g} to {values[-1]:g}",
        verdict(found, MARGIN),
        f"the gain grows by {_points(found)}",
    )


def _find_nowhere_worse(numbers: Numbers) -> Finding:
    names = list(numbers["settings"])
    compared = {
        "tuned": [gain(numbers, name, "disam 2", "sam") for name in names],
        "with SAM's learning rate and rho": [
            gain_of_lam(numbers, name, "disam 2") for name in names
        ],
    }
    because, worse = [], []
    for said, gains in compared.items():
        better, lost = (_significant(names, gains, sign) for sign in (1, -1))
        because.append(f"{said}, better in {_listed(better)} and worse in {_listed(lost)}")
        worse += lost
    return Finding(
        "DISAM is nowhere worse than SAM, lam = 2",
        OWN,
        f"all {len(names)} settings of the dials",
        DOES_NOT if worse else CANNOT_TELL,
        f"Holm's test at {LEVEL:g}: " + "; ".join(because),
    )


def _significant(names: Sequence[str], gains: Sequence[Estimate], sign: int) -> list[str]:
    adjusted = holm([found.p for found in gains])
    return [
        f"{dials_in_words(name)}: {found.mean:+.2f}"
        for name, found, p in zip(names, gains, adjusted, strict=True)
        if p < LEVEL and sign * found.mean > 0
    ]


def _listed(found: Sequence[str]) -> str:
    return f"{len(found)} ({', '.join(found)})" if found else "none"


def _find_spread(numbers: Numbers, name: str) -> Finding:
    found = numbers["settings"][name]["spread"]
    narrower = paired(found["sam"], found["disam 2"])
    return Finding(
        "DISAM keeps the domains' training losses closer together than SAM, lam = 2",
        "DISAM, Fig. 1b and section 3",
        dials_in_words(name),
        verdict(narrower, SPREAD_MARGIN),
        "SAM's standard deviation less DISAM's, mean over the run: "
        f"{narrower.text(digits=4, unit='nats')}; SAM's learning rate and rho",
    )


def _find_place(numbers: Numbers, name: str, lam: str) -> Finding:
    weights = numbers["closer"][name]["weights"]
    excess = {cell: by_lam[lam] for cell, by_lam in weights.items()}
    found = paired(excess["L/L-V"], excess["L-V/L"])
    sam = numbers["settings"][name]["as_sam"]["sam"]
    gains = [_points(paired(sam, excess[cell])) for cell in ("L-V/L", "L/L-V")]
    return Finding(
        f"L - lam V is better climbed than descended, lam = {lam}",
        "DISAM, Eq. 7",
        dials_in_words(name),
        verdict(found, MARGIN),
        f"fewer errors: {_points(found)}; than SAM, if climbed: {gains[0]}, if descended: "
        f"{gains[1]}; SAM's learning rate and rho",
    )


def _find_v_rex(numbers: Numbers) -> Finding:
    name = _last(numbers, "gap")
    found = gain(numbers, name, "vrex", "erm")
    beta = numbers["settings"][name]["tuned"]["vrex"]["median"]["descended"]
    return Finding(
        "V-REx errs less than ERM where the domains lie far apart",
        "Krueger et al.",
        dials_in_words(name),
        verdict(found, MARGIN),
        f"fewer errors on a new domain: {_points(found)}; the sources chose beta = "
        f"{beta:g}",
    )


def _find_stable(numbers: Numbers, name: str) -> Finding:
    by_lam = numbers["closer"][name]["weights"]["L-V/L"]
    found = paired(by_lam[STABLE[0]], by_lam[STABLE[1]])
    return Finding(
        f"DISAM's error does not change between lam = {STABLE[0]} and {STABLE[1]}",
        "DISAM, Fig. 5c and d",
        dials_in_words(name),
        equal(found, MARGIN),
        f"lam = {STABLE[1]} makes fewer errors by {_points(found)}",
    )


def tables(numbers: Numbers) -> list[Table]:
    """Errors and what was chosen at every setting, and the ablation."""
    errors = [
        [
            dials_in_words(name),
            *(f"{np.mean(found['tuned'][method]['excess']):.2f}" for method in NAMES),
            gain(numbers, name, "disam 2", "sam").text(),
            gain_of_lam(numbers, name, "disam 2").text(),
        ]
        for name, found in numbers["settings"].items()
    ]
    chosen = [
        [
            dials_in_words(name),
            *(_chosen(found["tuned"][method]["median"]) for method in NAMES),
        ]
        for name, found in numbers["settings"].items()
    ]
    closer = numbers["closer"]
    cells = next(iter(closer.values()))["ablation"]
    ablation = [
        [
            *cell.split("/"),
            *(f"{np.mean(found['ablation'][cell]):.2f}" for found in closer.values()),
        ]
        for cell in cells
    ]
    return [
        Table(
            "Error on a new domain above the best, in points, and at the end SAM's less "
            "DISAM's, lam = 2",
            ("dials", *NAMES.values(), "both tuned", "both with what SAM chose"),
            errors,
        ),
        Table(
            "Excess error in points with the variance V, of weight 2, in the ascent and in "
            "the descent",
            ("climbed", "descended", *map(dials_in_words, closer)),
            ablation,
        ),
        Table(
            "Learning rate, then rho or beta, medians over the seeds",
            ("dials", *NAMES.values()),
            chosen,
        ),
    ]  # fmt: skip


def _chosen(median: dict[str, float]) -> str:
    second = median["rho"] or median["descended"]
    rate = f"{median['learning_rate']:.3g}"
    return f"{rate}, {second:g}" if second else rate
