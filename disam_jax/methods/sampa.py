"""SAMPa: SAM whose two gradients are of points that are known before the step."""

from typing import NamedTuple

import jax
import optax

from disam_jax import trees
from disam_jax.hyperparameters import Hyperparameter, at_step, check_hyperparameter
from disam_jax.objectives import Objective
from disam_jax.perturbations.ascend import ascend
from disam_jax.perturbations.masks import Mask
from disam_jax.step import Losses, Step, method_from_step
from disam_jax.trees import Tree


class SAMPaState(NamedTuple):
    """State of `sampa`.

    Attributes:
      perturbation: of the perturbation.
      ahead: the ascent gradient at the last step's y.
    """

    perturbation: optax.OptState
    ahead: Tree


def sampa(
    learning_rate: Hyperparameter,
    rho: Hyperparameter = 0.1,
    alpha: Hyperparameter = 0.2,
    *,
    mask: Mask = None,
    ascent: Objective | None = None,
    descent: Objective | None = None,
) -> optax.GradientTransformationExtraArgs:
    """SAMPa: climbs the gradient at where plain SGD would have gone, not the one at w.

    With d the ascent gradient at the last step's y, and 0 in the first step, y is
    w - learning_rate * d and eps is rho * d / norm(d). The descent is
    (1 - alpha) * grad(w + eps) + alpha * grad(y), and neither waits for the other.

    When: there are devices for both passes at once: a step then takes as long as one
    gradient. On one device it costs two. The paper proves that it converges at a constant
    rho.

    Example:
      The first step's eps is 0 and its y is w:

      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx, params = dj.sampa(0.25, rho=0.5, alpha=0.5), jnp.array([3.0, 4.0])
      >>> state = tx.init(params)
      >>> for _ in range(2):
      ...     grads, state = tx.update(None, state, params, loss_fn=lambda w: w @ w)
      ...     print(grads)
      [6. 8.]
      [4.8 6.4]

    Args:
      learning_rate: >= 0, of the SGD that stands after it; a float, array or schedule.
      rho: >= 0, the radius; a float, array or schedule.
      alpha: >= 0, the weight of the gradient at y, the paper's lambda; 0 needs y for eps
        alone, and with a learning rate of 0 is `async_sam`.
      mask, ascent, descent: as in `sam`.

    Returns:
      The transformation; its state holds d, as large as the parameters. The evaluation's
      losses at w are those at y.

    Raises:
      ValueError: learning_rate, rho or alpha is negative or not finite.

    References:
      Xie et al., SAMPa: Sharpness-aware Minimization Parallelized, NeurIPS 2024 (arXiv
      2410.10683), whose numbers are the defaults. There the gradient at y is of the coming
      batch, that at w + eps of the one before: give the loss of the coming batch as
      `ascent_loss_fn`. With momentum the authors' code goes on to y with it; here y is
      SGD's whatever stands after.
    """
    rate = check_hyperparameter("learning_rate", learning_rate)
    weight = check_hyperparameter("alpha", alpha)
    perturbation = ascend(rho, mask=mask)

    def init(params: Tree) -> SAMPaState:
        return SAMPaState(perturbation.init(params), trees.zeros_like(params))

    def step(loss: Losses, state: SAMPaState, count: jax.Array) -> Step:
        eps, moved = perturbation.update(state.ahead, state.perturbation, loss.params)
        y = loss.at_ascent(optax.tree.scale(-at_step(rate, count), state.ahead))
        clean = y.value_and_grad(loss.descent)
        climbed = clean if loss.ascent == loss.descent else y.value_and_grad(loss.ascent)
        perturbed, a = loss.at(eps).value_and_grad(loss.descent), at_step(weight, count)
        gradient = jax.tree.map(
            lambda p, g: (1 - a) * p + a * g, perturbed.gradient, clean.gradient
        )
        evaluation = loss.evaluation(clean, perturbed, eps, climbed)
        return Step(gradient, SAMPaState(moved, climbed.gradient), evaluation)

    return method_from_step(init, step, ascent=ascent, descent=descent)
