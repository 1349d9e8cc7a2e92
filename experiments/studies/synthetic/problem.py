"""A two-class problem in many domains whose best predictor is known, with dials.

The label is y = +1 or -1 with equal chance. Domain m has a shift s_m, drawn once from
N(0, gap^2 I_2), and an example of it is

    x_0      = SIGNAL y + z_0              the same in every domain
    x_1, x_2 = y s_m + z_1, z_2            of the domain's own making
    x_j      = sigma_j z_j, j = 3 .. 63    nothing to do with y

with z ~ N(0, I). A source domain then multiplies x by its contrast c_m, and its labels are
turned around with probability p_m. Training sees EXAMPLES of these in all domains together.

Risk. For a linear predictor w the margin y (w . x) of a new domain, whose shift is drawn
too, is normal with mean SIGNAL w_0 and variance |sigma w|^2 + gap^2 (w_1^2 + w_2^2), where
sigma_0 = sigma_1 = sigma_2 = 1. With Phi the normal distribution function,

    error on a new domain = Phi(-SIGNAL w_0 / sqrt(|sigma w|^2 + gap^2 (w_1^2 + w_2^2)))
    error on source m     = p_m + (1 - 2 p_m) Phi(-(SIGNAL w_0 + w_12 . s_m) / |sigma w|)

Optimum. In a new domain x_1, x_2 and the rest are symmetric around 0 whatever y is, so that
no predictor that sees one example at a time errs less than sign(x_0), whose error is
BEST = Phi(-SIGNAL), whatever the dials are. The excess over it is exact, not an estimate.
"""

import dataclasses
from statistics import NormalDist
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm

Array = np.ndarray | jax.Array

SIGNAL = 1.5
DIMENSIONS = 64
SPURIOUS = 2
EXAMPLES = 160
MOST_DOMAINS = 20
WIDTH = 8
BATCH = 32
BEST = NormalDist().cdf(-SIGNAL)

# Some of the nuisance is larger than the signal: the difference of the class means, to
# which the first step of any method goes, is then not the best direction.
NUISANCE = 3.0 / np.sqrt(np.arange(1, DIMENSIONS - SPURIOUS))
SIGMA = np.concatenate([np.ones(1 + SPURIOUS), NUISANCE])


@dataclasses.dataclass(frozen=True)
class Dials:
    """What makes a problem easy or hard; the defaults are the study's.

    Attributes:
      gap: standard deviation of the domains' shifts; the signal is 1.5.
      contrast: largest / smallest factor of the domains' features. A domain of low contrast
        is learned later, and as well.
      extra_noise: share of labels of the first domain turned around besides `noise`.
      noise: share of all labels turned around.
      imbalance: largest / smallest number of examples.
      domains: number of source domains, which share EXAMPLES.
    """

    gap: float = 1.0
    contrast: float = 1.0
    extra_noise: float = 0.0
    noise: float = 0.1
    imbalance: float = 1.0
    domains: int = 4


class Problem(NamedTuple):
    """All that is random in a run: the same for every method.

    Domains that are not there have share 0.

    Attributes:
      features: [N, D], of the examples.
      labels: [N], +1 or -1, some turned around.
      domains: [N], integers.
      shares: [MOST_DOMAINS], of the examples.
      shifts: [MOST_DOMAINS, 2], s_m.
      flips: [MOST_DOMAINS], p_m.
      gap: of the law of new shifts.
      hidden: [D, WIDTH], first layer at the start.
      output: [WIDTH], second layer at the start.
      batches: [gradients, BATCH], the examples of each batch.
    """

    features: Array
    labels: Array
    domains: Array
    shares: Array
    shifts: Array
    flips: Array
    gap: Array
    hidden: Array
    output: Array
    batches: Array


def name_of(dial: str, value: float) -> str:
    """E.g. `gap 3`: this dial turned; `default` where that is where it stands."""
    return "default" if value == getattr(Dials(), dial) else f"{dial} {value:g}"


