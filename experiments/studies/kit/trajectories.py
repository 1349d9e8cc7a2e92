"""Runs on whole batches, with all that DISAM's Theorem 1 speaks of at every step."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import disam_jax as dj
from disam_jax.diagnostics import angle, hessian_top_eigenvalues

LossFn = Callable[[jax.Array, Any], jax.Array]
DESCENT_STEPS = 2000  # to the lowest point of a ball


class Problem(NamedTuple):
    """Domain losses and where their descent starts, for every seed.

    Attributes:
      loss: (w [P], batch of one domain) -> scalar.
      batch: a tree of arrays [S, M, ...].
      start: [S, P].
      first_step: [S], eta_0 of eta_t = eta_0 / sqrt(t), t = 1, 2, ...
    """

    loss: LossFn
    batch: Any
    start: np.ndarray
    first_step: np.ndarray


class Trace(NamedTuple):
    """A run, step by step; axes before T are those of the runs.

    Attributes:
      angles: [T], between the ascents at w_t and at w_{t+1}, in radians.
      losses: [T, M], at w_t.
      norms: [T, M], of the domains' gradients at w_t.
      gradient: [T], norm of the mean's gradient at w_t.
      ascended: [T], norm of the mean's gradient at w_t + eps_t.
      ascended_loss: [T], the mean of the losses there.
      cosine: [T], of that gradient and eps_{t+1} - eps_t.
      turn: [T], sum_i (beta_{t+1,i} - beta_{t,i}) <grad L_i, g> / |g|^2 at w_t, with g the
        gradient that is climbed.
      visited: [K, P], the last w of each of K equal parts of the run.
    """

    angles: Any
    losses: Any
    norms: Any
    gradient: Any
    ascended: Any
    ascended_loss: Any
    cosine: Any
    turn: Any
    visited: Any


def follow(
    problem: Problem,
    rho: float,
    lams: Sequence[float],
    steps: int,
    parts: int = 1,
) -> Trace:
    """Runs DISAM with every lam from every seed's start, w <- w - eta_t grad L(w + eps_t).

    Args:
      problem: its losses.
      rho: length of eps_t.
      lams: one run each; 0 is SAM.
      steps: T, a multiple of `parts`.
      parts: at whose ends w is kept.

    Returns:
      The trace, axes [lams, S] in front, in NumPy.
    """
    settings = rho, jnp.array(lams), steps, parts
    found = _follow_all(problem.loss, *settings, *problem[1:])
    return jax.tree.map(np.asarray, found)


@functools.partial(jax.jit, static_argnums=(0, 3, 4))
def _follow_all(
    loss: LossFn,
    rho: jax.Array,
    lams: jax.Array,
    steps: int,
    parts: int,
    batch: Any,
    start: jax.Array,
    first_step: jax.Array,
) -> Trace:
    times = jnp.arange(1.0, steps + 1).reshape(parts, -1)

    def run(lam: jax.Array, batch: Any, start: jax.Array, first_step: jax.Array) -> Trace:
        return _follow(loss, rho, lam, times, batch, start, first_step)

    over_seeds = jax.vmap(run, in_axes=(None, 0, 0, 0))
    over_lams = jax.vmap(over_seeds, in_axes=(0, None, None, None))
    return over_lams(lams, batch, start, first_step)


def _follow(
    loss: LossFn,
    rho: jax.Array,
    lam: jax.Array,
    times: jax.Array,
    batch: Any,
    start: jax.Array,
    first_step: jax.Array,
) -> Trace:
    method = dj.disam(rho, lam)
    descend = dj.value_and_grad(dj.vmap_domains(loss), method)
    losses_and_gradients = jax.vmap(jax.value_and_grad(loss), (None, 0))

    def step(carry: Any, t: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
        w, state, here = carry
        (evaluation, gradient), state = descend(w, state, batch)
        w = w - first_step / jnp.sqrt(t) * gradient
        there = losses_and_gradients(w, batch)
        now, then = (ascent(at, lam) for at in (here, there))
        betas, next_betas = (ascent_weights(at[0], lam) for at in (here, there))
        found = {
            "angles": angle(now, then),
            "losses": here[0],
            "norms": jnp.linalg.norm(here[1], axis=1),
            "gradient": jnp.linalg.norm(jnp.mean(here[1], axis=0)),
            "ascended": evaluation.perturbed_gradient_norm,
            "ascended_loss": jnp.mean(evaluation.perturbed_losses),
            "cosine": _cosine(gradient, _unit(then) - _unit(now)),
            "turn": (next_betas - betas) @ (here[1] @ now) / jnp.vdot(now, now),
        }
        return (w, state, there), found

    def part(carry: Any, times: jax.Array) -> tuple[Any, Any]:
        carry, found = jax.lax.scan(step, carry, times)
        return carry, (found, carry[0])

    carry = start, method.init(start), losses_and_gradients(start, batch)
    _, (found, visited) = jax.lax.scan(part, carry, times)
    joined = {name: x.reshape(-1, *x.shape[2:]) for name, x in found.items()}
    return Trace(**joined, visited=visited)


def ascent_weights(losses: jax.Array, lam: float | jax.Array) -> jax.Array:
    """The weight of each domain's gradient in the ascent, the paper's beta."""
    objective: Any = dj.variance_penalized(lam)
    return jax.grad(objective)(losses, jnp.full_like(losses, 1 / len(losses)))


def ascent(at: tuple[jax.Array, jax.Array], lam: float | jax.Array) -> jax.Array:
    """The gradient that is climbed, sum_i beta_i grad L_i, of (losses, gradients)."""
    losses, gradients = at
    return ascent_weights(losses, lam) @ gradients


def _unit(x: jax.Array) -> jax.Array:
    return x / jnp.maximum(jnp.linalg.norm(x), jnp.finfo(x.dtype).tiny)


def _cosine(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.vdot(_unit(a), _unit(b))


def top_eigenvalue(problem: Problem, visited: np.ndarray) -> np.ndarray:
    """The largest eigenvalue of the mean loss's Hessian met at some points, per seed.

    Args:
      problem: its losses.
      visited: [S, K, P].

    Returns:
      [S]: a lower bound of the smoothness L on the way.
    """
    return np.max(_top_eigenvalues(problem.loss, problem.batch, visited), axis=1)


@functools.partial(jax.jit, static_argnums=0)
def _top_eigenvalues(loss: LossFn, batch: Any, visited: jax.Array) -> jax.Array:
    def at_point(batch: Any, w: jax.Array) -> jax.Array:
        def mean_loss(w: jax.Array) -> jax.Array:
            return jnp.mean(dj.vmap_domains(loss)(w, batch))

        found: Any = hessian_top_eigenvalues(mean_loss, w, 1, jax.random.key(0))
        return found[0]

    return jax.vmap(jax.vmap(at_point, in_axes=(None, 0)))(batch, visited)


def lowest_within(
    problem: Problem, center: np.ndarray, radius: float, lams: Sequence[float]
) -> np.ndarray:
    """How far from the center L - lam Var is lowest within a ball.

    By DESCENT_STEPS steps of projected gradient descent from the center, of size eta_0.

    Args:
      problem: its losses.
      center: [S, P], of the ball.
      radius: of the ball.
      lams: weights of the variance.

    Returns:
      [lams, S], distances in [0, radius].
    """
    center = center.astype(np.float32)
    settings = radius, jnp.array(lams), problem.batch, center, problem.first_step
    return np.asarray(_lowest_within(problem.loss, *settings))


@functools.partial(jax.jit, static_argnums=0)
def _lowest_within(
    loss: LossFn,
    radius: jax.Array,
    lams: jax.Array,
    batch: Any,
    center: jax.Array,
    eta: jax.Array,
) -> jax.Array:
    losses_and_gradients = jax.vmap(jax.value_and_grad(loss), (None, 0))

    def distance(
        lam: jax.Array, batch: Any, center: jax.Array, eta: jax.Array
    ) -> jax.Array:
        def step(_: int, away: jax.Array) -> jax.Array:
            at = losses_and_gradients(center + away, batch)
            away = away - eta * ascent(at, lam)
            return away * jnp.minimum(1.0, radius / jnp.linalg.norm(away))

        away = jax.lax.fori_loop(0, DESCENT_STEPS, step, jnp.zeros_like(center))
        return jnp.linalg.norm(away)

    over_seeds = jax.vmap(distance, in_axes=(None, 0, 0, 0))
    over_lams = jax.vmap(over_seeds, in_axes=(0, None, None, None))
    return over_lams(lams, batch, center, eta)
