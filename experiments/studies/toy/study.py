"""DISAM's perturbation on two domains in the plane, where it can be seen."""

import numpy as np

from experiments.results.table import Table
from experiments.studies.kit.claims import PAPERS, Arm, Claim
from experiments.studies.kit.runs import Setting
from experiments.studies.kit.study import Curves, Measured, Study
from experiments.studies.kit.values import Value, Values
from experiments.studies.toy.figures import ARROWS, DRAWN, RANDOM, SHOWN, draw
from experiments.studies.toy.problem import (
    CLIMBED,
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
VISIBLE = 0.01  # of a path's length
SAM, DISAM = name_of("sam"), name_of("disam 0.1")


def measure(setting: Setting) -> Measured:
    """The paths of all methods on the drawn toy and on random ones."""
    return measure_all(setting.seeds)


def measure_all(seeds: int, *, steps: int = STEPS) -> Measured:
    """As `measure`, with this many steps.

    Args:
      seeds: each gives STARTS_PER_SEED starts on the drawn toy and as many random toys.
      steps: of a path.

    Returns:
      What `describe` says of either family of toys, a seed of the values being a start;
      and `paths` and `arrows`, which are drawn.
    """
    rng, count = np.random.default_rng(0), STARTS_PER_SEED * seeds
    drawn = drawn_toy(np.concatenate([SHOWN, random_starts(rng, count)]))
    toys = Toys(*map(np.concatenate, zip(drawn, random_toys(rng, count), strict=True)))
    paths = {name: follow(method, toys, steps) for name, method in METHODS.items()}
    climbs = directions(toys, paths["sam"].points)
    shown, *families = np.split(
        np.arange(len(toys.starts)), [len(SHOWN), len(drawn.starts)]
    )
    values = []
    for family, members in zip((DRAWN, RANDOM), families, strict=True):
        parts = {n: Paths(*(x[members] for x in path)) for n, path in paths.items()}
        values += describe(family, parts, {n: x[members] for n, x in climbs.items()})
    arrows = directions(drawn_toy(ARROWS[:1]), ARROWS[None])
    curves = {
        "paths": {n: short(path.points[shown, ::DRAWN_EVERY]) for n, path in paths.items()},
        "arrows": {name: short(found[0]) for name, found in arrows.items()},
    }
    return Measured(values, curves)


def describe(
    family: str, paths: dict[str, Paths], climbs: dict[str, np.ndarray]
) -> list[Value]:
    """The values of a family of toys, one per start.

    Args:
      family: of the toys.
      paths: of each method, over all of them.
      climbs: the `directions` along SAM's paths.

    Returns:
      Means over the path: how far the losses of the domains lie apart, at w and at w + eps,
      how far the path is from SAM's, and which domain's gradient is followed; and the mean
      of both losses at its end.
    """
    length = np.linalg.norm(np.diff(paths["erm"].points, axis=1), axis=-1).sum(1).mean()
    values = []
    for name, path in paths.items():
        away = np.linalg.norm(path.points - paths["sam"].points, axis=-1).mean(1)
        found = {
            "losses_apart": np.abs(np.diff(path.losses)[..., 0]).mean(1),
            "ascended_losses_apart": np.abs(np.diff(path.perturbed_losses)[..., 0]).mean(1),
            "visibly_apart": away / length - VISIBLE,
            "last_loss": path.losses[:, -1].mean(-1),
        }
        if name in CLIMBED:
            found["dominance"] = dominance(climbs["gradients"], climbs[name])
        values += [
            Value(family, name_of(name), start, "", measure, float(value))
            for measure, starts in found.items()
            for start, value in enumerate(starts)
        ]
    return values


def short(values: np.ndarray) -> list:
    """As lists of numbers with four decimals."""
    return np.round(values.astype(float), 4).tolist()


def claims(values: Values) -> list[Claim]:
    """The same of both families of toys."""
    return [claim for family in (DRAWN, RANDOM) for claim in _of_family(family)]


def _of_family(family: str) -> list[Claim]:
    sam, disam = Arm(family, SAM), Arm(family, DISAM)
    ours, paper = "DISAM (lam = 0.1)", "analogue of DISAM,"
    # (claim, source, measure, larger, smaller)
    told = (
        (
            f"The perturbation of {ours} follows the domain of the larger gradient less "
            "than SAM's does",
            f"{paper} section 3.2 and Fig. 2",
            "dominance",
            sam,
            disam,
        ),
        (
            f"{ours} keeps the losses of the two domains closer together along its path "
            "than SAM",
            f"{paper} section 3.2 and Fig. 2",
            "losses_apart",
            sam,
            disam,
        ),
        (
            f"{ours} keeps the losses of the two domains at w + eps closer together than "
            "SAM",
            f"{paper} Eq. 7, where the variance is subtracted",
            "ascended_losses_apart",
            sam,
            disam,
        ),
        (
            f"{ours} takes visibly another path than SAM: they are more than 1 % of a "
            "path's length apart",
            f"{paper} Fig. 2",
            "visibly_apart",
            disam,
            None,
        ),
    )
    return [
        Claim(text, source, PAPERS, family, measure, larger, smaller)
        for text, source, measure, larger, smaller in told
    ]


def tables(values: Values, curves: Curves) -> list[Table]:
    """Means over the starts, of every method."""
    columns = {
        "losses_apart": "difference of the losses (nats)",
        "ascended_losses_apart": "at w + eps",
        "last_loss": "mean of both losses at the end",
        "visibly_apart": "distance from SAM's path, of a path's length (%)",
    }

    def mean(family: str, method: str, measure: str) -> str:
        found = np.mean(values.per_seed(family, method, measure))
        if measure == "visibly_apart":
            return f"{100 * (found + VISIBLE):.1f}"
        return f"{found:.3f}"

    rows = [
        [family, name, *(mean(family, name, measure) for measure in columns)]
        for family in values.conditions
        for name in values.methods(family)
    ]
    return [Table("Means over the starts", ("toys", "method", *columns.values()), rows)]


PROTOCOL = f"""\
Each domain's loss is log(1 + 1/2 (w - c)^T A (w - c)), a well in the plane, not convex. The
drawn toy has a narrow well, c = (-1.2, -0.6) and A = diag(8, 2), and a wide one, c = (1.2,
0.6) and A = diag(1, 3). The random toys have both c uniform in [-1.5, 1.5]^2 and A with
random axes and eigenvalues log-uniform in [0.3, 10]. Starts are uniform in [-3, 3] x [-2.5,
2.5]. All methods take {STEPS} steps of size {STEP_SIZE:g} with rho = {RHO:g}. DISAM's Fig.
2 shows a toy of two domains and does not give it; functions, rho and step size here are our
own choice, lam = 0.1 is the paper's. Differences are paired by start, {STARTS_PER_SEED} a
seed. On the drawn toy they are many starts of ONE landscape: replicates of the start only,
so that its intervals say nothing of other landscapes. On the random toys each start has a
landscape of its own, drawn by our law."""

SCOPE = f"""\
Two domains, two parameters, {STEPS} steps of plain gradient descent without noise; no
network, no data. What carries over to a ResNet-50: the algebra in the captions, and that
the variance is subtracted at w + eps and not at w. What does not: the sign and the size of
any effect on a loss, which hang on the landscape."""

STUDY = Study(
    name="toy",
    title="What does DISAM's perturbation do on two domains in the plane?",
    protocol=PROTOCOL,
    measure=measure,
    claims=claims,
    draw=draw,
    tables=tables,
    scope=SCOPE,
    data=(),
)