def sizes(domains: int, imbalance: float) -> np.ndarray:
    """Numbers of examples in proportion to imbalance^(-m / (M - 1)), rounded to sum to N.

    Args:
      domains: M.
      imbalance: largest / smallest, before rounding.

    Returns:
      [M], integers, the largest first.
    """
    wanted = _geometric(imbalance, domains)
    wanted *= EXAMPLES / wanted.sum()
    counts = np.floor(wanted).astype(int)
    missing = EXAMPLES - counts.sum()
    counts[np.argsort(counts - wanted, kind="stable")[:missing]] += 1
    return counts


def _geometric(ratio: float, count: int) -> np.ndarray:
    """Returns [count], from 1 down to 1 / ratio."""
    return ratio ** -np.linspace(0.0, 1.0, count)


def draw_problem(dials: Dials, seed: int, gradients: int) -> Problem:
    """A problem; of one seed, all dials turn the same random numbers.

    Args:
      dials: of the problem.
      seed: of everything random.
      gradients: number of batches.

    Returns:
      The problem.
    """
    rng = np.random.default_rng(seed)
    y = np.where(rng.random(EXAMPLES) < 0.5, 1.0, -1.0)
    z = rng.normal(size=(EXAMPLES, DIMENSIONS))
    turned = rng.random(EXAMPLES)
    shifts = dials.gap * rng.normal(size=(MOST_DOMAINS, SPURIOUS))
    hidden = rng.normal(size=(DIMENSIONS, WIDTH)) / DIMENSIONS**0.5
    output = rng.normal(size=WIDTH) / WIDTH**0.5
    batches = rng.integers(EXAMPLES, size=(gradients, BATCH))

    counts = sizes(dials.domains, dials.imbalance)
    domains = np.repeat(np.arange(dials.domains), counts)
    flips = np.full(dials.domains, dials.noise)
    flips[0] += dials.extra_noise
    x = SIGMA * z
    x[:, 0] += SIGNAL * y
    x[:, 1 : 1 + SPURIOUS] += y[:, None] * shifts[domains]
    x *= _geometric(dials.contrast, dials.domains)[domains, None]
    absent = (0, MOST_DOMAINS - dials.domains)
    return Problem(
        features=_single(x),
        labels=_single(np.where(turned < flips[domains], -y, y)),
        domains=domains,
        shares=_single(np.pad(counts / EXAMPLES, absent)),
        shifts=_single(shifts),
        flips=_single(np.pad(flips, absent)),
        gap=_single(dials.gap),
        hidden=_single(hidden),
        output=_single(output),
        batches=batches,
    )


def _single(values: Any) -> np.ndarray:
    return np.asarray(values, np.float32)


def new_domain_error(w: Array, gap: Array) -> jax.Array:
    """Phi(-SIGNAL w_0 / sqrt(|sigma w|^2 + gap^2 (w_1^2 + w_2^2))).

    Args:
      w: [D], the predictor.
      gap: of the law of the shifts.

    Returns:
      The expected error on a domain that is drawn anew, its labels not turned around.
    """
    own = w[1 : 1 + SPURIOUS]
    variance = jnp.sum((SIGMA * w) ** 2) + gap**2 * jnp.sum(own**2)
    return _error(SIGNAL * w[0], variance)


def source_errors(w: Array, problem: Problem) -> jax.Array:
    """p_m + (1 - 2 p_m) Phi(-(SIGNAL w_0 + w_12 . s_m) / |sigma w|).

    Args:
      w: [D], the predictor.
      problem: whose domains are meant.

    Returns:
      [MOST_DOMAINS], the errors on an endless held-out set of each, labels turned around
      as in training.
    """
    margins = SIGNAL * w[0] + problem.shifts @ w[1 : 1 + SPURIOUS]
    clean = _error(margins, jnp.sum((SIGMA * w) ** 2))
    flips = jnp.asarray(problem.flips)
    return flips + (1 - 2 * flips) * clean


def _error(mean: Any, variance: Any) -> jax.Array:
    # A network that is 0 or no longer finite guesses.
    fit = (variance > 0) & jnp.isfinite(variance)
    return jnp.where(fit, norm.cdf(-mean / jnp.sqrt(jnp.where(fit, variance, 1.0))), 0.5)
