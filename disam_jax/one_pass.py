"""One pass per step: the perturbation comes from what is remembered, not from w.

eps = perturbation(direction)
g', pull = the gradients at w + eps
direction = remember(g' of the ascent objective), for the next step
"""

from typing import NamedTuple

import chex
import optax

from disam_jax import trees
from disam_jax.hyperparameters import at_step
from disam_jax.objectives import Objective, weighted_mean
from disam_jax.sources import Points, Step, gradient_source
from disam_jax.trees import Tree


class OnePassMemory(NamedTuple):
    """What is kept from step to step.

    Attributes:
      perturbation: the perturbation's state.
      remember: the state of what makes the direction.
      direction: that the next perturbation is made of, zeros at first.
    """

    perturbation: optax.OptState
    remember: optax.OptState
    direction: Tree


def one_pass(
    perturbation: optax.GradientTransformation,
    *,
    remember: optax.GradientTransformation | None = None,
    ascent: Objective | None = None,
    descent: Objective | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The gradient at w + eps, where eps is made of the steps before: one pass per step.

    The parameters stay w throughout, so they are what is evaluated and saved. Nothing is
    known of the losses at w: the evaluation has those at w + eps for both, and BatchNorm
    statistics come from there. With an ascent objective other than the descent's, another
    backward pass over the same residuals.

    Example:
      The first step's direction is 0, the second's the gradient of the first:

      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx, params = dj.one_pass(dj.ascend(rho=0.5)), jnp.array([3.0, 4.0])
      >>> state = tx.init(params)
      >>> for _ in range(2):
      ...     grads, state = tx.update(None, state, params, loss_fn=lambda w: w @ w)
      ...     print(grads)
      [6. 8.]
      [6.6 8.8]

    Args:
      perturbation: direction -> eps, an Optax transformation.
      remember: gradient at w + eps -> the next step's direction, an Optax transformation;
        None is that gradient, `optax.trace(0.9)` the momentum of SGD.
      ascent: whose gradient is remembered; None is the weighted mean.
      descent: the objective that is descended; None is the weighted mean.

    Returns:
      The transformation; its state holds the direction, as large as the parameters.

    Raises:
      ValueError, TypeError: at `update`, as `sharpness_aware`.

    References:
      The form of Becker et al., Momentum-SAM, 2024 (arXiv 2401.12033), Algorithm 1, with
      any memory and any ascent objective; their sign is -1, see `momentum_sam`.
    """
    remember = optax.identity() if remember is None else remember
    ascent = weighted_mean if ascent is None else ascent
    descent = weighted_mean if descent is None else descent

    def init(params: Tree) -> OnePassMemory:
        wide = trees.at_least_float32(params)
        return OnePassMemory(
            perturbation.init(wide), remember.init(wide), optax.tree.zeros_like(wide)
        )

    def step(points: Points, memory: OnePassMemory, count: chex.Array) -> Step:
        eps, moved = perturbation.update(
            memory.direction, memory.perturbation, points.params
        )
        climbed, seen = points.looks(at_step(ascent, count), at_step(descent, count), eps)
        direction, kept = remember.update(climbed.gradient, memory.remember, points.params)
        return Step(
            seen.gradient,
            OnePassMemory(moved, kept, direction),
            points.evaluation(seen, seen, eps, climbed),
        )

    return gradient_source(init, step)


def one_pass_by_domain(
    perturbation: optax.GradientTransformation,
    *,
    ascent: Objective | None = None,
    descent: Objective | None = None,
) -> optax.GradientTransformationExtraArgs:
    """`one_pass` with the domains as pieces: another ascent objective costs nothing.

    The gradient g_i of each domain at w + eps is taken from its own examples, which costs
    one gradient of the batch in all. Then any number of objectives may be had of them:
    the descent sum_i d_i * g_i, and sum_i b_i * g_i, along which the next step's eps lies,
    where d and b are the gradients of the objectives by the domain losses seen here.

    Example:
      The first step's direction is 0, the second's that of the first:

      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx = dj.one_pass_by_domain(dj.ascend(0.5), ascent=dj.variance_penalized(0.1))
      >>> params = jnp.array([3.0, 4.0])
      >>> state = tx.init(params)
      >>> for _ in range(2):
      ...     grads, state = tx.update(
      ...         None, state, params,
      ...         loss_fn=lambda w, center: jnp.sum((w - center) ** 2),
      ...         micro_batches=jnp.array([[1.0, 0.0], [-1.0, 0.0]]),
      ...     )
      ...     print(grads.round(2))
      [6. 8.]
      [6.41 8.91]

    Args:
      perturbation: direction -> eps, an Optax transformation.
      ascent: whose gradient is the next step's direction; None is the weighted mean.
      descent: the objective that is descended; None is the weighted mean.

    Returns:
      The transformation. Its update needs `micro_batches`, the domains as pieces [K, ...];
      the evaluation's losses [K] are the pieces'. K gradients are held at once, and a
      model's live BatchNorm normalizes domain by domain.

    Raises:
      ValueError: at `update`, `micro_batches` is missing or has no common first axis.

    References:
      Not published; DISAM's Eq. 7 (Zhang et al., ICLR 2024) at the point before.
    """
    ascent = weighted_mean if ascent is None else ascent
    descent = weighted_mean if descent is None else descent

    def init(params: Tree) -> OnePassMemory:
        wide = trees.at_least_float32(params)
        zeros = optax.tree.zeros_like(wide)
        return OnePassMemory(perturbation.init(wide), optax.EmptyState(), zeros)

    def step(points: Points, memory: OnePassMemory, count: chex.Array) -> Step:
        eps, moved = perturbation.update(
            memory.direction, memory.perturbation, points.params
        )
        seen = points.by_piece(eps)
        climbed = seen.toward(at_step(ascent, count))
        descended = seen.toward(at_step(descent, count))
        return Step(
            descended.gradient,
            memory._replace(perturbation=moved, direction=climbed.gradient),
            points.evaluation(descended, descended, eps, climbed),
        )

    return gradient_source(init, step)
