"""Climbs: how far the losses rise within a radius of the parameters."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from disam_jax import trees
from disam_jax.diagnostics.checks import domain_losses, real_params
from disam_jax.diagnostics.compiled import compiled, scan, zeros_like
from disam_jax.hyperparameters import Number, Scheduled, check_integer, check_number
from disam_jax.objectives import ObjectiveFn, Remembering, weighted_mean
from disam_jax.passes.forward import LossFn, at_once, check_weights
from disam_jax.trees import Tree


def sharpness(
    loss_fn: LossFn,
    params: Tree,
    rho: Number,
    *,
    steps: int = 1,
    ascent: ObjectiveFn | None = None,
    domain_weights: jax.Array | None = None,
) -> jax.Array:
    """How much each domain's loss rises within the radius rho, by SAM's own ascent.

    eps_0 = 0; for k = 0 ... steps - 1: eps_{k+1} = rho * g / norm(g) with
    g = grad L_i(w + eps_k), and sharpness_i = max_k L_i(w + eps_k) - L_i(w), k >= 1.

    One step is SAM's. Where more of them stand still, w + eps is a stationary point of the
    loss on the sphere, and L_i(w + eps_k) never falls where L_i is convex. With an `ascent`
    there is one eps for all domains, that of g = grad ascent(L(w + eps_k), weights) with
    the highest ascent(L(w + eps)). The weighted mean over the domains is then the pooled
    sharpness, which can be small where the domains' own are not.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> def loss_fn(w):
      ...     return jnp.stack([w[0] ** 2, 3 * w[1] ** 2])
      >>> params = jnp.array([2.0, 1.0])
      >>> print(dj.diagnostics.sharpness(loss_fn, params, rho=0.5))
      [2.25 3.75]
      >>> print(dj.diagnostics.sharpness(loss_fn, params, rho=0.5, ascent=dj.weighted_mean))
      [1.19 3.02]

    Args:
      loss_fn: (params) -> losses [M]; a scalar counts as one domain.
      params: where it is measured; half precision is perturbed in float32.
      rho: >= 0, the radius.
      steps: >= 1, of the ascent, each a forward and backward pass and a forward pass.
      ascent: an objective `(losses, weights) -> scalar` that is climbed for all domains at
        once, such as `disam_jax.weighted_mean`; None climbs every domain's own loss. Like
        loss_fn, the same object is compiled once.
      domain_weights: [M], >= 0, of the ascent; None is uniform.

    Returns:
      [M], >= 0 where the loss is convex; 0 where the gradient is.

    Raises:
      ValueError: rho is negative or not finite, steps < 1, the ascent follows a schedule,
        or there are weights and no ascent.

    References:
      Foret et al., ICLR 2021, Eq. 2, whose code adds 1e-12 to the norm. By domain and
      pooled: Song et al., Domain-wise Gradual Sharpness-Aware Minimization, 2025. The
      repeated step is the gradient scheme of Journee et al., Generalized Power Method for
      Sparse Principal Component Analysis, JMLR 2010.
    """
    check_number("rho", rho)
    check_integer("steps", steps, why="of the ascent")
    climb = functools.partial(_climb, loss_fn, real_params(params), rho, steps)
    return rises(climb, loss_fn, params, ascent, domain_weights)


def rises(
    climb: Callable[[ObjectiveFn, jax.Array], jax.Array],
    loss_fn: LossFn,
    params: Tree,
    ascent: ObjectiveFn | None,
    domain_weights: jax.Array | None,
) -> jax.Array:
    """How much the losses [M] rise along `climb(ascent, weights)`; see `sharpness`."""
    _check_ascent(ascent, domain_weights)
    params = real_params(params)
    losses = compiled(losses_at, loss_fn)(params, zeros_like(params))
    if ascent is not None:
        return climb(ascent, check_weights(domain_weights, losses)) - losses
    # One domain's gradient at a time: its loss is the mean that has its weight alone.
    rows = jnp.eye(losses.size, dtype=losses.dtype)
    return jnp.diag(jnp.stack([climb(weighted_mean, row) for row in rows])) - losses


def _check_ascent(ascent: ObjectiveFn | None, domain_weights: jax.Array | None) -> None:
    if isinstance(ascent, Scheduled):
        raise ValueError(
            "ascent must be a function of (losses, weights); got one that follows a "
            "schedule. Take it at a step, ascent.at(count)."
        )
    if isinstance(ascent, Remembering):
        raise ValueError(
            "ascent must be a function of (losses, weights); got one that remembers. Take "
            "it as it is at first, ascent.at(ascent.init(params))."
        )
    if ascent is None and domain_weights is not None:
        raise ValueError(
            "domain_weights are an ascent's, and each domain climbs its own loss; got "
            "weights and no ascent. Give ascent=disam_jax.weighted_mean, or no weights."
        )


class Met(NamedTuple):
    """Losses [M] met on a climb, and what the ascent makes of them."""

    losses: jax.Array
    height: jax.Array


def _climb(
    loss_fn: LossFn,
    params: Tree,
    rho: Number,
    steps: int,
    ascent: ObjectiveFn,
    weights: jax.Array,
) -> jax.Array:
    """The losses [M] at the highest point of the ascent."""
    ascend, met = (
        compiled(_ascend, loss_fn, ascent),
        meeting(loss_fn, params, ascent, weights),
    )

    def step(carry: tuple[Tree, Met], _: jax.Array) -> tuple[tuple[Tree, Met], None]:
        eps, highest = carry
        eps = ascend(params, eps, rho, weights)
        return (eps, higher(highest, met(eps))), None

    nowhere = Met(jnp.zeros_like(weights), jnp.full((), -jnp.inf, weights.dtype))
    (_, highest), _ = scan(step, (zeros_like(params), nowhere), np.arange(steps))
    return highest.losses


def _ascend(
    loss_fn: LossFn,
    ascent: ObjectiveFn,
    params: Tree,
    eps: Tree,
    rho: Number,
    weights: jax.Array,
) -> Tree:
    here = at_once(domain_losses(loss_fn), optax.tree.add(params, eps), weights)
    gradient = here.value_and_grad(ascent).gradient
    return optax.tree.cast_like(trees.with_norm(gradient, rho), eps)


def meeting(
    loss_fn: LossFn, params: Tree, ascent: ObjectiveFn, weights: jax.Array
) -> Callable[[Tree], Met]:
    """Returns eps -> what is met at params + eps."""
    at, shares = compiled(losses_at, loss_fn), trees.safe_divide(weights, jnp.sum(weights))

    def met(eps: Tree) -> Met:
        losses = at(params, eps)
        return Met(losses, ascent(losses, shares))

    return met


# By itself, so that one program computes all losses: without eps they do not differ.
def losses_at(loss_fn: LossFn, params: Tree, eps: Tree) -> jax.Array:
    """Returns the losses [M] at params + eps, to be compiled."""
    return domain_losses(loss_fn)(optax.tree.add(params, eps))[0]


def higher(a: Tree, b: Tree) -> Tree:
    """Returns the one of the larger `height`, of two trees; a NaN counts as the highest."""
    keep = (a.height >= b.height) | jnp.isnan(a.height)
    return jax.tree.map(lambda x, y: jnp.where(keep, x, y), a, b)
