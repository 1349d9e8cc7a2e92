"""DISAM's perturbation on two domains in the plane, where it can be seen."""

import numpy as np

from experiments.results.statistics import Estimate, estimate, paired, verdict
from experiments.results.table import Table
from experiments.studies.kit.runs import Setting
from experiments.studies.kit.study import Finding, Numbers, Study
from experiments.studies.toy.figures import ARROWS, FAMILIES, SHOWN, draw, toys_in_words
from experiments.studies.toy.problem import (
    CLIMBED,
    DISAMS,
    METHODS,
    RHO,
    STEP_SIZE,
    STEPS,
    Paths,
    Toys,
    directions,
    dominance,
    drawn_toy,
    follow,
    name_of,
    random_starts,
    random_toys,
)

STARTS_PER_SEED = 4
DRAWN_EVERY = 3  # steps of a path; odd, or jumps to and fro would not show
MARGIN = 0.01  # the smallest relative difference that would matter


def measure(setting: Setting) -> Numbers:
    """The paths of all methods on the drawn toy and on random ones."""
    return measure_all(setting.seeds)


def measure_all(seeds: int, *, steps: int = STEPS) -> Numbers:
    """As `measure`, with this many steps.

    Args:
      seeds: each gives STARTS_PER_SEED starts on the drawn toy and as many random toys.
      steps: of a path.

    Returns:
      `paths` and `arrows`, which are drawn, and per family of toys and method, one value
      per start each: `gap`, the mean over the path of |L_1 - L_2|; `gap_ascended`, the same
      at w + eps; `last_gap` and `last_loss`, at the end that and the mean of both losses;
      `distance` from SAM's path at the same step, a mean over the steps; `length` of the
      path; and, for the methods that climb, `dominance` on SAM's path.
    """
    rng, count = np.random.default_rng(0), STARTS_PER_SEED * seeds
    drawn = drawn_toy(np.concatenate([SHOWN, random_starts(rng, count)]))
    toys = Toys(*map(np.concatenate, zip(drawn, random_toys(rng, count), strict=True)))
    paths = {name: follow(method, toys, steps) for name, method in METHODS.items()}
    climbs = directions(toys, paths["sam"].points)
    follows = {n: dominance(climbs["gradients"], climbs[n]) for n in CLIMBED}
    shown, *families = np.split(
        np.arange(len(toys.starts)), [len(SHOWN), len(drawn.starts)]
    )
    arrows = directions(drawn_toy(ARROWS[:1]), ARROWS[None])
    numbers: Numbers = {
        "starts": count,
        "steps": steps,
        "paths": {n: short(path.points[shown, ::DRAWN_EVERY]) for n, path in paths.items()},
        "arrows": {name: short(values[0]) for name, values in arrows.items()},
    }
    for family, members in zip(FAMILIES, families, strict=True):
        parts = {n: Paths(*(x[members] for x in path)) for n, path in paths.items()}
        numbers[family] = {n: describe(part, parts["sam"]) for n, part in parts.items()}
        for name in CLIMBED:
            numbers[family][name]["dominance"] = short(follows[name][members])
    return numbers


def describe(paths: Paths, of_sam: Paths) -> dict[str, list[float]]:
    """What `measure_all` says of one method."""
    gap = np.abs(np.diff(paths.losses)[..., 0])
    ascended = np.abs(np.diff(paths.perturbed_losses)[..., 0])
    apart = np.linalg.norm(paths.points - of_sam.points, axis=-1)
    found = {
        "gap": gap.mean(1),
        "gap_ascended": ascended.mean(1),
        "last_gap": gap[:, -1],
        "last_loss": paths.losses[:, -1].mean(-1),
        "distance": apart.mean(1),
        "length": np.linalg.norm(np.diff(paths.points, axis=1), axis=-1).sum(1),
    }
    return {key: short(values) for key, values in found.items()}


def short(values: np.ndarray) -> list:
    """As lists of numbers with four decimals."""
    return np.round(values.astype(float), 4).tolist()


def find(numbers: Numbers) -> list[Finding]:
    """The claims and their answers."""
    return [
        *(_find_dominance(numbers, family) for family in FAMILIES),
        *(_find_gap(numbers, family) for family in FAMILIES),
        *(_find_gap_ascended(numbers, family) for family in FAMILIES),
        *(_find_distance(numbers, family) for family in FAMILIES),
    ]


def _closer(found: Numbers, key: str, name: str) -> Estimate:
    """(SAM - DISAM) / SAM, start by start."""
    sam, disam = np.array(found["sam"][key]), np.array(found[name][key])
    return paired(sam / sam, disam / sam)


