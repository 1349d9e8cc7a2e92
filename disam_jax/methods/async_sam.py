"""AsyncSAM: the two passes of a step do not wait for each other."""

import jax
import optax

from disam_jax import trees
from disam_jax.hyperparameters import Hyperparameter
from disam_jax.methods.one_pass import OnePassState
from disam_jax.objectives import Objective
from disam_jax.perturbations.ascend import ascend
from disam_jax.perturbations.masks import Mask
from disam_jax.step import Losses, Step, method_from_step
from disam_jax.trees import Tree


def async_sam(
    rho: Hyperparameter = 0.05,
    *,
    mask: Mask = None,
    ascent: Objective | None = None,
    descent: Objective | None = None,
) -> optax.GradientTransformationExtraArgs:
    """AsyncSAM: eps climbs the gradient that the step before took at its own w.

    eps = rho * d / norm(d), where d is the ascent gradient at the last step's w, of its
    batch; 0 in the first step. The gradient at w, for the next step, and that at w + eps
    need nothing of each other.

    When: there are devices for both passes at once: a step then takes as long as one
    gradient. On one device it costs two, and `one_pass`, which remembers the gradient at
    w + eps, one.

    Example:
      The first step's eps is 0, the second climbs the gradient of the first:

      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx, params = dj.async_sam(rho=0.5), jnp.array([3.0, 4.0])
      >>> state = tx.init(params)
      >>> for _ in range(2):
      ...     grads, state = tx.update(None, state, params, loss_fn=lambda w: w @ w)
      ...     print(grads)
      [6. 8.]
      [6.6 8.8]

    Args:
      rho: >= 0, the radius; a float, array or schedule.
      mask, ascent, descent: as in `sam`.

    Returns:
      The transformation; its state holds d, as large as the parameters.

    Raises:
      ValueError: rho is negative or not finite.

    References:
      AsyncSAM, 2025 (arXiv 2503.11147); no code of theirs was found. Theirs takes d from a
      smaller batch on a slower device: an `ascent_loss_fn` is what to take it of.
    """
    perturbation = ascend(rho, mask=mask)

    def init(params: Tree) -> OnePassState:
        first = trees.zeros_like(params)
        return OnePassState(perturbation.init(params), optax.EmptyState(), first)

    def step(loss: Losses, state: OnePassState, count: jax.Array) -> Step:
        eps, moved = perturbation.update(state.direction, state.perturbation, loss.params)
        ascent_grad, clean = loss.ascent_alone()
        perturbed = loss.at(eps).value_and_grad(loss.descent)
        state = OnePassState(moved, state.remember, ascent_grad.gradient)
        evaluation = loss.evaluation(clean, perturbed, eps, ascent_grad)
        return Step(perturbed.gradient, state, evaluation)

    return method_from_step(init, step, ascent=ascent, descent=descent)
