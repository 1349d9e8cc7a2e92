"""An ascent where the gradient is large for this run, and the plain gradient elsewhere."""

from typing import NamedTuple

import chex
import jax.numpy as jnp
import optax

from disam_jax import trees
from disam_jax.combinations import Combination, take_perturbed
from disam_jax.hyperparameters import (
    Hyperparameter,
    at_count,
    at_step,
    check_hyperparameter,
    check_number,
)
from disam_jax.objectives import Objective, weighted_mean
from disam_jax.policies import either
from disam_jax.sources import Points, Step, gradient_source
from disam_jax.trees import Tree


class WhereSharpMemory(NamedTuple):
    """What is kept from step to step.

    Attributes:
      perturbation: the perturbation's state.
      mean: scalar, of the squared gradient norms so far, exponentially weighted.
      variance: scalar, of the same.
    """

    perturbation: optax.OptState
    mean: chex.Array
    variance: chex.Array


def where_sharp(
    perturbation: optax.GradientTransformation,
    *,
    threshold: Hyperparameter = 0.0,
    decay: float = 0.9,
    ascent: Objective | None = None,
    descent: Objective | None = None,
    combine: Combination | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Ascends where norm(g)**2 >= mean + threshold * sqrt(variance), g = grad at w.

    mean and variance are of norm(g)**2 over the steps, this one included:
    mean <- decay * mean + (1 - decay) * n and variance <- decay * variance +
    (1 - decay) * (n - mean)**2 with n = norm(g)**2 and the new mean. g is of the descent
    objective, at every step; an ascent of another objective takes one more backward pass,
    and g is also what the combination takes.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx = dj.where_sharp(dj.ascend(rho=0.5))
      >>> state = tx.init(jnp.zeros(2))
      >>> for params in (jnp.array([3.0, 4.0]), jnp.array([0.3, 0.4])):
      ...     grads, state = tx.update(None, state, params, loss_fn=lambda w: w @ w)
      ...     print(grads)
      [6.6 8.8]
      [0.6 0.8]

    Args:
      perturbation: ascent gradient -> eps.
      threshold: in standard deviations, of any sign; a float, array or schedule. A large
        one gives ERM, a very negative one ascends always.
      decay: in [0, 1], of mean and variance.
      ascent: the objective that eps climbs; None is `weighted_mean`.
      descent: the objective that is descended; None is `weighted_mean`.
      combine: (gradient at w, gradient at w + eps) -> gradient; None is `take_perturbed`.

    Returns:
      The transformation: one gradient per step, and a second where it ascends. Under
      `jax.vmap` both are computed always.

    Raises:
      ValueError: threshold is not finite, or decay out of its range; at `update`, as
        `sharpness_aware`.

    References:
      Jiang et al., An Adaptive Policy to Employ Sharpness-Aware Minimization, ICLR 2023,
      Algorithm 1. Mean and variance start at 0.
    """
    check_hyperparameter("threshold", threshold, at_least=-jnp.inf)
    decay = check_number("decay", decay, at_most=1.0)
    ascent = weighted_mean if ascent is None else ascent
    descent = weighted_mean if descent is None else descent
    combine = take_perturbed if combine is None else combine

    def init(params: Tree) -> WhereSharpMemory:
        state = perturbation.init(trees.at_least_float32(params))
        return WhereSharpMemory(state, jnp.zeros([]), jnp.zeros([]))

    def step(points: Points, memory: WhereSharpMemory, count: chex.Array) -> Step:
        ascent_now, descent_now = at_step(ascent, count), at_step(descent, count)
        here = points.at()
        clean = here.look(descent_now)
        square = trees.dot(clean.gradient, clean.gradient)
        mean = decay * memory.mean + (1 - decay) * square
        variance = decay * memory.variance + (1 - decay) * (square - mean) ** 2
        seen = WhereSharpMemory(
            memory.perturbation,
            mean.astype(memory.mean.dtype),
            variance.astype(memory.variance.dtype),
        )

        def climb() -> Step:
            start = points.climbed(ascent_now, descent_now, here, clean)
            eps, state = perturbation.update(
                start.gradient, memory.perturbation, points.params
            )
            perturbed = points.at_perturbed(eps).look(descent_now)
            gradient = at_step(combine, count)(clean.gradient, perturbed.gradient)
            return Step(
                trees.cast_like(gradient, clean.gradient),
                seen._replace(perturbation=state),
                points.evaluation(clean, perturbed, eps, start),
            )

        def stay() -> Step:
            return Step(clean.gradient, seen, points.evaluation_at(clean))

        sharp = square >= mean + at_count(threshold, count) * jnp.sqrt(variance)
        return either(sharp, climb, stay)

    return gradient_source(init, step)
