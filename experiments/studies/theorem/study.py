"""Does DISAM's Theorem 1 describe what SAM and DISAM do? Its parts, one by one."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from experiments.studies.kit.runs import Setting
from experiments.studies.kit.study import Numbers, Study
from experiments.studies.kit.trajectories import (
    Problem,
    Trace,
    follow,
    lowest_within,
    top_eigenvalue,
)
from experiments.studies.theorem.figures import draw
from experiments.studies.theorem.findings import find, tables
from experiments.studies.theorem.problems import (
    Quadratics,
    digits_network,
    quadratics,
    shift_of_minimum,
)

LAMS = (0.0, 0.1, 1.0, 10.0)  # 0 is SAM, 0.1 the paper's
FINE_LAMS = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
QUADRATIC_RHOS = (0.05, 0.1, 0.2, 0.4)
NETWORK_RHOS = (0.05, 0.1, 0.2)
FIRST_STEPS = {"small": 0.5, "large": 2.0}  # of the network
PARTS = 10  # of a run, at whose ends the network's Hessian is looked at
POINTS = 50  # of a curve


def measure(setting: Setting) -> Numbers:
    """All of it, with the constants of this file."""
    return measure_all(setting.seeds)


def measure_all(
    seeds: int,
    *,
    quadratic_steps: int = 5000,
    network_steps: int = 1000,
    images: int = 60,
    hidden: int = 16,
) -> Numbers:
    """Follows every problem with every rho and lam.

    Args:
      seeds: how many.
      quadratic_steps: T on the quadratics.
      network_steps: T on the network, a multiple of PARTS.
      images: of a domain of the network's.
      hidden: units of the network.

    Returns:
      The numbers of each problem by its name, `bound` and `settling`.
    """
    known = quadratics(seeds)
    runs = {
        rho: follow(known.problem, rho, FINE_LAMS, FINE_LAMS, quadratic_steps)
        for rho in QUADRATIC_RHOS
    }
    numbers: Numbers = {"seeds": seeds}
    chosen = {rho: _with_lams(trace) for rho, trace in runs.items()}
    numbers["quadratics"] = describe(chosen, 0.2, known.problem, known.smoothness)
    numbers["settling"] = settling(runs, known)
    numbers["bound"] = bound(known, 0.2, quadratic_steps)
    for name, first_step in FIRST_STEPS.items():
        problem = digits_network(seeds, first_step, images, hidden)
        traces = {
            rho: follow(problem, rho, LAMS, LAMS, network_steps, PARTS)
            for rho in NETWORK_RHOS
        }
        points = np.concatenate([problem.start[:, None], traces[0.05].visited[0]], axis=1)
        smoothness = top_eigenvalue(problem, points)
        numbers[name] = describe(traces, 0.05, problem, smoothness)
    return numbers


def _with_lams(trace: Trace) -> Trace:
    """The part of a trace of all FINE_LAMS that is of LAMS."""
    kept = [FINE_LAMS.index(lam) for lam in LAMS]
    trace = Trace(*(values[kept] for values in trace))
    return trace._replace(angles=trace.angles[..., [0, *(1 + i for i in kept)]])


def describe(
    traces: dict[float, Trace], rho: float, problem: Problem, smoothness: np.ndarray
) -> Numbers:
    """What the page says of one problem.

    Args:
      traces: of each rho, runs with LAMS.
      rho: of the runs that are looked at beyond their level.
      problem: that they descend.
      smoothness: [S], L.

    Returns:
      Numbers that JSON can hold; lists of one value per seed where not said otherwise.
    """
    trace = traces[rho]
    steps = trace.gradient.shape[-1]
    eta = problem.first_step[:, None] / np.sqrt(np.arange(1, steps + 1))
    gammas = trace.angles / eta[..., None] / smoothness[:, None, None]
    shown = spaced(steps)
    own, shared = gammas[..., 0], np.moveaxis(gammas[0, ..., 1:], -1, 0)
    running = running_mean(trace.ascended**2)
    levels = {r: last_tenth(t.ascended**2) for r, t in traces.items()}
    of_sam = np.stack([level[0] for level in levels.values()], axis=-1)
    return {
        "steps": steps,
        "rho": rho,
        "smoothness": short(smoothness),
        "shown": shown.tolist(),
        "gamma": {
            path: {"mean": by_lam(found.mean(-1)), "max": by_lam(found.max(-1))}
            for path, found in (("own", own), ("shared", shared))
        },
        "gamma_curves": {
            path: by_lam(np.exp(np.log(np.maximum(found, 1e-9)).mean(1))[:, shown - 1])
            for path, found in (("own", own), ("shared", shared))
        },
        "steps_above": short((own[0] > 1).mean(-1)),
        "running": by_lam(running.mean(1)[:, shown - 1]),
        "slopes": by_lam(np.apply_along_axis(last_slope, -1, running)),
        "slope_of_theorem": short(last_slope(theorem_rate(steps))),
        "theorem_rate": short(theorem_rate(steps)[shown - 1]),
        "levels": {f"{r:g}": by_lam(level) for r, level in levels.items()},
        "exponents_of_rho": short([log_slope(list(levels), of) for of in of_sam]),
        "losses": by_lam(last_tenth(trace.losses.mean(-1))),
        "spreads": by_lam(last_tenth(trace.losses.std(-1))),
        "correlation_of_domains": short(
            correlation(trace.losses[1], trace.norms[1], axis=-1).mean(-1)
        ),
        "correlation_over_time": short(
            correlation(trace.losses[1], trace.norms[1], axis=-2).mean(-1)
        ),
        "cosine": by_lam(trace.cosine.mean(-1)),
        "turns_up": by_lam((trace.turn > 0).mean(-1)),
    }


def settling(runs: dict[float, Trace], known: Quadratics) -> Numbers:
    """Where the ascended point came to rest, and where it must by the location of minima.

    Args:
      runs: of each rho, with FINE_LAMS.
      known: the quadratics.

    Returns:
      For every lam and rho a cell: `rho`, `lam`, and per seed `level`, the last mean of
      |grad L(w + eps)|^2 / (rho L)^2; `shift`, lam |H^-1 grad Var| / rho; and `within`,
      whether L - lam Var has a minimum closer than rho to that of L.
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
    return {"cells": cells}