def _closer_by(found: Numbers, key: str) -> str:
    return "; ".join(
        f"{_closer(found, key, name).text(100, 1, '%')} for {name_of(name)}"
        for name in DISAMS
    )


def _find_dominance(numbers: Numbers, family: str) -> Finding:
    found = numbers[family]
    sam, disam = (np.array(found[n]["dominance"]) for n in ("sam", "disam 0.1"))
    means = ", ".join(f"{name_of(n)} {np.mean(found[n]['dominance']):.2f}" for n in CLIMBED)
    return Finding(
        "DISAM's perturbation (lam = 0.1) follows the domain of the larger gradient less "
        "than SAM's does",
        "DISAM, section 3.2 and Fig. 2",
        toys_in_words(numbers, family),
        verdict(paired(sam, disam), MARGIN),
        "cosine with the larger gradient less that with the smaller, along SAM's path: "
        f"{means}; SAM less DISAM, lam = 0.1: {paired(sam, disam).text()}",
    )


def _find_gap(numbers: Numbers, family: str) -> Finding:
    found = numbers[family]
    return Finding(
        "DISAM (lam = 0.1) keeps the losses of the two domains closer together along its "
        "path than SAM",
        "DISAM, section 3.2 and Fig. 2",
        toys_in_words(numbers, family),
        verdict(_closer(found, "gap", "disam 0.1"), MARGIN),
        f"their difference is below SAM's by {_closer_by(found, 'gap')}",
    )


def _find_gap_ascended(numbers: Numbers, family: str) -> Finding:
    found = numbers[family]
    return Finding(
        "DISAM (lam = 0.1) keeps the losses of the two domains at w + eps closer together "
        "than SAM",
        "DISAM, Eq. 7, where the variance is subtracted",
        toys_in_words(numbers, family),
        verdict(_closer(found, "gap_ascended", "disam 0.1"), MARGIN),
        "their difference at w + eps is below SAM's by "
        f"{_closer_by(found, 'gap_ascended')}",
    )


def _find_distance(numbers: Numbers, family: str) -> Finding:
    found = numbers[family]
    length = np.mean(found["erm"]["length"])
    far = {name: np.array(found[name]["distance"]) / length for name in DISAMS}
    means = "; ".join(
        f"{name_of(name)}: {estimate(values).interval('.1f', 100, '%')}"
        for name, values in far.items()
    )
    return Finding(
        "With the paper's lam = 0.1 DISAM takes visibly another path than SAM: they are "
        "more than 1 % of a path's length apart",
        "DISAM, Fig. 2",
        toys_in_words(numbers, family),
        verdict(estimate(far["disam 0.1"] - 0.01), 0.0),
        f"distance at the same step, of the mean length of ERM's paths: {means}",
    )


def tables(numbers: Numbers) -> list[Table]:
    """Means over the starts, of every method."""
    columns = {
        "gap": "difference of the losses, mean over the path",
        "gap_ascended": "at w + eps",
        "last_gap": "at the end",
        "last_loss": "mean of both losses at the end",
        "distance": "distance from SAM's path",
    }
    return [
        Table(
            f"Means over starts on {toys_in_words(numbers, family)}",
            ("method", *columns.values()),
            [
                [name_of(name), *(f"{np.mean(found[key]):.3f}" for key in columns)]
                for name, found in numbers[family].items()
            ],
        )
        for family in FAMILIES
    ]


STUDY = Study(
    name="toy",
    title="What does DISAM's perturbation do on two domains in the plane?",
    protocol=(
        "Each domain's loss is log(1 + 1/2 (w - c)^T A (w - c)), a well in the plane, not "
        "convex. The drawn toy has a narrow well, c = (-1.2, -0.6) and A = diag(8, 2), and "
        "a wide one, c = (1.2, 0.6) and A = diag(1, 3). The random toys have both c "
        "uniform in [-1.5, 1.5]^2 and A with random axes and eigenvalues log-uniform in "
        "[0.3, 10]. Starts are uniform in [-3, 3] x [-2.5, 2.5]. All methods take "
        f"{STEPS} steps of size {STEP_SIZE:g} with rho = {RHO:g}. DISAM's Fig. 2 shows "
        "a toy of two domains and does not give it; functions, rho and step size here are "
        "our own choice, lam = 0.1 is the paper's. Intervals are over starts, four a seed."
    ),
    measure=measure,
    draw=draw,
    find=find,
    tables=tables,
)
