"""LookSAM: what the last ascent found is used again between two ascents."""

from typing import NamedTuple

import jax
import optax

from disam_jax import trees
from disam_jax.hyperparameters import Hyperparameter, at_step, check_hyperparameter
from disam_jax.objectives import Objective
from disam_jax.perturbations.ascend import ascend
from disam_jax.perturbations.masks import Mask
from disam_jax.step import AT_W, Losses, Step, method_from_step
from disam_jax.trees import Tree
from disam_jax.when import either, every


class LookSAMState(NamedTuple):
    """What is kept from step to step.

    Attributes:
      perturbation: the perturbation's state.
      v: the last SAM gradient's part orthogonal to the gradient at w.
    """

    perturbation: optax.OptState
    v: Tree


def looksam(
    rho: Hyperparameter = 0.05,
    alpha: Hyperparameter = 0.7,
    period: int = 5,
    *,
    mask: Mask = None,
    ascent: Objective | None = None,
    descent: Objective | None = None,
    combine_with: str = "ascent",
) -> optax.GradientTransformationExtraArgs:
    """LookSAM: SAM at every period-th step, whose turn towards flatness is used between.

    Between, grad + alpha * norm(grad) / norm(v) * v, where v is the part of the last SAM
    gradient orthogonal to the gradient at w of that step, p - (<g, p> / <g, g>) g: it turns
    the descent towards flatness and changes slowly. Where v is zero, the plain gradient.
    1 + 1 / period gradients. alpha = 0 gives `interval_sam`.

    v's own length beside grad's is the sine of the angle between the two gradients: where
    their cosine is near 1 (a small rho), alpha = 0.7 makes of v many times what SAM makes
    of it.

    When: SAM's cost is the obstacle and one more copy of the parameters is not; large
    batches, where its turn changes slowly.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> loss_fn = lambda w: w[0] ** 2 + 3 * w[1] ** 2
      >>> tx, params = dj.looksam(rho=0.5, alpha=0.5, period=2), jnp.array([3.0, 4.0])
      >>> state = tx.init(params)
      >>> for _ in range(2):
      ...     grads, state = tx.update(None, state, params, loss_fn=loss_fn)
      ...     print(grads)
      [ 6.243 26.91 ]
      [-6.    27.  ]

    Args:
      rho: >= 0, the radius; a float, array or schedule.
      alpha: >= 0, the length of the reused part beside the gradient's; the authors' is 0.7.
      period: >= 1; the authors take 5 and 10.
      mask: which parameters are perturbed; None is all.
      ascent: the objective that is climbed; None is the weighted mean. With
        `variance_penalized(lam)`: DISAM+LookSAM.
      descent: the objective that is descended; None is the weighted mean.
      combine_with: whose gradient at w v is orthogonal to, `"ascent"` or `"descent"`.

    Returns:
      The transformation; its state holds v, as large as the parameters.

    Raises:
      ValueError: rho or alpha is negative or not finite, or period not a positive integer.

    References:
      Liu et al., Towards Efficient and Scalable Sharpness-Aware Minimization, CVPR 2022
      (arXiv 2203.02714), Algorithm 1. One projection over all leaves together; most
      implementations project tensor by tensor, which is another method.
    """
    perturbation = ascend(rho, mask=mask)
    weight = check_hyperparameter("alpha", alpha)
    at_w = AT_W[combine_with]
    due = every(period)

    def init(params: Tree) -> LookSAMState:
        return LookSAMState(perturbation.init(params), trees.zeros_like(params))

    def step(loss: Losses, state: LookSAMState, count: jax.Array) -> Step:
        def ascend() -> Step:
            ascent_grad, clean = at_w(loss)
            eps, moved = perturbation.update(
                ascent_grad.gradient, state.perturbation, loss.params
            )
            perturbed = loss.at(eps).value_and_grad(loss.descent)
            v = trees.orthogonal(perturbed.gradient, clean.gradient)
            evaluation = loss.evaluation(clean, perturbed, eps, ascent_grad)
            return Step(perturbed.gradient, LookSAMState(moved, v), evaluation)

        def reuse() -> Step:
            clean = loss.at().value_and_grad(loss.descent)
            length = at_step(weight, count) * trees.norm(clean.gradient)
            gradient = optax.tree.add(clean.gradient, trees.with_norm(state.v, length))
            gradient = optax.tree.cast_like(gradient, clean.gradient)
            return Step(gradient, state, loss.evaluation(clean))

        return either(due(count), ascend, reuse)

    return method_from_step(init, step, ascent=ascent, descent=descent)
