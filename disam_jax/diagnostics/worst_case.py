"""The worst case within a ball, by projected ascent: the measure of sharpness in use."""

import functools
from typing import Literal

import jax
import jax.numpy as jnp

from disam_jax.diagnostics import apgd
from disam_jax.diagnostics.balls import BALLS
from disam_jax.diagnostics.checks import real_params
from disam_jax.diagnostics.climbs import rises
from disam_jax.hyperparameters import Number, check_integer, check_number
from disam_jax.objectives import ObjectiveFn
from disam_jax.passes.forward import LossFn
from disam_jax.trees import Tree


def worst_case_sharpness(
    loss_fn: LossFn,
    params: Tree,
    rho: Number,
    key: jax.Array,
    *,
    norm: Literal["l2", "linf"] = "l2",
    adaptive: bool = False,
    steps: int = 20,
    restarts: int = 1,
    ascent: ObjectiveFn | None = None,
    domain_weights: jax.Array | None = None,
) -> jax.Array:
    """How much each domain's loss rises at most within a ball, by projected ascent (APGD).

    sharpness_i = max L_i(w + c * x) - L_i(w) over norm(x) <= rho, with c = abs(w) if
    adaptive, else 1, and the l2 or the l-inf norm. From a random x_0, with s = 2 * rho:

    z = P(x_k + s * u_k), x_{k+1} = P(x_k + 0.75 * (z - x_k) + 0.25 * (x_k - x_{k-1})), and
    x_1 = z, where P projects onto the ball and u_k is steepest: g / norm(g) or sign(g), of
    the gradient g by x. At 22 %, 41 %, 57 % ... of the steps s is halved and the ascent
    goes on at the highest point met, if fewer than 75 % of the steps since the last of
    these points rose, or if s was kept there and no higher point was met since.

    `sharpness` is one or a few steps of SAM's own ascent; this is the best that can be
    found. The adaptive one is the same for all networks that differ by factors between
    their layers and compute the same. Where a network may scale its logits, and the
    loss falls with them, `normalized_logits` takes that freedom away.

    Example:
      >>> import disam_jax as dj, jax, jax.numpy as jnp
      >>> def loss_fn(w):
      ...     return jnp.stack([3 * w[0] - 4 * w[1], jnp.sum(w**2)])
      >>> w, key, measure = jnp.array([1.0, 2.0]), jax.random.key(0), dj.diagnostics
      >>> print(measure.worst_case_sharpness(loss_fn, w, 0.1, key))
      [0.5 0.457]
      >>> print(measure.worst_case_sharpness(loss_fn, w, 0.1, key, norm="linf"))
      [0.7 0.62]
      >>> print(measure.worst_case_sharpness(
      ...     loss_fn, w, 0.1, key, norm="linf", adaptive=True))
      [1.1 1.05]

    Args:
      loss_fn: (params) -> losses [M]; a scalar counts as one domain. m-sharpness is the
        mean of this measure over batches of m examples.
      params: where it is measured; half precision is perturbed in float32.
      rho: >= 0, the radius.
      key: of the starts.
      norm: "l2" or "linf", the ball's.
      adaptive: the ball is stretched by abs(w) along each parameter: one that is 0 stays.
      steps: >= 1, of the ascent, each a forward and backward pass. More find more as a
        rule, and not always: where the step is halved moves along.
      restarts: >= 1, ascents from starts of their own; more are never lower. One may end on
        a lower summit than the highest: take several where networks are compared.
      ascent: an objective `(losses, weights) -> scalar` that is climbed for all domains at
        once, as in `sharpness`; None climbs every domain's own loss.
      domain_weights: [M], >= 0, of the ascent; None is uniform.

    Returns:
      [M], >= 0 by the point w, of each domain or, with an ascent, of the ascent alone.

    Raises:
      ValueError: rho is negative or not finite, there is no such norm, steps < 1 or
        restarts < 1, the ascent follows a schedule, or there are weights and no ascent.

    References:
      Andriushchenko et al., A Modern Look at the Relationship between Sharpness and
      Generalization, ICML 2023, the worst case of section 2; the ascent is Croce and Hein's
      Auto-PGD, ICML 2020, Algorithm 1. The code of 2023 does otherwise: its momentum
      averages z with x_{k-1}; after a halving only the next gradient is taken at the
      highest point; a random start is an error as released, and once mended it starts in l2
      a root of the number of parameters outside the ball and counts what it meets there;
      adaptively in l2, x is scaled once more by c in each step and projected by bisection,
      so that factors between layers change the result.
    """
    check_number("rho", rho)
    check_integer("steps", steps, why="of the ascent")
    check_integer("restarts", restarts, why="ascents from starts of their own")
    if norm not in BALLS:
        raise ValueError(f"norm must be one of {list(BALLS)}; got {norm!r}.")
    keys = _keys(key, restarts)
    climb = functools.partial(
        apgd.climb, loss_fn, real_params(params), rho, keys, (norm, adaptive), steps
    )
    return rises(climb, loss_fn, params, ascent, domain_weights)


def _keys(key: jax.Array, restarts: int) -> jax.Array:
    """One per restart, whose first ones are the same for more restarts."""
    return jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(restarts))
