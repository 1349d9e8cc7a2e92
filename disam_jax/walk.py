"""A walk from domain to domain: every gradient on the way is climbed and descended."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from disam_jax import trees
from disam_jax.objectives import weighted_mean
from disam_jax.passes import Look
from disam_jax.sources import MISSING_PIECES, Points, Step, gradient_source
from disam_jax.trees import Tree


def walk(
    perturbation: optax.GradientTransformation, *, seed: int = 0
) -> optax.GradientTransformationExtraArgs:
    """The mean of the gradients met on a walk over the micro-batches, one domain in each.

    eps_0 = 0; for j = 1 ... K + 1: g_j = grad of piece order[j] at w + eps_{j-1} and
    eps_j = eps_{j-1} + perturbation(g_j). The order is random, another one every step, and
    ends where it began. K + 1 gradients of one piece each, so (K + 1) / K of a batch's.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx, params = dj.walk(dj.ascend(rho=0.5)), jnp.zeros(2)
      >>> grads, _ = tx.update(
      ...     None, tx.init(params), params,
      ...     loss_fn=lambda w, center: jnp.sum((w - center) ** 2),
      ...     micro_batches=jnp.array([[1.0, 0.0], [1.0, 0.0]]),
      ... )
      >>> print(grads)
      [-3. -0.]

    Args:
      perturbation: gradient of a piece -> what eps grows by.
      seed: of the orders; with the step count it gives each step's.

    Returns:
      The transformation. Its update needs `micro_batches`, the domains as pieces [K, ...],
      and, where some may be absent, their `domain_weights` [K, M] with zeros. Pieces count
      alike in the mean. The evaluation's losses [K] are the pieces' own, each seen once
      on the way.

    Raises:
      ValueError: at `update`, `micro_batches` is missing or has no common first axis.

    References:
      Song et al., Domain-wise Gradual Sharpness-Aware Minimization, 2025, Algorithm 1; see
      `dgsam` for the difference.
    """

    def step(points: Points, memory: optax.OptState, count: chex.Array) -> Step:
        num = points.num_pieces
        if num is None:
            raise ValueError(MISSING_PIECES)
        key = jax.random.fold_in(jax.random.key(seed), count)
        order = jax.random.permutation(key, num)
        present = jnp.asarray(points.piece_shares() > 0)
        order = order[jnp.argsort(~present[order])]  # the absent last: no walk begins there
        visits = jnp.append(order, order[:1])

        def visit(carry: tuple[Tree, Tree, Tree], index: chex.Array) -> tuple[Any, Any]:
            eps, _, total = carry
            look = points.at_piece(index, eps).look(weighted_mean)
            further, _ = perturbation.update(look.gradient, memory, points.params)
            loss = weighted_mean(look.losses, look.domain_weights)
            total = optax.tree.add(total, look.gradient)
            return (optax.tree.add(eps, further), eps, total), (loss, look.aux)

        zero = points.zero()
        (_, eps, total), (losses, aux) = jax.lax.scan(
            visit, (zero, zero, zero), visits, unroll=points.unroll
        )
        met = jnp.maximum(jnp.sum(present[visits]), 1)
        gradient = optax.tree.scale(1 / met, total)
        seen = Look(
            gradient=gradient,
            domain_weights=present / jnp.maximum(jnp.sum(present), 1),
            losses=jnp.zeros_like(losses[:num]).at[order].set(losses[:num]),
            aux=jax.tree.map(lambda x: x[:num], aux),
        )
        return Step(gradient, memory, points.evaluation(seen, seen, eps))

    return gradient_source(
        lambda params: perturbation.init(trees.at_least_float32(params)), step
    )
