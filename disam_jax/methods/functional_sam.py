"""Functional SAM: the model is perturbed, and what its outputs cost is not."""

from typing import Any

import jax
import optax

from disam_jax.composed import ComposedLoss
from disam_jax.hyperparameters import Hyperparameter
from disam_jax.objectives import Objective
from disam_jax.perturbations.ascend import ascend
from disam_jax.perturbations.masks import Mask
from disam_jax.step import Losses, Step, method_from_step


def functional_sam(
    rho: Hyperparameter = 0.05,
    *,
    mask: Mask = None,
    ascent: Objective | None = None,
    descent: Objective | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Functional SAM: the way back through the model at w + eps, from its outputs at w.

    With outputs F and loss l of them: J_F(w + eps)^T grad l(F(w)), eps as SAM's. SAM's
    own gradient takes grad l(F(w + eps)). Of a model that is linear in its parameters it is
    ERM's gradient.

    When: SAM fails because the loss of the perturbed outputs dominates (language models).

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> loss_fn = dj.composed_loss(lambda w: w**2, lambda outputs: jnp.sum(outputs))
      >>> tx, params = dj.functional_sam(rho=0.5), jnp.array([3.0, 4.0])
      >>> print(tx.update(None, tx.init(params), params, loss_fn=loss_fn)[0])
      [6.6 8.8]

    Args:
      rho: >= 0, the radius; a float, array or schedule.
      mask, ascent, descent: as in `sam`.

    Returns:
      The transformation. Its `loss_fn` is a `composed_loss`. The evaluation's
      perturbed_losses are those of the tangent at the outputs of w. In micro-batches the
      outputs at w are computed once more.

    Raises:
      ValueError: rho is negative or not finite.
      TypeError: at `update`, the loss function is not in two parts.

    References:
      Singh et al., Avoiding Spurious Sharpness Minimization Broadens Applicability of SAM,
      ICML 2025 (arXiv 2502.02407), its functional term; no release exists.
    """
    perturbation = ascend(rho, mask=mask)

    def step(loss: Losses, state: Any, count: jax.Array) -> Step:
        ascent_grad, clean = loss.ascent_alone()
        eps, state = perturbation.update(ascent_grad.gradient, state, loss.params)
        tangent = _in_two_parts(loss).tangent_at(loss.params)
        perturbed = loss.at(eps, tangent).value_and_grad(loss.descent)
        evaluation = loss.evaluation(clean, perturbed, eps, ascent_grad)
        return Step(perturbed.gradient, state, evaluation)

    return method_from_step(perturbation.init, step, ascent=ascent, descent=descent)


def _in_two_parts(loss: Losses) -> ComposedLoss:
    loss_fn = loss.options.perturbed_loss_fn or loss.options.loss_fn
    if not isinstance(loss_fn, ComposedLoss):
        raise TypeError(
            "functional_sam needs a loss function in two parts, "
            "disam_jax.composed_loss(outputs_fn, loss_of_outputs), for it keeps the "
            f"gradient by the outputs; got {loss_fn!r}."
        )
    return loss_fn
