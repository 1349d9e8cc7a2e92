"""AE-SAM: an ascent where the gradient is large for this run, else the plain gradient."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from disam_jax import trees
from disam_jax.combinations import Combination, combination_at
from disam_jax.hyperparameters import (
    Hyperparameter,
    at_step,
    check_hyperparameter,
    check_number,
)
from disam_jax.objectives import Objective, check_part
from disam_jax.perturbations.ascend import ascend
from disam_jax.perturbations.masks import Mask
from disam_jax.step import Losses, Step, method_from_step
from disam_jax.trees import Tree
from disam_jax.when import either


class AESAMState(NamedTuple):
    """What is kept from step to step.

    Attributes:
      perturbation: the perturbation's state.
      mean: scalar, of the squared gradient norms so far, exponentially weighted.
      variance: scalar, of the same.
    """

    perturbation: optax.OptState
    mean: jax.Array
    variance: jax.Array


def ae_sam(
    rho: Hyperparameter = 0.05,
    threshold: Hyperparameter = 0.0,
    *,
    decay: float = 0.9,
    mask: Mask = None,
    ascent: Objective | None = None,
    descent: Objective | None = None,
    combine: Combination | None = None,
) -> optax.GradientTransformationExtraArgs:
    """AE-SAM: SAM where the squared gradient norm is large for this run, ERM elsewhere.

    It ascends where norm(g)**2 >= mean + threshold * sqrt(variance), g the gradient at w,
    with mean <- decay * mean + (1 - decay) * n and variance <- decay * variance +
    (1 - decay) * (n - mean)**2 for n = norm(g)**2, this step's included. One gradient per
    step, and a second where it ascends; under `jax.vmap` both are computed always.

    When: ascents should go where they matter; the cost is known only afterwards.

    Example:
      The paper lets the threshold fall from 1 to -1 over the run:

      >>> import disam_jax as dj, jax.numpy as jnp, optax
      >>> tx = dj.ae_sam(rho=0.5, threshold=optax.linear_schedule(1.0, -1.0, 2000))
      >>> params = jnp.array([3.0, 4.0])
      >>> print(tx.update(None, tx.init(params), params, loss_fn=lambda w: w @ w)[0])
      [6.6 8.8]

    Args:
      rho: >= 0, the radius; a float, array or schedule.
      threshold: in standard deviations, of any sign; a float, array or schedule. A large
        one gives ERM, a very negative one ascends always.
      decay: in [0, 1], of the mean and the deviation.
      mask, descent: as in `sam`.
      ascent: as in `sam`; another objective takes one more backward pass where it ascends.
      combine: (gradient at w, gradient at w + eps) -> gradient, where it ascends; None is
        `take_perturbed`.

    Returns:
      The transformation.

    Raises:
      ValueError: rho is negative or not finite, threshold not finite, or decay out of
        [0, 1].
      TypeError: `combine` is no combination, or what makes one and was not called.

    References:
      Jiang et al., An Adaptive Policy to Employ Sharpness-Aware Minimization, ICLR 2023
      (arXiv 2304.14647), Algorithm 1. Mean and variance start at 0.
    """
    perturbation = ascend(rho, mask=mask)
    threshold = check_hyperparameter("threshold", threshold, at_least=-math.inf)
    decay = check_number("decay", decay, at_most=1.0)
    check_part("combine", combine, Combination)

    def init(params: Tree) -> AESAMState:
        zero = jnp.zeros_like(trees.dot(params, params))  # as wide as the squared norm
        return AESAMState(perturbation.init(params), zero, zero)

    def step(loss: Losses, state: AESAMState, count: jax.Array) -> Step:
        here = loss.at()
        clean = here.value_and_grad(loss.descent)
        square = trees.dot(clean.gradient, clean.gradient)
        mean = decay * state.mean + (1 - decay) * square
        variance = decay * state.variance + (1 - decay) * (square - mean) ** 2
        moments = optax.tree.cast_like((mean, variance), (state.mean, state.variance))

        def ascend() -> Step:
            ascent_grad = loss.ascent_beside(clean, here)
            eps, moved = perturbation.update(
                ascent_grad.gradient, state.perturbation, loss.params
            )
            perturbed = loss.at(eps).value_and_grad(loss.descent)
            gradient = combination_at(combine, count)(clean.gradient, perturbed.gradient)
            gradient = optax.tree.cast_like(gradient, clean.gradient)
            evaluation = loss.evaluation(clean, perturbed, eps, ascent_grad)
            return Step(gradient, AESAMState(moved, *moments), evaluation)

        def descend() -> Step:
            kept = AESAMState(state.perturbation, *moments)
            return Step(clean.gradient, kept, loss.evaluation(clean))

        deviation = jnp.sqrt(variance)
        sharp = square >= mean + at_step(threshold, count) * deviation
        return either(sharp, ascend, descend)

    return method_from_step(init, step, ascent=ascent, descent=descent)
