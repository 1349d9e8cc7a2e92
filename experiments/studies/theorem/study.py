"""Does DISAM's Theorem 1 describe what SAM and DISAM do? Its parts, one by one."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from experiments.studies.kit.runs import Setting
from experiments.studies.kit.study import Measured, Study
from experiments.studies.kit.trajectories import (
    Problem,
    Trace,
    follow,
    lowest_within,
    top_eigenvalue,
)
from experiments.studies.kit.values import Value
from experiments.studies.theorem.figures import draw
from experiments.studies.theorem.findings import (
    FARTHER,
    LAMS,
    NEAR,
    TITLES,
    WITHIN,
    bound_of,
    claims,
    method_of,
    tables,
)
from experiments.studies.theorem.problems import (
    Quadratics,
    digits_network,
    least_curvature,
    lowest_loss,
    quadratics,
    shift_of_minimum,
)
from experiments.studies.theorem.protocol import PROTOCOL, SCOPE

NUMBERS = tuple(map(float, LAMS))
FINE_LAMS = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
QUADRATIC_RHOS = (0.05, 0.1, 0.2, 0.4)
NETWORK_RHOS = (0.05, 0.1, 0.2)
FIRST_STEPS = {"small": 0.5, "large": 2.0}  # of the network
PARTS = 10  # of a run, at whose ends the network's Hessian is looked at
POINTS = 50  # of a curve
AT_REST = 0.01  # of rho^2 L^2: below it the ascended point counts as at rest


def measure(setting: Setting) -> Measured:
    """All of it, with the constants of this file."""
    return measure_all(setting.seeds)


def measure_all(
    seeds: int,
    *,
    quadratic_steps: int = 5000,
    network_steps: int = 1000,
    images: int = 60,
    hidden: int = 16,
) -> Measured:
    """Follows every problem with every rho and lam.

    Args:
      seeds: how many.
      quadratic_steps: T on the quadratics.
      network_steps: T on the network, a multiple of PARTS.
      images: of a domain of the network's.
      hidden: units of the network.

    Returns:
      The values, and the curves of each problem by its name, `bound` and `settling`.
    """
    known = quadratics(seeds)
    runs = {
        rho: follow(known.problem, rho, FINE_LAMS, quadratic_steps)
        for rho in QUADRATIC_RHOS
    }
    chosen = {rho: _with_lams(trace) for rho, trace in runs.items()}
    found = {
        "quadratics": describe("quadratics", chosen, 0.2, known.problem, known.smoothness),
        "settling": settling(runs, known),
        "bound": bound(known, 0.2, quadratic_steps),
    }
    for name, first_step in FIRST_STEPS.items():
        problem = digits_network(seeds, first_step, images, hidden)
        traces = {
            rho: follow(problem, rho, NUMBERS, network_steps, PARTS) for rho in NETWORK_RHOS
        }
        points = np.concatenate([problem.start[:, None], traces[0.05].visited[0]], axis=1)
        smoothness = top_eigenvalue(problem, points)
        found[name] = describe(name, traces, 0.05, problem, smoothness)
    values = [value for part in found.values() for value in part.values]
    return Measured(values, {name: part.curves for name, part in found.items()})


def _with_lams(trace: Trace) -> Trace:
    """The part of a trace of all FINE_LAMS that is of LAMS."""
    kept = [FINE_LAMS.index(lam) for lam in NUMBERS]
    return Trace(*(values[kept] for values in trace))


def describe(
    name: str,
    traces: dict[float, Trace],
    rho: float,
    problem: Problem,
    smoothness: np.ndarray,
) -> Measured:
    """What is said of one problem.

    Args:
      name: of the problem.
      traces: of each rho, runs with LAMS.
      rho: of the runs that are looked at beyond their level.
      problem: that they descend.
      smoothness: [S], L.

    Returns:
      The values, of every method but for what only DISAM has, and the curves.
    """
    trace = traces[rho]
    steps = trace.gradient.shape[-1]
    eta = problem.first_step[:, None] / np.sqrt(np.arange(1, steps + 1))
    turns = trace.angles / eta / smoothness[:, None]
    running = running_mean(trace.ascended**2)
    slopes = np.apply_along_axis(last_slope, -1, running)
    measured = {
        bound_of(name): 1 / turns.max(-1),
        "mean_turn": turns.mean(-1),
        "faster_than_rate": last_slope(theorem_rate(steps)) - slopes,
        "loss_and_gradient": correlation(trace.losses, trace.norms, axis=-1).mean(-1),
        "gradient_and_change": trace.cosine.mean(-1),
        "weights_fall": -np.sign(trace.turn).mean(-1),
    }
    shown = spaced(steps)
    curves = {
        "rho": rho,
        "shown": shown.tolist(),
        "turns": by_lam(np.maximum(turns, 1e-9)[..., shown - 1]),
        "running": by_lam(running.mean(1)[:, shown - 1]),
        "theorem_rate": short(theorem_rate(steps)[shown - 1]),
        "levels": {f"{r:g}": by_lam(last_tenth(t.ascended**2)) for r, t in traces.items()},
        "smoothness": short(smoothness),
    }
    return Measured(as_values(TITLES[name], measured), curves)


def as_values(condition: str, measured: dict[str, np.ndarray]) -> list[Value]:
    """Arrays [lams, S] as values; the weights of SAM do not move."""
    return [
        Value(condition, method_of(lam), seed, "", measure, float(value))
        for measure, rows in measured.items()
        for lam, row in zip(LAMS, rows, strict=True)
        if (lam, measure) != ("0", "weights_fall")
        for seed, value in enumerate(row)
    ]


def settling(runs: dict[float, Trace], known: Quadratics) -> Measured:
    """Where the ascended point came to rest, and where it must by the location of minima.

    Args:
      runs: of each rho, with FINE_LAMS.
      known: the quadratics.

    Returns:
      Per seed the shares of the runs that are at rest, of those that have a minimum of
      L - lam Var closer than rho to that of L and of those that have none. For every lam
      and rho a cell: `rho`, `lam`, and per seed `level`, the last mean of |grad L(w +
      eps)|^2 / (rho L)^2; `shift`, lam |H^-1 grad Var| / rho; and `within`.
    """
    shift, cells = shift_of_minimum(known), []
    for rho, trace in runs.items():
        levels = last_tenth(trace.ascended**2) / (rho * known.smoothness) ** 2
        distances = lowest_within(known.problem, known.minimum, rho, FINE_LAMS)
        for lam, level, distance in zip(FINE_LAMS, levels, distances, strict=True):
            cells.append(
                {
                    "rho": rho,
                    "lam": lam,
                    "level": short(level),
                    "shift": short(lam * shift / rho),
                    "within": (distance < 0.999 * rho).tolist(),
                }
            )
    at_rest = np.array([cell["level"] for cell in cells]) < AT_REST
    within = np.array([cell["within"] for cell in cells])
    values = [
        Value(TITLES["quadratics"], method, seed, "", "runs_at_rest", float(share))
        for method, kept in ((WITHIN, within), (FARTHER, ~within))
        for seed, share in enumerate(share_of(at_rest, kept))
    ]
    return Measured(values, {"cells": cells})


def share_of(found: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Of each column's kept entries the share that was found; NaN where none is kept."""
    return np.ma.masked_array(found, ~kept).mean(0).astype(float).filled(np.nan)


