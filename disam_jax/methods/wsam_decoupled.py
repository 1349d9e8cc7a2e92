"""WSAM, decoupled: the sharpness's gradient goes around the optimizer."""

from typing import Any, NamedTuple

import jax
import optax

from disam_jax import trees
from disam_jax.hyperparameters import Hyperparameter, at_step, check_hyperparameter
from disam_jax.methods.combined import sharpness_weight
from disam_jax.objectives import Objective
from disam_jax.perturbations.ascend import ascend
from disam_jax.perturbations.masks import Mask
from disam_jax.step import Losses, SharpnessState, Step, method_from_step
from disam_jax.trees import Tree


class DecoupledState(NamedTuple):
    """State of `wsam_decoupled`.

    Attributes:
      method: of the two gradients.
      optimizer: of the optimizer that descends the plain one.
    """

    method: SharpnessState
    optimizer: optax.OptState


def wsam_decoupled(
    optimizer: optax.GradientTransformation,
    learning_rate: Hyperparameter,
    rho: Hyperparameter = 0.05,
    gamma: float = 0.9,
    *,
    mask: Mask = None,
    ascent: Objective | None = None,
    descent: Objective | None = None,
) -> optax.GradientTransformationExtraArgs:
    """WSAM, decoupled: the optimizer's step on grad, and the sharpness's beside it.

    update = optimizer(grad) - learning_rate * weight * (SAM's gradient - grad) with
    weight = gamma / (1 - gamma), so that the optimizer's moments see the plain gradient
    alone, as in decoupled weight decay. It is a whole optimizer: nothing that scales by a
    learning rate stands after it.

    When: an adaptive optimizer should not see the sharpness's gradient in its moments.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp, optax
      >>> tx = dj.wsam_decoupled(optax.sgd(0.1), 0.1, rho=0.5, gamma=0.75)
      >>> params = jnp.array([3.0, 4.0])
      >>> print(tx.update(None, tx.init(params), params, loss_fn=lambda w: w @ w)[0])
      [-0.78 -1.04]

    Args:
      optimizer: what descends the plain gradient, with its learning rate.
      learning_rate: the same again, a float, array or schedule.
      rho: >= 0, the radius; a float, array or schedule.
      gamma: in [0, 1); the sharpness weighs gamma / (1 - gamma).
      mask, ascent, descent: as in `sam`.

    Returns:
      The transformation, a whole optimizer.

    Raises:
      ValueError: rho or the learning rate is negative or not finite, or gamma not in
        [0, 1).

    References:
      Yue et al., KDD 2023 (arXiv 2305.15817), the default form of the released code.
    """
    rate = check_hyperparameter("learning_rate", learning_rate)
    weight = sharpness_weight(gamma)
    perturbation = ascend(rho, mask=mask)

    def step(loss: Losses, state: Any, count: jax.Array) -> Step:
        ascent_grad, clean = loss.ascent_and_descent()
        inner = state["perturbation"]
        eps, inner = perturbation.update(ascent_grad.gradient, inner, loss.params)
        perturbed = loss.at(eps).value_and_grad(loss.descent)
        sharpness = optax.tree.sub(perturbed.gradient, clean.gradient)
        state = {"perturbation": inner, "sharpness": sharpness}
        evaluation = loss.evaluation(clean, perturbed, eps, ascent_grad)
        return Step(clean.gradient, state, evaluation)

    method: Any = method_from_step(
        lambda params: {"perturbation": perturbation.init(params), "sharpness": ()},
        step,
        ascent=ascent,
        descent=descent,
    )

    def init(params: Tree) -> DecoupledState:
        return DecoupledState(method.init(params), optimizer.init(params))

    def update(
        updates: Any, state: DecoupledState, params: Tree | None = None, **options: Any
    ) -> tuple[Tree, DecoupledState]:
        grads, after = method.update(updates, state.method, params, **options)
        updates, base = optimizer.update(grads, state.optimizer, params)
        scale = weight * at_step(rate, state.method.count)
        sharpness = trees.from_real(after.inner["sharpness"])
        wide = trees.at_least_float32(updates)
        updates = jax.tree.map(lambda u, s: u - scale * s, wide, sharpness)
        # The sharpness's gradient is this step's alone.
        after = after._replace(inner={**after.inner, "sharpness": ()})
        return optax.tree.cast_like(updates, grads), DecoupledState(after, base)

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]
