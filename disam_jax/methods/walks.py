"""Fish and PGrad: a walk down from domain to domain, and what is made of its points."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from disam_jax import trees
from disam_jax.hyperparameters import (
    ABOVE_ZERO,
    Hyperparameter,
    at_step,
    check_hyperparameter,
    check_integer,
)
from disam_jax.objectives import weighted_mean
from disam_jax.passes.forward import LossGrad
from disam_jax.step import Losses, Step, method_from_step
from disam_jax.trees import Tree


def fish(rate: Hyperparameter = 5e-5) -> optax.GradientTransformationExtraArgs:
    """Fish: the mean gradient met on a walk down the domains, one after another.

    w_0 = w; w_{k+1} = w_k - rate * grad l_k(w_k) over the K domains that are there; and
    (w - w_K) / (K * rate) is descended. To second order that also raises the products of
    the domains' gradients.

    When: domains are to agree on the way down; one gradient of the batch, in sequence.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx, params = dj.fish(rate=0.25), jnp.array([3.0, 4.0])
      >>> grads, state = tx.update(
      ...     None, tx.init(params), params,
      ...     loss_fn=lambda w, center: jnp.sum((w - center) ** 2),
      ...     micro_batches=jnp.array([[1.0, 0.0], [-1.0, 0.0]]),
      ... )
      >>> print(grads)
      [5. 6.]

    Args:
      rate: > 0, of the walk's steps; a float, array or schedule. DomainBed takes the
        optimizer's.

    Returns:
      The transformation. Its update needs `micro_batches`, the domains as micro-batches
      [K, ...], walked in their order. With SGD of rate meta * K * rate after it, it is the
      authors' step w + meta * (w_K - w). The evaluation has the losses [K], each where the
      walk met it.

    Raises:
      ValueError: rate is not above 0 or not finite; at `update`, `micro_batches` is missing
        or has no common first axis, or `domain_weights` are not [K, M], finite and >= 0.

    References:
      Shi et al., Gradient Matching for Domain Generalization, ICLR 2022, Algorithm 1, as
      DomainBed's `Fish`, whose walk is Adam's; here it is plain gradient descent.
    """
    step_size = check_hyperparameter("rate", rate, at_least=ABOVE_ZERO)

    def step(loss: Losses, state: tuple[()], count: jax.Array) -> Step:
        walked, seen = _walk(loss, at_step(step_size, count))
        share = jnp.max(seen.cotangent)  # of one domain
        gradient = trees.scale(share, jax.tree.map(lambda walked: walked[-1], walked))
        return Step(gradient, state, loss.evaluation(seen._replace(gradient=gradient)))

    return method_from_step(lambda params: (), step)


def pgrad(
    rate: Hyperparameter = 5e-5, directions: int = 4
) -> optax.GradientTransformationExtraArgs:
    """PGrad: the principal directions of the points of a walk down the domains.

    Of the K + 1 points of `fish`'s walk, centered, the principal directions d_j with their
    variances v_j, the largest first: sum_j v_j / norm(v) * norm(w - w_K) * d_j over the
    first so many, each pointing as w - w_K does.

    When: what all domains share on the way down is to count more than where the last one
    led; one gradient of the batch, in sequence, and K + 1 copies of the parameters.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx, params = dj.pgrad(rate=0.25), jnp.array([3.0, 4.0])
      >>> grads, state = tx.update(
      ...     None, tx.init(params), params,
      ...     loss_fn=lambda w, center: jnp.sum((w - center) ** 2),
      ...     micro_batches=jnp.zeros((2, 2)),
      ... )
      >>> print(grads.round(2))
      [2.25 3.  ]

    Args:
      rate: > 0, of the walk's steps; a float, array or schedule.
      directions: >= 1, how many are summed.

    Returns:
      The transformation. Its update needs `micro_batches` [K, ...], walked in their order:
      the authors cut each domain's batch in three and walk three times around. What it
      gives has the length of w - w_K, not of a gradient; theirs goes to SGD of rate 0.1.

    Raises:
      ValueError: rate is not above 0 or not finite, or directions no positive integer; at
        `update`, `micro_batches` is missing or has no common first axis, or
        `domain_weights` are not [K, M], finite and >= 0.

    References:
      Wang et al., PGrad: Learning Principal Gradients for Domain Generalization, ICLR 2023,
      and the authors' code, whose walk is Adam's; here it is plain gradient descent. Both
      take the directions from the products of the points, [K + 1, K + 1].
    """
    step_size = check_hyperparameter("rate", rate, at_least=ABOVE_ZERO)
    check_integer("directions", directions)

    def step(loss: Losses, state: tuple[()], count: jax.Array) -> Step:
        length = at_step(step_size, count)
        walked, seen = _walk(loss, length)
        points = optax.tree.scale(-length, walked)
        beside = jax.vmap(trees.dot, in_axes=(None, 0))
        products = jax.vmap(beside, in_axes=(0, None))(points, points)
        coefficients = _principal(products, directions)
        gradient = trees.weighted_sum(coefficients, points)
        return Step(gradient, state, loss.evaluation(seen._replace(gradient=gradient)))

    return method_from_step(lambda params: (), step)


def _principal(products: jax.Array, directions: int) -> jax.Array:
    """What of each point, [K + 1], goes into the sum, from their products."""
    centering = jnp.eye(len(products), dtype=products.dtype) - 1 / len(products)
    values, vectors = jnp.linalg.eigh(centering @ products @ centering)
    values, vectors = values[::-1][:directions], vectors[:, ::-1][:, :directions]
    values = jnp.maximum(values, 0.0)
    # Each column makes a direction of length 1 of the points.
    columns = trees.safe_divide(centering @ vectors, jnp.sqrt(values)[None])
    ahead = jnp.where(products[-1] @ columns > 0, -1.0, 1.0)
    shares = trees.safe_divide(values, jnp.linalg.norm(values))
    return jnp.sqrt(products[-1, -1]) * columns @ (ahead * shares)


def _walk(loss: Losses, length: jax.Array) -> tuple[Tree, LossGrad]:
    """The gradients met on a walk down, summed up to each of its points, and what was seen.

    The points are w - length * walked, [K + 1, ...], the first w itself.
    """

    def go(walked: Tree, index: jax.Array) -> tuple[Tree, Any]:
        eps = optax.tree.cast_like(optax.tree.scale(-length, walked), walked)
        here = loss.of_micro_batch(index).at(eps).value_and_grad(weighted_mean)
        met = weighted_mean(here.losses, here.cotangent)
        return optax.tree.add(walked, here.gradient), (walked, met, here.aux)

    visited = loss.micro_batch_weights() > 0
    end, (before, losses, aux) = jax.lax.scan(
        go, loss.no_eps(), jnp.arange(len(visited)), unroll=loss.options.unroll
    )
    there = visited.astype(losses.dtype)
    share = trees.safe_divide(there, jnp.sum(there))
    walked = jax.tree.map(lambda x, y: jnp.concatenate([x, y[None]]), before, end)
    return walked, LossGrad(end, share, losses, aux)