def bound(known: Quadratics, rho: float, steps: int) -> Numbers:
    """Both sides of Theorem 1's inequality, all its constants known.

    The start is rho / 2 from the minimum, L is the largest eigenvalue, Gamma = L, and G the
    largest |grad L(w + eps)| that was met. log T is taken as 1 + log T >= sum_t 1 / t.
    """
    away = known.problem.start - known.minimum
    away *= rho / 2 / np.linalg.norm(away, axis=-1, keepdims=True)
    start = (known.minimum + away).astype(np.float32)
    problem, smooth = known.problem._replace(start=start), known.smoothness[:, None]
    trace = _with_lams(follow(problem, rho, FINE_LAMS, FINE_LAMS, steps))
    hessians, centers = problem.batch
    apart = known.minimum[:, None] - centers
    lowest = np.einsum("smi,smij,smj->s", apart, hessians, apart) / 2 / centers.shape[1]
    eta = problem.first_step[:, None]
    largest = trace.ascended.max(-1, keepdims=True)
    first = (trace.ascended_loss[..., :1] - lowest[:, None]) / eta
    noise = (smooth * largest**2 + rho**2 * smooth**3) * eta
    times = np.arange(1, steps + 1)
    right = (first + noise * (1 + np.log(times))) / np.sqrt(times)
    left = running_mean(trace.ascended**2)
    shown = spaced(steps)
    return {
        "shown": shown.tolist(),
        "rho": rho,
        "ratio": by_lam((left / right)[..., -1]),
        "left": by_lam(left.mean(1)[:, shown - 1]),
        "right": by_lam(right.mean(1)[:, shown - 1]),
    }


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
    return {f"{lam:g}": short(row) for lam, row in zip(LAMS, values, strict=True)}


STUDY = Study(
    name="theorem",
    title="Does DISAM's Theorem 1 describe what SAM and DISAM do?",
    protocol=(
        "The theorem: with eta_t = eta_0 / sqrt(t) and a fixed rho, the mean of "
        "‖grad L(w_t + eps_t)‖^2 over t <= T is at most (L(w_1 + eps_1) - min L) / (eta_0 "
        "sqrt(T)) + (L G^2 + rho^2 L Gamma^2) eta_0 log(T) / sqrt(T), where phi_t <= eta_t "
        "Gamma bounds the angle of eps_t and eps_{t+1}; Gamma = L for SAM and Gamma <= L "
        "for DISAM. All gradients here are of whole batches, so that no noise turns them. "
        "Quadratics: four domains 1/2 (w - c_i)^T A_i (w - c_i) in ten dimensions, random "
        "for each seed, eta_0 = 1 / L with L known exactly. Digits network: one hidden "
        "layer of 16 tanh units, five domains of rotated_digits at 8 pixels with 60 images "
        "each, chosen by the seed as are the first weights; eta_0 = 0.5 (small steps) and "
        "2 (large steps); L is the largest eigenvalue of the Hessian at the start and at "
        "ten points of SAM's run, so a lower bound. The problems, sizes and step sizes are "
        "our choice, rho = 0.05 and lam = 0.1 the paper's; on the quadratics, whose scale "
        "is arbitrary, rho = 0.2 unless said otherwise. A difference below 5 % does "
        "not matter."
    ),
    measure=measure,
    draw=draw,
    find=find,
    tables=tables,
)