def bound(known: Quadratics, rho: float, steps: int) -> Measured:
    """Both sides of Theorem 1's inequality, all its constants known.

    The start is rho / 2 from the minimum, L is the largest eigenvalue, Gamma = L, and G the
    largest |grad L(w + eps)| that was met. log T is taken as 1 + log T >= sum_t 1 / t.
    """
    away = known.problem.start - known.minimum
    away *= rho / 2 / np.linalg.norm(away, axis=-1, keepdims=True)
    start = (known.minimum + away).astype(np.float32)
    problem, smooth = known.problem._replace(start=start), known.smoothness[:, None]
    trace = follow(problem, rho, NUMBERS, steps)
    eta = problem.first_step[:, None]
    largest = trace.ascended.max(-1, keepdims=True)
    first = (trace.ascended_loss[..., :1] - lowest_loss(known)[:, None]) / eta
    noise = (smooth * largest**2 + rho**2 * smooth**3) * eta
    times = np.arange(1, steps + 1)
    right = (first + noise * (1 + np.log(times))) / np.sqrt(times)
    left = running_mean(trace.ascended**2)
    shown = spaced(steps)
    curves = {
        "shown": shown.tolist(),
        "left": by_lam(left.mean(1)[:, shown - 1]),
        "right": by_lam(right.mean(1)[:, shown - 1]),
        "floor": short(np.mean((rho * least_curvature(known)) ** 2)),
    }
    return Measured(as_values(NEAR, {"right_over_left": (right / left)[..., -1]}), curves)


def running_mean(values: np.ndarray) -> np.ndarray:
    """(1/T) sum_{t <= T} values_t for every T, over the last axis."""
    times = np.arange(1, values.shape[-1] + 1)
    return np.cumsum(values, axis=-1, dtype=np.float64) / times


def last_tenth(values: np.ndarray) -> np.ndarray:
    """The mean over the last tenth of the last axis."""
    return values[..., -max(1, values.shape[-1] // 10) :].mean(-1)


def theorem_rate(steps: int) -> np.ndarray:
    """(1 + log T) / sqrt(T) at T = 1 ... steps."""
    times = np.arange(1, steps + 1)
    return (1 + np.log(times)) / np.sqrt(times)


def log_slope(x: ArrayLike, y: ArrayLike) -> float:
    """The exponent p of y = c x^p, by least squares of the logarithms."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def last_slope(curve: np.ndarray) -> float:
    """The exponent of a curve over T = 1, 2, ... in its last decade."""
    steps = len(curve)
    times = np.unique(np.geomspace(max(1, steps // 10), steps, 40).round().astype(int))
    return log_slope(times, curve[times - 1])


def correlation(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
    """Pearson's, along an axis."""
    a, b = (x - x.mean(axis, keepdims=True) for x in (a, b))
    return (a * b).sum(axis) / np.sqrt((a**2).sum(axis) * (b**2).sum(axis))


def spaced(steps: int) -> np.ndarray:
    """Up to POINTS times in 1 ... steps, evenly apart in their logarithm."""
    return np.unique(np.geomspace(1, steps, POINTS).round().astype(int))


def short(values: Any) -> Any:
    """As lists of numbers with four digits."""
    if np.ndim(values):
        return [short(value) for value in values]
    return float(f"{float(values):.4g}")


def by_lam(values: np.ndarray) -> dict[str, Any]:
    """The rows of an array, by the lam that each is of."""
    return {lam: short(row) for lam, row in zip(LAMS, values, strict=True)}


STUDY = Study(
    name="theorem",
    title="Does DISAM's Theorem 1 describe what SAM and DISAM do?",
    protocol=PROTOCOL,
    measure=measure,
    claims=claims,
    draw=draw,
    tables=tables,
    scope=SCOPE,
    data=(),
)
